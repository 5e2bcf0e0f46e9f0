//! What each strategy promises beyond what all of them do: whom it favours, and
//! by how much, against a naive twin or a closed form.

mod common;
#[path = "common/picks.rs"]
mod picks;

use std::fs;
use std::path::Path;

use common::weighted;
use picks::{assert_shares, balancer, hold, position, sequence, shares};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};
use waypost::strategy::{LeastConn, PickFirst, PickOptions, RoundRobin, SmoothWeighted, Tried};
use waypost::view::NodeIndex;
use waypost::{Balancer, Pick};

fn pick(balancer: &Balancer) -> Pick {
    balancer.pick().expect("there are endpoints")
}

/// n over k.
fn choose(n: usize, k: usize) -> f64 {
    (0..k)
        .map(|i| (n as f64 - i as f64) / (i + 1) as f64)
        .product()
}

// ---- the fewest calls of a few ----------------------------------------------

fn of(choices: u32) -> LeastConn {
    LeastConn::new().choices(choices).expect("it is within")
}

/// Of n with different loads, the one with r busier ones is picked when it is drawn together with
/// d - 1 of those.
#[test]
fn the_least_loaded_of_a_few_follows_the_order_of_loads() {
    const N: usize = 8;
    for choices in [2, 3, 5, 7] {
        let (balancer, _updater) = balancer(of(choices), &[1; N]);
        let held: Vec<Pick> = (0..N)
            .flat_map(|at| (0..at).map(move |_| at))
            .map(|at| hold(&balancer, at))
            .collect();
        let picks = (0..20_000).map(|_| position(&pick(&balancer)) as NodeIndex);
        let others = choices as usize - 1;
        let busier = |load: usize| N - 1 - load;
        let expected: Vec<f64> = (0..N).map(|load| choose(busier(load), others)).collect();
        // The seed is the system's: 6 standard deviations are one run in 10^8.
        assert_shares(&shares(picks, N), &expected, 6.0);
        drop(held);
    }
}

#[test]
fn an_idle_service_gets_its_calls_by_weight_from_the_least_loaded_of_a_few() {
    for weights in [&[1, 1, 1, 1, 1][..], &[1, 2, 5, 2], &[8, 1, 1, 2]] {
        let picks = sequence(&of(3), weights, 13).take(40_000);
        let expected: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        assert_shares(&shares(picks, weights.len()), &expected, 4.0);
    }
}

#[test]
fn the_least_loaded_of_a_few_is_so_per_unit_of_weight() {
    // 4 of 10 is less than 1 of 1, which is always among the three drawn of four.
    let (balancer, _updater) = balancer(of(3), &[10, 1, 1, 1]);
    let held: Vec<Pick> = [0, 0, 0, 0, 1, 2, 3].map(|at| hold(&balancer, at)).into();
    let picks = (0..500).filter(|_| position(&pick(&balancer)) == 0);
    // Left out of the first three with a chance of (3·2·1)/(13·12·11), one in 286.
    assert!(picks.count() > 450);
    drop(held);
}

#[test]
fn where_there_are_no_more_than_choices_all_are_looked_at() {
    let (balancer, _updater) = balancer(of(6), &[1; 6]);
    let held: Vec<Pick> = (0..5).map(|at| hold(&balancer, at)).collect();
    assert!((0..100).all(|_| position(&pick(&balancer)) == 5));
    drop(held);
}

// ---- in turn, as nginx ------------------------------------------------------

/// The weights of a golden file, and the answers of the real server.
fn golden(path: &Path) -> (Vec<u32>, Vec<NodeIndex>) {
    let text = fs::read_to_string(path).expect("it is there");
    let (mut weights, mut answers) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match *line.split('\t').collect::<Vec<_>>() {
            ["host", _, weight, "up"] => weights.push(weight.parse().expect("a weight")),
            ["picks", first, picks] => {
                assert_eq!(first.parse(), Ok(answers.len()), "none is left out");
                answers.extend(
                    picks
                        .split(' ')
                        .map(|pick| pick.parse::<NodeIndex>().unwrap()),
                );
            }
            _ => {}
        }
    }
    (weights, answers)
}

/// Whether a thread, which begins anywhere, comes to walk that sequence.
fn comes_to_walk(weights: &[u32], sequence_of_nginx: &[NodeIndex]) -> bool {
    let len = sequence_of_nginx.len();
    let ours: Vec<NodeIndex> = sequence(&SmoothWeighted::new(), weights, 17)
        .take(2 * len)
        .collect();
    ours.windows(len).any(|ours| ours == sequence_of_nginx)
}

