//! A connection to a server, as plain text or in TLS.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Socket = Box<dyn Duplex>;

/// To `host:port`, whose certificate is the host's where there is TLS.
pub(super) async fn connect(server: &str, tls: Option<&Arc<ClientConfig>>) -> io::Result<Socket> {
    let socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(socket));
    };
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(tls));
    Ok(Box::new(connector.connect(name, socket).await?))
}
