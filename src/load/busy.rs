//! How busy a server is, on average.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

/// The share of its workers that a server has had at work, over the last one to two seconds.
///
/// Weights are the rate by the utilization ([`LoadWeighted`](crate::strategy::LoadWeighted)): what a
/// server would answer if it were used up. That holds for time at work alone. What a server holds at one moment, or
/// calls that wait, tell how full its queue is: weights made of those send a second's calls to who had
/// none just then, and the next second's to the others.
///
/// A call takes a lock twice, for a few additions.
///
/// ```
/// use std::time::Duration;
/// use waypost::load::BusyTime;
/// use waypost::time::Timestamp;
///
/// let (start, second) = (Timestamp::default(), Duration::from_secs(1));
/// let busy = BusyTime::new(4, start);
/// for _ in 0..6 {
///     busy.begin(start);
/// }
/// (0..6).for_each(|_| busy.end(start.plus(second / 2)));
/// // All four for half of the time, whoever waited for them.
/// assert_eq!(busy.share(start.plus(second)), 0.5);
/// ```
#[derive(Debug)]
pub struct BusyTime(Mutex<State>);

#[derive(Debug)]
struct State {
    workers: u32,
    held: u32,
    /// Up to when `area` goes.
    at: Timestamp,
    /// Nanoseconds of workers at work; wraps.
    area: u64,
    /// The area at two moments before.
    marks: [(Timestamp, u64); 2],
}

/// As long as gRPC's weights last before they are computed again.
const WINDOW: Duration = Duration::from_secs(1);

impl BusyTime {
    /// Of so many workers, at least one, that hold nothing.
    #[must_use]
    pub fn new(workers: u32, now: Timestamp) -> Self {
        Self(Mutex::new(State {
            workers: workers.max(1),
            held: 0,
            at: now,
            area: 0,
            marks: [(now, 0); 2],
        }))
    }

    /// A call comes.
    pub fn begin(&self, now: Timestamp) {
        let mut state = self.state(now);
        state.held = state.held.saturating_add(1);
    }

    /// A call ends.
    pub fn end(&self, now: Timestamp) {
        let mut state = self.state(now);
        state.held = state.held.saturating_sub(1);
    }

    /// The share, in 0..=1; 0 at the very beginning.
    #[must_use]
    pub fn share(&self, now: Timestamp) -> f64 {
        let mut state = self.state(now);
        let (since, before) = state.marks[0];
        let time = state.at.since(since).as_nanos() as f64;
        let area = state.area.wrapping_sub(before) as f64;
        if state.at.since(state.marks[1].0) >= WINDOW {
            state.marks = [state.marks[1], (state.at, state.area)];
        }
        if time > 0.0 {
            area / time / f64::from(state.workers)
        } else {
            0.0
        }
    }

    /// Up to now; a clock that was read before another thread's changes nothing.
    fn state(&self, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = now.as_nanos().saturating_sub(state.at.as_nanos());
        let at_work = u64::from(state.held.min(state.workers));
        state.area = state.area.wrapping_add(at_work.wrapping_mul(nanos));
        state.at = state.at.max(now);
        state
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The naive twin adds up each millisecond.
    #[test]
    fn it_is_the_share_that_a_count_of_each_millisecond_gives() {
        for seed in 0..50 {
            let mut rng = Rng::seeded(seed);
            let at = |ms: u64| Timestamp::from_nanos(1_000_000 * ms);
            let (workers, busy) = (3, BusyTime::new(3, at(0)));
            let (mut held, mut counts) = (0_u32, Vec::new());
            let (mut marks, mut checked) = ([0, 0], 0);
            for ms in 0..6_000 {
                if rng.below(10) == 0 {
                    busy.begin(at(ms));
                    held += 1;
                }
                if rng.below(11) == 0 && held > 0 {
                    busy.end(at(ms));
                    held -= 1;
                }
                if rng.below(100) == 0 && ms > marks[0] {
                    let window = &counts[marks[0] as usize..];
                    let sum: u32 = window.iter().sum();
                    let expected = f64::from(sum) / window.len() as f64 / f64::from(workers);
                    let found = busy.share(at(ms));
                    assert!(
                        (found - expected).abs() < 1e-9,
                        "{seed} {ms}: {found} {expected}"
                    );
                    checked += 1;
                    if ms - marks[1] >= 1_000 {
                        marks = [marks[1], ms];
                    }
                }
                counts.push(held.min(workers));
            }
            assert!(checked > 30);
        }
    }
}
