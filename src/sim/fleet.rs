//! The clients, the servers, and what befalls them.

use super::{Estimate, Service};
use crate::error::Error;

/// A fleet. Its load is the arrival rate as a share of what the servers could
/// do if none were slowed down.
///
/// Calls arrive by Poisson's law, each at a client drawn at random. A slowed
/// server takes longer for calls that it begins then; those it has begun keep
/// their time. There are no retries, and the set changes by a [`Deploy`] only.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// Clients, each of which knows only its own calls.
    pub clients: u32,
    /// Servers, each with one FIFO queue.
    pub servers: u32,
    /// Calls that a server works at at a time.
    pub workers: u32,
    /// Arrivals as a share of the servers' capacity.
    pub load: f64,
    /// Mean service time in milliseconds.
    pub service_ms: f64,
    /// How service times spread.
    pub service: Service,
    /// There and back between client and server, in milliseconds.
    pub round_trip_ms: f64,
    /// Calls that arrive within so many seconds are simulated.
    pub seconds: f64,
    /// Calls of the first so many seconds are not counted.
    pub warm_up_seconds: f64,
    /// When a client gives a call up, in milliseconds.
    pub timeout_ms: Option<f64>,
    /// Servers that are slow for a time.
    pub slow: Option<Slow>,
    /// Neighbours that slow each server down now and then.
    pub antagonist: Option<Antagonist>,
    /// More calls from time to time.
    pub burst: Option<Burst>,
    /// Servers that are replaced one after the other.
    pub deploy: Option<Deploy>,
    /// The first server fails each call after so many milliseconds of work.
    pub failing_ms: Option<f64>,
    /// Whether servers say, with each answer, how busy they are.
    pub reports: bool,
    /// The last so many of them say nothing, as before a rollout comes to them.
    pub silent: u32,
    /// How old what they say may be, in milliseconds: a server looks at itself so often.
    pub report_every_ms: f64,
    /// How many servers each call has asked for the same, at random; beside it, as a call does not
    /// wait for that. Only for strategies that go by reports.
    pub probes: f64,
    /// What they say of their latency.
    pub estimate: Estimate,
}

/// The first servers are slow for a time.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// How many.
    pub servers: u32,
    /// How many times longer they take.
    pub factor: f64,
    /// From this second on.
    pub from_seconds: f64,
    /// Until this one.
    pub until_seconds: f64,
}

/// Each server is slow at random times, which are exponential.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Antagonist {
    /// How many times longer a server takes then.
    pub factor: f64,
    /// The mean time for which it does, in seconds.
    pub slow_seconds: f64,
    /// The mean time between, in seconds.
    pub quiet_seconds: f64,
}

/// More calls at the beginning of each period.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// How many times more; 1 or more.
    pub factor: f64,
    /// For so many seconds.
    pub seconds: f64,
    /// Once in so many seconds.
    pub period_seconds: f64,
}

/// One server after the other leaves, and is back: a rolling deploy. A server that leaves finishes
/// what it has, and one that is back is slow for a while.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// When the first leaves, in seconds.
    pub from_seconds: f64,
    /// When the next one does after that.
    pub every_seconds: f64,
    /// How long one is away.
    pub away_seconds: f64,
    /// For how long it is slow when it is back: caches are cold, code is not compiled.
    #[serde(default)]
    pub cold_seconds: f64,
    /// How many times longer it takes then.
    #[serde(default = "one")]
    pub cold_factor: f64,
    /// How long it takes at most until a client hears of a change: a random part of it for each
    /// client and change. A client that hears takes the set as it is then.
    #[serde(default)]
    pub heard_seconds: f64,
    /// For how long a server that left takes further calls. Those that are sent to it later, by
    /// clients that have not heard of it, are refused: no call fails for a grace as long as
    /// [`heard_seconds`](Self::heard_seconds).
    #[serde(default)]
    pub grace_seconds: f64,
    /// For how long the weight of a server that is back grows, from a tenth and once in a second, as
    /// by [`SlowStart`](crate::health::slow_start::SlowStart).
    #[serde(default)]
    pub slow_start_seconds: f64,
}

