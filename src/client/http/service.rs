//! The layer and its service.

#![expect(
    clippy::manual_async_fn,
    reason = "the future of an `async fn` has room for each argument twice"
)]

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    Version,
};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::replay::{CloneBody, Kept, Replay, SendOnce};
use super::route::{Address, Caller, Factory, Rewrite, Route};
use super::{BoxError, RequestHead, Tracked};
use crate::balancer::{Balancer, DetachedPick};
use crate::client::asked::Asked;
use crate::client::exchange::{Exchange, SendError, Transport};
use crate::client::run::Call;
use crate::client::service::{self as shared, Services, States, Target};
use crate::client::settings::setters;
use crate::client::{CallSettings, Classify, Directory};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::resilience::{Attempts, Retry};
use crate::stats::Outcome;

/// Balances the requests of an HTTP client.
///
/// By default a request is sent once, since a body can in general be sent but
/// once; [`retry`](Self::retry) sends calls elsewhere that failed, for bodies
/// that can be cloned, and [`retry_with`](Self::retry_with) for others. All
/// other settings are those of [`CallSettings`].
#[derive(Clone, Debug)]
pub struct BalanceLayer<R = SendOnce> {
    target: Target,
    settings: CallSettings,
    replay: R,
}

impl BalanceLayer {
    /// For the requests to one service.
    #[must_use]
    pub fn new(balancer: Balancer) -> Self {
        Self::with(balancer.into())
    }

    /// For the requests to any service.
    #[must_use]
    pub fn directory(directory: Directory) -> Self {
        Self::with(directory.into())
    }

    fn with(target: Target) -> Self {
        Self {
            target,
            settings: CallSettings::default(),
            replay: SendOnce,
        }
    }
}

impl<R> BalanceLayer<R> {
    /// Sends calls that failed to another endpoint. Needs a body that is
    /// `Clone`, such as `Full<Bytes>`.
    #[must_use]
    pub fn retry(self, retry: Retry) -> BalanceLayer<CloneBody> {
        self.retry_with(retry, CloneBody)
    }

    /// As [`retry`](Self::retry), for bodies that are kept otherwise, such as
    /// by [`RecordBody`](super::RecordBody).
    #[must_use]
    pub fn retry_with<T>(mut self, retry: Retry, replay: T) -> BalanceLayer<T> {
        self.settings.retry = retry;
        BalanceLayer {
            target: self.target,
            settings: self.settings,
            replay,
        }
    }

    /// All settings at once, and how bodies are kept for the retries among
    /// them.
    #[must_use]
    pub fn settings<T>(self, settings: CallSettings, replay: T) -> BalanceLayer<T> {
        BalanceLayer {
            target: self.target,
            settings,
            replay,
        }
    }

    /// A client for each endpoint, made by `factory` at the first call there
    /// and dropped when the endpoint leaves: for everything that cannot be
    /// reached by rewriting a URI, such as https, Unix sockets, or a client
    /// that speaks another protocol.
    ///
    /// A request reaches its client as the caller wrote it, so that a
    /// certificate is checked against the service's name. With one service,
    /// every request goes there, whatever its host.
    ///
    /// A client must be cheap to clone, and its clones be one client, as those
    /// of hyper-util, reqwest and tonic are. Its readiness is awaited within
    /// the call, on the instance that is called; of one that fails to become
    /// ready, nothing was sent, and the next call to its endpoint makes another.
    pub fn per_endpoint<F, S, E>(self, factory: F) -> Balanced<Factory<F>, S, R>
    where
        F: Fn(&Endpoint) -> Result<S, E> + Clone + Send + Sync + 'static,
        S: Clone + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Balanced::new(Factory(factory), self)
    }

    fn set(mut self, set: impl FnOnce(&mut CallSettings)) -> Self {
        set(&mut self.settings);
        self
    }

    setters!();
}

impl<S: Clone + Send + Sync + 'static, R: Clone> Layer<S> for BalanceLayer<R> {
    type Service = Balance<S, R>;

    fn layer(&self, client: S) -> Self::Service {
        Balanced::new(Rewrite(client), self.clone())
    }
}

/// A client whose requests are balanced, made by [`BalanceLayer`].
pub type Balance<S, R = SendOnce> = Balanced<Rewrite<S>, Address, R>;

/// A balanced client: one for all endpoints ([`Balance`]), or one for each
/// ([`BalanceLayer::per_endpoint`]). `K` is what it keeps for an endpoint, `R`
/// how it keeps bodies to send them again.
///
/// It is always ready; the readiness of the client is awaited within the call.
#[derive(Debug)]
pub struct Balanced<Q, K, R = SendOnce>(Arc<Shared<Q, K, R>>);

