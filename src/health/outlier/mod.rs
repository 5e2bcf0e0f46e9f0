//! Ejects endpoints whose calls fail, for a while.
//!
//! Nobody knows sooner that an endpoint is ill than those who call it. One that
//! fails often enough is *ejected*: it gets no calls for a base time, longer
//! each time it happens, and then one trial call, which decides. The detectors
//! are Envoy's; so are the numbers, where nothing else is said.
//!
//! | detector | ejects when | default |
//! | --- | --- | --- |
//! | consecutive failures | that many calls in a row failed in whatever way | 5 |
//! | consecutive errors | that many answers in a row were errors | off |
//! | consecutive gateway errors | that many answers in a row were 502, 503 or 504 | off |
//! | consecutive unanswered | that many in a row got no answer | 5 |
//! | success rate | below mean − 1.9 standard deviations, of 5 endpoints with 100 calls | on |
//! | failure percentage | at least that share of its calls failed | off |
//! | latency | its mean is that many times the median | off |
//!
//! ```
//! use waypost::health::outlier::OutlierEjection;
//!
//! let strict = OutlierEjection::new().consecutive_failures(3).max_percent(30);
//! let gentle = OutlierEjection::connections(); // the balancer's default
//! # let _ = (strict, gentle);
//! ```

mod machine;
mod rates;

use std::time::Duration;

pub use machine::{Cause, Change, Ejector, Observation, Standing};

use crate::error::Error;
use crate::stats::Streaks;

/// When endpoints are ejected, and for how long.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct OutlierEjection {
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) consecutive_errors: Option<u32>,
    pub(crate) consecutive_gateway_errors: Option<u32>,
    pub(crate) consecutive_unanswered: Option<u32>,
    pub(crate) success_rate: Option<f64>,
    pub(crate) failure_percentage: Option<u32>,
    pub(crate) latency_factor: Option<f64>,
    pub(crate) min_hosts: usize,
    pub(crate) volume: u64,
    pub(crate) interval: Duration,
    pub(crate) base_time: Duration,
    pub(crate) max_time: Duration,
    pub(crate) jitter: Duration,
    pub(crate) max_percent: u32,
}

impl Default for OutlierEjection {
    fn default() -> Self {
        Self::new()
    }
}

impl OutlierEjection {
    /// By consecutive failures and by success rate.
    pub const fn new() -> Self {
        Self {
            consecutive_failures: Some(5),
            success_rate: Some(1.9),
            ..Self::connections()
        }
    }

    /// Only by calls that got no answer, five in a row: what a balancer does
    /// that was told nothing. An answer, even an error, may be the caller's own
    /// doing; no answer never is.
    pub const fn connections() -> Self {
        Self {
            consecutive_failures: None,
            consecutive_errors: None,
            consecutive_gateway_errors: None,
            consecutive_unanswered: Some(5),
            success_rate: None,
            failure_percentage: None,
            latency_factor: None,
            min_hosts: 5,
            volume: 100,
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(30),
            max_time: Duration::from_mins(5),
            jitter: Duration::from_secs(3),
            max_percent: 50,
        }
    }

