//! Which groups of endpoints get which share of the calls: priorities, zones,
//! subsets.
//!
//! Endpoints fall into groups: by the part of a [split](Topology::split), by
//! priority level, by zone. Each group gets a share of the calls by rules that
//! look at what of it is well; within a group, the strategy decides. A call that
//! has tried all of its group goes on to the others, in order, so that no call
//! fails while an endpoint is left that it may go to.
//!
//! | rule | decides | default |
//! | --- | --- | --- |
//! | [`priority`] | how levels share calls, and when health is not believed | on |
//! | [`zone`] | how much stays in the client's zone | on when the zone is given |
//! | [`subset`] | which endpoints this client uses at all | all |
//! | [`Selector`], [`Topology::split`] | versions, canaries, stages | none |
//!
//! All of it is arithmetic, done once for a set or a change of health, and never
//! on the way of a pick.
//!
//! ```
//! use waypost::{Balancer, topology::{Selector, Topology}};
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let canary = Topology::new()
//!     .zone("eu-1a")
//!     .split([(Selector::new("version", "v1"), 95), (Selector::new("version", "v2"), 5)]);
//! let (users, _updater) = Balancer::builder("users").topology(canary).manual()?;
//! # let _ = users; Ok(()) }
//! ```

mod plan;
pub mod priority;
mod selector;
pub mod subset;
pub mod zone;

use std::collections::BTreeMap;

pub use plan::{Candidate, Group, Plan};
pub use selector::Selector;

use crate::endpoint::Endpoint;
use crate::error::Error;
use subset::Subsetting;

/// How calls are spread over groups of endpoints.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Topology {
    overprovisioning: u32,
    panic_threshold: Option<u32>,
    zone: Option<String>,
    clients: BTreeMap<String, u32>,
    min_hosts: usize,
    force_local: Option<usize>,
    zone_weights: BTreeMap<String, u32>,
    split: Vec<(Selector, u32)>,
    fallback: Fallback,
    subsetting: Option<Subsetting>,
}

/// Where calls go when no endpoint of the [split](Topology::split) is well, or
/// none of the part that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// To any endpoint.
    #[default]
    Any,
    /// Nowhere: the pick fails.
    None,
    /// To these; a call that names a part of the split, to the part of this
    /// selector.
    To(Selector),
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl Topology {
    /// Priorities with an overprovisioning of 140 %, panic below 50 %, no zones
    /// and no subsets.
    pub const fn new() -> Self {
        Self {
            overprovisioning: 140,
            panic_threshold: Some(50),
            zone: None,
            clients: BTreeMap::new(),
            min_hosts: 6,
            force_local: None,
            zone_weights: BTreeMap::new(),
            split: Vec::new(),
            fallback: Fallback::Any,
            subsetting: None,
        }
    }

    /// How much more than its usual load a level can carry, in percent of it.
    pub fn overprovisioning(mut self, percent: u32) -> Self {
        self.overprovisioning = percent;
        self
    }

    /// Below how many percent of a level that is well its health is not believed
    /// any more; `None` always believes it.
    pub fn panic_threshold(mut self, percent: Option<u32>) -> Self {
        self.panic_threshold = percent;
        self
    }

    /// The zone this client runs in: calls stay in it as far as its capacity
    /// goes. From 6 healthy endpoints on, as in Envoy: with fewer, a zone is one
    /// or two, and what they gain is not worth their risk.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// How many clients of the service run in each zone. Without this, as many
    /// in each zone as in any other.
    pub fn clients(mut self, clients: impl IntoIterator<Item = (String, u32)>) -> Self {
        self.clients = clients.into_iter().collect();
        self
    }

    /// From how many healthy endpoints of a level on zones are looked at.
    pub fn min_hosts(mut self, hosts: usize) -> Self {
        self.min_hosts = hosts;
        self
    }

    /// Keeps all calls in the own zone while at least so many of its endpoints
    /// are well, whatever the others could take.
    pub fn force_local(mut self, min_healthy: usize) -> Self {
        self.force_local = Some(min_healthy.max(1));
        self
    }

    /// Spreads calls over zones by these weights, each times what is well of the
    /// zone (with overprovisioning), in place of the client's own zone. A zone
    /// without a weight gets none.
    pub fn zone_weights(mut self, weights: impl IntoIterator<Item = (String, u32)>) -> Self {
        self.zone_weights = weights.into_iter().collect();
        self
    }

    /// Uses only these endpoints, unless none is well ([`fallback`](Self::fallback)).
    pub fn subset(self, selector: Selector) -> Self {
        self.split([(selector, 1)])
    }

    /// Splits calls among endpoints by weight. An endpoint belongs to the first
    /// part that it matches; the share of a part of which none is well goes to
    /// the others.
    ///
    /// A call may [name](crate::PickOptions::subset) the part that it goes to. A
    /// part of weight 0 gets those calls alone.
    pub fn split(mut self, parts: impl IntoIterator<Item = (Selector, u32)>) -> Self {
        self.split = parts.into_iter().collect();
        self
    }

    /// Where calls go when no endpoint of the split is well, or none of the part
    /// that they name.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// Uses only some of the endpoints, chosen without looking at them.
    pub fn subsetting(mut self, subsetting: Subsetting) -> Self {
        self.subsetting = Some(subsetting);
        self
    }

    /// The selectors of the split's parts.
    pub(crate) fn part_selectors(&self) -> impl Iterator<Item = &Selector> {
        self.split.iter().map(|(selector, _)| selector)
    }

    /// Whether only calls that name its part go to an endpoint.
    pub(crate) fn is_hidden(&self, endpoint: &Endpoint) -> bool {
        let mut split = self.split.iter();
        let part = split.find(|(selector, _)| selector.matches(endpoint));
        part.is_some_and(|&(_, weight)| weight == 0)
    }

    /// What [`fallback`](Self::fallback) was set to.
    pub(crate) fn falls_back(&self) -> &Fallback {
        &self.fallback
    }

    /// Whether endpoints that are all well, of one priority, are one group.
    pub(crate) fn is_plain(&self) -> bool {
        self.zone.is_none()
            && self.zone_weights.is_empty()
            && self.split.is_empty()
            && self.subsetting.is_none()
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.overprovisioning < 100 {
            let reason = "must be at least 100, in percent; 140 means a level can carry 1.4 times \
                          its usual load";
            let percent = self.overprovisioning;
            return Err(Error::invalid("topology.overprovisioning", percent, reason));
        }
        if let Some(percent) = self.panic_threshold
            && !(1..=100).contains(&percent)
        {
            let reason = "must be from 1 to 100, in percent; none turns panic off";
            return Err(Error::invalid("topology.panic_threshold", percent, reason));
        }
        if self.zone.is_some() && !self.zone_weights.is_empty() {
            let reason = "the client's zone and weights of zones exclude each other; set one";
            return Err(Error::invalid(
                "topology.zone_weights",
                self.zone_weights.len(),
                reason,
            ));
        }
        if !self.split.is_empty() && self.split.iter().all(|&(_, weight)| weight == 0) {
            let reason = "at least one part must have a weight above 0";
            return Err(Error::invalid("topology.split", 0, reason));
        }
        let size = match &self.subsetting {
            Some(Subsetting::Rocksteadier { size, .. } | Subsetting::Rendezvous { size, .. }) => {
                *size
            }
            Some(Subsetting::Aperture { clients, least, .. }) => (*clients as usize).min(*least),
            None => 1,
        };
        if size == 0 {
            let reason = "a subset must have endpoints, and an aperture clients";
            return Err(Error::invalid("topology.subsetting", 0, reason));
        }
        Ok(())
    }
}
