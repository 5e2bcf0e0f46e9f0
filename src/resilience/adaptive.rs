//! How many calls in flight a service bears, learnt from its answers.

use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use crate::sync::atomic::{AtomicU32, Ordering};

/// A limit on calls in flight that follows the service: it grows while answers
/// stay fast, and shrinks when they queue or fail.
///
/// Reading it is one load. A sample takes a lock for some nanoseconds, and is
/// dropped when another thread holds it: the next one tells the same.
#[derive(Debug)]
pub struct AdaptiveLimit {
    limit: AtomicU32,
    machine: Mutex<Machine>,
}

#[derive(Clone, Copy, Debug)]
enum Machine {
    Gradient2(Gradient2),
    Aimd(Aimd),
}

/// What one call tells of the service.
#[derive(Clone, Copy, Debug)]
pub struct LimitSample {
    /// How long it took.
    pub latency: Duration,
    /// Calls in flight when it ended, itself among them.
    pub in_flight: u32,
    /// Whether it was rejected or took too long, so that its latency means
    /// nothing.
    pub dropped: bool,
}

impl AdaptiveLimit {
    /// The limit.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Learns from a call that ended.
    pub fn sample(&self, sample: LimitSample) {
        let mut machine = match self.machine.try_lock() {
            Ok(machine) => machine,
            Err(TryLockError::Poisoned(machine)) => machine.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let limit = match &mut *machine {
            Machine::Gradient2(machine) => machine.sample(sample),
            Machine::Aimd(machine) => machine.sample(sample),
        };
        self.limit.store(limit as u32, Ordering::Relaxed);
    }

    fn with(machine: Machine, limit: f64) -> Self {
        Self {
            limit: AtomicU32::new(limit as u32),
            machine: Mutex::new(machine),
        }
    }
}

impl From<Gradient2> for AdaptiveLimit {
    fn from(machine: Gradient2) -> Self {
        Self::with(Machine::Gradient2(machine), machine.limit)
    }
}

impl From<Aimd> for AdaptiveLimit {
    fn from(machine: Aimd) -> Self {
        Self::with(Machine::Aimd(machine), machine.limit)
    }
}

/// Netflix's Gradient2 (concurrency-limits): compares the latency now with its
/// long-term mean; while they differ by less than half, the limit grows by a
/// small queue, else it shrinks in proportion.
///
/// `g = max(0.5, min(1, 1.5 × long / short))`, `L' = g × L + 4`, and the limit
/// goes a fifth of the way to `L'`.
#[derive(Clone, Copy, Debug)]
pub struct Gradient2 {
    limit: f64,
    min: f64,
    max: f64,
    long: f64,
    samples: u32,
}

impl Gradient2 {
    const TOLERANCE: f64 = 1.5;
    const QUEUE: f64 = 4.0;
    const SMOOTHING: f64 = 0.2;
    const LONG_WINDOW: f64 = 600.0;
    const WARM_UP: u32 = 10;

    /// Begins at 20, as the original does, and stays within `min` and `max`,
    /// of which neither is below 1.
    #[must_use]
    pub fn within(min: u32, max: u32) -> Self {
        let (min, max) = bounds(min, max);
        Self {
            limit: START.clamp(min, max),
            min,
            max,
            long: 0.0,
            samples: 0,
        }
    }

    fn sample(&mut self, sample: LimitSample) -> f64 {
        if sample.dropped {
            // The original leaves this to the latency, which a rejected call
            // does not have.
            self.limit = (self.limit * 0.9).max(self.min);
            return self.limit;
        }
        let short = sample.latency.as_secs_f64().max(1e-9);
        self.learn(short);
        if self.long / short > 2.0 {
            // The mean was learnt under load that is gone.
            self.long *= 0.95;
        }
        // A client that asks for little learns nothing about the limit.
        if f64::from(sample.in_flight) >= self.limit / 2.0 {
            let gradient = (Self::TOLERANCE * self.long / short).clamp(0.5, 1.0);
            let next = self.limit * gradient + Self::QUEUE;
            let smooth = self.limit * (1.0 - Self::SMOOTHING) + next * Self::SMOOTHING;
            self.limit = smooth.clamp(self.min, self.max);
        }
        self.limit
    }

