//! One call from its first attempt to the answer that is handed on.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use http::{HeaderMap, StatusCode};
use tokio::time::Sleep;

use super::http::RequestHead;
use super::service::{Permit, Retrying, Service, Services};
use super::{Answered, CallSettings, Classify};
use crate::balancer::DetachedPick;
use crate::endpoint::{AddressPolicy, Endpoint};
use crate::error::Error;
use crate::event::{CallEvent, CallScope, Observer};
use crate::load::LoadReport;
use crate::resilience::{Deadline, Ended, Limits, Pushback, Retry};
use crate::stats::Outcome;
use crate::strategy::{PickOptions, Tried};
use crate::time::Timestamp;
use crate::topology::Selector;

/// A client, as far as a call has to know it.
pub(super) trait Transport<X>: Sync {
    type Request: Send;
    type Answer: Send;
    type Error: Send;

    /// Sends a request to an endpoint. An error that is ours says that nothing
    /// was sent.
    fn send(
        &self,
        request: Self::Request,
        service: &Service<X>,
        endpoint: &Arc<Endpoint>,
    ) -> impl Future<Output = Result<Self::Answer, SendError<Self::Error>>> + Send;

    /// The request once more, if it can be sent again.
    fn again(&self) -> Option<Self::Request>;

    /// The head of an answer.
    fn head(answer: &Self::Answer) -> (StatusCode, &HeaderMap);

    /// How a call ended, from the client's own error.
    fn outcome(&self, error: &Self::Error, classify: &dyn Classify) -> Outcome;

    /// An error of ours in the client's terms.
    fn ours(error: Error) -> Self::Error;
}

pub(super) enum SendError<E> {
    /// The endpoint cannot be called by this client.
    Unroutable(Error),
    Client(E),
}

/// An answer that is handed on.
pub(super) struct Done<A> {
    pub(super) answer: A,
    pub(super) held: Held,
}

/// What an answer's body holds until it ends.
pub(super) struct Held {
    pub(super) pick: DetachedPick,
    /// If the body ends as it should.
    pub(super) outcome: Outcome,
    pub(super) classify: Arc<dyn Classify>,
    pub(super) overdue: Option<Overdue>,
    _permit: Permit,
}

/// The end of a call that has one.
pub(super) struct Overdue {
    pub(super) sleep: Pin<Box<Sleep>>,
    pub(super) error: Error,
}

/// What a request tells of its call.
pub(super) struct Asked {
    idempotent: bool,
    hash: Option<u64>,
    subset: Option<Selector>,
    scope: Option<Box<dyn CallScope>>,
}

impl Asked {
    pub(super) fn by<X>(
        head: &RequestHead<'_>,
        settings: &CallSettings,
        service: &Service<X>,
    ) -> Self {
        let key = settings.key.as_ref();
        let told = head.extensions.get::<Selector>().cloned();
        let subset = settings.subset.as_ref();
        let name = service.balancer.service();
        let scope = |observer: &Arc<dyn Observer>| observer.scope(name, head.method.as_str());
        Self {
            idempotent: head.method.is_idempotent(),
            hash: key.and_then(|key| key.hash_of(head)),
            subset: told.or_else(|| subset?.of(head)),
            scope: settings.observer.as_ref().and_then(scope),
        }
    }
}

/// Hands on what the server says of its load, if the strategy asks. What cannot be read says
/// nothing: a call shall not fail for it.
pub(super) fn read_report(pick: &DetachedPick, headers: &HeaderMap) {
    if pick.wants_report()
        && let Ok(Some(report)) = LoadReport::of(headers)
    {
        pick.report(&report);
    }
}

struct Call<'a, X, T> {
    services: &'a Services,
    service: &'a Service<X>,
    transport: &'a T,
    asked: Asked,
    deadline: Deadline,
}

/// How one attempt ended, while it is not yet counted.
struct Attempt<A, E> {
    pick: DetachedPick,
    result: Result<A, E>,
    ended: Ended,
}

/// What another attempt needs.
struct Again<'a, R> {
    request: R,
    pick: DetachedPick,
    retrying: Option<Retrying<'a>>,
}

