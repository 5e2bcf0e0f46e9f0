//! The ring against pingora-ketama, in one run and in turns.

use std::hint::black_box;

use maglev::ConsistentHasher as _;
use pingora_ketama::{Bucket, Continuum};
use waypost::hash::{HashRing, Maglev, key_hash};

use crate::heap::measure;
use crate::keys::{Keys, address, chain, index, least, names};
use crate::targets::Targets;

pub(crate) fn run(targets: &mut Targets) {
    let keys = Keys::new();
    let alone = keys.stream(9, |key| key_hash(key) as usize & 1);
    let xxh3 = keys.stream(9, |key| xxhash_rust::xxh3::xxh3_64(key) as usize & 1);
    let xxh64 = keys.stream(9, |key| xxhash_rust::xxh64::xxh64(key, 0) as usize & 1);
    println!("hash alone: ours {alone:.1} ns, xxhash-rust's xxh3 {xxh3:.1}, its xxh64 {xxh64:.1}");
    println!("| nodes | what | pingora-ketama | HashRing | ratio |");
    println!("|---:|---|---:|---:|---:|");
    for nodes in [10, 100, 1_000, 10_000] {
        compare(&keys, nodes, targets);
    }
}

/// The most of a peer's figure that ours may be, as its inverse, if there is a target for it.
fn target(nodes: usize, what: &str) -> Option<f64> {
    Some(match (what, nodes) {
        ("lookup, stream", 10) | (BUILD, 1_000) => 2.5,
        ("lookup, stream", 100) => 3.0,
        ("lookup, stream", 1_000) | ("lookup, chain", 10_000) => 4.0,
        ("lookup, stream", 10_000) => 8.0,
        (BUILD, 10_000) => 2.0,
        // Of their balancer's update, which is a build and more.
        (CHANGE, 1_000) => 40.0,
        (CHANGE, 10_000) => 20.0,
        ("heap", _) => 1.0 / 1.5,
        _ => return None,
    })
}

const BUILD: &str = "build";
const CHANGE: &str = "weight 1 to 2, against their build";

fn compare(keys: &Keys, nodes: usize, targets: &mut Targets) {
    let mut row = |what: &str, theirs: f64, ours: f64, unit: &str| {
        if let Some(part) = target(nodes, what) {
            targets.part(&format!("ring of {nodes}, {what}"), theirs, ours, part);
        }
        println!(
            "| {nodes} | {what} | {theirs:.1} {unit} | {ours:.1} {unit} | 1/{:.2} |",
            theirs / ours
        );
    };
    let buckets: Vec<Bucket> = (0..nodes).map(|i| Bucket::new(address(i), 1)).collect();
    let names = names(nodes);
    let build = || HashRing::new(names.iter().map(|name| (name, 1))).expect("good nodes");
    let (theirs, their_heap, _) = measure(|| Continuum::new(&buckets));
    let (ours, our_heap, _) = measure(build);
    assert!(
        our_heap.abs_diff(ours.heap_bytes()) < 64 + our_heap / 100,
        "{} {our_heap}",
        ours.heap_bytes()
    );

    // `node_idx` gives the index of a point; the node it belongs to has only `node`.
    let (mut their_stream, mut our_stream) = (f64::MAX, f64::MAX);
    let (mut their_chain, mut our_chain) = (f64::MAX, f64::MAX);
    for _ in 0..4 {
        their_stream = their_stream.min(keys.stream(2, |key| index(theirs.node(key))));
        our_stream =
            our_stream.min(keys.stream(2, |key| ours.lookup_key(key).unwrap_or(0) as usize));
        their_chain = their_chain.min(chain(2, |key| index(theirs.node(key))));
        our_chain = our_chain.min(chain(2, |key| ours.lookup_key(key).unwrap_or(0) as usize));
    }
    row("lookup, stream", their_stream, our_stream, "ns");
    row("lookup, chain", their_chain, our_chain, "ns");

    let rounds = (200_000 / nodes).clamp(9, 200);
    let (mut their_build, mut our_build, mut change) = (f64::MAX, f64::MAX, f64::MAX);
    let (mut add, mut remove) = (f64::MAX, f64::MAX);
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
    for _ in 0..3 {
        their_build = their_build.min(micros(least(rounds, || {
            black_box(Continuum::new(black_box(&buckets)));
        })));
        our_build = our_build.min(micros(least(rounds, || {
            black_box(build());
        })));
        let mut at = 0;
        let mut next = move || {
            at = (at + 7) % nodes as u32;
            at
        };
        change = change.min(micros(least(rounds, || {
            black_box(ours.with_node_changed(next(), 2)).ok();
        })));
        add = add.min(micros(least(rounds, || {
            black_box(ours.with_node_added("new:80", 1)).ok();
        })));
        remove = remove.min(micros(least(rounds, || {
            black_box(ours.with_node_removed(next())).ok();
        })));
    }
    row(BUILD, their_build, our_build, "us");
    row(CHANGE, their_build, change, "us");
    row("add, against their build", their_build, add, "us");
    row("remove, against their build", their_build, remove, "us");
    row(
        "heap",
        their_heap as f64 / 1024.0,
        our_heap as f64 / 1024.0,
        "KiB",
    );
}

/// A hundred nodes in 65,537 slots, against the crate `maglev`.
pub(crate) fn maglev(targets: &mut Targets) {
    let keys = Keys::new();
    let names = names(100);
    let theirs = || maglev::Maglev::with_capacity(0..100_usize, 65_537);
    let ours = || Maglev::new(names.iter().map(|name| (name, 1))).expect("good nodes");
    let build = |build: &dyn Fn()| least(9, build).as_secs_f64() * 1e6;
    let their_build = build(&|| drop(black_box(theirs())));
    let our_build = build(&|| drop(black_box(ours())));
    let (their_table, _, their_peak) = measure(theirs);
    let (our_table, _, our_peak) = measure(ours);
    let their_lookup = keys.stream(5, |key| their_table.get(&key).copied().unwrap_or(0));
    let our_lookup = keys.stream(5, |key| our_table.lookup_key(key).unwrap_or(0) as usize);
    targets.part("Maglev, lookup, ns", their_lookup, our_lookup, 3.0);
    targets.part("Maglev, build, us", their_build, our_build, 10.0);
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    targets.part("Maglev, peak, KiB", kib(their_peak), kib(our_peak), 50.0);
}
