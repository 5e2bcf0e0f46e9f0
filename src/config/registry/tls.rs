//! Certificates of the registries that are asked over TLS.

use serde::{Deserialize, Serialize};

use super::super::secret::Secret;

/// Whom to trust, and who we are, as PEM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The authorities to trust; the machine's own if not set.
    pub authorities: Option<Secret>,
    /// This client's certificate chain.
    pub certificate: Option<Secret>,
    /// Its key.
    pub key: Option<Secret>,
}

#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
pub(super) use read::refused;

#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod read {
    use super::TlsConfig;
    use crate::config::secret::Secret;
    use crate::error::Error;

    /// What is to be handed to a builder.
    pub(in super::super) struct Pem {
        pub(in super::super) authorities: Option<String>,
        /// The chain, and the key.
        pub(in super::super) identity: Option<(String, String)>,
    }

    impl TlsConfig {
        /// `at` is the path of the registry.
        pub(in super::super) fn read(&self, at: &str) -> Result<Pem, Error> {
            if self.certificate.is_some() != self.key.is_some() {
                let reason = "`certificate` and `key` go together; one of them is missing";
                return Err(Error::config(format!("{at}.tls"), reason));
            }
            let read = |secret: &Option<Secret>, key| match secret {
                Some(secret) => pem(secret, &format!("{at}.tls.{key}")).map(Some),
                None => Ok(None),
            };
            let authorities = read(&self.authorities, "authorities")?;
            let certificate = read(&self.certificate, "certificate")?;
            let identity = certificate.zip(read(&self.key, "key")?);
            Ok(Pem {
                authorities,
                identity,
            })
        }
    }

    /// Looked at here, where the key is known: mostly, what is none is a path.
    fn pem(secret: &Secret, at: &str) -> Result<String, Error> {
        let text = secret.reveal(at)?;
        if !text.contains("-----BEGIN ") {
            let reason = "it is no PEM, which has a line `-----BEGIN …-----`; write a file's path \
                          as `{ file = \"/run/tls/ca.pem\" }`";
            return Err(Error::config(at, reason));
        }
        Ok(text)
    }

    /// What a builder refused, with the path of its key.
    pub(in super::super) fn refused(error: Error, at: &str) -> Error {
        match error.field() {
            Some("ca_certificate") => Error::config(format!("{at}.tls.authorities"), error),
            Some("client_certificate") => Error::config(format!("{at}.tls"), error),
            _ => error.within(at),
        }
    }
}
