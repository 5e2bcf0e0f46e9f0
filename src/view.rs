//! What a strategy sees: the endpoints that may be picked, each with its live
//! stats.
//!
//! Eligibility is decided once for a set, off the hot path: a [`View`] holds
//! only endpoints that may be picked, so a strategy never has to ask.
//!
//! What is known of the endpoints lies in a few flat lists beside each other,
//! each of which is shared from one set to the next for as long as nothing in it
//! changes: a new weight makes one new list of weights, and touches none of the
//! endpoints.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::stats::{Counters, EndpointStats, Gauges, Ledger};

pub use crate::stats::NodeKey;

/// An endpoint and what is known of it.
#[derive(Clone, Debug)]
pub struct Node {
    endpoint: Arc<Endpoint>,
    stats: EndpointStats,
}

impl Node {
    pub(crate) fn new(endpoint: Arc<Endpoint>, stats: EndpointStats) -> Self {
        Self { endpoint, stats }
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its live stats.
    #[must_use]
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// What tells it apart from others.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.stats.key()
    }
}

/// A [`Node`] of a [`View`].
#[derive(Clone, Copy, Debug)]
pub struct NodeRef<'a> {
    endpoint: &'a Arc<Endpoint>,
    stats: &'a EndpointStats,
    weight: u32,
}

impl<'a> NodeRef<'a> {
    /// The endpoint.
    #[must_use]
    #[inline]
    pub fn endpoint(self) -> &'a Arc<Endpoint> {
        self.endpoint
    }

    /// Its live stats.
    #[must_use]
    #[inline]
    pub fn stats(self) -> &'a EndpointStats {
        self.stats
    }

    /// What tells it apart from others.
    #[must_use]
    #[inline]
    pub fn key(self) -> NodeKey {
        self.stats.key()
    }

    /// Its weight; never 0.
    #[must_use]
    #[inline]
    pub fn weight(self) -> u32 {
        self.weight
    }
}

/// Endpoints, and beside each its stats, counters and weight.
#[derive(Clone)]
pub(crate) struct Roster {
    pub(crate) endpoints: Arc<[Arc<Endpoint>]>,
    pub(crate) stats: Arc<[EndpointStats]>,
    pub(crate) counters: Counters,
    pub(crate) weights: Arc<[u32]>,
}

impl Roster {
    pub(crate) fn none() -> Self {
        Self {
            endpoints: Arc::from([]),
            stats: Arc::from([]),
            counters: Counters::none(),
            weights: Arc::from([]),
        }
    }

    /// The same endpoints in another order.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        let from = |at: &u32| *at as usize;
        let endpoints = order.iter().map(|at| Arc::clone(&self.endpoints[from(at)]));
        let stats = order.iter().map(|at| self.stats[from(at)].clone());
        Self {
            endpoints: endpoints.collect(),
            stats: stats.collect(),
            counters: self.counters.reordered(order),
            weights: order.iter().map(|at| self.weights[from(at)]).collect(),
        }
    }
}

/// The position of a node in a [`View`].
pub type NodeIndex = u32;

/// The endpoints that may be picked, in the order of their ids. Cloning bumps
/// a few reference counts.
#[derive(Clone)]
pub struct View {
    roster: Roster,
    start: u32,
    len: u32,
    uniform: bool,
}

impl View {
    pub(crate) fn none() -> Self {
        Self::new(Roster::none(), 0..0)
    }

    pub(crate) fn new(roster: Roster, range: Range<usize>) -> Self {
        let weights = &roster.weights[range.clone()];
        let uniform = weights.iter().all(|&weight| weight == weights[0]);
        debug_assert!(
            roster.endpoints[range.clone()]
                .iter()
                .all(|endpoint| endpoint.takes_calls())
        );
        Self {
            start: range.start as u32,
            len: range.len() as u32,
            uniform,
            roster,
        }
    }

    /// A view of these endpoints with stats of their own, for those who run a
    /// strategy without a balancer: simulations, tests and benchmarks.
    /// Endpoints that take no calls are left out.
    pub fn standalone(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let endpoints = endpoints.into_iter().filter(Endpoint::takes_calls);
        let endpoints: Arc<[Arc<Endpoint>]> = endpoints.map(Arc::new).collect();
        let mut ledger = Ledger::default();
        let stats: Arc<[EndpointStats]> = endpoints.iter().map(|_| ledger.open()).collect();
        let rows = stats.iter().map(EndpointStats::row).collect();
        let weights = endpoints.iter().map(|endpoint| endpoint.weight()).collect();
        let all = 0..endpoints.len();
        let roster = Roster {
            counters: ledger.counters(rows),
            endpoints,
            stats,
            weights,
        };
        Self::new(roster, all)
    }