    /// Ejects after so many failures in a row, of whatever kind; 0 turns it
    /// off.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = Some(failures).filter(|&failures| failures > 0);
        self
    }

    /// Ejects after so many answers in a row that were errors, unanswered calls
    /// left aside; 0 turns it off.
    pub fn consecutive_errors(mut self, errors: u32) -> Self {
        self.consecutive_errors = Some(errors).filter(|&errors| errors > 0);
        self
    }

    /// Ejects after so many answers in a row that were [gateway
    /// errors](crate::Outcome::GatewayError), whatever is done about other
    /// errors; 0 turns it off.
    pub fn consecutive_gateway_errors(mut self, errors: u32) -> Self {
        self.consecutive_gateway_errors = Some(errors).filter(|&errors| errors > 0);
        self
    }

    /// Ejects after so many calls in a row without an answer; 0 turns it off.
    pub fn consecutive_unanswered(mut self, calls: u32) -> Self {
        self.consecutive_unanswered = Some(calls).filter(|&calls| calls > 0);
        self
    }

    /// Ejects what succeeds less often than the mean by more than so many
    /// standard deviations; `None` turns it off.
    pub fn success_rate(mut self, deviations: Option<f64>) -> Self {
        self.success_rate = deviations;
        self
    }

    /// Ejects what fails at least this percentage of an interval's calls;
    /// `None` turns it off.
    pub fn failure_percentage(mut self, percent: Option<u32>) -> Self {
        self.failure_percentage = percent;
        self
    }

    /// Ejects what is slower, in the mean, than so many times the median of
    /// all; `None` turns it off.
    pub fn latency_factor(mut self, factor: Option<f64>) -> Self {
        self.latency_factor = factor;
        self
    }

    /// How many endpoints must have had [`volume`](Self::volume) calls in an
    /// interval before they are compared.
    pub fn min_hosts(mut self, hosts: usize) -> Self {
        self.min_hosts = hosts;
        self
    }

    /// How many calls in an interval make an endpoint's rate worth looking at.
    pub fn volume(mut self, calls: u64) -> Self {
        self.volume = calls;
        self
    }

    /// How often endpoints are compared, and how fast a past ejection is
    /// forgiven: one step of the base time an interval.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long the first ejection lasts; the n-th lasts n times as long.
    pub fn base_time(mut self, time: Duration) -> Self {
        self.base_time = time;
        self
    }

    /// How long an ejection lasts at most, without its jitter.
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// Up to so much more, drawn at random, so that many clients do not come
    /// back at once.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// How many of all endpoints may be ejected at once, in percent. One always
    /// may be, and all never.
    pub fn max_percent(mut self, percent: u32) -> Self {
        self.max_percent = percent;
        self
    }

    /// How many of `n` endpoints may be ejected at once.
    #[must_use]
    pub fn allowed(&self, n: usize) -> usize {
        let share = n * self.max_percent as usize / 100;
        share.max(1).min(n.saturating_sub(1))
    }

    /// Why an endpoint with such failures in a row is ejected, if it is.
    pub(crate) fn verdict(&self, streaks: Streaks) -> Option<Cause> {
        let reached = |limit: Option<u32>, streak: u32| limit.filter(|&limit| streak >= limit);
        let answered = reached(self.consecutive_errors, streaks.answered);
        let gateway = reached(self.consecutive_gateway_errors, streaks.gateway);
        let local = reached(self.consecutive_unanswered, streaks.local);
        let all = reached(self.consecutive_failures, streaks.all);
        local
            .map(|_| Cause::Unanswered(streaks.local))
            .or(gateway.map(|_| Cause::GatewayErrors(streaks.gateway)))
            .or(answered.map(|_| Cause::Errors(streaks.answered)))
            .or(all.map(|_| Cause::Failures(streaks.all)))
    }

    /// Whether somebody should look at an endpoint whose failures in a row have
    /// just become these: at the limit and its multiples, so that one that may
    /// not be ejected does not ring at every call.
    pub(crate) fn rings(&self, streaks: Streaks) -> bool {
        let hit = |limit: Option<u32>, streak: u32| {
            limit.is_some_and(|limit| streak > 0 && streak.is_multiple_of(limit))
        };
        hit(self.consecutive_failures, streaks.all)
            || hit(self.consecutive_errors, streaks.answered)
            || hit(self.consecutive_gateway_errors, streaks.gateway)
            || hit(self.consecutive_unanswered, streaks.local)
    }

    /// Whether endpoints are compared with each other.
    pub(crate) fn compares(&self) -> bool {
        self.success_rate.is_some()
            || self.failure_percentage.is_some()
            || self.latency_factor.is_some()
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |field, value: String, reason| Err(Error::invalid(field, value, reason));
        let positive = |number: Option<f64>| number.is_none_or(|n| n.is_finite() && n > 0.0);
        let told = |number: Option<f64>| number.unwrap_or_default().to_string();
        if self.interval.is_zero() {
            let reason = "must be longer than nothing";
            return refuse("outlier_ejection.interval", "0".into(), reason);
        }
        if self.base_time.is_zero() || self.max_time < self.base_time {
            let times = format!("{:?} to {:?}", self.base_time, self.max_time);
            let reason = "the base time must be longer than nothing, and at most the longest";
            return refuse("outlier_ejection.base_time", times, reason);
        }
        if self.max_percent > 100 {
            let percent = self.max_percent.to_string();
            let reason = "must be at most 100";
            return refuse("outlier_ejection.max_percent", percent, reason);
        }
        if let Some(percent) = self.failure_percentage
            && !(1..=100).contains(&percent)
        {
            let reason = "must be from 1 to 100";
            let percent = percent.to_string();
            return refuse("outlier_ejection.failure_percentage", percent, reason);
        }
        if !positive(self.success_rate) {
            let reason = "must be a number of standard deviations above 0, such as 1.9";
            return refuse(
                "outlier_ejection.success_rate",
                told(self.success_rate),
                reason,
            );
        }
        if !positive(self.latency_factor) {
            let reason = "must be a number above 0, such as 10";
            return refuse(
                "outlier_ejection.latency_factor",
                told(self.latency_factor),
                reason,
            );
        }
        Ok(())
    }
}
