//! Every registry and every strategy of the crate keeps its contract.

use std::time::Duration;

use waypost::strategy::{
    Adaptive, BlockHrw, LeastConn, LoadWeighted, Maglev, P2c, PickFirst, Prequal, Random,
    Rendezvous, RingHash, RoundRobin, SmoothWeighted,
};
use waypost::{Endpoint, EndpointSet, Fixed, InMemory, testing};

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn in_memory() {
    testing::registry(InMemory::new(), PATIENCE).await;
}

#[tokio::test]
async fn in_memory_with_heartbeats() {
    let registry = InMemory::with_ttl(Duration::from_millis(300)).unwrap();
    testing::registry(registry, PATIENCE).await;
}

#[tokio::test]
async fn fixed() {
    let endpoints = || (1..4).map(|i| Endpoint::at(format!("10.0.0.{i}:80")).unwrap());
    let expected = EndpointSet::new(endpoints()).unwrap();
    let fixed = Fixed::new(endpoints()).unwrap();
    testing::discover(fixed, &"any".parse().unwrap(), &expected, PATIENCE).await;
}

#[tokio::test]
async fn fixed_without_endpoints_is_empty_not_unknown() {
    let none: [Endpoint; 0] = [];
    let fixed = Fixed::new(none).unwrap();
    let any = "any".parse().unwrap();
    testing::discover(fixed, &any, &EndpointSet::empty(), PATIENCE).await;
}

#[test]
fn round_robin() {
    testing::strategy(RoundRobin::new);
}

#[test]
fn smooth_weighted() {
    testing::strategy(SmoothWeighted::new);
}

#[test]
fn random() {
    testing::strategy(Random::new);
}

#[test]
fn p2c() {
    testing::strategy(P2c::new);
    testing::strategy(P2c::peak_ewma);
}

#[test]
fn adaptive() {
    testing::strategy(Adaptive::new);
}

#[test]
fn prequal() {
    testing::strategy(Prequal::new);
}

#[test]
fn load_weighted() {
    testing::strategy(LoadWeighted::new);
}

#[test]
fn least_conn() {
    testing::strategy(LeastConn::new);
    testing::strategy(|| LeastConn::new().choices(3).unwrap());
    testing::strategy(|| LeastConn::new().active_request_bias(1.0).unwrap());
}

#[test]
fn pick_first() {
    testing::preference(PickFirst::new);
    testing::preference(PickFirst::shuffled);
}

#[test]
fn ring_hash() {
    testing::strategy(RingHash::new);
    testing::strategy(|| RingHash::new().bounded(1.25).unwrap());
}

#[test]
fn maglev() {
    testing::strategy(Maglev::new);
    testing::strategy(|| Maglev::new().bounded(1.25).unwrap());
}

#[test]
fn block_hrw() {
    testing::strategy(BlockHrw::new);
    testing::strategy(|| BlockHrw::new().bounded(1.25).unwrap());
}

#[test]
fn rendezvous() {
    testing::strategy(Rendezvous::new);
    testing::strategy(|| Rendezvous::new().bounded(1.25).unwrap());
}
