//! Asks endpoints whether they are well.
//!
//! A probe opens a connection ([`HealthCheck::tcp`]), asks for a page
//! ([`HealthCheck::http`]), speaks gRPC's health protocol
//! (`HealthCheck::grpc`), or does what you say ([`HealthCheck::custom`]), again
//! and again; over TLS where the endpoint speaks it (`HealthCheck::tls`). An endpoint that fails some in a row gets no calls until it passes
//! some in a row. All balancers of a process that probe the same endpoint in the
//! same way share its probes.
//!
//! What the registry says and what probes say combine as in Envoy:
//!
//! | | passes | fails |
//! | --- | --- | --- |
//! | in the registry | gets calls | gets none |
//! | no longer there | **still gets calls** | is gone |
//!
//! So a registry that loses its memory does not take down a service that runs.
//!
//! ```
//! use std::time::Duration;
//! use waypost::Balancer;
//! use waypost::health::check::HealthCheck;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let check = HealthCheck::http("/healthz").interval(Duration::from_secs(5));
//! let (users, _updater) = Balancer::builder("users").health_check(check).manual()?;
//! # let _ = users; Ok(()) }
//! ```

#[cfg(feature = "tonic")]
mod grpc;
mod http;
mod machine;
mod probe;
mod prober;
#[cfg(feature = "tls")]
mod tls;
mod traffic;
mod watched;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;

pub use machine::{Answer, Health, Schedule};
pub(crate) use watched::Watched;

use crate::endpoint::Endpoint;
use crate::error::Error;

/// How endpoints are probed.
#[derive(Clone, Debug)]
#[must_use]
pub struct HealthCheck {
    pub(crate) probe: Probe,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Tls>,
    #[cfg(feature = "tonic")]
    pub(crate) scheme: &'static str,
    pub(crate) timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) port: Option<u16>,
    pub(crate) keeps_absent: bool,
    pub(crate) ends_ejection: bool,
}

/// When the next probe is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) unhealthy_interval: Option<Duration>,
    pub(crate) edge_interval: Option<Duration>,
    pub(crate) no_traffic_interval: Option<Duration>,
    pub(crate) jitter: Duration,
    pub(crate) healthy_threshold: u32,
    pub(crate) unhealthy_threshold: u32,
}

/// What is asked.
#[derive(Clone)]
pub(crate) enum Probe {
    Tcp,
    Http(HttpProbe),
    #[cfg(feature = "tonic")]
    Grpc {
        service: String,
        authority: Option<String>,
    },
    /// The number tells closures apart.
    Custom(u64, CustomProbe),
}

type CustomProbe =
    Arc<dyn Fn(Arc<Endpoint>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

#[derive(Clone, Debug)]
pub(crate) struct HttpProbe {
    pub(crate) path: String,
    pub(crate) host: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) statuses: RangeInclusive<u16>,
    pub(crate) body: Option<String>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("Tcp"),
            // Header values may be secrets.
            Self::Http(http) => f.debug_tuple("Http").field(&http.path).finish(),
            #[cfg(feature = "tonic")]
            Self::Grpc { service, .. } => f.debug_tuple("Grpc").field(service).finish(),
            Self::Custom(number, _) => f.debug_tuple("Custom").field(number).finish(),
        }
    }
}

impl HealthCheck {
    fn new(probe: Probe, ends_ejection: bool) -> Self {
        Self {
            probe,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tonic")]
            scheme: "http",
            timeout: Duration::from_secs(1),
            pace: Pace {
                interval: Duration::from_secs(10),
                unhealthy_interval: None,
                edge_interval: None,
                no_traffic_interval: None,
                jitter: Duration::from_secs(1),
                healthy_threshold: 2,
                unhealthy_threshold: 3,
            },
            port: None,
            keeps_absent: true,
            ends_ejection,
        }
    }

