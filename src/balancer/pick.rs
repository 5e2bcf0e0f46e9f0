//! The guard of one call.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::local;
use super::state::State;
use crate::endpoint::Endpoint;
use crate::load::LoadReport;
use crate::stats::{EndpointStats, Gauges, Outcome};
use crate::time::{Clock, Timestamp};
use crate::view::{Node, NodeKey, Roster};

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
    /// None only while the guard ends.
    state: Option<Arc<State>>,
    mark: Mark,
}

impl Pick {
    /// The call is counted already.
    #[inline]
    pub(super) fn new(state: Arc<State>, mark: Mark) -> Self {
        Self {
            state: Some(state),
            mark,
        }
    }

    #[inline]
    fn roster(&self) -> &Roster {
        match &self.state {
            Some(state) => &state.roster,
            None => missing(),
        }
    }

    /// The endpoint, to be kept beyond the call.
    #[must_use]
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        let endpoints = &self.roster().endpoints;
        match endpoints.get(self.mark.node() as usize) {
            Some(endpoint) => endpoint,
            None => missing(),
        }
    }

    /// The endpoint's live stats.
    #[must_use]
    #[inline]
    pub fn stats(&self) -> &EndpointStats {
        match self.roster().stats.get(self.mark.node() as usize) {
            Some(stats) => stats,
            None => missing(),
        }
    }

    /// What tells the endpoint apart, for [`Tried`](crate::strategy::Tried).
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.stats().key()
    }

    /// Ends the call: uncounts it, and records its outcome and, of an answered
    /// call, its latency from pick to here.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        if let Some(state) = self.state.take() {
            local::end(state, self.mark, outcome);
        }
    }

    /// Tells the balancer what the server said of its load along with the answer. What a strategy
    /// does not [ask for](crate::strategy::Strategy::reads_reports) is not kept.
    pub fn report(&self, report: &LoadReport) {
        self.stats().hear(report);
    }

    /// Tells the balancer that the server asked to be left alone for so long, as `Retry-After` does.
    /// Strategies that [go by what calls cost](crate::strategy::Strategy::reads_latency) then price a
    /// call there at that time, of at most five minutes, which falls to a third every ten seconds.
    /// Others do not keep it. The clients of this crate do this.
    ///
    /// ```
    /// use std::time::Duration;
    /// use waypost::{Balancer, Endpoint, EndpointSet, Outcome};
    ///
    /// # fn main() -> Result<(), waypost::Error> {
    /// let (users, mut updater) = Balancer::builder("users").manual()?;
    /// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?);
    ///
    /// let busy = users.pick()?;
    /// let id = busy.id().clone();
    /// busy.push_back(Duration::from_secs(20));
    /// busy.finish(Outcome::GatewayError);
    /// for _ in 0..10 {
    ///     let pick = users.pick()?;
    ///     assert_ne!(*pick.id(), id);
    ///     pick.finish(Outcome::Success);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn push_back(&self, wait: Duration) {
        self.stats().push_back(wait);
    }

    /// The guard of the same call, holding on to its endpoint alone and no
    /// longer to the set it was picked from. Allocates nothing, and costs two
    /// locked instructions, and two more when it ends.
    pub fn detach(mut self) -> DetachedPick {
        let detached = DetachedPick {
            node: Node::new(Arc::clone(self.endpoint()), self.stats().clone()),
            mark: self.mark,
            outcome: Outcome::Cancelled,
        };
        if let Some(state) = self.state.take() {
            local::keep(state);
        }
        detached
    }
}

impl Drop for Pick {
    #[inline]
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            local::cancel(state, self.mark);
        }
    }
}

/// A pick holds its state until it ends, and names an endpoint of it.
///
/// That this cannot unwind is the point: a caller that could be unwound from
/// here would have to keep its pick in memory, written and read back, and never
/// in registers.
#[cold]
#[inline(never)]
extern "C" fn missing() -> ! {
    unreachable!("a pick has an endpoint")
}

/// Which node a call went to, and when, in one word that is never 0: so a pick,
/// and even an option of one, is two registers, which nothing has to write to
/// memory and read back.
///
/// The lowest 24 bits are the node, the next 39 the time in ticks of 64 ns,
/// which repeat after 9.8 hours; the highest bit is always set.
#[derive(Clone, Copy)]
pub(super) struct Mark(NonZeroU64);

impl Mark {
    /// How many nodes can be marked.
    pub(super) const NODES: usize = 1 << Self::NODE_BITS;

    const NODE_BITS: u32 = 24;
    const TICK_BITS: u32 = 6;
    const TICKS: u64 = (1 << (63 - Self::NODE_BITS)) - 1;
    /// A second in ticks, by which two readings of a clock never differ.
    const LATE: u64 = 1_000_000_000 >> Self::TICK_BITS;
    const SET: NonZeroU64 = NonZeroU64::new(1 << 63).unwrap();

