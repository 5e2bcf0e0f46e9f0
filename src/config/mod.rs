//! A whole balancer from one structure, so from TOML, YAML, JSON or environment
//! variables.
//!
//! **Problem.** Where endpoints come from, how patient calls are and what is
//! ejected are the business of those who run a program, and differ from place to
//! place. A misspelt key that is silently ignored is an outage that waits.
//!
//! **Idea.** One structure, [`Config`], with a section for each part of the
//! crate. What is left out has the default that the builders have. A key that
//! is not known is refused, with its full path and the nearest one that is; a
//! value that cannot be is refused by the builder that would get it, with its
//! path and the reason. [`REFERENCE`] has every key with its default and what
//! it does.
//!
//! ```
//! use waypost::config::Config;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let config = Config::from_toml(r#"
//!     service = "users"
//!     strategy = "least_conn"
//!     registry.fixed.addresses = ["10.0.0.1:80", "10.0.0.2:80"]
//! "#)?;
//! let (users, calls) = config.build().await?;
//! assert_eq!(users.current().len(), 2);
//! # let _ = calls; Ok(()) }
//! ```
//!
//! With a client: `users.middleware().settings(calls)` for reqwest,
//! `BalanceLayer::new(users).settings(calls, …)` for tower,
//! `users.grpc().settings(calls)` for tonic. From a file, with what the
//! environment says over it:
//!
//! ```no_run
//! use waypost::config::{Config, Sources};
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let config: Config = Sources::new().file("users.toml").environment("WAYPOST").read()?;
//! # let _ = config; Ok(()) }
//! ```
//!
//! Passwords, tokens and keys are [`Secret`]s: by value, by file, or by
//! environment variable, and never shown.

mod calls;
mod directory;
mod health;
mod observe;
mod read;
mod refusal;
mod registry;
mod retry;
mod secret;
mod sources;
mod strategy;
mod time;
mod tls;
mod topology;
mod value;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use calls::{
    AdaptiveConfig, AddressConfig, AimdConfig, CallConfig, ClassifyConfig, Gradient2Config,
    KeyConfig, LimitsConfig, StickyConfig, StickyCookieConfig, StickyHeaderConfig, SubsetConfig,
    ThrottleConfig,
};
pub use directory::DirectoryConfig;
pub use health::{
    EndsEjection, HealthCheckConfig, OutlierConfig, RemovalGuardConfig, SlowStartConfig,
};
pub use observe::ObserveConfig;
pub use registry::{
    CheckConfig, ConnectCheckConfig, ConsistencyConfig, ConsulConfig, DnsConfig, EtcdConfig,
    EurekaConfig, FallbackRegistryConfig, FamiliesConfig, FileConfig, FilterConfig, FixedConfig,
    GrpcCheckConfig, HttpCheckConfig, InMemoryConfig, LayoutConfig, MergeConfig, RegistryConfig,
    SnapshotConfig, SourceConfig, TlsConfig, TtlCheckConfig, ZooKeeperConfig,
};
pub use retry::{
    BudgetConfig, HedgeBudgetConfig, HedgeConfig, RetryConfig, ShareConfig, TokensConfig,
};
pub use secret::Secret;
pub use sources::Sources;
pub use strategy::{
    KeyedConfig, LeastConnConfig, MaglevConfig, MissingKeyConfig, PickFirstConfig, PrequalConfig,
    RingHashConfig, StrategyConfig,
};
pub use tls::EndpointTlsConfig;
pub use topology::{
    ApertureConfig, FallbackConfig, PartConfig, RendezvousConfig, RocksteadierConfig,
    SubsettingConfig, TopologyConfig,
};

use crate::balancer::{Balancer, BalancerBuilder};
use crate::client::CallSettings;
use crate::endpoint::ServiceName;
use crate::error::Error;
use crate::registry::{Discover, Map};
use crate::time::Clock;

/// Every key with its default and what it does, as a TOML file that can be read:
/// `docs/config.toml`.
pub const REFERENCE: &str = include_str!("../../docs/config.toml");

/// A balancer, and how calls to its service are made.
///
/// Deserialized by anything else than [`Sources`], it is as strict, but has no
/// shorthands: what is switched off is null, and a kind without settings is an
/// empty table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The service's name.
    pub service: String,
    /// Where its endpoints come from; to be set, but for
    /// [`builder`](Self::builder).
    pub registry: Option<RegistryConfig>,
    /// Which of the endpoints that may be picked gets a call.
    pub strategy: StrategyConfig,
    /// How long the start waits for the registry's first answer.
    #[serde(with = "time")]
    pub first_answer: Duration,
    /// Whether calls are timed.
    pub latency: bool,
    /// What they are timed with.
    pub clock: ClockConfig,
    /// When an answer of the registry is doubted.
    pub removal_guard: Option<RemovalGuardConfig>,
    /// When endpoints are ejected because calls to them fail.
    pub outlier_ejection: Option<OutlierConfig>,
    /// How endpoints are probed.
    pub health_check: Option<HealthCheckConfig>,
    /// How the weight of those grows that are new or back.
    pub slow_start: Option<SlowStartConfig>,
    /// How calls are spread over priorities, zones and subsets.
    pub topology: TopologyConfig,
    /// What services cost that are served by name ([`directory`](Self::directory)).
    pub directory: DirectoryConfig,
    /// How calls are made.
    pub calls: CallConfig,
}

/// What calls are timed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClockConfig {
    /// [`Clock::system`].
    #[default]
    System,
    /// `Clock::tsc` (feature `quanta`).
    Tsc,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service: String::new(),
            registry: None,
            strategy: StrategyConfig::default(),
            first_answer: Duration::from_secs(5),
            latency: true,
            clock: ClockConfig::default(),
            removal_guard: Some(RemovalGuardConfig::default()),
            outlier_ejection: Some(OutlierConfig::default()),
            health_check: None,
            slow_start: None,
            topology: TopologyConfig::default(),
            directory: DirectoryConfig::default(),
            calls: CallConfig::default(),
        }
    }
}

