//! Where endpoints come from.

mod compose;
mod consul;
mod dns;
mod etcd;
mod eureka;
mod local;
mod tls;
mod zookeeper;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use compose::{
    FallbackRegistryConfig, FilterConfig, MergeConfig, SnapshotConfig, SourceConfig,
};
pub use consul::{
    CheckConfig, ConnectCheckConfig, ConsistencyConfig, ConsulConfig, GrpcCheckConfig,
    HttpCheckConfig, TtlCheckConfig,
};
pub use dns::{DnsConfig, FamiliesConfig};
pub use etcd::{EtcdConfig, LayoutConfig};
pub use eureka::EurekaConfig;
pub use local::{FileConfig, FixedConfig, InMemoryConfig};
pub use tls::TlsConfig;
pub use zookeeper::ZooKeeperConfig;

use crate::error::Error;
use crate::registry::{Discover, Registry};

/// A registry by its kind, with its keys below: `[registry.consul]`.
///
/// All kinds are known to every build. One whose feature is off is refused when
/// it is opened, with the feature's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistryConfig {
    /// Endpoints that are written here.
    Fixed(FixedConfig),
    /// A registry in this process, for what
    /// [registers there](Self::open_registry).
    InMemory(InMemoryConfig),
    /// A file of endpoints (feature `file`).
    File(FileConfig),
    /// DNS (feature `dns`).
    Dns(DnsConfig),
    /// Consul (feature `consul`).
    Consul(Box<ConsulConfig>),
    /// etcd (feature `etcd`).
    Etcd(Box<EtcdConfig>),
    /// Eureka (feature `eureka`).
    Eureka(EurekaConfig),
    /// `ZooKeeper` (feature `zookeeper`).
    #[serde(rename = "zookeeper")]
    ZooKeeper(Box<ZooKeeperConfig>),
    /// Several registries as one.
    Merge(MergeConfig),
    /// The next registry while the first does not answer.
    Fallback(FallbackRegistryConfig),
    /// Some endpoints of a registry.
    Filter(FilterConfig),
    /// The last known sets on disk (feature `snapshot`).
    Snapshot(SnapshotConfig),
}

/// What was opened.
pub(super) enum Opened {
    /// Can only be read.
    Source(Arc<dyn Discover>),
    /// Takes entries, too.
    Registry(Arc<dyn Registry>),
}

impl Opened {
    fn source(source: impl Discover) -> Self {
        Self::Source(Arc::new(source))
    }

    fn discover(self) -> Arc<dyn Discover> {
        match self {
            Self::Source(source) => source,
            Self::Registry(registry) => registry,
        }
    }
}

/// What needs a feature that is off; `at` is its path.
#[cfg_attr(
    all(
        feature = "consul",
        feature = "dns",
        feature = "etcd",
        feature = "eureka",
        feature = "file",
        feature = "metrics",
        feature = "quanta",
        feature = "snapshot",
        feature = "tonic",
        feature = "tracing",
        feature = "zookeeper"
    ),
    expect(dead_code, reason = "every feature is on")
)]
pub(super) fn without(at: impl Into<String>, feature: &str) -> Error {
    let reason = format!(
        "this build is without the feature `{feature}` of waypost; switch it on in Cargo.toml"
    );
    Error::config(at, reason)
}

/// What is opened where a feature is on; says so where it is off.
macro_rules! with {
    ($feature:literal, $settings:ident, $at:ident) => {{
        #[cfg(feature = $feature)]
        {
            $settings.open(&$at($feature))
        }
        #[cfg(not(feature = $feature))]
        {
            // What is not opened is not read.
            let _ = $settings;
            Err(without($at($feature), $feature))
        }
    }};
}

impl RegistryConfig {
    /// A source of endpoints. `Arc<dyn Discover>` is one, too.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the key that is wrong, or the feature that is
    /// off; [`Error::is_registry`] when what is needed cannot be opened.
    pub fn open(&self) -> Result<Arc<dyn Discover>, Error> {
        self.open_at("registry").map(Opened::discover)
    }

    /// A registry that takes entries, for a service that registers itself.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and when this one can only be read.
    pub fn open_registry(&self) -> Result<Arc<dyn Registry>, Error> {
        match self.open_at("registry")? {
            Opened::Registry(registry) => Ok(registry),
            Opened::Source(_) => {
                let reason = "it can only be read; nothing can be registered there";
                Err(Error::config("registry", reason))
            }
        }
    }

    /// `place` is the path of this registry's kind.
    fn open_at(&self, place: &str) -> Result<Opened, Error> {
        let at = |kind: &str| format!("{place}.{kind}");
        match self {
            Self::Fixed(fixed) => fixed.open(&at("fixed")),
            Self::InMemory(in_memory) => in_memory.open(&at("in_memory")),
            Self::File(file) => with!("file", file, at),
            Self::Dns(dns) => with!("dns", dns, at),
            Self::Consul(consul) => with!("consul", consul, at),
            Self::Etcd(etcd) => with!("etcd", etcd, at),
            Self::Eureka(eureka) => with!("eureka", eureka, at),
            Self::ZooKeeper(zookeeper) => with!("zookeeper", zookeeper, at),
            Self::Merge(merge) => merge.open(&at("merge")),
            Self::Fallback(fallback) => fallback.open(&at("fallback")),
            Self::Filter(filter) => filter.open(&at("filter")),
            Self::Snapshot(snapshot) => with!("snapshot", snapshot, at),
        }
    }
}

#[cfg(all(
    test,
    feature = "consul",
    feature = "dns",
    feature = "etcd",
    feature = "eureka"
))]
mod tests {
    use super::*;
    use crate::registry::{Consul, Dns, Etcd, Eureka};

    /// What is left out is as the builders have it.
    #[test]
    fn defaults_are_the_builders() {
        let shown = |builder: &dyn std::fmt::Debug| format!("{builder:#?}");
        let consul = ConsulConfig::default();
        let built = consul.builder("").expect("there is no secret to read");
        assert_eq!(shown(&built), shown(&Consul::builder(&consul.url)));
        let etcd = EtcdConfig::default();
        let built = etcd.builder("").expect("there is no secret to read");
        assert_eq!(shown(&built), shown(&Etcd::builder(&etcd.url)));
        let eureka = EurekaConfig::default();
        let built = eureka.builder("").expect("there is no secret to read");
        assert_eq!(shown(&built), shown(&Eureka::builder(&eureka.url)));
        let dns = DnsConfig::default();
        assert_eq!(shown(&dns.builder()), shown(&Dns::srv(&dns.pattern)));
    }
}
