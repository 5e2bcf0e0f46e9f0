//! Real HTTP servers on loopback, and what the client tests ask of a balancer.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use waypost::strategy::RoundRobin;
use waypost::{Balancer, Endpoint, EndpointStats, Fixed};

/// Long enough for a loaded machine, short enough to see a test hang.
pub(crate) const SOON: Duration = Duration::from_secs(5);

type Chunk = Result<Frame<Bytes>, io::Error>;

enum Answer {
    /// This status, and a text that tells what was asked.
    Tell(u16),
    /// This status and no body.
    Bare(u16),
    /// The body that the test sends.
    Stream(Mutex<Option<mpsc::UnboundedReceiver<Chunk>>>),
    /// No answer, and the connection stays open.
    Never,
    /// No answer, and the connection is closed.
    Close,
}

/// An HTTP/1 server that ends when it is dropped.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    served: watch::Receiver<u64>,
    connections: watch::Receiver<u64>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::with(name, Answer::Tell(200)).await
    }

    pub(crate) async fn status(name: &'static str, status: u16) -> Self {
        Self::with(name, Answer::Tell(status)).await
    }

    pub(crate) async fn bare(name: &'static str, status: u16) -> Self {
        Self::with(name, Answer::Bare(status)).await
    }

    pub(crate) async fn silent(name: &'static str) -> Self {
        Self::with(name, Answer::Never).await
    }

    pub(crate) async fn closing(name: &'static str) -> Self {
        Self::with(name, Answer::Close).await
    }

    /// Answers one request with a body that the test releases.
    pub(crate) async fn streaming(name: &'static str) -> (Self, Chunks) {
        let (sender, chunks) = mpsc::unbounded();
        let answer = Answer::Stream(Mutex::new(Some(chunks)));
        (Self::with(name, answer).await, Chunks(sender))
    }

    async fn with(name: &'static str, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (count, served) = watch::channel(0);
        let (count_connections, connections) = watch::channel(0);
        let (count, answer) = (Arc::new(count), Arc::new(answer));
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                count_connections.send_modify(|count| *count += 1);
                let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
                    async move { respond(name, &answer, &count, request).await }
                });
                open.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            name,
            address,
            served,
            connections,
            serving,
        }
    }

    /// Requests that reached it.
    pub(crate) fn served(&self) -> u64 {
        *self.served.borrow()
    }

    /// Connections it accepted.
    pub(crate) fn connections(&self) -> u64 {
        *self.connections.borrow()
    }

    /// Waits until so many requests have reached it.
    pub(crate) async fn has_served(&self, count: u64) {
        let mut served = self.served.clone();
        let reached = served.wait_for(|&served| served >= count);
        let reached = tokio::time::timeout(SOON, reached).await;
        assert!(
            reached.is_ok_and(|reached| reached.is_ok()),
            "{} serves {count}",
            self.name
        );
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(self.name, self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The other end of a streamed body; the body ends when this is dropped.
pub(crate) struct Chunks(mpsc::UnboundedSender<Chunk>);

impl Chunks {
    pub(crate) fn send(&self, text: &'static str) {
        let frame = Frame::data(Bytes::from_static(text.as_bytes()));
        self.0.unbounded_send(Ok(frame)).expect("it is being read");
    }

    /// Breaks the connection off within the body.
    pub(crate) fn break_off(self) {
        let broken = Err(io::Error::other("broken off by the test"));
        self.0.unbounded_send(broken).expect("it is being read");
    }
}

async fn respond(
    name: &str,
    answer: &Answer,
    count: &watch::Sender<u64>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    count.send_modify(|count| *count += 1);
    let (status, body) = match answer {
        Answer::Tell(status) => {
            let host = head.headers.get("host").map_or("-", |host| {
                host.to_str().expect("the tests' hosts are ASCII")
            });
            let text = format!(
                "name={name}\nhost={host}\npath={}\nmethod={}\nserved={}\nbody={}\n",
                head.uri,
                head.method,
                *count.borrow(),
                String::from_utf8_lossy(&body),
            );
            (
                *status,
                Full::from(text).map_err(|never| match never {}).boxed(),
            )
        }
        Answer::Bare(status) => (
            *status,
            Empty::new().map_err(|never| match never {}).boxed(),
        ),
        Answer::Stream(chunks) => {
            let chunks = chunks.lock().expect("no test panics here").take();
            let chunks = chunks.ok_or_else(|| io::Error::other("it streams once"))?;
            (200, BodyExt::boxed(StreamBody::new(chunks)))
        }
        Answer::Never => pending().await,
        // hyper closes a connection whose service fails, and writes nothing.
        Answer::Close => return Err(io::Error::other("closed by the test")),
    };
    let response = Response::builder().status(status).header("x-server", name);
    Ok(response.body(body).expect("the parts are well-formed"))
}

/// A value that a server's text tells.
pub(crate) fn told<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
        .unwrap_or_else(|| panic!("no `{key}` in {text:?}"))
}

pub(crate) fn endpoint(id: &str, address: SocketAddr) -> Endpoint {
    Endpoint::builder(address)
        .id(id)
        .build()
        .expect("the parts are well-formed")
}

/// An endpoint at which nobody listens: a connection is refused. The port stays
/// bound, so that no other test's server gets it.
pub(crate) fn dead(id: &str) -> Endpoint {
    let socket = TcpSocket::new_v4().expect("there are sockets");
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(loopback).expect("loopback has a free port");
    let address = socket.local_addr().expect("it is bound");
    std::mem::forget(socket);
    endpoint(id, address)
}

/// Takes turns among these, under the name `users`.
pub(crate) async fn users(endpoints: impl IntoIterator<Item = Endpoint>) -> Balancer {
    Balancer::builder("users")
        .strategy(RoundRobin::new())
        .build(Fixed::new(endpoints).expect("ids differ"))
        .await
        .expect("there is a runtime")
}

fn stats(balancer: &Balancer, id: &str) -> EndpointStats {
    let nodes = balancer.nodes();
    let node = nodes
        .iter()
        .find(|node| node.endpoint().id().as_str() == id);
    node.expect("it is in the set").stats().clone()
}

pub(crate) fn in_flight(balancer: &Balancer) -> u32 {
    let nodes = balancer.nodes();
    nodes.iter().map(|node| node.stats().in_flight()).sum()
}

/// Succeeded, failed, cancelled; of one endpoint.
pub(crate) fn totals_of(balancer: &Balancer, id: &str) -> (u64, u64, u64) {
    let totals = stats(balancer, id).totals();
    (totals.succeeded, totals.failed, totals.cancelled)
}

/// Succeeded, failed, cancelled; of all endpoints.
pub(crate) fn totals(balancer: &Balancer) -> (u64, u64, u64) {
    let nodes = balancer.nodes();
    nodes.iter().fold((0, 0, 0), |sum, node| {
        let totals = node.stats().totals();
        (
            sum.0 + totals.succeeded,
            sum.1 + totals.failed,
            sum.2 + totals.cancelled,
        )
    })
}

/// Asks until it holds, and fails when that takes too long.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain awaited: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
