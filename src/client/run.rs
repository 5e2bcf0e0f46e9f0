//! One call from its first attempt to the answer that is handed on.

#![expect(
    clippy::manual_async_fn,
    reason = "the future of an `async fn` has room for each argument twice"
)]

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use http::HeaderMap;
use tokio::time::Sleep;

use super::Answered;
use super::asked::Asked;
use super::door::{Admission, Permit, Retrying};
use super::exchange::{Exchange, Held, Overdue, SendError, Transport};
use super::service::{Service, Services};
use crate::balancer::DetachedPick;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::event::CallEvent;
use crate::load::LoadReport;
use crate::resilience::{Deadline, Ended, Limits, Pushback, Retry};
use crate::stats::Outcome;
use crate::strategy::Tried;
use crate::time::Timestamp;

/// Hands on what the server says of its load, if the strategy asks. What cannot be read says
/// nothing: a call shall not fail for it.
pub(super) fn read_report(pick: &DetachedPick, headers: &HeaderMap) {
    if pick.wants_report()
        && let Ok(Some(report)) = LoadReport::of(headers)
    {
        pick.report(&report);
    }
}

/// Leaves an endpoint alone that asks for it along with an error, or with 429, which is no fault of
/// its own. Other answers speak of what was asked for: a redirect, a resource that is being made.
fn heed(pick: &DetachedPick, ended: &Ended) {
    if let Pushback::After(wait) = ended.pushback
        && (ended.outcome.is_failure() || ended.status == Some(429))
    {
        pick.push_back(wait);
    }
}

/// One call.
pub(super) struct Call<'a, X, T> {
    services: &'a Services,
    service: &'a Service<'a, X>,
    transport: &'a T,
    asked: Asked,
    start: Timestamp,
    deadline: Deadline,
    /// Of the request itself, which its client keeps in each attempt.
    own: Deadline,
}

/// Of a transport.
type ExchangeOf<T, X> = Exchange<<T as Transport<X>>::Request, <T as Transport<X>>::Answer>;

/// An attempt that may have another beside it, with what each has of its own.
struct Raced<X, E> {
    exchange: X,
    pick: DetachedPick,
    ended: Ended,
    result: Result<(), E>,
}

/// What another attempt needs.
struct Again<'a, R> {
    /// Apart, so that a call that goes well has no room for it.
    request: Box<R>,
    /// Before it begins.
    pause: Option<Pin<Box<Sleep>>>,
    retrying: Retrying<'a>,
}

