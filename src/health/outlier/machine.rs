//! Who is ejected, until when, and what lets it back.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::OutlierEjection;
use super::rates::{median, success_threshold};
use crate::rng::Rng;
use crate::stats::{NodeKey, Streaks};
use crate::time::Timestamp;

/// The state of all endpoints of a balancer, by their identity: it outlives
/// changes of the set.
///
/// ```
/// use std::time::Duration;
/// use waypost::health::outlier::{Ejector, Observation, OutlierEjection, Standing};
/// use waypost::rng::Rng;
/// use waypost::stats::Streaks;
/// use waypost::time::Timestamp;
/// use waypost::view::View;
/// use waypost::Endpoint;
///
/// # fn main() -> Result<(), waypost::Error> {
/// let view = View::standalone([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?]);
/// let keys = [view.node(0).key(), view.node(1).key()];
/// let five = Streaks { all: 5, answered: 5, ..Streaks::default() };
/// let seen = [Observation::new(keys[0]).streaks(five), Observation::new(keys[1])];
///
/// let now = Timestamp::default();
/// let mut ejector = Ejector::new(OutlierEjection::new(), now);
/// ejector.observe(&seen, now, &mut Rng::seeded(1));
/// assert!(matches!(ejector.standing(keys[0]), Standing::Ejected { .. }));
/// assert_eq!(ejector.standing(keys[1]), Standing::Admitted);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Ejector {
    settings: OutlierEjection,
    records: HashMap<NodeKey, Record>,
    /// What each endpoint's counters were at the last sweep.
    baselines: HashMap<NodeKey, (u64, u64)>,
    next_sweep: Timestamp,
}

/// What is known of an endpoint that was ejected at some time.
#[derive(Clone, Copy, Debug)]
struct Record {
    standing: Standing,
    /// How many base times its next ejection adds to: grows with each, and
    /// falls with each interval that goes well.
    times: u32,
    since: Timestamp,
}

/// Whether an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// It is not.
    Admitted,
    /// It gets no calls.
    Ejected {
        /// When it gets its trial call.
        until: Timestamp,
        /// Why.
        cause: Cause,
    },
    /// It gets one call, which decides.
    OnTrial,
}

impl Standing {
    fn is_out(self) -> bool {
        self != Self::Admitted
    }
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// So many calls in a row failed.
    Failures(u32),
    /// So many answers in a row were errors.
    Errors(u32),
    /// So many answers in a row were gateway errors.
    GatewayErrors(u32),
    /// So many calls in a row got no answer.
    Unanswered(u32),
    /// So many percent of its calls succeeded, fewer than the others' did.
    SuccessRate(f64),
    /// So many percent of its calls failed.
    FailurePercentage(f64),
    /// So many times as slow as the median.
    Latency(f64),
    /// Its trial call failed.
    Trial,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(n) => write!(f, "{n} failures in a row"),
            Self::Errors(n) => write!(f, "{n} errors in a row"),
            Self::GatewayErrors(n) => write!(f, "{n} gateway errors in a row"),
            Self::Unanswered(n) => write!(f, "{n} calls in a row without an answer"),
            Self::SuccessRate(rate) => write!(f, "a success rate of {rate:.1} %"),
            Self::FailurePercentage(rate) => write!(f, "{rate:.1} % failures"),
            Self::Latency(factor) => write!(f, "{factor:.1} times the median latency"),
            Self::Trial => f.write_str("its trial call failed"),
        }
    }
}

/// What an endpoint's stats are at one moment.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Observation {
    key: NodeKey,
    streaks: Streaks,
    succeeded: u64,
    failed: u64,
    latency: Option<Duration>,
}

impl Observation {
    /// An endpoint without a call.
    pub fn new(key: NodeKey) -> Self {
        Self {
            key,
            streaks: Streaks::default(),
            succeeded: 0,
            failed: 0,
            latency: None,
        }
    }

    /// Its failures in a row.
    pub fn streaks(mut self, streaks: Streaks) -> Self {
        self.streaks = streaks;
        self
    }

    /// How its calls ended since it is known.
    pub fn ended(mut self, succeeded: u64, failed: u64) -> Self {
        (self.succeeded, self.failed) = (succeeded, failed);
        self
    }

    /// Its mean latency.
    pub fn latency(mut self, latency: Option<Duration>) -> Self {
        self.latency = latency;
        self
    }
}

