//! One pick on one thread: choose, count, guard, uncount.
//!
//! `pick/STRATEGY/N` is `pick()` and the guard's drop, without a clock (but of
//! `p2c_peak_ewma`, `adaptive`, `prequal` and `load_weighted`, which read it);
//! `pick_latency/STRATEGY/N` is `pick()` and `finish(Success)` with latency
//! recorded, which is two clock reads and one update of the average;
//! `pick_busy/STRATEGY/N` is the first with one call in flight on every
//! endpoint; `pick_everything/STRATEGY/N` is the first with two zones, two
//! levels and an endpoint ejected, `STRATEGY_ramping` the same while one ramps
//! up. `floor/*` are the machine's own costs in the same run.

mod common;
#[path = "common/everything.rs"]
mod everything;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use waypost::{Outcome, Pick};

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

criterion_group!(
    benches,
    common::floors,
    pick,
    pick_latency,
    pick_busy,
    pick_everything
);
criterion_main!(benches);
