//! Who is well enough: probes, ejection, ramps, and the guard.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(not(feature = "tonic"))]
use super::registry::without;
use super::secret::Secret;
use super::time;
use crate::error::Error;
use crate::health::check::HealthCheck;
use crate::health::outlier::OutlierEjection;
use crate::health::slow_start::SlowStart;
use crate::registry::RemovalGuard;

/// A [`HealthCheck`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckConfig {
    /// What to `GET`, such as `/healthz`. With neither this nor `grpc`, the probe
    /// only connects.
    pub path: Option<String>,
    /// The service to ask gRPC's health protocol for, `""` for the server as a
    /// whole (feature `tonic`).
    pub grpc: Option<String>,
    /// The host to ask for.
    pub host: Option<String>,
    /// More headers.
    pub headers: BTreeMap<String, Secret>,
    /// The first and the last status that are well.
    pub statuses: (u16, u16),
    /// What the beginning of the body must hold.
    pub body_contains: Option<String>,
    /// How long a probe may take.
    #[serde(with = "time")]
    pub timeout: Duration,
    /// How often an endpoint is probed.
    #[serde(with = "time")]
    pub interval: Duration,
    /// How often one is that is not well; as others if not set.
    #[serde(with = "time::option")]
    pub unhealthy_interval: Option<Duration>,
    /// How often one is that is about to change; as others if not set.
    #[serde(with = "time::option")]
    pub edge_interval: Option<Duration>,
    /// How often one is of a service that was never called; as others if not
    /// set.
    #[serde(with = "time::option")]
    pub no_traffic_interval: Option<Duration>,
    /// The most that is added to an interval at random.
    #[serde(with = "time")]
    pub jitter: Duration,
    /// After how many passes in a row it is well.
    pub healthy_threshold: u32,
    /// After how many failures in a row it is not.
    pub unhealthy_threshold: u32,
    /// Another port than calls go to.
    pub port: Option<u16>,
    /// Whether one that passes gets calls though the registry has lost it.
    pub keep_absent: bool,
    /// Whether a pass ends an ejection.
    pub ends_ejection: EndsEjection,
}

/// Whether a probe that passes ends an ejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndsEjection {
    /// If it has got an answer, and not only a connection.
    #[default]
    Answered,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            path: None,
            grpc: None,
            host: None,
            headers: BTreeMap::new(),
            statuses: (200, 200),
            body_contains: None,
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(10),
            unhealthy_interval: None,
            edge_interval: None,
            no_traffic_interval: None,
            jitter: Duration::from_secs(1),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            port: None,
            keep_absent: true,
            ends_ejection: EndsEjection::default(),
        }
    }
}

impl HealthCheckConfig {
    pub(super) fn build(&self) -> Result<HealthCheck, Error> {
        let mut check = match (&self.path, &self.grpc) {
            (Some(path), None) => self.http(path)?,
            (None, Some(service)) => self.grpc(service)?,
            (None, None) => {
                self.refuse_http(self.host.is_some())?;
                HealthCheck::tcp()
            }
            (Some(_), Some(_)) => {
                let reason = "it excludes `path`; set one of them";
                return Err(Error::config("health_check.grpc", reason));
            }
        };
        check = check
            .timeout(self.timeout)
            .interval(self.interval)
            .jitter(self.jitter)
            .healthy_threshold(self.healthy_threshold)
            .unhealthy_threshold(self.unhealthy_threshold)
            .keep_absent(self.keep_absent);
        if let Some(interval) = self.unhealthy_interval {
            check = check.unhealthy_interval(interval);
        }
        if let Some(interval) = self.edge_interval {
            check = check.edge_interval(interval);
        }
        if let Some(interval) = self.no_traffic_interval {
            check = check.no_traffic_interval(interval);
        }
        if let Some(port) = self.port {
            check = check.port(port);
        }
        Ok(match self.ends_ejection {
            EndsEjection::Answered => check,
            EndsEjection::Always => check.ends_ejection(true),
            EndsEjection::Never => check.ends_ejection(false),
        })
    }

    fn http(&self, path: &str) -> Result<HealthCheck, Error> {
        let (first, last) = self.statuses;
        if first > last {
            let reason = format!("[{first}, {last}] holds no status; the first comes first");
            return Err(Error::config("health_check.statuses", reason));
        }
        let mut check = HealthCheck::http(path).statuses(first..=last);
        if let Some(host) = &self.host {
            check = check.host(host);
        }
        if let Some(text) = &self.body_contains {
            check = check.body_contains(text);
        }
        for (name, value) in &self.headers {
            let value = value.reveal(&format!("health_check.headers.{name}"))?;
            check = check.header(name, value);
        }
        Ok(check)
    }

    #[cfg(feature = "tonic")]
    fn grpc(&self, service: &str) -> Result<HealthCheck, Error> {
        self.refuse_http(false)?;
        let check = HealthCheck::grpc(service);
        Ok(match &self.host {
            Some(host) => check.host(host),
            None => check,
        })
    }

