//! What is known of an endpoint from the calls made to it: how many are in
//! flight, how long they take, how they ended.
//!
//! These figures are the only way back from a call to the balancer, and they
//! are written twice a call, so their layout decides how fast a pick is: every
//! thread counts in cache lines of its own, and a reader adds the lines up.
//! A locked addition to a shared line costs 2 ns when nobody else writes it and
//! some 50 ns when another core does; a plain store to one's own costs half a
//! nanosecond either way.
//!
//! Stats belong to the endpoint's identity, not to a set: a balancer carries
//! them over from set to set, so a new weight, a changed neighbour, or a short
//! absence forgets nothing.

mod accrual;
mod latency;
mod ledger;
mod outcome;
mod peak;
mod stripe;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use accrual::Streaks;
pub(crate) use accrual::{Accrual, Trial};
pub(crate) use ledger::{Counters, FewStripes, Ledger};
pub use outcome::Outcome;

use crate::sync::Slot;
use crate::time::Timestamp;
use latency::Latency;
use ledger::Row;
use peak::Peak;

/// The live figures of one endpoint, shared by all who refer to it.
#[derive(Clone, Debug)]
pub struct EndpointStats(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    key: NodeKey,
    row: Row,
    latency: Latency,
    peak: Peak,
    accrual: Accrual,
}

/// Tells endpoints of a process apart for as long as their stats live: the same
/// replica keeps its key from set to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeKey(pub(crate) u64);

impl NodeKey {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl EndpointStats {
    fn new(row: Row) -> Self {
        Self(Arc::new(Figures {
            key: NodeKey::next(),
            row,
            latency: Latency::default(),
            peak: Peak::default(),
            accrual: Accrual::default(),
        }))
    }

    /// What tells the endpoint apart from others.
    #[must_use]
    #[inline]
    pub fn key(&self) -> NodeKey {
        self.0.key
    }

    /// Calls in flight now. O(stripes in use): as many as threads that pick,
    /// at most 16.
    ///
    /// Exact while no other thread starts or finishes a call. While some do, it
    /// may miss those that happened during the reading.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.0.row.in_flight()
    }

    /// How the calls ended so far. O(stripes).
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.0.row.totals()
    }

    /// The mean latency of answered calls, weighted to the last ten seconds
    /// (Finagle's EMA, which decays with time and not with the number of
    /// calls); none before the first.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.0.latency.mean()
    }

    /// Failures in a row, up to now.
    #[must_use]
    pub fn streaks(&self) -> Streaks {
        self.0.accrual.streaks(self.totals().succeeded)
    }

    /// Takes in that a call failed, and tells how many did in a row.
    pub(crate) fn failed(&self, outcome: Outcome) -> Streaks {
        self.0.accrual.failed(outcome, self.totals().succeeded)
    }

    pub(crate) fn accrual(&self) -> &Accrual {
        &self.0.accrual
    }

    /// Where its counters are in their ledger.
    pub(crate) fn row(&self) -> u32 {
        self.0.row.number()
    }

    pub(crate) fn end(&self, slot: Slot, outcome: Outcome) {
        self.0.row.end(slot, outcome);
    }

    #[inline]
    pub(crate) fn took(&self, latency: Duration, now: Timestamp) {
        self.0.latency.record(latency, now);
    }

    /// What a call costs, in nanoseconds, by the peaks of latency and by
    /// failures; 0 where that is not known, or not recorded.
    #[inline]
    pub(crate) fn peak_cost(&self, now: Timestamp) -> f32 {
        self.0.peak.cost(now)
    }

    /// Takes in what a call cost, failed or not.
    #[inline]
    pub(crate) fn cost(&self, took: Duration, failed: bool, now: Timestamp) {
        self.0.peak.record(took, failed, now);
    }
}

/// How the calls to an endpoint ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Calls that were answered well.
    pub succeeded: u64,
    /// Calls that failed, in whatever way.
    pub failed: u64,
    /// Calls that their caller gave up.
    pub cancelled: u64,
}

impl Totals {
    /// All calls that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }
}
