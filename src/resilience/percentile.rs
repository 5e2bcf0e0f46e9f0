//! How long the slowest calls take.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::time::Timestamp;

/// The latency that a share of the calls stays below, over the last 10 to 20
/// seconds.
///
/// A histogram with eight steps for each doubling, so that the answer is at
/// most an eighth too high, and never too low: a hedge comes rather late. A
/// record is one atomic addition; the answer is worked out ten times a second
/// and otherwise one load.
#[derive(Debug)]
pub struct Percentile {
    /// Parts in 1,000.
    share: u64,
    halves: [Box<[AtomicU32]>; 2],
    /// The number of the half that is being filled; its lowest bit is which.
    turn: AtomicU64,
    /// When the answer was worked out last, and what it is in nanoseconds; 0 is
    /// none.
    asked: AtomicU64,
    answer: AtomicU64,
}

const HALF: u64 = 10_000_000_000;
const FRESH: u64 = 100_000_000;
/// Below a hundred calls a 99th percentile is a guess.
const ENOUGH: u64 = 100;
/// Eight steps for each doubling from 1 µs to 137 s (2^27 µs).
const BUCKETS: usize = 8 * 25 + 8;

impl Percentile {
    /// Of `share` of the calls, such as 0.95; kept within 0.5 and 0.999.
    #[must_use]
    pub fn new(share: f64) -> Self {
        let buckets = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self {
            share: (share.clamp(0.5, 0.999) * 1_000.0) as u64,
            halves: [buckets(), buckets()],
            turn: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answer: AtomicU64::new(0),
        }
    }

    /// Takes a call into account that ended now.
    pub fn record(&self, latency: Duration, now: Timestamp) {
        let half = self.turn(now);
        let bucket = &self.halves[half][bucket_of(latency)];
        bucket.fetch_add(1, Ordering::Relaxed);
    }

    /// The latency; none before a hundred calls.
    #[must_use]
    pub fn get(&self, now: Timestamp) -> Option<Duration> {
        // Moves on even when nothing is recorded.
        let _ = self.turn(now);
        let asked = self.asked.load(Ordering::Relaxed);
        // 0 is a time of which no answer is known, and 1 the first.
        let stamp = now.as_nanos().max(1);
        if stamp.saturating_sub(asked) >= FRESH || asked == 0 {
            let relaxed = Ordering::Relaxed;
            let mine = self.asked.compare_exchange(asked, stamp, relaxed, relaxed);
            if mine.is_ok() {
                self.answer.store(self.work_out(), relaxed);
            }
        }
        let nanos = self.answer.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// The half to write now; whoever comes first to a new one empties it.
    fn turn(&self, now: Timestamp) -> usize {
        let turn = now.as_nanos() / HALF;
        let held = self.turn.load(Ordering::Relaxed);
        if turn > held {
            let relaxed = Ordering::Relaxed;
            if let Ok(before) = self.turn.compare_exchange(held, turn, relaxed, relaxed) {
                if turn - before > 1 {
                    empty(&self.halves[(turn as usize + 1) % 2]);
                }
                empty(&self.halves[turn as usize % 2]);
            }
        }
        turn.max(held) as usize % 2
    }

    fn work_out(&self) -> u64 {
        let count = |at: usize| -> u64 {
            let halves = self.halves.iter();
            halves
                .map(|half| u64::from(half[at].load(Ordering::Relaxed)))
                .sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total < ENOUGH {
            return 0;
        }
        // The last call within the share, counted from the fastest.
        let rank = (total * self.share).div_ceil(1_000);
        let mut seen = 0;
        let found = (0..BUCKETS).find(|&at| {
            seen += count(at);
            seen >= rank
        });
        upper_end(found.unwrap_or(BUCKETS - 1))
    }
}

fn empty(half: &[AtomicU32]) {
    for bucket in half {
        bucket.store(0, Ordering::Relaxed);
    }
}

/// Of microseconds `m`: `m` itself up to 15, then the exponent and the three
/// bits below its highest.
fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < 8 {
        return micros as usize;
    }
    let exponent = micros.ilog2();
    let fraction = (micros >> (exponent - 3)) & 7;
    ((8 * (exponent as usize - 2)) + fraction as usize).min(BUCKETS - 1)
}

/// In nanoseconds, the first latency that falls into the next bucket.
fn upper_end(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    let micros = if next < 8 {
        next
    } else {
        (8 + next % 8) << (next / 8 - 1)
    };
    micros * 1_000
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn every_latency_lies_below_the_end_of_its_bucket_by_an_eighth_at_most() {
        let micros = (0..2_000).chain((11..27).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + 1]));
        for micros in micros {
            let bucket = bucket_of(Duration::from_micros(micros));
            let end = upper_end(bucket) / 1_000;
            assert!(
                end > micros && end <= micros + micros / 8 + 1,
                "{micros} {end}"
            );
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    /// The naive twin sorts.
    #[test]
    fn it_is_what_sorting_tells_to_an_eighth() {
        for seed in 0..100 {
            let mut rng = Rng::seeded(seed);
            let percentile = Percentile::new(0.95);
            let mut all: Vec<u64> = (0..1_000)
                .map(|_| {
                    let bits = 4 + rng.below(20);
                    u64::from(1 + rng.below(1 << bits))
                })
                .collect();
            for &micros in &all {
                percentile.record(Duration::from_micros(micros), at(1));
            }
            all.sort_unstable();
            let told = percentile.get(at(2)).unwrap().as_micros() as u64;
            let twin = all[949];
            assert!(told > twin && told <= twin + twin / 8 + 1, "{told} {twin}");
        }
    }

    #[test]
    fn it_is_silent_at_first_and_forgets() {
        let percentile = Percentile::new(0.5);
        let slow = Duration::from_millis(100);
        (0..99).for_each(|_| percentile.record(slow, at(0)));
        assert_eq!(percentile.get(at(0)), None);
        percentile.record(slow, at(50));
        assert_eq!(
            percentile.get(at(50)),
            None,
            "worked out ten times a second"
        );
        assert!(percentile.get(at(101)).unwrap() > slow);
        (0..100).for_each(|_| percentile.record(slow / 100, at(10_000)));
        (0..100).for_each(|_| percentile.record(slow / 100, at(20_000)));
        assert!(percentile.get(at(20_000)).unwrap() < slow / 50);
        assert_eq!(
            percentile.get(at(60_000)),
            None,
            "nothing is known any more"
        );
    }
}
