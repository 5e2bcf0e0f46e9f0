//! One pick on one thread: choose, count, guard, uncount.
//!
//! `pick/STRATEGY/N` is `pick()` and the guard's drop, without a clock (but of
//! `p2c_peak_ewma`, `adaptive`, `prequal` and `load_weighted`, which read it);
//! `pick_latency/STRATEGY/N` is `pick()` and `finish(Success)` with latency
//! recorded, which is two clock reads and one update of the average;
//! `pick_weighted/STRATEGY/N` is the first with weights from 1 to 7, where `random`
//! draws from an alias table and `round_robin` strides: beside `pick/round_robin`,
//! whose choice is one addition, it shows what the choice costs above the guard;
//! `pick_busy/STRATEGY/N` is the first with one call in flight on every
//! endpoint; `pick_key/STRATEGY/N` is the first by a key, another each time, and
//! `pick_key_busy/STRATEGY/N` the same with two calls in flight on every endpoint;
//! `pick_everything/STRATEGY/N` is the first with two zones, two
//! levels and an endpoint ejected, `STRATEGY_ramping` the same while one ramps
//! up. `floor/*` are the machine's own costs in the same run.

mod common;
#[path = "common/everything.rs"]
mod everything;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use waypost::strategy::PickOptions;
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, Pick, Updater};

const STRATEGIES: [&str; 14] = [
    "round_robin",
    "smooth_weighted",
    "random",
    "p2c",
    "p2c_peak_ewma",
    "adaptive",
    "prequal",
    "load_weighted",
    "least_conn",
    "least_conn_of_5",
    "pick_first",
    "ring_hash",
    "ring_hash_bounded",
    "maglev",
];
const SIZES: [usize; 5] = [3, 10, 100, 1_000, 10_000];

/// From key to key: the golden ratio, whose multiples lie evenly in 64 bits.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for strategy in STRATEGIES {
        for n in SIZES {
            let (balancer, _updater) = common::balancer(strategy, n, false);
            group.bench_function(BenchmarkId::new(strategy, n), |b| {
                b.iter(|| drop(balancer.pick()));
            });
        }
    }
    group.finish();
}

fn pick_latency(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick_latency");
    for strategy in STRATEGIES {
        for n in SIZES {
            let (balancer, _updater) = common::balancer(strategy, n, true);
            group.bench_function(BenchmarkId::new(strategy, n), |b| {
                b.iter(|| balancer.pick().map(|pick| pick.finish(Outcome::Success)));
            });
        }
    }
    group.finish();
}

/// With weights from 1 to 7.
fn weighted(strategy: &str, n: usize) -> (Balancer, Updater) {
    let (balancer, mut updater) = common::balancer(strategy, n, false);
    let endpoint = |i: usize| {
        let endpoint = Endpoint::builder(common::endpoint(i).address().clone());
        let endpoint = endpoint.weight(1 + i as u32 % 7).build();
        endpoint.expect("the weight is one")
    };
    updater.apply(EndpointSet::new((0..n).map(endpoint)).expect("the ids differ"));
    (balancer, updater)
}

fn pick_weighted(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick_weighted");
    for strategy in [
        "round_robin",
        "smooth_weighted",
        "random",
        "p2c",
        "least_conn",
    ] {
        for n in SIZES {
            let (balancer, _updater) = weighted(strategy, n);
            group.bench_function(BenchmarkId::new(strategy, n), |b| {
                b.iter(|| drop(balancer.pick()));
            });
        }
    }
    group.finish();
}

fn pick_everything(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick_everything");
    for strategy in ["round_robin", "random", "p2c"] {
        for n in [20, 100, 1_000] {
            for ramping in [false, true] {
                let (balancer, _updater) = everything::balancer(strategy, n, ramping);
                let name = if ramping {
                    format!("{strategy}_ramping")
                } else {
                    strategy.into()
                };
                group.bench_function(BenchmarkId::new(name, n), |b| {
                    b.iter(|| drop(balancer.pick()));
                });
            }
        }
    }
    group.finish();
}

fn pick_busy(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick_busy");
    for strategy in ["p2c", "least_conn", "least_conn_of_5"] {
        for n in SIZES {
            let (balancer, _updater) = common::balancer(strategy, n, false);
            let _held: Vec<Pick> = (0..n).filter_map(|_| balancer.pick().ok()).collect();
            group.bench_function(BenchmarkId::new(strategy, n), |b| {
                b.iter(|| drop(balancer.pick()));
            });
        }
    }
    group.finish();
}

fn pick_key(c: &mut Criterion) {
    for (name, held) in [("pick_key", 0), ("pick_key_busy", 2)] {
        let mut group = c.benchmark_group(name);
        for strategy in [
            "round_robin",
            "ring_hash",
            "maglev",
            "block_hrw",
            "ring_hash_bounded",
        ] {
            for n in [10, 1_000, 10_000] {
                let (balancer, _updater) = common::balancer(strategy, n, false);
                let each = |_| (0..n as u64).map(|key| key.wrapping_mul(STEP));
                let pick = |hash| balancer.pick_with(&PickOptions::new().hash(hash));
                let _held: Vec<Pick> = (0..held)
                    .flat_map(each)
                    .filter_map(|k| pick(k).ok())
                    .collect();
                let mut hash = 0_u64;
                group.bench_function(BenchmarkId::new(strategy, n), |b| {
                    b.iter(|| {
                        hash = hash.wrapping_add(STEP);
                        drop(pick(hash));
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(
    benches,
    common::floors,
    pick,
    pick_latency,
    pick_weighted,
    pick_busy,
    pick_key,
    pick_everything
);
criterion_main!(benches);
