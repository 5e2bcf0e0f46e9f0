//! One probe of one endpoint.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Answer, HealthCheck, Probe, http};
use crate::endpoint::Endpoint;

/// What an endpoint says of itself, or why it does not; what goes wrong on the
/// way is an error beside it.
pub(super) type Said = Result<(), String>;

/// Asks once; a probe that takes too long has failed. Tells why an answer is no
/// pass.
pub(super) async fn ask(check: &HealthCheck, endpoint: &Arc<Endpoint>) -> (Answer, String) {
    let said = tokio::time::timeout(check.timeout, async {
        match &check.probe {
            Probe::Tcp => {
                connect(check, endpoint).await?;
                Ok(Ok(()))
            }
            Probe::Http(http) => {
                let host = asked_host(http.host.as_deref(), endpoint);
                let connection = secured(check, endpoint, host, b"http/1.1").await?;
                http::ask(http, host, connection).await
            }
            #[cfg(feature = "tonic")]
            Probe::Grpc { service, authority } => {
                let host = asked_host(authority.as_deref(), endpoint);
                let connection = secured(check, endpoint, host, b"h2").await?;
                let uri = format!("{}://{host}", check.scheme);
                super::grpc::ask(service, &uri, connection).await
            }
            Probe::Custom(_, probe) => {
                let told = probe(Arc::clone(endpoint)).await;
                told.map(Ok).map_err(io::Error::other)
            }
        }
    });
    match said.await {
        Ok(Ok(Ok(()))) => (Answer::Pass, String::new()),
        Ok(Ok(Err(reason))) => (Answer::Refusal, reason),
        Ok(Err(error)) => (Answer::Fail, error.to_string()),
        Err(_) => {
            let reason = format!("it did not answer within {:?}", check.timeout);
            (Answer::Fail, reason)
        }
    }
}

pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// The host that is asked for; a path is none.
fn asked_host<'a>(set: Option<&'a str>, endpoint: &'a Endpoint) -> &'a str {
    let address = endpoint.address();
    let own = address.path().map_or(address.as_str(), |_| "localhost");
    set.or(endpoint.authority()).unwrap_or(own)
}

/// A connection, over TLS where the check is.
#[cfg_attr(
    not(feature = "tls"),
    expect(unused_variables, reason = "only TLS asks for a host and a protocol")
)]
async fn secured(
    check: &HealthCheck,
    endpoint: &Endpoint,
    host: &str,
    protocol: &[u8],
) -> io::Result<Box<dyn Connection>> {
    let connection = connect(check, endpoint).await?;
    #[cfg(feature = "tls")]
    if let Some(tls) = &check.tls {
        return tls.over(endpoint, host, protocol, connection).await;
    }
    Ok(connection)
}

async fn connect(check: &HealthCheck, endpoint: &Endpoint) -> io::Result<Box<dyn Connection>> {
    let address = endpoint.address();
    if let Some(path) = address.path() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let port = check.port.or(address.port()).unwrap_or_default();
    let connection = match (address.socket_addr(), address.host()) {
        (Some(socket), _) => TcpStream::connect((socket.ip(), port)).await?,
        (None, host) => TcpStream::connect((host.unwrap_or_default(), port)).await?,
    };
    Ok(Box::new(connection))
}