/// An endpoint's standing became another; its failures in a row are to be
/// forgotten, and a trial call to be offered where it is on trial.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Which one.
    pub key: NodeKey,
    /// What it is now.
    pub to: Standing,
}

impl Ejector {
    /// Nobody is ejected yet.
    #[must_use]
    pub fn new(settings: OutlierEjection, now: Timestamp) -> Self {
        Self {
            next_sweep: now.plus(settings.interval),
            settings,
            records: HashMap::new(),
            baselines: HashMap::new(),
        }
    }

    /// What an endpoint is.
    #[must_use]
    pub fn standing(&self, key: NodeKey) -> Standing {
        let record = self.records.get(&key);
        record.map_or(Standing::Admitted, |record| record.standing)
    }

    /// Looks at all endpoints that could be called: ejects, ends ejections that
    /// are over, and forgives what is past. O(n).
    pub fn observe(&mut self, hosts: &[Observation], now: Timestamp, rng: &mut Rng) -> Vec<Change> {
        let mut changes = Vec::new();
        self.end_ejections(now, &mut changes);
        let mut room = self.keep_to_the_cap(hosts, now, &mut changes);
        let streaks = hosts.iter().filter_map(|host| {
            let cause = self.settings.verdict(host.streaks)?;
            Some((host.key, cause))
        });
        let mut outliers: Vec<(NodeKey, Cause)> = streaks.collect();
        if now >= self.next_sweep {
            outliers.extend(self.sweep(hosts, now));
            self.next_sweep = now.plus(self.settings.interval);
        }
        for (key, cause) in outliers {
            if room > 0 && !self.standing(key).is_out() {
                room -= 1;
                let to = self.eject(key, cause, now, rng);
                changes.push(Change { key, to });
            }
        }
        changes
    }

    /// Takes in how the trial call went.
    pub fn end_trial(
        &mut self,
        key: NodeKey,
        passed: bool,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Option<Change> {
        if self.standing(key) != Standing::OnTrial {
            return None;
        }
        let to = if passed {
            self.admit(key, now)
        } else {
            self.eject(key, Cause::Trial, now, rng)
        };
        Some(Change { key, to })
    }

    /// Lets an endpoint back that passed an active check, which is as good as a
    /// trial call.
    pub fn passed_check(&mut self, key: NodeKey, now: Timestamp) -> Option<Change> {
        self.standing(key).is_out().then(|| Change {
            key,
            to: self.admit(key, now),
        })
    }

    /// Forgets the endpoints that are not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(NodeKey) -> bool) {
        self.records.retain(|&key, _| keep(key));
        self.baselines.retain(|&key, _| keep(key));
    }

