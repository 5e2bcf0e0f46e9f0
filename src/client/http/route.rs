//! Two ways to get a request to an endpoint.

#![expect(
    private_interfaces,
    reason = "the trait is sealed: only this crate can call what it has"
)]

use std::fmt;
use std::time::Duration;

use http::header::{Entry, HOST, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Request, Uri};

use super::BoxError;
use crate::balancer::DetachedPick;
use crate::client::service::{self, Service, Services, States};
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;

/// One client for all endpoints, which connects to where the URI says: the
/// endpoint's address is put into the URI, the logical host into `Host`.
#[derive(Clone, Debug)]
pub struct Rewrite<S>(pub(super) S);

/// What a request is rewritten by, made once for each endpoint.
#[derive(Clone, Debug)]
pub struct Address {
    authority: Authority,
    /// The host that most requests are for: the one that the endpoint asks for,
    /// else the service's name.
    host: Option<HeaderValue>,
}

impl Address {
    fn of(endpoint: &Endpoint, service: &ServiceName) -> Result<Self, Error> {
        let host = endpoint.authority().unwrap_or(service.as_str());
        Ok(Self {
            authority: service::authority_of(endpoint)?,
            host: HeaderValue::from_str(host).ok(),
        })
    }

    /// Rewrites a request.
    fn put<B>(
        &self,
        request: &mut Request<B>,
        endpoint: &Endpoint,
        written: Option<&Uri>,
    ) -> Result<(), Error> {
        let usual = self.host.as_ref();
        let mut parts = Parts::default();
        if let Some(uri) = written {
            keep_host(request.headers_mut(), endpoint, uri, usual)?;
            parts.scheme = uri.scheme().cloned();
            parts.path_and_query = uri.path_and_query().cloned();
        } else {
            let uri = std::mem::take(request.uri_mut());
            keep_host(request.headers_mut(), endpoint, &uri, usual)?;
            parts = uri.into_parts();
        }
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() =
            Uri::from_parts(parts).map_err(|error| Error::unroutable(endpoint, error))?;
        Ok(())
    }
}

/// A client for each endpoint, made by a function, which gets requests as the
/// caller wrote them.
#[derive(Clone)]
pub struct Factory<F>(pub(super) F);

impl<F> fmt::Debug for Factory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Factory").finish_non_exhaustive()
    }
}

/// What sends a request. It is called as its own instance, the one that said it
/// was ready; a shared one is cloned for that, and kept only while it is not.
#[derive(Debug)]
pub enum Caller<'a, S> {
    /// One for all endpoints.
    Shared(&'a S),
    /// Made or cloned for this call.
    Own(Box<S>),
}

/// A way to get requests to endpoints. What it takes is private, so that only
/// this crate can implement or use it.
pub trait Route<B>: Clone + Send + Sync + 'static {
    /// What is kept for each endpoint.
    type Kept: Clone + Send + Sync + 'static;
    /// What sends.
    type Client: Clone + Send + Sync;

    /// The service that a request is for; none when it passes as it is.
    ///
    /// # Errors
    ///
    /// When this way leads nowhere for such a URI.
    fn find<'a>(
        services: &'a Services,
        states: &'a States<Self::Kept>,
        uri: &Uri,
    ) -> Result<Option<Service<'a, Self::Kept>>, Error>;

    /// How long its caller lets a whole call take, as the request says to its client.
    fn patience(request: &Request<B>) -> Option<Duration> {
        let _ = request;
        None
    }

    /// Says in a request that is sent again what is left of that.
    fn shorten(request: &mut Request<B>, left: Duration) {
        let _ = (request, left);
    }

    /// An error of ours in the client's terms.
    #[must_use]
    fn ours(error: Error) -> BoxError {
        error.into()
    }

    /// The client for a request that passes as it is.
    fn passing(&self) -> Option<Caller<'_, Self::Client>>;

    /// The client that the request, once prepared, goes to the endpoint with. Its URI
    /// is `written` where it is kept apart, and then not in the request.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be called in this way.
    fn direct(
        &self,
        service: &Service<'_, Self::Kept>,
        pick: &DetachedPick,
        request: &mut Request<B>,
        written: Option<&Uri>,
    ) -> Result<Caller<'_, Self::Client>, Error>;
}

