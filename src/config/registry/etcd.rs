//! etcd.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::Secret;
use super::super::time;
use super::TlsConfig;

/// A `registry::Etcd`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdConfig {
    /// The URL of a member of the cluster.
    pub url: String,
    /// Further members, to turn to when those before fail.
    pub members: Vec<String>,
    /// Who asks, where authentication is on.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Certificates for `https`.
    pub tls: TlsConfig,
    /// What entries look like.
    pub layout: LayoutConfig,
    /// What stands before the service in every key; the layout's own if not set.
    pub prefix: Option<String>,
    /// How long an entry stays when this process is gone.
    #[serde(with = "time")]
    pub lease_ttl: Duration,
    /// How long one call may take.
    #[serde(with = "time")]
    pub request_timeout: Duration,
    /// The most bytes that are read of one answer.
    pub max_message: usize,
}

/// What entries look like in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayoutConfig {
    /// As gRPC's own clients of etcd have it.
    #[default]
    Grpc,
    /// The endpoint itself as JSON.
    Plain,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:2379".into(),
            members: Vec::new(),
            user: None,
            password: None,
            tls: TlsConfig::default(),
            layout: LayoutConfig::default(),
            prefix: None,
            lease_ttl: Duration::from_secs(15),
            request_timeout: Duration::from_secs(3),
            max_message: 64 * 1_024 * 1_024,
        }
    }
}

#[cfg(feature = "etcd")]
mod open {
    use std::sync::Arc;

    use super::super::Opened;
    use super::super::tls::refused;
    use super::{EtcdConfig, LayoutConfig};
    use crate::error::Error;
    use crate::registry::etcd::{Etcd, EtcdBuilder, Layout};

    impl EtcdConfig {
        pub(in super::super) fn open(&self, at: &str) -> Result<Opened, Error> {
            let etcd = self.builder(at)?.build();
            let etcd = etcd.map_err(|error| refused(error, at))?;
            Ok(Opened::Registry(Arc::new(etcd)))
        }

        pub(in crate::config) fn builder(&self, at: &str) -> Result<EtcdBuilder, Error> {
            let mut etcd = Etcd::builder(&self.url)
                .layout(self.layout.into())
                .lease_ttl(self.lease_ttl)
                .request_timeout(self.request_timeout)
                .max_message(self.max_message);
            etcd = self.members.iter().fold(etcd, EtcdBuilder::endpoint);
            etcd = match (&self.user, &self.password) {
                (Some(user), Some(password)) => {
                    etcd.user(user, password.reveal(&format!("{at}.password"))?)
                }
                (None, None) => etcd,
                _ => {
                    let reason = "`user` and `password` go together; one of them is missing";
                    return Err(Error::config(at, reason));
                }
            };
            if let Some(prefix) = &self.prefix {
                etcd = etcd.prefix(prefix);
            }
            let pem = self.tls.read(at)?;
            if let Some(authorities) = pem.authorities {
                etcd = etcd.ca_certificate(authorities);
            }
            if let Some((certificate, key)) = pem.identity {
                etcd = etcd.client_certificate(certificate, key);
            }
            Ok(etcd)
        }
    }

    impl From<LayoutConfig> for Layout {
        fn from(config: LayoutConfig) -> Self {
            match config {
                LayoutConfig::Grpc => Self::Grpc,
                LayoutConfig::Plain => Self::Plain,
            }
        }
    }
}
