//! Weights that servers' own reports give.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::round_robin::stride;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::error::Error;
use crate::time::Timestamp;
use crate::view::{NodeIndex, View};

/// Weighted round robin by what servers say of their load: gRPC's client-side
/// `weighted_round_robin` (A58).
///
/// An endpoint's weight is `rate / (utilization + failures / rate · penalty)`: the calls a second
/// that it would answer if it were used up. One that says nothing, whose reports are younger than
/// the blackout or older than the expiry, has the mean of the others; where fewer than two say
/// anything, all are equal. The endpoint's own weight multiplies, so that slow start holds.
///
/// The scheduler is [`RoundRobin`](super::RoundRobin)'s. Weights are computed again at the first
/// pick after an update period: O(n) for that one, O(1) on average for all others, and no allocation or
/// lock.
///
/// Reports come along with answers ([`load`](crate::load)).
///
/// ```
/// use std::time::Duration;
/// use waypost::strategy::LoadWeighted;
///
/// let quick = LoadWeighted::new().blackout(Duration::from_secs(2)).penalty(2.0)?;
/// assert!(LoadWeighted::new().penalty(-1.0).is_err());
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadWeighted {
    blackout: Duration,
    expiry: Duration,
    update: Duration,
    penalty: f32,
}

impl LoadWeighted {
    /// The strategy, with gRPC's defaults: a blackout of 10 s, an expiry of 3 min, an update every
    /// second, a penalty of 1.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiry: Duration::from_mins(3),
            update: Duration::from_secs(1),
            penalty: 1.0,
        }
    }

    /// For how long reports must have come before they count, so that a server that begins is not
    /// judged by its first calls.
    #[must_use]
    pub const fn blackout(mut self, blackout: Duration) -> Self {
        self.blackout = blackout;
        self
    }

    /// When a report is too old to count.
    #[must_use]
    pub const fn expiry(mut self, expiry: Duration) -> Self {
        self.expiry = expiry;
        self
    }

    /// How often weights are computed; at least every 100 ms, as in gRPC.
    #[must_use]
    pub fn update(mut self, update: Duration) -> Self {
        self.update = update.max(Duration::from_millis(100));
        self
    }

    /// What a failed call weighs: 1 is as much as the whole server in use by calls that succeed.
    ///
    /// # Errors
    ///
    /// When it is below 0 or not finite.
    pub fn penalty(mut self, penalty: f32) -> Result<Self, Error> {
        if !(penalty.is_finite() && penalty >= 0.0) {
            return Err(Error::invalid(
                "penalty",
                penalty,
                "is below 0 or not finite",
            ));
        }
        self.penalty = penalty;
        Ok(self)
    }
}

impl Default for LoadWeighted {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for LoadWeighted {
    fn build(&self, view: &View) -> BoxPicker {
        let picker = Reporting {
            rules: *self,
            shares: view.weights().iter().map(|_| AtomicU16::new(1)).collect(),
            next: AtomicU64::new(0),
            view: view.clone(),
        };
        // By the endpoints' own weights, until the first pick, which has the time.
        picker.share_out(|| view.weights().iter().map(|&own| own as f32));
        Box::new(picker)
    }

    fn reads_latency(&self) -> bool {
        true
    }

    fn reads_reports(&self) -> bool {
        true
    }
}

struct Reporting {
    rules: LoadWeighted,
    view: View,
    /// Of 65,535; never 0, so that no turn is without end.
    shares: Box<[AtomicU16]>,
    /// When weights are computed again, in nanoseconds.
    next: AtomicU64,
}

impl Reporting {
    /// The one pick that comes first after the time computes for all.
    fn is_due(&self, now: Timestamp) -> bool {
        let due = self.next.load(Ordering::Relaxed);
        let next = now.plus(self.rules.update).as_nanos();
        now.as_nanos() >= due
            && self
                .next
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn reported(&self, now: Timestamp) -> impl Iterator<Item = Option<f32>> {
        let rules = self.rules;
        self.view.nodes().map(move |node| {
            let stats = node.stats();
            stats.reported_weight(rules.penalty, rules.blackout, rules.expiry, now)
        })
    }

    /// In passes over the stats, to keep nothing. A report that comes between them may change one
    /// weight, which is within what the next update would do.
    fn weigh(&self, now: Timestamp) {
        let known = self.reported(now).flatten();
        let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), weight| {
            (sum + weight, count + 1)
        });
        let mean = if count < 2 { 1.0 } else { sum / count as f32 };
        self.share_out(|| {
            let owns = self.view.weights().iter().copied();
            self.reported(now).zip(owns).map(move |(reported, own)| {
                let reported = reported.filter(|_| count >= 2);
                reported.unwrap_or(mean) * own as f32
            })
        });
    }

    fn share_out<I: Iterator<Item = f32>>(&self, weights: impl Fn() -> I) {
        let heaviest = weights().fold(f32::MIN_POSITIVE, f32::max);
        for (share, weight) in self.shares.iter().zip(weights()) {
            let scaled = (weight / heaviest * f32::from(u16::MAX)).round();
            share.store((scaled as u16).max(1), Ordering::Relaxed);
        }
    }
}

impl Picker for Reporting {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        if self.view.is_empty() {
            return None;
        }
        let now = context.now();
        if self.is_due(now) {
            self.weigh(now);
        }
        let share = |at: usize| self.shares[at].load(Ordering::Relaxed);
        let index = stride(self.shares.len(), share, context.cursor());
        context.first_untried(&self.view, index)
    }
}
