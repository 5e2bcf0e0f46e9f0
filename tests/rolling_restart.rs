//! G2 over real sockets: every server is restarted under load, and no call is
//! lost, without a retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use waypost::balancer::Why;
use waypost::event::Event;
use waypost::health::check::HealthCheck;
use waypost::server::{Goodbye, Lifecycle, Readiness, Serving};
use waypost::{Balancer, Endpoint, InMemory, Outcome, ServiceName};

/// Long enough for the watch of a registry in the same process, on a machine
/// that is busy with something else.
const CONVERGENCE: Duration = Duration::from_millis(300);

struct Server {
    serving: Serving,
    probes: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Server {
    async fn start(registry: &InMemory, service: &ServiceName) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new().convergence(CONVERGENCE);
        let endpoint = Endpoint::at(address).unwrap();
        let serving = lifecycle
            .register(registry, service, endpoint)
            .await
            .unwrap();
        let (stopping, ready) = (serving.stopping(), serving.readiness());
        let probes = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, stopping, ready, Arc::clone(&probes)));
        Self {
            serving,
            probes,
            accepting,
        }
    }

    async fn stop(self) -> Goodbye {
        let goodbye = self.serving.shutdown().await;
        self.accepting.await.unwrap();
        goodbye
    }
}

async fn accept(
    listener: TcpListener,
    stopping: impl Future<Output = ()>,
    ready: Readiness,
    probes: Arc<AtomicU64>,
) {
    let graceful = GracefulShutdown::new();
    let mut stopping = std::pin::pin!(stopping);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = &mut stopping => break,
        };
        let (ready, probes) = (ready.clone(), Arc::clone(&probes));
        let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
            let is_probe = request.uri().path() == "/healthz";
            probes.fetch_add(u64::from(is_probe), Ordering::Release);
            let status = if is_probe && !ready.is_ready() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                StatusCode::OK
            };
            async move {
                if !is_probe {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let response = Response::builder().status(status);
                response.body(Empty::<Bytes>::new())
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(graceful.watch(connection));
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn call(address: &str) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", address)
        .body(Empty::<Bytes>::new())?;
    let status = send.send_request(request).await?.status();
    drop(send);
    connection.await??;
    Ok(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_of_every_server_loses_no_call() {
    let registry = InMemory::new();
    let service: ServiceName = "users".parse().unwrap();
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Server::start(&registry, &service).await);
    }
    let check = HealthCheck::http("/healthz")
        .interval(Duration::from_millis(50))
        .jitter(Duration::from_millis(10));
    let users = Balancer::builder("users")
        .health_check(check)
        .build(registry.clone())
        .await
        .unwrap();

    let (done, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let load: Vec<JoinHandle<()>> = (0..8)
        .map(|_| {
            let (users, done, calls) = (users.clone(), Arc::clone(&done), Arc::clone(&calls));
            tokio::spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let pick = users.pick().expect("there is always one");
                    let answer = call(pick.address().as_str()).await;
                    let status = answer.unwrap_or_else(|e| panic!("{}: {e}", pick.address()));
                    assert_eq!(status, StatusCode::OK);
                    pick.finish(Outcome::Success);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for _ in 0..servers.len() {
        // The new one first, then the old one goes.
        servers.push(Server::start(&registry, &service).await);
        let goodbye = servers.remove(0).stop().await;
        assert!(goodbye.is_clean(), "{goodbye:?}");
    }
    done.store(true, Ordering::Release);
    for load in load {
        load.await.expect("no call was lost");
    }
    assert!(calls.load(Ordering::Relaxed) > 100, "there was load");
}

/// A registry that forgets a server which runs does not stop its calls; when it
/// fails its check it goes. The matrix of discovery and checks, over sockets.
#[tokio::test]
async fn an_absent_server_that_passes_gets_calls_until_it_fails() {
    let registry = InMemory::new();
    let service: ServiceName = "users".parse().unwrap();
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(Server::start(&registry, &service).await);
    }
    let check = HealthCheck::http("/healthz")
        .interval(Duration::from_millis(20))
        .jitter(Duration::from_millis(1));
    let (users, mut updater) = Balancer::builder("users")
        .health_check(check)
        .manual()
        .unwrap();
    let known = |server: &Server| server.serving.registration().endpoint().clone();
    let both = waypost::EndpointSet::new(servers.iter().map(known)).unwrap();
    updater.apply(both.clone());
    let gone = known(&servers[1]);
    // When the second probe comes, the first has passed.
    while servers[1].probes.load(Ordering::Acquire) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    updater.apply(both.without(gone.id()));
    let kept = users.current().get(gone.id()).is_some();
    assert!(kept, "absent, but passing");

    let stopped = servers.remove(1);
    stopped.stop().await;
    for _ in 0..1_000 {
        updater.look();
        if users.current().get(gone.id()).is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("absent and failing is gone: {}", users.explain());
}

/// One endpoint accepts connections and never answers; the others' probes, and
/// their verdicts, do not wait for it.
#[tokio::test]
async fn a_stuck_probe_delays_no_other_and_probes_are_shared() {
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = refusing.local_addr().unwrap();
    drop(refusing);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let stuck_at = stuck.local_addr().unwrap().to_string();
    let check = HealthCheck::custom(move |endpoint: Arc<Endpoint>| {
        let (asked, is_stuck) = (
            Arc::clone(&counted),
            endpoint.address().as_str() == stuck_at,
        );
        async move {
            if is_stuck {
                return futures::future::pending().await;
            }
            asked.fetch_add(1, Ordering::Relaxed);
            let connected = TcpStream::connect(endpoint.address().as_str()).await;
            connected.map(drop).map_err(|error| error.to_string())
        }
    });
    let check = check
        .interval(Duration::from_millis(20))
        .jitter(Duration::ZERO)
        .unhealthy_threshold(1)
        .timeout(Duration::from_hours(1));
    let endpoints = [stuck.local_addr().unwrap(), refused].map(|at| Endpoint::at(at).unwrap());
    let set = waypost::Fixed::new(endpoints).unwrap();
    let first = Balancer::builder("users").health_check(check.clone());
    let first = first.build(set.clone()).await.unwrap();
    let second = Balancer::builder("others").health_check(check);
    let second = second.build(set).await.unwrap();

    let id = refused.to_string();
    let failed = |balancer: Balancer| {
        let id = id.clone();
        async move {
            let mut events = balancer.events();
            let verdict = |balancer: &Balancer| {
                let endpoints = balancer.explain().endpoints;
                endpoints
                    .into_iter()
                    .any(|v| v.id == id && matches!(v.why, Why::CheckFailed { .. }))
            };
            while !verdict(&balancer) {
                let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
                let event = event
                    .expect("its check fails soon")
                    .expect("the balancer lives");
                assert!(!matches!(event, Event::CheckPassed { .. }));
            }
        }
    };
    failed(first.clone()).await;
    let by_one = asked.load(Ordering::Relaxed);
    failed(second.clone()).await;
    assert!(by_one >= 1);
    let picked = first.pick().unwrap();
    assert_eq!(
        picked.address().as_str(),
        stuck.local_addr().unwrap().to_string()
    );

    // Two balancers, one series of probes: about one each 20 ms.
    let (begun, at) = (asked.load(Ordering::Relaxed), tokio::time::Instant::now());
    while asked.load(Ordering::Relaxed) < begun + 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = at.elapsed();
    assert!(
        elapsed >= Duration::from_millis(150),
        "twice as many probes: {elapsed:?}"
    );
}
