//! The laws of the strategies that go by the call's key.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{endpoint, weighted};
use proptest::prelude::{ProptestConfig, Strategy as _, prop_assert_eq, prop_oneof, proptest};
use waypost::hash::{HashRing, key_hash};
use waypost::rng::Rng;
use waypost::strategy::{
    BlockHrw, Maglev, MissingKey, Rendezvous, RingHash, RoundRobin, Strategy, Tried,
};
use waypost::{Balancer, Endpoint, EndpointSet, PickOptions, Status, Updater};

fn balancer(strategy: impl Strategy) -> (Balancer, Updater) {
    let builder = Balancer::builder("keyed").strategy(strategy).latency(false);
    builder.manual().expect("the name is one")
}

fn with(strategy: impl Strategy, set: &EndpointSet) -> Balancer {
    let (balancer, mut updater) = balancer(strategy);
    updater.apply(set.clone());
    balancer
}

/// The ids of the endpoints that a call with this key goes to, attempt after attempt.
fn attempts(balancer: &Balancer, hash: u64, most: usize) -> Vec<String> {
    let mut tried = Tried::new();
    let mut ids = Vec::new();
    while ids.len() < most {
        let options = PickOptions::new().hash(hash).tried(&tried);
        let Ok(pick) = balancer.pick_with(&options) else {
            break;
        };
        ids.push(pick.id().to_string());
        tried.insert(pick.key());
    }
    ids
}

fn owner(balancer: &Balancer, hash: u64) -> String {
    attempts(balancer, hash, 1).remove(0)
}

fn hashes(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|i| key_hash(&i.to_le_bytes()))
}

fn all() -> Vec<(&'static str, Box<dyn Strategy>)> {
    vec![
        ("ring", Box::new(RingHash::new())),
        ("maglev", Box::new(Maglev::new())),
        ("rendezvous", Box::new(Rendezvous::new())),
    ]
}

// ---- the same for every client ---------------------------------------------

#[test]
fn the_ring_is_that_of_the_hash_floor() {
    let weights = [1, 2, 3, 1, 5];
    let set = weighted(&weights);
    let balancer = with(RingHash::new(), &set);
    let nodes = set.iter().map(|e| (e.id().as_str(), e.weight()));
    let ring = HashRing::new(nodes).unwrap();
    for hash in hashes(500) {
        let order = ring.replicas(hash, 5).map(|node| ring.name(node).unwrap());
        assert_eq!(attempts(&balancer, hash, 9), order.collect::<Vec<_>>());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u32, Option<usize>, u32),
    Remove(usize),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let put = (
        0..14_usize,
        0..4_u32,
        proptest::option::weighted(0.2, 0..3_usize),
        0..5_u32,
    );
    let step = prop_oneof![
        3 => put.prop_map(|(at, weight, key, level)| Step::Put(at, weight, key, level / 4)),
        1 => (0..14_usize).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 1..25)
}

