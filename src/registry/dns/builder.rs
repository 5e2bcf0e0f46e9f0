//! How DNS is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::lookup::Lookup;
use super::source::Name;
use super::{Dns, Shared};
use crate::error::Error;

/// Which addresses of a name are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Families {
    /// IPv4, and IPv6 for names that have no other. A host that has both is
    /// one endpoint then, and not two.
    #[default]
    PreferV4,
    /// IPv6, and IPv4 for names that have no other.
    PreferV6,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// All there are, each an endpoint.
    Both,
}

/// Sets up a [`Dns`].
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`servers`](Self::servers) | the system's | `/etc/resolv.conf` |
/// | [`refresh`](Self::refresh) | 1 s to 60 s | a TTL of 0 (Consul's) must not become a storm, one of a day not an outage |
/// | [`families`](Self::families) | IPv4, else IPv6 | a host with both is one endpoint |
/// | [`timeout`](Self::timeout) | 2 s, two tries | resolv.conf's 5 s is longer than most calls may take |
/// | [`hold_negative`](Self::hold_negative) | 30 s | `HAProxy`'s `hold nx` |
/// | [`hold_failed`](Self::hold_failed) | 1 day | RFC 8767 |
#[derive(Clone, Debug)]
#[must_use = "a DNS registry is made by `build`"]
pub struct DnsBuilder {
    pattern: String,
    pub(super) port: Option<u16>,
    servers: Vec<SocketAddr>,
    pub(super) families: Families,
    pub(super) refresh: (Duration, Duration),
    timeout: Duration,
    pub(super) hold_negative: Duration,
    pub(super) hold_failed: Duration,
}

impl DnsBuilder {
    pub(super) fn new(pattern: String, port: Option<u16>) -> Self {
        Self {
            pattern,
            port,
            servers: Vec::new(),
            families: Families::default(),
            refresh: (Duration::from_secs(1), Duration::from_mins(1)),
            timeout: Duration::from_secs(2),
            hold_negative: Duration::from_secs(30),
            hold_failed: Duration::from_hours(24),
        }
    }

    /// The servers to ask, by UDP, and by TCP where an answer is too long.
    pub fn servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.servers = servers.into_iter().collect();
        self
    }

    /// Which addresses of a name are taken.
    pub fn families(mut self, families: Families) -> Self {
        self.families = families;
        self
    }

    /// The bounds of the time between two queries, whatever the records' time
    /// to live. One that failed is made again sooner: first within a second or
    /// so, and ever more rarely, every 10 s or so.
    pub fn refresh(mut self, least: Duration, most: Duration) -> Self {
        self.refresh = (least, most);
        self
    }

    /// How long a server may take for an answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long the last good set stands while DNS answers that there is no
    /// such name, or no such record. Zero takes that at its word.
    pub fn hold_negative(mut self, hold: Duration) -> Self {
        self.hold_negative = hold;
        self
    }

    /// How long the last good set stands while DNS fails.
    pub fn hold_failed(mut self, hold: Duration) -> Self {
        self.hold_failed = hold;
        self
    }

    /// Checks the settings and reads the system's.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the pattern makes no DNS name, the port is 0,
    /// the bounds cross, or a time is zero that must not be;
    /// [`Error::is_registry`] when the system's settings cannot be read.
    pub fn build(self) -> Result<Dns, Error> {
        Name::new(&self.pattern.replace("{service}", "service"))?;
        if self.port == Some(0) {
            return Err(Error::invalid("dns.port", 0, "nothing listens on port 0"));
        }
        let (least, most) = self.refresh;
        if least < Duration::from_millis(10) || least > most {
            let reason = "10 ms at the least, and not more than the upper bound";
            let value = format!("{least:?} to {most:?}");
            return Err(Error::invalid("dns.refresh", value, reason));
        }
        if self.timeout.is_zero() {
            let reason = "no server answers in no time";
            return Err(Error::invalid("dns.timeout", "0", reason));
        }
        let unusable = |error| Error::registry_because("dns", "no resolver can be made", error);
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(unusable)?
        } else {
            let servers = self.servers.iter().map(|at| server(*at)).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = self.timeout;
        options.attempts = 2;
        // Answers live by the bounds above, and are shared here.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build().map_err(unusable)?;
        Ok(Dns {
            shared: Arc::new(Shared {
                pattern: self.pattern.clone(),
                lookup: Arc::new(Lookup::new(resolver, self)),
                names: Mutex::default(),
            }),
        })
    }
}

fn server(at: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(at.ip());
    for connection in &mut server.connections {
        connection.port = at.port();
    }
    server
}
