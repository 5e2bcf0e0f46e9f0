//! Block-HRW in the setting of the local-rendezvous paper: 5,000 nodes, 50 million keys.

use std::hint::black_box;
use std::time::Instant;

use waypost::hash::{BlockHrw, HashRing, Table};

use crate::keys::names;
use crate::targets::Targets;

const NODES: usize = 5_000;
const KEYS: u64 = 50_000_000;

pub(crate) fn run(targets: &mut Targets) {
    let names = names(NODES);
    let block = BlockHrw::new(&names).expect("good nodes");
    let ring = HashRing::builder().vnodes(256);
    let ring = ring
        .build(names.iter().map(|name| (name, 1)))
        .expect("good nodes");
    println!("| table | max/avg | million keys a second, one thread | heap KiB |");
    println!("|---|---:|---:|---:|");
    row("HashRing, 256", &ring, ring.heap_bytes());
    let (largest, single) = row("BlockHrw", &block, block.heap_bytes());
    let batched = batched(&block);
    targets.at_most("block HRW of 5000, max/avg", largest, 1.08);
    targets.at_least(
        "block HRW of 5000, million keys a second, one by one",
        single,
        20.0,
    );
    targets.at_least(
        "block HRW of 5000, million keys a second, in batches",
        batched,
        20.0,
    );
}

/// Million keys a second.
fn batched(table: &BlockHrw) -> f64 {
    let mut best = f64::MAX;
    let (mut some, mut owners) = (Vec::with_capacity(4_096), vec![0; 4_096]);
    for _ in 0..3 {
        let start = Instant::now();
        let mut sum = 0;
        let mut hashes = hashes();
        loop {
            some.clear();
            some.extend(hashes.by_ref().take(owners.len()));
            if some.is_empty() {
                break;
            }
            table.lookup_all(&some, &mut owners);
            sum ^= owners[0];
        }
        black_box(sum);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let speed = KEYS as f64 / best / 1e6;
    println!("| BlockHrw, lookup_all | the same | {speed:.1} | the same |");
    speed
}

/// The largest share of the mean, and million keys a second.
fn row<T: Table>(name: &str, table: &T, heap: usize) -> (f64, f64) {
    let mut counts = vec![0u64; NODES];
    for hash in hashes() {
        counts[table.lookup(hash).unwrap_or(0) as usize] += 1;
    }
    let largest = counts.iter().max().copied().unwrap_or(0) as f64 * NODES as f64 / KEYS as f64;
    let mut best = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let sum = hashes().fold(0u32, |sum, hash| sum ^ table.lookup(hash).unwrap_or(0));
        black_box(sum);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let speed = KEYS as f64 / best / 1e6;
    println!("| {name} | {largest:.4} | {speed:.1} | {} |", heap / 1024);
    (largest, speed)
}

/// `SplitMix64`: uniform, and cheap beside a lookup.
fn hashes() -> impl Iterator<Item = u64> {
    (0..KEYS).map(|index| {
        let mut z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}