#[test]
fn the_turn_by_weight_is_that_of_the_real_nginx() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let names = [
        "1-1-1", "5-1-1", "1-2-3", "4-3-2-1", "10-20-30", "1-99", "12-mixed",
    ];
    for name in names {
        let (weights, answers) = golden(&folder.join(format!("smooth-nginx-{name}.txt")));
        assert_eq!(answers.len(), 400, "{name}");
        assert!(comes_to_walk(&weights, &answers), "{name}");
    }
}

/// The naive twin: what nginx does at each call.
fn nginx(weights: &[u32], calls: usize) -> Vec<NodeIndex> {
    let sum: i64 = weights.iter().copied().map(i64::from).sum();
    let mut current = vec![0; weights.len()];
    let mut call = || {
        for (current, &weight) in current.iter_mut().zip(weights) {
            *current += i64::from(weight);
        }
        let most = *current.iter().max().expect("there are some");
        let at = current.iter().position(|&current| current == most);
        let at = at.expect("one has the most");
        current[at] -= sum;
        at as NodeIndex
    };
    (0..calls).map(|_| call()).collect()
}

/// The turn falls back on round robin, rather than take a minute to be prepared.
#[test]
fn weights_that_add_up_to_too_much_are_taken_in_turn_by_stride() {
    let limit = (1 << 20) / 3;
    for (sum, is_written) in [(limit, true), (limit + 1, false)] {
        let weights = [sum - 200_001, 100_000, 100_001];
        let (ours, by_stride): (Vec<_>, Vec<_>) = (
            sequence(&SmoothWeighted::new(), &weights, 5)
                .take(4_000)
                .collect(),
            sequence(&RoundRobin::new(), &weights, 5)
                .take(4_000)
                .collect(),
        );
        assert_eq!(ours != by_stride, is_written, "{sum}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn the_turn_by_weight_is_that_of_its_twin(weights in vec(1..60_u32, 1..9), scale in 1..1_000_u32) {
        let period = weights.iter().sum::<u32>() as usize;
        let scaled: Vec<u32> = weights.iter().map(|weight| weight * scale).collect();
        prop_assert!(comes_to_walk(&scaled, &nginx(&weights, period)));
        let shares = shares(sequence(&SmoothWeighted::new(), &scaled, 3).take(period), weights.len());
        let expected: Vec<u64> = weights.iter().copied().map(u64::from).collect();
        prop_assert_eq!(shares, expected, "exact in every period, wherever it begins");
    }
}

// ---- the first --------------------------------------------------------------

/// Where a call goes that is tried again until nothing is left.
fn order(balancer: &Balancer) -> Vec<usize> {
    let mut tried = Tried::new();
    let attempts = std::iter::from_fn(|| {
        let picked = balancer.pick_with(&PickOptions::new().tried(&tried));
        let pick = picked.ok()?;
        tried.insert(pick.key());
        Some(position(&pick))
    });
    attempts.collect()
}

#[test]
fn all_calls_go_to_the_first_and_retries_to_those_after_it() {
    let (balancer, mut updater) = balancer(PickFirst::new(), &[1, 9, 1, 4]);
    assert!((0..100).all(|_| position(&pick(&balancer)) == 0));
    assert_eq!(order(&balancer), [0, 1, 2, 3]);
    updater.apply(weighted(&[0, 1, 1]));
    assert_eq!(order(&balancer), [1, 2], "what takes no calls is no first");
}

#[test]
fn a_shuffled_order_is_kept_while_others_come_and_go() {
    let (balancer, mut updater) = balancer(PickFirst::shuffled(), &[1; 12]);
    let before = order(&balancer);
    assert_eq!(order(&balancer), before);
    for gone in 0..12 {
        let mut weights = [1; 12];
        weights[gone] = 0;
        updater.apply(weighted(&weights));
        let mut expected = before.clone();
        expected.retain(|&at| at != gone);
        assert_eq!(order(&balancer), expected);
        updater.apply(weighted(&[1; 12]));
        assert_eq!(order(&balancer), before);
    }
}

#[test]
fn over_many_clients_each_is_first_by_its_weight() {
    for weights in [&[1, 1, 1][..], &[1, 2, 5]] {
        let firsts = (0..4_000).map(|_| {
            let mut picks = sequence(&PickFirst::shuffled(), weights, 1);
            picks.next().expect("it does not end")
        });
        let expected: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        // The seeds are the system's: 6 standard deviations are one run in 10^8.
        assert_shares(&shares(firsts, weights.len()), &expected, 6.0);
    }
}