fn apply(set: &EndpointSet, step: &Step) -> EndpointSet {
    match *step {
        Step::Remove(at) => set.without(endpoint(at).id()),
        Step::Put(at, weight, key, level) => {
            let mut builder = Endpoint::builder(format!("10.0.0.{at}:80"))
                .id(format!("{at:05}"))
                .weight(weight)
                .priority(level);
            if let Some(key) = key {
                // Some of these are another's id.
                builder = builder.metadata("hash_key", format!("{key:05}"));
            }
            set.with(builder.build().unwrap())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// A client that saw every change picks as one that has just come, attempt for attempt.
    #[test]
    fn history_does_not_matter(steps in steps()) {
        let veterans = [balancer(RingHash::new()), balancer(RingHash::new().bounded(1.5).unwrap())];
        let mut veterans = veterans.into_iter().collect::<Vec<_>>();
        let mut set = EndpointSet::empty();
        for step in &steps {
            set = apply(&set, step);
            let newcomer = with(RingHash::new(), &set);
            for (veteran, updater) in &mut veterans {
                updater.apply(set.clone());
                for hash in hashes(20) {
                    prop_assert_eq!(attempts(veteran, hash, 20), attempts(&newcomer, hash, 20));
                }
            }
        }
    }
}

#[test]
fn balancers_that_share_a_strategy_do_not_disturb_each_other() {
    let strategy = std::sync::Arc::new(RingHash::new());
    let (first, mut one) = balancer(strategy.clone());
    let (second, mut other) = balancer(strategy);
    for round in 1..20 {
        let (a, b) = (weighted(&vec![1; round]), weighted(&vec![2; 20 - round]));
        one.apply(a.clone());
        other.apply(b.clone());
        let (fresh_a, fresh_b) = (with(RingHash::new(), &a), with(RingHash::new(), &b));
        for hash in hashes(50) {
            assert_eq!(owner(&first, hash), owner(&fresh_a, hash));
            assert_eq!(owner(&second, hash), owner(&fresh_b, hash));
        }
    }
}

// ---- what moves --------------------------------------------------------------

#[test]
fn only_the_keys_of_a_lost_endpoint_move() {
    for (name, strategy) in all() {
        let (balancer, mut updater) = balancer(strategy);
        let set = weighted(&[1; 20]);
        updater.apply(set.clone());
        let before: Vec<String> = hashes(2_000).map(|hash| owner(&balancer, hash)).collect();
        let lost = endpoint(7).id().to_string();
        updater.apply(set.without(endpoint(7).id()));
        let mut moved = 0;
        for (hash, before) in hashes(2_000).zip(&before) {
            let after = owner(&balancer, hash);
            assert_ne!(after, lost, "{name}");
            moved += u32::from(*before != lost && *before != after);
        }
        // Maglev moves some of the others.
        let allowed = if name == "maglev" { 60 } else { 0 };
        assert!(moved <= allowed, "{name}: {moved} moved needlessly");
        updater.apply(set);
        let again = hashes(2_000).map(|hash| owner(&balancer, hash));
        assert!(again.eq(before), "{name}: all come back");
    }
}

#[test]
fn shares_follow_weights() {
    for (name, strategy) in all() {
        let balancer = with(strategy, &weighted(&[1, 2, 5]));
        let mut shares = HashMap::new();
        for hash in hashes(8_000) {
            *shares.entry(owner(&balancer, hash)).or_insert(0) += 1;
        }
        for (number, weight) in [1, 2, 5].into_iter().enumerate() {
            let share = shares[endpoint(number).id().as_str()];
            let due = 1_000 * weight;
            assert!(
                (due * 3 / 4..due * 5 / 4).contains(&share),
                "{name}: {shares:?}"
            );
        }
    }
}

fn with_status(set: &EndpointSet, number: usize, status: Status) -> EndpointSet {
    let endpoint = set.get(endpoint(number).id()).expect("it is in the set");
    set.with(Endpoint::clone(endpoint).with_status(status))
}

/// Candidates stay the same while health changes; only the membership makes others.
#[test]
fn a_flapping_endpoint_moves_its_own_keys_alone() {
    let (balancer, mut updater) = balancer(BlockHrw::new());
    let set = weighted(&[1; 40]);
    updater.apply(set.clone());
    let owners = || {
        hashes(4_000)
            .map(|hash| owner(&balancer, hash))
            .collect::<Vec<_>>()
    };
    let before = owners();
    let (down, starting) = (endpoint(7).id().to_string(), endpoint(11).id().to_string());
    let flapped = with_status(&with_status(&set, 7, Status::Down), 11, Status::Starting);
    updater.apply(flapped.clone());
    let meanwhile = owners();
    let newcomer = with(BlockHrw::new(), &flapped);
    for ((hash, was), is) in hashes(4_000).zip(&before).zip(&meanwhile) {
        let lost = *was == down || *was == starting;
        assert_eq!(was != is, lost, "{was} {is}");
        assert!(*is != down && *is != starting);
        assert_eq!(
            *is,
            owner(&newcomer, hash),
            "a client that starts now agrees"
        );
    }
    updater.apply(set.clone());
    assert_eq!(owners(), before);
    // Taken out, it moves some of the others' keys too: that is what is spared.
    updater.apply(set.without(endpoint(7).id()));
    let moved = before
        .iter()
        .zip(owners())
        .filter(|(was, is)| **was != down && *was != is);
    assert!(moved.count() > 0);
}

// ---- retries and levels ------------------------------------------------------

#[test]
fn a_retry_goes_where_the_key_goes_without_the_endpoint() {
    for (name, strategy) in all() {
        if name == "maglev" {
            // Its table is another without the endpoint.
            continue;
        }
        let set = weighted(&[1; 12]);
        let (balancer, mut updater) = balancer(strategy);
        updater.apply(set.clone());
        for hash in hashes(30) {
            let tried = attempts(&balancer, hash, 2);
            updater.apply(set.without(&tried[0].parse().unwrap()));
            assert_eq!(owner(&balancer, hash), tried[1], "{name}");
            updater.apply(set.clone());
        }
    }
}

#[test]
fn every_endpoint_is_tried_once_then_the_next_level() {
    let mut set = weighted(&[1, 3, 1, 2]);
    for number in 4..7 {
        let spare = Endpoint::builder(format!("10.0.0.{number}:80"))
            .id(format!("{number:05}"))
            .priority(1);
        set = set.with(spare.build().unwrap());
    }
    for (name, strategy) in all() {
        let balancer = with(strategy, &set);
        for hash in hashes(50) {
            let mut order = attempts(&balancer, hash, 99);
            assert_eq!(order.len(), 7, "{name}");
            order[..4].sort();
            order[4..].sort();
            assert!(order.is_sorted(), "{name}: the first level comes first");
            order.dedup();
            assert_eq!(order.len(), 7, "{name}: each once");
        }
    }
}

// ---- keys and names ------------------------------------------------------------

/// Beside one of a million, a weight of 1 has no slot of Maglev's table.
#[test]
fn a_retry_finds_an_endpoint_whose_weight_is_next_to_nothing() {
    let set = weighted(&[1_000_000, 1, 1]);
    for (name, strategy) in all().into_iter().chain(bounded(1.25)) {
        let balancer = with(strategy, &set);
        for hash in hashes(20) {
            let mut tried = attempts(&balancer, hash, 10);
            assert_eq!(tried, attempts(&balancer, hash, 10), "{name}");
            tried.sort();
            tried.dedup();
            assert_eq!(tried.len(), 3, "{name}");
        }
    }
}

#[test]
fn a_call_without_a_key_goes_anywhere_or_nowhere() {
    let set = weighted(&[1; 5]);
    let served = with(RingHash::new(), &set);
    let mut seen: Vec<String> = (0..500)
        .map(|_| served.pick().unwrap().id().to_string())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);

    let refused = with(RingHash::new().missing_key(MissingKey::Refuse), &set);
    assert!(refused.pick().unwrap_err().is_declined());
    assert!(refused.pick_with(&PickOptions::new().hash(0)).is_ok());
}

fn keyed(id: &str, key: &str) -> Endpoint {
    let builder = Endpoint::builder("10.0.0.1:80").id(id);
    builder.metadata("hash_key", key).build().unwrap()
}

#[test]
fn a_hash_key_hands_keys_down_to_a_replacement() {
    for (name, strategy) in all() {
        let (balancer, mut updater) = balancer(strategy);
        let set = |id| EndpointSet::new([keyed("a", "slot-1"), keyed(id, "slot-2")]).unwrap();
        updater.apply(set("b"));
        let before: Vec<String> = hashes(200).map(|hash| owner(&balancer, hash)).collect();
        updater.apply(set("c"));
        let after = hashes(200).map(|hash| owner(&balancer, hash).replace('c', "b"));
        assert!(after.eq(before), "{name}");
    }
}

#[test]
fn endpoints_with_one_hash_key_are_both_used() {
    for (name, strategy) in all() {
        // The third wants the name that the second is given.
        let set = [
            keyed("a", "x"),
            keyed("b", "x"),
            keyed("c", "x\nb"),
            keyed("d", ""),
        ];
        let balancer = with(strategy, &EndpointSet::new(set).unwrap());
        let mut seen: Vec<String> = hashes(300).map(|hash| owner(&balancer, hash)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["a", "b", "c", "d"], "{name}");
    }
}

/// Its name was the other's until now, also on a ring that is changed and not built.
#[test]
fn when_one_of_two_with_one_hash_key_leaves_the_other_has_the_name() {
    let all = [keyed("a", "x"), keyed("b", "x"), keyed("c", "y")];
    let all = EndpointSet::new(all).unwrap();
    let (balancer, mut updater) = balancer(RingHash::new());
    updater.apply(all.clone());
    let left = all.without(&"a".parse().unwrap());
    updater.apply(left.clone());
    let newcomer = with(RingHash::new(), &left);
    for hash in hashes(300) {
        assert_eq!(owner(&balancer, hash), owner(&newcomer, hash));
    }
}

/// Where endpoints usually weigh 100, they have as many points as those that weigh 1 elsewhere, and
/// so the same keys.
#[test]
fn a_ring_of_another_unit_of_weight_is_that_of_the_weights_in_that_unit() {
    let by_hundreds = RingHash::new().unit_weight(100).expect("it is above 0");
    let (heavy, light) = (
        with(by_hundreds, &weighted(&[100, 300, 200])),
        with(RingHash::new(), &weighted(&[1, 3, 2])),
    );
    for hash in hashes(500) {
        assert_eq!(attempts(&heavy, hash, 3), attempts(&light, hash, 3));
    }
}

#[test]
fn bad_settings_are_refused() {
    for factor in [f64::NAN, f64::INFINITY, 0.99, -1.0, 1000.1] {
        let error = RingHash::new().bounded(factor).unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains("bounded"),
            "{error}"
        );
    }
    for vnodes in [0, 4097] {
        assert!(RingHash::new().vnodes(vnodes).unwrap_err().is_invalid());
    }
    assert!(RingHash::new().unit_weight(0).unwrap_err().is_invalid());
    for size in [0, 1, 2, 4, 65_536, 5_000_013] {
        let error = Maglev::new().table_size(size).unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains("prime"),
            "{error}"
        );
    }
}

