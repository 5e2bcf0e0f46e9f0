//! The Markdown table of all algorithms and crates, one row for each and for each number of nodes.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::time::{Duration, Instant};

use anchorhash::AnchorHash;
use consistent_hash_ring::RingBuilder;
use maglev::ConsistentHasher;
use pingora_ketama::{Bucket, Continuum};
use waypost::hash::{BlockHrw, HashRing, Jump, Maglev, MultiProbe, Rendezvous, Table, key_hash};

use crate::heap::measure;
use crate::keys::{COUNT, Keys, address, index, names};

/// Key in, index of the node out.
type Lookup = Box<dyn Fn(&[u8]) -> usize>;

/// One change of one node, made again on each call.
type Resize = Box<dyn FnMut()>;

struct Contender {
    name: &'static str,
    build: fn(usize) -> Lookup,
    /// Changes one node of a table that is there already; `None` where only a new build does.
    resize: Option<fn(usize) -> Resize>,
    /// The most nodes it works with, or builds in a minute.
    most: usize,
}

/// Which rows are asked for.
#[derive(Default)]
pub(crate) struct Rows {
    nodes: Option<usize>,
    name: String,
}

impl Rows {
    /// Of the arguments after `table`; `None` if one means nothing.
    pub(crate) fn of(mut options: &[&str]) -> Option<Self> {
        let mut rows = Self::default();
        while let [option, value, rest @ ..] = options {
            match *option {
                "--nodes" => rows.nodes = Some(value.parse().ok()?),
                "--name" => (*value).clone_into(&mut rows.name),
                _ => return None,
            }
            options = rest;
        }
        options.is_empty().then_some(rows)
    }

    fn has(&self, nodes: usize, contender: &Contender) -> bool {
        nodes <= contender.most
            && self.nodes.is_none_or(|only| nodes == only)
            && contender.name.contains(&self.name)
    }
}

pub(crate) fn run(rows: &Rows) {
    let keys = Keys::new();
    println!(
        "| nodes | algorithm | max/avg | stddev/avg | needless moves | heap KiB | peak KiB | init us | resize us | lookup ns |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for nodes in [10, 100, 1_000, 10_000, 100_000] {
        for contender in of_this_crate().into_iter().chain(of_other_crates()) {
            if rows.has(nodes, &contender) {
                row(&keys, nodes, &contender);
            }
        }
    }
}

fn row(keys: &Keys, nodes: usize, contender: &Contender) {
    let (lookup, heap, peak) = measure(|| (contender.build)(nodes));
    let init = shortest(|| {
        drop(black_box((contender.build)(nodes)));
    });
    let resize = contender.resize.map_or(init, |resize| {
        let mut change = resize(nodes);
        shortest(&mut *change)
    });

    // Slow ones get fewer keys, and no figures that need all of them.
    let start = Instant::now();
    for key in keys.iter().take(1_000) {
        black_box(lookup(key));
    }
    let affordable = Duration::from_secs(3).as_nanos() * 1_000 / start.elapsed().as_nanos().max(1);
    let count = COUNT.min(affordable as usize);
    let mut best = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        for key in keys.iter().take(count) {
            black_box(lookup(key));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }

    let smaller = (contender.build)(nodes - 1);
    let mut counts = vec![0u64; nodes];
    let (mut others, mut moved) = (0u64, 0u64);
    for key in keys.iter().take(count) {
        let owner = lookup(key);
        counts[owner] += 1;
        if owner != nodes - 1 {
            others += 1;
            moved += u64::from(smaller(key) != owner);
        }
    }
    let mean = count as f64 / nodes as f64;
    let balance = if count < COUNT {
        "- | -".to_owned()
    } else {
        let largest = counts.iter().max().copied().unwrap_or(0) as f64 / mean;
        let squares: f64 = counts.iter().map(|&c| (c as f64 - mean).powi(2)).sum();
        format!(
            "{largest:.3} | {:.3}",
            (squares / nodes as f64).sqrt() / mean
        )
    };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "| {nodes} | {} | {balance} | {:.3} % | {:.1} | {:.1} | {:.1} | {:.1} | {best:.1} |",
        contender.name,
        moved as f64 * 100.0 / others as f64,
        heap as f64 / 1024.0,
        peak as f64 / 1024.0,
        micros(init),
        micros(resize),
    );
}

/// The shortest of up to nine runs that take half a second together.
fn shortest(mut run: impl FnMut()) -> Duration {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        if begin.elapsed() > Duration::from_millis(500) {
            break;
        }
    }
    best
}

fn weighted(nodes: usize) -> impl Iterator<Item = (String, u32)> {
    names(nodes).into_iter().map(|name| (name, 1))
}

fn ours<T: Table + 'static>(table: T) -> Lookup {
    Box::new(move |key| table.lookup(key_hash(key)).unwrap_or(0) as usize)
}