impl<B, S: Clone + Send + Sync + 'static> Route<B> for Rewrite<S> {
    type Kept = Address;
    type Client = S;

    fn find<'a>(
        services: &'a Services,
        states: &'a States<Address>,
        uri: &Uri,
    ) -> Result<Option<Service<'a, Address>>, Error> {
        let service = services.find(states, uri)?;
        if service.is_some() && uri.scheme() == Some(&Scheme::HTTPS) {
            let reason = "it is https: rewritten to an endpoint's address, the certificate would \
                          be checked against that address; use a client for each endpoint \
                          (`BalanceLayer::per_endpoint`)";
            return Err(Error::unroutable(service::shown(uri), reason));
        }
        Ok(service)
    }

    fn passing(&self) -> Option<Caller<'_, S>> {
        Some(Caller::Shared(&self.0))
    }

    fn direct(
        &self,
        service: &Service<'_, Address>,
        pick: &DetachedPick,
        request: &mut Request<B>,
        written: Option<&Uri>,
    ) -> Result<Caller<'_, S>, Error> {
        let kept = &service.state.endpoints;
        let name = service.balancer.service();
        let of = |endpoint: &Endpoint| Address::of(endpoint, name);
        kept.with(&service.balancer, pick, of, |to| {
            to.put(request, pick, written)
        })??;
        Ok(Caller::Shared(&self.0))
    }
}

impl<B, F, S, E> Route<B> for Factory<F>
where
    F: Fn(&Endpoint) -> Result<S, E> + Clone + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
    E: Into<BoxError>,
{
    type Kept = S;
    type Client = S;

    fn find<'a>(
        services: &'a Services,
        states: &'a States<S>,
        uri: &Uri,
    ) -> Result<Option<Service<'a, S>>, Error> {
        services.find_any_host(states, uri).map(Some)
    }

    fn passing(&self) -> Option<Caller<'_, S>> {
        None
    }

    fn direct(
        &self,
        service: &Service<'_, S>,
        pick: &DetachedPick,
        request: &mut Request<B>,
        written: Option<&Uri>,
    ) -> Result<Caller<'_, S>, Error> {
        if let Some(uri) = written {
            request.uri_mut().clone_from(uri);
        }
        if pick.authority().is_some() {
            let uri = request.uri().clone();
            keep_host(request.headers_mut(), pick, &uri, None)?;
        }
        let kept = &service.state.endpoints;
        let make = |endpoint: &Endpoint| {
            let error = |error: E| Error::unroutable(endpoint, error.into());
            (self.0)(endpoint).map_err(error)
        };
        let client = kept.with(&service.balancer, pick, make, S::clone)?;
        Ok(Caller::Own(Box::new(client)))
    }
}

/// Writes down the host that a request is for, unless the caller has.
fn keep_host(
    headers: &mut HeaderMap,
    endpoint: &Endpoint,
    uri: &Uri,
    usual: Option<&HeaderValue>,
) -> Result<(), Error> {
    let Entry::Vacant(place) = headers.entry(HOST) else {
        return Ok(());
    };
    // As it is, before it is taken apart.
    let written = || uri.authority().map(Authority::as_str);
    if let Some(usual) = usual
        && let Some(host) = endpoint.authority().or_else(written)
        && usual == host
    {
        place.insert(usual.clone());
    } else if let Some(host) = service::logical_host(endpoint, uri) {
        let value = HeaderValue::from_str(host);
        place.insert(value.map_err(|error| Error::unroutable(host, error))?);
    }
    Ok(())
}
