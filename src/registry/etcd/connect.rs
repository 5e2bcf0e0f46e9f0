//! Channels to members, over TCP or TLS.

use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint as Target};
use tower_service::Service;

use crate::error::Error;
use crate::registry::tls::Tls;
use crate::registry::transport::tcp;

/// Makes the channels of one cluster.
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
}

impl Connector {
    pub(super) fn new(tls: &Tls, secure: bool) -> Result<Self, Error> {
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config(secure)?)
            .https_or_http()
            .enable_http2()
            .wrap_connector(tcp());
        Ok(Self { inner })
    }

    /// A channel that connects when it is needed, and again when it broke off.
    pub(super) fn channel(&self, url: &str) -> Result<Channel, Error> {
        let connect = Connect {
            secure: url.starts_with("https:"),
            inner: self.inner.clone(),
        };
        Ok(target(url)?.connect_with_connector_lazy(connect))
    }
}

/// How a member is reached: the pings that tell whether it is there.
fn target(url: &str) -> Result<Target, Error> {
    // To tonic, all is plain: TLS is the connector's, which knows our errors
    // and takes the machine's authorities.
    let plain = match url.strip_prefix("https:") {
        Some(rest) => format!("http:{rest}"),
        None => url.to_owned(),
    };
    let target = Target::from_shared(plain).map_err(|error| {
        Error::invalid("url", url, format!("{error}; write `http://host:port`"))
    })?;
    Ok(target
        .connect_timeout(Duration::from_secs(5))
        // A connection that is dead is noticed in the middle of a long watch.
        // etcd cuts off who asks more often than every 5 s.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true))
}

/// TCP, and TLS over it where the URL began with `https`.
#[derive(Clone)]
struct Connect {
    secure: bool,
    inner: HttpsConnector<HttpConnector>,
}

impl Service<Uri> for Connect {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = <HttpsConnector<HttpConnector> as Service<Uri>>::Error;
    type Future = <HttpsConnector<HttpConnector> as Service<Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut parts = uri.into_parts();
        if self.secure {
            parts.scheme = Some(Scheme::HTTPS);
        }
        let uri = Uri::from_parts(parts).expect("another scheme makes no URL a wrong one");
        self.inner.call(uri)
    }
}
