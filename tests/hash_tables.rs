//! One set of laws for all tables, and what each of them promises beyond.

mod hash_common;

use hash_common::{KEYS, hashes, names, split_mix};
use waypost::hash::{
    BlockHrw, BoundedLoad, HashRing, Jump, Maglev, MultiProbe, Rendezvous, ShardMap, Table,
    key_hash, plan,
};

type Build = fn(&[(String, u32)]) -> Box<dyn Table>;

/// What a table promises.
struct Law {
    name: &'static str,
    build: Build,
    /// The largest share of 50 equal nodes, of the mean.
    largest: f64,
    /// Of the keys that a lost node did not have, how many may move.
    excess: f64,
    weights: bool,
}

fn laws() -> Vec<Law> {
    let law = |name, build, largest, excess, weights| Law {
        name,
        build,
        largest,
        excess,
        weights,
    };
    vec![
        law(
            "ring",
            |nodes| Box::new(HashRing::new(nodes.to_vec()).unwrap()),
            1.35,
            0.0,
            true,
        ),
        law(
            "maglev",
            |nodes| Box::new(Maglev::new(nodes.to_vec()).unwrap()),
            1.09,
            0.03,
            true,
        ),
        law(
            "rendezvous",
            |nodes| Box::new(Rendezvous::new(nodes.to_vec()).unwrap()),
            1.09,
            0.0,
            true,
        ),
        law(
            "multi-probe",
            |nodes| Box::new(MultiProbe::new(nodes.to_vec()).unwrap()),
            1.2,
            0.0,
            true,
        ),
        law(
            "block-hrw",
            |nodes| Box::new(BlockHrw::new(nodes.iter().map(|node| &node.0)).unwrap()),
            1.15,
            0.06,
            false,
        ),
    ]
}

fn equal(count: usize) -> Vec<(String, u32)> {
    hash_common::equal(count)
}

#[test]
fn shares_are_even() {
    let jump = Jump::new(50).unwrap();
    let check = |name: &str, table: &dyn Table, largest: f64| {
        let mut counts = [0u64; 50];
        for hash in hashes(KEYS * 5) {
            counts[table.lookup(hash).unwrap() as usize] += 1;
        }
        let mean = (KEYS * 5) as f64 / 50.0;
        let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        assert!(
            most as f64 / mean < largest,
            "{name}: {}",
            most as f64 / mean
        );
        // Multi-probe bounds the largest share only: a point close behind another gets little.
        let floor = if name == "multi-probe" {
            0.4
        } else {
            1.9 - largest
        };
        assert!(
            least as f64 / mean > floor,
            "{name}: {}",
            least as f64 / mean
        );
    };
    for law in laws() {
        check(law.name, &*(law.build)(&equal(50)), law.largest);
    }
    check("jump", &jump, 1.06);
}

