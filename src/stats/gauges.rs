//! What time tells of one endpoint: how long its calls take, what they cost, and
//! how likely they fail.

use std::time::Duration;

use super::Outcome;
use super::latency::Latency;
use super::peak::Peak;
use super::trouble::Trouble;
use crate::sync::atomic::Ordering;
use crate::time::Timestamp;

/// What strategies that go by latency read. Written at the end of a call and read
/// by picks, so both words lie in one line.
#[derive(Debug, Default)]
#[repr(align(16))]
pub(super) struct Cost {
    peak: Peak,
    trouble: Trouble,
}

/// The longest that a server is left alone at its word: what Envoy waits at most.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The gauges of one endpoint, where they lie in its page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges<'a> {
    pub(super) latency: &'a Latency,
    pub(super) cost: &'a Cost,
}

impl Gauges<'_> {
    /// Takes in a call that ended so after so many nanoseconds: its latency, if
    /// it was answered, and what it cost, where strategies ask for that.
    #[inline]
    pub(crate) fn ended(self, nanos: u64, outcome: Outcome, with_cost: bool, now: Timestamp) {
        if outcome.is_answer() {
            self.latency.record(nanos, now);
        }
        if with_cost && outcome != Outcome::Cancelled {
            let failed = outcome.is_failure();
            self.cost.peak.record(nanos, failed, now);
            self.cost.trouble.record(failed, now);
        }
    }

    /// The mean latency in nanoseconds, which falls while no call ends; 0 where none is known, and
    /// below 0 after one call, which may have made the connection.
    #[inline]
    pub(crate) fn falling_latency(self, now: Timestamp) -> f32 {
        self.latency.falling(now)
    }

    /// What a call costs, in nanoseconds, by the peaks of latency and by
    /// failures; 0 where that is not known, or not recorded.
    #[inline]
    pub(crate) fn peak_cost(self, now: Timestamp) -> f32 {
        self.cost.peak.cost(now)
    }

    /// Takes in that the server asked to be left alone for so long: a call there costs as much, at
    /// first, and the price falls as that of any other peak.
    pub(crate) fn pushed_back(self, wait: Duration, now: Timestamp) {
        let wait = wait.min(LONGEST_WAIT);
        self.cost.peak.record(wait.as_nanos() as u64, true, now);
        self.cost.trouble.push_back(wait.as_secs_f32(), now);
    }

    /// How likely the next call fails, in 0..=1, by those that did, and above for an endpoint that
    /// asked to be left alone: what a call costs, in calls that fail. 0 where that is not recorded.
    #[inline]
    pub(crate) fn trouble(self, now: Timestamp) -> f32 {
        self.cost.trouble.share(now)
    }

    /// Forgets all, for another endpoint.
    pub(super) fn reset(self) {
        for word in [&self.latency.0, &self.cost.peak.0, &self.cost.trouble.0] {
            word.store(0, Ordering::Relaxed);
        }
    }
}
