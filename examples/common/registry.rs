//! What each registry's example does: two replicas register, a balancer finds
//! them, and they leave again.

use std::time::Duration;

use futures::StreamExt as _;
use waypost::{Balancer, Endpoint, Error, Outcome, Registry, ServiceName};

pub(crate) async fn visit(registry: impl Registry, name: &str) -> Result<(), Error> {
    let users: ServiceName = "waypost-example".parse()?;
    let mut held = Vec::new();
    for (id, weight) in [("blue", 1), ("green", 3)] {
        let endpoint = Endpoint::builder(format!("127.0.0.1:{}", 8_000 + weight));
        let endpoint = endpoint.id(id).weight(weight).build()?;
        held.push(registry.register(&users, endpoint).await?);
    }
    println!("registered blue and green as {users} at {name}");

    let mut sets = registry.watch(&users);
    let balancer = Balancer::builder(users.as_str()).build(registry).await?;
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
