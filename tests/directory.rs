//! The laws of the directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use waypost::time::Clock;
use waypost::{Directory, Discover, EndpointSet, Error, Fixed, ServiceName};

/// Counts the watches begun and those that are open.
#[derive(Clone, Default)]
struct Counting {
    begun: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Counting {
    fn counts(&self) -> (usize, usize) {
        let open = self.open.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst), open)
    }
}

impl Discover for Counting {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        let fixed = Fixed::addresses(["10.0.0.1:80"]).expect("it is an address");
        let answers = fixed.watch(service);
        answers
            .map(move |answer| {
                let _ = &open;
                answer
            })
            .boxed()
    }
}

fn name(name: &str) -> ServiceName {
    name.parse().expect("it is a name")
}

const IDLE: Duration = Duration::from_mins(1);

#[test]
fn outside_of_a_runtime_it_says_so() {
    let directory = Directory::new(Counting::default());
    let error = directory.balancer(&name("users")).expect_err("no runtime");
    assert!(error.to_string().contains("runtime"), "{error}");
    assert!(directory.services().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_uses_make_one_watch() {
    let source = Counting::default();
    let directory = Directory::new(source.clone());
    let asking = (0..32).map(|_| {
        let directory = directory.clone();
        tokio::spawn(async move { directory.balancer(&name("users")) })
    });
    for balancer in futures::future::join_all(asking).await {
        balancer.expect("no panic").expect("there is a runtime");
    }
    assert_eq!(source.counts(), (1, 1));
    assert_eq!(directory.services(), [name("users")]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_balancer_is_dropped_but_goes_on_for_who_holds_it() {
    let (clock, hands) = Clock::manual();
    let source = Counting::default();
    let builder = Directory::builder(source.clone()).clock(clock);
    let directory = builder.idle(IDLE).build();
    let held = directory.balancer(&name("users")).expect("a runtime");
    drop(directory.balancer(&name("orders")).expect("a runtime"));
    assert_eq!(source.counts(), (2, 2));
    tokio::time::sleep(IDLE).await;
    assert_eq!(directory.services().len(), 2, "the clock stood still");
    hands.advance(IDLE * 2);
    tokio::time::sleep(IDLE).await;
    assert!(directory.services().is_empty());
    assert_eq!(source.counts(), (2, 1), "the held one is still watched");
    assert!(held.pick().is_ok());
    drop(held);
    tokio::time::sleep(IDLE).await;
    assert_eq!(source.counts(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn beyond_its_limit_it_refuses_unless_some_are_idle() {
    let (clock, hands) = Clock::manual();
    let builder = Directory::builder(Counting::default()).clock(clock);
    let directory = builder.idle(IDLE).max_services(1).build();
    drop(directory.balancer(&name("a")).expect("there is room"));
    let error = directory.balancer(&name("b")).expect_err("it is full");
    assert!(error.to_string().contains("max_services"), "{error}");
    hands.advance(IDLE * 2);
    assert!(directory.balancer(&name("b")).is_ok());
    assert_eq!(directory.services(), [name("b")]);
}
