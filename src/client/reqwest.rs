//! A middleware for [`reqwest_middleware`], with which the host of a URL names
//! a service.
//!
//! ```
//! use waypost::{Balancer, Fixed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let users = Balancer::builder("users")
//!     .build(Fixed::addresses(["127.0.0.1:9"])?)
//!     .await?;
//! let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
//!     .with(users.middleware())
//!     .build();
//! let answer = client.get("http://users/v1/me").send().await; // goes to 127.0.0.1:9
//! # assert!(answer.is_err(), "nobody listens on the discard port");
//! # Ok(()) }
//! ```
//!
//! What stays logical: the `Host` header, and `Response::url()`. A redirect that
//! a server answers with is followed by reqwest below this middleware, as it is
//! written; one to another path of the same service, written without a host,
//! goes to the same endpoint.

use std::time::Duration;

use async_trait::async_trait;
use http::Extensions;
use http::header::{HOST, HeaderValue};
use reqwest::{Body, Request, Response, ResponseBuilderExt as _};
use reqwest_middleware::{Error as MiddlewareError, Middleware, Next};

use super::call::{self, Call, Policy};
use super::http::{RequestHead, RequestKey, Tracked};
use super::{Attempts, Directory};
use crate::balancer::{Balancer, DetachedPick};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::stats::Outcome;

impl Balancer {
    /// A reqwest middleware that sends the requests to this service, those
    /// whose URL has its name as host, to picked endpoints.
    #[must_use]
    pub fn middleware(&self) -> BalanceMiddleware {
        BalanceMiddleware {
            policy: Policy::new(self.clone().into()),
        }
    }
}

impl Directory {
    /// A reqwest middleware that takes the host of every URL, unless it is an
    /// IP address, for the name of a service.
    #[must_use]
    pub fn middleware(&self) -> BalanceMiddleware {
        BalanceMiddleware {
            policy: Policy::new(self.clone().into()),
        }
    }
}

/// Balances the requests of a reqwest client; made by
/// [`Balancer::middleware`] and [`Directory::middleware`].
///
/// A call that was not delivered is sent to another endpoint, up to three
/// attempts in all; see [the rules](crate::client#which-calls-are-sent-again).
#[derive(Clone, Debug)]
pub struct BalanceMiddleware {
    policy: Policy,
}

impl BalanceMiddleware {
    /// How often a call is sent in all; 3 by default.
    #[must_use]
    pub fn attempts(mut self, attempts: Attempts) -> Self {
        self.policy.attempts = attempts;
        self
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

#[async_trait]
impl Middleware for BalanceMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, MiddlewareError> {
        let url = request.url().clone();
        let uri = url
            .as_str()
            .parse()
            .map_err(|error| refused(Error::unroutable(&url, error)))?;
        let Some(balancer) = self.policy.balancer(&uri).map_err(refused)? else {
            return next.run(request, extensions).await;
        };
        let method = request.method().clone();
        let head = RequestHead {
            method: &method,
            uri: &uri,
            headers: request.headers(),
            extensions,
        };
        let mut call = Call::new(&self.policy, &balancer, &method).keyed(&head);
        let mut request = request;
        let mut failed = None;
        loop {
            let pick = match call.pick().await {
                Ok(pick) => pick,
                Err(error) => return Err(failed.unwrap_or_else(|| refused(error))),
            };
            let again = call
                .has_more_attempts()
                .then(|| request.try_clone())
                .flatten();
            if let Err(error) = direct(&mut request, &uri, &pick) {
                // Another endpoint may have an address that a URL can name.
                if !call.failed(pick, Outcome::NotSent) {
                    return Err(failed.unwrap_or_else(|| refused(error)));
                }
                failed.get_or_insert_with(|| refused(error));
                continue;
            }
            match next.clone().run(request, extensions).await {
                Ok(answer) => return track(answer, pick, &url),
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
}

fn refused(error: Error) -> MiddlewareError {
    MiddlewareError::middleware(error)
}

/// Points a request at an endpoint and keeps its logical host.
fn direct(request: &mut Request, logical: &http::Uri, endpoint: &Endpoint) -> Result<(), Error> {
    let address = endpoint.address();
    let (Some(host), Some(port)) = (address.host(), address.port()) else {
        let reason = "it is a Unix socket, which a URL cannot name";
        return Err(Error::unroutable(endpoint, reason));
    };
    if !request.headers().contains_key(HOST)
        && let Some(host) = call::logical_host(endpoint, logical)
    {
        let host = HeaderValue::from_str(host).map_err(|error| Error::unroutable(host, error))?;
        request.headers_mut().insert(HOST, host);
    }
    let url = request.url_mut();
    url.set_host(Some(host))
        .map_err(|error| Error::unroutable(endpoint, error))?;
    url.set_port(Some(port))
        .map_err(|()| Error::unroutable(endpoint, "its URL cannot have a port"))
}

/// Puts a body that holds the pick into a response, and the logical URL.
fn track(
    answer: Response,
    pick: DetachedPick,
    url: &reqwest::Url,
) -> Result<Response, MiddlewareError> {
    let outcome = call::outcome_of(answer.status());
    let (head, body) = http::Response::from(answer).into_parts();
    let mut tracked = http::Response::builder()
        .url(url.clone())
        .body(Body::wrap(Tracked::new(body, pick, outcome)))
        .map_err(|error| refused(Error::unroutable(url, error)))?;
    *tracked.status_mut() = head.status;
    *tracked.version_mut() = head.version;
    *tracked.headers_mut() = head.headers;
    tracked.extensions_mut().extend(head.extensions);
    Ok(Response::from(tracked))
}

/// What reqwest knows of what was sent, else what the errors below it tell.
fn classify(error: &MiddlewareError) -> Outcome {
    match error {
        MiddlewareError::Reqwest(error) if error.is_connect() => Outcome::NotSent,
        MiddlewareError::Reqwest(error) if error.is_timeout() => Outcome::TimedOut,
        MiddlewareError::Reqwest(error) => call::outcome_of_error(error),
        // Another middleware's: whether it was sent is unknown.
        MiddlewareError::Middleware(_) => Outcome::Interrupted,
    }
}