/// Sends a request to picked endpoints, until it is answered or may not be sent
/// again.
pub(super) async fn run<X, T>(
    services: &Services,
    service: &Service<X>,
    transport: &T,
    request: T::Request,
    asked: Asked,
) -> Result<Done<T::Answer>, T::Error>
where
    X: Clone + Send + Sync + 'static,
    T: Transport<X>,
{
    let now = services.now();
    let call = Call {
        services,
        service,
        transport,
        asked,
        deadline: Deadline::of(now, services.settings.timeout),
    };
    let mut running = pin!(call.run(request, now));
    let Some(scope) = &call.asked.scope else {
        return running.await;
    };
    poll_fn(|context| {
        let mut polled = Poll::Pending;
        scope.within(&mut || polled = running.as_mut().poll(context));
        polled
    })
    .await
}

impl<X, T> Call<'_, X, T>
where
    X: Clone + Send + Sync + 'static,
    T: Transport<X>,
{
    async fn run(&self, request: T::Request, now: Timestamp) -> Result<Done<T::Answer>, T::Error> {
        let permit = self
            .within(self.service.state.admit(self.name(), now))
            .await;
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            Ok(Err(error)) | Err(error) => return Err(self.refuse(error)),
        };
        self.service.state.tokens.asked(now);
        let mut tried = Tried::new();
        let mut attempts = 1;
        let mut pick = match self.first_pick(&mut tried).await {
            Ok(pick) => pick,
            Err(error) => return Err(self.refuse(error)),
        };
        let mut request = request;
        let mut _retrying = None;
        loop {
            let attempt = self.attempt(request, pick, &mut attempts, &mut tried).await;
            let Attempt {
                pick: over,
                result,
                ended,
            } = attempt;
            if !ended.outcome.is_not_sent() {
                let well = !ended.outcome.is_failure();
                self.service.state.tokens.ended(well);
            }
            match self.prepare_again(&ended, &mut tried).await {
                Some(again) => {
                    over.finish(ended.outcome);
                    attempts += 1;
                    (request, pick) = (again.request, again.pick);
                    // The retry before this one is over.
                    _retrying = again.retrying;
                }
                None => {
                    let outcome = ended.outcome;
                    self.tell_done(over.endpoint(), attempts, outcome, now);
                    return match result {
                        Ok(answer) => Ok(Done {
                            answer,
                            held: self.hold(over, outcome, permit),
                        }),
                        Err(error) => {
                            over.finish(outcome);
                            Err(error)
                        }
                    };
                }
            }
        }
    }

    fn hold(&self, pick: DetachedPick, outcome: Outcome, permit: Permit) -> Held {
        let left = self.deadline.left(self.services.now());
        Held {
            pick,
            outcome,
            classify: Arc::clone(&self.services.settings.classify),
            overdue: left.map(|left| Overdue {
                sleep: Box::pin(tokio::time::sleep(left)),
                error: self.timed_out(left),
            }),
            _permit: permit,
        }
    }

    /// What another attempt needs, after the pause that it takes; none when
    /// there shall be none.
    async fn prepare_again(
        &self,
        ended: &Ended,
        tried: &mut Tried,
    ) -> Option<Again<'_, T::Request>> {
        let well = ended.status.is_some_and(|status| status < 400);
        if well && ended.grpc.is_none_or(|code| code == 0) {
            return None;
        }
        let (settings, state) = (&self.services.settings, &self.service.state);
        let pause = settings.retry.decide(ended, &mut state.rng())?;
        let now = self.services.now();
        if !self.deadline.leaves(now, pause) || !self.has_untried(tried) {
            return None;
        }
        let request = self.transport.again()?;
        let retrying = state.begin_retry()?;
        if Retry::is_charged(ended) && !state.tokens.try_retry(now) {
            self.tell(CallEvent::RetryRefused);
            return None;
        }
        let attempt = ended.attempts + 1;
        self.tell(CallEvent::Retried { attempt, pause });
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let pick = self.pick(tried).ok()?;
        Some(Again {
            request,
            pick,
            retrying: Some(retrying),
        })
    }

    /// Whether there is an endpoint left, so that nobody pauses in vain.
    fn has_untried(&self, tried: &Tried) -> bool {
        let nodes = self.service.balancer.nodes();
        let mut open = nodes.iter().filter(|node| node.endpoint().takes_calls());
        open.any(|node| !tried.contains(node.key()))
    }

    /// One attempt, and a second one beside it if the first is late.
    async fn attempt(
        &self,
        request: T::Request,
        pick: DetachedPick,
        attempts: &mut u32,
        tried: &mut Tried,
    ) -> Attempt<T::Answer, T::Error> {
        match self.hedge_after(*attempts) {
            None => self.send(request, pick, *attempts).await,
            // Apart, so that a call that is not hedged, which is copied to the
            // heap as a whole, has no room for three attempts.
            Some(delay) => Box::pin(self.race(request, pick, attempts, tried, delay)).await,
        }
    }

    async fn race(
        &self,
        request: T::Request,
        pick: DetachedPick,
        attempts: &mut u32,
        tried: &mut Tried,
        delay: Duration,
    ) -> Attempt<T::Answer, T::Error> {
        let mut first = pin!(self.send(request, pick, *attempts));
        if let Ok(attempt) = tokio::time::timeout(delay, first.as_mut()).await {
            return attempt;
        }
        let Some((request, pick)) = self.hedge(tried, delay) else {
            return first.await;
        };
        *attempts += 1;
        let second = pin!(self.send(request, pick, *attempts));
        let (ended, other) = match select(first, second).await {
            Either::Left((attempt, other)) | Either::Right((attempt, other)) => (attempt, other),
        };
        // The loser is dropped, which counts it as cancelled; unless the one
        // that came first came to nothing.
        if ended.ended.outcome.is_failure() {
            ended.pick.finish(ended.ended.outcome);
            return other.await;
        }
        ended
    }

    fn hedge_after(&self, attempts: u32) -> Option<Duration> {
        let hedging = self.service.state.hedging.as_ref()?;
        let retry = &self.services.settings.retry;
        let may = attempts == 1 && retry.may_repeat(self.asked.idempotent);
        may.then(|| hedging.asked(self.services.now())).flatten()
    }

    fn hedge(&self, tried: &mut Tried, after: Duration) -> Option<(T::Request, DetachedPick)> {
        let hedging = self.service.state.hedging.as_ref()?;
        let request = self.transport.again()?;
        let pick = self.pick(tried).ok()?;
        if !hedging.try_hedge(self.services.now()) {
            return None;
        }
        self.tell(CallEvent::Hedged { after });
        Some((request, pick))
    }

    async fn send(
        &self,
        request: T::Request,
        pick: DetachedPick,
        attempts: u32,
    ) -> Attempt<T::Answer, T::Error> {
        let (settings, endpoint) = (&self.services.settings, pick.endpoint());
        self.tell(CallEvent::Picked {
            endpoint,
            attempt: attempts,
        });
        let began = self.services.now();
        let sent = self.transmit(request, endpoint, began).await;
        let mut ended = Ended {
            outcome: Outcome::NotSent,
            status: None,
            grpc: None,
            pushback: Pushback::None,
            idempotent: self.asked.idempotent,
            attempts,
        };
        let result = match sent {
            Ok(answer) => {
                let (status, headers) = T::head(&answer);
                read_report(&pick, headers);
                let Answered {
                    outcome,
                    grpc,
                    pushback,
                } = settings.classify.answer(status, headers);
                (ended.outcome, ended.grpc, ended.pushback) = (outcome, grpc, pushback);
                ended.status = Some(status.as_u16());
                Ok(answer)
            }
            // Another endpoint may be one that can be called.
            Err(SendError::Unroutable(error)) => Err(T::ours(error)),
            Err(SendError::Client(error)) => {
                ended.outcome = self.transport.outcome(&error, &*settings.classify);
                Err(error)
            }
        };
        let now = self.services.now();
        let (outcome, took) = (ended.outcome, now.since(began));
        self.service.state.learn(outcome, took, now);
        self.tell(CallEvent::Ended {
            endpoint: pick.endpoint(),
            outcome,
            took,
        });
        Attempt {
            pick,
            result,
            ended,
        }
    }

    async fn transmit(
        &self,
        request: T::Request,
        endpoint: &Arc<Endpoint>,
        began: Timestamp,
    ) -> Result<T::Answer, SendError<T::Error>> {
        let settings = &self.services.settings;
        let refuses = |policy: AddressPolicy| !policy.allows(endpoint.address());
        if settings.addresses.is_some_and(refuses) {
            let reason = "the address policy refuses its address";
            return Err(SendError::Unroutable(Error::unroutable(
                &**endpoint,
                reason,
            )));
        }
        let sending = self.transport.send(request, self.service, endpoint);
        let Some(within) = self.deadline.attempt(began, settings.per_try) else {
            return sending.await;
        };
        match tokio::time::timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(SendError::Client(T::ours(self.given_up(within)))),
        }
    }

    /// The first endpoint, for which the registry may have to be waited for.
    async fn first_pick(&self, tried: &mut Tried) -> Result<DetachedPick, Error> {
        match self.pick(tried) {
            Err(error) if error.is_not_known_yet() => {
                let ready = self.service.balancer.ready(self.services.settings.wait);
                self.within(ready).await??;
                self.pick(tried)
            }
            picked => picked,
        }
    }

    /// An endpoint that was not tried and has room. The guard is detached: a
    /// call lasts, and shall not hold on to a whole set.
    fn pick(&self, tried: &mut Tried) -> Result<DetachedPick, Error> {
        let limits = self.services.settings.limits;
        let most = limits.map_or(u32::MAX, Limits::of_one_endpoint);
        let mut full = false;
        loop {
            let mut options = PickOptions::new().tried(tried);
            if let Some(hash) = self.asked.hash {
                options = options.hash(hash);
            }
            if let Some(subset) = &self.asked.subset {
                options = options.subset(subset);
            }
            let pick = match self.service.balancer.pick_with(&options) {
                Err(_) if full => {
                    let reason = "every endpoint has as many calls in flight as its limit allows";
                    return Err(Error::overloaded(self.name().shared(), reason));
                }
                picked => picked?,
            };
            tried.insert(pick.key());
            // Its own call is counted already.
            if most == u32::MAX || pick.stats().in_flight() <= most {
                return Ok(pick.detach());
            }
            full = true;
        }
    }

    /// Bounded by what is left of the call.
    async fn within<F: Future>(&self, waiting: F) -> Result<F::Output, Error> {
        match self.deadline.left(self.services.now()) {
            None => Ok(waiting.await),
            Some(left) => tokio::time::timeout(left, waiting)
                .await
                .map_err(|_| self.timed_out(left)),
        }
    }

    /// Of an attempt.
    fn given_up(&self, within: Duration) -> Error {
        if self.services.settings.per_try == Some(within) {
            return Error::timed_out(self.name().shared(), "per-try timeout", within);
        }
        self.timed_out(within)
    }

    /// Of the call.
    fn timed_out(&self, left: Duration) -> Error {
        let timeout = self.services.settings.timeout.unwrap_or(left);
        Error::timed_out(self.name().shared(), "timeout", timeout)
    }

    fn refuse(&self, error: Error) -> T::Error {
        self.tell(CallEvent::Refused { error: &error });
        T::ours(error)
    }

    fn tell_done(&self, endpoint: &Endpoint, attempts: u32, outcome: Outcome, began: Timestamp) {
        if self.services.settings.observer.is_some() {
            let took = self.services.now().since(began);
            self.tell(CallEvent::Done {
                endpoint,
                attempts,
                outcome,
                took,
            });
        }
    }

    fn tell(&self, event: CallEvent<'_>) {
        if let Some(observer) = &self.services.settings.observer {
            observer.call(self.name(), event);
            if let Some(scope) = &self.asked.scope {
                scope.told(event);
            }
        }
    }

    fn name(&self) -> &crate::endpoint::ServiceName {
        self.service.balancer.service()
    }
}
