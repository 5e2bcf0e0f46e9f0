//! A backend: this program as a process of its own, that can be killed.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// What a small query takes.
const WORK: Duration = Duration::from_millis(1);

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Backend {
    pub(crate) fn start() -> Result<Self> {
        let address = free()?;
        Ok(Self {
            address,
            process: run(address)?,
        })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// On the same port.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = run(self.address)?;
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It has ended by itself if this fails.
        drop(self.kill());
    }
}

/// A port that was free a moment ago.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns when it takes connections.
fn run(address: SocketAddr) -> Result<Child> {
    let program = std::env::current_exe()?;
    let process = Command::new(program)
        .args(["backend", &address.to_string()])
        .spawn()?;
    for _ in 0..1_000 {
        if std::net::TcpStream::connect(address).is_ok() {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("the backend at {address} does not start").into())
}

/// In the process of its own.
pub(crate) async fn serve() -> Result<()> {
    let address = std::env::args().nth(2).ok_or("no address")?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream));
    }
}

async fn connection(stream: TcpStream) {
    // A connection that breaks is its client's affair.
    drop(stream.set_nodelay(true));
    let answer = service_fn(|request: Request<Incoming>| async {
        drop(request.into_body().collect().await);
        tokio::time::sleep(WORK).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'.'; 512]))))
    });
    let server = hyper::server::conn::http1::Builder::new();
    drop(server.serve_connection(TokioIo::new(stream), answer).await);
}