/// With fixed keys: its default hashes otherwise in every table that is built.
fn anchors() -> anchorhash::Builder<usize, BuildHasherDefault<DefaultHasher>> {
    anchorhash::Builder::with_hasher(BuildHasherDefault::default())
}

/// For those that have no bound of their own.
const ALL: usize = 100_000;

fn of_this_crate() -> Vec<Contender> {
    vec![
        Contender {
            name: "waypost HashRing, 160",
            build: |n| ours(HashRing::new(weighted(n)).expect("good nodes")),
            resize: Some(|n| {
                let ring = HashRing::new(weighted(n)).expect("good nodes");
                Box::new(move || {
                    black_box(ring.with_node_changed(3, 2)).ok();
                })
            }),
            most: ALL,
        },
        Contender {
            name: "waypost Maglev, 65537",
            build: |n| ours(Maglev::new(weighted(n)).expect("good nodes")),
            resize: None,
            most: 10_000,
        },
        Contender {
            name: "waypost Maglev, 5000011",
            build: |n| ours(Maglev::with_size(Maglev::MAX_SIZE, weighted(n)).expect("good nodes")),
            resize: None,
            most: ALL,
        },
        Contender {
            name: "waypost BlockHrw",
            build: |n| ours(BlockHrw::new(names(n)).expect("good nodes")),
            resize: None,
            most: ALL,
        },
        Contender {
            name: "waypost MultiProbe, 21",
            build: |n| ours(MultiProbe::new(weighted(n)).expect("good nodes")),
            resize: None,
            most: ALL,
        },
        Contender {
            name: "waypost Rendezvous",
            build: |n| ours(Rendezvous::new(weighted(n)).expect("good nodes")),
            resize: None,
            most: ALL,
        },
        Contender {
            name: "waypost Jump",
            build: |n| ours(Jump::new(n as u32).expect("some buckets")),
            resize: None,
            most: ALL,
        },
    ]
}

fn of_other_crates() -> Vec<Contender> {
    vec![
        Contender {
            name: "pingora-ketama",
            build: |n| {
                let buckets: Vec<Bucket> = (0..n).map(|i| Bucket::new(address(i), 1)).collect();
                let ring = Continuum::new(&buckets);
                Box::new(move |key| index(ring.node(key)))
            },
            resize: None,
            // Its nodes have 16 bits.
            most: 10_000,
        },
        Contender {
            name: "hashring, 1 point",
            build: |n| {
                let mut ring = hashring::HashRing::new();
                ring.batch_add((0..n).collect());
                Box::new(move |key| ring.get(&key).copied().unwrap_or(0))
            },
            resize: Some(|n| {
                let mut ring = hashring::HashRing::new();
                ring.batch_add((0..n).collect());
                Box::new(move || {
                    ring.add(usize::MAX);
                    ring.remove(&usize::MAX);
                })
            }),
            most: ALL,
        },
        Contender {
            name: "consistent_hash_ring, 160",
            build: |n| {
                let ring = RingBuilder::default().vnodes(160).nodes_iter(0..n).build();
                Box::new(move |key| *ring.get(key))
            },
            resize: Some(|n| {
                let mut ring = RingBuilder::default().vnodes(160).nodes_iter(0..n).build();
                Box::new(move || {
                    ring.insert(usize::MAX);
                    ring.remove(&usize::MAX);
                })
            }),
            // Each point is inserted in a sorted list: quadratic, half a minute at 1,000.
            most: 100,
        },
        Contender {
            name: "jump-consistent-hash",
            build: |n| {
                let hash = xxhash_rust::xxh3::xxh3_64;
                Box::new(move |key| jump_consistent_hash::hash(hash(key), n) as usize)
            },
            resize: None,
            most: ALL,
        },
        Contender {
            name: "anchorhash, capacity 2^k",
            build: |n| {
                let capacity = n.next_power_of_two() as u16;
                let anchor: AnchorHash<&[u8], usize, _> =
                    anchors().with_resources(0..n).build(capacity);
                Box::new(move |key| anchor.get_resource(key).copied().unwrap_or(0))
            },
            resize: Some(|n| {
                let capacity = n.next_power_of_two() as u16;
                let mut anchor: AnchorHash<&[u8], usize, _> =
                    anchors().with_resources(0..n).build(capacity);
                Box::new(move || {
                    anchor.remove_resource(&3).ok();
                    anchor.add_resource(3).ok();
                })
            }),
            // Its capacity has 16 bits.
            most: 10_000,
        },
        Contender {
            name: "maglev, 65537",
            build: |n| {
                let table = maglev::Maglev::with_capacity(0..n, 65_537);
                Box::new(move |key| table.get(&key).copied().unwrap_or(0))
            },
            resize: None,
            most: 1_000,
        },
    ]
}
