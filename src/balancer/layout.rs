//! From a plan of groups to the order and the weights that picks read.

use std::sync::Arc;

use super::draft::Draft;
use super::group::Rank;
use super::parts::Parts;
use super::pick::Mark;
use crate::endpoint::EndpointSet;
use crate::error::Counts;
use crate::health::outlier::Standing;
use crate::topology::{Candidate, Group, Topology};

/// What keeps an endpoint from its calls, or from its full share of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fact {
    pub(super) standing: Standing,
    /// Why it fails its check, if it does.
    pub(super) failing: Option<Arc<str>>,
    /// The share of its weight that it has, from a ramp or a subset.
    pub(super) factor: f64,
    pub(super) in_subset: bool,
}

impl Fact {
    pub(super) const WELL: Self = Self {
        standing: Standing::Admitted,
        failing: None,
        factor: 1.0,
        in_subset: true,
    };

    pub(super) fn is_healthy(&self) -> bool {
        self.standing == Standing::Admitted && self.failing.is_none()
    }
}

/// Where everything goes.
pub(super) struct Layout {
    /// Which endpoint of the set is at each place of the roster.
    pub(super) order: Vec<u32>,
    /// The other way round.
    pub(super) positions: Box<[u32]>,
    /// The weight at each place.
    pub(super) weights: Arc<[u32]>,
    /// The groups, with which the roster begins, and how many are in each.
    pub(super) ranks: Vec<(Rank, usize)>,
    /// Which of them calls may name.
    pub(super) parts: Option<Box<Parts>>,
    pub(super) trials: Box<[Trial]>,
    pub(super) counts: Counts,
}

/// An endpoint that gets one call, which decides whether it is back.
pub(super) struct Trial {
    pub(super) place: u32,
    /// Whether that has to be a call that names its part.
    pub(super) is_hidden: bool,
}

/// Lays out the endpoints of a draft, and notes in `facts` what is not used.
pub(super) fn lay_out(draft: &Draft, topology: &Topology, facts: &mut [Fact]) -> Layout {
    let set = &draft.set;
    let called = set.iter().enumerate().filter(|(_, e)| e.takes_calls());
    let called: Vec<u32> = called.map(|(at, _)| at as u32).take(Mark::NODES).collect();
    let candidates: Vec<Candidate<'_>> = called
        .iter()
        .map(|&at| Candidate {
            endpoint: &set.endpoints()[at as usize],
            healthy: facts[at as usize].is_healthy(),
            factor: facts[at as usize].factor,
        })
        .collect();
    let plan = topology.plan(&candidates);
    for (&at, share) in called.iter().zip(plan.subset.iter().flatten()) {
        let fact = &mut facts[at as usize];
        fact.in_subset = *share > 0.0;
        fact.factor *= share.max(f64::MIN_POSITIVE);
    }
    let mut groups = plan.groups;
    // Those that get calls first, each kind in the order of falling back.
    groups.sort_by_key(|group| (group.only_named, group.share <= 0.0));
    let parts = Parts::of(topology, &groups);

    let mut order = Vec::with_capacity(set.len());
    let mut weights = Vec::with_capacity(set.len());
    let mut ranks = Vec::with_capacity(groups.len());
    for group in groups {
        let members = group.members.iter().map(|&member| called[member as usize]);
        order.extend(members.clone());
        weights.extend(weights_of(set, facts, members));
        ranks.push((rank(&group), group.members.len()));
    }
    let grouped = order.len();
    let eligible = ranks.iter().filter(|(rank, _)| !rank.only_named);
    let eligible = eligible.map(|&(_, len)| len).sum();
    let positions = complete(&mut order, set.len());
    let rest = order[grouped..].iter();
    weights.extend(rest.map(|&at| set.endpoints()[at as usize].weight()));
    // In a panic, too, where it gets other calls besides.
    let trials = order.iter().zip(0..Mark::NODES as u32).filter(|&(&at, _)| {
        let fact = &facts[at as usize];
        let endpoint = &set.endpoints()[at as usize];
        // The registry and a failed check go before a trial.
        endpoint.takes_calls() && fact.failing.is_none() && fact.standing == Standing::OnTrial
    });
    Layout {
        trials: trials
            .map(|(&at, place)| Trial {
                place,
                is_hidden: topology.is_hidden(&set.endpoints()[at as usize]),
            })
            .collect(),
        counts: counts(draft, facts, &order[grouped..], eligible),
        order,
        positions,
        weights: weights.into(),
        ranks,
        parts,
    }
}

fn rank(group: &Group) -> Rank {
    Rank {
        share: group.share,
        priority: group.priority,
        part: group.part,
        only_named: group.only_named,
        panic: group.panic,
    }
}

/// A ramp's share of a weight is counted in thousandths: the smallest of them,
/// of a weight of 1, is a hundred.
const FINENESS: u32 = 1_000;

/// The weights of a group, multiplied where one of them has only a share of its
/// own.
fn weights_of(
    set: &EndpointSet,
    facts: &[Fact],
    members: impl Iterator<Item = u32> + Clone,
) -> impl Iterator<Item = u32> {
    let facts_of = |at: u32| {
        (
            set.endpoints()[at as usize].weight(),
            facts[at as usize].factor,
        )
    };
    let weights = members.map(facts_of);
    let whole = weights.clone().all(|(_, factor)| factor >= 1.0);
    // Where it would overflow, the weights themselves are fine enough.
    let heavy = weights
        .clone()
        .any(|(weight, _)| weight > u32::MAX / FINENESS);
    let fineness = if whole || heavy { 1 } else { FINENESS };
    weights.map(move |(weight, factor)| {
        let weight = f64::from(weight) * f64::from(fineness) * factor;
        (weight.round() as u32).max(1)
    })
}

/// Adds those that are missing to an order of `n`, and turns it round.
fn complete(order: &mut Vec<u32>, n: usize) -> Box<[u32]> {
    const NOWHERE: u32 = u32::MAX;
    let mut positions = vec![NOWHERE; n];
    for (&at, place) in order.iter().zip(0..) {
        positions[at as usize] = place;
    }
    for (position, at) in positions.iter_mut().zip(0..) {
        if *position == NOWHERE {
            *position = order.len() as u32;
            order.push(at);
        }
    }
    positions.into()
}

/// `rest` are those that may not be picked.
fn counts(draft: &Draft, facts: &[Fact], rest: &[u32], eligible: usize) -> Counts {
    let mut counts = Counts {
        eligible,
        ..draft.counts
    };
    for &at in rest {
        let fact = &facts[at as usize];
        if draft.set.endpoints()[at as usize].takes_calls() {
            counts.failing += usize::from(fact.failing.is_some());
            let ejected = fact.failing.is_none() && fact.standing != Standing::Admitted;
            counts.ejected += usize::from(ejected);
        }
    }
    counts
}