#[test]
fn shares_follow_weights() {
    let nodes: Vec<_> = names(10)
        .into_iter()
        .zip([0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
        .collect();
    for law in laws().iter().filter(|law| law.weights) {
        let table = (law.build)(&nodes);
        let mut counts = [0u64; 10];
        for hash in hashes(KEYS) {
            counts[table.lookup(hash).unwrap() as usize] += 1;
        }
        assert_eq!(counts[0], 0, "{}: weight 0 gets nothing", law.name);
        for (count, (_, weight)) in counts.iter().zip(&nodes).skip(1) {
            let share = *count as f64 / (KEYS as f64 * f64::from(*weight) / 25.0);
            let width = match law.name {
                // It has one point for each unit of weight, so its shares vary most.
                "multi-probe" => 0.5,
                "ring" => 0.25,
                // Exact, but for the keys' own chance.
                _ => 0.08,
            };
            assert!(
                (share - 1.0).abs() < width,
                "{}: weight {weight} has {share}",
                law.name
            );
        }
    }
}

#[test]
fn input_order_changes_only_indices() {
    for law in laws() {
        let mut nodes = equal(40);
        nodes[7].1 = 3;
        let forward = (law.build)(&nodes);
        nodes.reverse();
        let backward = (law.build)(&nodes);
        for hash in hashes(5_000) {
            let mirrored = backward.lookup(hash).map(|node| 39 - node);
            assert_eq!(forward.lookup(hash), mirrored, "{}", law.name);
            let other = |node: u32| move |other: u32| other != node;
            let first = forward.lookup(hash).unwrap();
            let second = forward.find(hash, &mut other(first));
            let mirrored = backward
                .find(hash, &mut other(39 - first))
                .map(|node| 39 - node);
            assert_eq!(second, mirrored, "{}", law.name);
        }
    }
}

#[test]
fn removing_a_node_moves_its_keys() {
    for law in laws() {
        let nodes = equal(50);
        let before = (law.build)(&nodes);
        let after = (law.build)(&nodes[..49]);
        let (mut others, mut moved) = (0u64, 0u64);
        for hash in hashes(KEYS) {
            let (old, new) = (before.lookup(hash).unwrap(), after.lookup(hash).unwrap());
            assert!(new < 49);
            others += u64::from(old < 49);
            moved += u64::from(old < 49 && old != new);
        }
        let excess = moved as f64 / others as f64;
        assert!(excess <= law.excess, "{}: {excess}", law.name);
    }
}

#[test]
fn a_heavier_node_only_gains() {
    let nodes = equal(30);
    let mut heavier = nodes.clone();
    heavier[3].1 = 2;
    for law in laws().iter().filter(|law| law.weights && law.excess == 0.0) {
        let (before, after) = ((law.build)(&nodes), (law.build)(&heavier));
        for hash in hashes(KEYS) {
            let (old, new) = (before.lookup(hash), after.lookup(hash));
            assert!(old == new || new == Some(3), "{}", law.name);
        }
    }
}

#[test]
fn jump_moves_only_to_the_new_bucket() {
    for n in (1..70).chain([127, 128, 129, 1_000, 4_095, 4_096]) {
        let (before, after) = (Jump::new(n).unwrap(), Jump::new(n + 1).unwrap());
        let mut moved = 0;
        for hash in hashes(20_000) {
            let (old, new) = (before.lookup(hash).unwrap(), after.lookup(hash).unwrap());
            assert!(old < n && (new == old || new == n));
            moved += u32::from(new != old);
        }
        let due = 20_000.0 / f64::from(n + 1);
        assert!(
            (f64::from(moved) - due).abs() < 5.0 * due.sqrt() + 1.0,
            "{n}: {moved}"
        );
    }
}

/// A node that is down moves its own keys, to many others, and nothing else.
#[test]
fn liveness_moves_only_the_dead_nodes_keys() {
    for law in laws() {
        let table = (law.build)(&equal(50));
        let dead = |node: u32| node == 4 || node == 17;
        let mut heirs = [0u32; 50];
        for hash in hashes(KEYS) {
            let owner = table.lookup(hash).unwrap();
            let alive = table.find(hash, &mut |node| !dead(node)).unwrap();
            assert!(!dead(alive));
            if dead(owner) {
                heirs[alive as usize] += 1;
            } else {
                assert_eq!(alive, owner, "{}", law.name);
            }
        }
        let heirs = heirs.iter().filter(|&&count| count > 0).count();
        assert!(heirs >= 40, "{}: {heirs}", law.name);
    }
}

#[test]
fn choices_are_all_nodes_once() {
    let mut tables: Vec<Box<dyn Table>> =
        laws().iter().map(|law| (law.build)(&equal(23))).collect();
    tables.push(Box::new(Jump::new(23).unwrap()));
    for table in tables {
        assert_eq!(table.len(), 23);
        for hash in hashes(50) {
            let mut choices = table.choices(hash, 99);
            assert_eq!(table.lookup(hash), Some(choices[0]));
            assert_eq!(table.choices(hash, 5), choices[..5]);
            choices.sort_unstable();
            assert!(choices.into_iter().eq(0..23));
            assert_eq!(table.find(hash, &mut |_| false), None);
        }
    }
}

#[test]
fn maglev_agrees_with_the_paper() {
    const SIZE: u64 = 1_009;
    let nodes = equal(13);
    let table = Maglev::with_size(SIZE, nodes.clone()).unwrap();
    let scale = |hash: u64, bound: u64| ((u128::from(hash) * u128::from(bound)) >> 64) as u64;
    let mut order: Vec<_> = (0..13)
        .map(|i| (key_hash(nodes[i].0.as_bytes()), i))
        .collect();
    order.sort_unstable();
    let mut slots = vec![None; SIZE as usize];
    let mut next = [0; 13];
    'full: loop {
        for &(hash, node) in &order {
            if slots.iter().all(Option::is_some) {
                break 'full;
            }
            loop {
                let offset = scale(split_mix(hash, 0), SIZE);
                let skip = 1 + scale(split_mix(hash, 1), SIZE - 1);
                let slot = (offset + next[node] * skip) % SIZE;
                next[node] += 1;
                if slots[slot as usize].is_none() {
                    slots[slot as usize] = Some(node as u32);
                    break;
                }
            }
        }
    }
    for hash in hashes(KEYS) {
        assert_eq!(table.lookup(hash), slots[scale(hash, SIZE) as usize]);
    }
}

#[test]
fn rendezvous_agrees_with_the_logarithm() {
    let nodes: Vec<_> = names(20).into_iter().zip((1..).map(|i| i % 4)).collect();
    let table = Rendezvous::new(nodes.clone()).unwrap();
    for hash in hashes(20_000) {
        let score = |(name, weight): &(String, u32)| {
            let drawn = split_mix(key_hash(name.as_bytes()) ^ hash, 0);
            let u = ((drawn >> 12) as f64 + 0.5) / 2f64.powi(52);
            -f64::from(*weight) / u.ln()
        };
        let best = (0..20).max_by(|&a, &b| score(&nodes[a]).total_cmp(&score(&nodes[b])));
        assert_eq!(table.lookup(hash), best.map(|node| node as u32));
    }
}

#[test]
fn multi_probe_agrees_with_the_closest_point() {
    let nodes: Vec<_> = names(40).into_iter().zip((0..).map(|i| i % 3)).collect();
    let table = MultiProbe::new(nodes.clone()).unwrap();
    let points: Vec<_> = (0..)
        .zip(&nodes)
        .flat_map(|(node, (name, weight))| {
            let hash = key_hash(name.as_bytes());
            (0..u64::from(*weight)).map(move |r| (split_mix(hash, r), node))
        })
        .collect();
    for hash in hashes(20_000) {
        let distance = |point: &(u64, u32)| {
            let probes = (0..u64::from(MultiProbe::DEFAULT_PROBES)).map(|i| split_mix(hash, i));
            probes.map(|probe| point.0.wrapping_sub(probe)).min()
        };
        let closest = points
            .iter()
            .min_by_key(|point| distance(point))
            .map(|point| point.1);
        assert_eq!(table.lookup(hash), closest);
    }
}

/// The owner is one of the next distinct nodes on the ring, and with few nodes any can be.
#[test]
fn block_hrw_chooses_among_the_next_on_the_ring() {
    let nodes = equal(300);
    let table = BlockHrw::new(nodes.iter().map(|node| &node.0)).unwrap();
    let ring = HashRing::builder().vnodes(256).build(nodes).unwrap();
    for hash in hashes(2_000) {
        // 300 · 50 blocks, rounded up: 2^14.
        let start = hash >> 50 << 50;
        let candidates: Vec<u32> = ring.replicas(start, 16).collect();
        let mut owners = table.choices(hash, 16);
        assert!(candidates.contains(&owners[0]));
        owners.sort_unstable();
        let mut candidates = candidates;
        candidates.sort_unstable();
        assert_eq!(owners, candidates);
    }
}

#[test]
fn block_hrw_looks_up_many_as_one() {
    for count in [1, 5, 300] {
        let table = BlockHrw::new(names(count)).unwrap();
        let hashes: Vec<u64> = hashes(1_003).collect();
        let mut owners = vec![u32::MAX; 1_003];
        table.lookup_all(&hashes, &mut owners);
        assert!(
            hashes
                .iter()
                .zip(owners)
                .all(|(&hash, owner)| table.lookup(hash) == Some(owner))
        );
    }
}

/// At every instant no node holds more than ⌈(1+ε) · w/W · m⌉, whatever the keys are.
#[test]
fn bounded_load_is_bounded() {
    let weights = [1u32, 1, 2, 3, 5];
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let ring = HashRing::new(names(5).into_iter().zip(weights)).unwrap();
    for epsilon in [0.0, 0.1, 0.25, 1.0] {
        let bound = BoundedLoad::new(epsilon);
        let mut loads = [0u64; 5];
        for placed in 0..3_000u64 {
            // Two keys in three are the same.
            let hash = key_hash(&(placed % 3 * (placed / 3)).to_le_bytes());
            let capacity = |node: u32| bound.capacity(weights[node as usize], total, placed + 1);
            let node = bound.pick(&ring, hash, |node| loads[node as usize] < capacity(node));
            let node = node.expect("capacities add up to the load or more");
            loads[node as usize] += 1;
            assert!(loads[node as usize] <= capacity(node));
        }
    }
}

#[test]
fn there_is_room_below_the_capacity_and_not_at_it() {
    for (epsilon, weight, total, load) in [
        (0.0, 1, 4, 100),
        (0.25, 1, 4, 100),
        (0.25, 1, 5, 100),
        (1.0, 3, 7, 14),
        (0.5, u32::MAX, u64::from(u32::MAX) << 24, 1 << 32),
        (1000.0, u32::MAX, 1, u64::MAX),
    ] {
        let bound = BoundedLoad::new(epsilon);
        let capacity = bound.capacity(weight, total, load);
        assert!(bound.has_room(capacity - 1, weight, total, load));
        // The last of these has no number for its capacity.
        let bounded = capacity < u64::MAX;
        assert_eq!(bound.has_room(capacity, weight, total, load), !bounded);
    }
    assert!(!BoundedLoad::new(1.0).has_room(0, 0, 5, 5));
}

#[test]
fn overflow_spreads_by_weight() {
    let ring = HashRing::new(equal(20)).unwrap();
    let owner = ring.lookup(7).unwrap();
    let bound = BoundedLoad::new(0.25);
    let mut heirs = [0u32; 20];
    for hash in hashes(KEYS).filter(|&hash| ring.lookup(hash) == Some(owner)) {
        let heir = bound.pick(&ring, hash, |node| node != owner).unwrap();
        heirs[heir as usize] += 1;
    }
    assert_eq!(heirs[owner as usize], 0);
    let most = f64::from(*heirs.iter().max().unwrap());
    let mean = f64::from(heirs.iter().sum::<u32>()) / 19.0;
    assert!(most / mean < 1.5, "{}", most / mean);
}

#[test]
fn plan_leads_from_one_map_to_the_other() {
    let ring = HashRing::new(equal(9)).unwrap();
    let smaller = ring.with_node_removed(4).unwrap();
    let map = |ring: &HashRing, replicas| ShardMap::new(ring, 128, replicas, |node| node);
    for (before, after) in [
        (map(&ring, 3), map(&smaller, 3)),
        (map(&smaller, 3), map(&ring, 3)),
        (map(&ring, 2), map(&smaller, 4)),
        (map(&ring, 4), map(&smaller, 1)),
    ] {
        let steps = plan(&before, &after);
        for shard in 0..128 {
            let mut holders = before.replicas(shard).to_vec();
            for step in steps.iter().filter(|step| step.shard == shard) {
                holders.retain(|&node| Some(node) != step.from);
                holders.extend(step.to);
            }
            holders.sort_unstable();
            let mut expected = after.replicas(shard).to_vec();
            expected.sort_unstable();
            assert_eq!(holders, expected);
        }
    }
    let (before, after) = (map(&ring, 3), map(&smaller, 3));
    let held = (0..128)
        .filter(|&shard| before.replicas(shard).contains(&4))
        .count();
    let steps = plan(&before, &after);
    assert_eq!(steps.len(), held, "one step for each replica that is lost");
    assert!(steps.iter().all(|step| step.from == Some(4)));
    assert_eq!(after.replicas(128), [0u32; 0]);
}
