//! The laws of the gRPC channel, on real tonic servers with tonic's own health
//! service.

mod client_common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use client_common::{dead, endpoint, eventually, in_flight, totals, totals_of, users};
use futures::StreamExt as _;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use waypost::client::tonic::{GrpcBuilder, GrpcChannel};
use waypost::endpoint::ServiceName;
use waypost::event::{CallEvent, Observer};
use waypost::load::LoadReport;
use waypost::resilience::Retry;
use waypost::server::ReportLoad;
use waypost::strategy::{Adaptive, RoundRobin};
use waypost::{Balancer, Endpoint, EndpointSet, Outcome};

/// A tonic server that dies when it is dropped, with its connections.
struct Server {
    id: &'static str,
    address: SocketAddr,
    connected: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Server {
    async fn start<H: Health>(id: &'static str, health: H) -> Self {
        Self::reporting(id, health, ReportLoad::new()).await
    }

    async fn reporting<H: Health>(id: &'static str, health: H, load: ReportLoad) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("there are threads");
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await;
        let listener = listener.expect("no panic").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connected = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connected);
        let incoming = TcpIncoming::from(listener).inspect(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let server = tonic::transport::Server::builder()
            .layer(load)
            .add_service(HealthServer::new(health))
            .serve_with_incoming(incoming);
        runtime.spawn(server);
        let runtime = Some(runtime);
        Self {
            id,
            address,
            connected,
            runtime,
        }
    }

    async fn healthy(id: &'static str) -> Self {
        let (reporter, service) = health_reporter();
        reporter
            .set_service_status("users", ServingStatus::Serving)
            .await;
        Self::start(id, service).await
    }

    fn endpoint(&self) -> Endpoint {
        endpoint(self.id, self.address)
    }
}

fn health_reporter() -> (
    tonic_health::server::HealthReporter,
    tonic_health::server::HealthService,
) {
    let reporter = tonic_health::server::HealthReporter::new();
    let service = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    (reporter, service)
}

impl Drop for Server {
    fn drop(&mut self) {
        // With it end the connections, which are tasks of their own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Answers every check with this status, in a stream of a body, so that it is
/// in the trailers; or in the head alone.
struct Failing {
    code: Code,
}

#[tonic::async_trait]
impl Health for Failing {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Err(Status::new(self.code, "told by the test"))
    }

    type WatchStream = futures::stream::BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let first = Ok(HealthCheckResponse { status: 1 });
        let last = Err(Status::new(self.code, "told behind the first message"));
        let stream = futures::stream::iter([first, last]);
        Ok(tonic::Response::new(Box::pin(stream)))
    }
}

fn client(builder: GrpcBuilder) -> HealthClient<GrpcChannel> {
    HealthClient::new(builder.build())
}

fn ask() -> HealthCheckRequest {
    HealthCheckRequest {
        service: "users".to_owned(),
    }
}

#[tokio::test]
async fn calls_are_spread_counted_and_timed() {
    let servers = [Server::healthy("a").await, Server::healthy("b").await];
    let balancer = users(servers.iter().map(Server::endpoint)).await;
    let mut client = client(balancer.grpc().connections(2));
    for _ in 0..10 {
        let answer = client.check(ask()).await.expect("it is answered");
        assert_eq!(answer.into_inner().status, 1);
    }
    eventually("all are counted", || totals(&balancer) == (10, 0, 0)).await;
    for node in balancer.nodes() {
        assert_eq!(node.stats().totals().succeeded, 5);
        assert!(node.stats().latency().is_some());
    }
}

#[tokio::test]
async fn an_endpoint_has_as_many_connections_as_it_shall() {
    for count in [1, 3] {
        let servers = [Server::healthy("a").await, Server::healthy("b").await];
        let balancer = users(servers.iter().map(Server::endpoint)).await;
        let mut client = client(balancer.grpc().connections(count));
        for _ in 0..4 * count {
            client.check(ask()).await.expect("it is answered");
        }
        for server in &servers {
            assert_eq!(server.connected.load(Ordering::Relaxed), count as usize);
        }
    }
}

/// What the trailers say is read, too: the head of an answer goes before its body.
#[tokio::test]
async fn a_server_that_says_it_is_busy_is_left_alone() {
    let says = |held: f64| {
        ReportLoad::new().metrics(move |report| {
            let in_flight = LoadReport::IN_FLIGHT.to_owned();
            report.named_metrics.insert(in_flight, held);
        })
    };
    let mut servers = Vec::new();
    for (id, held) in [("busy", 50.0), ("idle", 0.0)] {
        let (reporter, service) = health_reporter();
        reporter
            .set_service_status("users", ServingStatus::Serving)
            .await;
        servers.push(Server::reporting(id, service, says(held)).await);
    }
    let endpoints = EndpointSet::new(servers.iter().map(Server::endpoint)).expect("ids differ");
    let built = Balancer::builder("users")
        .strategy(Adaptive::new())
        .manual();
    let (balancer, mut updater) = built.expect("it is a name");
    updater.apply(endpoints);
    let mut client = client(balancer.grpc());
    for done in 1..=20 {
        client.check(ask()).await.expect("it is answered");
        eventually("it is counted", || totals(&balancer).0 == done).await;
    }
    let (busy, ..) = totals_of(&balancer, "busy");
    assert!(busy <= 2, "{busy} of 20");
}

#[tokio::test]
async fn a_stream_is_in_flight_until_its_last_message() {
    let server = Server::healthy("a").await;
    let balancer = users([server.endpoint()]).await;
    let mut client = client(balancer.grpc());
    let mut watch = client.watch(ask()).await.expect("it streams").into_inner();
    assert!(watch.message().await.expect("it is told").is_some());
    assert_eq!((in_flight(&balancer), totals(&balancer)), (1, (0, 0, 0)));
    drop(watch);
    eventually("it is cancelled", || totals(&balancer) == (0, 0, 1)).await;
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn the_status_counts_in_the_head_and_in_the_trailers() {
    for (code, faults) in [(Code::Unavailable, 1), (Code::NotFound, 0)] {
        let server = Server::start("a", Failing { code }).await;
        let balancer = users([server.endpoint()]).await;
        let mut client = client(balancer.grpc());
        let error = client.check(ask()).await.expect_err("it fails");
        assert_eq!(error.code(), code);
        eventually("the head is counted", || {
            totals(&balancer) == (1 - faults, faults, 0)
        })
        .await;
        let mut watch = client.watch(ask()).await.expect("it streams").into_inner();
        assert!(watch.message().await.expect("the first is well").is_some());
        assert_eq!(in_flight(&balancer), 1);
        let error = watch.message().await.expect_err("the trailers tell");
        assert_eq!(error.code(), code);
        let twice = (2 - 2 * faults, 2 * faults, 0);
        eventually("the trailers are counted", || totals(&balancer) == twice).await;
    }
}

/// Says that a check is well, and ends without a word on the call's status, in its trailers or at all.
async fn without_status(has_trailers: bool) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer = service_fn(move |_| {
        // Not compressed, two bytes: field 1 is 1, serving.
        let well = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
        let trailers = Frame::trailers(HeaderMap::from_iter([(ACCEPT, HeaderValue::from(1))]));
        let frames = [well, trailers]
            .into_iter()
            .take(1 + usize::from(has_trailers));
        let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
        let response = http::Response::builder().header("content-type", "application/grpc");
        std::future::ready(response.body(body))
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), answer));
        }
    });
    endpoint("a", address)
}

