//! Active checks on real servers: gRPC's health protocol, TLS, and what nobody
//! calls.

mod tls_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tls_common::Authority;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use waypost::balancer::Why;
use waypost::client::tls::EndpointTls;
use waypost::health::check::HealthCheck;
use waypost::{Balancer, Endpoint, EndpointSet, Fixed, Outcome, Updater};

/// Quick enough for a test; every verdict at once.
fn quick(check: HealthCheck) -> HealthCheck {
    let interval = Duration::from_millis(10);
    check
        .interval(interval)
        .jitter(Duration::from_millis(1))
        .unhealthy_threshold(1)
        .healthy_threshold(1)
        .timeout(Duration::from_secs(10))
}

/// A balancer of one endpoint that is probed so.
struct Probed {
    balancer: Balancer,
    updater: Updater,
    set: EndpointSet,
}

impl Probed {
    fn start(endpoint: Endpoint, check: HealthCheck) -> Self {
        let builder = Balancer::builder("users").health_check(quick(check));
        let (balancer, mut updater) = builder.manual().unwrap();
        let set = EndpointSet::new([endpoint]).unwrap();
        updater.apply(set.clone());
        Self {
            balancer,
            updater,
            set,
        }
    }

    /// Waits for a verdict: none where it is well.
    async fn is(&mut self, mut expected: impl FnMut(Option<&str>) -> bool) {
        for _ in 0..3_000 {
            self.updater.look();
            let found = self.balancer.explain().endpoints.remove(0).why;
            // Of one endpoint, one that fails is too many.
            let ill = match &found {
                Why::Panic { ill } => ill,
                other => other,
            };
            let reason = match ill {
                Why::CheckFailed { reason } => Some(reason.as_str()),
                _ => None,
            };
            if expected(reason) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{}", self.balancer.explain());
    }

    /// Waits until a probe is passed, which shows in that the endpoint stays when
    /// the registry forgets it. One that goes is probed anew, for twice as long.
    async fn passes(&mut self) {
        for doubled in 0..12 {
            tokio::time::sleep(Duration::from_millis(5 << doubled)).await;
            self.updater.apply(EndpointSet::empty());
            let kept = !self.balancer.current().is_empty();
            self.updater.apply(self.set.clone());
            if kept {
                return;
            }
        }
        panic!("{}", self.balancer.explain());
    }

    async fn fails_by(&mut self, part: &str) {
        self.is(|reason| reason.is_some_and(|it| it.contains(part)))
            .await;
    }
}

async fn grpc(service: HealthService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(HealthServer::new(service))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    address
}

fn at(address: SocketAddr) -> Endpoint {
    Endpoint::at(address).unwrap()
}

#[tokio::test]
async fn grpc_says_itself_whether_it_serves() {
    let reporter = HealthReporter::new();
    let set = async |status| reporter.set_service_status("users", status).await;
    set(ServingStatus::Serving).await;
    let server = grpc(HealthService::from_health_reporter(reporter.clone())).await;
    let mut probed = Probed::start(at(server), HealthCheck::grpc("users"));
    probed.is(|reason| reason.is_none()).await;
    set(ServingStatus::NotServing).await;
    probed.fails_by("health status is 2").await;
    set(ServingStatus::Serving).await;
    probed.is(|reason| reason.is_none()).await;

    let mut unknown = Probed::start(at(server), HealthCheck::grpc("orders"));
    unknown.fails_by("gRPC status \"5\"").await;
    // The server as a whole.
    let mut whole = Probed::start(at(server), HealthCheck::grpc(""));
    whole.passes().await;
}

#[tokio::test]
async fn what_does_not_speak_the_protocol_fails_with_the_reason() {
    let mut server = tonic::transport::Server::builder();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = tonic::service::Routes::default();
    tokio::spawn(
        server
            .add_routes(routes)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let mut without = Probed::start(at(address), HealthCheck::grpc("users"));
    without.fails_by("gRPC status \"12\"").await;

    // One that speaks HTTP/1 alone.
    let old = axum::Router::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, old).await });
    let mut old = Probed::start(at(address), HealthCheck::grpc("users"));
    old.is(|reason| reason.is_some_and(|it| !it.is_empty()))
        .await;
    let mut page = Probed::start(at(address), HealthCheck::http("/healthz"));
    page.fails_by("status 404").await;

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut refused = Probed::start(at(address), HealthCheck::grpc("users"));
    refused.fails_by("refused").await;
}

fn named(address: SocketAddr, name: &str) -> Endpoint {
    Endpoint::builder(address).tls_name(name).build().unwrap()
}

fn trusting(
    authority: &Authority,
) -> impl Fn(&Endpoint) -> Result<ClientConfig, waypost::Error> + use<> {
    let tls = EndpointTls::new(authority.roots());
    move |endpoint| tls.config(endpoint)
}

#[tokio::test]
async fn a_page_over_tls_is_trusted_only_with_its_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = tls_common::Server::start("users", &ours, &["users.test"]).await;
    let check = |authority: &Authority| HealthCheck::http("/").tls(trusting(authority));
    let mut well = Probed::start(named(server.address, "users.test"), check(&ours));
    well.passes().await;
    let mut other = Probed::start(named(server.address, "orders.test"), check(&ours));
    other.fails_by("not valid for").await;
    let mut forged = Probed::start(named(server.address, "users.test"), check(&theirs));
    forged.fails_by("invalid peer certificate").await;
    // The name that is asked for is the one that is checked where there is no other.
    let host = check(&ours).host("users.test:443");
    let mut by_host = Probed::start(at(server.address), host);
    by_host.passes().await;
}

#[tokio::test]
async fn grpc_health_goes_over_tls_too() {
    let authority = Authority::new();
    let identity = authority.identity(&["users.test"]);
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert], identity.key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async {
        let (stream, _) = listener.accept().await.ok()?;
        let stream = acceptor.accept(stream).await;
        Some((stream, (listener, acceptor)))
    });
    let health = HealthService::from_health_reporter(HealthReporter::new());
    let server = tonic::transport::Server::builder().add_service(HealthServer::new(health));
    tokio::spawn(server.serve_with_incoming(accepted));
    let check = HealthCheck::grpc("").tls(trusting(&authority));
    let mut probed = Probed::start(named(address, "users.test"), check);
    probed.passes().await;
}

/// A minute between two probes while nobody calls; the usual interval from the
/// first call on.
#[tokio::test(start_paused = true)]
async fn what_nobody_calls_is_probed_less_often() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let check = HealthCheck::custom(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    });
    let check = check
        .interval(Duration::from_secs(1))
        .no_traffic_interval(Duration::from_mins(1))
        .jitter(Duration::ZERO);
    let users = Balancer::builder("users").health_check(check);
    let users = users
        .build(Fixed::addresses(["10.0.0.1:80"]).unwrap())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(9 * 60_500)).await;
    let idle = asked.load(Ordering::Relaxed);
    assert!((9..=11).contains(&idle), "{idle}");
    users.pick().unwrap().finish(Outcome::Success);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let busy = asked.load(Ordering::Relaxed) - idle;
    assert!((58..=61).contains(&busy), "{busy}");
}
