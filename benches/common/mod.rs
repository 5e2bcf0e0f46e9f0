//! What the benchmarks share: balancers to measure, and the machine's floors,
//! taken in the same run so that figures can be read as ratios.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use criterion::Criterion;
use waypost::strategy::{
    Adaptive, BlockHrw, LeastConn, LoadWeighted, Maglev, P2c, PickFirst, Prequal, Random, RingHash,
    RoundRobin, SmoothWeighted, Strategy,
};
use waypost::{Balancer, Endpoint, EndpointSet, Updater};

pub(crate) fn strategy(name: &str) -> Arc<dyn Strategy> {
    match name {
        "round_robin" => Arc::new(RoundRobin::new()),
        "smooth_weighted" => Arc::new(SmoothWeighted::new()),
        "random" => Arc::new(Random::new()),
        "p2c" => Arc::new(P2c::new()),
        "p2c_peak_ewma" => Arc::new(P2c::peak_ewma()),
        "adaptive" => Arc::new(Adaptive::new()),
        "prequal" => Arc::new(Prequal::new()),
        "load_weighted" => Arc::new(LoadWeighted::new()),
        "least_conn" => Arc::new(LeastConn::new()),
        "least_conn_of_5" => Arc::new(LeastConn::new().choices(5).expect("it is within")),
        "pick_first" => Arc::new(PickFirst::new()),
        "ring_hash" => Arc::new(RingHash::new()),
        "ring_hash_bounded" => Arc::new(RingHash::new().bounded(1.25).expect("it is a bound")),
        "maglev" => Arc::new(Maglev::new()),
        "block_hrw" => Arc::new(BlockHrw::new()),
        other => panic!("no strategy is called {other}"),
    }
}

pub(crate) fn set(n: usize) -> EndpointSet {
    EndpointSet::new((0..n).map(endpoint)).expect("the ids differ")
}

pub(crate) fn endpoint(i: usize) -> Endpoint {
    let address = format!("10.{}.{}.{}:80", i >> 16, i >> 8 & 255, i & 255);
    Endpoint::at(address).expect("the address is one")
}

pub(crate) fn balancer(strategy_name: &str, n: usize, latency: bool) -> (Balancer, Updater) {
    let (balancer, mut updater) = Balancer::builder("bench")
        .strategy(strategy(strategy_name))
        .latency(latency)
        .manual()
        .expect("the name is one");
    updater.apply(set(n));
    (balancer, updater)
}

/// What nothing on this machine can go below.
pub(crate) fn floors(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    let counter = AtomicU64::new(0);
    group.bench_function("fetch_add", |b| {
        b.iter(|| black_box(&counter).fetch_add(1, Ordering::Relaxed));
    });
    let swap = arc_swap::ArcSwap::from_pointee(7_u64);
    group.bench_function("arc_swap_load", |b| b.iter(|| **black_box(&swap).load()));
    let mut cache = arc_swap::Cache::new(&swap);
    group.bench_function("arc_swap_cache", |b| {
        b.iter(|| **black_box(&mut cache).load());
    });
    let arc = Arc::new(7_u64);
    group.bench_function("arc_clone_drop", |b| {
        b.iter(|| drop(black_box(Arc::clone(black_box(&arc)))));
    });
    group.bench_function("instant_now", |b| b.iter(Instant::now));
    group.finish();
}
