//! A middleware for [`reqwest_middleware`], with which the host of a URL names
//! a service.
//!
//! ```
//! use waypost::{Balancer, Fixed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let _ = rustls::crypto::ring::default_provider().install_default();
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
//! The client that comes out is a tower service, too: reqwest-middleware's
//! `ClientWithMiddleware` implements `Service<reqwest::Request>`.
//!
//! # http and https
//!
//! With **http**, the URL is rewritten to the endpoint's address, and the call
//! goes down the chain of middlewares to the client that was given. What stays
//! logical: the `Host` header, and `Response::url()`. A cookie store of the client's
//! goes by the address, and so has cookies for each endpoint; and so does a proxy's
//! list of exceptions, which has to name addresses.
//!
//! With **https**, that would check the certificate against an address. So each
//! endpoint gets a client of its own, made by the function that
//! [`BalanceMiddleware::https`] is given, which connects to the endpoint
//! whatever the URL says. SNI, the check of the certificate, `:authority`,
//! cookies and `Response::url()` stay logical. Middlewares behind this one are
//! passed over, since theirs is another client: let this one be the last.
//!
//! # Timeouts
//!
//! The timeout of a request (`RequestBuilder::timeout`) is that of the whole call: an
//! attempt after the first gets what is left of it. The one that the client was built
//! with is not known here, and is that of each attempt.
//!
//! # Redirects
//!
//! Switched on by [`BalanceMiddleware::redirects`], redirects are followed here:
//! each one is a call of its own, which is picked for anew, and may lead to
//! another service of the directory. The client has to leave them to the
//! middleware:
//!
//! ```
//! # fn example(users: waypost::Balancer) -> reqwest::Result<()> {
//! use reqwest::redirect::Policy;
//!
//! let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
//! let client = reqwest_middleware::ClientBuilder::new(client)
//!     .with(users.middleware().redirects(10))
//!     .build();
//! # let _ = client; Ok(()) }
//! ```
//!
//! Switched off, which they are by default: with http, reqwest follows them
//! below this middleware as they are written, unless its policy is to follow
//! none. One without a host goes to the same endpoint; one to the service's name
//! fails, since that is no host of DNS; and one to another host carries the
//! service's name as `Host`, which that host may not know. With https they are never followed
//! there: the answer with its `Location` is handed on.

#![expect(
    clippy::manual_async_fn,
    reason = "the future of an `async fn` has room for each argument twice"
)]

mod pinned;
mod redirect;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::uri::Scheme;
use http::{Extensions, HeaderMap, StatusCode, Uri};
use reqwest::{Body, ClientBuilder, Request, Response, ResponseBuilderExt as _, Url};
use reqwest_middleware::{Error as MiddlewareError, Middleware, Next};

use super::asked::Asked;
use super::exchange::{Exchange, Held, SendError, Transport};
use super::http::{RequestHead, Tracked};
use super::run::Call;
use super::service::{self, Service, Services, States, Target};
use super::settings::setters;
use super::{CallSettings, Classify, Directory};
use crate::balancer::{Balancer, DetachedPick};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::resilience::Attempts;
use crate::stats::Outcome;

pub use pinned::pinned_client;
use redirect::Redirectable;

impl Balancer {
    /// A reqwest middleware that sends the requests to this service, those
    /// whose URL has its name as host, to picked endpoints.
    #[must_use]
    pub fn middleware(&self) -> BalanceMiddleware {
        BalanceMiddleware::new(self.clone().into())
    }
}

impl Directory {
    /// A reqwest middleware that takes the host of every URL, unless it is an
    /// IP address, for the name of a service.
    #[must_use]
    pub fn middleware(&self) -> BalanceMiddleware {
        BalanceMiddleware::new(self.clone().into())
    }
}

/// Balances the requests of a reqwest client; made by
/// [`Balancer::middleware`] and [`Directory::middleware`].
///
/// A call that failed is sent to another endpoint, as
/// [`Retry`](crate::resilience::Retry) says; all settings are those of
/// [`CallSettings`].
#[derive(Clone)]
pub struct BalanceMiddleware {
    target: Target,
    settings: CallSettings,
    template: Option<Template>,
    redirects: u32,
    shared: Arc<Shared>,
}

/// Makes what the client of an endpoint is built of.
type Template = Arc<dyn Fn(&Endpoint) -> Result<ClientBuilder, Error> + Send + Sync>;

struct Shared {
    services: Services,
    states: States<reqwest::Client>,
}

impl BalanceMiddleware {
    fn new(target: Target) -> Self {
        let settings = CallSettings::default();
        Self {
            shared: Shared::new(&target, &settings),
            target,
            settings,
            template: None,
            redirects: 0,
        }
    }

