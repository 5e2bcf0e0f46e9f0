//! One probe of one endpoint.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Answer, HealthCheck, Probe, http};
use crate::endpoint::Endpoint;

/// Asks once; a probe that takes too long has failed.
pub(super) async fn ask(check: &HealthCheck, endpoint: &Arc<Endpoint>) -> Answer {
    let answer = tokio::time::timeout(check.timeout, async {
        match &check.probe {
            Probe::Tcp => {
                connect(check, endpoint).await?;
                Ok(Answer::Pass)
            }
            Probe::Http(http) => {
                let connection = connect(check, endpoint).await?;
                http::ask(http, endpoint, connection).await
            }
            Probe::Custom(_, probe) => {
                let told = probe(Arc::clone(endpoint)).await;
                told.map(|()| Answer::Pass).map_err(io::Error::other)
            }
        }
    });
    match answer.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Answer::Fail,
    }
}

pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

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
