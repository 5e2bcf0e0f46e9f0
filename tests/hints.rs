//! What a balancer tells the source that it reads from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::time::sleep;
use waypost::registry::{Fallback, Map, Merge, Snapshotted};
use waypost::{Balancer, Discover, EndpointSet, Error, Fixed, Outcome, ServiceName};

/// Counts the hints.
#[derive(Clone)]
struct Asked {
    source: Fixed,
    times: Arc<AtomicU32>,
}

impl Asked {
    fn new() -> Self {
        let source = Fixed::addresses(["10.0.0.1:80", "10.0.0.2:80"]).unwrap();
        let times = Arc::default();
        Self { source, times }
    }

    fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }
}

impl Discover for Asked {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        self.source.watch(service)
    }

    fn look_again(&self, service: &ServiceName) {
        assert_eq!(service.as_str(), "users");
        self.times.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls for so long, a hundred times a second.
async fn call(users: &Balancer, outcome: Outcome, time: Duration) {
    for _ in 0..time.as_millis() / 10 {
        users.pick().unwrap().finish(outcome);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_in_a_row_are_told_once_a_second() {
    let asked = Asked::new();
    let users = Balancer::builder("users").build(asked.clone()).await;
    let users = users.unwrap();
    let ten = Duration::from_secs(10);
    call(&users, Outcome::Success, ten).await;
    assert_eq!(asked.times(), 0, "all is well");
    call(&users, Outcome::NotSent, ten).await;
    assert!((5..=11).contains(&asked.times()), "{}", asked.times());
    // Those that were ejected are let back when they succeed, which is no hint.
    let before = asked.times();
    call(&users, Outcome::Success, ten * 60).await;
    assert_eq!(asked.times(), before);
}

#[tokio::test(start_paused = true)]
async fn sources_around_others_hand_it_on() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked::new();
    let boxed: Box<dyn Discover> = Box::new(Arc::new(asked.clone()));
    let merged = Merge::new()
        .source("a", boxed)
        .source("b", Map::new(asked.clone(), |one| Some(one.clone())))
        .source("c", Snapshotted::new(asked.clone(), folder.path()).unwrap());
    let source = Fallback::new(merged, asked.clone(), Duration::from_secs(1));
    source.look_again(&"users".parse().unwrap());
    assert_eq!(asked.times(), 4);
}
