//! A new version that gets a share of the calls, then more, then all; it dies
//! on the way, and no call is lost.

mod common;

use std::collections::BTreeMap;

use common::{Result, Server};
use waypost::topology::{Fallback, Selector, Topology};
use waypost::{Balancer, Endpoint, Fixed};

const CALLS: u32 = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    // reqwest is built here with rustls and no provider of its own.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut old = Vec::new();
    for _ in 0..4 {
        old.push(Server::start("v1").await?);
    }
    let new = Server::start("v2").await?;
    let at = |server: &Server, version| {
        let endpoint = Endpoint::builder(server.address);
        endpoint.metadata("version", version).build()
    };
    let mut endpoints = vec![at(&new, "v2")?];
    for server in &old {
        endpoints.push(at(server, "v1")?);
    }
    let fleet = Fixed::new(endpoints)?;
    let version = |name| Selector::new("version", name);

    // One of five endpoints: without a split it would get a fifth.
    for percent in [5, 50, 100] {
        let parts = [(version("v1"), 100 - percent), (version("v2"), percent)];
        let shares = call(&fleet, Topology::new().split(parts)).await?;
        println!("a split of {percent:>3} % for v2: {shares:?}");
        let got = f64::from(shares.get("v2").copied().unwrap_or(0)) / f64::from(CALLS);
        let expected = f64::from(percent) / 100.0;
        // Five standard deviations of a binomial draw.
        let chance = 5.0 * (expected * (1.0 - expected) / f64::from(CALLS)).sqrt();
        if (got - expected).abs() > chance {
            return Err(format!("v2 got {:.1} % of the calls", got * 100.0).into());
        }
    }

    drop(new);
    let split = || Topology::new().split([(version("v1"), 50), (version("v2"), 50)]);
    let shares = call(&fleet, split()).await?;
    println!("v2 is dead, and has a split of 50 %: {shares:?}");
    if shares.get("v1") != Some(&CALLS) {
        return Err("a call was lost with v2".into());
    }

    // Testers, who want the new version or nothing.
    let only = Topology::new()
        .subset(version("v3"))
        .fallback(Fallback::None);
    let testers = Balancer::builder("users")
        .topology(only)
        .build(fleet)
        .await?;
    match testers.pick() {
        Err(error) => println!("only v3, which is not there: {error}"),
        Ok(pick) => return Err(format!("{} is no v3", pick.address()).into()),
    }
    Ok(())
}

/// Who answers calls that are spread like this.
async fn call(fleet: &Fixed, topology: Topology) -> Result<BTreeMap<String, u32>> {
    let users = Balancer::builder("users")
        .topology(topology)
        .build(fleet.clone())
        .await?;
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(users.middleware())
        .build();
    let mut answers = BTreeMap::new();
    for _ in 0..CALLS {
        let answer = client.get("http://users/v1/me").send().await?;
        *answers.entry(answer.text().await?).or_default() += 1;
    }
    Ok(answers)
}
