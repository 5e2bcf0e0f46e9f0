//! A moving average of latency in one word.

use std::time::Duration;

use super::peak::elapsed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// An exponential moving average over time: `mean·w + x·(1 − w)` with
/// `w = exp(−Δt/τ)` (Finagle's `Ema`), but that the first sample, which in many a
/// client made the connection, gives way to the second. By the formula it would
/// stay for seconds: of calls in quick succession, each weighs next to nothing.
///
/// The mean (an `f32` of nanoseconds, below 0 while there is but one sample) and
/// the time of its last sample (in ticks of 16 µs) share one word, so that they
/// change together. A sample within the same tick as the last has no weight in
/// the formula and is left out, which also spares the cache line on a busy
/// endpoint. Ticks wrap after 19.5 hours, when an old mean may weigh as much as a
/// new one for one sample.
#[derive(Debug, Default)]
pub(super) struct Latency(pub(super) AtomicU64);

/// What Finagle and Envoy use for their peak EWMA: long enough to ride out a
/// garbage collection, short enough to forget a deploy.
const TAU: Duration = Duration::from_secs(10);
pub(super) const TICK_BITS: u32 = 14;

/// No sample yet. A mean is never 0, so no pair of values has this form.
const NONE: u64 = 0;

impl Latency {
    pub(super) fn mean(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            word => Some(Duration::from_nanos(unpack(word).0.abs() as u64)),
        }
    }

    /// In nanoseconds, falling towards nothing while there are no samples, so that an endpoint that
    /// was slow is tried again; 0 before the first, and below 0 before the second.
    #[inline]
    pub(super) fn falling(&self, now: Timestamp) -> f32 {
        let (mean, last) = unpack(self.0.load(Ordering::Relaxed));
        mean * (1.0 - gain(elapsed(last, tick_of(now))))
    }

    /// Takes in one sample, in nanoseconds. Wait-free.
    ///
    /// A sample that another thread takes in at the same moment may be lost, of
    /// which a mean of many shows nothing: a locked instruction for each, so that
    /// none is, would cost as much as all the rest.
    #[inline]
    pub(super) fn record(&self, nanos: u64, now: Timestamp) {
        let tick = tick_of(now);
        let word = self.0.load(Ordering::Relaxed);
        let (mean, last) = unpack(word);
        let next = if mean > 0.0 {
            let elapsed = tick.wrapping_sub(last);
            // A clock read before another thread's record may be older.
            if elapsed.cast_signed() <= 0 {
                return;
            }
            mean + (sample_of(nanos) - mean) * gain(elapsed)
        } else if word == NONE {
            -sample_of(nanos)
        } else {
            sample_of(nanos)
        };
        self.0.store(pack(next, tick), Ordering::Relaxed);
    }
}

/// At least 1 ns, which keeps every pair different from `NONE`. A processor
/// converts signed numbers; they hold 292 years.
#[inline]
pub(super) fn sample_of(nanos: u64) -> f32 {
    let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
    (nanos as f32).max(1.0)
}

/// `1 − exp(−Δt/τ)`. Calls come in quick succession, where the first two terms
/// of the series are exact to an `f32` and cost a tenth of the exponential.
#[inline]
pub(super) fn gain(elapsed: u32) -> f32 {
    const TICK: f32 = 1.0 / ticks(TAU) as f32;
    let x = elapsed as f32 * TICK;
    if x < 1.0 / 256.0 {
        x - x * x / 2.0
    } else {
        gain_of_long(x)
    }
}

/// By 2^n, whose exponent is written as it is, times a series for the rest, which
/// is at most half a power: exact to three in a million, for a tenth of what the
/// library's takes.
fn gain_of_long(x: f32) -> f32 {
    let power = x * -std::f32::consts::LOG2_E;
    let whole = (power - 0.5) as i32;
    if whole < -120 {
        return 1.0;
    }
    let rest = (power - whole as f32) * std::f32::consts::LN_2;
    let terms = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let series = terms.iter().fold(0.0, |sum, term| sum * rest + term);
    1.0 - f32::from_bits(((whole + 127) as u32) << 23) * series
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
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn the_first_sample_gives_way_to_the_second() {
        let latency = Latency::default();
        assert_eq!(latency.mean(), None);
        latency.record(9 * MS, at(0));
        assert_eq!(latency.mean(), Some(Duration::from_nanos(9 * MS)));
        assert_eq!(latency.falling(at(0)), -9.0 * MS as f32);
        latency.record(MS, at(0));
        assert_eq!(latency.mean(), Some(Duration::from_nanos(MS)));
        assert_eq!(latency.falling(at(0)), MS as f32);
        latency.record(9 * MS, at(1));
        let mean = latency.mean().unwrap().as_nanos() as f32;
        assert!((mean / MS as f32 - 1.0).abs() < 0.001, "{mean}");
        let zero = Latency::default();
        zero.record(0, at(0));
        assert_eq!(zero.mean(), Some(Duration::from_nanos(1)));
    }

    /// The naive twin: the formula in f64, one sample every 5 ms to 20 s.
    #[test]
    fn it_follows_the_formula() {
        let latency = Latency::default();
        latency.record(77 * MS, at(0));
        let mut mean: Option<f64> = None;
        let (mut millis, mut last) = (0_u64, 0_u64);
        for i in 0..2_000_u64 {
            millis += 5 + (i * i) % 50 + if i % 100 == 0 { 20_000 } else { 0 };
            let sample = (100 + (i * 7919) % 5_000) * 1_000;
            let x = sample as f64;
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
    fn the_gain_is_the_exponentials() {
        for elapsed in (0..400_000).map(|i| i * 31).chain([u32::MAX]) {
            let exact = -(-f64::from(elapsed) / f64::from(ticks(TAU))).exp_m1();
            let error = (f64::from(gain(elapsed)) - exact).abs();
            assert!(error <= 1e-5 + exact * 1e-4, "{elapsed}: {error}");
        }
    }

    #[test]
    fn samples_of_one_tick_and_of_the_past_weigh_nothing() {
        let latency = Latency::default();
        latency.record(MS * 7, at(999));
        latency.record(MS, at(1_000));
        latency.record(MS * 500, at(1_000));
        latency.record(MS * 500, at(10));
        assert_eq!(latency.mean(), Some(Duration::from_nanos(MS)));
    }
}
