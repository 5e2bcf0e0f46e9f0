//! waypost: a pick, its guard, the endpoint behind it reached, the guard's end.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waypost::strategy::{LeastConn, P2c, Random, RoundRobin, Strategy};
use waypost::time::Clock;
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, Updater};

use crate::address;
use crate::timing::{Helper, Row};

pub const P2C: &str = "waypost P2c";
pub const P2C_LATENCY: &str = "waypost P2c, with latency";
pub const P2C_LATENCY_TSC: &str = "waypost P2c, with latency by TSC";
pub const ROUND_ROBIN: &str = "waypost RoundRobin";
pub const RANDOM: &str = "waypost Random";
pub const LEAST_CONN: &str = "waypost LeastConn";
pub const APPLY_WEIGHT: &str = "waypost RoundRobin, apply (weight)";
pub const APPLY_METADATA: &str = "waypost P2c, apply (metadata)";
const MAKE_AND_APPLY: &str = "waypost RoundRobin, make + apply (weight)";

fn balancer(strategy: impl Strategy, n: usize, clock: Option<Clock>) -> (Balancer, Updater) {
    let (balancer, mut updater) = Balancer::builder("bench")
        .strategy(strategy)
        .latency(clock.is_some())
        .clock(clock.unwrap_or_default())
        .manual()
        .expect("the name is one");
    updater.apply(set(n));
    crate::assert_spread(n, || balancer.pick().expect("there are endpoints").key());
    (balancer, updater)
}

fn set(n: usize) -> EndpointSet {
    let endpoint = |i| Endpoint::at(address(i).to_string()).expect("it is an address");
    EndpointSet::new((0..n).map(endpoint)).expect("the addresses differ")
}

fn pick(balancer: &Balancer) {
    let pick = balancer.pick().expect("there are endpoints");
    black_box(pick.address());
}

pub fn picks(n: usize) -> Vec<Row> {
    let pick_and_drop = |name, strategy: Arc<dyn Strategy>| {
        let (balancer, _) = balancer(strategy, n, None);
        Row::repeated(name, move || pick(&balancer))
    };
    let timed = |name, clock| {
        let (balancer, _) = balancer(P2c::new(), n, Some(clock));
        Row::repeated(name, move || {
            let pick = balancer.pick().expect("there are endpoints");
            black_box(pick.address());
            pick.finish(Outcome::Success);
        })
    };
    [
        pick_and_drop(P2C, Arc::new(P2c::new())),
        pick_and_drop(ROUND_ROBIN, Arc::new(RoundRobin::new())),
        pick_and_drop(RANDOM, Arc::new(Random::new())),
        pick_and_drop(LEAST_CONN, Arc::new(LeastConn::new())),
        timed(P2C_LATENCY, Clock::system()),
        timed(P2C_LATENCY_TSC, Clock::tsc()),
    ]
    .map(|row| row.on(n))
    .into()
}

pub fn contended(n: usize, helper: &Helper) -> Vec<Row> {
    let pair = |name, strategy: Arc<dyn Strategy>| {
        let (balancer, _) = balancer(strategy, n, None);
        Row::pair(name, move || pick(&balancer), helper).map(|row| row.on(n))
    };
    [
        pair(P2C, Arc::new(P2c::new())),
        pair(ROUND_ROBIN, Arc::new(RoundRobin::new())),
        pair(RANDOM, Arc::new(Random::new())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub fn rebuilds(n: usize) -> Vec<Row> {
    let weight = move |i: u64| {
        let endpoint = Endpoint::builder(address(n / 2).to_string());
        let endpoint = endpoint
            .weight(if i.is_multiple_of(2) { 2 } else { 1 })
            .build();
        endpoint.expect("it is an endpoint")
    };
    let metadata = move |i: u64| {
        let endpoint = Endpoint::builder(address(n / 2).to_string());
        let endpoint = endpoint.metadata("turn", (i % 2).to_string()).build();
        endpoint.expect("it is an endpoint")
    };
    vec![
        rebuild(APPLY_WEIGHT, RoundRobin::new(), n, weight, false).on(n),
        rebuild(APPLY_METADATA, P2c::new(), n, metadata, false).on(n),
        rebuild(MAKE_AND_APPLY, RoundRobin::new(), n, weight, true).on(n),
    ]
}

/// Applies sets that differ in one endpoint; before each, a pick takes note of
/// the last, as a thread in service would.
fn rebuild(
    name: &str,
    strategy: impl Strategy,
    n: usize,
    changed: impl Fn(u64) -> Endpoint + 'static,
    with_making: bool,
) -> Row {
    let (balancer, mut updater) = balancer(strategy, n, None);
    let mut turn = 0;
    Row::sampled(name, move |times| {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            pick(&balancer);
            let endpoint = changed(turn);
            turn += 1;
            let current = balancer.current();
            let early = Instant::now();
            let next = current.with(endpoint);
            drop(current);
            let late = Instant::now();
            updater.apply(next);
            took += if with_making { early } else { late }.elapsed();
        }
        took
    })
}