impl Config {
    /// From a file; its ending tells whether it is TOML, YAML or JSON.
    ///
    /// # Errors
    ///
    /// As [`Sources::read`].
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        Sources::new().file(path).read()
    }

    /// From TOML.
    ///
    /// # Errors
    ///
    /// As [`Sources::read`].
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Sources::new().toml(text).read()
    }

    /// From YAML.
    ///
    /// # Errors
    ///
    /// As [`Sources::read`].
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Sources::new().yaml(text).read()
    }

    /// From JSON.
    ///
    /// # Errors
    ///
    /// As [`Sources::read`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Sources::new().json(text).read()
    }

    /// All of it as TOML, defaults and what is switched off included, and
    /// secrets hidden.
    ///
    /// # Errors
    ///
    /// When TOML cannot hold it, as a number above 2^63.
    pub fn to_toml(&self) -> Result<String, Error> {
        let cannot = |error: &dyn std::fmt::Display| Error::config("TOML", error);
        let mut all = serde_json::to_value(self).map_err(|error| cannot(&error))?;
        switch_off(&mut all);
        toml::to_string(&all).map_err(|error| cannot(&error))
    }

    /// The balancer, and the settings of calls to its service. Waits for the
    /// registry's first answer, as [`BalancerBuilder::build`] does.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the key that is wrong, or whose feature this
    /// build is without; else as [`BalancerBuilder::build`] and
    /// [`RegistryConfig::open`].
    pub async fn build(&self) -> Result<(Balancer, CallSettings), Error> {
        let (builder, calls) = (self.builder()?, self.settings()?);
        let balancer = builder.build(self.opened()?).await?;
        #[cfg(any(feature = "metrics", feature = "tracing"))]
        self.calls.observe.follow(&balancer);
        Ok((balancer, calls))
    }

    fn opened(&self) -> Result<Arc<dyn Discover>, Error> {
        let registry = self.registry.as_ref().ok_or_else(|| {
            let reason = "there is none; say where the endpoints come from, such as \
                          `registry.consul.url = \"http://127.0.0.1:8500\"`";
            Error::config("registry", reason)
        })?;
        let registry = registry.open()?;
        // Else its endpoints would be checked, though not called.
        Ok(match &self.calls.addresses {
            Some(addresses) => Arc::new(Map::allowed(registry, addresses.build())),
            None => registry,
        })
    }

    /// The balancer but for its registry, for a registry of one's own.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn builder(&self) -> Result<BalancerBuilder, Error> {
        ServiceName::new(&self.service).map_err(|error| Error::config("service", error))?;
        self.set_up(Balancer::builder(&self.service))
    }

    #[cfg_attr(
        feature = "quanta",
        expect(
            clippy::unnecessary_wraps,
            reason = "without it there is no such clock"
        )
    )]
    fn clock(&self) -> Result<Clock, Error> {
        match self.clock {
            ClockConfig::System => Ok(Clock::system()),
            #[cfg(feature = "quanta")]
            ClockConfig::Tsc => Ok(Clock::tsc()),
            #[cfg(not(feature = "quanta"))]
            ClockConfig::Tsc => Err(registry::without("clock", "quanta")),
        }
    }

    fn set_up(&self, builder: BalancerBuilder) -> Result<BalancerBuilder, Error> {
        let guard = self.removal_guard.as_ref();
        let guard = guard.map(RemovalGuardConfig::build).transpose()?;
        let topology = self.topology.build()?;
        topology
            .validate()
            .map_err(|error| error.within("topology"))?;
        let mut builder = builder
            .strategy(self.strategy.build()?)
            .clock(self.clock()?)
            .latency(self.latency)
            .first_answer(self.first_answer)
            .removal_guard(guard)
            .topology(topology);
        builder = match &self.outlier_ejection {
            None => builder.no_outlier_ejection(),
            Some(outliers) => {
                let ejection = outliers.build();
                let checked = ejection.validate();
                checked.map_err(|error| error.within("outlier_ejection"))?;
                builder.outlier_ejection(ejection)
            }
        };
        if let Some(check) = &self.health_check {
            let check = check.build()?;
            let checked = check.validate();
            checked.map_err(|error| error.within("health_check"))?;
            builder = builder.health_check(check);
        }
        if let Some(slow_start) = &self.slow_start {
            let slow_start = slow_start.build();
            let checked = slow_start.validate();
            checked.map_err(|error| error.within("slow_start"))?;
            builder = builder.slow_start(slow_start);
        }
        Ok(builder)
    }

    /// Who endpoints have to be over TLS, and who we are to them; none if `calls.tls` is not set. The
    /// identity is there to be [reloaded](crate::client::tls::Identity::reload) when its files change.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the key that is wrong.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn endpoint_tls(
        &self,
    ) -> Result<
        Option<(
            crate::client::tls::EndpointTls,
            Option<crate::client::tls::Identity>,
        )>,
        Error,
    > {
        let tls = self.calls.tls.as_ref();
        tls.map(EndpointTlsConfig::build).transpose()
    }

    /// The settings of calls, for any client.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the key that is wrong.
    pub fn settings(&self) -> Result<CallSettings, Error> {
        self.calls.build()
    }
}

/// TOML has no null.
fn switch_off(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Null => *value = false.into(),
        serde_json::Value::Array(list) => list.iter_mut().for_each(switch_off),
        serde_json::Value::Object(table) => table.values_mut().for_each(switch_off),
        _ => {}
    }
}
