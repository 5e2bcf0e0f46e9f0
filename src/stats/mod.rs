//! What is known of an endpoint from the calls made to it: how many are in
//! flight, how long they take, how they ended.
//!
//! These figures are the only way back from a call to the balancer, and they
//! are written twice a call, so their layout decides how fast a pick is: every
//! thread counts in a cache line of its own, and a reader adds the lines up.
//! A locked addition to a shared line costs 2 ns when nobody else writes it and
//! some 50 ns when another core does; a plain store to one's own costs half a
//! nanosecond either way.
//!
//! Stats belong to the endpoint's identity, not to a set: a balancer carries
//! them over from set to set, so a new weight, a changed neighbour, or a short
//! absence forgets nothing.

mod latency;
mod outcome;
mod stripe;

use std::sync::Arc;
use std::time::Duration;

pub use outcome::Outcome;

use crate::sync::Slot;
use crate::time::Timestamp;
use latency::Latency;
use stripe::Stripe;

/// The live figures of one endpoint, shared by all who refer to it.
#[derive(Clone, Debug)]
pub struct EndpointStats {
    stripes: Arc<[Stripe]>,
    latency: Arc<Latency>,
}

impl EndpointStats {
    pub(crate) fn new() -> Self {
        Self {
            stripes: (0..Slot::stripes()).map(|_| Stripe::default()).collect(),
            latency: Arc::default(),
        }
    }

    /// Calls in flight now. O(stripes in use): as many as threads that pick,
    /// at most 16.
    ///
    /// Exact while no other thread starts or finishes a call. While some do, it
    /// may miss those that happened during the reading.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> u32 {
        // One or two threads that pick are common, and a loop for so few costs
        // more than what it adds up.
        let sum = match (Slot::in_use(), &*self.stripes) {
            (1, [first, ..]) => first.in_flight(),
            (2, [first, second, ..]) => first.in_flight().wrapping_add(second.in_flight()),
            (in_use, stripes) => sum(stripes, in_use),
        };
        // A call that began under one thread and ended under another leaves
        // +1 in one stripe and -1 in the next; a reader between the two may
        // see the -1 alone.
        sum.cast_signed().max(0).cast_unsigned()
    }

    /// How the calls ended so far. O(stripes).
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.stripes
            .iter()
            .fold(Totals::default(), |mut totals, stripe| {
                stripe.add_to(&mut totals);
                totals
            })
    }

    /// The mean latency of answered calls, weighted to the last ten seconds
    /// (Finagle's EMA, which decays with time and not with the number of
    /// calls); none before the first.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.latency.mean()
    }

    /// Every slot has a stripe; looking it up without a way to panic keeps the
    /// hot path free of what unwinding would need.
    #[inline]
    pub(crate) fn begin(&self, slot: Slot) {
        if let Some(stripe) = self.stripes.get(usize::from(slot.stripe)) {
            stripe.begin(slot);
        }
    }

    #[inline]
    pub(crate) fn end(&self, slot: Slot, outcome: Outcome) {
        if let Some(stripe) = self.stripes.get(usize::from(slot.stripe)) {
            stripe.end(slot, outcome);
        }
    }

    #[inline]
    pub(crate) fn took(&self, latency: Duration, now: Timestamp) {
        self.latency.record(latency, now);
    }
}

#[inline(never)]
fn sum(stripes: &[Stripe], in_use: usize) -> u32 {
    stripes
        .iter()
        .take(in_use)
        .fold(0, |sum, stripe| sum.wrapping_add(stripe.in_flight()))
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
