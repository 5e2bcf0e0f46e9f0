//! What a call to an endpoint costs, in one word: its latency, by its peaks.

use std::time::Duration;

use super::latency::{gain, pack, sample_of, tick_of, ticks, unpack};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// Finagle's peak EWMA: a sample above the cost becomes the cost at once, one
/// below draws it down as an exponential average over time does, and while
/// there are none it falls towards nothing, so that an endpoint that was slow
/// is tried again.
///
/// Where Finagle writes the fall down at each reading, it is here computed: a
/// reader writes nothing. Cost (an `f32` of nanoseconds) and the time of its
/// last sample share one word, as in [`Latency`](super::latency::Latency).
#[derive(Debug, Default)]
pub(super) struct Peak(pub(super) AtomicU64);

/// What a failed call counts as at least: so an endpoint that fails fast is
/// never the fastest. With 1 s, one of a hundred that fails within a
/// millisecond gets 0.01 % of the calls, without it twice its share.
const FAILURE: u64 = 1_000_000_000;

/// A clock that was read before another thread recorded is behind by this at
/// most; what seems to be more is a time long past, since ticks wrap.
const LATE: u32 = ticks(Duration::from_secs(1));

impl Peak {
    /// Nanoseconds; 0 where nothing is known, or no longer.
    #[inline]
    pub(super) fn cost(&self, now: Timestamp) -> f32 {
        let (cost, last) = unpack(self.0.load(Ordering::Relaxed));
        cost * (1.0 - gain(elapsed(last, tick_of(now))))
    }

    /// Takes in a call that took so many nanoseconds. Wait-free but for retries
    /// while other threads record peaks of the same endpoint.
    ///
    /// Of two peaks at the same moment the higher one stays. A sample below the
    /// peak is written as it is, and may undo what another thread takes in within
    /// the same nanoseconds: so rare that the next call sets it right, where a
    /// locked instruction for each call would cost as much as the rest of this.
    #[inline]
    pub(super) fn record(&self, nanos: u64, failed: bool, now: Timestamp) {
        let nanos = if failed { nanos.max(FAILURE) } else { nanos };
        let sample = sample_of(nanos);
        let tick = tick_of(now);
        let (cost, last) = unpack(self.0.load(Ordering::Relaxed));
        let elapsed = elapsed(last, tick);
        if sample > cost {
            self.rise(sample, tick);
        } else if elapsed > 0 {
            let next = cost + (sample - cost) * gain(elapsed);
            let next = pack(next, last.wrapping_add(elapsed));
            self.0.store(next, Ordering::Relaxed);
        }
        // Within the tick it has no weight, and the line is spared.
    }

    #[inline(never)]
    fn rise(&self, sample: f32, tick: u32) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (cost, last) = unpack(word);
            if sample <= cost {
                return;
            }
            let next = pack(sample, last.wrapping_add(elapsed(last, tick)));
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

/// How long ago in ticks; nothing where another thread's clock was ahead.
#[inline]
pub(super) fn elapsed(last: u32, tick: u32) -> u32 {
    let elapsed = tick.wrapping_sub(last);
    if elapsed > u32::MAX - LATE {
        0
    } else {
        elapsed
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    fn assert_cost(peak: &Peak, millis: u64, expected: f64) {
        let cost = f64::from(peak.cost(at(millis)));
        let error = (cost - expected).abs();
        assert!(
            error <= expected * 0.002 + 1.0,
            "{cost} {expected} at {millis}"
        );
    }

    #[test]
    fn a_peak_counts_at_once_and_falls_with_time_whoever_reads() {
        let peak = Peak::default();
        assert_cost(&peak, 0, 0.0);
        peak.record(2 * MS, false, at(1_000));
        peak.record(50 * MS, false, at(1_001));
        assert_cost(&peak, 1_001, 50e6);
        for _ in 0..3 {
            assert_cost(&peak, 11_001, 50e6 * (-1.0_f64).exp());
        }
        assert_cost(&peak, 1_001, 50e6);
        // A day later nothing is left, though the ticks have wrapped once.
        assert_cost(&peak, 86_400_000, 0.0);
    }

    #[test]
    fn a_failure_costs_a_second_however_fast_it_was() {
        let peak = Peak::default();
        peak.record(MS, true, at(0));
        assert_cost(&peak, 0, 1e9);
        peak.record(3_000 * MS, true, at(0));
        assert_cost(&peak, 0, 3e9);
    }

    #[test]
    fn what_another_thread_recorded_later_is_no_time_long_past() {
        let peak = Peak::default();
        peak.record(9 * MS, false, at(500));
        assert_cost(&peak, 100, 9e6);
        peak.record(MS, false, at(100));
        assert_cost(&peak, 500, 9e6);
    }

    /// The naive twin: the formula in f64, one sample every 5 ms to 20 s.
    #[test]
    fn it_follows_the_formula() {
        let peak = Peak::default();
        let (mut cost, mut millis, mut last) = (0.0_f64, 0_u64, 0_u64);
        for i in 0..2_000_u64 {
            millis += 5 + (i * i) % 50 + if i % 100 == 0 { 20_000 } else { 0 };
            let failed = i % 70 == 0;
            let took = (100 + (i * 7919) % 5_000) * 1_000;
            let w = (-((millis - last) as f64) / 10_000.0).exp();
            assert_cost(&peak, millis, cost * w);
            let sample = if failed { 1e9 } else { took as f64 };
            cost = if sample > cost {
                sample
            } else {
                cost * w + sample * (1.0 - w)
            };
            last = millis;
            peak.record(took, failed, at(millis));
            assert_cost(&peak, millis, cost);
        }
    }
}
