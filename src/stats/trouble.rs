//! How likely the next call to an endpoint fails, in one word.

use super::latency::{gain, pack, tick_of, unpack};
use super::peak::elapsed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// The share of failures over some 64 calls, which falls towards nothing while there are none
/// (10 s, as latency), so that an endpoint that failed is tried again.
///
/// One failure among successes is a blip. Two in a row, or one before any success, are an outage,
/// and count as if all calls failed: so at most two calls are lost to an endpoint that begins to
/// fail, while one call in a hundred that fails everywhere keeps no endpoint from its work.
///
/// An endpoint that asks to be left alone for some seconds counts as if as many calls in a row failed
/// for each that is sent there, as a failed call is priced at a second.
///
/// The share (an `f32`, below 0 when the last call failed) and the time it was computed at share
/// one word.
#[derive(Debug, Default)]
pub(super) struct Trouble(pub(super) AtomicU64);

/// Nothing is known.
const NONE: u64 = 0;

/// Of an endpoint that has succeeded.
const LEAST: f32 = 1e-6;

const STEP: f32 = 1.0 / 64.0;

impl Trouble {
    /// In 0..=1, and above where the endpoint asked to be left alone.
    #[inline]
    pub(super) fn share(&self, now: Timestamp) -> f32 {
        let word = self.0.load(Ordering::Relaxed);
        let (share, last) = unpack(word);
        if share.abs() <= LEAST {
            return 0.0;
        }
        share.abs() * (1.0 - gain(elapsed(last, tick_of(now))))
    }

    /// Wait-free but for retries while other threads record to the same endpoint; an endpoint
    /// that only succeeds is not written.
    #[inline]
    pub(super) fn record(&self, failed: bool, now: Timestamp) {
        if failed || self.0.load(Ordering::Relaxed) >> 32 != u64::from(LEAST.to_bits()) {
            self.change(failed, now);
        }
    }

    #[inline(never)]
    fn change(&self, failed: bool, now: Timestamp) {
        self.update(now, |word, share, kept| match (failed, word) {
            (true, NONE) => -1.0,
            (true, _) if share < 0.0 => -kept.max(1.0),
            (true, _) => -(kept + (1.0 - kept).max(0.0) * STEP),
            (false, _) => (kept * (1.0 - STEP)).max(LEAST),
        });
    }

    /// Takes in that the endpoint asked to be left alone for so many seconds.
    pub(super) fn push_back(&self, seconds: f32, now: Timestamp) {
        self.update(now, |_, _, kept| -seconds.max(kept).max(LEAST));
    }

    /// By the word, its share, and what is left of that.
    fn update(&self, now: Timestamp, next: impl Fn(u64, f32, f32) -> f32) {
        let tick = tick_of(now);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (share, last) = unpack(word);
            let kept = share.abs() * (1.0 - gain(elapsed(last, tick)));
            let next = pack(next(word, share, kept), tick);
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn one_failure_is_a_blip_and_two_in_a_row_are_an_outage() {
        let trouble = Trouble::default();
        trouble.record(false, at(0));
        assert_eq!(trouble.share(at(0)), 0.0);
        trouble.record(true, at(1));
        assert!((trouble.share(at(1)) - STEP).abs() < 1e-5);
        trouble.record(true, at(2));
        assert_eq!(trouble.share(at(2)), 1.0);
        // It falls with time, and with success.
        let later = trouble.share(at(10_002));
        assert!((later - (-1.0_f32).exp()).abs() < 1e-3, "{later}");
        trouble.record(false, at(10_002));
        assert!(trouble.share(at(10_002)) < later);
    }

    #[test]
    fn an_endpoint_that_never_succeeded_is_out_at_once() {
        let trouble = Trouble::default();
        trouble.record(true, at(0));
        assert_eq!(trouble.share(at(0)), 1.0);
    }

    #[test]
    fn who_asks_to_be_left_alone_is_for_longer_than_who_fails() {
        let trouble = Trouble::default();
        trouble.record(false, at(0));
        trouble.push_back(20.0, at(0));
        assert_eq!(trouble.share(at(0)), 20.0);
        // More failures make it no better, nor does a shorter time.
        trouble.record(true, at(1));
        trouble.record(true, at(1));
        trouble.push_back(2.0, at(1));
        assert!((trouble.share(at(1)) - 20.0).abs() < 0.01);
        let later = trouble.share(at(20_000));
        assert!((later - 20.0 * (-2.0_f32).exp()).abs() < 0.01, "{later}");
        // Nothing was asked, which is no outage either.
        let none = Trouble::default();
        none.push_back(0.0, at(0));
        assert_eq!(none.share(at(0)), 0.0);
    }

    #[test]
    fn one_in_a_hundred_stays_about_that() {
        let trouble = Trouble::default();
        let mut sum = 0.0;
        for call in 0..10_000_u64 {
            trouble.record(call % 100 == 50, at(call));
            sum += trouble.share(at(call));
        }
        let mean = sum / 10_000.0;
        assert!((0.005..0.02).contains(&mean), "{mean}");
    }
}
