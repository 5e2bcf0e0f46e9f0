//! Servers, bodies and callers that do not keep to what is usual: what a call comes to then, and that
//! nothing it counted stays.

mod client_common;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use client_common::{Server, dead, endpoint, eventually, in_flight, totals_of, users};
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::{BalanceLayer, BoxError};
use waypost::resilience::Retry;
use waypost::{Balancer, Endpoint, EndpointSet};

type Streamed = UnsyncBoxBody<Bytes, io::Error>;

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://users/")
        .body(Full::from(body))
        .expect("the parts are well-formed")
}

fn over_http2<B>() -> Client<HttpConnector, B>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

/// A server of raw connections, each of which is handed to this function.
async fn raw<F>(id: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Endpoint
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let listener = listener.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What becomes of a connection is the client's to see.
            tokio::spawn(serve(stream));
        }
    });
    endpoint(id, address)
}

/// Reads HTTP/2 up to a request, and answers it by a frame of that type on that stream.
async fn answer_http2(
    mut stream: TcpStream,
    kind: u8,
    on: impl Fn([u8; 4]) -> [u8; 4],
    payload: impl Fn([u8; 4]) -> Vec<u8>,
) -> io::Result<()> {
    const HEADERS: u8 = 1;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream.write_all(&settings).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, is, _, id @ ..] = head;
        let mut rest = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut rest).await?;
        if is != HEADERS {
            continue;
        }
        let payload = payload(id);
        let mut frame = vec![0, 0, payload.len() as u8, kind, 0];
        frame.extend(on(id));
        frame.extend(payload);
        stream.write_all(&frame).await?;
    }
}

/// Goes away before it has looked at any request.
async fn goes_away(stream: TcpStream) -> io::Result<()> {
    answer_http2(stream, 7, |_| [0; 4], |_| vec![0; 8]).await
}

/// Goes away once it has begun with this request, and ends.
async fn goes_away_after(stream: TcpStream) -> io::Result<()> {
    let begun = |id: [u8; 4]| [&id[..], &[0; 4]].concat();
    let answer = answer_http2(stream, 7, |_| [0; 4], begun);
    // Long enough for its frame to be read, if not answered.
    match tokio::time::timeout(std::time::Duration::from_millis(100), answer).await {
        Ok(ended) => ended,
        Err(_) => Ok(()),
    }
}

async fn refuses_stream(stream: TcpStream) -> io::Result<()> {
    answer_http2(stream, 3, |id| id, |_| vec![0, 0, 0, 7]).await
}

