//! The guard of one call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::local;
use super::state::State;
use crate::endpoint::Endpoint;
use crate::stats::{EndpointStats, Outcome};
use crate::time::{Clock, Timestamp};
use crate::view::{Node, NodeKey};

/// The endpoint that one call goes to, counted as in flight there for as long
/// as this guard lives.
///
/// It derefs to the [`Endpoint`]. [`Pick::finish`] tells how the call ended;
/// dropping it means that the caller gave up ([`Outcome::Cancelled`]). Either
/// way the call is uncounted exactly once, on whatever thread that happens, so
/// a guard may be held by a future that is cancelled or by a body that streams.
///
/// A guard holds on to the whole set it was picked from. One that is kept for
/// minutes, by a stream or a connection, had better be
/// [detached](Pick::detach).
///
/// ```
/// use waypost::{Balancer, Endpoint, EndpointSet, Outcome};
///
/// # fn main() -> Result<(), waypost::Error> {
/// let (users, mut updater) = Balancer::builder("users").manual()?;
/// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?])?);
///
/// let pick = users.pick()?;
/// assert_eq!(pick.address().as_str(), "10.0.0.1:80");
/// assert_eq!(pick.stats().in_flight(), 1);
/// pick.finish(Outcome::Success);
/// assert_eq!(users.pick()?.stats().totals().succeeded, 1);
/// # Ok(()) }
/// ```
#[must_use = "a pick that is dropped at once counts as a cancelled call"]
pub struct Pick {
    hold: Hold,
    started: Timestamp,
    outcome: Outcome,
}

/// What keeps the node alive.
enum Hold {
    State(Arc<State>, u32),
    Node(Box<Detached>),
    /// Only while the guard is being dropped.
    Nothing,
}

struct Detached {
    node: Arc<Node>,
    stopwatch: Option<Clock>,
}

impl Pick {
    /// The call is counted already.
    #[inline]
    pub(super) fn new(state: Arc<State>, node: u32, started: Timestamp) -> Self {
        Self {
            hold: Hold::State(state, node),
            started,
            outcome: Outcome::Cancelled,
        }
    }

    #[inline]
    fn node(&self) -> &Arc<Node> {
        match &self.hold {
            Hold::State(state, node) => &state.nodes[*node as usize],
            Hold::Node(detached) => &detached.node,
            Hold::Nothing => unreachable!("a pick holds its node until it is dropped"),
        }
    }

    /// The endpoint, to be kept beyond the call.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.node().endpoint()
    }

    /// The endpoint's live stats.
    #[must_use]
    pub fn stats(&self) -> &EndpointStats {
        self.node().stats()
    }

    /// What tells the endpoint apart, for [`Tried`](crate::strategy::Tried).
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.node().key()
    }

    /// Ends the call: uncounts it, and records its outcome and, of an answered
    /// call, its latency from pick to here.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The same guard, holding on to its endpoint alone and no longer to the
    /// set it was picked from: for calls that last.
    pub fn detach(mut self) -> Self {
        if let Hold::State(state, node) = &self.hold {
            let detached = Detached {
                node: Arc::clone(&state.nodes[*node as usize]),
                stopwatch: state.stopwatch.clone(),
            };
            self.hold = Hold::Node(Box::new(detached));
        }
        self
    }
}

impl Drop for Pick {
    #[inline]
    fn drop(&mut self) {
        match std::mem::replace(&mut self.hold, Hold::Nothing) {
            Hold::State(state, node) => {
                if let Some(clock) = &state.stopwatch {
                    record(&state.nodes[node as usize], clock, self.started, self.outcome);
                }
                local::end(state, node, self.outcome);
            }
            Hold::Node(detached) => {
                let Detached { node, stopwatch } = *detached;
                if let Some(clock) = &stopwatch {
                    record(&node, clock, self.started, self.outcome);
                }
                node.stats().end(local::slot(), self.outcome);
            }
            Hold::Nothing => {}
        }
    }
}

#[inline]
fn record(node: &Node, clock: &Clock, started: Timestamp, outcome: Outcome) {
    if outcome.is_answer() {
        let now = clock.now();
        node.stats().took(now.since(started), now);
    }
}

impl Deref for Pick {
    type Target = Endpoint;

    #[inline]
    fn deref(&self) -> &Endpoint {
        self.node().endpoint()
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("endpoint", self.endpoint())
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}
