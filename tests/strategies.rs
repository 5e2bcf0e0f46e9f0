//! What each strategy promises beyond what all of them do: whom it favours, and
//! by how much, against a naive twin or a closed form.

mod common;
#[path = "common/picks.rs"]
mod picks;

use picks::{assert_shares, balancer, hold, position, sequence, shares};
use waypost::strategy::LeastConn;
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
