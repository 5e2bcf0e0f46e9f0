//! Connections to endpoints that [`EndpointTls`] takes for who they have to be.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint as TonicEndpoint;
use tower_service::Service;

use crate::client::http::BoxError;
use crate::client::tls::EndpointTls;
use crate::endpoint::Endpoint;
use crate::error::Error;

const HTTP2: &[u8] = b"h2";

/// Connects to one endpoint by TCP and TLS; a connector for tonic, whose own TLS
/// checks names and nothing else.
#[derive(Clone)]
pub(super) struct Secured {
    tcp: HttpConnector,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Secured {
    /// `name` is sent as SNI, and checked where no SPIFFE IDs are.
    pub(super) fn new(tls: &EndpointTls, endpoint: &Endpoint, name: &str) -> Result<Self, Error> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Error::unroutable(endpoint, error))?;
        let mut config = tls.config(endpoint)?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Self {
            tcp: HttpConnector::new(),
            tls: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// With what is set on the endpoint for the connection.
    pub(super) fn set_up_as(mut self, endpoint: &TonicEndpoint) -> Self {
        self.tcp.set_nodelay(endpoint.get_tcp_nodelay());
        self.tcp.set_keepalive(endpoint.get_tcp_keepalive());
        let every = endpoint.get_tcp_keepalive_interval();
        self.tcp.set_keepalive_interval(every);
        let tries = endpoint.get_tcp_keepalive_retries();
        self.tcp.set_keepalive_retries(tries);
        self
    }
}

impl Service<Uri> for Secured {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        let (tls, name) = (self.tls.clone(), self.name.clone());
        Box::pin(async move {
            let stream = tls.connect(name, connecting.await?.into_inner()).await?;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                let reason = "the server did not choose HTTP/2 by ALPN, which gRPC needs";
                return Err(io::Error::other(reason).into());
            }
            Ok(TokioIo::new(stream))
        })
    }
}
