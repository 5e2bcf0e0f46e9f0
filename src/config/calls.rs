//! How calls are made.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::observe::ObserveConfig;
use super::retry::{HedgeConfig, RetryConfig};
use super::time::{self, between};
use super::tls::EndpointTlsConfig;
use crate::client::http::{RequestKey, RequestSubset, Sticky};
use crate::client::{CallSettings, GrpcStatus};
use crate::endpoint::AddressPolicy;
use crate::error::Error;
use crate::resilience::{Aimd, Gradient2, Limits, Retry, Throttle};

/// [`CallSettings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallConfig {
    /// How long a call may take in all.
    #[serde(with = "time::option")]
    pub timeout: Option<Duration>,
    /// How long an attempt may take.
    #[serde(with = "time::option")]
    pub per_try_timeout: Option<Duration>,
    /// How long a call waits for the registry's first answer.
    #[serde(with = "time")]
    pub wait: Duration,
    /// How outcomes are told.
    pub classify: ClassifyConfig,
    /// Where the key of a call is found: these places, in order.
    pub key: Vec<KeyConfig>,
    /// Which part of the split a call names, by its headers.
    pub subset: Vec<SubsetConfig>,
    /// Keeps sessions at their endpoints by name.
    pub sticky: Option<StickyConfig>,
    /// Who endpoints have to be over TLS, and who we are to them: for
    /// [`Config::endpoint_tls`](super::Config), as clients are made by the program.
    pub tls: Option<EndpointTlsConfig>,
    /// Refuses addresses that nobody should be sent to: to calls, and to whatever
    /// else goes to the endpoints of the configured registry.
    pub addresses: Option<AddressConfig>,
    /// What is sent again.
    pub retry: Option<RetryConfig>,
    /// Sends late calls to a second endpoint too.
    pub hedge: Option<HedgeConfig>,
    /// Bounds what is under way.
    pub limits: Option<LimitsConfig>,
    /// Bounds the calls in flight by what the service bears.
    pub adaptive_limit: Option<AdaptiveConfig>,
    /// Refuses calls here while the service rejects most of them.
    pub throttle: Option<ThrottleConfig>,
    /// Who is told of each call.
    pub observe: ObserveConfig,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            timeout: None,
            per_try_timeout: None,
            wait: Duration::from_secs(5),
            classify: ClassifyConfig::default(),
            key: Vec::new(),
            subset: Vec::new(),
            sticky: None,
            tls: None,
            addresses: None,
            retry: Some(RetryConfig::default()),
            hedge: None,
            limits: None,
            adaptive_limit: None,
            throttle: None,
            observe: ObserveConfig::default(),
        }
    }
}

impl CallConfig {
    pub(super) fn build(&self) -> Result<CallSettings, Error> {
        let mut calls = CallSettings::new()
            .wait(self.wait)
            .retry(match &self.retry {
                Some(retry) => retry.build()?,
                None => Retry::never(),
            });
        calls = match self.classify {
            // Theirs already.
            ClassifyConfig::Http => calls,
            ClassifyConfig::Grpc => calls.classify(GrpcStatus),
        };
        if let Some(timeout) = positive("calls.timeout", self.timeout)? {
            calls = calls.timeout(timeout);
        }
        if let Some(timeout) = positive("calls.per_try_timeout", self.per_try_timeout)? {
            calls = calls.per_try_timeout(timeout);
        }
        if let Some(key) = request_key(&self.key)? {
            calls = calls.key(key);
        }
        if let Some(subset) = request_subset(&self.subset)? {
            calls = calls.subset(subset);
        }
        if let Some(sticky) = &self.sticky {
            calls = calls.sticky(sticky.build().map_err(|error| error.within("calls"))?);
        }
        if let Some(addresses) = &self.addresses {
            calls = calls.addresses(addresses.build());
        }
        if let Some(hedge) = &self.hedge {
            calls = calls.hedge(hedge.build()?);
        }
        if let Some(limits) = &self.limits {
            let limits = limits.build();
            calls = calls.limits(limits.map_err(|error| error.within("calls.limits"))?);
        }
        calls = match &self.adaptive_limit {
            None => calls,
            Some(AdaptiveConfig::Gradient2(limit)) => calls.adaptive_limit(limit.build()?),
            Some(AdaptiveConfig::Aimd(limit)) => calls.adaptive_limit(limit.build()?),
        };
        if let Some(throttle) = &self.throttle {
            calls = calls.throttle(throttle.build()?);
        }
        self.observe.add_to(calls)
    }
}