    /// Serves https URLs, with a client for each endpoint that is built of what
    /// this function returns. There belong the trusted certificates, a cookie
    /// store that all share, and so on; where it connects, and that it follows
    /// no redirect and asks no proxy, is set here.
    ///
    /// ```no_run
    /// # fn example(users: waypost::Balancer) {
    /// let middleware = users.middleware().https(reqwest::Client::builder);
    /// # let _ = middleware; }
    /// ```
    #[must_use]
    pub fn https<F>(self, template: F) -> Self
    where
        F: Fn() -> ClientBuilder + Send + Sync + 'static,
    {
        self.https_per_endpoint(move |_| Ok(template()))
    }

    /// As [`https`](Self::https), where what a client is built of depends on the
    /// endpoint; an error fails the attempt. Such as who the endpoint has to be:
    ///
    #[cfg_attr(feature = "tls", doc = "```no_run")]
    #[cfg_attr(not(feature = "tls"), doc = "```ignore")]
    /// use waypost::Endpoint;
    /// use waypost::client::tls::{EndpointTls, SpiffeMatch};
    ///
    /// # fn example(users: waypost::Balancer, roots: rustls::RootCertStore) -> Result<(), waypost::Error> {
    /// let tls = EndpointTls::new(roots)
    ///     .spiffe([SpiffeMatch::exact("spiffe://example.org/ns/prod/sa/users")?]);
    /// let middleware = users.middleware().https_per_endpoint(move |endpoint: &Endpoint| {
    ///     let mut config = tls.config(endpoint)?;
    ///     config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    ///     Ok(reqwest::Client::builder().tls_backend_preconfigured(config))
    /// });
    /// # let _ = middleware; Ok(()) }
    /// ```
    #[must_use]
    pub fn https_per_endpoint<F>(mut self, template: F) -> Self
    where
        F: Fn(&Endpoint) -> Result<ClientBuilder, Error> + Send + Sync + 'static,
    {
        self.template = Some(Arc::new(template));
        self
    }

    /// Follows up to so many redirects, each as a call of its own; the answer
    /// after that many is handed on. None by default.
    ///
    /// As in browsers, a POST that is answered with 301, 302 or 303 becomes a
    /// GET. A body that cannot be cloned is not sent again, `Authorization` and
    /// cookies stay with their host, and https does not lead to http. Timeouts
    /// and retries are of each call.
    #[must_use]
    pub const fn redirects(mut self, most: u32) -> Self {
        self.redirects = most;
        self
    }

    /// All settings at once.
    #[must_use]
    pub fn settings(mut self, settings: CallSettings) -> Self {
        self.shared = Shared::new(&self.target, &settings);
        self.settings = settings;
        self
    }

    /// Those of a middleware that was not used yet.
    fn set(mut self, set: impl FnOnce(&mut CallSettings)) -> Self {
        set(&mut self.settings);
        let settings = self.settings.clone();
        self.settings(settings)
    }

    setters!(with retry);

    /// The service that a request is for; none when it passes as it is.
    fn find(&self, uri: &Uri) -> Result<Option<Service<'_, reqwest::Client>>, Error> {
        let service = self.shared.services.find(&self.shared.states, uri)?;
        if service.is_some() && self.template.is_none() && uri.scheme() == Some(&Scheme::HTTPS) {
            let reason = "it is https: rewritten to an endpoint's address, the certificate would \
                          be checked against that address; set `BalanceMiddleware::https`";
            return Err(Error::unroutable(service::shown(uri), reason));
        }
        Ok(service)
    }
}

impl Shared {
    fn new(target: &Target, settings: &CallSettings) -> Arc<Self> {
        Arc::new(Self {
            services: Services::new(target.clone(), settings.clone()),
            states: States::new(),
        })
    }
}

impl fmt::Debug for BalanceMiddleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalanceMiddleware")
            .field("target", &self.target)
            .field("settings", &self.settings)
            .field("https", &self.template.is_some())
            .field("redirects", &self.redirects)
            .finish_non_exhaustive()
    }
}

type Handling<'a> = Pin<Box<dyn Future<Output = Result<Response, MiddlewareError>> + Send + 'a>>;

/// By hand what `async_trait` would make of an `async fn`, whose future would have
/// room for the request several times, and be copied to the heap.
impl Middleware for BalanceMiddleware {
    fn handle<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        request: Request,
        extensions: &'life1 mut Extensions,
        next: Next<'life2>,
    ) -> Handling<'async_trait>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
    {
        if self.redirects > 0 {
            return Box::pin(self.follow(request, extensions, next));
        }
        let place = Box::new_uninit();
        let calling = Box::write(place, self.call(request, extensions, next));
        Box::into_pin(calling)
    }
}

