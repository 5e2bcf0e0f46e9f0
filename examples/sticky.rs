//! Sessions that keep to their server: by a cookie, over a ring. A server is lost
//! and comes back: only its own sessions moved, and they come home. One session
//! that everybody asks for does not overload its server.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Result, Server};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use waypost::client::http::{BalanceLayer, RequestKey};
use waypost::hash::key_hash;
use waypost::strategy::{PickOptions, RingHash};
use waypost::{Balancer, Endpoint, InMemory, Registration, Registry as _};

const SESSIONS: usize = 1_000;
/// No server has more than this times its share of what is in flight.
const BOUND: f64 = 1.25;
const NAMES: [&str; 4] = ["one", "two", "three", "four"];

#[tokio::main]
async fn main() -> Result<()> {
    let registry = InMemory::new();
    let (mut servers, mut registrations) = (Vec::new(), Vec::new());
    for name in NAMES {
        let server = Server::start(name).await?;
        registrations.push(register(&registry, &server, name).await?);
        servers.push(server);
    }
    let carts = Balancer::builder("carts")
        .strategy(RingHash::new().bounded(BOUND)?)
        .build(registry.clone())
        .await?;

    let at_first = owners(&carts).await?;
    println!("{SESSIONS} sessions: {:?}", counted(&at_first));
    let again = owners(&carts).await?;
    let moved = differing(&at_first, &again);
    println!("asked again, {moved} of them met another server");

    let lost = registrations.pop().ok_or("there are four")?;
    lost.deregister().await?;
    while carts.current().len() != 3 {
        tokio::task::yield_now().await;
    }
    let without = owners(&carts).await?;
    let its_own = at_first.iter().filter(|&owner| owner == "four").count();
    let moved_then = differing(&at_first, &without);
    println!(
        "without four, which had {its_own}: {moved_then} moved, to {:?}",
        counted(&without)
    );

    let back = register(&registry, &servers[3], "four").await?;
    while carts.current().len() != 4 {
        tokio::task::yield_now().await;
    }
    let away = differing(&at_first, &owners(&carts).await?);
    println!("four is back, and {away} of the sessions are not where they were at first");

    let hot = hot_session(&carts)?;
    println!("100 calls of one session at once: {hot:?}");
    // ⌈1.25 × 100 / 4⌉.
    let most = (BOUND * 100.0 / 4.0).ceil() as u32;
    drop(back);
    let is_so = moved == 0
        && moved_then == its_own
        && its_own > 0
        && !without.iter().any(|owner| owner == "four")
        && away == 0
        && hot.values().all(|&calls| calls <= most);
    if is_so {
        return Ok(());
    }
    Err("sessions moved that should not have, or a server had more than its bound".into())
}

async fn register(registry: &InMemory, server: &Server, name: &str) -> Result<Registration> {
    let endpoint = Endpoint::builder(server.address).id(name).build()?;
    Ok(registry.register(&"carts".parse()?, endpoint).await?)
}

/// Which server answers each session.
async fn owners(carts: &Balancer) -> Result<Vec<String>> {
    let client = BalanceLayer::new(carts.clone())
        .key(RequestKey::cookie("session")?)
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let mut owners = Vec::new();
    for session in 0..SESSIONS {
        let request = http::Request::get("http://carts/")
            .header("cookie", format!("lang=en; session=s{session}"))
            .body(Full::default())?;
        let answer = client.clone().oneshot(request).await?;
        let name = answer.into_body().collect().await?.to_bytes();
        owners.push(String::from_utf8(name.to_vec())?);
    }
    Ok(owners)
}

fn counted(owners: &[String]) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    for owner in owners {
        *counts.entry(owner.as_str()).or_default() += 1;
    }
    counts
}

fn differing(one: &[String], other: &[String]) -> usize {
    one.iter().zip(other).filter(|(a, b)| a != b).count()
}

/// Where a hundred calls of one session are, all in flight together.
fn hot_session(carts: &Balancer) -> Result<BTreeMap<String, u32>> {
    let session = PickOptions::new().hash(key_hash(b"s7"));
    let calls: std::result::Result<Vec<_>, _> =
        (0..100).map(|_| carts.pick_with(&session)).collect();
    let mut held = BTreeMap::new();
    for call in &calls? {
        *held.entry(call.id().to_string()).or_default() += 1;
    }
    Ok(held)
}
