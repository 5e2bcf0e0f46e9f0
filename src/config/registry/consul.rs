//! Consul.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::Secret;
use super::super::time;
use super::TlsConfig;

/// A `registry::Consul`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsulConfig {
    /// The agent's URL.
    pub url: String,
    /// Further agents, to turn to when those before fail.
    pub agents: Vec<String>,
    /// The ACL token.
    pub token: Option<Secret>,
    /// Certificates for `https`.
    pub tls: TlsConfig,
    /// The datacenter to read from; the agent's own if not set.
    pub datacenter: Option<String>,
    /// The namespace (Consul Enterprise).
    pub namespace: Option<String>,
    /// Sorts by the round trip from that node.
    pub near: Option<String>,
    /// Tags that instances must have.
    pub tags: Vec<String>,
    /// Metadata that their nodes must have.
    pub node_meta: BTreeMap<String, String>,
    /// A filter expression of Consul's.
    pub filter: Option<String>,
    /// Reads only instances whose checks all pass.
    pub passing: bool,
    /// How fresh reads are.
    pub consistency: ConsistencyConfig,
    /// How long the server holds a read while nothing changes.
    #[serde(with = "time")]
    pub wait: Duration,
    /// How long any other request may take.
    #[serde(with = "time")]
    pub request_timeout: Duration,
    /// The most bytes that are read of one answer.
    pub max_body: usize,
    /// How Consul checks what is registered.
    pub check: CheckConfig,
    /// After how long at critical Consul takes an entry out.
    #[serde(with = "time::option")]
    pub deregister_critical_after: Option<Duration>,
    /// Tags of what is registered.
    pub announce_tags: Vec<String>,
    /// The weight that what is registered has while its check warns.
    pub warning_weight: u16,
}

/// How fresh a read of Consul is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConsistencyConfig {
    /// What the leader knows.
    #[default]
    Default,
    /// What any server knows.
    Stale,
    /// What the leader knows after asking a majority.
    Consistent,
}

/// How Consul finds out that an instance is well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckConfig {
    /// This process says so.
    Ttl(TtlCheckConfig),
    /// The agent asks for a page.
    Http(HttpCheckConfig),
    /// The agent connects.
    Tcp(ConnectCheckConfig),
    /// The agent calls gRPC's health service.
    Grpc(GrpcCheckConfig),
}

/// A check by this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TtlCheckConfig {
    /// After so long without a word, the instance is critical.
    #[serde(with = "time")]
    pub every: Duration,
}

/// A check by HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckConfig {
    /// What to `GET` at the endpoint's address.
    pub path: String,
    /// How often.
    #[serde(with = "time")]
    pub every: Duration,
    /// How long the agent waits; Consul's own 10 s if not set.
    #[serde(with = "time::option")]
    pub timeout: Option<Duration>,
}

/// A check by a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectCheckConfig {
    /// How often.
    #[serde(with = "time")]
    pub every: Duration,
    /// How long the agent waits; Consul's own 10 s if not set.
    #[serde(with = "time::option")]
    pub timeout: Option<Duration>,
}

/// A check by `grpc.health.v1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcCheckConfig {
    /// The service to ask for; the server as a whole if it is empty.
    pub service: String,
    /// How often.
    #[serde(with = "time")]
    pub every: Duration,
    /// How long the agent waits; Consul's own 10 s if not set.
    #[serde(with = "time::option")]
    pub timeout: Option<Duration>,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8500".into(),
            agents: Vec::new(),
            token: None,
            tls: TlsConfig::default(),
            datacenter: None,
            namespace: None,
            near: None,
            tags: Vec::new(),
            node_meta: BTreeMap::new(),
            filter: None,
            passing: false,
            consistency: ConsistencyConfig::default(),
            wait: Duration::from_mins(1),
            request_timeout: Duration::from_secs(10),
            max_body: 128 * 1_024 * 1_024,
            check: CheckConfig::Ttl(TtlCheckConfig::default()),
            deregister_critical_after: Some(Duration::from_mins(1)),
            announce_tags: Vec::new(),
            warning_weight: 1,
        }
    }
}

