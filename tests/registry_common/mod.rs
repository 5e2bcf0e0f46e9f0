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
use tokio::time::{sleep, timeout};
use waypost::testing::{Fault, Faults};
use waypost::{Balancer, Endpoint, EndpointSet, Error, Registration, Registry, ServiceName};

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

/// The first set that passes; errors are passed over.
pub(crate) async fn set_where(
    sets: &mut BoxStream<'static, Result<EndpointSet, Error>>,
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
pub(crate) async fn error_saying(
    sets: &mut BoxStream<'static, Result<EndpointSet, Error>>,
    name: &str,
    says: &str,
) -> Error {
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
        held.push(registry.register(&users(), endpoint).await.unwrap());
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
