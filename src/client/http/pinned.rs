//! A connector that goes to one endpoint, whatever a URI says.

use std::task::{Context, Poll};

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use tower_service::Service;

use crate::client::service::authority_of;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// A connector for [`BalanceLayer::per_endpoint`](super::BalanceLayer): it
/// wraps one such as hyper-util's `HttpConnector` and sends it to the endpoint,
/// so that a TLS connector around it takes the name from the URI as the caller
/// wrote it.
///
/// ```no_run
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use hyper_util::rt::TokioExecutor;
/// use waypost::Endpoint;
/// use waypost::client::http::{BalanceLayer, Pinned};
///
/// type Body = http_body_util::Full<bytes::Bytes>;
///
/// fn example(users: waypost::Balancer, tls: rustls::ClientConfig) {
///     let client = BalanceLayer::new(users).per_endpoint(move |endpoint: &Endpoint| {
///         let connector = hyper_rustls::HttpsConnectorBuilder::new()
///             .with_tls_config(tls.clone())
///             .https_or_http()
///             .enable_all_versions()
///             .wrap_connector(Pinned::new(HttpConnector::new(), endpoint)?);
///         let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
///         Ok::<_, waypost::Error>(client)
///     });
///     # let _ = client;
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Pinned<C> {
    connector: C,
    uri: Uri,
}

impl<C> Pinned<C> {
    /// Sends `connector` to this endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::is_unroutable`] when the endpoint is a Unix socket.
    pub fn new(connector: C, endpoint: &Endpoint) -> Result<Self, Error> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority_of(endpoint)?);
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let uri = Uri::from_parts(parts).map_err(|error| Error::unroutable(endpoint, error))?;
        Ok(Self { connector, uri })
    }
}

impl<C: Service<Uri>> Service<Uri> for Pinned<C> {
    type Response = C::Response;
    type Error = C::Error;
    type Future = C::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, _: Uri) -> C::Future {
        self.connector.call(self.uri.clone())
    }
}