    /// Well is who accepts a connection.
    ///
    /// A port that is open says little about answers, so it does not end an
    /// ejection, unless [`ends_ejection`](Self::ends_ejection) is set.
    pub fn tcp() -> Self {
        Self::new(Probe::Tcp, false)
    }

    /// Well is who answers `GET path` over HTTP/1.1 with 200. An answer with
    /// the header `x-envoy-immediate-health-check-fail` counts as failed for
    /// good.
    pub fn http(path: impl Into<String>) -> Self {
        let http = HttpProbe {
            path: path.into(),
            host: None,
            headers: Vec::new(),
            statuses: 200..=200,
            body: None,
        };
        Self::new(Probe::Http(http), true)
    }

    /// Well is who answers `grpc.health.v1.Health/Check` for that service with
    /// `SERVING`, over HTTP/2; an empty name asks for the server as a whole.
    ///
    /// Any other answer counts at once, also that the server does not know the
    /// protocol.
    ///
    /// ```
    /// use waypost::Balancer;
    /// use waypost::health::check::HealthCheck;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), waypost::Error> {
    /// let check = HealthCheck::grpc("users.v1.Users");
    /// let (users, _updater) = Balancer::builder("users").health_check(check).manual()?;
    /// # let _ = users; Ok(()) }
    /// ```
    #[cfg(feature = "tonic")]
    pub fn grpc(service: impl Into<String>) -> Self {
        let probe = Probe::Grpc {
            service: service.into(),
            authority: None,
        };
        Self::new(probe, true)
    }

    /// Well is who `probe` says is: with an error, it is not, and its text says
    /// why. Shared among the balancers that get a clone of this check.
    pub fn custom<F, R>(probe: F) -> Self
    where
        F: Fn(Arc<Endpoint>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let boxed = move |endpoint| -> BoxFuture<'static, _> { Box::pin(probe(endpoint)) };
        Self::new(Probe::Custom(number, Arc::new(boxed)), true)
    }

    /// Which statuses are well, 200 alone by default. For HTTP.
    pub fn statuses(mut self, statuses: RangeInclusive<u16>) -> Self {
        if let Probe::Http(http) = &mut self.probe {
            http.statuses = statuses;
        }
        self
    }

    /// What the first 1,024 bytes of the body must hold. For HTTP.
    pub fn body_contains(mut self, text: impl Into<String>) -> Self {
        if let Probe::Http(http) = &mut self.probe {
            http.body = Some(text.into());
        }
        self
    }

