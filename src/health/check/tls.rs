//! Probes over TLS.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::probe::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;

type Config = dyn Fn(&Endpoint) -> Result<ClientConfig, Error> + Send + Sync;

/// Makes the configuration for an endpoint. The number tells closures apart.
#[derive(Clone)]
pub(crate) struct Tls {
    number: u64,
    config: Arc<Config>,
}

impl Tls {
    pub(super) fn new<F>(config: F) -> Self
    where
        F: Fn(&Endpoint) -> Result<ClientConfig, Error> + Send + Sync + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            config: Arc::new(config),
        }
    }

    /// TLS on that connection, to whom `host` names.
    pub(super) async fn over(
        &self,
        endpoint: &Endpoint,
        host: &str,
        protocol: &[u8],
        connection: Box<dyn Connection>,
    ) -> io::Result<Box<dyn Connection>> {
        let mut config = (self.config)(endpoint).map_err(io::Error::other)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = endpoint.tls_name().unwrap_or_else(|| without_port(host));
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Box::new(connector.connect(name, connection).await?))
    }
}

/// The host of an authority.
fn without_port(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.number).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_authority_without_its_port() {
        for (authority, host) in [
            ("users", "users"),
            ("users:80", "users"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(without_port(authority), host);
        }
    }
}