    /// The plain mean of the first ten, then an exponential one over 600.
    fn learn(&mut self, short: f64) {
        self.samples = self.samples.saturating_add(1);
        let weight = if self.samples <= Self::WARM_UP {
            1.0 / f64::from(self.samples)
        } else {
            2.0 / (Self::LONG_WINDOW + 1.0)
        };
        self.long += (short - self.long) * weight;
    }
}

/// Additive increase, multiplicative decrease: one more while the limit is in
/// use and answers come in time, a tenth less when one is dropped or takes
/// longer than `timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Aimd {
    limit: f64,
    min: f64,
    max: f64,
    timeout: Duration,
}

impl Aimd {
    const BACKOFF: f64 = 0.9;

    /// Begins at 20 and stays within `min` and `max`, of which neither is below
    /// 1.
    #[must_use]
    pub fn within(min: u32, max: u32, timeout: Duration) -> Self {
        let (min, max) = bounds(min, max);
        Self {
            limit: START.clamp(min, max),
            min,
            max,
            timeout,
        }
    }

    fn sample(&mut self, sample: LimitSample) -> f64 {
        if sample.dropped || sample.latency > self.timeout {
            self.limit *= Self::BACKOFF;
        } else if f64::from(sample.in_flight) * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(self.min, self.max);
        self.limit
    }
}

/// Netflix's initial limit.
const START: f64 = 20.0;

fn bounds(min: u32, max: u32) -> (f64, f64) {
    let min = min.max(1);
    (f64::from(min), f64::from(max.max(min)))
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    /// A server with 50 places: latency grows with what is in flight beyond.
    /// The client always uses the whole limit.
    fn settle(limit: &AdaptiveLimit, slowness: f64, samples: u32) -> u32 {
        for _ in 0..samples {
            let in_flight = limit.get();
            let queue = (f64::from(in_flight) / 50.0).max(1.0);
            limit.sample(LimitSample {
                latency: Duration::from_secs_f64(0.010 * queue * slowness),
                in_flight,
                dropped: queue > 4.0,
            });
        }
        limit.get()
    }

    #[test]
    fn gradient2_finds_a_limit_near_what_the_service_bears() {
        let limit = AdaptiveLimit::from(Gradient2::within(1, 1_000));
        assert_eq!(limit.get(), 20);
        let found = settle(&limit, 1.0, 100);
        assert!((50..=120).contains(&found), "{found}");
    }

    #[test]
    fn gradient2_shrinks_when_the_service_slows_down() {
        let limit = AdaptiveLimit::from(Gradient2::within(1, 1_000));
        let before = settle(&limit, 1.0, 100);
        let after = settle(&limit, 4.0, 30);
        assert!(after < before / 2, "{before} {after}");
    }

    #[test]
    fn aimd_climbs_one_by_one_and_falls_by_a_tenth() {
        let timeout = Duration::from_secs(1);
        let limit = AdaptiveLimit::from(Aimd::within(10, 30, timeout));
        let sample = |in_flight, dropped| LimitSample {
            latency: timeout,
            in_flight,
            dropped,
        };
        limit.sample(sample(10, false));
        assert_eq!(limit.get(), 21);
        limit.sample(sample(3, false));
        assert_eq!(limit.get(), 21, "it is not in use");
        (0..50).for_each(|_| limit.sample(sample(30, false)));
        assert_eq!(limit.get(), 30);
        limit.sample(sample(30, true));
        assert_eq!(limit.get(), 27);
        let late = LimitSample {
            latency: timeout * 2,
            ..sample(30, false)
        };
        (0..50).for_each(|_| limit.sample(late));
        assert_eq!(limit.get(), 10);
    }

    #[test]
    fn bounds_hold_whatever_is_told() {
        for (min, max) in [(0, 0), (5, 2), (1, u32::MAX)] {
            let limit = AdaptiveLimit::from(Gradient2::within(min, max));
            for latency in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                limit.sample(LimitSample {
                    latency,
                    in_flight: u32::MAX,
                    dropped: false,
                });
                assert!(limit.get() >= min.max(1) && limit.get() <= max.max(min).max(1));
            }
        }
    }
}