impl Default for Deploy {
    /// From 10 s on, one in 2 s, away for 1.5 s; all clients hear at once, and nothing is cold.
    fn default() -> Self {
        Self {
            from_seconds: 10.0,
            every_seconds: 2.0,
            away_seconds: 1.5,
            cold_seconds: 0.0,
            cold_factor: 1.0,
            heard_seconds: 0.0,
            grace_seconds: 0.0,
            slow_start_seconds: 0.0,
        }
    }
}

const fn one() -> f64 {
    1.0
}

/// Some 800 bytes each.
const MOST_KNOWN: u64 = 10_000_000;

/// Some 8 bytes, and a microsecond or two each.
const MOST_CALLS: f64 = 1e9;

impl Default for Fleet {
    /// 100 clients and 100 servers of 4 workers at 70 %, 10 ms a call, .5 ms
    /// there and back, for 40 s of which 8 are not counted.
    fn default() -> Self {
        Self {
            clients: 100,
            servers: 100,
            workers: 4,
            load: 0.7,
            service_ms: 10.0,
            service: Service::Exponential,
            round_trip_ms: 0.5,
            seconds: 40.0,
            warm_up_seconds: 8.0,
            timeout_ms: None,
            slow: None,
            antagonist: None,
            burst: None,
            deploy: None,
            failing_ms: None,
            reports: true,
            silent: 0,
            report_every_ms: 0.0,
            probes: 0.0,
            estimate: Estimate::ByLoad,
        }
    }
}