fn positive(path: &str, time: Option<Duration>) -> Result<Option<Duration>, Error> {
    if time.is_some_and(|time| time.is_zero()) {
        let reason = "no call is answered in no time; `false` switches it off";
        return Err(Error::config(path, reason));
    }
    Ok(time)
}

/// How outcomes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClassifyConfig {
    /// [`HttpStatus`](crate::client::HttpStatus).
    #[default]
    Http,
    /// [`GrpcStatus`].
    Grpc,
}

/// One place of a [`RequestKey`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyConfig {
    /// A header's value.
    pub header: Option<String>,
    /// A cookie's value.
    pub cookie: Option<String>,
    /// A query parameter's value.
    pub query: Option<String>,
    /// The path.
    pub path: bool,
    /// The address of whom the request comes from.
    pub source: bool,
    /// No place after this one is looked at if there is a key by now.
    pub terminal: bool,
}

impl KeyConfig {
    fn build(&self, path: &str) -> Result<RequestKey, Error> {
        let named = |key: Result<RequestKey, Error>| key.map_err(|error| error.within(path));
        let mut places = Vec::new();
        if let Some(name) = &self.header {
            places.push(named(RequestKey::header(name))?);
        }
        if let Some(name) = &self.cookie {
            places.push(named(RequestKey::cookie(name))?);
        }
        if let Some(name) = &self.query {
            places.push(named(RequestKey::query(name))?);
        }
        places.extend(self.path.then(RequestKey::path));
        places.extend(self.source.then(RequestKey::source));
        match (places.pop(), places.is_empty()) {
            (Some(place), true) if self.terminal => Ok(place.terminal()),
            (Some(place), true) => Ok(place),
            _ => {
                let reason = "it is one place: one of `header`, `cookie`, `query`, `path = true` \
                              and `source = true`; write several as several entries";
                Err(Error::config(path, reason))
            }
        }
    }
}

fn request_key(places: &[KeyConfig]) -> Result<Option<RequestKey>, Error> {
    let mut key: Option<RequestKey> = None;
    for (at, place) in places.iter().enumerate() {
        let next = place.build(&format!("calls.key.{at}"))?;
        key = Some(match key {
            Some(key) => key.and(next),
            None => next,
        });
    }
    Ok(key)
}

/// A header whose value is the metadata of the endpoints that a call names: see
/// [`RequestSubset`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubsetConfig {
    /// The header's name.
    pub header: String,
    /// The metadata's key.
    pub metadata: String,
}

fn request_subset(headers: &[SubsetConfig]) -> Result<Option<RequestSubset>, Error> {
    let mut subset: Option<RequestSubset> = None;
    for (at, SubsetConfig { header, metadata }) in headers.iter().enumerate() {
        let path = format!("calls.subset.{at}");
        if metadata.is_empty() {
            let reason = "it is empty; name the key of the endpoints' metadata";
            return Err(Error::config(format!("{path}.metadata"), reason));
        }
        let next = RequestSubset::header(header, metadata);
        let next = next.map_err(|error| error.within(&path))?;
        subset = Some(match subset {
            Some(subset) => subset.and(&next),
            None => next,
        });
    }
    Ok(subset)
}

/// [`Sticky`], by a cookie or by a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StickyConfig {
    /// By a cookie.
    Cookie(StickyCookieConfig),
    /// By the header of that name.
    Header(StickyHeaderConfig),
}

/// Of sessions by a cookie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyCookieConfig {
    /// The cookie's name.
    pub name: String,
    /// The paths that it is for; those below the request's own if not set.
    pub path: Option<String>,
    /// How long it is kept; as long as its keeper's session if not set.
    #[serde(with = "time::option")]
    pub lasts: Option<Duration>,
}

/// Of sessions by a header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyHeaderConfig {
    /// The header's name.
    pub name: String,
}

