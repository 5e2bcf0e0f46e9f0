//! The tables against floors, in one run: compare the ratios, for times vary with the machine.
//!
//! Lookups go over a million distinct keys of 8 to 64 bytes and include hashing them, unless the
//! name says `hashed`. `index` reads an array of the nodes of all points at `hash % points`, the
//! least any table does; `sorted` is std's `partition_point` over the sorted points. One thread.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use waypost::hash::{BlockHrw, HashRing, Jump, Maglev, MultiProbe, Rendezvous, Table, key_hash};

const KEYS: usize = 1_000_000;

fn keys() -> Vec<Vec<u8>> {
    let key = |i: u64| {
        let len = 8 + key_hash(&i.to_le_bytes()) as usize % 57;
        let mut key = i.to_le_bytes().to_vec();
        key.resize(len, b'k');
        key
    };
    (0..KEYS as u64).map(key).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|i| format!("10.{}.{}:8080", i / 256, i % 256))
        .collect()
}

fn ring(names: &[String]) -> HashRing {
    HashRing::new(names.iter().map(|name| (name, 1))).expect("good nodes")
}

fn key(c: &mut Criterion) {
    let keys = keys();
    let mut group = c.benchmark_group("key");
    group.throughput(Throughput::Elements(KEYS as u64));
    let mut run = |name: &str, hash: fn(&[u8]) -> u64| {
        group.bench_function(name, |b| {
            b.iter(|| keys.iter().fold(0, |sum, key| sum ^ hash(key)));
        });
    };
    run("key_hash", key_hash);
    run("xxh3 of xxhash-rust", xxhash_rust::xxh3::xxh3_64);
    run("xxh64 of xxhash-rust", |key| {
        xxhash_rust::xxh64::xxh64(key, 0)
    });
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let keys = keys();
    for nodes in [10, 100, 1_000, 10_000] {
        let names = names(nodes);
        let ring = ring(&names);
        let (positions, owners): (Vec<u64>, Vec<u32>) = ring.points().unzip();
        let mut group = c.benchmark_group(format!("lookup/{nodes}"));
        group
            .sample_size(10)
            .throughput(Throughput::Elements(KEYS as u64));
        let mut run = |name: &str, owner: &dyn Fn(u64) -> u32| {
            group.bench_function(name, |b| {
                b.iter(|| keys.iter().fold(0, |sum, key| sum ^ owner(key_hash(key))));
            });
        };
        let weighted = || names.iter().map(|name| (name, 1));
        let maglev = Maglev::new(weighted()).expect("good nodes");
        let probe = MultiProbe::new(weighted()).expect("good nodes");
        let block = BlockHrw::new(&names).expect("good nodes");
        let jump = Jump::new(nodes as u32).expect("some buckets");
        run("index", &|hash| {
            owners[(hash % owners.len() as u64) as usize]
        });
        run("sorted", &|hash| {
            let at = positions.partition_point(|&position| position < hash >> 33 << 33);
            owners[if at == owners.len() { 0 } else { at }]
        });
        run("ring", &|hash| ring.lookup(hash).unwrap_or(0));
        run("maglev", &|hash| maglev.lookup(hash).unwrap_or(0));
        run("jump", &|hash| jump.lookup(hash).unwrap_or(0));
        run("block_hrw", &|hash| block.lookup(hash).unwrap_or(0));
        run("multi_probe", &|hash| probe.lookup(hash).unwrap_or(0));
        if nodes <= 100 {
            let rendezvous = Rendezvous::new(weighted()).expect("good nodes");
            run("rendezvous", &|hash| rendezvous.lookup(hash).unwrap_or(0));
        }
        group.finish();
    }
}

fn build(c: &mut Criterion) {
    for nodes in [100, 1_000, 10_000] {
        let names = names(nodes);
        let mut group = c.benchmark_group(format!("build/{nodes}"));
        group.sample_size(20);
        group.bench_function("ring", |b| b.iter(|| ring(black_box(&names))));
        let whole = ring(&names);
        let points: Vec<(u64, u32)> = whole.points().collect();
        // The floor of a comparison sort, from points in no order that exist already.
        let mut mixed = points;
        mixed.sort_unstable_by_key(|point| key_hash(&point.0.to_le_bytes()));
        group.bench_function("sort_unstable", |b| {
            let sort = |mut points: Vec<(u64, u32)>| {
                points.sort_unstable();
                points
            };
            b.iter_batched(|| mixed.clone(), sort, BatchSize::LargeInput);
        });
        group.bench_function("ring, one weight changed", |b| {
            b.iter(|| whole.with_node_changed(black_box(7), 2));
        });
        group.bench_function("maglev", |b| {
            b.iter(|| Maglev::new(names.iter().map(|name| (name, 1))));
        });
        group.finish();
    }
}

fn replicas(c: &mut Criterion) {
    let ring = ring(&names(1_000));
    let mut hash = 0u64;
    c.bench_function("replicas/1000, three of a hash", |b| {
        b.iter(|| {
            hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
            ring.choices(hash, 3)
        });
    });
}

criterion_group!(benches, key, lookup, build, replicas);
criterion_main!(benches);
