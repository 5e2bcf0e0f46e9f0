//! When to probe an endpoint, and what its answers make of it.

use std::time::Duration;

use super::{HealthCheck, Pace};
use crate::rng::Rng;

/// What probes make of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No probe has ended yet: it is taken for well, since the registry tells
    /// of it.
    Unknown,
    /// It is well.
    Passing,
    /// It is not.
    Failing,
}

/// How one probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well.
    Pass,
    /// Not at all, or not as expected on the way: counts up to the threshold.
    Fail,
    /// It says itself that it is not well: counts at once.
    Refusal,
}

/// The probes of one endpoint. Envoy's rules: thresholds in either direction,
/// which the first pass of all and a refusal skip.
///
/// ```
/// use waypost::health::check::{Answer, Health, HealthCheck, Schedule};
/// use waypost::rng::Rng;
///
/// let (mut probes, mut rng) = (Schedule::new(&HealthCheck::tcp()), Rng::seeded(1));
/// probes.take(Answer::Pass, &mut rng);
/// assert_eq!(probes.health(), Health::Passing);
/// probes.take(Answer::Fail, &mut rng);
/// probes.take(Answer::Fail, &mut rng);
/// assert_eq!(probes.health(), Health::Passing); // the threshold is 3
/// probes.take(Answer::Fail, &mut rng);
/// assert_eq!(probes.health(), Health::Failing);
/// ```
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    health: Health,
    /// Answers in a row that say otherwise than the health.
    contrary: u32,
    /// Whether the service was ever called.
    is_called: bool,
}

impl Schedule {
    /// No probe yet.
    #[must_use]
    pub fn new(check: &HealthCheck) -> Self {
        Self {
            pace: check.pace.clone(),
            health: Health::Unknown,
            contrary: 0,
            is_called: true,
        }
    }

    /// What the endpoint is taken for.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// How long to wait before the first probe.
    pub fn first(&self, rng: &mut Rng) -> Duration {
        spread(self.pace.jitter, rng)
    }

    /// Takes in whether the service was ever called: true until it is told.
    pub fn set_called(&mut self, is_called: bool) {
        self.is_called = is_called;
    }

    /// Takes in an answer, and tells how long to wait before the next probe.
    pub fn take(&mut self, answer: Answer, rng: &mut Rng) -> Duration {
        let passed = answer == Answer::Pass;
        let agrees = match self.health {
            Health::Passing => passed,
            Health::Failing => !passed,
            Health::Unknown => false,
        };
        self.contrary = if agrees { 0 } else { self.contrary + 1 };
        let enough = match (self.health, answer) {
            (_, Answer::Refusal) | (Health::Unknown, Answer::Pass) => true,
            (_, Answer::Pass) => self.contrary >= self.pace.healthy_threshold,
            (_, Answer::Fail) => self.contrary >= self.pace.unhealthy_threshold,
        };
        if !agrees && enough {
            self.contrary = 0;
            self.health = if passed {
                Health::Passing
            } else {
                Health::Failing
            };
        }
        let pace = &self.pace;
        let interval = match self.health {
            _ if !self.is_called && pace.no_traffic_interval.is_some() => pace.no_traffic_interval,
            _ if self.contrary > 0 => pace.edge_interval,
            Health::Failing => pace.unhealthy_interval,
            Health::Passing | Health::Unknown => None,
        };
        interval.unwrap_or(pace.interval) + spread(pace.jitter, rng)
    }
}

fn spread(jitter: Duration, rng: &mut Rng) -> Duration {
    // Up to an hour in steps of a microsecond.
    let micros = u32::try_from(jitter.as_micros()).unwrap_or(u32::MAX);
    Duration::from_micros(u64::from(rng.below(micros.saturating_add(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        let check = HealthCheck::tcp()
            .interval(Duration::from_secs(10))
            .unhealthy_interval(Duration::from_secs(20))
            .edge_interval(Duration::from_secs(1))
            .jitter(Duration::ZERO);
        Schedule::new(&check)
    }

    #[test]
    fn intervals_follow_what_the_endpoint_is_taken_for() {
        let (mut probes, mut rng) = (schedule(), Rng::seeded(1));
        let mut take = |answer| probes.take(answer, &mut rng).as_secs();
        assert_eq!(take(Answer::Pass), 10);
        assert_eq!(
            (take(Answer::Fail), take(Answer::Fail)),
            (1, 1),
            "at the edge"
        );
        assert_eq!(take(Answer::Fail), 20, "failing");
        assert_eq!(take(Answer::Pass), 1, "at the edge back");
        assert_eq!(take(Answer::Pass), 10);
    }

    #[test]
    fn what_nobody_calls_is_asked_less_often() {
        let check = HealthCheck::tcp().jitter(Duration::ZERO);
        let mut idle = Schedule::new(&check.no_traffic_interval(Duration::from_mins(1)));
        let mut rng = Rng::seeded(1);
        idle.set_called(false);
        assert_eq!(idle.take(Answer::Pass, &mut rng).as_secs(), 60);
        assert_eq!(idle.take(Answer::Fail, &mut rng).as_secs(), 60);
        idle.set_called(true);
        assert_eq!(idle.take(Answer::Fail, &mut rng).as_secs(), 10);
        // Who did not ask for it is not kept waiting.
        let mut probes = schedule();
        probes.set_called(false);
        assert_eq!(probes.take(Answer::Pass, &mut rng).as_secs(), 10);
    }

    #[test]
    fn a_refusal_counts_at_once_and_one_failure_does_not() {
        let (mut probes, mut rng) = (schedule(), Rng::seeded(1));
        probes.take(Answer::Pass, &mut rng);
        probes.take(Answer::Fail, &mut rng);
        probes.take(Answer::Pass, &mut rng);
        probes.take(Answer::Fail, &mut rng);
        probes.take(Answer::Fail, &mut rng);
        assert_eq!(probes.health(), Health::Passing, "three, but not in a row");
        probes.take(Answer::Refusal, &mut rng);
        assert_eq!(probes.health(), Health::Failing);
    }

    #[test]
    fn one_that_never_passed_has_a_threshold_too() {
        let (mut probes, mut rng) = (schedule(), Rng::seeded(1));
        probes.take(Answer::Fail, &mut rng);
        probes.take(Answer::Fail, &mut rng);
        assert_eq!(probes.health(), Health::Unknown);
        probes.take(Answer::Fail, &mut rng);
        assert_eq!(probes.health(), Health::Failing);
    }

    #[test]
    fn jitter_spreads_the_first_and_every_probe() {
        let check = HealthCheck::tcp().jitter(Duration::from_secs(1));
        let (mut probes, mut rng) = (Schedule::new(&check), Rng::seeded(1));
        let first: Vec<u128> = (0..100)
            .map(|_| probes.first(&mut rng).as_millis())
            .collect();
        assert!(first.iter().any(|&ms| ms < 200) && first.iter().any(|&ms| ms > 800));
        let next: Vec<u128> = (0..100)
            .map(|_| probes.take(Answer::Pass, &mut rng).as_millis())
            .collect();
        assert!(next.iter().all(|ms| (10_000..=11_000).contains(ms)));
        assert!(next.iter().any(|&ms| ms > 10_800));
    }
}
