//! How many calls are held, on average.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// The mean number of calls that a server holds, over the last one to two seconds.
///
/// What it holds at one moment says how full its queue is, and little of how busy it is: of two servers
/// alike, one may hold none just now and the other six. Weights made of that send the calls of the next
/// second to the one, and those of the second after to the other.
///
/// The calls' time is added up: what ended by its length, what is held by when it began, so that a
/// call costs two additions.
///
/// ```
/// use std::time::Duration;
/// use waypost::load::MeanHeld;
/// use waypost::time::Timestamp;
///
/// let start = Timestamp::from_nanos(1);
/// let (held, second) = (MeanHeld::new(start), Duration::from_secs(1));
/// held.begin(start);
/// held.begin(start);
/// held.end(start, start.plus(second / 2));
/// assert_eq!(held.mean(start.plus(second)), 1.5);
/// ```
#[derive(Debug)]
pub struct MeanHeld {
    /// Nanoseconds of calls that ended, less the times at which those began that did not; wraps.
    sum: AtomicU64,
    held: AtomicU64,
    marks: Mutex<[Mark; 2]>,
}

/// The time of all calls up to a moment; wraps.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Timestamp,
    area: u64,
}

/// As long as gRPC's weights last before they are computed again.
const WINDOW: Duration = Duration::from_secs(1);

impl MeanHeld {
    /// Of a server that holds nothing.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            sum: AtomicU64::new(0),
            held: AtomicU64::new(0),
            marks: Mutex::new([Mark { at: now, area: 0 }; 2]),
        }
    }

    /// A call comes.
    pub fn begin(&self, now: Timestamp) {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_sub(now.as_nanos(), Ordering::Relaxed);
    }

    /// A call ends that began then.
    pub fn end(&self, began: Timestamp, now: Timestamp) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        // What it took off as it began, and its length.
        let length = now.as_nanos().saturating_sub(began.as_nanos());
        let back = began.as_nanos().wrapping_add(length);
        self.sum.fetch_add(back, Ordering::Relaxed);
    }

    /// The calls held on average; at the very beginning, those that are held. Calls that begin or end
    /// meanwhile may count or not.
    #[must_use]
    pub fn mean(&self, now: Timestamp) -> f64 {
        let held = self.held.load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed);
        let area = sum.wrapping_add(held.wrapping_mul(now.as_nanos()));
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let since = marks[0];
        if now.since(marks[1].at) >= WINDOW {
            *marks = [marks[1], Mark { at: now, area }];
        }
        drop(marks);
        let time = now.since(since.at).as_nanos() as f64;
        // Below nothing where a call began between the readings.
        let of_calls = area.wrapping_sub(since.area).cast_signed().max(0) as f64;
        if time > 0.0 {
            of_calls / time
        } else {
            held as f64
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The naive twin adds up each millisecond.
    #[test]
    fn it_is_the_mean_that_a_count_of_each_millisecond_gives() {
        for seed in 0..50 {
            let mut rng = Rng::seeded(seed);
            let at = |ms: u64| Timestamp::from_nanos(1_000_000 * (ms + 1));
            let held = MeanHeld::new(at(0));
            let (mut open, mut counts) = (Vec::new(), Vec::new());
            let (mut marks, mut checked) = ([0, 0], 0);
            for ms in 0..6_000 {
                if rng.below(10) == 0 {
                    held.begin(at(ms));
                    open.push(ms);
                }
                if rng.below(12) == 0 && !open.is_empty() {
                    let began = open.swap_remove(rng.below(open.len() as u32) as usize);
                    held.end(at(began), at(ms));
                }
                if rng.below(100) == 0 && ms > marks[0] {
                    let window = &counts[marks[0] as usize..];
                    let expected = window.iter().sum::<usize>() as f64 / window.len() as f64;
                    let found = held.mean(at(ms));
                    assert!(
                        (found - expected).abs() < 1e-6,
                        "{seed} {ms}: {found} {expected}"
                    );
                    checked += 1;
                    if ms - marks[1] >= 1_000 {
                        marks = [marks[1], ms];
                    }
                }
                counts.push(open.len());
            }
            assert!(checked > 30);
        }
    }
}
