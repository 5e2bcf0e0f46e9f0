//! A client that connects to one endpoint, whatever a URL says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Url};

use crate::endpoint::{Address, Endpoint};
use crate::error::Error;

/// A client that takes every host name for this endpoint's address, follows no
/// redirect and asks no proxy; of what else the builder says.
///
/// A URL that names a port, or an IP address as host, goes there all the same:
/// neither is resolved.
///
/// # Errors
///
/// [`Error::is_unroutable`] when the endpoint is a Unix socket, or reqwest
/// cannot build the client.
pub fn pinned_client(builder: ClientBuilder, endpoint: &Endpoint) -> Result<Client, Error> {
    if endpoint.address().host().is_none() {
        let reason = "it is a Unix socket, to which reqwest does not connect by name";
        return Err(Error::unroutable(endpoint, reason));
    }
    builder
        .dns_resolver(Arc::new(Pinned(endpoint.address().clone())))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| Error::unroutable(endpoint, error))
}

/// Makes a URL one that a pinned client connects to its endpoint with: without
/// a port, and with the name that the certificate is checked against.
pub(super) fn prepare(url: &mut Url, endpoint: &Endpoint) -> Result<(), Error> {
    url.set_port(None)
        .map_err(|()| Error::unroutable(endpoint, "its URL cannot have a port"))?;
    if let Some(name) = endpoint.tls_name() {
        url.set_host(Some(name))
            .map_err(|error| Error::unroutable(endpoint, error))?;
    }
    Ok(())
}

struct Pinned(Address);

impl Resolve for Pinned {
    fn resolve(&self, _: Name) -> Resolving {
        if let Some(address) = self.0.socket_addr() {
            let addrs: Addrs = Box::new(std::iter::once(address));
            return Box::pin(std::future::ready(Ok(addrs)));
        }
        let address = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(address.as_str()).await?.collect();
            if found.is_empty() {
                return Err(io::Error::other(format!("{address} has no IP address")).into());
            }
            let addrs: Addrs = Box::new(found.into_iter());
            Ok(addrs)
        })
    }
}
