//! What a strategy sees: the endpoints that may be picked, each with its live
//! stats.
//!
//! Eligibility is decided once for a set, off the hot path: a [`View`] holds
//! only endpoints that may be picked, so a strategy never has to ask.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::endpoint::{Endpoint, Status};
use crate::stats::EndpointStats;

/// An endpoint and what is known of it.
#[derive(Debug)]
pub struct Node {
    endpoint: Arc<Endpoint>,
    stats: EndpointStats,
    key: NodeKey,
    // The endpoint's, beside what a rebuild touches anyway: looking them up
    // there would cost a cache miss for each of 10,000 nodes.
    weight: u32,
    priority: u32,
    status: Status,
}

/// Tells nodes of a process apart for as long as their stats live: the same
/// replica keeps its key from set to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeKey(pub(crate) u64);

impl Node {
    pub(crate) fn new(endpoint: Arc<Endpoint>, stats: EndpointStats, key: NodeKey) -> Self {
        Self {
            weight: endpoint.weight(),
            priority: endpoint.priority(),
            status: endpoint.status(),
            endpoint,
            stats,
            key,
        }
    }

    /// The endpoint.
    #[must_use]
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its live stats.
    #[must_use]
    #[inline]
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// What tells it apart from others.
    #[must_use]
    #[inline]
    pub fn key(&self) -> NodeKey {
        self.key
    }

    pub(crate) fn priority(&self) -> u32 {
        self.priority
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// Its weight; never 0 in a [`View`].
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }
}

/// The position of a node in a [`View`].
pub type NodeIndex = u32;

/// The endpoints that may be picked, in the order of their ids. Cloning bumps
/// a reference count.
#[derive(Clone)]
pub struct View {
    nodes: Arc<[Arc<Node>]>,
    start: u32,
    len: u32,
    uniform: bool,
}

impl View {
    pub(crate) fn new(nodes: Arc<[Arc<Node>]>, range: Range<usize>) -> Self {
        let uniform = nodes[range.clone()]
            .windows(2)
            .all(|pair| pair[0].weight() == pair[1].weight());
        Self::of_known_weights(nodes, range, uniform)
    }

    /// A view of nodes that have all one weight, or not, as the caller knows.
    pub(crate) fn of_known_weights(
        nodes: Arc<[Arc<Node>]>,
        range: Range<usize>,
        uniform: bool,
    ) -> Self {
        debug_assert!(
            nodes[range.clone()]
                .iter()
                .all(|node| node.endpoint.takes_calls())
        );
        Self {
            start: range.start as u32,
            len: range.len() as u32,
            uniform,
            nodes,
        }
    }

    /// A view of these endpoints with stats of their own, for those who run a
    /// strategy without a balancer: simulations, tests and benchmarks.
    /// Endpoints that take no calls are left out.
    pub fn standalone(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let nodes: Arc<[Arc<Node>]> = endpoints
            .into_iter()
            .filter(Endpoint::takes_calls)
            .zip(0..)
            .map(|(endpoint, key)| {
                let stats = EndpointStats::new();
                Arc::new(Node::new(Arc::new(endpoint), stats, NodeKey(key)))
            })
            .collect();
        let all = 0..nodes.len();
        Self::new(nodes, all)
    }

    /// The nodes, in the order of their endpoints' ids.
    #[must_use]
    #[inline]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes[self.start as usize..][..self.len as usize]
    }

    /// The node at that position.
    ///
    /// # Panics
    ///
    /// When the position is not below [`View::len`].
    #[must_use]
    #[inline]
    pub fn node(&self, index: NodeIndex) -> &Arc<Node> {
        assert!(index < self.len, "position {index} of {}", self.len);
        &self.nodes[(self.start + index) as usize]
    }

    /// The calls in flight at a node; more than any node has where there is
    /// none. Looked up without a way to panic, for pickers that compare many.
    #[inline]
    pub(crate) fn in_flight(&self, index: NodeIndex) -> u32 {
        self.nodes
            .get((self.start + index) as usize)
            .map_or(u32::MAX, |node| node.stats.in_flight())
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
    pub fn weights(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.nodes().iter().map(|node| node.weight())
    }

    /// Where the view's nodes begin in the list they are part of.
    #[inline]
    pub(crate) fn start(&self) -> u32 {
        self.start
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}