    #[cfg(not(feature = "tonic"))]
    #[expect(clippy::unused_self, reason = "as where the feature is on")]
    fn grpc(&self, _service: &str) -> Result<HealthCheck, Error> {
        Err(without("health_check.grpc", "tonic"))
    }

    /// What only HTTP has must not be set.
    fn refuse_http(&self, host: bool) -> Result<(), Error> {
        let none = Self::default();
        let set = [
            ("host", host),
            ("headers", self.headers != none.headers),
            ("statuses", self.statuses != none.statuses),
            ("body_contains", self.body_contains != none.body_contains),
        ];
        match set.into_iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(Error::config(
                format!("health_check.{key}"),
                "it goes with `path`, which is not set",
            )),
            None => Ok(()),
        }
    }
}

/// An [`OutlierEjection`]; what is not set does not eject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierConfig {
    /// After so many failures in a row, of whatever kind.
    pub consecutive_failures: Option<u32>,
    /// After so many answers in a row that were errors.
    pub consecutive_errors: Option<u32>,
    /// After so many in a row that were gateway errors (502, 503, 504).
    pub consecutive_gateway_errors: Option<u32>,
    /// After so many calls in a row without an answer.
    pub consecutive_unanswered: Option<u32>,
    /// Below the mean by so many standard deviations; 1.9 is usual.
    pub success_rate: Option<f64>,
    /// With at least so many percent of failures.
    pub failure_percentage: Option<u32>,
    /// Slower than so many times the median.
    pub latency_factor: Option<f64>,
    /// How many endpoints must have had enough calls to be compared.
    pub min_hosts: usize,
    /// How many calls in an interval are enough.
    pub volume: u64,
    /// How often endpoints are compared.
    #[serde(with = "time")]
    pub interval: Duration,
    /// How long the first ejection lasts.
    #[serde(with = "time")]
    pub base_time: Duration,
    /// How long one lasts at most.
    #[serde(with = "time")]
    pub max_time: Duration,
    /// The most that is added at random.
    #[serde(with = "time")]
    pub jitter: Duration,
    /// How many of all may be ejected at once, in percent.
    pub max_percent: u32,
}

impl Default for OutlierConfig {
    /// [`OutlierEjection::connections`].
    fn default() -> Self {
        let connections = OutlierEjection::connections();
        Self {
            consecutive_failures: connections.consecutive_failures,
            consecutive_errors: connections.consecutive_errors,
            consecutive_gateway_errors: connections.consecutive_gateway_errors,
            consecutive_unanswered: connections.consecutive_unanswered,
            success_rate: connections.success_rate,
            failure_percentage: connections.failure_percentage,
            latency_factor: connections.latency_factor,
            min_hosts: connections.min_hosts,
            volume: connections.volume,
            interval: connections.interval,
            base_time: connections.base_time,
            max_time: connections.max_time,
            jitter: connections.jitter,
            max_percent: connections.max_percent,
        }
    }
}

impl OutlierConfig {
    pub(super) fn build(&self) -> OutlierEjection {
        OutlierEjection::connections()
            .consecutive_failures(self.consecutive_failures.unwrap_or(0))
            .consecutive_errors(self.consecutive_errors.unwrap_or(0))
            .consecutive_gateway_errors(self.consecutive_gateway_errors.unwrap_or(0))
            .consecutive_unanswered(self.consecutive_unanswered.unwrap_or(0))
            .success_rate(self.success_rate)
            .failure_percentage(self.failure_percentage)
            .latency_factor(self.latency_factor)
            .min_hosts(self.min_hosts)
            .volume(self.volume)
            .interval(self.interval)
            .base_time(self.base_time)
            .max_time(self.max_time)
            .jitter(self.jitter)
            .max_percent(self.max_percent)
    }
}

/// A [`SlowStart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowStartConfig {
    /// How long the ramp is.
    #[serde(with = "time")]
    pub window: Duration,
    /// Above 1, the weight grows fast at first; below, slowly.
    pub aggression: f64,
    /// The share of its weight that an endpoint begins with.
    pub min_weight: f64,
}

impl Default for SlowStartConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            aggression: 1.0,
            min_weight: 0.1,
        }
    }
}

impl SlowStartConfig {
    pub(super) fn build(&self) -> SlowStart {
        SlowStart::new(self.window)
            .aggression(self.aggression)
            .min_weight(self.min_weight)
    }
}

/// A [`RemovalGuard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemovalGuardConfig {
    /// Below how many percent of what was there an answer is doubted.
    pub left: u32,
    /// How long what it misses is held at most.
    #[serde(with = "time")]
    pub hold: Duration,
}

impl Default for RemovalGuardConfig {
    fn default() -> Self {
        Self {
            left: 50,
            hold: Duration::from_mins(5),
        }
    }
}

impl RemovalGuardConfig {
    pub(super) fn build(&self) -> Result<RemovalGuard, Error> {
        RemovalGuard::new(self.left, self.hold).map_err(|error| error.within("removal_guard"))
    }
}