impl BalanceMiddleware {
    /// A call and what it is redirected to.
    async fn follow(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, MiddlewareError> {
        for _ in 0..self.redirects {
            let redirectable = Redirectable::new(&request);
            let answer = self.call(request, extensions, next.clone()).await?;
            let Some(to) = redirectable.follow(&answer) else {
                return Ok(answer);
            };
            redirect::finish(answer).await;
            request = to;
        }
        self.call(request, extensions, next).await
    }

    /// One call, without what it is redirected to.
    fn call<'a>(
        &'a self,
        request: Request,
        extensions: &'a mut Extensions,
        next: Next<'a>,
    ) -> impl Future<Output = Result<Response, MiddlewareError>> + Send + 'a {
        let mut exchange = Exchange::of(request);
        async move {
            let request = exchange.request();
            let url = request.url().clone();
            let uri = url
                .as_str()
                .parse()
                .map_err(|error| refused(Error::unroutable(shown(&url), error)))?;
            let Some(service) = self.find(&uri).map_err(refused)? else {
                return next.run(exchange.take_request(), extensions).await;
            };
            let (services, settings) = (&self.shared.services, &self.settings);
            let head = || RequestHead {
                method: request.method(),
                uri: &uri,
                headers: request.headers(),
                extensions,
            };
            let asked = Asked::by(&head(), settings, &service);
            let own = request.timeout().copied();
            let template = self.template.as_ref().filter(|_| url.scheme() == "https");
            let sending = Sending {
                kept: keep(request, settings),
                uri: &uri,
                next: &next,
                template,
                extensions,
            };
            let call = Call::new(services, &service, &sending, asked, own);
            call.run(&mut exchange).await?;
            call.name(&mut exchange, |(answer, _)| answer.headers_mut());
            let ((answer, after), held_by_body) = exchange.take_answer();
            *extensions = after;
            let url = if url.scheme() == "https" {
                // Its clients follow none.
                url
            } else {
                let pick = held_by_body.as_ref().and_then(|held| held.pick.as_ref());
                answered_by(answer.url(), url, pick.map(|pick| &**pick))
            };
            track(answer, held_by_body, url)
        }
    }
}

/// A copy of a request that may be sent again, and can be.
fn keep(request: &Request, settings: &CallSettings) -> Option<Box<Mutex<Request>>> {
    let retry = &settings.retry;
    let size = request
        .body()
        .and_then(Body::as_bytes)
        .map_or(0, <[u8]>::len) as u64;
    let may = retry.most_attempts() != Attempts::ONCE && size <= retry.largest_body();
    let copy = may.then(|| request.try_clone()).flatten()?;
    Some(Box::new(Mutex::new(copy)))
}

/// Sends one call's requests.
struct Sending<'a> {
    kept: Option<Box<Mutex<Request>>>,
    uri: &'a Uri,
    next: &'a Next<'a>,
    /// Of https calls.
    template: Option<&'a Template>,
    extensions: &'a Extensions,
}

impl Transport<reqwest::Client> for Sending<'_> {
    type Request = Request;
    type Answer = (Response, Extensions);
    type Error = MiddlewareError;

    fn send(
        &self,
        exchange: &mut Exchange<Request, Self::Answer>,
        service: &Service<'_, reqwest::Client>,
        pick: &DetachedPick,
    ) -> impl Future<Output = Result<(), SendError<MiddlewareError>>> + Send {
        async move {
            let mut extensions = self.extensions.clone();
            let request = exchange.request();
            keep_host(request, self.uri, pick).map_err(SendError::Unroutable)?;
            let sent = if let Some(template) = self.template {
                let make = |endpoint: &Endpoint| pinned_client(template(endpoint)?, endpoint);
                let clients = &service.state.endpoints;
                let client = clients.with(&service.balancer, pick, make, reqwest::Client::clone);
                let client = client.map_err(SendError::Unroutable)?;
                pinned::prepare(request.url_mut(), pick).map_err(SendError::Unroutable)?;
                client
                    .execute(exchange.take_request())
                    .await
                    .map_err(MiddlewareError::Reqwest)
            } else {
                direct(request.url_mut(), pick).map_err(SendError::Unroutable)?;
                let (next, request) = (self.next.clone(), exchange.take_request());
                next.run(request, &mut extensions).await
            };
            let answer = sent.map_err(SendError::Client)?;
            exchange.put_answer((answer, extensions));
            Ok(())
        }
    }

    fn may_repeat(&self) -> bool {
        self.kept.is_some()
    }

    fn again(&self, left: Option<Duration>) -> Option<Request> {
        let kept = self.kept.as_ref()?;
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = kept.try_clone()?;
        *request.timeout_mut() = left;
        Some(request)
    }

    fn head((answer, _): &Self::Answer) -> (StatusCode, &HeaderMap) {
        (answer.status(), answer.headers())
    }

    /// What reqwest knows of what was sent, else what the errors below it tell.
    fn outcome(&self, error: &MiddlewareError, classify: &dyn Classify) -> Outcome {
        match error {
            MiddlewareError::Reqwest(error) if error.is_connect() => Outcome::NotSent,
            MiddlewareError::Reqwest(error) if error.is_timeout() => Outcome::TimedOut,
            MiddlewareError::Reqwest(error) => classify.error(error),
            // Ours, or another middleware's, of which nothing is known.
            MiddlewareError::Middleware(error) => {
                let error: &(dyn StdError + 'static) = error.as_ref();
                classify.error(error)
            }
        }
    }

    fn ours(error: Error) -> MiddlewareError {
        refused(error)
    }
}

