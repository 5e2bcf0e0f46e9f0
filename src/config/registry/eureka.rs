//! Eureka.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::time;
use super::TlsConfig;

/// A `registry::Eureka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EurekaConfig {
    /// The URL of the server's API.
    pub url: String,
    /// Further servers, to turn to when those before fail.
    pub servers: Vec<String>,
    /// Certificates for `https`.
    pub tls: TlsConfig,
    /// How long a request may take.
    #[serde(with = "time")]
    pub request_timeout: Duration,
    /// The time between two fetches.
    #[serde(with = "time")]
    pub fetch_interval: Duration,
    /// The time between two renewals of what is registered.
    #[serde(with = "time")]
    pub renew: Duration,
    /// How long it stays without one.
    #[serde(with = "time")]
    pub lease: Duration,
    /// The most bytes that are read of one answer.
    pub max_body: usize,
}

impl Default for EurekaConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8761/eureka".into(),
            servers: Vec::new(),
            tls: TlsConfig::default(),
            request_timeout: Duration::from_secs(8),
            fetch_interval: Duration::from_secs(30),
            renew: Duration::from_secs(30),
            lease: Duration::from_secs(90),
            max_body: 128 * 1_024 * 1_024,
        }
    }
}

#[cfg(feature = "eureka")]
mod open {
    use std::sync::Arc;

    use super::super::Opened;
    use super::super::tls::refused;
    use super::EurekaConfig;
    use crate::error::Error;
    use crate::registry::eureka::{Eureka, EurekaBuilder};

    impl EurekaConfig {
        pub(in super::super) fn open(&self, at: &str) -> Result<Opened, Error> {
            let eureka = self.builder(at)?.build();
            let eureka = eureka.map_err(|error| refused(error, at))?;
            Ok(Opened::Registry(Arc::new(eureka)))
        }

        pub(in crate::config) fn builder(&self, at: &str) -> Result<EurekaBuilder, Error> {
            let mut eureka = Eureka::builder(&self.url)
                .request_timeout(self.request_timeout)
                .fetch_interval(self.fetch_interval)
                .lease(self.renew, self.lease)
                .max_body(self.max_body);
            eureka = self.servers.iter().fold(eureka, EurekaBuilder::server);
            let pem = self.tls.read(at)?;
            if let Some(authorities) = pem.authorities {
                eureka = eureka.ca_certificate(authorities);
            }
            if let Some((certificate, key)) = pem.identity {
                eureka = eureka.client_certificate(certificate, key);
            }
            Ok(eureka)
        }
    }
}
