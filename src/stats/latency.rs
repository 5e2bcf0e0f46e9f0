//! A moving average of latency in one word.

use std::time::Duration;

use super::peak::elapsed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// An exponential moving average over time: `mean·w + x·(1 − w)` with
/// `w = exp(−Δt/τ)`, the first sample as it is (Finagle's `Ema`).
///
/// The mean (an `f32` of nanoseconds) and the time of its last sample (in ticks
/// of 16 µs) share one word, so that they change together. A sample within the
/// same tick as the last has no weight in the formula and is left out, which
/// also spares the cache line on a busy endpoint. Ticks wrap after 19.5 hours,
/// when an old mean may weigh as much as a new one for one sample.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

/// What Finagle and Envoy use for their peak EWMA: long enough to ride out a
/// garbage collection, short enough to forget a deploy.
const TAU: Duration = Duration::from_secs(10);
const TICK_BITS: u32 = 14;

/// No sample yet. A mean is never negative, so no pair of values has this form.
const NONE: u64 = 0;

impl Latency {
    pub(super) fn mean(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            word => Some(Duration::from_nanos(unpack(word).0 as u64)),
        }
    }

    /// In nanoseconds, falling towards nothing while there are no samples, so that an endpoint that
    /// was slow is tried again; 0 before the first.
    #[inline]
    pub(super) fn falling(&self, now: Timestamp) -> f32 {
        let (mean, last) = unpack(self.0.load(Ordering::Relaxed));
        mean * (1.0 - gain(elapsed(last, tick_of(now))))
    }

    /// Takes in one sample. Wait-free but for retries while other threads
    /// record to the same endpoint.
    pub(super) fn record(&self, sample: Duration, now: Timestamp) {
        // At least 1 ns, which keeps every pair different from `NONE`. From 64
        // bits, which hold 584 years: 128 take a call to convert.
        let nanos = u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX);
        let sample = (nanos as f32).max(1.0);
        let tick = tick_of(now);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = if word == NONE {
                sample
            } else {
                let (mean, last) = unpack(word);
                let elapsed = tick.wrapping_sub(last);
                // A clock read before another thread's record may be older.
                if elapsed.cast_signed() <= 0 {
                    return;
                }
                mean + (sample - mean) * gain(elapsed)
            };
            match self.0.compare_exchange_weak(
                word,
                pack(next, tick),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

/// `1 − exp(−Δt/τ)`. Calls come in quick succession, where the first two terms
/// of the series are exact to an `f32` and cost a tenth of the exponential.
pub(super) fn gain(elapsed: u32) -> f32 {
    const TICKS: f32 = ticks(TAU) as f32;
    let x = elapsed as f32 / TICKS;
    if x < 1.0 / 256.0 {
        x - x * x / 2.0
    } else {
        -(-x).exp_m1()
    }
}

pub(super) fn tick_of(now: Timestamp) -> u32 {
    (now.as_nanos() >> TICK_BITS) as u32
}

pub(super) const fn ticks(time: Duration) -> u32 {
    (time.as_nanos() >> TICK_BITS) as u32
}

pub(super) const fn of_ticks(ticks: u32) -> Duration {
    Duration::from_nanos((ticks as u64) << TICK_BITS)
}

pub(super) fn pack(mean: f32, tick: u32) -> u64 {
    u64::from(mean.to_bits()) << 32 | u64::from(tick)
}

pub(super) fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_counts_as_it_is() {
        let latency = Latency::default();
        assert_eq!(latency.mean(), None);
        latency.record(MS, at(0));
        assert_eq!(latency.mean(), Some(MS));
        let zero = Latency::default();
        zero.record(Duration::ZERO, at(0));
        assert_eq!(zero.mean(), Some(Duration::from_nanos(1)));
    }

    /// The naive twin: the formula in f64, one sample every 5 ms to 20 s.
    #[test]
    fn it_follows_the_formula() {
        let latency = Latency::default();
        let mut mean: Option<f64> = None;
        let (mut millis, mut last) = (0_u64, 0_u64);
        for i in 0..2_000_u64 {
            millis += 5 + (i * i) % 50 + if i % 100 == 0 { 20_000 } else { 0 };
            let sample = Duration::from_micros(100 + (i * 7919) % 5_000);
            let x = sample.as_nanos() as f64;
            mean = Some(mean.map_or(x, |mean| {
                let w = (-((millis - last) as f64) / 10_000.0).exp();
                mean * w + x * (1.0 - w)
            }));
            last = millis;
            latency.record(sample, at(millis));
        }
        let (ours, twin) = (latency.mean().unwrap().as_nanos() as f64, mean.unwrap());
        assert!((ours - twin).abs() / twin < 0.002, "{ours} {twin}");
    }

    #[test]
    fn samples_of_one_tick_and_of_the_past_weigh_nothing() {
        let latency = Latency::default();
        latency.record(MS, at(1_000));
        latency.record(MS * 500, at(1_000));
        latency.record(MS * 500, at(10));
        assert_eq!(latency.mean(), Some(MS));
    }
}