/// How often an agent asks: as in all examples of Consul's documentation.
const EVERY: Duration = Duration::from_secs(10);

impl Default for TtlCheckConfig {
    fn default() -> Self {
        let every = Duration::from_secs(15);
        Self { every }
    }
}

impl Default for HttpCheckConfig {
    fn default() -> Self {
        Self {
            path: "/healthz".into(),
            every: EVERY,
            timeout: None,
        }
    }
}

impl Default for ConnectCheckConfig {
    fn default() -> Self {
        Self {
            every: EVERY,
            timeout: None,
        }
    }
}

impl Default for GrpcCheckConfig {
    fn default() -> Self {
        Self {
            service: String::new(),
            every: EVERY,
            timeout: None,
        }
    }
}

#[cfg(feature = "consul")]
mod open {
    use std::sync::Arc;

    use super::super::Opened;
    use super::super::tls::refused;
    use super::{CheckConfig, ConsistencyConfig, ConsulConfig};
    use crate::error::Error;
    use crate::registry::consul::{Check, Consistency, Consul, ConsulBuilder};

    impl ConsulConfig {
        pub(in super::super) fn open(&self, at: &str) -> Result<Opened, Error> {
            let consul = self.builder(at)?.build();
            let consul = consul.map_err(|error| refused(error, at))?;
            Ok(Opened::Registry(Arc::new(consul)))
        }

        pub(in crate::config) fn builder(&self, at: &str) -> Result<ConsulBuilder, Error> {
            let mut consul = Consul::builder(&self.url)
                .passing(self.passing)
                .consistency(self.consistency.into())
                .wait(self.wait)
                .request_timeout(self.request_timeout)
                .max_body(self.max_body)
                .check(self.check.build())
                .deregister_critical_after(self.deregister_critical_after)
                .warning_weight(self.warning_weight);
            consul = self.agents.iter().fold(consul, ConsulBuilder::agent);
            consul = self.tags.iter().fold(consul, ConsulBuilder::tag);
            let announced = self.announce_tags.iter();
            consul = announced.fold(consul, ConsulBuilder::announce_tag);
            for (key, value) in &self.node_meta {
                consul = consul.node_meta(key, value);
            }
            if let Some(token) = &self.token {
                consul = consul.token(token.reveal(&format!("{at}.token"))?);
            }
            if let Some(name) = &self.datacenter {
                consul = consul.datacenter(name);
            }
            if let Some(name) = &self.namespace {
                consul = consul.namespace(name);
            }
            if let Some(node) = &self.near {
                consul = consul.near(node);
            }
            if let Some(expression) = &self.filter {
                consul = consul.filter(expression);
            }
            let pem = self.tls.read(at)?;
            if let Some(authorities) = pem.authorities {
                consul = consul.ca_certificate(authorities);
            }
            if let Some((certificate, key)) = pem.identity {
                consul = consul.client_certificate(certificate, key);
            }
            Ok(consul)
        }
    }

    impl CheckConfig {
        fn build(&self) -> Check {
            let (check, timeout) = match self {
                Self::Ttl(ttl) => (Check::ttl(ttl.every), None),
                Self::Http(http) => (Check::http(&http.path, http.every), http.timeout),
                Self::Tcp(tcp) => (Check::tcp(tcp.every), tcp.timeout),
                Self::Grpc(grpc) => (Check::grpc(&grpc.service, grpc.every), grpc.timeout),
            };
            match timeout {
                Some(timeout) => check.timeout(timeout),
                None => check,
            }
        }
    }

    impl From<ConsistencyConfig> for Consistency {
        fn from(config: ConsistencyConfig) -> Self {
            match config {
                ConsistencyConfig::Default => Self::Default,
                ConsistencyConfig::Stale => Self::Stale,
                ConsistencyConfig::Consistent => Self::Consistent,
            }
        }
    }
}