#[test]
fn a_maglev_table_grows_with_the_endpoints() {
    let small = Maglev::new().table_size(3).unwrap();
    let balancer = with(small, &weighted(&[1; 10]));
    let mut seen: Vec<String> = hashes(300).map(|hash| owner(&balancer, hash)).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 10);
}

// ---- bounded load --------------------------------------------------------------

fn bounded(factor: f64) -> Vec<(&'static str, Box<dyn Strategy>)> {
    vec![
        ("ring", Box::new(RingHash::new().bounded(factor).unwrap())),
        ("maglev", Box::new(Maglev::new().bounded(factor).unwrap())),
        (
            "rendezvous",
            Box::new(Rendezvous::new().bounded(factor).unwrap()),
        ),
    ]
}

/// ⌈factor · w/W · m⌉, computed without the crate.
fn capacity(factor: f64, weight: u32, total: u32, load: u32) -> u32 {
    // A little less, since the product of fractions may come out above a whole number.
    (factor * f64::from(weight) * f64::from(load) / f64::from(total) - 1e-6).ceil() as u32
}

#[test]
fn no_endpoint_goes_above_its_capacity() {
    let weights = [1, 1, 2, 3, 5];
    for factor in [1.0, 1.25, 2.0] {
        for (name, strategy) in bounded(factor) {
            let balancer = with(strategy, &weighted(&weights));
            let mut held = Vec::new();
            let mut rng = Rng::seeded(3);
            for call in 0..600 {
                // Two in three have one key; one in four ends before the next.
                let hash = if call % 3 == 0 { rng.bits() } else { 7 };
                if call % 4 == 3 {
                    drop(held.swap_remove(rng.below(held.len() as u32) as usize));
                }
                let pick = balancer.pick_with(&PickOptions::new().hash(hash)).unwrap();
                let (weight, load) = (pick.weight(), held.len() as u32 + 1);
                let most = capacity(factor, weight, 12, load);
                let has = pick.stats().in_flight();
                assert!(has <= most, "{name}, {factor}: {has} of {most} at {load}");
                held.push(pick);
            }
        }
    }
}

