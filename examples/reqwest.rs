//! reqwest, with the name of a service as host: calls are spread, and none is
//! lost when a server dies.

mod common;

use std::collections::BTreeMap;

use common::{Result, Server};
use waypost::{Balancer, Fixed};

#[tokio::main]
async fn main() -> Result<()> {
    // reqwest is built here with rustls and no provider of its own.
    drop(rustls::crypto::ring::default_provider().install_default());
    let servers = [Server::start("one").await?, Server::start("two").await?];
    let dying = Server::start("three").await?;
    let addresses = [&servers[0], &servers[1], &dying].map(|server| server.address.to_string());
    let users = Balancer::builder("users")
        .build(Fixed::addresses(addresses.iter().map(String::as_str))?)
        .await?;
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(users.middleware())
        .build();

    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    let mut dying = Some(dying);
    for call in 0..300 {
        if call == 150 {
            drop(dying.take());
        }
        let answer = client.get("http://users/v1/me").send().await?;
        *answers.entry(answer.text().await?).or_default() += 1;
    }
    println!("300 calls, a server killed after 150: {answers:?}");
    let answered: u32 = answers.values().sum();
    if answered != 300 || answers.len() != 3 {
        return Err("a call was lost, or a server got none".into());
    }
    Ok(())
}
