//! The layer and its service.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{BoxError, RequestHead, RequestKey, Tracked};
use crate::balancer::Balancer;
use crate::client::call::{self, Call, Policy, Target};
use crate::client::{Attempts, Directory};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::stats::Outcome;

/// Balances the requests of an HTTP client.
///
/// By default a request is sent once, since a body can in general be sent but
/// once; [`resend`](Self::resend) sends calls elsewhere that were not delivered,
/// for bodies that can be cloned.
#[derive(Clone, Debug)]
pub struct BalanceLayer<R = SendOnce> {
    policy: Policy,
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
            policy: Policy {
                attempts: Attempts::ONCE,
                ..Policy::new(target)
            },
            replay: SendOnce,
        }
    }
}

impl<R> BalanceLayer<R> {
    /// Sends a call that was not delivered to another endpoint, up to so many
    /// attempts in all. Needs a body that is `Clone`, such as `Full<Bytes>`.
    #[must_use]
    pub fn resend(self, attempts: Attempts) -> BalanceLayer<CloneBody> {
        self.resend_with(attempts, CloneBody)
    }

    /// As [`resend`](Self::resend), for bodies that are copied otherwise.
    #[must_use]
    pub fn resend_with<T>(self, attempts: Attempts, replay: T) -> BalanceLayer<T> {
        BalanceLayer {
            policy: Policy {
                attempts,
                ..self.policy
            },
            replay,
        }
    }

    /// Where the key of a call is found, for strategies that go by keys; none if not set.
    #[must_use]
    pub fn key(mut self, key: RequestKey) -> Self {
        self.policy.key = Some(key);
        self
    }

    /// How long a call waits for the registry's first answer; 5 s by default.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.policy.wait = wait;
        self
    }
}

/// How a request's body is copied, so that it can be sent again.
pub trait Replay<B> {
    /// A copy, or `None` when this body cannot be sent twice.
    fn copy(&self, body: &B) -> Option<B>;
}

/// No body is sent twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOnce;

impl<B> Replay<B> for SendOnce {
    fn copy(&self, _: &B) -> Option<B> {
        None
    }
}

/// Bodies are cloned.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

impl<B: Clone> Replay<B> for CloneBody {
    fn copy(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

impl<S, R: Clone> Layer<S> for BalanceLayer<R> {
    type Service = Balance<S, R>;

    fn layer(&self, client: S) -> Self::Service {
        Balance {
            client,
            policy: self.policy.clone(),
            replay: self.replay.clone(),
        }
    }
}

/// A client whose requests are balanced, made by [`BalanceLayer`].
///
/// It is always ready; the readiness of the client is awaited within the call.
#[derive(Clone, Debug)]
pub struct Balance<S, R = SendOnce> {
    client: S,
    policy: Policy,
    replay: R,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S, R, B, A> Service<Request<B>> for Balance<S, R>
where
    S: Service<Request<B>, Response = Response<A>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Replay<B> + Clone + Send + Sync + 'static,
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
        let this = self.clone();
        Box::pin(async move {
            let Self {
                client,
                policy,
                replay,
            } = this;
            match policy.balancer(request.uri())? {
                Some(balancer) => balance(client, &policy, &replay, &balancer, request).await,
                None => {
                    let answer = send(client, request).await?;
                    Ok(answer.map(Tracked::untracked))
                }
            }
        })
    }
}

/// Sends a request to picked endpoints, until it is answered or may not be sent
/// again.
async fn balance<S, R, B, A>(
    client: S,
    policy: &Policy,
    replay: &R,
    balancer: &Balancer,
    mut request: Request<B>,
) -> Result<Response<Tracked<A>>, BoxError>
where
    S: Service<Request<B>, Response = Response<A>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<B>,
    A: Body,
{
    let (uri, method) = (request.uri().clone(), request.method().clone());
    let mut call = Call::new(policy, balancer, &method).keyed(&RequestHead::of(&request));
    let mut failed = None;
    loop {
        let pick = match call.pick().await {
            Ok(pick) => pick,
            Err(error) => return Err(failed.unwrap_or_else(|| error.into())),
        };
        let again = call
            .has_more_attempts()
            .then(|| copy(&request, replay))
            .flatten();
        if let Err(error) = direct(&mut request, &uri, &pick) {
            // Another endpoint may have an address that a URI can name.
            if !call.failed(pick, Outcome::NotSent) {
                return Err(failed.unwrap_or_else(|| error.into()));
            }
            failed.get_or_insert_with(|| error.into());
            continue;
        }
        match send(client.clone(), request).await {
            Ok(answer) => {
                let outcome = call::outcome_of(answer.status());
                return Ok(answer.map(|body| Tracked::new(body, pick, outcome)));
            }
            Err(error) => {
                let may_send_again = call.failed(pick, classify(&error));
                match again {
                    Some(again) if may_send_again => request = again,
                    _ => return Err(error),
                }
                failed = Some(error);
            }
        }
    }
}

/// Awaits the readiness of a client and calls that same instance.
async fn send<S, B, A>(mut client: S, request: Request<B>) -> Result<Response<A>, BoxError>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Error: Into<BoxError>,
{
    poll_fn(|cx| client.poll_ready(cx))
        .await
        .map_err(Into::into)?;
    client.call(request).await.map_err(Into::into)
}

fn copy<B>(request: &Request<B>, replay: &impl Replay<B>) -> Option<Request<B>> {
    let mut copy = Request::new(replay.copy(request.body())?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Points a request at an endpoint and keeps its logical host.
fn direct<B>(request: &mut Request<B>, logical: &Uri, endpoint: &Endpoint) -> Result<(), Error> {
    let mut parts = logical.clone().into_parts();
    parts.authority = Some(call::authority_of(endpoint)?);
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|error| Error::unroutable(logical, error))?;
    if !request.headers().contains_key(HOST)
        && let Some(host) = call::logical_host(endpoint, logical)
    {
        let host = HeaderValue::from_str(host).map_err(|error| Error::unroutable(host, error))?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// What the client knows of what was sent, else what the errors below it tell.
fn classify(error: &BoxError) -> Outcome {
    #[cfg(feature = "hyper-util")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>()
        && error.is_connect()
    {
        return Outcome::NotSent;
    }
    call::outcome_of_error(&**error)
}