#[derive(Debug)]
struct Shared<Q, K, R> {
    route: Q,
    replay: R,
    services: Services,
    states: States<K>,
}

impl<Q, K, R> Clone for Balanced<Q, K, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, K: Clone + Send + Sync + 'static, R> Balanced<Q, K, R> {
    pub(in crate::client) fn new(route: Q, layer: BalanceLayer<R>) -> Self {
        Self(Arc::new(Shared {
            route,
            replay: layer.replay,
            services: Services::new(layer.target, layer.settings),
            states: States::new(),
        }))
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<Q, K, R, B, A> Service<Request<B>> for Balanced<Q, K, R>
where
    Q: Route<B, Kept = K>,
    Q::Client: Service<Request<B>, Response = Response<A>> + Send,
    <Q::Client as Service<Request<B>>>::Error: Into<BoxError>,
    <Q::Client as Service<Request<B>>>::Future: Send,
    K: Clone + Send + Sync + 'static,
    R: Replay<B>,
    B: Send + 'static,
    A: Body + Send + 'static,
{
    type Response = Response<Tracked<A>>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Made in its place: most of a future is room for later, and need not be copied.
        let place = Box::new_uninit();
        let calling = Box::write(place, self.balance(request));
        Box::into_pin(calling)
    }
}

impl<Q, K, R> Balanced<Q, K, R> {
    /// The future has to be small: what it keeps of the request is kept in one place.
    fn balance<B, A>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Tracked<A>>, BoxError>> + Send + use<Q, K, R, B, A>
    where
        Q: Route<B, Kept = K>,
        Q::Client: Service<Request<B>, Response = Response<A>> + Send,
        <Q::Client as Service<Request<B>>>::Error: Into<BoxError>,
        <Q::Client as Service<Request<B>>>::Future: Send,
        K: Clone + Send + Sync + 'static,
        R: Replay<B>,
        B: Send + 'static,
        A: Body + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        let mut exchange = Exchange::of(request);
        async move {
            let Shared {
                route,
                replay,
                services,
                states,
            } = &*shared;
            let Some(service) = Q::find(services, states, exchange.request().uri())? else {
                let Some(client) = route.passing() else {
                    let reason = "there is no client for what passes by";
                    let uri = shared::shown(exchange.request().uri());
                    return Err(Error::unroutable(uri, reason).into());
                };
                send(client, &mut exchange)
                    .await
                    .map_err(|error| match error {
                        SendError::Unroutable(error) => error.into(),
                        SendError::NotReady(error) | SendError::Client(error) => error,
                    })?;
                let (answer, held) = exchange.take_answer();
                return Ok(answer.map(|body| Tracked::new(body, held)));
            };
            let settings = &services.settings;
            let asked = Asked::by(&RequestHead::of(exchange.request()), settings, &service);
            let patience = Q::patience(exchange.request());
            let sender = Sender::new(route, replay, &settings.retry, &mut exchange);
            let call = Call::new(services, &service, &sender, asked, patience);
            call.run(&mut exchange).await?;
            call.name(&mut exchange, |answer| answer.headers_mut());
            let (answer, held) = exchange.take_answer();
            Ok(answer.map(|body| Tracked::new(body, held)))
        }
    }
}

/// Sends one call's requests.
struct Sender<'a, Q, B, C> {
    route: &'a Q,
    /// To be sent again; none when there is one attempt.
    kept: Option<Box<Copy<C>>>,
    body: std::marker::PhantomData<fn(B)>,
}

impl<'a, Q, B, C: Kept<B>> Sender<'a, Q, B, C> {
    fn new<R: Replay<B, Kept = C>, A>(
        route: &'a Q,
        replay: &R,
        retry: &Retry,
        exchange: &mut Exchange<Request<B>, A>,
    ) -> Self {
        let never = std::any::TypeId::of::<R>() == std::any::TypeId::of::<SendOnce>();
        let kept = (!never && retry.most_attempts() != Attempts::ONCE).then(|| {
            let limit = retry.largest_body();
            let beside = replay.keep_beside(exchange.request().body(), limit);
            let kept = beside.unwrap_or_else(|| {
                let (head, body) = exchange.take_request().into_parts();
                let (body, kept) = replay.keep(body, limit);
                exchange.put_request(Request::from_parts(head, body));
                kept
            });
            Box::new(Copy::of(exchange.request(), kept))
        });
        Self {
            route,
            kept,
            body: std::marker::PhantomData,
        }
    }
}