#[test]
fn a_bound_changes_nothing_while_there_is_room() {
    let set = weighted(&[1; 10]);
    let (free, bound) = (
        with(RingHash::new(), &set),
        with(RingHash::new().bounded(1.0).unwrap(), &set),
    );
    for hash in hashes(500) {
        assert_eq!(owner(&free, hash), owner(&bound, hash));
    }
}

#[test]
fn what_overflows_goes_to_the_same_endpoints_each_time_and_spreads() {
    let set = weighted(&[1; 30]);
    let order = || {
        let balancer = with(RingHash::new().bounded(1.25).unwrap(), &set);
        let options = PickOptions::new().hash(7);
        let picks: Vec<_> = (0..100)
            .map(|_| balancer.pick_with(&options).unwrap())
            .collect();
        picks
            .iter()
            .map(|pick| pick.id().to_string())
            .collect::<Vec<_>>()
    };
    let first = order();
    assert_eq!(first, order());
    let mut seen = first;
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 20, "{seen:?}");
}

#[test]
fn a_full_service_still_serves_what_was_not_tried() {
    let balancer = with(RingHash::new().bounded(1.0).unwrap(), &weighted(&[1; 3]));
    let options = PickOptions::new().hash(7);
    let held: Vec<_> = (0..30)
        .map(|_| balancer.pick_with(&options).unwrap())
        .collect();
    // Two are tried, and the third has as many calls as its share of one more is.
    let order = attempts(&balancer, 7, 9);
    assert_eq!(order.len(), 3);
    drop(held);
}