    /// The `Host` to ask for; the endpoint's authority or address by default.
    /// For HTTP and gRPC.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        match &mut self.probe {
            Probe::Http(http) => http.host = Some(host.into()),
            #[cfg(feature = "tonic")]
            Probe::Grpc { authority, .. } => *authority = Some(host.into()),
            Probe::Tcp | Probe::Custom(..) => {}
        }
        self
    }

    /// Probes over TLS, configured for each endpoint by `config`, such as
    /// [`EndpointTls::config`](crate::client::tls::EndpointTls::config). Its
    /// certificate is checked against the endpoint's
    /// [`tls_name`](crate::Endpoint::tls_name), else the host that is asked for.
    ///
    /// ```
    /// # fn example(tls: waypost::client::tls::EndpointTls) {
    /// use waypost::health::check::HealthCheck;
    ///
    /// let check = HealthCheck::http("/healthz").tls(move |endpoint| tls.config(endpoint));
    /// # let _ = check; }
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls<F>(mut self, config: F) -> Self
    where
        F: Fn(&Endpoint) -> Result<rustls::ClientConfig, Error> + Send + Sync + 'static,
    {
        self.tls = Some(tls::Tls::new(config));
        #[cfg(feature = "tonic")]
        {
            self.scheme = "https";
        }
        self
    }

    /// One more header to send. For HTTP.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Probe::Http(http) = &mut self.probe {
            http.headers.push((name.into(), value.into()));
        }
        self
    }

    /// How long a probe may take, 1 s by default; then it has failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often an endpoint is probed, 10 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.pace.interval = interval;
        self
    }

    /// How often one is probed that is not well; as often as others by default.
    pub fn unhealthy_interval(mut self, interval: Duration) -> Self {
        self.pace.unhealthy_interval = Some(interval);
        self
    }

    /// How often one is probed whose last probe said otherwise than what it is
    /// taken for; as often as others by default.
    pub fn edge_interval(mut self, interval: Duration) -> Self {
        self.pace.edge_interval = Some(interval);
        self
    }

    /// How often endpoints are probed of a service that was never called; as
    /// often as of others by default. Once there is a call, the usual interval
    /// is back within its own length.
    pub fn no_traffic_interval(mut self, interval: Duration) -> Self {
        self.pace.no_traffic_interval = Some(interval);
        self
    }

    /// Up to so much is added to each interval, drawn at random, and the first
    /// probe comes within it: 1 s by default. Many clients do not probe in step.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.pace.jitter = jitter;
        self
    }

    /// After how many passes in a row an endpoint is well again, 2 by default.
    /// The first probe of all counts at once.
    pub fn healthy_threshold(mut self, passes: u32) -> Self {
        self.pace.healthy_threshold = passes;
        self
    }

    /// After how many failures in a row one is not well, 3 by default. An HTTP
    /// status that is not expected counts at once.
    pub fn unhealthy_threshold(mut self, failures: u32) -> Self {
        self.pace.unhealthy_threshold = failures;
        self
    }

    /// Probes another port than calls go to.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Whether an endpoint that passes gets calls though the registry no longer
    /// tells of it: true by default.
    pub fn keep_absent(mut self, keep: bool) -> Self {
        self.keeps_absent = keep;
        self
    }

    /// Whether a pass ends an ejection: true but for TCP.
    pub fn ends_ejection(mut self, ends: bool) -> Self {
        self.ends_ejection = ends;
        self
    }

    /// The host that was set.
    fn asked_host(&self) -> Option<&str> {
        match &self.probe {
            Probe::Http(http) => http.host.as_deref(),
            #[cfg(feature = "tonic")]
            Probe::Grpc { authority, .. } => authority.as_deref(),
            Probe::Tcp | Probe::Custom(..) => None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let zero = [
            ("health_check.interval", self.pace.interval.is_zero()),
            (
                "health_check.no_traffic_interval",
                self.pace.no_traffic_interval.is_some_and(|it| it.is_zero()),
            ),
            ("health_check.timeout", self.timeout.is_zero()),
            (
                "health_check.healthy_threshold",
                self.pace.healthy_threshold == 0,
            ),
            (
                "health_check.unhealthy_threshold",
                self.pace.unhealthy_threshold == 0,
            ),
            ("health_check.port", self.port == Some(0)),
        ];
        if let Some((field, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(Error::invalid(field, 0, "must be more than nothing"));
        }
        let breaks = |text: &str| {
            text.bytes()
                .any(|byte| byte.is_ascii_control() || byte == b' ')
        };
        if let Some(host) = self.asked_host().filter(|host| breaks(host)) {
            let reason = "must hold neither spaces nor control characters";
            let host = host.escape_debug();
            return Err(Error::invalid("health_check.host", host, reason));
        }
        let Probe::Http(http) = &self.probe else {
            return Ok(());
        };
        if !http.path.starts_with('/') {
            let reason = "must begin with `/`";
            return Err(Error::invalid("health_check.path", &http.path, reason));
        }
        if breaks(&http.path) {
            let reason = "must hold neither spaces nor control characters";
            return Err(Error::invalid("health_check.path", &http.path, reason));
        }
        let breaks = |text: &str| text.bytes().any(|byte| byte.is_ascii_control());
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if let Some((name, _)) = http
            .headers
            .iter()
            .find(|(name, value)| !is_name(name) || breaks(value))
        {
            let reason = "must be a name of letters, digits and `-`, with a value of one line";
            return Err(Error::invalid("health_check.header", name, reason));
        }
        Ok(())
    }
}
