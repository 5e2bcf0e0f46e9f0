//! Picks of one and of two threads on one balancer.
//!
//! A figure is the time for one pick (with its guard's drop) of each thread:
//! where threads do not disturb each other, `STRATEGY/N/2_threads` is the same
//! as `STRATEGY/N/1_threads`, and the throughput is double. `floor/*` are the
//! machine's own costs in the same run, with a counter and a mutex that the
//! threads share.

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const STRATEGIES: [&str; 3] = ["round_robin", "random", "p2c"];
const SIZES: [usize; 4] = [3, 64, 1_000, 10_000];

/// The time that `threads` threads take for `iterations` of `work` each, all at
/// once: from the common start to the last one's end.
fn together(threads: usize, iterations: u64, work: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    // The thread's first pick makes its place.
                    work();
                    start.wait();
                    let began = Instant::now();
                    for _ in 0..iterations {
                        work();
                    }
                    began.elapsed()
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().expect("no pick panics"))
            .max()
            .unwrap_or_default()
    })
}

fn shared_floors(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    let counter = AtomicU64::new(0);
    let mutex = Mutex::new(0_u64);
    for threads in [1, 2] {
        group.bench_function(BenchmarkId::new("shared_fetch_add", threads), |b| {
            b.iter_custom(|n| {
                together(threads, n, || {
                    black_box(counter.fetch_add(1, Ordering::Relaxed));
                })
            });
        });
        group.bench_function(BenchmarkId::new("shared_mutex", threads), |b| {
            b.iter_custom(|n| {
                together(threads, n, || {
                    if let Ok(mut guard) = mutex.lock() {
                        *guard += 1;
                    }
                })
            });
        });
    }
    group.finish();
}

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("contended");
    for strategy in STRATEGIES {
        for n in SIZES {
            let (balancer, _updater) = common::balancer(strategy, n, false);
            for threads in [1, 2] {
                let id = BenchmarkId::new(format!("{strategy}/{n}"), format!("{threads}_threads"));
                group.bench_function(id, |b| {
                    b.iter_custom(|iterations| {
                        together(threads, iterations, || drop(black_box(balancer.pick())))
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, common::floors, shared_floors, contended);
criterion_main!(benches);
