//! What a strategy promises.

use crate::balancer::{Balancer, Pick};
use crate::endpoint::{Endpoint, EndpointSet, Status};
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::strategy::{PickContext, PickOptions, Strategy, Tried};
use crate::view::View;

/// The laws of [`Strategy`], run on what `make` makes.
///
/// Laws of a strategy's own, such as whom it favours, are for its own tests.
///
/// # Panics
///
/// When the strategy breaks a law; the message names it.
pub fn strategy<S: Strategy>(make: impl Fn() -> S) {
    preference(&make);
    every_endpoint_gets_calls(&make());
}

/// The same laws, of a strategy that means to leave some endpoints without calls.
///
/// # Panics
///
/// When the strategy breaks a law; the message names it.
pub fn preference<S: Strategy>(make: impl Fn() -> S) {
    nothing_to_pick_is_none(&make());
    every_pick_is_in_the_view(&make());
    the_same_seed_gives_the_same_picks(&make());
    what_was_tried_is_not_picked(&make());
    what_takes_no_calls_is_not_picked(make());
    a_set_may_change_under_calls(make());
    extreme_weights_are_fine(&make());
}

const SIZES: [u32; 6] = [1, 2, 3, 10, 100, 1_000];

fn nothing_to_pick_is_none(strategy: &impl Strategy) {
    let picker = strategy.build(&View::standalone([]));
    let mut context = PickContext::new(Rng::seeded(1), 5, &PickOptions::ANY);
    assert_eq!(picker.pick(&mut context), None, "an empty view has no pick");
}

fn every_pick_is_in_the_view(strategy: &impl Strategy) {
    for n in SIZES {
        for cursor in [0, 1, u64::from(n), u64::MAX >> 1] {
            let picker = strategy.build(&view(n, |_| 1));
            let mut context = PickContext::new(Rng::seeded(n.into()), cursor, &PickOptions::ANY);
            for _ in 0..1_000 {
                let index = picker.pick(&mut context);
                assert!(
                    index.is_some_and(|index| index < n),
                    "a view of {n} has a pick within it: {index:?}"
                );
            }
        }
    }
}

fn the_same_seed_gives_the_same_picks(strategy: &impl Strategy) {
    let run = || {
        let picker = strategy.build(&view(10, |i| i + 1));
        let options = PickOptions::new().hash(7);
        let mut context = PickContext::new(Rng::seeded(3), 2, &options);
        let picks: Vec<_> = (0..100).map(|_| picker.pick(&mut context)).collect();
        picks
    };
    assert_eq!(
        run(),
        run(),
        "picks depend on nothing but context and stats"
    );
}

fn what_was_tried_is_not_picked(strategy: &impl Strategy) {
    for weights in [|_| 1, |i| i + 1] {
        for n in [1, 2, 5, 20] {
            let view = view(n, weights);
            let picker = strategy.build(&view);
            let mut rng = Rng::seeded(n.into());
            for _ in 0..50 {
                let mut tried = Tried::new();
                for attempt in 0..n {
                    let options = PickOptions::new().tried(&tried).hash(rng.bits());
                    let seed = Rng::seeded(rng.bits());
                    let mut context = PickContext::new(seed, rng.bits() >> 1, &options);
                    let index = picker.pick(&mut context).unwrap_or_else(|| {
                        panic!("attempt {attempt} of {n} finds one that was not tried")
                    });
                    let key = view.node(index).key();
                    assert!(
                        !tried.contains(key),
                        "one that was tried is not picked again"
                    );
                    tried.insert(key);
                }
                let options = PickOptions::new().tried(&tried);
                let mut context = PickContext::new(Rng::seeded(1), 0, &options);
                assert_eq!(
                    picker.pick(&mut context),
                    None,
                    "when all were tried there is none"
                );
            }
        }
    }
}

fn what_takes_no_calls_is_not_picked(strategy: impl Strategy) {
    let (balancer, mut updater) = balancer(strategy);
    let statuses = [Status::Up, Status::Draining, Status::Down, Status::Starting];
    let endpoints = (0..16).map(|i: usize| {
        endpoint(i, u32::from(!i.is_multiple_of(5))).with_status(statuses[i % statuses.len()])
    });
    updater.apply(EndpointSet::new(endpoints).expect("ids differ"));
    for _ in 0..500 {
        let pick = balancer.pick().expect("some are up");
        assert!(pick.takes_calls(), "{:?} takes no calls", *pick);
        pick.finish(Outcome::Success);
    }
}

fn a_set_may_change_under_calls(strategy: impl Strategy) {
    let (balancer, mut updater) = balancer(strategy);
    let mut rng = Rng::seeded(11);
    let mut held: Vec<Pick> = Vec::new();
    for _ in 0..200 {
        let n = 1 + rng.below(20) as usize;
        let from = rng.below(20) as usize;
        let weight = 1 + rng.below(3);
        let set = EndpointSet::new((from..from + n).map(|i| endpoint(i, weight)));
        let set = set.expect("ids differ");
        updater.apply(set.clone());
        for _ in 0..5 {
            let pick = balancer.pick().expect("there are endpoints");
            assert!(
                set.get(pick.id()).is_some(),
                "a pick is of the set that was applied last"
            );
            held.push(pick);
        }
        while held.len() > 20 {
            let at = rng.below(held.len() as u32) as usize;
            held.swap_remove(at).finish(Outcome::Success);
        }
    }
    drop(held);
    updater.apply(EndpointSet::new((0..40).map(|i| endpoint(i, 1))).expect("ids differ"));
    for _ in 0..200 {
        let pick = balancer.pick().expect("there are endpoints");
        assert_eq!(
            pick.stats().in_flight(),
            1,
            "every call that ended was uncounted once"
        );
    }
}

fn extreme_weights_are_fine(strategy: &impl Strategy) {
    for weights in [[1, u32::MAX, 1], [u32::MAX; 3], [1, 1, 100_000]] {
        let picker = strategy.build(&view(3, |i| weights[i as usize]));
        let mut context = PickContext::new(Rng::seeded(5), 1, &PickOptions::ANY);
        for _ in 0..1_000 {
            assert!(picker.pick(&mut context).is_some_and(|index| index < 3));
        }
    }
}

fn every_endpoint_gets_calls(strategy: &impl Strategy) {
    let n = 10;
    let picker = strategy.build(&view(n, |i| 1 + i % 3));
    let mut seen = vec![false; n as usize];
    let mut rng = Rng::seeded(9);
    let mut context_rng = Rng::seeded(10);
    let mut cursor = 0;
    for _ in 0..5_000 {
        let options = PickOptions::new().hash(rng.bits());
        let mut context = PickContext::new(context_rng, cursor, &options);
        let index = picker.pick(&mut context).expect("the view is not empty");
        (context_rng, cursor) = (*context.rng(), *context.cursor());
        seen[index as usize] = true;
    }
    assert!(
        seen.iter().all(|&seen| seen),
        "every endpoint gets calls: {seen:?}"
    );
}

fn balancer(strategy: impl Strategy) -> (Balancer, crate::balancer::Updater) {
    Balancer::builder("contract")
        .strategy(strategy)
        .manual()
        .expect("it is a name")
}

fn view(n: u32, weight: impl Fn(u32) -> u32) -> View {
    View::standalone((0..n).map(|i| endpoint(i as usize, weight(i))))
}

fn endpoint(i: usize, weight: u32) -> Endpoint {
    Endpoint::builder(format!("10.0.{}.{}:80", i / 256, i % 256))
        .id(format!("{i:05}"))
        .weight(weight)
        .build()
        .expect("it is an endpoint")
}
