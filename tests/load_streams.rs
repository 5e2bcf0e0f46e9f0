//! Load reports out of band (gRFC A51), between real tonic servers and clients: what comes without a
//! call, what it costs where nobody answers, and when it ends.

mod client_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use client_common::{dead, endpoint, eventually};
use futures::future::{BoxFuture, ready};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost::endpoint::AddressPolicy;
use waypost::load::LoadReport;
use waypost::server::{OpenRcaService, ReportLoad};
use waypost::strategy::{Adaptive, LoadWeighted, RoundRobin, Strategy, Tried};
use waypost::time::Clock;
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, PickOptions, Updater};

const OFTEN: Duration = Duration::from_millis(20);

/// A tonic server that dies when it is dropped, with its connections.
struct Server {
    id: &'static str,
    address: SocketAddr,
    connected: Arc<AtomicUsize>,
    /// Reports that it wrote, among which is one in the head of each answer.
    written: Arc<AtomicU32>,
    load: ReportLoad,
    runtime: Option<Runtime>,
}

impl Server {
    /// Tells these metrics in streams, or knows no such service.
    async fn start(
        id: &'static str,
        has_service: bool,
        metrics: impl Fn(&mut LoadReport) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self::at(listener.expect("a free port"), id, has_service, metrics)
    }

