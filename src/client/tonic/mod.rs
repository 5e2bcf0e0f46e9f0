//! A gRPC channel over all endpoints of a service, for generated tonic clients.
//!
//! tonic's own `balance_channel` sees a load of 0 everywhere and goes on
//! sending to endpoints that are dead. Here each endpoint has a lazily connected
//! `Channel` of its own, and calls go through a [`Balancer`]: its strategy sees
//! what is in flight until the last message of a stream, and how calls ended,
//! from `grpc-status` in headers and trailers.
//!
//! ```no_run
//! use waypost::{Balancer, Fixed};
//! # use tonic_health::pb::health_client::HealthClient;
//! # use tonic_health::pb::HealthCheckRequest;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let users = Balancer::builder("users")
//!     .build(Fixed::addresses(["10.0.0.1:50051", "10.0.0.2:50051"])?)
//!     .await?;
//! let mut client = HealthClient::new(users.grpc().build());
//! let answer = client.check(HealthCheckRequest::default()).await?;
//! # let _ = answer;
//! # Ok(()) }
//! ```
//!
//! What stays logical: `:authority` is the service's name (or
//! [`authority`](GrpcBuilder::authority), or what the endpoint's record asks
//! for), and so is the name that a certificate is checked against.
//!
//! A call that is not sent at all fails with a status like any other: `UNAVAILABLE` when there is no
//! endpoint for it or no room, `DEADLINE_EXCEEDED` when its time is over, and `INTERNAL` when it can
//! never be sent. The [`Error`](crate::Error) is the status' `source`.
//!
//! A request's own timeout (`tonic::Request::set_timeout`) is that of all attempts together, each of which
//! is told what is left. As with tonic's channel, it ends with the head of the answer.
//!
//! gRPC calls are all POST, so nothing says which may be repeated. By default
//! only a call that was provably not sent goes elsewhere;
//! [`Retry::any_method`](crate::resilience::Retry::any_method) allows the rest,
//! for the whole channel.

mod channels;
mod load_streams;
#[cfg(feature = "tls")]
mod secured;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::{ClientTlsConfig, Endpoint as TonicEndpoint};
use tower_service::Service;

use super::http::{BalanceLayer, Balanced, BoxError, RecordBody, ReplayBody, Tracked};
use super::settings::setters;
#[cfg(feature = "tls")]
use super::tls::EndpointTls;
use super::{CallSettings, GrpcStatus};
use crate::balancer::Balancer;
use channels::{Channels, Connections, Security};

pub use load_streams::LoadStreams;

impl Balancer {
    /// Sets up a gRPC channel to this service.
    #[must_use]
    pub fn grpc(&self) -> GrpcBuilder {
        GrpcBuilder {
            channels: Channels::new(self.service().as_str()),
            balancer: self.clone(),
            settings: CallSettings::new().classify(GrpcStatus),
        }
    }
}

/// Sets up a [`GrpcChannel`]; made by [`Balancer::grpc`]. The settings of calls
/// are those of [`CallSettings`], with [`GrpcStatus`] as classifier.
#[derive(Clone, Debug)]
pub struct GrpcBuilder {
    channels: Channels,
    balancer: Balancer,
    settings: CallSettings,
}

impl GrpcBuilder {
    /// The `:authority` that calls carry, where an endpoint's record has none;
    /// the service's name by default.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.channels.authority = Arc::from(authority.into());
        self
    }

    /// Connects with TLS. The certificate is checked against the endpoint's
    /// `tls_name`, or else the host of the authority, never its address; a
    /// domain name in `config` is replaced.
    #[must_use]
    pub fn tls(mut self, config: ClientTlsConfig) -> Self {
        self.channels.security = Security::Named(config);
        self
    }

    /// Connects with TLS to endpoints that have to be who `tls` says: of an SPIFFE
    /// ID, also of the one that the endpoint's record names, or of the name as
    /// with [`tls`](Self::tls), which this replaces.
    ///
    /// ```
    /// use waypost::client::tls::{EndpointTls, Identity, SpiffeMatch};
    ///
    /// # fn example(users: waypost::Balancer, roots: rustls::RootCertStore) -> Result<(), waypost::Error> {
    /// let tls = EndpointTls::new(roots)
    ///     .identity(Identity::from_files("/run/tls/cert.pem", "/run/tls/key.pem")?)
    ///     .spiffe([SpiffeMatch::exact("spiffe://example.org/ns/prod/sa/users")?]);
    /// let channel = users.grpc().endpoint_tls(tls).build();
    /// # drop(channel); Ok(()) }
    /// ```
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    #[must_use]
    pub fn endpoint_tls(mut self, tls: EndpointTls) -> Self {
        self.channels.security = Security::Endpoint(tls);
        self
    }

    /// Connections to each endpoint, which take turns; 1 by default. More make
    /// sense where an endpoint allows fewer streams on one than it bears.
    #[must_use]
    pub fn connections(mut self, count: u32) -> Self {
        self.channels.connections = count.max(1);
        self
    }

    /// Timeouts, windows, keep-alive: whatever else tonic lets one set on an
    /// endpoint before it is connected to.
    #[must_use]
    pub fn configure<F>(mut self, configure: F) -> Self
    where
        F: Fn(TonicEndpoint) -> TonicEndpoint + Send + Sync + 'static,
    {
        self.channels.configure = Some(Arc::new(configure));
        self
    }

    /// All settings of calls at once.
    #[must_use]
    pub fn settings(mut self, settings: CallSettings) -> Self {
        self.settings = settings;
        self
    }

    fn set(mut self, set: impl FnOnce(&mut CallSettings)) -> Self {
        set(&mut self.settings);
        self
    }

    setters!(with retry);

    /// The channel. Nothing connects before the first call.
    #[must_use]
    pub fn build(self) -> GrpcChannel {
        let record = RecordBody::new(Body::new as fn(ReplayBody<Body>) -> Body);
        let layer = BalanceLayer::new(self.balancer).settings(self.settings, record);
        GrpcChannel(Balanced::new(self.channels, layer))
    }
}

type Record = RecordBody<fn(ReplayBody<Body>) -> Body>;

/// A channel over all endpoints of a service, in the place of tonic's own:
/// `UsersClient::new(users.grpc().build())`. Clones share their connections.
#[derive(Clone)]
pub struct GrpcChannel(Balanced<Channels, Connections, Record>);

impl Service<Request<Body>> for GrpcChannel {
    type Response = Response<Tracked<Body>>;
    type Error = BoxError;
    type Future = <Balanced<Channels, Connections, Record> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl fmt::Debug for GrpcChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcChannel").finish_non_exhaustive()
    }
}