#[test]
fn what_overflows_does_not_go_where_the_call_was() {
    for (name, strategy) in bounded(1.0) {
        let balancer = with(strategy, &weighted(&[1; 4]));
        for hash in hashes(50) {
            let first = balancer.pick_with(&PickOptions::new().hash(hash)).unwrap();
            let mut tried = Tried::new();
            tried.insert(first.key());
            let was = first.id().clone();
            drop(first);
            let options = PickOptions::new().hash(hash).tried(&tried);
            // The second has all it may have with the first of these.
            let held = [(); 2].map(|()| balancer.pick_with(&options).unwrap());
            assert_ne!(held[0].id(), held[1].id(), "{name}");
            assert!(held.iter().all(|pick| *pick.id() != was), "{name}");
        }
    }
}

/// A detached call counts until it ends, and on another thread too.
#[test]
fn the_total_follows_calls_wherever_they_end() {
    let balancer = with(RingHash::new().bounded(1.0).unwrap(), &weighted(&[1; 4]));
    let options = PickOptions::new().hash(7);
    for _ in 0..50 {
        let detached: Vec<_> = (0..8)
            .map(|_| balancer.pick_with(&options).unwrap().detach())
            .collect();
        let held: Vec<_> = (0..8)
            .map(|_| balancer.pick_with(&options).unwrap())
            .collect();
        std::thread::spawn(move || drop((detached, held)))
            .join()
            .unwrap();
    }
    // Were some left over, the second call could stay with the first.
    let first = balancer.pick_with(&options).unwrap();
    let second = balancer.pick_with(&options).unwrap();
    assert_ne!(first.id(), second.id());
    // And were too many taken off, it would have no room anywhere, and stay as well.
    let third = balancer.pick_with(&options).unwrap();
    let fourth = balancer.pick_with(&options).unwrap();
    let mut ids = [first.id(), second.id(), third.id(), fourth.id()];
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}

/// Threads that pick at once go beyond a capacity by their number at most.
#[test]
fn threads_together_overshoot_by_their_number_at_most() {
    const THREADS: u32 = 4;
    const HELD: usize = 50;
    let balancer = with(RingHash::new().bounded(1.25).unwrap(), &weighted(&[1; 8]));
    let worst = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (balancer, worst) = (&balancer, &worst);
            scope.spawn(move || {
                let mut rng = Rng::seeded(thread.into());
                let mut held = Vec::new();
                for _ in 0..2_000 {
                    let options = PickOptions::new().hash(7);
                    let pick = balancer.pick_with(&options).unwrap();
                    worst.fetch_max(pick.stats().in_flight(), Ordering::Relaxed);
                    held.push(pick);
                    if held.len() == HELD {
                        drop(held.swap_remove(rng.below(HELD as u32) as usize));
                    }
                }
            });
        }
    });
    // As many as can be in flight at once.
    let most = capacity(1.25, 1, 8, THREADS * HELD as u32) + THREADS;
    let worst = worst.load(Ordering::Relaxed);
    assert!(worst <= most, "{worst} of {most}");
    assert!(
        worst >= most / 3,
        "one key alone fills more than that: {worst}"
    );
    // All are counted out again.
    let busy: u32 = balancer
        .nodes()
        .iter()
        .map(|node| node.stats().in_flight())
        .sum();
    assert_eq!(busy, 0);
}

/// A view that nobody counts a total for sums up its own.
#[test]
fn the_total_of_a_view_is_that_of_its_nodes() {
    let view = waypost::view::View::standalone((0..5).map(endpoint));
    assert_eq!(view.total_in_flight(), 0);
    assert!(!RoundRobin::new().reads_total());
    assert!(RingHash::new().bounded(2.0).unwrap().reads_total());
    assert!(!RingHash::new().reads_total());
}