impl<'a, X, T> Call<'a, X, T>
where
    X: Clone + Send + Sync + 'static,
    T: Transport<X>,
{
    pub(super) fn new(
        services: &'a Services,
        service: &'a Service<'a, X>,
        transport: &'a T,
        asked: Asked,
        own: Option<Duration>,
    ) -> Self {
        let settings = &services.settings;
        // The clock is read for those alone who go by it.
        let timed = service.state.throttles()
            || settings.timeout.is_some()
            || own.is_some()
            || settings.observer.is_some();
        let start = if timed {
            services.now()
        } else {
            Timestamp::default()
        };
        Self {
            services,
            service,
            transport,
            asked,
            start,
            deadline: Deadline::of(start, settings.timeout),
            own: Deadline::of(start, own),
        }
    }

    /// Sends the request to picked endpoints, until it is answered or may not
    /// be sent again.
    pub(super) fn run(
        &self,
        exchange: &mut ExchangeOf<T, X>,
    ) -> impl Future<Output = Result<(), T::Error>> {
        let Some(scope) = &self.asked.scope else {
            return Either::Left(self.make(exchange));
        };
        let mut making = Box::pin(self.make(exchange));
        Either::Right(poll_fn(move |context| {
            let mut polled = Poll::Pending;
            scope.within(&mut || polled = making.as_mut().poll(context));
            polled
        }))
    }

    fn make(&self, exchange: &mut ExchangeOf<T, X>) -> impl Future<Output = Result<(), T::Error>> {
        async move {
            let permit = match self.service.state.admit(self.service(), self.start) {
                Ok(Admission::In(permit)) => permit,
                // It may have to wait.
                Ok(Admission::Pending(waiting)) => {
                    let waiting = async { Ok(waiting.await) };
                    match Box::pin(self.within(waiting)).await {
                        Ok(permit) => permit,
                        Err(error) => return Err(self.refuse(error)),
                    }
                }
                Err(error) => return Err(self.refuse(error)),
            };
            if self.transport.may_repeat() {
                let tokens = &self.service.state.tokens;
                tokens.asked_by(|| self.services.now());
            }
            let mut tried = Tried::new();
            let mut attempts = 1;
            let mut pick = match self.pick(&mut tried) {
                Ok(pick) => pick,
                Err(error) => match Box::pin(self.pick_later(error, &mut tried)).await {
                    Ok(pick) => pick,
                    Err(error) => return Err(self.refuse(error)),
                },
            };
            let mut retrying: Option<Retrying<'_>> = None;
            loop {
                let mut ended = self.not_sent(attempts);
                let result = match self.hedge_after(attempts) {
                    None => self.send(exchange, &pick, &mut ended).await,
                    // Apart, so that a call that is not hedged has no room for it.
                    Some(delay) => {
                        let first = self.send_with(exchange.take_request(), pick, attempts);
                        let race = self.race(first, &mut attempts, &mut tried, delay);
                        let raced = Box::pin(race).await;
                        (*exchange, pick, ended) = (raced.exchange, raced.pick, raced.ended);
                        // Whichever it was, both were sent.
                        ended.attempts = attempts;
                        raced.result
                    }
                };
                if !ended.outcome.is_not_sent() {
                    let well = !ended.outcome.is_failure();
                    self.service.state.tokens.ended(well);
                }
                // What this was a retry of is over, and so is the retry.
                drop(retrying.take());
                let Some(again) = self.prepare_again(&ended, &tried) else {
                    self.tell_done(pick.endpoint(), &ended);
                    if result.is_ok() {
                        self.hold(exchange, Some(pick), ended.outcome, permit);
                    } else {
                        pick.finish(ended.outcome);
                    }
                    return result;
                };
                // Before the pause, which is no time of that endpoint's.
                let endpoint = Arc::clone(pick.endpoint());
                pick.finish(ended.outcome);
                if let Some(pause) = again.pause {
                    pause.await;
                }
                pick = match self.pick(&mut tried) {
                    Ok(next) => next,
                    Err(_) => {
                        self.tell_done(&endpoint, &ended);
                        if result.is_ok() {
                            self.hold(exchange, None, ended.outcome, permit);
                        }
                        return result;
                    }
                };
                exchange.put_request(*again.request);
                attempts += 1;
                retrying = Some(again.retrying);
            }
        }
    }

    /// Names the endpoint of an answer in its head, where sessions keep to theirs.
    pub(super) fn name(
        &self,
        exchange: &mut ExchangeOf<T, X>,
        headers: impl FnOnce(&mut T::Answer) -> &mut HeaderMap,
    ) {
        if let Some(sticky) = &self.services.settings.sticky
            && let (answer, Some(held)) = exchange.answered()
            && let Some(pick) = &held.pick
        {
            sticky.name(pick.id(), self.asked.named().first(), headers(answer));
        }
    }

    /// Leaves along with an answer what its body shall hold.
    fn hold(
        &self,
        exchange: &mut Exchange<T::Request, T::Answer>,
        pick: Option<DetachedPick>,
        outcome: Outcome,
        permit: Permit,
    ) {
        let classify = self.services.settings.classify.clone();
        let outcome = match &classify {
            Some(classify) if !outcome.is_failure() => {
                let (_, headers) = T::head(exchange.answered().0);
                classify.without_trailers(headers).unwrap_or(outcome)
            }
            _ => outcome,
        };
        exchange.hold(Held {
            pick,
            outcome,
            classify,
            overdue: self.left().map(|left| {
                Box::pin(Overdue {
                    sleep: tokio::time::sleep(left),
                    error: self.timed_out(left),
                })
            }),
            permit,
        });
    }

    /// What another attempt needs; none when there shall be none.
    fn prepare_again(&self, ended: &Ended, tried: &Tried) -> Option<Again<'_, T::Request>> {
        let well = ended.status.is_some_and(|status| status < 400);
        if well && ended.grpc.is_none_or(|code| code == 0) {
            return None;
        }
        let (settings, state) = (&self.services.settings, &self.service.state);
        let pause = settings.retry.decide(ended, &mut state.rng())?;
        let now = self.services.now();
        let leaves = self.deadline.leaves(now, pause) && self.own.leaves(now, pause);
        if !leaves || !self.has_untried(tried) {
            return None;
        }
        let left = self.own.left(now).map(|left| left.saturating_sub(pause));
        let request = Box::new(self.transport.again(left)?);
        let retrying = state.begin_retry()?;
        if Retry::is_charged(ended) && !state.tokens.try_retry(now) {
            self.tell(CallEvent::RetryRefused);
            return None;
        }
        let attempt = ended.attempts + 1;
        self.tell(CallEvent::Retried { attempt, pause });
        Some(Again {
            request,
            pause: (!pause.is_zero()).then(|| Box::pin(tokio::time::sleep(pause))),
            retrying,
        })
    }

    /// Whether there is an endpoint left, so that nobody pauses in vain.
    fn has_untried(&self, tried: &Tried) -> bool {
        let nodes = self.service.balancer.nodes();
        let mut open = nodes.iter().filter(|node| node.endpoint().takes_calls());
        open.any(|node| !tried.contains(node.key()))
    }

    /// The first attempt, and a second one beside it if that is late: the one
    /// whose end counts.
    async fn race(
        &self,
        first: impl Future<Output = Raced<ExchangeOf<T, X>, T::Error>>,
        attempts: &mut u32,
        tried: &mut Tried,
        delay: Duration,
    ) -> Raced<ExchangeOf<T, X>, T::Error> {
        let mut first = pin!(first);
        if let Ok(ended) = tokio::time::timeout(delay, first.as_mut()).await {
            return ended;
        }
        let Some((request, pick)) = self.hedge(tried, delay) else {
            return first.await;
        };
        *attempts += 1;
        let second = pin!(self.send_with(request, pick, *attempts));
        let (raced, other) = match select(first, second).await {
            Either::Left((ended, second)) => (ended, Either::Left(second)),
            Either::Right((ended, first)) => (ended, Either::Right(first)),
        };
        // The loser is dropped, which counts it as cancelled; unless the one
        // that came first came to nothing.
        let outcome = raced.ended.outcome;
        if outcome.is_failure() {
            raced.pick.finish(outcome);
            return other.await;
        }
        raced
    }

    fn hedge_after(&self, attempts: u32) -> Option<Duration> {
        let hedging = self.service.state.hedging.as_ref()?;
        let retry = &self.services.settings.retry;
        let may = attempts == 1 && retry.may_repeat(self.asked.idempotent);
        may.then(|| hedging.asked(self.services.now())).flatten()
    }

    fn hedge(&self, tried: &mut Tried, after: Duration) -> Option<(T::Request, DetachedPick)> {
        let hedging = self.service.state.hedging.as_ref()?;
        if !self.has_untried(tried) {
            return None;
        }
        let now = self.services.now();
        let request = self.transport.again(self.own.left(now))?;
        // Before the pick, which would be one that nothing is sent to.
        if !hedging.try_hedge(now) {
            return None;
        }
        let pick = self.pick(tried).ok()?;
        self.tell(CallEvent::Hedged { after });
        Some((request, pick))
    }

    /// As [`Call::send`], of what it owns.
    async fn send_with(
        &self,
        request: T::Request,
        pick: DetachedPick,
        attempts: u32,
    ) -> Raced<ExchangeOf<T, X>, T::Error> {
        let mut exchange = Exchange::of(request);
        let mut ended = self.not_sent(attempts);
        let result = self.send(&mut exchange, &pick, &mut ended).await;
        Raced {
            exchange,
            pick,
            ended,
            result,
        }
    }

    /// How an attempt has ended before it is made.
    fn not_sent(&self, attempts: u32) -> Ended {
        Ended {
            outcome: Outcome::NotSent,
            status: None,
            grpc: None,
            pushback: Pushback::None,
            idempotent: self.asked.idempotent,
            attempts,
        }
    }

    /// Sends the request once. How that ended is not yet counted.
    fn send(
        &self,
        exchange: &mut ExchangeOf<T, X>,
        pick: &DetachedPick,
        ended: &mut Ended,
    ) -> impl Future<Output = Result<(), T::Error>> {
        async move {
            self.tell(CallEvent::Picked {
                endpoint: pick.endpoint(),
                attempt: ended.attempts,
            });
            // The clock is read for those alone who go by it.
            let timed = self.services.settings.observer.is_some() || self.service.state.learns();
            let began = timed.then(|| self.services.now());
            let sent = if let Some(error) = self.refusal(pick) {
                Err(SendError::Unroutable(error))
            } else {
                let mut sending = pin!(self.transport.send(exchange, self.service, pick));
                match self.bound() {
                    None => sending.await,
                    Some(within) => Box::pin(self.transmit_within(within, sending.as_mut())).await,
                }
            };
            let result = match sent {
                Ok(()) => {
                    self.read(exchange.answered().0, pick, ended);
                    Ok(())
                }
                // Another endpoint may be one that can be called.
                Err(SendError::Unroutable(error)) => Err(T::ours(error)),
                Err(SendError::NotReady(error)) => Err(error),
                Err(SendError::Client(error)) => {
                    let classifier = self.services.settings.classifier();
                    ended.outcome = self.transport.outcome(&error, classifier);
                    Err(error)
                }
            };
            if let Some(began) = began {
                let now = self.services.now();
                let (outcome, took) = (ended.outcome, now.since(began));
                self.service.state.learn(outcome, took, now);
                self.tell(CallEvent::Ended {
                    endpoint: pick.endpoint(),
                    outcome,
                    took,
                });
            }
            result
        }
    }

    /// Takes in what the head of an answer says.
    fn read(&self, answer: &T::Answer, pick: &DetachedPick, ended: &mut Ended) {
        let (status, headers) = T::head(answer);
        read_report(pick, headers);
        let Answered {
            outcome,
            grpc,
            pushback,
        } = self.services.settings.classifier().answer(status, headers);
        (ended.outcome, ended.grpc, ended.pushback) = (outcome, grpc, pushback);
        ended.status = Some(status.as_u16());
        heed(pick, ended);
    }

    async fn transmit_within(
        &self,
        within: Duration,
        sending: impl Future<Output = Result<(), SendError<T::Error>>>,
    ) -> Result<(), SendError<T::Error>> {
        match tokio::time::timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) => Err(SendError::Client(T::ours(self.given_up(within)))),
        }
    }

    /// How long an attempt that begins now may take.
    fn bound(&self) -> Option<Duration> {
        let settings = &self.services.settings;
        settings.timeout.or(settings.per_try)?;
        self.deadline.attempt(self.services.now(), settings.per_try)
    }

    /// Why the endpoint may not be called, if it may not.
    fn refusal(&self, endpoint: &Endpoint) -> Option<Error> {
        self.services.settings.addresses?.refusal(endpoint)
    }

    /// The first endpoint, where the registry has to be waited for.
    async fn pick_later(&self, error: Error, tried: &mut Tried) -> Result<DetachedPick, Error> {
        if !error.is_not_known_yet() {
            return Err(error);
        }
        let ready = self.service.balancer.ready(self.services.settings.wait);
        self.within(ready).await?;
        self.pick(tried)
    }

    /// An endpoint that was not tried and has room. The guard is detached: a
    /// call lasts, and shall not hold on to a whole set.
    fn pick(&self, tried: &mut Tried) -> Result<DetachedPick, Error> {
        let limits = self.services.settings.limits;
        let most = limits.map_or(u32::MAX, Limits::of_one_endpoint);
        let mut full = false;
        loop {
            let options = self.asked.options(tried);
            let pick = match self.service.balancer.pick_with(&options) {
                Err(_) if full => {
                    let reason = "every endpoint has as many calls in flight as its limit allows";
                    return Err(Error::overloaded(self.service().shared(), reason));
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
    async fn within<R>(&self, waiting: impl Future<Output = Result<R, Error>>) -> Result<R, Error> {
        let own = self.own.left(self.services.now());
        match self.left().into_iter().chain(own).min() {
            None => waiting.await,
            Some(left) => tokio::time::timeout(left, waiting)
                .await
                .unwrap_or_else(|_| Err(self.timed_out(left))),
        }
    }

    /// What is left of the call, if its time is bounded.
    fn left(&self) -> Option<Duration> {
        self.services.settings.timeout?;
        self.deadline.left(self.services.now())
    }

    /// Of an attempt.
    fn given_up(&self, within: Duration) -> Error {
        if self.services.settings.per_try == Some(within) {
            return Error::timed_out(self.service().shared(), "per-try timeout", within);
        }
        self.timed_out(within)
    }

    /// Of the call.
    fn timed_out(&self, left: Duration) -> Error {
        let timeout = self.services.settings.timeout.unwrap_or(left);
        Error::timed_out(self.service().shared(), "timeout", timeout)
    }

    fn refuse(&self, error: Error) -> T::Error {
        self.tell(CallEvent::Refused { error: &error });
        T::ours(error)
    }

    fn tell_done(&self, endpoint: &Endpoint, ended: &Ended) {
        if self.services.settings.observer.is_some() {
            let took = self.services.now().since(self.start);
            self.tell(CallEvent::Done {
                endpoint,
                attempts: ended.attempts,
                outcome: ended.outcome,
                took,
            });
        }
    }

    fn tell(&self, event: CallEvent<'_>) {
        if let Some(observer) = &self.services.settings.observer {
            observer.call(self.service(), event);
            if let Some(scope) = &self.asked.scope {
                scope.told(event);
            }
        }
    }

    fn service(&self) -> &crate::endpoint::ServiceName {
        self.service.balancer.service()
    }
}
