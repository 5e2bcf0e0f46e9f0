//! From endpoints and their health to groups and their shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::priority::{self, Level};
use super::{Fallback, Topology, zone};
use crate::endpoint::Endpoint;

/// An endpoint that the registry lets be called.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The endpoint.
    pub endpoint: &'a Endpoint,
    /// Whether checks and calls find it well.
    pub healthy: bool,
    /// The share of its weight that it has now, from a ramp; 1 is all.
    pub factor: f64,
}

/// Endpoints among which the strategy chooses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Group {
    /// The positions of its endpoints among the candidates, ascending.
    pub members: Vec<u32>,
    /// The share of all calls that it gets, of 1.
    pub share: f64,
    /// The share, of 1, of the calls that name its part.
    pub share_of_part: f64,
    /// Whether only calls that name its part go to it.
    pub only_named: bool,
    /// Its priority.
    pub priority: u32,
    /// Its zone, where zones are looked at.
    pub zone: Option<Arc<str>>,
    /// Its part of the split, where there is one.
    pub part: Option<usize>,
    /// Whether it is of a level in panic, whose ill endpoints are used too.
    pub panic: bool,
}

/// How calls are spread.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// All groups; those that a call falls back on come in this order.
    pub groups: Vec<Group>,
    /// The share of each candidate in the client's subset, where it is not all
    /// of them.
    pub subset: Option<Vec<f64>>,
}

impl Topology {
    /// Makes the groups of endpoints. O(n log n).
    #[must_use]
    pub fn plan(&self, candidates: &[Candidate<'_>]) -> Plan {
        let subset = self.subset_of(candidates);
        let used = |at: &u32| subset.as_ref().is_none_or(|s| s[*at as usize] > 0.0);
        let all: Vec<u32> = (0..candidates.len() as u32).filter(used).collect();
        let planning = Planning {
            topology: self,
            candidates,
            subset: subset.as_deref(),
        };
        let mut groups = Vec::new();
        for part in self.parts(candidates, all) {
            let first = groups.len();
            planning.levels(&part.members, &mut groups);
            for group in &mut groups[first..] {
                group.part = part.number;
                group.share *= part.share;
                group.only_named = part.only_named;
            }
        }
        Plan { groups, subset }
    }

    /// The client's subset, if it is not all: one of which nothing is well is
    /// no use.
    fn subset_of(&self, candidates: &[Candidate<'_>]) -> Option<Vec<f64>> {
        let subsetting = self.subsetting.as_ref()?;
        let ids: Vec<&str> = candidates
            .iter()
            .map(|c| c.endpoint.id().as_str())
            .collect();
        let shares = subsetting.shares(&ids);
        let mut used = candidates.iter().zip(&shares);
        let useful = used.any(|(candidate, &share)| candidate.healthy && share > 0.0);
        useful.then_some(shares)
    }

    /// The parts of the split.
    fn parts(&self, candidates: &[Candidate<'_>], all: Vec<u32>) -> Vec<Part> {
        if self.split.is_empty() {
            return vec![Part::rest(1.0, all)];
        }
        let endpoint = |at: u32| candidates[at as usize].endpoint;
        let mut members = vec![Vec::new(); self.split.len()];
        for &at in &all {
            let mut split = self.split.iter();
            if let Some(part) = split.position(|(selector, _)| selector.matches(endpoint(at))) {
                members[part].push(at);
            }
        }
        let well = |members: &[u32]| {
            let well = members
                .iter()
                .filter(|&&at| candidates[at as usize].healthy);
            well.count() as f64
        };
        let split = self.split.iter().zip(members).enumerate();
        let mut parts: Vec<Part> = split
            .map(|(number, (&(_, weight), members))| Part {
                number: Some(number),
                share: f64::from(weight) * well(&members).min(1.0),
                only_named: weight == 0,
                members,
            })
            .collect();
        let total: f64 = parts.iter().map(|part| part.share).sum();
        if total > 0.0 {
            for part in &mut parts {
                part.share /= total;
            }
            // Those that carry most are fallen back on first.
            parts.sort_by(|a, b| b.share.total_cmp(&a.share));
            return parts;
        }
        // Only calls that name a part find one; the others fall back.
        parts.retain(|part| part.only_named && well(&part.members) > 0.0);
        let mut others = match &self.fallback {
            Fallback::Any => all,
            Fallback::None => return parts,
            Fallback::To(selector) => {
                let mut others = all;
                others.retain(|&at| selector.matches(endpoint(at)));
                others
            }
        };
        let whole = well(&others).max(1.0);
        for part in &mut parts {
            if part
                .members
                .iter()
                .all(|at| others.binary_search(at).is_ok())
            {
                part.share = well(&part.members) / whole;
                part.only_named = false;
                others.retain(|at| part.members.binary_search(at).is_err());
            } else {
                part.members.retain(|at| others.binary_search(at).is_err());
            }
        }
        let used: f64 = parts.iter().map(|part| part.share).sum();
        parts.insert(0, Part::rest(1.0 - used, others));
        parts
    }
}

/// A part of the split, or those that are used in its stead.
struct Part {
    number: Option<usize>,
    share: f64,
    only_named: bool,
    /// Ascending.
    members: Vec<u32>,
}

impl Part {
    fn rest(share: f64, members: Vec<u32>) -> Self {
        Self {
            number: None,
            share,
            only_named: false,
            members,
        }
    }
}

struct Planning<'a> {
    topology: &'a Topology,
    candidates: &'a [Candidate<'a>],
    subset: Option<&'a [f64]>,
}

impl Planning<'_> {
    fn levels(&self, members: &[u32], groups: &mut Vec<Group>) {
        let mut levels: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &at in members {
            let priority = self.candidates[at as usize].endpoint.priority();
            levels.entry(priority).or_default().push(at);
        }
        let health: Vec<Level> = levels
            .values()
            .map(|members| {
                // In thousandths, in which a ramp is exact enough.
                let thousand = |n: usize| n as u64 * 1_000;
                let factor = |at: u32| self.candidates[at as usize].factor;
                let ready: f64 = self.healthy(members).map(factor).sum();
                let healthy = thousand(self.healthy(members).count());
                let ready = (ready * 1_000.0).round() as u64;
                Level::new(healthy, thousand(members.len())).ready(ready)
            })
            .collect();
        let topology = self.topology;
        let spread = priority::spread(&health, topology.overprovisioning, topology.panic_threshold);
        for (at, (&priority, members)) in levels.iter().enumerate() {
            let (load, panic) = (f64::from(spread.loads[at]) / 100.0, spread.panic[at]);
            let usable: Vec<u32> = if panic {
                members.clone()
            } else {
                self.healthy(members).collect()
            };
            if usable.is_empty() {
                continue;
            }
            let level = Group {
                members: usable,
                share: load,
                share_of_part: load,
                only_named: false,
                priority,
                zone: None,
                part: None,
                panic,
            };
            self.zones(level, members, groups);
        }
    }

