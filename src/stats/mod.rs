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

mod accounting;
mod accrual;
mod gauges;
mod latency;
mod ledger;
mod level;
mod outcome;
mod peak;
mod recent;
mod reported;
mod stripe;
mod trouble;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use accounting::{Accounting, Bell};
pub use accrual::Streaks;
pub(crate) use accrual::{Accrual, Trial};
pub(crate) use gauges::Gauges;
pub(crate) use ledger::{Counters, Ledger, Place, Stripes};
pub use outcome::Outcome;
pub(crate) use recent::{Entry, Recent};
pub(crate) use reported::Held;

use crate::load::LoadReport;
use crate::sync::Slot;
use crate::time::Timestamp;
use ledger::Row;
use reported::Reported;

/// The live figures of one endpoint, shared by all who refer to it.
#[derive(Clone, Debug)]
pub struct EndpointStats(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    key: NodeKey,
    row: Row,
    reported: Reported,
    accounting: Arc<Accounting>,
    accrual: Accrual,
}

/// Tells endpoints of a process apart for as long as their stats live: the same
/// replica keeps its key from set to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeKey(pub(crate) NonZeroU64);

impl NodeKey {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // It takes centuries to come to 0 again.
        Self(NonZeroU64::new(next).unwrap_or(NonZeroU64::MAX))
    }
}

impl EndpointStats {
    fn new(row: Row, accounting: Arc<Accounting>) -> Self {
        Self(Arc::new(Figures {
            key: NodeKey::next(),
            row,
            reported: Reported::default(),
            accounting,
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
    /// calls); none before the first, which gives way to the second, since it
    /// may have waited for a connection.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.gauges().latency.mean()
    }

    /// What time tells of it.
    #[inline]
    pub(crate) fn gauges(&self) -> Gauges<'_> {
        self.0.row.gauges()
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

    /// Takes in what the server said of its load when it answered a call, as
    /// [`reported`](Self::reported), if the strategy asks.
    pub(crate) fn hear(&self, report: &LoadReport) {
        let accounting = self.accounting();
        if let Some(now) = accounting.now_if(accounting.by_reports) {
            self.reported(report, now);
        }
    }

    /// Takes in what the server said of its load apart from any call, if the strategy asks.
    pub(crate) fn hear_apart(&self, report: &LoadReport) {
        let accounting = self.accounting();
        if let Some(now) = accounting.now_if(accounting.by_reports) {
            self.told(report, now);
        }
    }

    /// Takes in that the server asked to be left alone for so long, if the strategy goes by what
    /// calls cost.
    pub(crate) fn push_back(&self, wait: Duration) {
        let accounting = self.accounting();
        if let Some(now) = accounting.now_if(accounting.by_latency) {
            self.gauges().pushed_back(wait, now);
        }
    }

    /// Takes in what the server said of its load when it answered a call that is still counted
    /// here, and no longer there.
    pub(crate) fn reported(&self, report: &LoadReport, now: Timestamp) {
        self.report(report, self.in_flight().saturating_sub(1), now);
    }

    /// Takes in what the server said of its load apart from any call.
    pub(crate) fn told(&self, report: &LoadReport, now: Timestamp) {
        self.report(report, self.in_flight(), now);
    }

    fn report(&self, report: &LoadReport, own: u32, now: Timestamp) {
        let said = report.in_flight().map(|calls| calls.max(0.0) as f32);
        let recent = self.recent_reports();
        let (held, surplus) = said.map(|said| recent.level.take(said)).unzip();
        let surplus = surplus.unwrap_or_default();
        self.0.reported.record(report, held, surplus, own, now);
        recent.add(self.row(), now);
    }

    /// The last reports that came to the balancer, its own and others'.
    pub(crate) fn recent_reports(&self) -> &Arc<Recent> {
        &self.0.accounting.recent
    }

    /// How its balancer accounts for calls.
    #[inline]
    pub(crate) fn accounting(&self) -> &Accounting {
        &self.0.accounting
    }

    /// The latency that the server said a call would have, in nanoseconds; 0 where it did not.
    #[inline]
    pub(crate) fn reported_latency(&self) -> f32 {
        self.0.reported.latency()
    }

    /// What the server said last of the calls that it holds.
    #[inline]
    pub(crate) fn held(&self, now: Timestamp) -> Option<Held> {
        self.0.reported.held(now)
    }

    /// The weight that its reports give it (gRPC A58).
    pub(crate) fn reported_weight(
        &self,
        penalty: f32,
        blackout: Duration,
        expiry: Duration,
        now: Timestamp,
    ) -> Option<f32> {
        self.0.reported.weight(penalty, blackout, expiry, now)
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
