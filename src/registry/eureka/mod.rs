//! Eureka, over its REST API, in JSON.
//!
//! **Problem.** A Eureka server is asked again and again: it cannot tell what
//! changed. It answers with every instance of every application, is up to half
//! a minute behind itself, and never evicts more than 15 % at once.
//!
//! **Idea.** One reader for all services of a [`Eureka`]: it fetches everything
//! once, then only what changed (`/apps/delta`), and checks after each step that
//! its counts are the server's (`apps__hashcode`); where they are not, it
//! fetches everything again. Writing is an instance whose lease is renewed for
//! as long as this process lives; when the server does not know it any more, it
//! is registered again.
//!
//! ```no_run
//! use waypost::registry::eureka::Eureka;
//! use waypost::{Balancer, Endpoint, Registry};
//!
//! # async fn example() -> Result<(), waypost::Error> {
//! let eureka = Eureka::builder("http://10.0.0.5:8761/eureka")
//!     .server("http://10.0.0.6:8761/eureka")
//!     .build()?;
//! let here = Endpoint::builder("10.0.0.1:8080").id("users-7").zone("eu-1a").build()?;
//! let registration = eureka.register(&"users".parse()?, here).await?;
//! let users = Balancer::builder("users").build(eureka).await?;
//! println!("{}", users.pick()?.address());
//! registration.deregister().await?;
//! # Ok(()) }
//! ```
//!
//! # How an endpoint is written
//!
//! | endpoint | Eureka |
//! | --- | --- |
//! | service | `app`, in capitals: names that differ in case only are one |
//! | id | `instanceId`; `metadata.waypost-id` where a path takes no such text |
//! | address | `ipAddr`, `hostName` and `port` |
//! | zone | `metadata.zone`, as Spring does; read from Amazon's `availability-zone`, too |
//! | status | `UP`, `OUT_OF_SERVICE` (draining), `DOWN`, `STARTING` |
//! | weight, priority, region, sub-zone, TLS name, authority | `metadata.waypost-…` where they are not the default |
//! | metadata | `metadata`, under its own keys |
//!
//! # Traps
//!
//! - A change is seen after the fetch interval, and what servers cache (30 s by
//!   their default) comes on top.
//! - A server renews a lease for twice its duration (a known mistake that is
//!   kept), and when fewer than 85 % of the renewals that it expects arrive, it
//!   evicts nothing (*self-preservation*): instances that died stay `UP`. They
//!   are found by the calls that fail.

mod apps;
mod entry;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

#[cfg(any(test, fuzzing))]
pub(crate) use self::apps::fuzz;
use self::entry::Entry;
use self::source::{Fetcher, Polled};
use super::announce::announce;
use super::follow::follow;
use super::http::{Ask, Servers, encoded, path_safe};
use super::tls::Tls;
use super::{Discover, Registration, Registry};
use crate::endpoint::{Endpoint, EndpointId, EndpointSet, ServiceName, Status};
use crate::error::Error;

/// A registry in Eureka.
///
/// Clones share what they read.
#[derive(Clone)]
pub struct Eureka {
    shared: Arc<Shared>,
}

/// What every watch and every registration needs.
struct Shared {
    servers: Arc<Servers>,
    timeout: Duration,
    fetch: Duration,
    renew: Duration,
    lease: Duration,
    fetcher: tokio::sync::Mutex<Fetcher>,
    /// That calls fail.
    hint: tokio::sync::Notify,
}

/// Collects the settings of a [`Eureka`]; [`build`](Self::build) checks them.
#[derive(Clone)]
#[must_use = "a registry is made by `build`"]
pub struct EurekaBuilder {
    urls: Vec<String>,
    tls: Tls,
    timeout: Duration,
    fetch: Duration,
    renew: Duration,
    lease: Duration,
    max_body: usize,
}

impl Eureka {
    /// The server whose API is below `url`, such as
    /// `http://10.0.0.5:8761/eureka` (Spring) or `…/eureka/v2` (Netflix).
    pub fn builder(url: impl Into<String>) -> EurekaBuilder {
        EurekaBuilder {
            urls: vec![url.into()],
            tls: Tls::default(),
            timeout: Duration::from_secs(8),
            fetch: Duration::from_secs(30),
            renew: Duration::from_secs(30),
            lease: Duration::from_secs(90),
            max_body: 128 * 1024 * 1024,
        }
    }

