//! Picks, and who got how many of them.

use waypost::rng::Rng;
use waypost::strategy::{PickContext, PickOptions, Strategy, Tried};
use waypost::view::{NodeIndex, View};
use waypost::{Balancer, Pick, Updater};

use crate::common::weighted;

pub(crate) fn balancer(strategy: impl Strategy, weights: &[u32]) -> (Balancer, Updater) {
    let built = Balancer::builder("users").strategy(strategy).manual();
    let (balancer, mut updater) = built.expect("it is a name");
    updater.apply(weighted(weights));
    (balancer, updater)
}

/// A guard of the endpoint at that position, by having tried all the others.
pub(crate) fn hold(balancer: &Balancer, position: usize) -> Pick {
    let mut tried = Tried::new();
    for (at, node) in balancer.nodes().iter().enumerate() {
        if at != position {
            tried.insert(node.key());
        }
    }
    let options = PickOptions::new().tried(&tried);
    balancer.pick_with(&options).expect("one is left")
}

pub(crate) fn position(pick: &Pick) -> usize {
    pick.id().as_str().parse().expect("ids are numbers")
}

/// The positions that a strategy picks one after the other on one thread, with
/// nothing in flight between.
pub(crate) fn sequence<S: Strategy>(
    strategy: &S,
    weights: &[u32],
    seed: u64,
) -> impl Iterator<Item = NodeIndex> + use<S> {
    let set = weighted(weights);
    let view = View::standalone(set.iter().map(|endpoint| (**endpoint).clone()));
    let picker = strategy.build(&view);
    let mut rng = Rng::seeded(seed);
    let cursor = rng.bits() >> 1;
    let mut context = PickContext::new(rng, cursor, &PickOptions::ANY);
    std::iter::repeat_with(move || picker.pick(&mut context).expect("there are endpoints"))
}

pub(crate) fn shares(picks: impl Iterator<Item = NodeIndex>, n: usize) -> Vec<u64> {
    let mut shares = vec![0; n];
    for index in picks {
        shares[index as usize] += 1;
    }
    shares
}

/// Each share is within `sigmas` standard deviations of its expectation.
pub(crate) fn assert_shares(shares: &[u64], expected: &[f64], sigmas: f64) {
    let picks: u64 = shares.iter().sum();
    let whole: f64 = expected.iter().sum();
    for (at, (&share, &part)) in shares.iter().zip(expected).enumerate() {
        let p = part / whole;
        let mean = picks as f64 * p;
        let deviation = (mean * (1.0 - p)).sqrt();
        assert!(
            (share as f64 - mean).abs() <= sigmas * deviation,
            "place {at} of {expected:?} got {share}, not {mean:.0} ± {deviation:.0}"
        );
    }
}