impl StickyConfig {
    fn build(&self) -> Result<Sticky, Error> {
        match self {
            Self::Header(header) => Sticky::header(&header.name),
            Self::Cookie(StickyCookieConfig { name, path, lasts }) => {
                let mut sticky = Sticky::cookie(name)?;
                if let Some(path) = path {
                    sticky = sticky.path(path)?;
                }
                Ok(match lasts {
                    Some(lasts) => sticky.lasts(*lasts),
                    None => sticky,
                })
            }
        }
    }
}

/// An [`AddressPolicy`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressConfig {
    /// Whether loopback addresses may be called.
    pub loopback: bool,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { loopback: true }
    }
}

impl AddressConfig {
    pub(super) fn build(&self) -> AddressPolicy {
        let policy = AddressPolicy::default();
        if self.loopback {
            policy
        } else {
            policy.without_loopback()
        }
    }
}

/// [`Limits`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Calls in flight at once.
    pub in_flight: u32,
    /// Calls that may wait for one of them to end.
    pub pending: u32,
    /// Retries under way at once.
    pub retries: Option<u32>,
    /// Calls in flight at one endpoint.
    pub per_endpoint: Option<u32>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            in_flight: 1_024,
            pending: 1_024,
            retries: None,
            per_endpoint: None,
        }
    }
}

impl LimitsConfig {
    fn build(&self) -> Result<Limits, Error> {
        let mut limits = Limits::default()
            .in_flight(self.in_flight)?
            .pending(self.pending);
        if let Some(retries) = self.retries {
            limits = limits.retries(retries);
        }
        match self.per_endpoint {
            Some(calls) => limits.per_endpoint(calls),
            None => Ok(limits),
        }
    }
}

/// How a limit on calls in flight learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdaptiveConfig {
    /// [`Gradient2`].
    Gradient2(Gradient2Config),
    /// [`Aimd`].
    Aimd(AimdConfig),
}

/// A [`Gradient2`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gradient2Config {
    /// The least limit.
    pub min: u32,
    /// The largest.
    pub max: u32,
}

/// An [`Aimd`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AimdConfig {
    /// The least limit.
    pub min: u32,
    /// The largest.
    pub max: u32,
    /// What takes longer counts as dropped.
    #[serde(with = "time")]
    pub timeout: Duration,
}

/// The bounds of Netflix's concurrency-limits.
const BOUNDS: (u32, u32) = (20, 200);

impl Default for Gradient2Config {
    fn default() -> Self {
        let (min, max) = BOUNDS;
        Self { min, max }
    }
}

impl Default for AimdConfig {
    fn default() -> Self {
        let (min, max) = BOUNDS;
        Self {
            min,
            max,
            timeout: Duration::from_secs(5),
        }
    }
}

impl Gradient2Config {
    fn build(&self) -> Result<Gradient2, Error> {
        ordered("calls.adaptive_limit.gradient2", self.min, self.max)?;
        Ok(Gradient2::within(self.min, self.max))
    }
}

impl AimdConfig {
    fn build(&self) -> Result<Aimd, Error> {
        ordered("calls.adaptive_limit.aimd", self.min, self.max)?;
        Ok(Aimd::within(self.min, self.max, self.timeout))
    }
}

fn ordered(path: &str, min: u32, max: u32) -> Result<(), Error> {
    if min >= 1 && max >= min {
        return Ok(());
    }
    let reason = format!("`{min}` is refused: it is at least 1, and at most `max`, which is {max}");
    Err(Error::config(format!("{path}.min"), reason))
}

/// A [`Throttle`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleConfig {
    /// How many calls may be sent for each that is accepted.
    pub k: f64,
    /// Over how long it counts.
    #[serde(with = "time")]
    pub window: Duration,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            k: 2.0,
            window: Duration::from_mins(2),
        }
    }
}

impl ThrottleConfig {
    fn build(&self) -> Result<Throttle, Error> {
        let throttle = Throttle::at(self.k).map_err(|error| error.within("calls.throttle"))?;
        let window = between("calls.throttle.window", self.window, 1, 3_600)?;
        Ok(throttle.window(window))
    }
}