    /// Puts a status over what an instance says of itself, for an operator's
    /// tools; `None` takes the override away.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the instance is not there, or the server
    /// cannot be reached.
    pub async fn override_status(
        &self,
        service: &ServiceName,
        id: &EndpointId,
        status: Option<Status>,
    ) -> Result<(), Error> {
        let path = Shared::instance(service, id);
        let ask = match status {
            Some(status) => {
                let path = format!("{path}/status?value={}", apps::word(status));
                self.shared.ask(Method::PUT, path)
            }
            None => self.shared.ask(Method::DELETE, format!("{path}/status")),
        };
        let ok = |status| status == StatusCode::OK;
        self.shared.servers.ask_any(&ask, ok).await.map(|_| ())
    }
}

impl EurekaBuilder {
    /// Another server, to turn to when those before it fail. Name those of the
    /// own zone first.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// The authorities to trust for `https`, as PEM; the machine's own where
    /// none are given.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// This client's certificate chain and its key, as PEM.
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.identity = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// How long a request may take; 8 s by default, as Netflix' client.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time between two fetches; 30 s by default.
    pub fn fetch_interval(mut self, every: Duration) -> Self {
        self.fetch = every;
        self
    }

    /// The time between two renewals, and the lease that they renew, in whole
    /// seconds; 30 s and 90 s by default.
    pub fn lease(mut self, renew: Duration, lease: Duration) -> Self {
        (self.renew, self.lease) = (renew, lease);
        self
    }

    /// The most bytes that are read of one answer; 128 MiB by default.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Checks the settings. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`], with the setting and the reason.
    pub fn build(self) -> Result<Eureka, Error> {
        let refused = |field, value: Duration, reason| {
            Err(Error::invalid(field, format!("{value:?}"), reason))
        };
        if self.timeout.is_zero() {
            return refused(
                "request_timeout",
                self.timeout,
                "no answer would be in time",
            );
        }
        if self.fetch < Duration::from_millis(10) {
            return refused("fetch_interval", self.fetch, "it must be at least 10 ms");
        }
        if self.renew < Duration::from_secs(1) || self.renew.subsec_nanos() > 0 {
            return refused("lease", self.renew, "renewals come every 1, 2, … seconds");
        }
        if self.lease < 2 * self.renew || self.lease.subsec_nanos() > 0 {
            let reason = "a lease has whole seconds, and at least two renewals";
            return refused("lease", self.lease, reason);
        }
        if self.max_body == 0 {
            return Err(Error::invalid("max_body", 0, "no answer would fit"));
        }
        let mut headers = HeaderMap::new();
        // Without it, the answer is XML.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let servers = Servers::new("eureka", &self.urls, headers, &self.tls, self.max_body)?;
        let shared = Shared {
            servers,
            timeout: self.timeout,
            fetch: self.fetch,
            renew: self.renew,
            lease: self.lease,
            fetcher: tokio::sync::Mutex::default(),
            hint: tokio::sync::Notify::new(),
        };
        Ok(Eureka {
            shared: Arc::new(shared),
        })
    }
}

impl Shared {
    fn ask(&self, method: Method, path: String) -> Ask {
        Ask {
            method,
            path,
            body: bytes::Bytes::new(),
            like: Arc::default(),
            within: self.timeout,
        }
    }

    fn app(service: &ServiceName) -> String {
        service.as_str().to_ascii_uppercase()
    }

    fn instance(service: &ServiceName, id: &EndpointId) -> String {
        let id = encoded(&path_safe(id.as_str()));
        format!("/apps/{}/{id}", encoded(&Self::app(service)))
    }
}

impl fmt::Debug for Eureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Eureka").field(&self.shared.servers).finish()
    }
}

impl fmt::Debug for EurekaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaBuilder")
            .field("servers", &self.urls.len())
            .field("request_timeout", &self.timeout)
            .field("fetch_interval", &self.fetch)
            .field("lease", &(self.renew, self.lease))
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

impl Discover for Eureka {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        follow(Polled::new(Arc::clone(&self.shared), service))
    }

    /// Fetches now, and not when the interval is over; at most once a second.
    /// The answer is for all services.
    fn look_again(&self, _service: &ServiceName) {
        self.shared.hint.notify_waiters();
    }
}

impl Registry for Eureka {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        async move {
            let entry = Entry::new(Arc::clone(&self.shared), service, &endpoint)?;
            announce(entry, service, endpoint).await
        }
        .boxed()
    }
}
