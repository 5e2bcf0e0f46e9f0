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
use tokio::sync::Notify;
use tokio::time::Instant;

use super::endpoints::PerEndpoint;
use super::{Adaptive, CallSettings, Directory};
use crate::balancer::Balancer;
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::resilience::{
    AdaptiveLimit, Entry, Gate, Hedge, Hedging, LimitSample, RetryTokens, Throttle, ThrottleState,
};
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
    gate: Option<Arc<Door>>,
    seed: AtomicU64,
    pub(super) endpoints: PerEndpoint<X>,
}

/// A gate and those who wait at it.
#[derive(Debug)]
struct Door {
    gate: Gate,
    adaptive: Option<AdaptiveLimit>,
    left: Notify,
}

/// One call in flight; it leaves when dropped.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<Door>>);

/// One retry under way; it ends when dropped.
pub(super) struct Retrying<'a>(Option<&'a Door>);

/// A place among those that wait; given up when dropped.
struct Waiting(Option<Arc<Door>>);

/// How a call is received.
pub(super) enum Admission<W> {
    In(Permit),
    /// It waits until that ends.
    Pending(W),
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
            gate: bounded.then(|| {
                Arc::new(Door {
                    gate: Gate::new(settings.limits.unwrap_or_default()),
                    adaptive: settings.adaptive.map(Adaptive::start),
                    left: Notify::new(),
                })
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
    ) -> Result<Admission<impl Future<Output = Result<Permit, Error>>>, Error> {
        if let Some(throttle) = &self.throttle
            && !throttle.admit(now, &mut self.rng())
        {
            let reason = "it rejects most of its calls (client-side throttling)";
            return Err(Error::overloaded(service.shared(), reason));
        }
        let Some(door) = &self.gate else {
            return Ok(Admission::In(Permit(None)));
        };
        match door.gate.enter(door.adaptive_limit()) {
            Entry::In => Ok(Admission::In(Permit(Some(Arc::clone(door))))),
            Entry::Pending => Ok(Admission::Pending(door.wait())),
            Entry::Refused => {
                let reason = "as many calls as its limits allow are in flight and pending";
                Err(Error::overloaded(service.shared(), reason))
            }
        }
    }

    pub(super) fn throttles(&self) -> bool {
        self.throttle.is_some()
    }

    /// Whether it goes by how attempts end, and how long they take.
    pub(super) fn learns(&self) -> bool {
        self.throttle.is_some() || self.hedging.is_some() || self.gate.is_some()
    }

    /// A retry, if the limits have room for it.
    pub(super) fn begin_retry(&self) -> Option<Retrying<'_>> {
        match &self.gate {
            None => Some(Retrying(None)),
            // Made only if there is room: to drop it ends a retry.
            Some(door) => door.gate.try_retry().then(|| Retrying(Some(door))),
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
        let rejected = outcome.is_failure();
        if let Some(throttle) = &self.throttle
            && !rejected
        {
            throttle.accepted(now);
        }
        if let Some(hedging) = &self.hedging
            && outcome == Outcome::Success
        {
            hedging.answered(took, now);
        }
        if let Some(door) = &self.gate
            && let Some(adaptive) = &door.adaptive
            && outcome != Outcome::Cancelled
        {
            adaptive.sample(LimitSample {
                latency: took,
                in_flight: door.gate.calls(),
                dropped: rejected,
            });
        }
    }
}

impl Door {
    /// For a place to be free. The place among those that wait was taken
    /// before, and is given up when this is dropped, even if it never ran.
    fn wait(self: &Arc<Self>) -> impl Future<Output = Result<Permit, Error>> + use<> {
        let mut waiting = Waiting(Some(Arc::clone(self)));
        async move {
            while let Some(door) = &waiting.0 {
                let left = door.left.notified();
                if door.gate.enter_pending(door.adaptive_limit()) {
                    break;
                }
                left.await;
            }
            Ok(Permit(waiting.0.take()))
        }
    }

    fn adaptive_limit(&self) -> Option<u32> {
        self.adaptive.as_ref().map(AdaptiveLimit::get)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(door) = &self.0 {
            door.gate.give_up();
            // It may have been this one's turn.
            door.left.notify_one();
        }
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        if let Some(door) = self.0 {
            door.gate.retried();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(door) = &self.0 {
            door.gate.leave();
            door.left.notify_one();
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