    fn healthy<'a>(&'a self, members: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let healthy = |at: &u32| self.candidates[*at as usize].healthy;
        members.iter().copied().filter(healthy)
    }

    /// Divides a level by zone, if that is asked for and makes sense.
    fn zones(&self, level: Group, all: &[u32], groups: &mut Vec<Group>) {
        let topology = self.topology;
        let wanted = topology.zone.is_some() && level.members.len() >= topology.min_hosts
            || topology.zone.is_some() && topology.force_local.is_some();
        if level.panic || !wanted && topology.zone_weights.is_empty() {
            groups.push(level);
            return;
        }
        let mut zones: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for &at in &level.members {
            zones.entry(self.zone_of(at)).or_default().push(at);
        }
        let shares = match &topology.zone {
            Some(own) => self.shares_near(own, &zones),
            None => self.shares_by_weight(&zones, all),
        };
        // A zone that is not named, or the only one: nothing to divide.
        if zones.len() < 2 || shares.iter().sum::<f64>() <= 0.0 {
            groups.push(level);
            return;
        }
        let first = groups.len();
        groups.extend(
            zones
                .into_iter()
                .zip(shares)
                .map(|((zone, members), share)| Group {
                    members,
                    share: level.share * share,
                    share_of_part: level.share * share,
                    zone: Some(Arc::from(zone)),
                    ..level.clone()
                }),
        );
        // Near before far when a call falls back, then what carries most.
        let own = topology.zone.as_deref();
        groups[first..].sort_by(|a, b| {
            let is_far = |group: &Group| group.zone.as_deref() != own;
            is_far(a).cmp(&is_far(b)).then(b.share.total_cmp(&a.share))
        });
    }

    fn zone_of(&self, at: u32) -> &str {
        let locality = self.candidates[at as usize].endpoint.locality();
        locality.zone().unwrap_or_default()
    }

    fn shares_near(&self, own: &str, zones: &BTreeMap<&str, Vec<u32>>) -> Vec<f64> {
        let topology = self.topology;
        let clients = |zone: &str| {
            let told = topology.clients.get(zone).copied();
            f64::from(told.unwrap_or(u32::from(topology.clients.is_empty())))
        };
        let mut names: Vec<&str> = zones.keys().copied().collect();
        let home = names.iter().position(|&zone| zone == own);
        let home = home.unwrap_or_else(|| {
            names.push(own);
            names.len() - 1
        });
        let forced = zones.get(own).is_some_and(|members| {
            let enough = |least| members.len() >= least;
            topology.force_local.is_some_and(enough)
        });
        let mut shares = if forced {
            let mut shares = vec![0.0; names.len()];
            shares[home] = 1.0;
            shares
        } else {
            let clients: Vec<f64> = names.iter().map(|zone| clients(zone)).collect();
            let capacity = |zone: &&str| zones.get(zone).map_or(0.0, |all| self.capacity(all));
            let servers: Vec<f64> = names.iter().map(capacity).collect();
            zone::shares(home, &clients, &servers)
        };
        shares.truncate(zones.len());
        shares
    }

    fn shares_by_weight(&self, zones: &BTreeMap<&str, Vec<u32>>, all: &[u32]) -> Vec<f64> {
        let topology = self.topology;
        let shares = zones.iter().map(|(&zone, members)| {
            let total = all.iter().filter(|&&at| self.zone_of(at) == zone).count();
            let well = members.len() as f64 / total as f64;
            let carries = (well * f64::from(topology.overprovisioning) / 100.0).min(1.0);
            let weight = topology.zone_weights.get(zone).copied();
            f64::from(weight.unwrap_or_default()) * carries
        });
        let shares: Vec<f64> = shares.collect();
        let total: f64 = shares.iter().sum();
        let of = |share: f64| if total > 0.0 { share / total } else { 0.0 };
        shares.into_iter().map(of).collect()
    }

    /// What the members can take, in weight.
    fn capacity(&self, members: &[u32]) -> f64 {
        let weight = |&at: &u32| {
            let candidate = &self.candidates[at as usize];
            let subset = self.subset.map_or(1.0, |subset| subset[at as usize]);
            f64::from(candidate.endpoint.weight()) * candidate.factor * subset
        };
        members.iter().map(weight).sum()
    }
}
