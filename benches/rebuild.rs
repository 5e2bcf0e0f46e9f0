//! What a change of the set costs the one who applies it; no pick waits for it.
//!
//! `apply/STRATEGY/N` takes in a set in which one endpoint of N has changed its
//! weight there and back, which keeps the others shared; `apply_weighted` is
//! the same where weights differ, so that the strategy prepares its table;
//! `apply_key` gives one endpoint twice its weight and takes it back, where calls
//! go by their keys; `apply_everything` is as `apply` with two zones, two levels,
//! an endpoint ejected and one ramping up; `next/N` makes such a set.
//! `floor/arc_clone_drop_cold/N` clones and drops N reference-counted pointers,
//! which is what any new list of shared endpoints costs at the least.

mod common;
#[path = "common/everything.rs"]
mod everything;

use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use waypost::{EndpointSet, Updater};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// Two sets that differ in one endpoint's weight.
fn weights(n: usize) -> [EndpointSet; 2] {
    let set = common::set(n);
    [set.with(common::endpoint(n / 2).with_weight(2)), set]
}

/// Two sets that differ in one endpoint.
fn pair(n: usize, first_weight: u32) -> [EndpointSet; 2] {
    let heavy = common::endpoint(0).with_weight(first_weight);
    let set = common::set(n).with(heavy);
    let changed = set.endpoints()[n / 2].as_ref().clone();
    let metadata = waypost::Endpoint::builder(changed.address().clone())
        .id(changed.id().as_str())
        .metadata("version", "v2")
        .build()
        .expect("it is an endpoint");
    [set.with(metadata), set]
}

/// Applies two sets in turn.
fn in_turn(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    updater: &mut Updater,
    sets: &[EndpointSet; 2],
) {
    let mut turn = 0;
    group.bench_function(id, |b| {
        b.iter(|| {
            updater.apply(sets[turn].clone());
            turn = 1 - turn;
        });
    });
}

fn apply(c: &mut Criterion) {
    for (name, weight) in [("apply", 1), ("apply_weighted", 3)] {
        let mut group = c.benchmark_group(name);
        for strategy in ["round_robin", "p2c"] {
            for n in SIZES {
                let (_balancer, mut updater) = common::balancer(strategy, n, false);
                let sets = pair(n, weight);
                updater.apply(sets[1].clone());
                in_turn(
                    &mut group,
                    BenchmarkId::new(strategy, n),
                    &mut updater,
                    &sets,
                );
            }
        }
        group.finish();
    }
}

fn apply_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply_key");
    group.sample_size(20);
    for strategy in ["ring_hash", "maglev"] {
        for n in SIZES {
            let (_balancer, mut updater) = common::balancer(strategy, n, false);
            let sets = weights(n);
            updater.apply(sets[1].clone());
            in_turn(
                &mut group,
                BenchmarkId::new(strategy, n),
                &mut updater,
                &sets,
            );
        }
    }
    group.finish();
}

fn apply_everything(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply_everything");
    for n in [100, 1_000, 10_000] {
        let (balancer, mut updater) = everything::balancer("p2c", n, true);
        let set = balancer.current();
        let heavier = set.endpoints()[n / 2].as_ref().clone().with_weight(2);
        let sets = [set.with(heavier), set];
        in_turn(&mut group, BenchmarkId::new("p2c", n), &mut updater, &sets);
    }
    group.finish();
}

fn next(c: &mut Criterion) {
    let mut group = c.benchmark_group("next");
    for n in SIZES {
        let [changed, set] = pair(n, 1);
        let endpoint = changed.endpoints()[n / 2].as_ref().clone();
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            b.iter(|| set.with(endpoint.clone()));
        });
    }
    group.finish();
}

fn clone_floor(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    for n in SIZES {
        let shared: Vec<Arc<[u64; 8]>> = (0..n).map(|_| Arc::new([0; 8])).collect();
        group.bench_function(BenchmarkId::new("arc_clone_drop_cold", n), |b| {
            b.iter(|| shared.clone());
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    common::floors,
    clone_floor,
    apply,
    apply_key,
    apply_everything,
    next
);
criterion_main!(benches);