    /// Whether nobody was ejected lately.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.records.is_empty()
    }

    /// When [`observe`](Self::observe) has something to do that no failing call
    /// asks for; none while there is nothing.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let ends = self.records.values().filter_map(|r| match r.standing {
            Standing::Ejected { until, .. } => Some(until),
            _ => None,
        });
        let sweeps = self.settings.compares() || !self.records.is_empty();
        ends.chain(sweeps.then_some(self.next_sweep)).min()
    }

    fn end_ejections(&mut self, now: Timestamp, changes: &mut Vec<Change>) {
        let patience = self.settings.interval;
        for (&key, record) in &mut self.records {
            let due = match record.standing {
                Standing::Ejected { until, .. } => until <= now,
                // A trial call that takes for ever is not waited for.
                Standing::OnTrial => now.since(record.since) >= patience,
                Standing::Admitted => false,
            };
            if due {
                record.standing = Standing::OnTrial;
                record.since = now;
                let to = record.standing;
                changes.push(Change { key, to });
            }
        }
    }

    /// When endpoints leave the set, those that are ejected may be too many;
    /// the ones whose time is up first come back. Tells how many more may go.
    fn keep_to_the_cap(
        &mut self,
        hosts: &[Observation],
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> usize {
        let mut out: Vec<(Timestamp, NodeKey)> = hosts
            .iter()
            .filter_map(|host| match self.standing(host.key) {
                Standing::Ejected { until, .. } => Some((until, host.key)),
                Standing::OnTrial => Some((now, host.key)),
                Standing::Admitted => None,
            })
            .collect();
        let allowed = self.settings.allowed(hosts.len());
        let excess = out.len().saturating_sub(allowed);
        out.sort_by_key(|&(until, _)| until);
        for &(_, key) in &out[..excess] {
            let to = self.admit(key, now);
            changes.push(Change { key, to });
        }
        allowed.saturating_sub(out.len())
    }

    /// Compares the endpoints, forgives those that did well, and begins the next
    /// interval.
    fn sweep(&mut self, hosts: &[Observation], now: Timestamp) -> Vec<(NodeKey, Cause)> {
        let interval = self.settings.interval;
        for record in self.records.values_mut() {
            if record.standing == Standing::Admitted && now.since(record.since) >= interval {
                record.times = record.times.saturating_sub(1);
            }
        }
        self.records
            .retain(|_, record| record.standing.is_out() || record.times > 0);
        if !self.settings.compares() {
            return Vec::new();
        }
        let outliers = self.outliers(hosts);
        let counters = hosts.iter().map(|h| (h.key, (h.succeeded, h.failed)));
        self.baselines = counters.collect();
        outliers
    }

    /// Those that stand out among the endpoints with enough calls since the last
    /// sweep.
    fn outliers(&self, hosts: &[Observation]) -> Vec<(NodeKey, Cause)> {
        let settings = &self.settings;
        let busy: Vec<(&Observation, f64)> = hosts
            .iter()
            .filter(|host| !self.standing(host.key).is_out())
            .filter_map(|host| {
                // An endpoint that is new since then began with nothing.
                let (succeeded, failed) = self.baselines.get(&host.key).copied().unwrap_or((0, 0));
                let succeeded = host.succeeded.saturating_sub(succeeded);
                let ended = succeeded + host.failed.saturating_sub(failed);
                let enough = ended >= settings.volume.max(1);
                enough.then(|| (host, succeeded as f64 * 100.0 / ended as f64))
            })
            .collect();
        if busy.len() < settings.min_hosts.max(1) {
            return Vec::new();
        }
        let mut outliers = Vec::new();
        if let Some(deviations) = settings.success_rate {
            let rates: Vec<f64> = busy.iter().map(|&(_, rate)| rate).collect();
            let threshold = success_threshold(&rates, deviations);
            let low = busy.iter().filter(|&&(_, rate)| rate < threshold);
            outliers.extend(low.map(|&(host, rate)| (host.key, Cause::SuccessRate(rate))));
        }
        if let Some(percent) = settings.failure_percentage {
            let high = busy
                .iter()
                .filter(|&&(_, rate)| 100.0 - rate >= f64::from(percent));
            outliers.extend(
                high.map(|&(host, rate)| (host.key, Cause::FailurePercentage(100.0 - rate))),
            );
        }
        if let Some(factor) = settings.latency_factor {
            let timed = busy
                .iter()
                .filter_map(|(host, _)| Some((host.key, host.latency?.as_secs_f64())));
            let typical = median(timed.clone().map(|(_, latency)| latency).collect());
            let slow = timed.filter(|&(_, latency)| latency > factor * typical);
            outliers.extend(slow.map(|(key, latency)| (key, Cause::Latency(latency / typical))));
        }
        outliers
    }

    fn eject(&mut self, key: NodeKey, cause: Cause, now: Timestamp, rng: &mut Rng) -> Standing {
        let OutlierEjection {
            base_time,
            max_time,
            jitter,
            ..
        } = self.settings;
        let record = self.records.entry(key).or_insert(Record {
            standing: Standing::Admitted,
            times: 0,
            since: now,
        });
        // No further than the longest, so that it is forgiven step by step from
        // there.
        if base_time.saturating_mul(record.times) < max_time {
            record.times += 1;
        }
        let spread = Duration::from_micros(u64::from(
            rng.below((jitter.as_micros() as u32).saturating_add(1)),
        ));
        let time = base_time.saturating_mul(record.times).min(max_time) + spread;
        record.standing = Standing::Ejected {
            until: now.plus(time),
            cause,
        };
        record.since = now;
        record.standing
    }

    fn admit(&mut self, key: NodeKey, now: Timestamp) -> Standing {
        if let Some(record) = self.records.get_mut(&key) {
            record.standing = Standing::Admitted;
            record.since = now;
        }
        Standing::Admitted
    }
}