/// An HTTP/2 server that answers everything well.
async fn well(id: &str) -> Endpoint {
    raw(id, |stream| async move {
        let answer = hyper::service::service_fn(async |_| {
            Ok::<_, io::Error>(Response::new(Empty::<Bytes>::new()))
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .serve_connection(io, answer)
            .await
            .map_err(io::Error::other)
    })
    .await
}

#[tokio::test]
async fn what_an_http2_server_never_looked_at_goes_elsewhere_whatever_its_method() {
    for refusing in [
        raw("refusing", goes_away).await,
        raw("refusing", refuses_stream).await,
    ] {
        let balancer = users([refusing, well("well").await]).await;
        let client = BalanceLayer::new(balancer.clone())
            .retry(Retry::default())
            .layer(over_http2());
        for _ in 0..4 {
            let answer = client.clone().oneshot(post("hello")).await;
            assert_eq!(answer.expect("one takes it").status(), 200);
        }
        assert_eq!(totals_of(&balancer, "well"), (4, 0, 0));
        assert!(totals_of(&balancer, "refusing").1 >= 2);
        assert_eq!(in_flight(&balancer), 0);
    }
}

#[tokio::test]
async fn what_a_server_that_goes_away_may_have_begun_with_is_not_repeated() {
    let leaving = raw("leaving", goes_away_after).await;
    let balancer = users([leaving, well("well").await]).await;
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .layer(over_http2());
    let mut lost = 0;
    for _ in 0..4 {
        let answer = client.clone().oneshot(post("hello")).await;
        lost += u64::from(answer.is_err());
    }
    assert_eq!(totals_of(&balancer, "leaving"), (0, 2, 0));
    assert_eq!((lost, totals_of(&balancer, "well").0), (2, 2));
}

/// Sends the beginning of a body, and then fails of itself.
fn broken() -> Request<Streamed> {
    let begun = Ok(Frame::data(Bytes::from_static(b"hel")));
    let parts = [begun, Err(io::Error::other("the disk is gone"))];
    let body = StreamBody::new(stream::iter(parts));
    Request::builder()
        .method(Method::PUT)
        .uri("http://users/")
        .body(Streamed::new(body))
        .expect("the parts are well-formed")
}

#[tokio::test]
async fn a_request_body_that_fails_is_no_fault_of_the_endpoint() {
    let server = Server::start("one").await;
    let first = users([server.endpoint()]).await;
    let http1 = Client::builder(TokioExecutor::new()).build_http();
    let second = users([well("one").await]).await;
    for (balancer, client) in [(first, http1), (second, over_http2())] {
        let client = BalanceLayer::new(balancer.clone()).layer(client);
        for call in 1..=8 {
            let answer = client.clone().oneshot(broken()).await;
            let error = answer.expect_err("its body fails");
            let mut cause: Option<&dyn std::error::Error> = Some(&*error);
            let mut told = String::new();
            while let Some(error) = cause {
                told.push_str(&error.to_string());
                cause = error.source();
            }
            assert_eq!(totals_of(&balancer, "one"), (0, 0, call), "{told}");
        }
        assert_eq!(in_flight(&balancer), 0);
    }
}

/// A client that never takes a request, as one whose connection's task is gone.
#[derive(Clone)]
struct NeverReady {
    fails: bool,
}

impl Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let closed = || BoxError::from("it is closed");
        Poll::Ready((!self.fails).then_some(()).ok_or_else(closed))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test]
async fn what_a_client_did_not_take_goes_elsewhere_whatever_its_method() {
    let balancer = users([dead("closed"), dead("open")]).await;
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .per_endpoint(|endpoint: &Endpoint| {
            let fails = endpoint.id().as_str() == "closed";
            Ok::<_, BoxError>(NeverReady { fails })
        });
    for _ in 0..4 {
        let answer = client.clone().oneshot(post("hello")).await;
        answer.expect("one takes it");
    }
    assert_eq!(totals_of(&balancer, "open"), (4, 0, 0));
    eventually("both are idle", || in_flight(&balancer) == 0).await;
}

#[tokio::test]
async fn a_client_that_came_to_its_end_is_made_anew() {
    let balancer = users([dead("one")]).await;
    let made = Arc::new(AtomicUsize::new(0));
    let makes = Arc::clone(&made);
    let client = BalanceLayer::new(balancer.clone()).per_endpoint(move |_: &Endpoint| {
        let fails = makes.fetch_add(1, Ordering::Relaxed) == 0;
        Ok::<_, BoxError>(NeverReady { fails })
    });
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(client.clone().oneshot(post("hello")).await.is_ok());
    }
    assert_eq!(calls, [false, true, true, true]);
    assert_eq!(made.load(Ordering::Relaxed), 2);
    assert_eq!(totals_of(&balancer, "one"), (3, 1, 0));
}

/// A client that is alive as long as this is.
#[derive(Clone)]
struct Alive {
    _while: Arc<()>,
}

impl Service<Request<Full<Bytes>>> for Alive {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Empty::new())))
    }
}

/// What watches an endpoint leave is a task, and ends with the runtime of the first call.
#[test]
fn clients_of_endpoints_that_left_are_dropped_whichever_runtime_calls() {
    let (balancer, mut updater) = Balancer::builder("users").manual().expect("it is a name");
    let at = |port: u16| endpoint(&port.to_string(), ([10, 0, 0, 1], port).into());
    let made = Arc::new(());
    let makes = Arc::clone(&made);
    let client = BalanceLayer::new(balancer).per_endpoint(move |_: &Endpoint| {
        Ok::<_, BoxError>(Alive {
            _while: Arc::clone(&makes),
        })
    });
    let before = Arc::strong_count(&made);
    for port in 1..4 {
        updater.apply(EndpointSet::new([at(port)]).expect("it is one"));
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("there are threads");
        runtime.block_on(async {
            let answer = client.clone().oneshot(post("hello")).await;
            answer.expect("it is answered");
            eventually("only the one that is there has a client", || {
                Arc::strong_count(&made) == before + 1
            })
            .await;
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("there are threads");
    runtime.block_on(async {
        updater.apply(EndpointSet::new([at(8), at(9)]).expect("ids differ"));
        for _ in 0..20 {
            let answer = client.clone().oneshot(post("hello")).await;
            answer.expect("it is answered");
        }
        eventually("both have a client", || {
            Arc::strong_count(&made) == before + 2
        })
        .await;
        updater.apply(EndpointSet::empty());
        eventually("neither has one", || Arc::strong_count(&made) == before).await;
    });
}
