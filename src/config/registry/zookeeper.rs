//! ZooKeeper.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::Secret;
use super::super::time;
use super::TlsConfig;

/// A `registry::ZooKeeper`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZooKeeperConfig {
    /// A server of the ensemble, `host:port`.
    pub server: String,
    /// Further servers of it.
    pub servers: Vec<String>,
    /// The node that all services are under.
    pub base_path: String,
    /// Who asks, by the scheme `digest`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// TLS with these certificates; plain text if not set.
    pub tls: Option<TlsConfig>,
    /// How long an entry stays when this process is gone.
    #[serde(with = "time")]
    pub session_timeout: Duration,
    /// How long one request may take.
    #[serde(with = "time")]
    pub request_timeout: Duration,
    /// The most bytes that are read of one answer.
    pub max_message: usize,
}

impl Default for ZooKeeperConfig {
    fn default() -> Self {
        Self {
            server: "127.0.0.1:2181".into(),
            servers: Vec::new(),
            base_path: "/services".into(),
            user: None,
            password: None,
            tls: None,
            session_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(3),
            max_message: 64 * 1_024 * 1_024,
        }
    }
}

#[cfg(feature = "zookeeper")]
mod open {
    use std::sync::Arc;

    use super::super::Opened;
    use super::super::tls::refused;
    use super::ZooKeeperConfig;
    use crate::error::Error;
    use crate::registry::ZooKeeper;

    impl ZooKeeperConfig {
        pub(in super::super) fn open(&self, at: &str) -> Result<Opened, Error> {
            let mut zookeeper = ZooKeeper::builder(&self.server)
                .base_path(&self.base_path)
                .session_timeout(self.session_timeout)
                .request_timeout(self.request_timeout)
                .max_message(self.max_message);
            for server in &self.servers {
                zookeeper = zookeeper.server(server);
            }
            zookeeper = match (&self.user, &self.password) {
                (Some(user), Some(password)) => {
                    zookeeper.digest(user, password.reveal(&format!("{at}.password"))?)
                }
                (None, None) => zookeeper,
                _ => {
                    let reason = "`user` and `password` go together; one of them is missing";
                    return Err(Error::config(at, reason));
                }
            };
            if let Some(tls) = &self.tls {
                let pem = tls.read(at)?;
                zookeeper = zookeeper.tls();
                if let Some(authorities) = pem.authorities {
                    zookeeper = zookeeper.ca_certificate(authorities);
                }
                if let Some((certificate, key)) = pem.identity {
                    zookeeper = zookeeper.client_certificate(certificate, key);
                }
            }
            let zookeeper = zookeeper.build().map_err(|error| refused(error, at))?;
            Ok(Opened::Registry(Arc::new(zookeeper)))
        }
    }
}
