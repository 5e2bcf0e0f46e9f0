//! What comes of Eureka when it fails, hangs, lies or is not Eureka at all: a stand-in that is hurt
//! (`tests/eureka.rs` proves it).

mod client_common;
mod eureka_server;
mod hostile;
mod registry_common;
mod server_common;

use std::time::Duration;

use eureka_server::EurekaServer;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use hostile::{Answer, Hostile};
use registry_common::{
    Mode, Proxy, asked_per_second, endpoint, error_saying, no_call_is_lost, refusal_saying,
    set_where, users,
};
use server_common::until;
use waypost::registry::eureka::{Eureka, EurekaBuilder};
use waypost::testing::{self, Fault};
use waypost::{Discover as _, EndpointSet, Status};

const PATIENCE: Duration = Duration::from_secs(20);

/// Soon tired of a server that hangs.
fn at(url: impl Into<String>) -> EurekaBuilder {
    let builder = Eureka::builder(url).fetch_interval(Duration::from_millis(50));
    builder
        .lease(Duration::from_secs(1), Duration::from_secs(3))
        .request_timeout(Duration::from_secs(1))
}

/// Patient with a machine that stands still for a while.
fn patient(url: impl Into<String>) -> EurekaBuilder {
    at(url).request_timeout(Duration::from_secs(9))
}

/// The stand-in behind a proxy, and what can be done to both.
struct Hurt {
    server: EurekaServer,
    proxy: Proxy,
}

impl Hurt {
    async fn start() -> (Eureka, Self) {
        let server = EurekaServer::start().await;
        let proxy = Proxy::start(server.address.to_string()).await;
        let registry = at(format!("http://{}/eureka", proxy.address)).build();
        (registry.unwrap(), Self { server, proxy })
    }
}

impl testing::Faults for Hurt {
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool> {
        match fault {
            Fault::Cut => self.proxy.set(Mode::Cut),
            Fault::HalfOpen => self.proxy.set(Mode::Silent),
            Fault::Garbage => self.proxy.set(Mode::Garbage),
            // What stands before it answers for one that is not up yet.
            Fault::Restart => self.server.broken(Some(503)),
            // Deltas that tell nothing: the whole has to be fetched.
            Fault::IndexReset => self.server.lossy(true),
            Fault::SessionLost => self.server.forget(),
            Fault::BackOlder => {
                self.proxy.set(Mode::Cut);
                self.server.older();
            }
            Fault::BackEmpty => {
                self.proxy.set(Mode::Cut);
                self.server.forget();
            }
            _ => return async { false }.boxed(),
        }
        async { true }.boxed()
    }

    fn heal(&mut self, _fault: Fault) -> BoxFuture<'_, ()> {
        self.proxy.set(Mode::Open);
        self.server.broken(None);
        self.server.lossy(false);
        async {}.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_laws_of_chaos() {
    let (registry, hurt) = Hurt::start().await;
    let tried = testing::chaos(registry, hurt, Duration::from_mins(1)).await;
    assert_eq!(tried, Fault::ALL, "every fault there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens_to_the_server() {
    let (registry, hurt) = Hurt::start().await;
    assert_eq!(no_call_is_lost(&registry, hurt).await, Fault::ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_there() {
    let port = server_common::free_port();
    let registry = patient(format!("http://127.0.0.1:{port}/eureka")).build();
    let registry = registry.unwrap();
    let read = error_saying(&mut registry.watch(&users()), "nobody", "refused").await;
    let written = refusal_saying(&registry, &users(), endpoint(1), "refused").await;
    for error in [read, written] {
        let text = error.to_string();
        assert!(error.is_registry(), "{text}");
        assert!(text.contains(&port.to_string()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_are_typed_errors_that_cost_little_and_pass() {
    let good = r#"{"applications":{"apps__hashcode":"","application":[]}}"#;
    for (name, answer, says) in [
        ("garbage", Answer::new("200 OK", "", "<html>"), "no JSON"),
        (
            "another shape",
            Answer::new("200 OK", "", "{\"a\":1}"),
            "no applications",
        ),
        ("truncated", Answer::truncated("", good), "failed"),
        (
            "500",
            Answer::new("500 Internal Server Error", "", "oops"),
            "oops",
        ),
        ("429", Answer::new("429 Too Many Requests", "", ""), "429"),
        (
            "403",
            Answer::new("403 Forbidden", "", "not ready"),
            "not ready",
        ),
        ("endless", Answer::Endless, "more than 1048576 bytes"),
        ("silent", Answer::Silence, "not answered within"),
    ] {
        let server = Hostile::start(answer).await;
        let registry = at(server.url()).max_body(1 << 20).build().unwrap();
        let mut sets = registry.watch(&users());
        let text = error_saying(&mut sets, name, says).await.to_string();
        assert!(text.contains(&server.address.to_string()), "{name}: {text}");
        let asked = asked_per_second(&mut sets, name, || server.asked()).await;
        assert!(asked <= 10, "{name}: asked {asked} times in a second");
        server.answer(Answer::new("200 OK", "", good));
        set_where(&mut sets, name, EndpointSet::is_empty).await;
    }
}

/// Guards: a registration failed when the server had just closed the idle connection that it was sent on.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_as_it_is_used_again_is_no_failure() {
    let good = r#"{"applications":{"apps__hashcode":"","application":[]}}"#;
    let Answer::Raw(bytes) = Answer::new("200 OK", "", good) else {
        unreachable!("it is made of bytes")
    };
    let server = Hostile::start(Answer::Once(bytes)).await;
    let registry = patient(server.url()).build().unwrap();
    let mut sets = registry.watch(&users());
    set_where(&mut sets, "it is read", EndpointSet::is_empty).await;
    let polled = async {
        loop {
            let told = sets.next().await.unwrap();
            assert!(told.is_ok(), "{told:?}");
        }
    };
    let enough = until("it is fetched many times", PATIENCE, async || {
        server.asked() > 10
    });
    tokio::select! {
        () = polled => {}
        () = enough => {}
    }
}

/// Guards: so did one when the server had closed several of them.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_together_are_no_failure() {
    let Answer::Raw(bytes) = Answer::new("200 OK", "", "") else {
        unreachable!("it is made of bytes")
    };
    let server = Hostile::start(Answer::Once(bytes)).await;
    let (service, id) = (users(), "a".parse().unwrap());
    for _ in 0..20 {
        let registry = patient(server.url()).build().unwrap();
        let change = || registry.override_status(&service, &id, Some(Status::Draining));
        let together = futures::join!(change(), change(), change());
        assert!(
            together.0.and(together.1).and(together.2).is_ok(),
            "each has a connection of its own"
        );
        change().await.unwrap();
    }
}