    #[inline]
    pub(super) fn new(node: u32, started: Timestamp) -> Self {
        let ticks = (started.as_nanos() >> Self::TICK_BITS) & Self::TICKS;
        Self(Self::SET | (ticks << Self::NODE_BITS | u64::from(node)))
    }

    /// The mark of a call that is not timed.
    #[inline]
    pub(super) fn untimed(node: u32) -> Self {
        Self(Self::SET | u64::from(node))
    }

    #[inline]
    pub(super) fn node(self) -> u32 {
        self.0.get() as u32 & (Self::NODES as u32 - 1)
    }

    /// How many nanoseconds ago the call started: the last time before `now`
    /// that the ticks fit.
    #[inline]
    fn elapsed(self, now: Timestamp) -> u64 {
        let then = (self.0.get() >> Self::NODE_BITS) & Self::TICKS;
        let elapsed = (now.as_nanos() >> Self::TICK_BITS).wrapping_sub(then) & Self::TICKS;
        // By another core's counter, it may not have started yet.
        if elapsed > Self::TICKS - Self::LATE {
            return 0;
        }
        elapsed << Self::TICK_BITS
    }
}

/// Records the latency of a call that ends now.
#[expect(clippy::inline_always, reason = "a call would cost a tenth of it")]
#[inline(always)]
pub(super) fn record(
    gauges: Gauges<'_>,
    clock: &Clock,
    mark: Mark,
    outcome: Outcome,
    by_latency: bool,
) {
    let costs = by_latency && outcome != Outcome::Cancelled;
    if !outcome.is_answer() && !costs {
        return;
    }
    let now = clock.now();
    gauges.ended(mark.elapsed(now), outcome, costs, now);
}

/// A [`Pick`] that no longer holds on to the set it was picked from: the guard
/// of a call that lasts. Like a pick, it counts its call until it is finished
/// or dropped.
#[must_use = "a pick that is dropped at once counts as a cancelled call"]
pub struct DetachedPick {
    node: Node,
    outcome: Outcome,
    mark: Mark,
}

impl DetachedPick {
    /// The endpoint, to be kept beyond the call.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.node.endpoint()
    }

    /// What tells the endpoint apart, as [`Pick::key`] does.
    #[must_use]
    pub fn key(&self) -> NodeKey {
        self.node.key()
    }

    /// Whether the strategy goes by what servers say of their load, so that it is worth to be read.
    #[must_use]
    pub fn wants_report(&self) -> bool {
        self.node.stats().accounting().by_reports
    }

    /// Tells what the server said of its load, as [`Pick::report`] does.
    pub fn report(&self, report: &LoadReport) {
        self.node.stats().hear(report);
    }

    /// Tells that the server asked to be left alone for so long, as [`Pick::push_back`] does.
    pub fn push_back(&self, wait: Duration) {
        self.node.stats().push_back(wait);
    }

    /// Ends the call, as [`Pick::finish`] does.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for DetachedPick {
    fn drop(&mut self) {
        let stats = self.node.stats();
        let accounting = stats.accounting();
        if let Some(clock) = &accounting.stopwatch {
            let by_latency = accounting.by_latency;
            record(stats.gauges(), clock, self.mark, self.outcome, by_latency);
        }
        stats.end(local::slot(), self.outcome);
        if let Some(bell) = &accounting.bell {
            bell.ended(stats, self.outcome);
        }
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
                    .finish_non_exhaustive()
            }
        }
    };
}

guard!(Pick);
guard!(DetachedPick);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pick_and_an_option_of_one_are_two_words() {
        assert_eq!(size_of::<Pick>(), 16);
        assert_eq!(size_of::<Option<Pick>>(), 16);
    }

    #[test]
    fn a_mark_keeps_the_node_and_the_time_to_a_tick() {
        let tick = 1 << Mark::TICK_BITS;
        for node in [0, 1, Mark::NODES as u32 - 1] {
            for started in [0, 1, 1 << 40, u64::MAX >> 1] {
                let started = Timestamp::from_nanos(started);
                let mark = Mark::new(node, started);
                assert_eq!(mark.node(), node);
                for elapsed in [0, 1, 63, 64, 1_000_000, 9 * 3_600 * 1_000_000_000] {
                    let now = started.plus(Duration::from_nanos(elapsed));
                    let error = mark.elapsed(now).abs_diff(elapsed);
                    assert!(error <= tick, "{node} {started:?} {elapsed}: {error}");
                }
                let earlier = Timestamp::from_nanos(started.as_nanos().saturating_sub(1_000));
                assert_eq!(mark.elapsed(earlier), 0);
            }
        }
    }
}
