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
mod read {
    use super::TlsConfig;
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
            let reveal = |secret: &Option<_>, key| {
                let secret: Option<&super::Secret> = secret.as_ref();
                secret
                    .map(|secret| secret.reveal(&format!("{at}.tls.{key}")))
                    .transpose()
            };
            let authorities = reveal(&self.authorities, "authorities")?;
            let certificate = reveal(&self.certificate, "certificate")?;
            let identity = match (certificate, reveal(&self.key, "key")?) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                _ => {
                    let reason = "`certificate` and `key` go together; one of them is missing";
                    return Err(Error::config(format!("{at}.tls"), reason));
                }
            };
            Ok(Pem {
                authorities,
                identity,
            })
        }
    }
}
