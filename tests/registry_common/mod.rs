//! What the tests of registries share: three replicas in a registry, and real HTTP calls to them through a balancer
//! that reads it: what every fault of a registry's server must leave alone.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod hurt;
mod proxy;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use waypost::testing::{Fault, Faults};
use waypost::{
    Balancer, Endpoint, EndpointSet, Error, Registration, Registry, ServiceName, Status,
};

use crate::client_common::Server as HttpServer;
use crate::server_common::{Server, until};

pub(crate) use hurt::{Hurt, Moment};
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use written::{Entries, Written};

/// Generous, as several servers start at once on two cores.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn users() -> ServiceName {
    "users".parse().unwrap()
}

pub(crate) fn endpoint(i: u16) -> Endpoint {
    let builder = Endpoint::builder(format!("127.0.0.1:{}", 9_000 + i));
    builder.id(format!("users-{i}")).build().unwrap()
}

/// An endpoint with all there is to say of one, in letters that need care.
pub(crate) fn full() -> Endpoint {
    let builder = Endpoint::builder("[::1]:9000")
        .id("größe/3 //..?x=%2f 😀")
        .weight(70_000)
        .region("eu")
        .zone("eu-1a")
        .sub_zone("rack 7")
        .priority(2)
        .status(Status::Starting)
        .metadata("version", "v2 \"beta\"")
        .tls_name("users.internal")
        .authority("users:80");
    builder.build().unwrap()
}

/// Registers, and again where a busy machine let the time for it pass.
pub(crate) async fn registered(registry: &impl Registry, endpoint: Endpoint) -> Registration {
    let mut held = None;
    until("it is registered", PATIENCE, async || {
        held = registry.register(&users(), endpoint.clone()).await.ok();
        held.is_some()
    })
    .await;
    held.expect("it was waited for")
}

/// The first error of a registration that says so; as [`error_saying`].
pub(crate) async fn refusal_saying(
    registry: &impl Registry,
    service: &ServiceName,
    endpoint: Endpoint,
    says: &str,
) -> Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = registry.register(service, endpoint.clone()).await;
        let error = error.expect_err("it is refused");
        if error.to_string().contains(says) {
            return error;
        }
        assert!(
            Instant::now() < deadline,
            "no error says `{says}`, but {error}"
        );
    }
}

type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

/// Waits until nothing has come for so long. That a machine which stands still lets
/// something lapse happens now and then; what is not kept alive lapses each time.
pub(crate) async fn is_quiet_for(sets: &mut Sets, time: Duration) {
    let quiet = async { while timeout(time, sets.next()).await.is_ok() {} };
    let quiet = timeout(10 * time, quiet).await;
    quiet.unwrap_or_else(|_| panic!("something came, again and again, within {time:?}"));
}

/// Reads a source that fails, for a second or what a busy machine makes of one, and tells how often it asked in each.
pub(crate) async fn asked_per_second(sets: &mut Sets, name: &str, asked: impl Fn() -> u64) -> u64 {
    let (before, begun) = (asked(), Instant::now());
    let polled = async { while sets.next().await.unwrap().is_err() {} };
    let polled = timeout(Duration::from_secs(1), polled).await;
    assert!(polled.is_err(), "{name}: it goes on failing");
    let seconds = begun.elapsed().as_secs_f64();
    ((asked() - before) as f64 / seconds).ceil() as u64
}

/// What was used in a runtime that has ended goes on in another.
pub(crate) async fn goes_on_in_another_runtime<R: Registry>(
    build: impl FnOnce() -> R + Send + 'static,
) {
    let runtimes = tokio::task::spawn_blocking(move || {
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        let first = runtime();
        let registry = first.block_on(async {
            let registry = build();
            drop(registered(&registry, endpoint(1)).await);
            set_where(&mut registry.watch(&users()), "it is read", |_| true).await;
            registry
        });
        first.shutdown_background();
        runtime().block_on(async {
            let _held = registered(&registry, endpoint(2)).await;
            let is_there = |set: &EndpointSet| set.get(endpoint(2).id()).is_some();
            set_where(&mut registry.watch(&users()), "it is read", is_there).await;
        });
    });
    runtimes.await.unwrap();
}

/// An entry is kept for as long as the process lives that entered it, and lapses when that is killed.
pub(crate) async fn lives_as_long_as_its_process<R: Registry>(
    build: impl Fn() -> R + Clone + Send + 'static,
    ttl: Duration,
) {
    let (entered, is_entered) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let its_own = build.clone();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let held = runtime.block_on(async { registered(&its_own(), endpoint(1)).await });
        entered.send(()).unwrap();
        ended.recv().unwrap_err();
        // What a process does that is killed: nothing.
        std::mem::forget(held);
        runtime.shutdown_background();
    });
    is_entered.recv().unwrap();
    let mut sets = build().watch(&users());
    set_where(&mut sets, "it shows", |set| set.len() == 1).await;
    is_quiet_for(&mut sets, 2 * ttl).await;
    let set = build().watch(&users()).next().await.unwrap();
    assert!(set.is_ok_and(|set| set.len() == 1), "it is kept alive");
    drop(end);
    process.join().unwrap();
    set_where(&mut sets, "it lapses", EndpointSet::is_empty).await;
}

