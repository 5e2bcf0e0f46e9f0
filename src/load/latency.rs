//! What a call takes that comes now.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::time::Timestamp;

/// A server's own estimate of its latency: the median of recent calls that came when it held about
/// as many as now (Prequal, NSDI'24).
///
/// The mean of whatever ended last tells how busy the server was then. Clients that go by it come
/// together to the server that was idle, and leave it together: in the simulator, a hundred clients of a
/// hundred servers at 70 % have a mean of 266 ms under such an estimate, and of 14 under this one.
///
/// Calls are kept by what was held as they came: one by one up to eight, and in four steps to each
/// doubling beyond, sixteen calls a step. What is older than ten seconds does not count. Recording
/// is two atomic writes and never blocks; an estimate sorts sixteen numbers.
///
/// ```
/// use std::time::Duration;
/// use waypost::load::LatencyByLoad;
/// use waypost::time::Timestamp;
///
/// let (latencies, now) = (LatencyByLoad::new(), Timestamp::default());
/// assert_eq!(latencies.estimate(0, now), None);
/// latencies.record(0, Duration::from_millis(5), now);
/// latencies.record(40, Duration::from_millis(90), now);
/// assert_eq!(latencies.estimate(2, now), Some(Duration::from_millis(5)));
/// assert_eq!(latencies.estimate(50, now), Some(Duration::from_millis(90)));
/// ```
#[derive(Debug)]
pub struct LatencyByLoad {
    steps: [Step; STEPS],
}

/// Eight, and four to each doubling up to a million.
const STEPS: usize = 8 + 4 * 17;
const KEPT: u32 = 16;

/// As long as what the balancer's own means of latency go back.
const LASTS: Duration = Duration::from_secs(10);

/// The last calls of one step.
#[derive(Debug, Default)]
struct Step {
    /// How many came; the next goes to the slot of that number.
    came: AtomicU32,
    /// When each came, in milliseconds, and its latency in units of 10 µs.
    calls: [AtomicU64; KEPT as usize],
}

const UNIT: Duration = Duration::from_micros(10);

impl Default for LatencyByLoad {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyByLoad {
    /// Of a server that had no calls yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steps: std::array::from_fn(|_| Step::default()),
        }
    }

    /// Takes in a call that came when so many were `held` beside it, and ends now.
    pub fn record(&self, held: u32, took: Duration, now: Timestamp) {
        let step = &self.steps[step_of(held)];
        let slot = step.came.fetch_add(1, Ordering::Relaxed) % KEPT;
        let units = u32::try_from(took.as_nanos() / UNIT.as_nanos()).unwrap_or(u32::MAX);
        // Never 0, which is no call.
        let word = u64::from(millis(now)) << 32 | u64::from(units.max(1));
        step.calls[slot as usize].store(word, Ordering::Relaxed);
    }

    /// What a call takes that comes when so many are `held`: by those that came nearest to that,
    /// the busier ones where two are as near. None where no call ended lately.
    #[must_use]
    pub fn estimate(&self, held: u32, now: Timestamp) -> Option<Duration> {
        let own = step_of(held);
        (0..STEPS).find_map(|distance| {
            let above = self.steps.get(own + distance);
            let below = own.checked_sub(distance).map(|at| &self.steps[at]);
            let near = [above, below].into_iter().flatten();
            near.into_iter().find_map(|step| step.median(millis(now)))
        })
    }
}

impl Step {
    fn median(&self, now: u32) -> Option<Duration> {
        let lasts = LASTS.as_millis() as u32;
        let mut recent = [0; KEPT as usize];
        let mut found = 0;
        for call in &self.calls {
            let word = call.load(Ordering::Relaxed);
            if word != 0 && now.wrapping_sub((word >> 32) as u32) < lasts {
                recent[found] = word as u32;
                found += 1;
            }
        }
        let recent = &mut recent[..found];
        recent.sort_unstable();
        let median = recent.get(found / 2)?;
        Some(UNIT * *median)
    }
}

fn step_of(held: u32) -> usize {
    if held < 8 {
        return held as usize;
    }
    let doublings = held.ilog2();
    let quarter = held >> (doublings - 2) & 3;
    (8 + 4 * (doublings as usize - 3) + quarter as usize).min(STEPS - 1)
}

/// Wraps after 49 days, when a call of 49 days ago may count once more.
fn millis(now: Timestamp) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    #[test]
    fn steps_rise_with_what_is_held_and_are_a_quarter_wide() {
        let mut last = (0, 0);
        for held in 0..=u32::MAX >> 11 {
            let step = step_of(held);
            if step != last.0 {
                assert_eq!(step, last.0 + 1, "{held}");
                assert!(held < 8 || held - last.1 <= last.1.div_ceil(4), "{held}");
                last = (step, held);
            }
        }
        assert_eq!(step_of(u32::MAX), STEPS - 1);
    }

    #[test]
    fn it_is_the_median_of_those_that_came_to_as_many() {
        let latencies = LatencyByLoad::new();
        for ms in [7, 3, 900, 5, 4] {
            latencies.record(4, MS * ms, at(1));
        }
        latencies.record(30, MS * 60, at(1));
        assert_eq!(latencies.estimate(4, at(1)), Some(MS * 5));
        assert_eq!(latencies.estimate(0, at(1)), Some(MS * 5));
        assert_eq!(latencies.estimate(28, at(1)), Some(MS * 60));
        assert_eq!(latencies.estimate(100_000, at(1)), Some(MS * 60));
    }

    #[test]
    fn what_is_old_or_was_pushed_out_does_not_count() {
        let latencies = LatencyByLoad::new();
        for _ in 0..KEPT {
            latencies.record(2, MS, at(1));
        }
        for _ in 0..KEPT {
            latencies.record(2, MS * 9, at(2));
        }
        latencies.record(50, MS * 70, at(8));
        assert_eq!(latencies.estimate(2, at(3)), Some(MS * 9));
        assert_eq!(latencies.estimate(2, at(13)), Some(MS * 70));
        assert_eq!(latencies.estimate(2, at(19)), None);
    }
}
