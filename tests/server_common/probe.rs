//! Signs that a server is ready.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// What a server does when it is ready.
#[derive(Clone, Copy)]
pub(crate) enum Ready {
    /// Answers 200 to a GET of this path, with a body that holds this.
    Http(&'static str, &'static str),
    /// Answers this line with something that holds that.
    Line(&'static str, &'static str),
    /// Answers with authority for the SOA record of this zone.
    Soa(&'static str),
    /// Accepts connections.
    Accepts,
}

impl Ready {
    pub(super) async fn probe(self, port: u16) -> bool {
        let asked = async {
            match self {
                Self::Http(path, holds) => {
                    let (status, body) = http_get(port, path).await?;
                    Ok(status == 200 && body.contains(holds))
                }
                Self::Line(ask, holds) => Ok(exchange(port, ask).await?.contains(holds)),
                Self::Soa(zone) => soa(port, zone).await,
                Self::Accepts => TcpStream::connect(("127.0.0.1", port)).await.map(|_| true),
            }
        };
        let answer: Result<io::Result<bool>, _> = timeout(Duration::from_secs(1), asked).await;
        matches!(answer, Ok(Ok(true)))
    }
}

/// The status and body of a GET on loopback.
pub(crate) async fn http_get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let ask = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let answer = exchange(port, &ask).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.unwrap_or(0), body.to_owned()))
}

/// What comes back for a text until the server hangs up.
pub(super) async fn exchange(port: u16, ask: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(ask.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn soa(port: u16, zone: &str) -> io::Result<bool> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(("127.0.0.1", port)).await?;
    // RFC 1035 4.1: id 1, no flags, one question.
    let mut query = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in zone.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 6, 0, 1]);
    socket.send(&query).await?;
    let mut answer = [0; 512];
    let n = socket.recv(&mut answer).await?;
    // QR and AA are set, RCODE is 0.
    Ok(n > 12 && answer[2] & 0x84 == 0x84 && answer[3] % 16 == 0)
}