#[tokio::test]
async fn an_answer_that_never_told_its_status_broke_off() {
    for has_trailers in [false, true] {
        let balancer = users([without_status(has_trailers).await]).await;
        // What its caller makes of it is tonic's to say.
        drop(client(balancer.grpc()).check(ask()).await);
        eventually("it is counted", || totals(&balancer) == (0, 1, 0)).await;
        assert_eq!(in_flight(&balancer), 0);
    }
}

#[tokio::test]
async fn unavailable_is_asked_elsewhere_when_the_application_allows_it() {
    let unavailable = Failing {
        code: Code::Unavailable,
    };
    let (bad, good) = (
        Server::start("bad", unavailable).await,
        Server::healthy("good").await,
    );
    let balancer = users([bad.endpoint(), good.endpoint()]).await;
    let mut careful = client(balancer.grpc());
    let mut bold = client(balancer.grpc().retry(Retry::default().any_method()));
    let mut failed = 0;
    for _ in 0..4 {
        failed += u32::from(careful.check(ask()).await.is_err());
    }
    assert_eq!(failed, 2, "a POST is not repeated unasked");
    for _ in 0..4 {
        bold.check(ask()).await.expect("the other one answers");
    }
}

/// What tonic's own balanced channel gets wrong (grpc-rust#2839).
#[tokio::test]
async fn no_call_is_lost_to_a_server_that_is_killed_and_none_goes_there_once_it_left() {
    let (a, b, c) = (
        Server::healthy("a").await,
        Server::healthy("b").await,
        Server::healthy("c").await,
    );
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(RoundRobin::new())
        .manual()
        .expect("it is a name");
    let set = EndpointSet::new([a.endpoint(), b.endpoint(), c.endpoint()]).expect("ids differ");
    updater.apply(set.clone());
    // A health check may be made twice.
    let mut client = client(balancer.grpc().retry(Retry::default().any_method()));
    let mut ask_times = async |times| {
        for _ in 0..times {
            client.check(ask()).await.expect("no call is lost");
        }
    };
    ask_times(30).await;
    let gone = c.id;
    drop(c);
    ask_times(30).await;
    assert!(totals_of(&balancer, gone).1 > 0, "it was asked in vain");
    updater.apply(set.without(&gone.parse().expect("it is an id")));
    let before = (totals(&balancer), in_flight(&balancer));
    ask_times(30).await;
    assert_eq!(totals(&balancer), (before.0.0 + 30, before.0.1, before.0.2));
    assert!(
        balancer
            .nodes()
            .iter()
            .all(|node| node.endpoint().id().as_str() != gone)
    );
}

