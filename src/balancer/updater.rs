//! From sets to states: what turns a registry's answers into what picks read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::core::Core;
use super::state::{Knowledge, Roster, State};
use crate::endpoint::{Endpoint, EndpointId, EndpointSet, merge};
use crate::error::Error;
use crate::event::{Discovery, Snapshot};
use crate::stats::EndpointStats;
use crate::strategy::Strategy;
use crate::time::{Clock, Timestamp};
use crate::view::{Node, NodeKey};

/// Feeds a balancer by hand: the half that a background driver owns otherwise.
///
/// [`BalancerBuilder::manual`](crate::BalancerBuilder::manual) gives one to
/// those who have a discovery loop of their own, or no runtime at all, such as
/// a simulation. There is one updater for a balancer. When it is dropped the
/// balancer goes on serving the last set.
pub struct Updater {
    core: Arc<Core>,
    state: Arc<State>,
    strategy: Arc<dyn Strategy>,
    clock: Clock,
    discovery: Discovery,
    absent: HashMap<EndpointId, Absent>,
    absent_swept: Timestamp,
    retired: Vec<Arc<State>>,
}

/// An endpoint that left, and may come back.
#[derive(Debug)]
struct Absent {
    stats: EndpointStats,
    key: NodeKey,
    since: Timestamp,
}

/// How long an endpoint that left is remembered: longer than a registry's flap
/// or a restart, after which its old figures mislead.
const REMEMBERED: Duration = Duration::from_mins(5);

impl Absent {
    fn is_remembered(&self, now: Timestamp) -> bool {
        now.since(self.since) < REMEMBERED || self.stats.in_flight() > 0
    }
}

/// How often the absent are looked through: rarely enough that ten thousand of
/// them cost nothing in a storm of updates.
const SWEEP: Duration = Duration::from_secs(1);

static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

impl Updater {
    pub(super) fn new(
        core: Arc<Core>,
        state: Arc<State>,
        strategy: Arc<dyn Strategy>,
        clock: Clock,
    ) -> Self {
        Self {
            core,
            state,
            strategy,
            discovery: Discovery::Unknown { error: None },
            absent: HashMap::new(),
            absent_swept: clock.now(),
            retired: Vec::new(),
            clock,
        }
    }

    /// Makes `set` the one that picks are made from. Calls in flight are not
    /// touched, and no pick waits. O(n), where an endpoint that the set shares
    /// with the one before costs a few nanoseconds.
    pub fn apply(&mut self, set: EndpointSet) {
        let now = self.clock.now();
        let same = matches!(self.state.knowledge, Knowledge::Known) && self.state.set == set;
        let was_fresh = self.discovery.is_fresh();
        self.discovery = Discovery::Fresh;
        if same {
            if !was_fresh {
                self.tell();
            }
            return;
        }
        let nodes = self.nodes_of(&set, now);
        let next = State::known(&self.state, set, nodes, &*self.strategy);
        self.publish(next);
        self.sweep_absent(now);
    }

    /// Tells that the registry fails. The last set goes on serving; where there
    /// is none, picks fail with this error as their reason.
    pub fn fail(&mut self, error: Error) {
        if let Knowledge::Known = self.state.knowledge {
            let since = match &self.discovery {
                Discovery::Stale { since, .. } => *since,
                _ => self.clock.now(),
            };
            self.discovery = Discovery::Stale { since, error };
            self.tell();
        } else {
            self.discovery = Discovery::Unknown {
                error: Some(error.clone()),
            };
            self.publish(State::failed(&self.state, error));
        }
    }

    /// Frees states that no thread reads any more, and tells whether some are
    /// left. Done with every [`apply`](Self::apply) too; the point is that the
    /// work never falls to a thread that picks.
    pub fn collect(&mut self) -> bool {
        // Whoever still reads one holds a handle to it; nobody can get a new
        // one, since it is no longer published.
        self.retired.retain(|state| Arc::strong_count(state) > 1);
        !self.retired.is_empty()
    }

    fn nodes_of(&mut self, set: &EndpointSet, now: Timestamp) -> Roster {
        let Self { state, absent, .. } = self;
        let (old, new) = (state.set.endpoints(), set.endpoints());
        let mut nodes = Roster::with_capacity(new.len());
        // What is the same at both ends is taken over as it is.
        let (mut head, mut tail) = (0, 0);
        let alike = state.alike();
        if let Some((known, one_weight)) = alike {
            head = common(old.iter().zip(new));
            tail = common(old[head..].iter().rev().zip(new[head..].iter().rev()));
            nodes.extend_alike(&known[..head], one_weight);
        }
        let (old, new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
        merge(old, new, |before, after| match (before, after) {
            (Some((at, old)), Some((_, new))) => {
                let node = state.node_of(head + at);
                nodes.push(if Arc::ptr_eq(old, new) || old == new {
                    Arc::clone(node)
                } else {
                    let stats = node.stats().clone();
                    Arc::new(Node::new(Arc::clone(new), stats, node.key()))
                });
            }
            (None, Some((_, new))) => nodes.push(Arc::new(arrive(new, absent, now))),
            (Some((at, old)), None) => {
                let node = state.node_of(head + at);
                let gone = Absent {
                    stats: node.stats().clone(),
                    key: node.key(),
                    since: now,
                };
                absent.insert(old.id().clone(), gone);
            }
            (None, None) => {}
        });
        if let Some((known, one_weight)) = alike {
            nodes.extend_alike(&known[known.len() - tail..], one_weight);
        }
        nodes
    }

    fn publish(&mut self, next: State) {
        let next = Arc::new(next);
        self.state = Arc::clone(&next);
        let previous = self.core.published.publish(next);
        self.retired.push(previous);
        self.collect();
        self.tell();
    }

    fn tell(&self) {
        self.core.snapshots.send_replace(Snapshot {
            set: self.state.set.clone(),
            eligible: self.state.counts.eligible,
            discovery: self.discovery.clone(),
        });
    }

    fn sweep_absent(&mut self, now: Timestamp) {
        if now.since(self.absent_swept) < SWEEP {
            return;
        }
        self.absent_swept = now;
        self.absent.retain(|_, absent| absent.is_remembered(now));
    }
}

impl fmt::Debug for Updater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updater")
            .field("service", &self.core.service)
            .field("state", &self.state)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

/// How many pairs, from the first on, are one and the same endpoint.
fn common<'a>(pairs: impl Iterator<Item = (&'a Arc<Endpoint>, &'a Arc<Endpoint>)>) -> usize {
    pairs.take_while(|(a, b)| Arc::ptr_eq(a, b)).count()
}

/// The node of an endpoint that is new, or back.
fn arrive(
    endpoint: &Arc<Endpoint>,
    absent: &mut HashMap<EndpointId, Absent>,
    now: Timestamp,
) -> Node {
    let known = absent
        .remove(endpoint.id())
        .filter(|absent| absent.is_remembered(now));
    let (stats, key) = known.map_or_else(
        || {
            let key = NodeKey(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
            (EndpointStats::new(), key)
        },
        |absent| (absent.stats, absent.key),
    );
    Node::new(Arc::clone(endpoint), stats, key)
}