fn refused(error: Error) -> MiddlewareError {
    MiddlewareError::middleware(error)
}

/// As [`service::shown`].
fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{}", url.scheme(), url.path())
}

fn keep_host(request: &mut Request, logical: &Uri, endpoint: &Endpoint) -> Result<(), Error> {
    if !request.headers().contains_key(HOST)
        && let Some(host) = service::logical_host(endpoint, logical)
    {
        let host = HeaderValue::from_str(host).map_err(|error| Error::unroutable(host, error))?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// Points a URL at an endpoint.
fn direct(url: &mut Url, endpoint: &Endpoint) -> Result<(), Error> {
    let address = endpoint.address();
    let (Some(host), Some(port)) = (address.host(), address.port()) else {
        let reason = "it is a Unix socket, which a URL cannot name";
        return Err(Error::unroutable(endpoint, reason));
    };
    match address.socket_addr() {
        // To take a text apart costs more than the rest of it.
        Some(socket) => url
            .set_ip_host(socket.ip())
            .map_err(|()| Error::unroutable(endpoint, "its URL cannot have a host"))?,
        None => url
            .set_host(Some(host))
            .map_err(|error| Error::unroutable(endpoint, error))?,
    }
    url.set_port(Some(port))
        .map_err(|()| Error::unroutable(endpoint, "its URL cannot have a port"))
}

/// Whether that is where an endpoint is called.
fn is_at(url: &Url, endpoint: &Endpoint) -> bool {
    let address = endpoint.address();
    let its = |host: &str| {
        address
            .host()
            .is_some_and(|is| is.eq_ignore_ascii_case(host))
    };
    url.port_or_known_default() == address.port() && url.host_str().is_some_and(its)
}

/// The URL that an answer comes from: the `logical` one, unless a client below has followed
/// a redirect.
fn answered_by(answer: &Url, logical: Url, endpoint: Option<&Endpoint>) -> Url {
    let stays = endpoint.is_none_or(|endpoint| is_at(answer, endpoint));
    if !stays {
        return answer.clone();
    }
    let mut url = logical;
    if url.path() != answer.path() || url.query() != answer.query() {
        url.set_path(answer.path());
        url.set_query(answer.query());
    }
    url
}

/// Puts a body that holds the pick into a response, and the URL that it comes from.
fn track(answer: Response, held: Option<Held>, url: Url) -> Result<Response, MiddlewareError> {
    let (parts, body) = http::Response::from(answer).into_parts();
    let mut tracked = http::Response::builder()
        .url(url)
        .body(Body::wrap(Tracked::new(body, held)))
        .map_err(|error| refused(Error::unroutable("its URL", error)))?;
    *tracked.status_mut() = parts.status;
    *tracked.version_mut() = parts.version;
    *tracked.headers_mut() = parts.headers;
    tracked.extensions_mut().extend(parts.extensions);
    Ok(Response::from(tracked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_by_the_url_that_it_is_called_at() {
        for address in [
            "10.0.0.1:80",
            "[2001:db8::1]:443",
            "Some.Host:80",
            "host:8080",
        ] {
            let endpoint = Endpoint::at(address).expect("it is an address");
            let mut url: Url = "http://users/".parse().expect("it is one");
            assert!(!is_at(&url, &endpoint));
            direct(&mut url, &endpoint).expect("a URL can name it");
            assert!(is_at(&url, &endpoint), "{url}");
            url.set_port(Some(1)).expect("it has a host");
            assert!(!is_at(&url, &endpoint), "{url}");
        }
    }

    fn size_of_future<'a, F>(
        _: fn(&'a BalanceMiddleware, Request, &'a mut Extensions, Next<'a>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// As that of a call by hyper, and by the same bound.
    #[test]
    fn the_future_of_a_call_is_small() {
        let size = size_of_future(BalanceMiddleware::call);
        assert!(size <= 1_032, "{size} bytes");
    }
}
