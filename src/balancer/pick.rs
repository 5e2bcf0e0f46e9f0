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
    /// None only while the guard is being dropped.
    state: Option<Arc<State>>,
    node: u32,
    outcome: Outcome,
    started: Timestamp,
}

impl Pick {
    /// The call is counted already.
    #[inline]
    pub(super) fn new(state: Arc<State>, node: u32, started: Timestamp) -> Self {
        Self {
            state: Some(state),
            node,
            outcome: Outcome::Cancelled,
            started,
        }
    }

    #[inline]
    fn node(&self) -> &Arc<Node> {
        let Some(state) = &self.state else {
            unreachable!("a pick holds its state until it is dropped");
        };
        &state.nodes[self.node as usize]
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

    /// The guard of the same call, holding on to its endpoint alone and no
    /// longer to the set it was picked from. Allocates nothing, and costs two
    /// locked instructions.
    pub fn detach(mut self) -> DetachedPick {
        let node = Arc::clone(self.node());
        let stopwatch = self.state.take().and_then(|state| state.stopwatch.clone());
        DetachedPick {
            node,
            stopwatch,
            outcome: Outcome::Cancelled,
            started: self.started,
        }
    }
}

impl Drop for Pick {
    #[inline]
    fn drop(&mut self) {
        let Some(state) = self.state.take() else {
            return;
        };
        if let Some(clock) = &state.stopwatch {
            let node = &state.nodes[self.node as usize];
            record(node, clock, self.started, self.outcome);
        }
        local::end(state, self.node, self.outcome);
    }
}

/// A [`Pick`] that no longer holds on to the set it was picked from: the guard
/// of a call that lasts. Like a pick, it counts its call until it is finished
/// or dropped.
#[must_use = "a pick that is dropped at once counts as a cancelled call"]
pub struct DetachedPick {
    node: Arc<Node>,
    stopwatch: Option<Clock>,
    outcome: Outcome,
    started: Timestamp,
}

impl DetachedPick {
    /// The endpoint, to be kept beyond the call.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.node.endpoint()
    }

    /// Ends the call, as [`Pick::finish`] does.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for DetachedPick {
    fn drop(&mut self) {
        if let Some(clock) = &self.stopwatch {
            record(&self.node, clock, self.started, self.outcome);
        }
        self.node.stats().end(local::slot(), self.outcome);
    }
}

/// Not inlined: a call that is not timed should not carry the code.
#[inline(never)]
fn record(node: &Node, clock: &Clock, started: Timestamp, outcome: Outcome) {
    if outcome.is_answer() {
        let now = clock.now();
        node.stats().took(now.since(started), now);
    }
}

macro_rules! guard {
    ($name:ident) => {
        impl Deref for $name {
            type Target = Endpoint;

            #[inline]
            fn deref(&self) -> &Endpoint {
                self.endpoint()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("endpoint", self.endpoint())
                    .field("started", &self.started)
                    .finish_non_exhaustive()
            }
        }
    };
}

guard!(Pick);
guard!(DetachedPick);
