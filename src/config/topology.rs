//! How calls are spread over priorities, zones and subsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::topology::subset::Subsetting;
use crate::topology::{Fallback, Selector, Topology};

/// A [`Topology`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopologyConfig {
    /// How much more than its usual load a level can carry, in percent of it.
    pub overprovisioning: u32,
    /// Below how many percent well a level's health is not believed.
    pub panic_threshold: Option<u32>,
    /// The zone this client runs in.
    pub zone: Option<String>,
    /// How many clients run in each zone.
    pub clients: BTreeMap<String, u32>,
    /// From how many healthy endpoints on zones are looked at.
    pub min_hosts: usize,
    /// Keeps calls in the own zone while so many of its endpoints are well.
    pub force_local: Option<usize>,
    /// Weights of zones, in place of the own one.
    pub zone_weights: BTreeMap<String, u32>,
    /// The parts that calls are split among.
    pub split: Vec<PartConfig>,
    /// Where calls go when no endpoint of the split is well.
    pub fallback: FallbackConfig,
    /// Uses some of the endpoints only.
    pub subsetting: Option<SubsettingConfig>,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            overprovisioning: 140,
            panic_threshold: Some(50),
            zone: None,
            clients: BTreeMap::new(),
            min_hosts: 6,
            force_local: None,
            zone_weights: BTreeMap::new(),
            split: Vec::new(),
            fallback: FallbackConfig::default(),
            subsetting: None,
        }
    }
}

/// A part of a [split](Topology::split).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartConfig {
    /// What the metadata of its endpoints says.
    pub metadata: BTreeMap<String, String>,
    /// Its share, beside the others.
    pub weight: u32,
}

impl Default for PartConfig {
    fn default() -> Self {
        Self {
            metadata: BTreeMap::new(),
            weight: 1,
        }
    }
}

/// Where calls go when no endpoint of the split is well: see [`Fallback`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FallbackConfig {
    /// To any endpoint.
    #[default]
    Any,
    /// Nowhere.
    None,
    /// To those whose metadata says so.
    To(BTreeMap<String, String>),
}

/// A [`Subsetting`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubsettingConfig {
    /// For clients that are numbered from 0.
    Rocksteadier(RocksteadierConfig),
    /// For clients without a number.
    Rendezvous(RendezvousConfig),
    /// Finagle's.
    Aperture(ApertureConfig),
}

/// Of [`Subsetting::Rocksteadier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocksteadierConfig {
    /// This client's number.
    pub client: u64,
    /// How many endpoints it uses.
    pub size: usize,
}

/// Of [`Subsetting::Rendezvous`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RendezvousConfig {
    /// This client's own number, drawn at random once.
    pub seed: u64,
    /// How many endpoints it uses.
    pub size: usize,
}

/// Of [`Subsetting::Aperture`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApertureConfig {
    /// This client's number.
    pub client: u64,
    /// How many clients there are.
    pub clients: u64,
    /// How many endpoints it uses at least.
    pub least: usize,
}

/// As many endpoints as a Finagle client uses at least.
const SIZE: usize = 12;

impl Default for RocksteadierConfig {
    fn default() -> Self {
        let (client, size) = (0, SIZE);
        Self { client, size }
    }
}

impl Default for RendezvousConfig {
    fn default() -> Self {
        let (seed, size) = (0, SIZE);
        Self { seed, size }
    }
}

impl Default for ApertureConfig {
    fn default() -> Self {
        Self {
            client: 0,
            clients: 1,
            least: SIZE,
        }
    }
}

impl TopologyConfig {
    pub(super) fn build(&self) -> Result<Topology, Error> {
        let owned = |map: &BTreeMap<String, u32>| map.clone().into_iter();
        let parts = self.split.iter().enumerate().map(|(at, part)| {
            let selector = selector(&part.metadata, || format!("topology.split.{at}.metadata"))?;
            Ok((selector, part.weight))
        });
        let parts: Vec<_> = parts.collect::<Result<_, Error>>()?;
        let mut topology = Topology::new()
            .overprovisioning(self.overprovisioning)
            .panic_threshold(self.panic_threshold)
            .clients(owned(&self.clients))
            .min_hosts(self.min_hosts)
            .zone_weights(owned(&self.zone_weights))
            .split(parts)
            .fallback(match &self.fallback {
                FallbackConfig::Any => Fallback::Any,
                FallbackConfig::None => Fallback::None,
                FallbackConfig::To(metadata) => {
                    let path = || "topology.fallback.to".to_owned();
                    Fallback::To(selector(metadata, path)?)
                }
            });
        if let Some(zone) = &self.zone {
            topology = topology.zone(zone);
        }
        if let Some(least) = self.force_local {
            if least == 0 {
                let reason = "0 endpoints take no calls; `false` switches it off";
                return Err(Error::config("topology.force_local", reason));
            }
            topology = topology.force_local(least);
        }
        if let Some(subsetting) = &self.subsetting {
            topology = topology.subsetting(subsetting.build());
        }
        Ok(topology)
    }
}

impl SubsettingConfig {
    fn build(&self) -> Subsetting {
        match *self {
            Self::Rocksteadier(RocksteadierConfig { client, size }) => {
                Subsetting::Rocksteadier { client, size }
            }
            Self::Rendezvous(RendezvousConfig { seed, size }) => {
                Subsetting::Rendezvous { seed, size }
            }
            Self::Aperture(ApertureConfig {
                client,
                clients,
                least,
            }) => Subsetting::Aperture {
                client,
                clients,
                least,
            },
        }
    }
}

fn selector(
    metadata: &BTreeMap<String, String>,
    path: impl FnOnce() -> String,
) -> Result<Selector, Error> {
    let mut pairs = metadata.iter();
    let Some((key, value)) = pairs.next() else {
        let reason =
            "it is empty; say what the endpoints' metadata has, such as `version = \"v2\"`";
        return Err(Error::config(path(), reason));
    };
    let first = Selector::new(key, value);
    Ok(pairs.fold(first, |selector, (key, value)| selector.and(key, value)))
}
