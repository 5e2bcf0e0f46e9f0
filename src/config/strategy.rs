//! Which strategy picks.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time;
use crate::error::Error;
use crate::strategy::{
    Adaptive, BlockHrw, LeastConn, LoadWeighted, Maglev, MissingKey, P2c, PickFirst, Prequal,
    Random, Rendezvous, RingHash, RoundRobin, SmoothWeighted, Strategy,
};

/// A strategy by its name, and its settings where it has any:
/// `strategy = "round_robin"`, or `[strategy.ring_hash]` with its keys below.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StrategyConfig {
    /// [`Adaptive`].
    #[default]
    Adaptive,
    /// [`P2c`], on calls in flight.
    P2c,
    /// [`P2c::peak_ewma`].
    PeakEwma,
    /// [`Prequal`]. Probes are for the program to send.
    Prequal(PrequalConfig),
    /// [`LoadWeighted`], with its defaults.
    LoadWeighted,
    /// [`RoundRobin`].
    RoundRobin,
    /// [`SmoothWeighted`].
    SmoothWeighted,
    /// [`Random`].
    Random,
    /// [`LeastConn`].
    LeastConn(LeastConnConfig),
    /// [`PickFirst`].
    PickFirst(PickFirstConfig),
    /// [`RingHash`].
    RingHash(RingHashConfig),
    /// [`Maglev`].
    Maglev(MaglevConfig),
    /// [`BlockHrw`].
    BlockHrw(KeyedConfig),
    /// [`Rendezvous`].
    Rendezvous(KeyedConfig),
}

impl StrategyConfig {
    pub(super) fn build(&self) -> Result<Arc<dyn Strategy>, Error> {
        Ok(match self {
            Self::P2c => Arc::new(P2c::new()),
            Self::PeakEwma => Arc::new(P2c::peak_ewma()),
            Self::Adaptive => Arc::new(Adaptive::new()),
            Self::Prequal(settings) => Arc::new(settings.build().map_err(at("prequal"))?),
            Self::LoadWeighted => Arc::new(LoadWeighted::new()),
            Self::RoundRobin => Arc::new(RoundRobin::new()),
            Self::SmoothWeighted => Arc::new(SmoothWeighted::new()),
            Self::Random => Arc::new(Random::new()),
            Self::LeastConn(settings) => Arc::new(settings.build().map_err(at("least_conn"))?),
            Self::PickFirst(settings) => Arc::new(settings.build()),
            Self::RingHash(settings) => Arc::new(settings.build().map_err(at("ring_hash"))?),
            Self::Maglev(settings) => Arc::new(settings.build().map_err(at("maglev"))?),
            Self::BlockHrw(keyed) => {
                Arc::new(keyed!(BlockHrw::new(), keyed).map_err(at("block_hrw"))?)
            }
            Self::Rendezvous(keyed) => {
                Arc::new(keyed!(Rendezvous::new(), keyed).map_err(at("rendezvous"))?)
            }
        })
    }
}

fn at(kind: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.within(&format!("strategy.{kind}"))
}

/// The settings that all strategies by key share.
macro_rules! keyed {
    ($strategy:expr, $settings:expr) => {{
        let strategy = $strategy.missing_key($settings.missing_key.into());
        match $settings.bounded {
            Some(factor) => strategy.bounded(factor),
            None => Ok(strategy),
        }
    }};
}
use keyed;

/// Of [`LeastConn`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeastConnConfig {
    /// How many endpoints are drawn and compared; all if not set.
    pub choices: Option<u32>,
    /// Draws by weight and load as Envoy does, instead; its own is 1.
    pub active_request_bias: Option<f64>,
}

impl LeastConnConfig {
    fn build(&self) -> Result<LeastConn, Error> {
        match (self.choices, self.active_request_bias) {
            (None, None) => Ok(LeastConn::new()),
            (Some(choices), None) => LeastConn::new().choices(choices),
            (None, Some(bias)) => LeastConn::new().active_request_bias(bias),
            (Some(choices), Some(_)) => Err(Error::invalid(
                "choices",
                choices,
                "it is one way, and `active_request_bias` another: leave one of them out",
            )),
        }
    }
}

/// Of [`Prequal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrequalConfig {
    /// The share of the reports whose endpoints are cold.
    pub quantile: f64,
    /// Reports that come for each call.
    pub reports_per_call: f64,
    /// For how long a report is used.
    #[serde(with = "time")]
    pub max_age: Duration,
}

impl Default for PrequalConfig {
    fn default() -> Self {
        Self {
            quantile: 0.84,
            reports_per_call: 3.0,
            max_age: Duration::from_secs(1),
        }
    }
}

impl PrequalConfig {
    fn build(&self) -> Result<Prequal, Error> {
        let prequal = Prequal::new().max_age(self.max_age);
        prequal
            .quantile(self.quantile)?
            .reports_per_call(self.reports_per_call)
    }
}

/// Of [`PickFirst`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PickFirstConfig {
    /// In an order of this client's own.
    pub shuffled: bool,
}

impl PickFirstConfig {
    fn build(&self) -> PickFirst {
        if self.shuffled {
            PickFirst::shuffled()
        } else {
            PickFirst::new()
        }
    }
}

/// What becomes of a call without a key: see [`MissingKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MissingKeyConfig {
    /// It goes anywhere.
    #[default]
    Random,
    /// It fails.
    Refuse,
}

impl From<MissingKeyConfig> for MissingKey {
    fn from(config: MissingKeyConfig) -> Self {
        match config {
            MissingKeyConfig::Random => Self::Random,
            MissingKeyConfig::Refuse => Self::Refuse,
        }
    }
}

/// Of [`RingHash`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingHashConfig {
    /// Points for each unit of weight.
    pub vnodes: u32,
    /// The weight that these points stand for.
    pub unit_weight: u32,
    /// What becomes of a call without a key.
    pub missing_key: MissingKeyConfig,
    /// How far above its share an endpoint may be loaded, such as 1.25; without
    /// bound if not set.
    pub bounded: Option<f64>,
}

impl Default for RingHashConfig {
    fn default() -> Self {
        Self {
            vnodes: 160,
            unit_weight: 1,
            missing_key: MissingKeyConfig::default(),
            bounded: None,
        }
    }
}

impl RingHashConfig {
    fn build(&self) -> Result<RingHash, Error> {
        let ring = RingHash::new().vnodes(self.vnodes)?;
        keyed!(ring.unit_weight(self.unit_weight)?, self)
    }
}

/// Of [`Maglev`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaglevConfig {
    /// Slots, a prime.
    pub table_size: u64,
    /// What becomes of a call without a key.
    pub missing_key: MissingKeyConfig,
    /// How far above its share an endpoint may be loaded, such as 1.25; without
    /// bound if not set.
    pub bounded: Option<f64>,
}

impl Default for MaglevConfig {
    fn default() -> Self {
        Self {
            table_size: crate::hash::Maglev::DEFAULT_SIZE,
            missing_key: MissingKeyConfig::default(),
            bounded: None,
        }
    }
}

impl MaglevConfig {
    fn build(&self) -> Result<Maglev, Error> {
        keyed!(Maglev::new().table_size(self.table_size)?, self)
    }
}

/// Of [`BlockHrw`] and [`Rendezvous`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyedConfig {
    /// What becomes of a call without a key.
    pub missing_key: MissingKeyConfig,
    /// How far above its share an endpoint may be loaded, such as 1.25; without
    /// bound if not set.
    pub bounded: Option<f64>,
}
