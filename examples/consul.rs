//! Registers with the Consul agent at `CONSUL_HTTP_ADDR` (by default
//! 127.0.0.1:8500), follows the service, and leaves again:
//!
//! ```console
//! consul agent -dev &
//! cargo run --example consul
//! ```

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use waypost::registry::consul::Consul;
use waypost::{Balancer, Discover as _, Endpoint, Outcome, Registry as _, ServiceName};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            eprintln!(
                "start an agent with `consul agent -dev`, or name one in CONSUL_HTTP_ADDR=host:port"
            );
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), waypost::Error> {
    let at = std::env::var("CONSUL_HTTP_ADDR").unwrap_or_else(|_| "127.0.0.1:8500".to_owned());
    let url = if at.contains("://") {
        at
    } else {
        format!("http://{at}")
    };
    let mut consul = Consul::builder(&url);
    if let Ok(token) = std::env::var("CONSUL_HTTP_TOKEN") {
        consul = consul.token(token);
    }
    let consul = consul.build()?;
    let users: ServiceName = "waypost-example".parse()?;

    let mut held = Vec::new();
    for (id, weight) in [("blue", 1), ("green", 3)] {
        let endpoint = Endpoint::builder(format!("127.0.0.1:{}", 8_000 + weight));
        let endpoint = endpoint.id(id).weight(weight).build()?;
        held.push(consul.register(&users, endpoint).await?);
    }
    println!("registered blue and green as {users} at {url}");

    let mut sets = consul.watch(&users);
    let balancer = Balancer::builder(users.as_str()).build(consul).await?;
    balancer.ready(Duration::from_secs(5)).await?;
    while let Some(set) = sets.next().await {
        let set = set?;
        println!("the registry tells {} endpoints", set.len());
        if set.len() == held.len() {
            break;
        }
    }
    for _ in 0..4 {
        let pick = balancer.pick()?;
        println!("a call would go to {}", *pick);
        pick.finish(Outcome::Success);
    }
    for registration in held {
        registration.deregister().await?;
    }
    println!("and left again");
    Ok(())
}
