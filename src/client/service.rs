//! What all calls to one service share, and who is called by which URI.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use http::uri::Authority;
use tokio::time::Instant;

use super::door::{Admission, Door, Permit, Retrying};
use super::endpoints::PerEndpoint;
use super::{Adaptive, CallSettings, Directory};
use crate::balancer::Balancer;
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::resilience::{Hedge, Hedging, RetryTokens, Throttle, ThrottleState};
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::time::Timestamp;

/// The services that calls go to: one, or those that the URLs' hosts name.
#[derive(Debug)]
pub(super) struct Services {
    target: Target,
    pub(super) settings: CallSettings,
    beginning: Instant,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    One(Balancer),
    Any(Directory),
}

impl From<Balancer> for Target {
    fn from(balancer: Balancer) -> Self {
        Self::One(balancer)
    }
}

impl From<Directory> for Target {
    fn from(directory: Directory) -> Self {
        Self::Any(directory)
    }
}

/// The states of the services that were called, by name.
#[derive(Debug)]
pub(super) struct States<X> {
    one: OnceLock<Arc<State<X>>>,
    any: ArcSwap<HashMap<ServiceName, Arc<State<X>>>>,
    writing: Mutex<()>,
}

/// What the calls to one service share; `X` is what a client keeps for each
/// endpoint.
#[derive(Debug)]
pub(super) struct State<X> {
    pub(super) tokens: RetryTokens,
    pub(super) hedging: Option<Hedging>,
    throttle: Option<ThrottleState>,
    door: Option<Arc<Door>>,
    seed: AtomicU64,
    pub(super) endpoints: PerEndpoint<X>,
}

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Service<'a, X> {
    pub(super) balancer: Cow<'a, Balancer>,
    pub(super) state: Cow<'a, Arc<State<X>>>,
}

impl Services {
    pub(super) fn new(target: Target, settings: CallSettings) -> Self {
        Self {
            target,
            settings,
            beginning: Instant::now(),
        }
    }

    /// The runtime's clock, so that what a test pauses stands still.
    pub(super) fn now(&self) -> Timestamp {
        let nanos = self.beginning.elapsed().as_nanos();
        // 1 and not 0, which some machines take for never.
        Timestamp::from_nanos(nanos as u64 + 1)
    }

    /// The service that the URI names; none when it is none of ours and the
    /// call passes as it is.
    pub(super) fn find<'a, X: Clone + Send + Sync + 'static>(
        &'a self,
        states: &'a States<X>,
        uri: &Uri,
    ) -> Result<Option<Service<'a, X>>, Error> {
        let Some(authority) = uri.authority() else {
            let reason = "its URI has no host to name the service, such as `http://users/`";
            return Err(Error::unroutable(shown(uri), reason));
        };
        if let Target::One(balancer) = &self.target
            && authority.as_str() == balancer.service().as_str()
        {
            // The host and nothing else, as most write it: nothing to take apart.
            return Ok(Some(self.only(states, balancer)));
        }
        let host = authority.host();
        match &self.target {
            Target::One(balancer) => {
                let ours = balancer.service().as_str().eq_ignore_ascii_case(host);
                Ok(ours.then(|| self.only(states, balancer)))
            }
            Target::Any(_) if is_ip(host) => Ok(None),
            Target::Any(directory) => {
                let name = ServiceName::new(host)?;
                let balancer = directory.balancer(&name)?;
                let state = states.of(name, directory, &self.settings);
                Ok(Some(Service {
                    balancer: Cow::Owned(balancer),
                    state: Cow::Owned(state),
                }))
            }
        }
    }

    /// As [`Services::find`], for clients that know no way but to the service:
    /// where there is but one, it gets every call.
    pub(super) fn find_any_host<'a, X: Clone + Send + Sync + 'static>(
        &'a self,
        states: &'a States<X>,
        uri: &Uri,
    ) -> Result<Service<'a, X>, Error> {
        if let Target::One(balancer) = &self.target {
            return Ok(self.only(states, balancer));
        }
        self.find(states, uri)?.ok_or_else(|| {
            let reason = "its host is an IP address, and only names are services";
            Error::unroutable(shown(uri), reason)
        })
    }

    fn only<'a, X: Clone + Send + Sync + 'static>(
        &self,
        states: &'a States<X>,
        balancer: &'a Balancer,
    ) -> Service<'a, X> {
        let new = || Arc::new(State::new(&self.settings));
        Service {
            balancer: Cow::Borrowed(balancer),
            state: Cow::Borrowed(states.one.get_or_init(new)),
        }
    }
}