    fn at(
        listener: TcpListener,
        id: &'static str,
        has_service: bool,
        metrics: impl Fn(&mut LoadReport) + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("there are threads");
        let address = listener.local_addr().expect("it is bound");
        let listener = listener.into_std().expect("it is a socket");
        let (connected, written) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU32>::default());
        let count = Arc::clone(&written);
        let load = ReportLoad::new().metrics(move |report| {
            count.fetch_add(1, Ordering::Relaxed);
            metrics(report);
        });
        let reports = OpenRcaService::new(load.clone()).shortest_interval(OFTEN);
        let (_, health) = tonic_health::server::health_reporter();
        let (layer, count) = (load.clone(), Arc::clone(&connected));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("it is a socket");
            let incoming = TcpIncoming::from(listener).inspect(|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            tonic::transport::Server::builder()
                .layer(layer)
                .add_optional_service(has_service.then_some(reports))
                .add_service(health)
                .serve_with_incoming(incoming)
                .await
        });
        Self {
            id,
            address,
            connected,
            written,
            load,
            runtime: Some(runtime),
        }
    }

    /// Says that it holds so many calls, and answers a hundred a second at that utilization.
    async fn busy(id: &'static str, held: f64, utilization: f64) -> Self {
        Self::start(id, true, move |report| {
            let in_flight = LoadReport::IN_FLIGHT.to_owned();
            report.named_metrics.insert(in_flight, held);
            report.rps_fractional = 100.0;
            report.application_utilization = utilization;
        })
        .await
    }

    fn endpoint(&self) -> Endpoint {
        endpoint(self.id, self.address)
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    fn written(&self) -> u32 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn balancer(
    strategy: impl Strategy,
    endpoints: impl IntoIterator<Item = Endpoint>,
) -> (Balancer, Updater) {
    let built = Balancer::builder("users").strategy(strategy).manual();
    let (balancer, mut updater) = built.expect("it is a name");
    updater.apply(EndpointSet::new(endpoints).expect("ids differ"));
    (balancer, updater)
}

/// How many of so many calls, none of which is answered by anybody, go to the first.
fn share_of(id: &str, balancer: &Balancer, calls: usize) -> usize {
    let picks = (0..calls).map(|_| balancer.pick().expect("there are endpoints"));
    picks
        .filter(|pick| pick.id().as_str() == id)
        .map(|pick| pick.finish(Outcome::Cancelled))
        .count()
}

/// It weighs what a server holds by what calls take, which two of them told here; no call brings a
/// report.
#[tokio::test]
async fn adaptive_goes_by_reports_that_come_without_a_call() {
    let servers = [
        Server::busy("busy", 40.0, 0.9).await,
        Server::busy("idle", 0.0, 0.1).await,
    ];
    let (clock, hands) = Clock::manual();
    let builder = Balancer::builder("users").strategy(Adaptive::new());
    let (users, mut updater) = builder.clock(clock).manual().expect("it is a name");
    let set = EndpointSet::new(servers.iter().map(Server::endpoint));
    updater.apply(set.expect("ids differ"));
    for _ in 0..2 {
        let first = users.pick().expect("there are endpoints");
        let mut tried = Tried::new();
        tried.insert(first.key());
        let second = users.pick_with(&PickOptions::new().tried(&tried));
        let second = second.expect("there is another");
        hands.advance(Duration::from_millis(100));
        first.finish(Outcome::Success);
        second.finish(Outcome::Success);
    }
    let before = share_of("busy", &users, 100);
    assert!((20..=80).contains(&before), "nothing is told yet: {before}");

    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("both have told", || {
        streams.reports() >= 2 && share_of("busy", &users, 100) == 0
    })
    .await;
    assert_eq!((streams.failures(), streams.without_service()), (0, 0));
}

#[tokio::test]
async fn load_weighted_shares_by_reports_that_come_without_a_call() {
    let servers = [
        Server::busy("busy", 0.0, 0.8).await,
        Server::busy("idle", 0.0, 0.2).await,
    ];
    let strategy = LoadWeighted::new().blackout(Duration::ZERO);
    let (users, mut updater) = balancer(strategy, servers.iter().map(Server::endpoint));
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    // Weights are taken anew when they are due, or the set changes.
    let mut weight = 1;
    eventually("both have told", || {
        weight += 1;
        let changed = servers.iter().map(|server| {
            let builder = Endpoint::builder(server.address).id(server.id);
            builder.weight(weight).build().expect("it is one")
        });
        updater.apply(EndpointSet::new(changed).expect("ids differ"));
        // At the same rate, a fourth of the use is four times the weight.
        (190..=210).contains(&share_of("busy", &users, 1_000))
    })
    .await;
    assert_eq!((streams.failures(), streams.without_service()), (0, 0));
}

/// Such a stream would else hold a call for ever, of each client.
#[tokio::test]
async fn streams_are_not_counted_among_the_calls() {
    let server = Server::start("a", true, |_| {}).await;
    let (users, _updater) = balancer(Adaptive::new(), [server.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("it has told", || streams.reports() >= 3).await;
    let report = server.load.report();
    assert_eq!(report.in_flight(), Some(0.0));
    assert!(report.rps_fractional.abs() < 1e-9 && report.latency().is_none());
    let mut client = HealthClient::new(users.grpc().build());
    let answer = client.check(HealthCheckRequest::default()).await;
    answer.expect("it is well");
    assert!(server.load.report().rps_fractional > 0.0, "as a call is");
}

#[tokio::test]
async fn a_server_without_the_service_is_asked_once() {
    let server = Server::start("old", false, |_| {}).await;
    let (users, mut updater) = balancer(Adaptive::new(), [server.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("it has said so", || streams.without_service() == 1).await;
    // A change of its weight is no reason to ask again, nor is time.
    let heavier = Endpoint::builder(server.address).id("old").weight(3);
    updater.apply(EndpointSet::new([heavier.build().expect("it is one")]).expect("one id"));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let told = (
        streams.without_service(),
        streams.failures(),
        streams.reports(),
    );
    assert_eq!((told, server.connected()), ((1, 0, 0), 1));
}

#[tokio::test]
async fn a_stream_ends_with_its_endpoint_and_begins_anew_with_it() {
    let servers = [
        Server::start("a", true, |_| {}).await,
        Server::start("b", true, |_| {}).await,
    ];
    let all = servers.iter().map(Server::endpoint);
    let (users, mut updater) = balancer(Adaptive::new(), all.clone());
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    let wrote = || servers.each_ref().map(Server::written);
    eventually("both tell", || wrote().iter().all(|&it| it >= 3)).await;
    updater.apply(EndpointSet::new([servers[0].endpoint()]).expect("one id"));
    let still = async |server: usize| {
        let before = wrote();
        tokio::time::sleep(10 * OFTEN).await;
        wrote()[server] > before[server]
    };
    // Its last report may be under way.
    tokio::time::sleep(5 * OFTEN).await;
    assert!(!still(1).await, "nobody listens");
    assert!(still(0).await);
    updater.apply(EndpointSet::new(all).expect("ids differ"));
    let before = wrote()[1];
    eventually("it is back", || wrote()[1] > before + 2).await;

    drop(streams);
    tokio::time::sleep(5 * OFTEN).await;
    assert!(!still(0).await && !still(1).await, "with their guard");
}

#[tokio::test]
async fn streams_end_with_the_balancer_which_they_do_not_keep() {
    let server = Server::start("a", true, |_| {}).await;
    let (users, updater) = balancer(Adaptive::new(), [server.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("it tells", || streams.reports() >= 3).await;
    drop((users, updater));
    let mut before = 0;
    eventually("it has ended", || {
        std::mem::replace(&mut before, server.written()) == server.written()
    })
    .await;
    tokio::time::sleep(10 * OFTEN).await;
    assert_eq!(server.written(), before);
}

#[tokio::test]
async fn what_fails_is_tried_again_after_a_while() {
    let first = Server::start("a", true, |_| {}).await;
    let address = first.address;
    let (users, _updater) = balancer(Adaptive::new(), [first.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("it tells", || streams.reports() >= 3).await;
    drop(first);
    eventually("it is gone", || streams.failures() >= 1).await;
    let reports = streams.reports();
    let listener = loop {
        // Until its connections are closed.
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
        tokio::time::sleep(OFTEN).await;
    };
    let second = Server::at(listener, "a", true, |_| {});
    eventually("it tells again", || streams.reports() > reports).await;
    // Half a second to a second lies between two tries, and then up to two.
    assert!(streams.failures() <= 4, "{}", streams.failures());
    drop(second);
}

/// A stream that goes on would keep the server from ending.
#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopping) = tokio::sync::watch::channel(());
    let stopped = || {
        let mut stopping = stopping.clone();
        async move {
            let _closed = stopping.changed().await;
        }
    };
    let reports = OpenRcaService::new(ReportLoad::new()).until(stopped());
    let server = tonic::transport::Server::builder()
        .add_service(reports)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped());
    let server = tokio::spawn(server);
    let (users, _updater) = balancer(Adaptive::new(), [endpoint("a", address)]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("it tells", || streams.reports() >= 2).await;
    drop(stop);
    let ended = tokio::time::timeout(Duration::from_secs(5), server).await;
    ended
        .expect("in time")
        .expect("no panic")
        .expect("it served");
    eventually("it is noticed", || streams.failures() >= 1).await;
}

#[tokio::test]
async fn strategies_that_do_not_ask_have_no_streams() {
    let server = Server::start("a", true, |_| {}).await;
    let (users, _updater) = balancer(RoundRobin::new(), [server.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    tokio::time::sleep(10 * OFTEN).await;
    assert_eq!((server.connected(), streams.reports()), (0, 0));
}

#[tokio::test]
async fn a_dead_endpoint_fails_and_keeps_nobody_else_from_telling() {
    let server = Server::start("a", true, |_| {}).await;
    let (users, _updater) = balancer(Adaptive::new(), [dead("dead"), server.endpoint()]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("one tells", || streams.reports() >= 3).await;
    eventually("the other fails", || streams.failures() >= 1).await;
}

// ---- the bytes of it ----------------------------------------------------------

/// Messages as they are, for a twin of each side that knows nothing of this crate.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).into()))
    }
}

/// The reports that the server sends to who asks with these bytes, until there are so many.
async fn asked(server: &Server, bytes: &[u8], reports: usize) -> Result<Vec<Vec<u8>>, Status> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    let channel = channel.expect("it is a URI").connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("it connects");
    let path = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";
    let path = http::uri::PathAndQuery::from_static(path);
    let request = tonic::Request::new(bytes.to_vec());
    let answer = grpc.server_streaming(request, path, Raw).await?;
    answer.into_inner().take(reports).try_collect().await
}

#[tokio::test]
async fn a_client_of_any_make_is_told_at_once_and_then_at_its_interval() {
    let server = Server::busy("a", 7.0, 0.5).await;
    // 86,400 s, and no interval at all.
    let day = [&[0x0a, 4, 0x08][..], &[0x80, 0xa3, 0x05]].concat();
    for bytes in [&day[..], &[]] {
        let told = asked(&server, bytes, 1).await.expect("it tells");
        let report = LoadReport::from_protobuf(&told[0]).expect("it is one");
        assert_eq!(report.in_flight(), Some(7.0));
    }
    let began = std::time::Instant::now();
    // 100 ms is 100,000,000 ns.
    let tenth = [&[0x0a, 5, 0x10][..], &[0x80, 0xc2, 0xd7, 0x2f]].concat();
    let told = asked(&server, &tenth, 4).await.expect("it tells");
    assert_eq!(told.len(), 4);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // No shorter than the server has it.
    let began = std::time::Instant::now();
    asked(&server, &[0x0a, 2, 0x10, 1], 4)
        .await
        .expect("it tells");
    assert!(began.elapsed() >= 3 * OFTEN);

    let refused = asked(&server, &[0x0a, 9], 1).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

/// Sends these messages, whatever it is asked, and then nothing.
#[derive(Clone)]
struct Says(Arc<Vec<Vec<u8>>>);

impl NamedService for Says {
    const NAME: &'static str = "xds.service.orca.v3.OpenRcaService";
}

impl tower::Service<http::Request<Body>> for Says {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let messages = Vec::clone(&self.0);
        let says = tower::service_fn(move |_: tonic::Request<Vec<u8>>| {
            let messages = stream::iter(messages.clone())
                .map(Ok)
                .chain(stream::pending());
            ready(Ok::<_, Status>(tonic::Response::new(messages.boxed())))
        });
        async move {
            Ok(tonic::server::Grpc::new(Raw)
                .server_streaming(says, request)
                .await)
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_passed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let good = LoadReport::default().to_protobuf();
    let too_long = vec![0; LoadReport::LONGEST + 1];
    let says = Says(Arc::new(vec![good.clone(), vec![0xff], too_long, good]));
    let server = tonic::transport::Server::builder()
        .add_service(says)
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let (users, _updater) = balancer(Adaptive::new(), [endpoint("a", address)]);
    let streams = users.grpc().load_streams(OFTEN).expect("it is an interval");
    eventually("all came", || {
        (streams.reports(), streams.failures()) == (2, 2)
    })
    .await;
    server.abort();
}

#[tokio::test]
async fn addresses_that_a_policy_refuses_are_not_asked() {
    let server = Server::start("a", true, |_| {}).await;
    let (users, _updater) = balancer(Adaptive::new(), [server.endpoint()]);
    let strict = AddressPolicy::default().without_loopback();
    let grpc = users.grpc().addresses(strict);
    let streams = grpc.load_streams(OFTEN).expect("it is an interval");
    eventually("it is refused", || streams.failures() == 1).await;
    tokio::time::sleep(10 * OFTEN).await;
    assert_eq!((server.connected(), streams.failures()), (0, 1));
}

#[tokio::test]
async fn what_is_no_interval_is_refused() {
    let (users, _updater) = balancer(Adaptive::new(), []);
    for interval in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
        let refused = users.grpc().load_streams(interval).unwrap_err();
        assert!(refused.is_invalid() && refused.to_string().contains("10 ms"));
    }
}

#[test]
fn without_a_runtime_there_are_no_streams() {
    let (users, _updater) = balancer(Adaptive::new(), []);
    let refused = users.grpc().load_streams(OFTEN).unwrap_err();
    assert!(refused.to_string().contains("runtime"), "{refused}");
}