impl<Q, B, C, A> Transport<Q::Kept> for Sender<'_, Q, B, C>
where
    Q: Route<B>,
    Q::Client: Service<Request<B>, Response = Response<A>> + Send,
    <Q::Client as Service<Request<B>>>::Error: Into<BoxError>,
    <Q::Client as Service<Request<B>>>::Future: Send,
    B: Send + 'static,
    C: Kept<B>,
    A: Send + 'static,
{
    type Request = Request<B>;
    type Answer = Response<A>;
    type Error = BoxError;

    fn send(
        &self,
        exchange: &mut Exchange<Request<B>, Response<A>>,
        service: &shared::Service<'_, Q::Kept>,
        pick: &DetachedPick,
    ) -> impl Future<Output = Result<(), SendError<BoxError>>> + Send {
        async move {
            let written = self.kept.as_deref().map(|kept| &kept.uri);
            let client = self
                .route
                .direct(service, pick, exchange.request(), written);
            let client = client.map_err(SendError::Unroutable)?;
            let sent = send(client, exchange).await;
            if let Err(SendError::NotReady(_)) = sent {
                // Such a client is never ready again.
                service.state.endpoints.forget(pick);
            }
            sent
        }
    }

    fn may_repeat(&self) -> bool {
        self.kept.is_some()
    }

    fn again(&self, left: Option<Duration>) -> Option<Request<B>> {
        let mut request = self.kept.as_ref()?.again()?;
        if let Some(left) = left {
            Q::shorten(&mut request, left);
        }
        Some(request)
    }

    fn head(answer: &Response<A>) -> (StatusCode, &HeaderMap) {
        (answer.status(), answer.headers())
    }

    fn outcome(&self, error: &BoxError, classify: &dyn Classify) -> Outcome {
        let error: &(dyn StdError + 'static) = &**error;
        classify.error(error)
    }

    fn ours(error: Error) -> BoxError {
        Q::ours(error)
    }
}

/// A request's head, and what is kept of its body. Not a request: one would have to
/// be made with a head that is thrown away at once.
///
/// The URI is kept here alone: each request gets one by where it goes.
struct Copy<C> {
    method: Method,
    uri: Uri,
    version: Version,
    /// In a row, which takes one allocation at most, where a map takes two and is
    /// found nothing in.
    headers: Vec<(HeaderName, HeaderValue)>,
    extensions: Extensions,
    body: Mutex<C>,
}

impl<C> Copy<C> {
    fn of<B>(request: &mut Request<B>, body: C) -> Self {
        Self {
            uri: std::mem::take(request.uri_mut()),
            method: request.method().clone(),
            version: request.version(),
            headers: in_a_row(request.headers()),
            extensions: request.extensions().clone(),
            body: Mutex::new(body),
        }
    }

    /// The request once more, if its body can be sent again.
    fn again<B>(&self) -> Option<Request<B>>
    where
        C: Kept<B>,
    {
        let mut kept = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = Request::new(kept.again()?);
        request.method_mut().clone_from(&self.method);
        *request.version_mut() = self.version;
        let headers = request.headers_mut();
        headers.reserve(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        request.extensions_mut().clone_from(&self.extensions);
        Some(request)
    }
}

fn in_a_row(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut row = Vec::with_capacity(headers.len());
    row.extend(
        headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    row
}

/// Awaits the readiness of a client and calls that same instance.
fn send<S, B, A>(
    mut client: Caller<'_, S>,
    exchange: &mut Exchange<Request<B>, Response<A>>,
) -> impl Future<Output = Result<(), SendError<BoxError>>>
where
    S: Service<Request<B>, Response = Response<A>> + Clone,
    S::Error: Into<BoxError>,
{
    async move {
        let answering = poll_fn(|cx| {
            let own = match &mut client {
                Caller::Own(own) => own,
                Caller::Shared(shared) => {
                    let mut clone = S::clone(shared);
                    if clone.poll_ready(cx)?.is_ready() {
                        return Poll::Ready(Ok(clone.call(exchange.take_request())));
                    }
                    client = Caller::Own(Box::new(clone));
                    return Poll::Pending;
                }
            };
            ready!(own.poll_ready(cx))?;
            Poll::Ready(Ok(own.call(exchange.take_request())))
        });
        let not_ready = |error: S::Error| SendError::NotReady(error.into());
        let answer = answering.await.map_err(not_ready)?.await;
        exchange.put_answer(answer.map_err(|error| SendError::Client(error.into()))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use tower::Layer as _;

    use super::*;

    /// Each call's future is copied to the heap: what it has room for is paid
    /// for by each call, and allocators give out more than 1,032 bytes (glibc's
    /// bound for what threads keep) slower by far.
    #[tokio::test]
    async fn the_future_of_a_call_is_small() {
        let (users, _updater) = Balancer::builder("users").manual().expect("it is a name");
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let balanced = BalanceLayer::new(users)
            .retry(Retry::default())
            .layer(client);
        let request = Request::new(Full::default());
        let size = std::mem::size_of_val(&balanced.balance(request));
        assert!(size <= 1_032, "{size} bytes");
    }
}