impl<X: Clone + Send + Sync + 'static> States<X> {
    pub(super) fn new() -> Self {
        Self {
            one: OnceLock::new(),
            any: ArcSwap::default(),
            writing: Mutex::new(()),
        }
    }

    fn of(
        &self,
        name: ServiceName,
        directory: &Directory,
        settings: &CallSettings,
    ) -> Arc<State<X>> {
        if let Some(state) = self.any.load().get(&name) {
            return Arc::clone(state);
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = HashMap::clone(&self.any.load());
        // What the directory has dropped is dropped here when it counts: as
        // something new comes.
        let served = directory.services();
        states.retain(|name, _| served.contains(name));
        let new = || Arc::new(State::new(settings));
        let state = Arc::clone(states.entry(name).or_insert_with(new));
        self.any.store(Arc::new(states));
        state
    }
}

impl<X: Clone + Send + Sync + 'static> State<X> {
    fn new(settings: &CallSettings) -> Self {
        let bounded = settings.limits.is_some() || settings.adaptive.is_some();
        Self {
            tokens: settings.retry.start_budget(),
            hedging: settings.hedge.map(Hedge::start),
            throttle: settings.throttle.map(Throttle::start),
            door: bounded.then(|| {
                let limits = settings.limits.unwrap_or_default();
                Door::new(limits, settings.adaptive.map(Adaptive::start))
            }),
            seed: AtomicU64::new(Rng::from_entropy().bits()),
            endpoints: PerEndpoint::new(),
        }
    }

    /// Lets a call in, lets it wait, or refuses it.
    pub(super) fn admit(
        &self,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Admission<impl Future<Output = Permit> + use<X>>, Error> {
        if let Some(throttle) = &self.throttle
            && !throttle.admit(now, &mut self.rng())
        {
            let reason = "it rejects most of its calls (client-side throttling)";
            return Err(Error::overloaded(service.shared(), reason));
        }
        let Some(door) = &self.door else {
            return Ok(Admission::In(Permit::FREE));
        };
        door.admit().ok_or_else(|| {
            let reason = "as many calls as its limits allow are in flight and pending";
            Error::overloaded(service.shared(), reason)
        })
    }

    pub(super) fn throttles(&self) -> bool {
        self.throttle.is_some()
    }

    /// Whether it goes by how attempts end, and how long they take.
    pub(super) fn learns(&self) -> bool {
        self.throttle.is_some() || self.hedging.is_some() || self.door.is_some()
    }

    /// A retry, if the limits have room for it.
    pub(super) fn begin_retry(&self) -> Option<Retrying<'_>> {
        match &self.door {
            None => Some(Retrying::FREE),
            Some(door) => door.begin_retry(),
        }
    }

    /// A generator of its own for each call; the step is 2^64 by the golden
    /// ratio, which wyrand's mixing takes apart.
    pub(super) fn rng(&self) -> Rng {
        Rng::seeded(
            self.seed
                .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed),
        )
    }

    /// An attempt ended; what it tells of the service.
    pub(super) fn learn(&self, outcome: Outcome, took: Duration, now: Timestamp) {
        if let Some(throttle) = &self.throttle
            && !outcome.is_failure()
            && outcome != Outcome::Cancelled
        {
            throttle.accepted(now);
        }
        if let Some(hedging) = &self.hedging
            && outcome == Outcome::Success
        {
            hedging.answered(took, now);
        }
        if let Some(door) = &self.door {
            door.learn(outcome, took);
        }
    }
}

fn is_ip(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
}

/// A URI as errors have it: without its user and its query, which may be secrets.
pub(super) fn shown(uri: &Uri) -> String {
    match (uri.scheme_str(), uri.host()) {
        (Some(scheme), Some(host)) => format!("{scheme}://{host}{}", uri.path()),
        (_, host) => format!("{}{}", host.unwrap_or_default(), uri.path()),
    }
}

/// The authority to call an endpoint at.
pub(super) fn authority_of(endpoint: &Endpoint) -> Result<Authority, Error> {
    let address = endpoint.address();
    if address.host().is_none() {
        let reason = "it is a Unix socket, which a URI cannot name";
        return Err(Error::unroutable(endpoint, reason));
    }
    Authority::try_from(address.as_str()).map_err(|error| Error::unroutable(endpoint, error))
}

/// The `Host` that a call carries: the one its endpoint asks for, else what the
/// caller wrote in the URI.
pub(super) fn logical_host<'a>(endpoint: &'a Endpoint, uri: &'a Uri) -> Option<&'a str> {
    endpoint.authority().or_else(|| {
        let text = uri.authority()?.as_str();
        Some(text.rsplit_once('@').map_or(text, |(_, host)| host))
    })
}
