//! A fleet in this process, and calls to it: endpoints that are slow, that fail,
//! that leave. Its servers are timers, its balancer is real.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use waypost::health::slow_start::SlowStart;
use waypost::observe::{EndpointState, Report, dashboard};
use waypost::rng::Rng;
use waypost::strategy::P2c;
use waypost::{Balancer, Endpoint, InMemory, Outcome, Registration, Registry as _, Status};

use crate::common::Result;

pub(crate) struct Fleet {
    pub(crate) users: Balancer,
    /// Where the same is shown as a page.
    pub(crate) page: String,
    _registrations: Vec<Registration>,
}

/// As many callers, each of which waits a little between two calls.
const CALLERS: u64 = 40;

impl Fleet {
    pub(crate) async fn start() -> Result<Self> {
        let registry = InMemory::new();
        let service = "users".parse()?;
        let at = |id: &str, last: u8, zone: &str| {
            Endpoint::builder(format!("10.0.0.{last}:80"))
                .id(id)
                .zone(zone)
        };
        let mut registrations = Vec::new();
        for endpoint in [
            at("a-1", 1, "eu-1a"),
            at("a-2", 2, "eu-1b"),
            at("a-heavy", 3, "eu-1a").weight(2),
            at("b-fails", 4, "eu-1b"),
            at("c-slow", 5, "eu-1a"),
            at("d-leaves", 6, "eu-1b").status(Status::Draining),
            at("e-spare", 7, "eu-2a").priority(1),
        ] {
            let registered = registry.register(&service, endpoint.build()?).await?;
            registrations.push(registered);
        }
        let users = Balancer::builder("users")
            .strategy(P2c::peak_ewma())
            .slow_start(SlowStart::new(Duration::from_secs(5)))
            .build(registry)
            .await?;
        for caller in 0..CALLERS {
            tokio::spawn(call(users.clone(), Rng::seeded(caller)));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page = format!("http://{}/", listener.local_addr()?);
        let router = dashboard([users.clone()]);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            users,
            page,
            _registrations: registrations,
        })
    }

    /// Waits until the ill one is ejected and each of the others was called.
    pub(crate) async fn until_it_shows(&self) -> Result<()> {
        let shows = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                let endpoints = Report::of(&self.users).endpoints;
                let ejected = endpoints
                    .iter()
                    .any(|one| one.state == EndpointState::Ejected);
                let mut up = endpoints
                    .iter()
                    .filter(|one| one.state == EndpointState::Up);
                if ejected && up.all(|one| one.succeeded > 10) {
                    return;
                }
            }
        };
        let in_time = timeout(Duration::from_secs(30), shows).await;
        in_time.map_err(|_| "the failing endpoint was not ejected within 30 s".into())
    }
}

/// One caller, for ever.
async fn call(users: Balancer, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(u64::from(rng.below(40)))).await;
        let Ok(pick) = users.pick() else { continue };
        let (least, fails) = match pick.id().as_str() {
            "c-slow" => (60, false),
            "b-fails" => (1, true),
            _ => (5, false),
        };
        let took = least + u64::from(rng.below(least as u32));
        // Awaited with the guard: it counts as in flight.
        let pick = pick.detach();
        sleep(Duration::from_millis(took)).await;
        pick.finish(if fails {
            Outcome::Interrupted
        } else {
            Outcome::Success
        });
    }
}
