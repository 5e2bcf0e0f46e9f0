//! DNS.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::time;

/// A `registry::Dns`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// The name to resolve, in which `{service}` stands for the service's.
    pub pattern: String,
    /// The port of A and AAAA records; SRV records are asked for if not set.
    pub port: Option<u16>,
    /// The servers to ask, on port 53 where none is written; the system's if
    /// there are none.
    #[serde(deserialize_with = "servers")]
    pub servers: Vec<SocketAddr>,
    /// Which addresses are taken.
    pub families: FamiliesConfig,
    /// The least time between two queries.
    #[serde(with = "time")]
    pub refresh_least: Duration,
    /// The most.
    #[serde(with = "time")]
    pub refresh_most: Duration,
    /// How long a server may take.
    #[serde(with = "time")]
    pub timeout: Duration,
    /// How long the last set stands while there is no such name.
    #[serde(with = "time")]
    pub hold_negative: Duration,
    /// How long it stands while DNS fails.
    #[serde(with = "time")]
    pub hold_failed: Duration,
}

/// Which addresses of a name are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FamiliesConfig {
    /// IPv4, and IPv6 for names that have no other.
    #[default]
    PreferV4,
    /// IPv6, and IPv4 for names that have no other.
    PreferV6,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// All.
    Both,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            pattern: "{service}".into(),
            port: None,
            servers: Vec::new(),
            families: FamiliesConfig::default(),
            refresh_least: Duration::from_secs(1),
            refresh_most: Duration::from_mins(1),
            timeout: Duration::from_secs(2),
            hold_negative: Duration::from_secs(30),
            hold_failed: Duration::from_hours(24),
        }
    }
}

fn servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let servers = Vec::<Server>::deserialize(from)?;
    Ok(servers.into_iter().map(|Server(at)| at).collect())
}

struct Server(SocketAddr);

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = String::deserialize(from)?;
        let at = written.parse::<SocketAddr>().or_else(|_| {
            let ip = written.parse::<IpAddr>();
            ip.map(|ip| SocketAddr::new(ip, 53))
        });
        at.map(Self).map_err(|_| {
            let reason = format!(
                "`{written}` is no server; write its IP address, and its port where that is \
                 another than 53, as `10.0.0.53:5353`"
            );
            D::Error::custom(reason)
        })
    }
}

#[cfg(feature = "dns")]
mod open {
    use super::super::Opened;
    use super::{DnsConfig, FamiliesConfig};
    use crate::error::Error;
    use crate::registry::{Dns, DnsBuilder, Families};

    impl DnsConfig {
        pub(in super::super) fn open(&self, at: &str) -> Result<Opened, Error> {
            let dns = self.builder().build();
            dns.map(Opened::source).map_err(|error| error.within(at))
        }

        pub(in crate::config) fn builder(&self) -> DnsBuilder {
            let dns = match self.port {
                Some(port) => Dns::addresses(&self.pattern, port),
                None => Dns::srv(&self.pattern),
            };
            dns.servers(self.servers.iter().copied())
                .families(self.families.into())
                .refresh(self.refresh_least, self.refresh_most)
                .timeout(self.timeout)
                .hold_negative(self.hold_negative)
                .hold_failed(self.hold_failed)
        }
    }

    impl From<FamiliesConfig> for Families {
        fn from(config: FamiliesConfig) -> Self {
            match config {
                FamiliesConfig::PreferV4 => Self::PreferV4,
                FamiliesConfig::PreferV6 => Self::PreferV6,
                FamiliesConfig::V4 => Self::V4,
                FamiliesConfig::V6 => Self::V6,
                FamiliesConfig::Both => Self::Both,
            }
        }
    }
}
