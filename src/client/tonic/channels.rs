//! The channels of each endpoint.

#![expect(
    private_interfaces,
    reason = "the trait is sealed: only this crate can call what it has"
)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Uri};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint as TonicEndpoint};
use tonic::{Code, Status};

#[cfg(feature = "tls")]
use super::secured::Secured;
use crate::balancer::DetachedPick;
use crate::client::http::{BoxError, Caller, Route};
use crate::client::service::{Service, Services, States};
#[cfg(feature = "tls")]
use crate::client::tls::EndpointTls;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// How an endpoint's channels are made.
#[derive(Clone)]
pub struct Channels {
    pub(super) authority: Arc<str>,
    pub(super) security: Security,
    pub(super) connections: u32,
    pub(super) configure: Option<Configure>,
}

/// Who an endpoint has to be.
#[derive(Clone)]
pub(super) enum Security {
    /// Anybody: calls go in the clear.
    None,
    /// Whom tonic's own TLS takes for it.
    Named(ClientTlsConfig),
    /// Whom this takes for it.
    #[cfg(feature = "tls")]
    Endpoint(EndpointTls),
}

type Configure = Arc<dyn Fn(TonicEndpoint) -> TonicEndpoint + Send + Sync>;

/// The channels of one endpoint, which take turns.
#[derive(Clone, Debug)]
pub struct Connections {
    channels: Arc<[Channel]>,
    turn: Arc<AtomicUsize>,
}

impl Channels {
    pub(super) fn new(authority: &str) -> Self {
        Self {
            authority: Arc::from(authority),
            security: Security::None,
            connections: 1,
            configure: None,
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Connections, Error> {
        let target = self.target(endpoint)?;
        let channels = (0..self.connections).map(|_| target.channel());
        Ok(Connections {
            channels: channels.collect(),
            turn: Arc::default(),
        })
    }

    /// A channel of the endpoint's that is not among those which take turns.
    pub(super) fn connect_once(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        Ok(self.target(endpoint)?.channel())
    }

    fn target(&self, endpoint: &Endpoint) -> Result<Target, Error> {
        let refused = |error: tonic::transport::Error| Error::unroutable(endpoint, error);
        let address = endpoint.address();
        if address.host().is_none() {
            let reason = "it is a Unix socket, to which this channel does not connect";
            return Err(Error::unroutable(endpoint, reason));
        }
        let authority = endpoint.authority().unwrap_or(&self.authority);
        let is_plain = matches!(self.security, Security::None);
        let scheme = if is_plain { "http" } else { "https" };
        let origin: Uri = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| Error::unroutable(endpoint, error))?;
        let name = endpoint.tls_name().or(origin.host()).unwrap_or(authority);
        // To tonic, all is plain but its own TLS.
        let is_tonics = matches!(self.security, Security::Named(_));
        let seen = if is_tonics { "https" } else { "http" };
        let base = TonicEndpoint::from_shared(format!("{seen}://{address}"));
        let mut base = base.map_err(refused)?;
        if let Security::Named(tls) = &self.security {
            let tls = tls.clone().domain_name(name);
            base = base.tls_config(tls).map_err(refused)?;
        }
        let base = base.origin(origin.clone());
        let base = match &self.configure {
            Some(configure) => configure(base),
            None => base,
        };
        Ok(Target {
            #[cfg(feature = "tls")]
            secured: match &self.security {
                Security::Endpoint(tls) => {
                    Some(Secured::new(tls, endpoint, name)?.set_up_as(&base))
                }
                _ => None,
            },
            endpoint: base,
        })
    }
}

/// Where channels connect to, and how.
struct Target {
    endpoint: TonicEndpoint,
    /// None where the channel itself knows.
    #[cfg(feature = "tls")]
    secured: Option<Secured>,
}

impl Target {
    /// One that connects when it is needed.
    fn channel(&self) -> Channel {
        #[cfg(feature = "tls")]
        if let Some(secured) = &self.secured {
            return self.endpoint.connect_with_connector_lazy(secured.clone());
        }
        self.endpoint.connect_lazy()
    }
}

impl Route<tonic::body::Body> for Channels {
    type Kept = Connections;
    type Client = Channel;

    fn find<'a>(
        services: &'a Services,
        states: &'a States<Connections>,
        uri: &Uri,
    ) -> Result<Option<Service<'a, Connections>>, Error> {
        services.find_any_host(states, uri).map(Some)
    }

    fn patience(request: &Request<tonic::body::Body>) -> Option<Duration> {
        patience(request.headers().get(TIMEOUT)?.to_str().ok()?)
    }

    fn shorten(request: &mut Request<tonic::body::Body>, left: Duration) {
        if let Ok(value) = HeaderValue::try_from(shortened(left)) {
            request.headers_mut().insert(TIMEOUT, value);
        }
    }

    /// A status, as generated clients hand no other error on: of one that they do not know
    /// they make `UNKNOWN`.
    fn ours(error: Error) -> BoxError {
        let code = if error.is_timed_out() {
            Code::DeadlineExceeded
        } else if error.is_transient() {
            Code::Unavailable
        } else {
            Code::Internal
        };
        let mut status = Status::new(code, error.to_string());
        status.set_source(Arc::new(error));
        status.into()
    }

    fn passing(&self) -> Option<Caller<'_, Channel>> {
        None
    }

    fn direct(
        &self,
        service: &Service<'_, Connections>,
        pick: &DetachedPick,
        request: &mut Request<tonic::body::Body>,
        written: Option<&Uri>,
    ) -> Result<Caller<'_, Channel>, Error> {
        if let Some(uri) = written {
            request.uri_mut().clone_from(uri);
        }
        let kept = &service.state.endpoints;
        let connect = |endpoint: &Endpoint| self.connect(endpoint);
        let next = |connections: &Connections| {
            let turn = connections.turn.fetch_add(1, Ordering::Relaxed);
            connections.channels[turn % connections.channels.len()].clone()
        };
        let channel = kept.with(&service.balancer, pick, connect, next)?;
        Ok(Caller::Own(Box::new(channel)))
    }
}

const TIMEOUT: &str = "grpc-timeout";

/// Of gRPC's protocol over HTTP/2: at most eight digits, and a unit.
fn patience(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(count),
        "M" => Duration::from_mins(count),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// As exact as eight digits can be.
fn shortened(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units = [(left.as_micros(), 'u'), (left.as_millis(), 'm')];
    let fits = units.into_iter().find(|(count, _)| *count <= MOST);
    let (count, unit) = fits.unwrap_or_else(|| (u128::from(left.as_secs()).min(MOST), 'S'));
    format!("{count}{unit}")
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("authority", &self.authority)
            .field("tls", &!matches!(self.security, Security::None))
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_in_any_unit_and_written_as_exactly_as_it_can_be() {
        for (text, told) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("1s", None),
            ("1\u{b5}", None),
        ] {
            assert_eq!(patience(text), told, "{text:?}");
        }
        for (left, text) in [
            (Duration::ZERO, "0u"),
            (Duration::from_millis(250), "250000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_hours(100), "360000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(shortened(left), text);
            let read = patience(text).expect("it can be read");
            assert!(read <= left);
        }
    }
}
