//! How long it takes from a change in a registry until the next pick follows:
//! `cargo bench --bench convergence`, or of some alone: `… -- consul etcd`.
//!
//! Each round puts one endpoint in the place of another and picks until the new
//! one comes. The time begins when the registry has confirmed the change, or,
//! where it does not, when it was asked to make it. A backend is one that
//! implements [`Subject`]; those whose server is not there are left out, which
//! is said.

#[path = "../../tests/eureka_server/mod.rs"]
mod eureka_server;
mod many;
#[path = "../../tests/server_common/mod.rs"]
mod server_common;
mod subjects;

use std::time::{Duration, Instant};

use waypost::registry::{Consul, Etcd, ZooKeeper};
use waypost::{Balancer, Discover, Outcome};

/// A registry and the way to change it.
trait Subject {
    const NAME: &'static str;
    /// What bounds it from below, for the table.
    const BOUND: &'static str;
    const ROUNDS: u16;

    /// The registry to read.
    fn source(&self) -> impl Discover;

    /// Puts the endpoint `10.0.0.1:port` in the place of the one before.
    async fn change(&mut self, port: u16);
}

/// No backend takes longer; one that does is broken.
const PATIENCE: Duration = Duration::from_mins(1);

const QUIET: Duration = Duration::from_millis(5);

async fn measure<S: Subject>(mut subject: S) {
    const FIRST: u16 = 1_000;
    subject.change(FIRST).await;
    let balancer = Balancer::builder("users").build(subject.source()).await;
    let balancer = balancer.expect("the service has a name");
    follow(&balancer, FIRST).await;
    let mut times = Vec::new();
    for port in FIRST + 1..=FIRST + S::ROUNDS {
        // Each is a change after a quiet time, not part of a storm.
        tokio::time::sleep(QUIET).await;
        subject.change(port).await;
        let begun = Instant::now();
        follow(&balancer, port).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "| {} | {} | {:.3} ms | {:.3} ms | {} |",
        S::NAME,
        S::ROUNDS,
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        S::BOUND,
    );
}

async fn follow(balancer: &Balancer, port: u16) {
    let address = format!("10.0.0.1:{port}");
    let begun = Instant::now();
    loop {
        if let Ok(pick) = balancer.pick() {
            let is_new = pick.address().as_str() == address;
            pick.finish(Outcome::Success);
            if is_new {
                return;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{address} does not come");
        tokio::task::yield_now().await;
    }
}

#[tokio::main]
async fn main() {
    println!("| registry | rounds | median | p99 | bounded by |");
    println!("| --- | --- | --- | --- | --- |");
    if is_wanted("memory") {
        measure(subjects::Memory::new()).await;
    }
    if is_wanted("file") {
        measure(subjects::InFile::new()).await;
    }
    if is_wanted("dns")
        && let Some(dns) = subjects::InDns::start().await
    {
        measure(dns).await;
    }
    if is_wanted("consul")
        && let Some(consul) = subjects::Served::<Consul>::start().await
    {
        measure(consul).await;
        many::in_consul().await;
    }
    if is_wanted("etcd")
        && let Some(etcd) = subjects::Served::<Etcd>::start().await
    {
        measure(etcd).await;
        many::in_etcd().await;
    }
    if is_wanted("zookeeper")
        && let Some(zookeeper) = subjects::Served::<ZooKeeper>::start().await
    {
        measure(zookeeper).await;
    }
    if is_wanted("eureka") {
        measure(subjects::InEureka::start().await).await;
    }
}

/// Whether it is named on the command line, or nothing is.
fn is_wanted(name: &str) -> bool {
    let mut named = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let first = named.next();
    first.is_none_or(|first| first == name || named.any(|word| word == name))
}