#[tokio::test]
async fn what_was_not_sent_goes_elsewhere_by_itself() {
    let live = Server::healthy("live").await;
    let balancer = users([dead("dead"), live.endpoint()]).await;
    let mut client = client(balancer.grpc().timeout(Duration::from_secs(5)));
    for _ in 0..6 {
        client.check(ask()).await.expect("one is alive");
    }
    eventually("all are counted", || {
        totals_of(&balancer, "live") == (6, 0, 0)
    })
    .await;
    assert!(totals_of(&balancer, "dead").1 > 0);
}

/// Answers checks so, or never.
struct Checking<F>(F);

#[tonic::async_trait]
impl<F, R> Health for Checking<F>
where
    F: Fn(Request<HealthCheckRequest>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<tonic::Response<HealthCheckResponse>, Status>> + Send + 'static,
{
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        (self.0)(request).await
    }

    type WatchStream = futures::stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(tonic::Response::new(futures::stream::pending()))
    }
}

/// Never answers a check.
async fn mute(id: &'static str) -> Server {
    Server::start(id, Checking(|_| std::future::pending())).await
}

#[tokio::test]
async fn what_is_not_sent_at_all_has_a_status_and_says_why() {
    let why = |status: &Status| {
        let source = std::error::Error::source(status).expect("it says why");
        let error = source.downcast_ref::<waypost::Error>();
        error.expect("it is the crate's error").clone()
    };
    let nobody = users([]).await;
    let status = client(nobody.grpc())
        .check(ask())
        .await
        .expect_err("there is nobody");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(why(&status).is_empty(), "{status}");

    let silent = mute("mute").await;
    let balancer = users([silent.endpoint()]).await;
    let late = balancer.grpc().timeout(Duration::from_millis(50));
    let status = client(late).check(ask()).await.expect_err("it is mute");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(why(&status).is_timed_out(), "{status}");
    assert_eq!(totals(&balancer), (0, 1, 0));
}

#[tokio::test]
async fn a_call_whose_own_time_is_over_has_timed_out() {
    let (one, other) = (mute("mute").await, mute("other").await);
    let balancer = users([one.endpoint(), other.endpoint()]).await;
    let notes = Outcomes::default();
    let bold = balancer.grpc().retry(Retry::default().any_method());
    let mut asking = client(bold.observe(notes.clone()));
    let mut request = Request::new(ask());
    request.set_timeout(Duration::from_millis(50));
    asking.check(request).await.expect_err("it is mute");
    let told = notes.0.lock().expect("no test panics here").clone();
    assert_eq!(told, [Outcome::TimedOut], "nothing was left for another");
}

#[tokio::test]
async fn an_attempt_is_told_what_is_left_of_the_call() {
    // Is never available, and notes how long it may take.
    let told = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&told);
    let busy = move |request: Request<HealthCheckRequest>| {
        let timeout = request.metadata().get("grpc-timeout").expect("it says so");
        let timeout = timeout.to_str().expect("it is text").to_owned();
        notes.lock().expect("no test panics here").push(timeout);
        std::future::ready(Err(Status::unavailable("try the other one")))
    };
    let (one, two) = (
        Server::start("one", Checking(busy.clone())).await,
        Server::start("two", Checking(busy)).await,
    );
    let balancer = users([one.endpoint(), two.endpoint()]).await;
    let mut bold = client(balancer.grpc().retry(Retry::default().any_method()));
    let mut request = Request::new(ask());
    // As exact as eight digits of microseconds are.
    request.set_timeout(Duration::from_secs(90));
    bold.check(request).await.expect_err("neither is available");
    let told = told.lock().expect("no test panics here").clone();
    let micros: Vec<u64> = told
        .iter()
        .map(|timeout| timeout.strip_suffix('u').expect("microseconds"))
        .map(|micros| micros.parse().expect("a number"))
        .collect();
    assert_eq!((micros.len(), micros[0]), (2, 90_000_000));
    assert!(micros[1] < micros[0], "{told:?}");
}

#[derive(Clone, Debug, Default)]
struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

impl Observer for Outcomes {
    fn call(&self, _: &ServiceName, event: CallEvent<'_>) {
        if let CallEvent::Ended { outcome, .. } = event {
            self.0.lock().expect("no test panics here").push(outcome);
        }
    }
}

/// A channel's tasks end with their runtime; what is called from another makes new ones.
#[test]
fn a_channel_outlives_the_runtime_of_its_first_call() {
    let started = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("there are threads")
    };
    let home = started();
    let (server, balancer) = home.block_on(async {
        let server = Server::healthy("one").await;
        let balancer = users([server.endpoint()]).await;
        (server, balancer)
    });
    let asking = client(balancer.grpc());
    for _ in 0..3 {
        let runtime = started();
        runtime.block_on(async {
            let mut asking = asking.clone();
            // The first one may find that the channel has ended.
            let first = asking.check(ask()).await;
            let again = asking.check(ask()).await;
            assert!(again.is_ok(), "{first:?}, then {again:?}");
        });
    }
    drop(server);
}