/// The first set that passes; errors are passed over.
pub(crate) async fn set_where(
    sets: &mut Sets,
    what: &str,
    mut test: impl FnMut(&EndpointSet) -> bool,
) -> EndpointSet {
    let mut last = None;
    let waiting = async {
        loop {
            match sets.next().await.expect("a stream never ends") {
                Ok(set) if test(&set) => return set,
                other => last = Some(other),
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_| panic!("{what}; last came {last:?}"))
}

/// The first error that says so. On a busy machine others may come before it: that
/// nothing came in time.
pub(crate) async fn error_saying(sets: &mut Sets, name: &str, says: &str) -> Error {
    let mut last = None;
    let failing = async {
        loop {
            match sets.next().await.expect("a stream never ends") {
                Err(error) if error.to_string().contains(says) => return error,
                other => last = Some(other),
            }
        }
    };
    let found = timeout(PATIENCE, failing).await;
    found.unwrap_or_else(|_| panic!("{name}: no error says `{says}`; last came {last:?}"))
}

/// Real HTTP calls, one after the other, through a balancer on `registry`.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    calling: JoinHandle<Vec<String>>,
}

impl Load {
    pub(crate) async fn start(registry: impl Registry) -> Self {
        let users = Balancer::builder("users").build(registry).await.unwrap();
        users.ready(PATIENCE).await.unwrap();
        // The tests' reqwest has TLS, and will not choose a provider by itself.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(users.middleware())
            .build();
        let (stop, sent): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let (until, count) = (stop.clone(), sent.clone());
        let calling = tokio::spawn(async move {
            let mut lost = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let answer = client.get("http://users/").send().await;
                match answer {
                    Ok(answer) if answer.status() == 200 => {}
                    other => lost.push(format!("{other:?}")),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            lost
        });
        let load = Self {
            stop,
            sent,
            calling,
        };
        load.goes_on().await;
        load
    }

    /// Returns when 50 calls more have been answered.
    pub(crate) async fn goes_on(&self) {
        let from = self.sent.load(Ordering::Relaxed);
        until("calls go on", PATIENCE, async || {
            self.sent.load(Ordering::Relaxed) > from + 50
        })
        .await;
    }

    pub(crate) async fn lost_nothing(self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        let lost = self.calling.await.unwrap();
        assert!(lost.is_empty(), "{} calls lost: {:?}", lost.len(), lost[0]);
    }
}

pub(crate) async fn replicas(registry: &impl Registry) -> (Vec<HttpServer>, Vec<Registration>) {
    let mut servers = Vec::new();
    let mut held = Vec::new();
    for name in ["a", "b", "c"] {
        let server = HttpServer::start(name).await;
        let endpoint = Endpoint::builder(server.address).id(name).build().unwrap();
        held.push(registered(registry, endpoint).await);
        servers.push(server);
    }
    (servers, held)
}

pub(crate) async fn all_registered(held: &[Registration], registry: &impl Registry) {
    until("every registration is well", PATIENCE, async || {
        held.iter().all(|it| it.state().is_registered())
    })
    .await;
    let mut sets = registry.watch(&users());
    let waiting = async {
        loop {
            if let Some(Ok(set)) = sets.next().await
                && set.iter().filter(|it| it.takes_calls()).count() == 3
            {
                return;
            }
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("all three are up again");
}

/// Real calls go on while each fault lasts, and after it every entry is there again; gives the faults that there
/// were.
pub(crate) async fn no_call_is_lost(
    registry: &(impl Registry + Clone),
    mut faults: impl Faults,
) -> Vec<Fault> {
    let mut tried = Vec::new();
    let (_replicas, held) = replicas(registry).await;
    for fault in Fault::ALL {
        let load = Load::start(registry.clone()).await;
        if faults.hurt(fault).await {
            sleep(faults.lasting(fault)).await;
            load.goes_on().await;
            faults.heal(fault).await;
            all_registered(&held, registry).await;
            tried.push(fault);
        }
        load.lost_nothing().await;
    }
    tried
}

/// One of several servers dies for good.
pub(crate) async fn killed_for_good(registry: &(impl Registry + Clone), server: &mut Server) {
    let (_replicas, held) = replicas(registry).await;
    let load = Load::start(registry.clone()).await;
    server.kill();
    load.goes_on().await;
    all_registered(&held, registry).await;
    load.lost_nothing().await;
}