impl Fleet {
    /// The scenario of that name, `S1` to `S8`; none when there is none.
    ///
    /// | | differs from the default by |
    /// | --- | --- |
    /// | S1 | nothing |
    /// | S2 | a load of .9 |
    /// | S3 | 20 of 100 servers three times slower |
    /// | S4 | each server four times slower for a tenth of the time |
    /// | S5 | three times the calls for 200 ms in every 2 s |
    /// | S6 | 1,000 clients, 10 servers, a load of .8 |
    /// | S7 | one client, a load of .8 |
    /// | S8 | one server that fails each call in 1 ms |
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut fleet = Self::default();
        match name {
            "S1" => {}
            "S2" => fleet.load = 0.9,
            "S3" => {
                fleet.slow = Some(Slow {
                    servers: 20,
                    factor: 3.0,
                    from_seconds: 0.0,
                    until_seconds: 1e6,
                });
            }
            "S4" => {
                fleet.antagonist = Some(Antagonist {
                    factor: 4.0,
                    slow_seconds: 1.0,
                    quiet_seconds: 9.0,
                });
            }
            "S5" => {
                fleet.burst = Some(Burst {
                    factor: 3.0,
                    seconds: 0.2,
                    period_seconds: 2.0,
                });
            }
            "S6" => (fleet.clients, fleet.servers, fleet.load) = (1_000, 10, 0.8),
            "S7" => (fleet.clients, fleet.load) = (1, 0.8),
            "S8" => fleet.failing_ms = Some(1.0),
            _ => return None,
        }
        Some(fleet)
    }

    /// A fleet from TOML: the fields of this type, of which those that are
    /// left out are as in the default.
    ///
    /// ```
    /// use waypost::sim::Fleet;
    ///
    /// let fleet = Fleet::from_toml("servers = 5\n[burst]\nfactor = 3\nseconds = 1\nperiod_seconds = 9")?;
    /// assert_eq!((fleet.servers, fleet.clients), (5, 100));
    /// assert!(Fleet::from_toml("server = 5").is_err());
    /// # Ok::<(), waypost::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When it is no TOML, has a field that is not known, or one that holds
    /// what cannot be; the error says where.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let fleet: Self =
            toml::from_str(text).map_err(|error| Error::invalid("fleet", "TOML", error))?;
        fleet.check()?;
        Ok(fleet)
    }

    /// # Errors
    ///
    /// The first field that cannot be, with the reason.
    pub(super) fn check(&self) -> Result<(), Error> {
        let positive = |value: f64| value > 0.0 && value <= 1e6;
        let not_negative = |value: f64| (0.0..=1e6).contains(&value);
        let counts = [
            ("fleet.clients", self.clients),
            ("fleet.servers", self.servers),
            ("fleet.workers", self.workers),
        ];
        for (field, value) in counts {
            if !(1..=1_000_000).contains(&value) {
                let reason = "there must be one at least, and at most a million";
                return Err(Error::invalid(field, value, reason));
            }
        }
        let mut above_zero = vec![
            ("fleet.load", self.load),
            ("fleet.service_ms", self.service_ms),
            ("fleet.seconds", self.seconds),
        ];
        let mut from_zero = vec![
            ("fleet.round_trip_ms", self.round_trip_ms),
            ("fleet.warm_up_seconds", self.warm_up_seconds),
            ("fleet.probes", self.probes),
            ("fleet.report_every_ms", self.report_every_ms),
        ];
        above_zero.extend(self.timeout_ms.map(|ms| ("fleet.timeout_ms", ms)));
        above_zero.extend(self.failing_ms.map(|ms| ("fleet.failing_ms", ms)));
        if let Some(slow) = &self.slow {
            above_zero.push(("fleet.slow.factor", slow.factor));
            from_zero.push(("fleet.slow.from_seconds", slow.from_seconds));
            from_zero.push(("fleet.slow.until_seconds", slow.until_seconds));
        }
        if let Some(antagonist) = &self.antagonist {
            above_zero.push(("fleet.antagonist.factor", antagonist.factor));
            above_zero.push(("fleet.antagonist.slow_seconds", antagonist.slow_seconds));
            above_zero.push(("fleet.antagonist.quiet_seconds", antagonist.quiet_seconds));
        }
        if let Some(deploy) = &self.deploy {
            from_zero.push(("fleet.deploy.from_seconds", deploy.from_seconds));
            from_zero.push(("fleet.deploy.cold_seconds", deploy.cold_seconds));
            from_zero.push(("fleet.deploy.heard_seconds", deploy.heard_seconds));
            from_zero.push(("fleet.deploy.grace_seconds", deploy.grace_seconds));
            let slow_start = deploy.slow_start_seconds;
            from_zero.push(("fleet.deploy.slow_start_seconds", slow_start));
            above_zero.push(("fleet.deploy.every_seconds", deploy.every_seconds));
            above_zero.push(("fleet.deploy.away_seconds", deploy.away_seconds));
            above_zero.push(("fleet.deploy.cold_factor", deploy.cold_factor));
        }
        if let Some(burst) = &self.burst {
            above_zero.push(("fleet.burst.seconds", burst.seconds));
            above_zero.push(("fleet.burst.period_seconds", burst.period_seconds));
            if !(1.0..=1e6).contains(&burst.factor) {
                let (field, reason) = ("fleet.burst.factor", "it must be 1 or more");
                return Err(Error::invalid(field, burst.factor, reason));
            }
        }
        for (field, value) in above_zero {
            if !positive(value) {
                let reason = "it must be above 0 and at most a million";
                return Err(Error::invalid(field, value, reason));
            }
        }
        for (field, value) in from_zero {
            if !not_negative(value) {
                let reason = "it must be in 0..=1,000,000";
                return Err(Error::invalid(field, value, reason));
            }
        }
        if self.warm_up_seconds >= self.seconds {
            let (field, reason) = (
                "fleet.warm_up_seconds",
                "it must end before the simulation does",
            );
            return Err(Error::invalid(field, self.warm_up_seconds, reason));
        }
        self.check_size()?;
        match self.service.objection() {
            Some(rule) => Err(Error::invalid(
                "fleet.service",
                format!("{:?}", self.service),
                rule,
            )),
            None => Ok(()),
        }
    }

    /// What no machine holds, or sees the end of.
    fn check_size(&self) -> Result<(), Error> {
        let known = u64::from(self.clients) * u64::from(self.servers);
        if known > MOST_KNOWN {
            let reason = "clients times servers, as each knows each, are at most ten million";
            return Err(Error::invalid("fleet.clients", self.clients, reason));
        }
        let workers = f64::from(self.servers) * f64::from(self.workers);
        let calls = self.load * workers * self.seconds * 1e3 / self.service_ms;
        if calls > MOST_CALLS {
            let reason = "there would be more than a billion calls";
            return Err(Error::invalid("fleet.seconds", self.seconds, reason));
        }
        Ok(())
    }
}
