//! The channels of each endpoint.

#![expect(
    private_interfaces,
    reason = "the trait is sealed: only this crate can call what it has"
)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Uri};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint as TonicEndpoint};

use crate::balancer::DetachedPick;
use crate::client::http::{Caller, Route};
use crate::client::service::{Service, Services, States};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// How an endpoint's channels are made.
#[derive(Clone)]
pub struct Channels {
    pub(super) authority: Arc<str>,
    pub(super) tls: Option<ClientTlsConfig>,
    pub(super) connections: u32,
    pub(super) configure: Option<Configure>,
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
            tls: None,
            connections: 1,
            configure: None,
        }
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Connections, Error> {
        let endpoint = self.set_up(endpoint)?;
        let channels = (0..self.connections).map(|_| endpoint.connect_lazy());
        Ok(Connections {
            channels: channels.collect(),
            turn: Arc::default(),
        })
    }

    /// A channel of the endpoint's that is not among those which take turns.
    pub(super) fn connect_once(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        Ok(self.set_up(endpoint)?.connect_lazy())
    }

    fn set_up(&self, endpoint: &Endpoint) -> Result<TonicEndpoint, Error> {
        let refused = |error: tonic::transport::Error| Error::unroutable(endpoint, error);
        let address = endpoint.address();
        if address.host().is_none() {
            let reason = "it is a Unix socket, to which this channel does not connect";
            return Err(Error::unroutable(endpoint, reason));
        }
        let authority = endpoint.authority().unwrap_or(&self.authority);
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{authority}")
            .parse()
            .map_err(|error| Error::unroutable(endpoint, error))?;
        let name = endpoint.tls_name().or(origin.host()).unwrap_or(authority);
        let mut base =
            TonicEndpoint::from_shared(format!("{scheme}://{address}")).map_err(refused)?;
        if let Some(tls) = &self.tls {
            let tls = tls.clone().domain_name(name);
            base = base.tls_config(tls).map_err(refused)?;
        }
        let base = base.origin(origin);
        Ok(match &self.configure {
            Some(configure) => configure(base),
            None => base,
        })
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

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("authority", &self.authority)
            .field("tls", &self.tls.is_some())
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