    /// The nodes, in the order of their endpoints' ids.
    #[must_use]
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeRef<'_>> + Clone {
        let range = self.start as usize..(self.start + self.len) as usize;
        range.map(|at| self.node_at(at))
    }

    /// The node at that position.
    ///
    /// # Panics
    ///
    /// When the position is not below [`View::len`].
    #[must_use]
    #[inline]
    pub fn node(&self, index: NodeIndex) -> NodeRef<'_> {
        assert!(index < self.len, "position {index} of {}", self.len);
        self.node_at((self.start + index) as usize)
    }

    fn node_at(&self, at: usize) -> NodeRef<'_> {
        NodeRef {
            endpoint: &self.roster.endpoints[at],
            stats: &self.roster.stats[at],
            weight: self.roster.weights[at],
        }
    }

    /// The calls in flight at a node, which costs less than to ask its stats
    /// for them; more than any node has where there is none.
    #[must_use]
    #[inline]
    pub fn in_flight(&self, index: NodeIndex) -> u32 {
        self.roster.counters.in_flight(self.start + index)
    }

    /// What time tells of a node, which costs less than to ask its stats for it.
    #[inline]
    pub(crate) fn gauges(&self, index: NodeIndex) -> Option<Gauges<'_>> {
        self.roster.counters.gauges(self.start + index)
    }

    /// The calls in flight at two nodes, for less than twice the price of one.
    #[must_use]
    #[inline]
    pub fn two_in_flight(&self, first: NodeIndex, second: NodeIndex) -> (u32, u32) {
        let counters = &self.roster.counters;
        counters.two_in_flight(self.start + first, self.start + second)
    }

    /// The calls in flight at all endpoints that the balancer knows of, and at those that left
    /// with calls still under way: at least as many as at the nodes of this view.
    ///
    /// O(threads that pick) if the strategy [says that it asks](crate::strategy::Strategy::reads_total),
    /// else the nodes' own, in O(n).
    #[must_use]
    pub fn total_in_flight(&self) -> u64 {
        self.roster.counters.total_in_flight().unwrap_or_else(|| {
            let each = (0..self.len).map(|index| u64::from(self.in_flight(index)));
            each.sum()
        })
    }

    /// All endpoints of this level that are known, in the order of their ids, and where in this view
    /// each is; none for those that may not be picked now. O(n log n).
    ///
    /// For strategies whose choice shall not depend on who is up.
    #[must_use]
    pub fn members(&self) -> Vec<(&Arc<Endpoint>, Option<NodeIndex>)> {
        let Some(priority) = self.endpoints().first().map(|first| first.priority()) else {
            return Vec::new();
        };
        let own = self.start..self.start + self.len;
        let mut members: Vec<_> = (0..)
            .zip(&*self.roster.endpoints)
            .filter(|(_, endpoint)| endpoint.priority() == priority)
            .map(|(at, endpoint)| (endpoint, own.contains(&at).then(|| at - self.start)))
            .collect();
        members.sort_by(|a, b| a.0.id().cmp(b.0.id()));
        members
    }

    /// The endpoints, in the order of their ids.
    pub(crate) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.roster.endpoints[self.start as usize..][..self.len as usize]
    }

    /// The weight of a node, which is never 0; 0 where there is none.
    #[must_use]
    #[inline]
    pub fn weight(&self, index: NodeIndex) -> u32 {
        let weight = self.weights().get(index as usize);
        weight.copied().unwrap_or_default()
    }

    /// How many nodes there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all nodes have the same weight, so that weights can be ignored.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.uniform
    }

    /// The weights, in the order of the nodes.
    #[must_use]
    #[inline]
    pub fn weights(&self) -> &[u32] {
        &self.roster.weights[self.start as usize..][..self.len as usize]
    }

    /// The mean of the weights; 0 where there are none. O(n).
    pub(crate) fn mean_weight(&self) -> f64 {
        let total: f64 = self.weights().iter().copied().map(f64::from).sum();
        total / f64::from(self.len.max(1))
    }

    /// Where the view's nodes begin in the list they are part of.
    #[inline]
    pub(crate) fn start(&self) -> u32 {
        self.start
    }
}

#[cfg(feature = "sim")]
impl View {
    /// The same nodes with the same stats, but only those at these positions, which ascend.
    pub(crate) fn of_some(&self, positions: &[NodeIndex]) -> Self {
        Self::new(self.roster.reordered(positions), 0..positions.len())
    }

    /// The same with these weights, each above 0.
    pub(crate) fn with_weights(&self, weights: Arc<[u32]>) -> Self {
        let roster = Roster {
            weights,
            ..self.roster.clone()
        };
        Self::new(
            roster,
            self.start as usize..(self.start + self.len) as usize,
        )
    }

    /// Counts a call to that node from now on, without a balancer's guard.
    pub(crate) fn begin(&self, index: NodeIndex, slot: crate::sync::Slot) {
        self.roster.counters.begin(self.start + index, slot);
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}
