//! What one thread counts of one endpoint.

use super::{Outcome, Totals};
use crate::sync::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The counters of one endpoint that one slot writes; two of them are a cache
/// line, which is the slot's own.
///
/// Orderings are relaxed throughout: the counters guard nothing, they are
/// estimates that other threads read; the program order of each thread, and the
/// lease's mutex between one tenant of a slot and the next, keep every single
/// counter exact.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(super) struct Stripe {
    /// Wraps below zero when calls end under this slot that began under
    /// another; only the sum over all stripes is the number in flight.
    in_flight: AtomicU32,
    succeeded: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

impl Stripe {
    #[inline]
    pub(super) fn begin(&self, slot: Slot) {
        // A slot that nobody else writes needs no locked instruction.
        if slot.exclusive {
            let in_flight = self.in_flight.load(Ordering::Relaxed);
            self.in_flight
                .store(in_flight.wrapping_add(1), Ordering::Relaxed);
        } else {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn end(&self, slot: Slot, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Success => &self.succeeded,
            Outcome::Cancelled => &self.cancelled,
            _ => &self.failed,
        };
        if slot.exclusive {
            let in_flight = self.in_flight.load(Ordering::Relaxed);
            self.in_flight
                .store(in_flight.wrapping_sub(1), Ordering::Relaxed);
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.in_flight.store(0, Ordering::Relaxed);
        for counter in [&self.succeeded, &self.failed, &self.cancelled] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.succeeded += self.succeeded.load(Ordering::Relaxed);
        totals.failed += self.failed.load(Ordering::Relaxed);
        totals.cancelled += self.cancelled.load(Ordering::Relaxed);
    }
}

#[cfg(all(test, waypost_loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    fn exclusive(stripe: u16) -> Slot {
        Slot {
            stripe,
            exclusive: true,
        }
    }

    fn sum(stripes: &[Stripe]) -> u32 {
        stripes
            .iter()
            .fold(0_u32, |sum, stripe| sum.wrapping_add(stripe.in_flight()))
    }

    /// A call that begins under one thread's slot and ends under another's is
    /// counted once and uncounted once, whatever the others do meanwhile.
    #[test]
    fn a_call_that_moves_between_threads_is_counted_once() {
        loom::model(|| {
            let stripes: Arc<[Stripe; 2]> = Arc::default();
            stripes[0].begin(exclusive(0));
            let other = {
                let stripes = Arc::clone(&stripes);
                loom::thread::spawn(move || {
                    stripes[1].begin(exclusive(1));
                    stripes[1].end(exclusive(1), Outcome::Success);
                    // The call that began under slot 0 ends here.
                    stripes[1].end(exclusive(1), Outcome::Success);
                })
            };
            stripes[0].begin(exclusive(0));
            stripes[0].end(exclusive(0), Outcome::Cancelled);
            other.join().unwrap();
            assert_eq!(sum(&stripes[..]), 0);
            let mut totals = Totals::default();
            stripes.iter().for_each(|stripe| stripe.add_to(&mut totals));
            assert_eq!((totals.succeeded, totals.cancelled), (2, 1));
        });
    }

    /// Threads that share a stripe lose no count.
    #[test]
    fn a_shared_stripe_loses_nothing() {
        loom::model(|| {
            let shared = Slot {
                stripe: 0,
                exclusive: false,
            };
            let stripe: Arc<Stripe> = Arc::default();
            let other = {
                let stripe = Arc::clone(&stripe);
                loom::thread::spawn(move || {
                    stripe.begin(shared);
                    stripe.end(shared, Outcome::NotSent);
                })
            };
            stripe.begin(shared);
            other.join().unwrap();
            assert_eq!(stripe.in_flight(), 1);
            let mut totals = Totals::default();
            stripe.add_to(&mut totals);
            assert_eq!(totals.failed, 1);
        });
    }
}
