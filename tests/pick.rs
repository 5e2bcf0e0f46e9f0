//! The pick's laws: counted in flight exactly once whatever becomes of the
//! guard, never of a set that is gone, timed when answered, and shared out as
//! its strategy says.

mod common;
#[path = "common/picks.rs"]
mod picks;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{endpoint, weighted};
use picks::{assert_shares, balancer, hold, position, sequence, shares};
use proptest::collection::vec;
use proptest::prelude::{Strategy as Gen, *};
use waypost::rng::Rng;
use waypost::stats::Totals;
use waypost::strategy::{LeastConn, P2c, PickOptions, Random, RoundRobin, Strategy, Tried};
use waypost::time::{Clock, Hands};
use waypost::view::{Node, NodeIndex};
use waypost::{Balancer, EndpointId, EndpointSet, EndpointStats, Outcome, Pick, Updater};

const OUTCOMES: [Outcome; 7] = [
    Outcome::Success,
    Outcome::ServerError,
    Outcome::GatewayError,
    Outcome::NotSent,
    Outcome::Interrupted,
    Outcome::TimedOut,
    Outcome::Cancelled,
];

fn one() -> (Balancer, EndpointStats) {
    let (balancer, _) = balancer(P2c::new(), &[1]);
    let stats = balancer.nodes()[0].stats().clone();
    (balancer, stats)
}

fn pick(balancer: &Balancer) -> Pick {
    balancer.pick().expect("there are endpoints")
}

fn in_flight(balancer: &Balancer) -> Vec<u32> {
    balancer
        .nodes()
        .iter()
        .map(|node| node.stats().in_flight())
        .collect()
}

fn counts(totals: Totals) -> (u64, u64, u64) {
    (totals.succeeded, totals.failed, totals.cancelled)
}

// ---- counted once -----------------------------------------------------------

#[test]
fn a_call_is_in_flight_from_its_pick_to_its_end() {
    let (balancer, stats) = one();
    for (rounds, outcome) in (1..).zip(OUTCOMES) {
        let first = pick(&balancer);
        assert_eq!(stats.in_flight(), 1);
        let second = pick(&balancer);
        assert_eq!(stats.in_flight(), 2);
        first.finish(outcome);
        assert_eq!(stats.in_flight(), 1);
        drop(second);
        assert_eq!(stats.in_flight(), 0);
        assert_eq!(stats.totals().ended(), 2 * rounds);
    }
    // One of each outcome, and seven that were dropped.
    assert_eq!(counts(stats.totals()), (1, 5, 1 + 7));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_future_ends_its_call_once() {
    let (balancer, stats) = one();
    let call = |ends: bool| {
        let balancer = balancer.clone();
        async move {
            let pick = pick(&balancer);
            if !ends {
                std::future::pending::<()>().await;
            }
            pick.finish(Outcome::Success);
        }
    };

    tokio::select! {
        () = call(false) => unreachable!("it hangs"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (0, 0, 1));

    let task = tokio::spawn(call(false));
    tokio::task::yield_now().await;
    assert_eq!(stats.in_flight(), 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (0, 0, 2));

    let late = tokio::time::timeout(Duration::from_secs(1), call(false)).await;
    assert!(late.is_err());
    drop(call(false));
    call(true).await;
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(
        counts(stats.totals()),
        (1, 0, 3),
        "a future that never ran never picked"
    );
}

#[test]
fn a_guard_may_end_on_another_thread_than_it_began_on() {
    let (balancer, stats) = one();
    for already_picks in [false, true] {
        let guards: Vec<Pick> = (0..40).map(|_| pick(&balancer)).collect();
        assert_eq!(stats.in_flight(), 40);
        let (there, here) = (&balancer, &stats);
        thread::scope(|scope| {
            scope.spawn(move || {
                let own = already_picks.then(|| pick(there));
                for (ended, guard) in (1..).zip(guards) {
                    guard.finish(Outcome::Success);
                    assert_eq!(here.in_flight(), 40 - ended + u32::from(own.is_some()));
                }
            });
        });
        assert_eq!(stats.in_flight(), 0);
    }
    assert_eq!(counts(stats.totals()), (80, 0, 1));
}

/// However many threads pick: one, two, and more than have places of their own
/// are added up each in another way.
#[test]
fn the_better_of_two_is_so_by_the_calls_of_all_threads() {
    for strategy in [P2c::new(), P2c::peak_ewma()] {
        let (balancer, _updater) = balancer(strategy, &[1, 1]);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..12 {
                let (ask, asked) = mpsc::channel();
                let (told, tell) = mpsc::channel();
                let theirs = balancer.clone();
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for () in asked {
                        held.push(pick(&theirs));
                        told.send(()).expect("somebody waits");
                    }
                });
                threads.push((ask, tell));
                for (ask, tell) in threads.iter().chain(&threads) {
                    ask.send(()).expect("the thread lives");
                    tell.recv().expect("it picks");
                    let [a, b] = in_flight(&balancer)[..] else {
                        panic!("two endpoints");
                    };
                    assert!(a.abs_diff(b) <= 1, "{a} and {b}");
                }
            }
        });
        assert_eq!(in_flight(&balancer), [0, 0]);
    }
}

#[test]
fn guards_of_threads_that_ended_still_count() {
    let (balancer, stats) = one();
    // More threads than there are places for threads of their own.
    let guards: Vec<Pick> = (0..40)
        .map(|_| thread::scope(|scope| scope.spawn(|| pick(&balancer)).join().unwrap()))
        .collect();
    assert_eq!(stats.in_flight(), 40);
    let (waiting, release) = (Arc::new(std::sync::Barrier::new(41)), balancer.clone());
    thread::scope(|scope| {
        for _ in 0..40 {
            let (waiting, balancer) = (Arc::clone(&waiting), release.clone());
            scope.spawn(move || {
                let guard = pick(&balancer);
                waiting.wait();
                waiting.wait();
                drop(guard);
            });
        }
        waiting.wait();
        assert_eq!(stats.in_flight(), 80, "forty threads at once, forty gone");
        waiting.wait();
    });
    drop(guards);
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(stats.totals().ended(), 80);
}

#[test]
fn a_panic_ends_the_call_as_given_up() {
    let (balancer, stats) = one();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _pick = pick(&balancer);
        panic!("on purpose, with a guard held");
    }));
    assert!(caught.is_err());
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (0, 0, 1));

    let joined = thread::scope(|scope| {
        let picks = || {
            let _pick = pick(&balancer);
            panic!("on purpose, and the thread goes with it");
        };
        scope.spawn(picks).join()
    });
    assert!(joined.is_err());
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (0, 0, 2));
}

/// Ends its guard, and perhaps makes a last call, when its thread is torn down.
#[derive(Default)]
struct Last {
    guard: Option<Pick>,
    last_call: Option<(Balancer, mpsc::Sender<thread::Result<u32>>)>,
}

impl Drop for Last {
    fn drop(&mut self) {
        drop(self.guard.take());
        if let Some((balancer, in_flight)) = self.last_call.take() {
            // A panic that left this destructor would abort the process.
            let call = AssertUnwindSafe(|| {
                let pick = pick(&balancer);
                let in_flight = pick.stats().in_flight();
                pick.finish(Outcome::Success);
                in_flight
            });
            in_flight
                .send(catch_unwind(call))
                .expect("the test waits for it");
        }
    }
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// Joins by hand: a scope itself waits for the closure alone, and not for what
/// the thread tears down.
fn on_a_thread_to_its_end(work: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(work).join().expect("it does not panic"));
}

#[test]
fn a_guard_held_until_its_thread_is_torn_down_is_uncounted() {
    let (balancer, stats) = one();
    let keep = |guard| LAST.with_borrow_mut(|last| last.guard = Some(guard));
    // The thread's own means may be gone before its guard, or after it: what
    // was used first is torn down last.
    for guard_first in [true, false] {
        on_a_thread_to_its_end(|| {
            if guard_first {
                LAST.with(|_| {});
            }
            keep(pick(&balancer));
            assert_eq!(stats.in_flight(), 1);
        });
        assert_eq!(stats.in_flight(), 0);
    }
    // A thread that never picked itself.
    let guard = pick(&balancer);
    on_a_thread_to_its_end(|| keep(guard));
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (0, 0, 3));
}

#[test]
fn a_thread_that_is_torn_down_can_still_make_a_call() {
    let (balancer, stats) = one();
    let (tell, told) = mpsc::channel();
    let threads = [(true, true), (true, false), (false, true), (false, false)];
    for (keeps_first, picks_before) in threads {
        let last_call = Some((balancer.clone(), tell.clone()));
        on_a_thread_to_its_end(|| {
            if keeps_first {
                LAST.with(|_| {});
            }
            if picks_before {
                drop(pick(&balancer));
            }
            LAST.with_borrow_mut(|last| last.last_call = last_call);
        });
        let called = told.try_recv().expect("the last call was made");
        let case = format!("keeps first: {keeps_first}, picks before: {picks_before}");
        assert_eq!(called.expect(&case), 1, "{case}");
        assert_eq!(stats.in_flight(), 0, "{case}");
    }
    assert_eq!(stats.totals().succeeded, 4);
}

// ---- sets that change -------------------------------------------------------

#[test]
fn a_guard_outlives_every_change_of_the_set() {
    let (balancer, mut updater) = balancer(P2c::new(), &[1, 1]);
    let held = hold(&balancer, 0);
    let (id, key, stats) = (held.id().clone(), held.key(), held.stats().clone());
    let of = |balancer: &Balancer| {
        let nodes = balancer.nodes();
        let node = nodes.iter().find(|node| *node.endpoint().id() == id);
        node.map(|node| (node.key(), node.stats().in_flight()))
    };

    updater.apply(weighted(&[7, 1, 1]));
    assert_eq!(
        of(&balancer),
        Some((key, 1)),
        "another weight, the same call in flight"
    );
    updater.apply(weighted(&[7, 1, 1]).without(&id));
    assert_eq!(of(&balancer), None);
    assert_eq!(
        (held.weight(), stats.in_flight()),
        (1, 1),
        "the guard is what was picked"
    );
    updater.apply(EndpointSet::empty());
    updater.apply(weighted(&[2]));
    assert_eq!(
        of(&balancer),
        Some((key, 1)),
        "it is back, and still has its call"
    );

    held.finish(Outcome::ServerError);
    assert_eq!(of(&balancer), Some((key, 0)));
    assert_eq!(counts(balancer.nodes()[0].stats().totals()), (0, 1, 0));
}

#[test]
fn different_endpoints_never_share_a_key() {
    let (balancer, mut updater) = balancer(P2c::new(), &[1; 4]);
    let mut keys: BTreeMap<EndpointId, _> = BTreeMap::new();
    for round in 0..20 {
        updater.apply(EndpointSet::new((round..round + 4).map(endpoint)).unwrap());
        for node in balancer.nodes() {
            let known = *keys
                .entry(node.endpoint().id().clone())
                .or_insert(node.key());
            assert_eq!(known, node.key());
        }
    }
    let distinct: std::collections::HashSet<_> = keys.values().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn a_guard_outlives_its_balancer() {
    let (balancer, stats) = one();
    let held = pick(&balancer);
    let detached = pick(&balancer).detach();
    drop(balancer);
    assert_eq!(held.id(), endpoint(0).id());
    assert_eq!(stats.in_flight(), 2);
    detached.finish(Outcome::Success);
    held.finish(Outcome::Success);
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (2, 0, 0));
}

#[test]
fn a_removed_endpoint_is_not_picked_again_by_the_thread_that_removed_it() {
    fn runs(strategy: impl Strategy) {
        let (balancer, mut updater) = balancer(strategy, &[1]);
        let mut rng = Rng::seeded(7);
        for _ in 0..300 {
            let from = rng.below(30) as usize;
            let set =
                EndpointSet::new((from..=from + rng.below(6) as usize).map(endpoint)).unwrap();
            updater.apply(set.clone());
            for _ in 0..4 {
                assert!(set.get(pick(&balancer).id()).is_some());
            }
        }
    }
    runs(RoundRobin::new());
    runs(Random::new());
    runs(P2c::new());
    runs(LeastConn::new());
}

#[test]
fn a_removed_endpoint_is_not_picked_by_a_thread_that_was_told() {
    let (balancer, mut updater) = balancer(RoundRobin::new(), &[1; 4]);
    let (tell, told) = mpsc::sync_channel::<EndpointSet>(0);
    let (answer, answers) = mpsc::sync_channel(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let answer = answer;
            // Guards of older sets, given back at any time.
            let mut held = Vec::new();
            for set in told {
                for _ in 0..5 {
                    let pick = pick(&balancer);
                    assert!(set.get(pick.id()).is_some(), "{} is gone", *pick);
                    held.push(pick);
                }
                held.drain(..held.len().saturating_sub(12));
                answer.send(()).unwrap();
            }
        });
        for round in 0..500 {
            let set = EndpointSet::new((round % 7..round % 7 + 3).map(endpoint)).unwrap();
            updater.apply(set.clone());
            tell.send(set).unwrap();
            answers.recv().unwrap();
        }
        drop(tell);
    });
}

#[test]
fn whatever_threads_and_sets_do_every_call_is_counted_once() {
    const THREADS: usize = 4;
    const PICKS: usize = 8_000;
    fn runs(strategy: impl Strategy) {
        let what = format!("{strategy:?}");
        let all = [1; 12];
        let (balancer, mut updater) = balancer(strategy, &all);
        let stats: Vec<EndpointStats> = balancer
            .nodes()
            .iter()
            .map(|node| node.stats().clone())
            .collect();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let pickers: Vec<_> = (0..THREADS)
                .map(|seed| {
                    let balancer = &balancer;
                    scope.spawn(move || {
                        let mut rng = Rng::seeded(seed as u64);
                        let mut held: Vec<Pick> = Vec::new();
                        for _ in 0..PICKS {
                            held.push(pick(balancer));
                            if held.len() > rng.below(50) as usize {
                                let at = rng.below(held.len() as u32) as usize;
                                held.swap_remove(at).finish(Outcome::Success);
                            }
                        }
                        // The rest ends elsewhere.
                        held
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut round = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    round += 1;
                    let endpoints =
                        (0..12).filter(|number| !(round as usize + number).is_multiple_of(3));
                    let weight = 1 + round % 2;
                    updater.apply(
                        EndpointSet::new(endpoints.map(|n| endpoint(n).with_weight(weight)))
                            .unwrap(),
                    );
                    thread::yield_now();
                }
                updater.apply(weighted(&all));
            });
            let left: Vec<Vec<Pick>> = pickers
                .into_iter()
                .map(|picker| picker.join().unwrap())
                .collect();
            done.store(true, Ordering::Relaxed);
            let held: usize = left.iter().map(Vec::len).sum();
            let counted: u32 = stats.iter().map(EndpointStats::in_flight).sum();
            assert_eq!(counted as usize, held, "{what}");
        });
        assert!(stats.iter().all(|stats| stats.in_flight() == 0), "{what}");
        let ended: u64 = stats.iter().map(|stats| stats.totals().ended()).sum();
        assert_eq!(ended, (THREADS * PICKS) as u64, "{what}");
        assert_eq!(
            in_flight(&balancer),
            vec![0; 12],
            "{what}: the same stats as at first"
        );
    }
    runs(RoundRobin::new());
    runs(P2c::new());
}

/// Each thread ends its own calls, so no stripe ever holds more than its
/// threads have in flight, whenever it is read.
#[test]
fn a_reader_never_sees_more_in_flight_than_there_can_be() {
    const THREADS: u32 = 3;
    const HELD: u32 = 5;
    let (balancer, _updater) = balancer(RoundRobin::new(), &[1, 1]);
    let stats: Vec<EndpointStats> = balancer
        .nodes()
        .iter()
        .map(|node| node.stats().clone())
        .collect();
    let picking = AtomicBool::new(true);
    let highest = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut highest = 0;
            while picking.load(Ordering::Relaxed) {
                for stats in &stats {
                    highest = highest.max(stats.in_flight());
                }
            }
            highest
        });
        let pickers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..3_000 {
                        let held: Vec<Pick> = (0..HELD).map(|_| pick(&balancer)).collect();
                        assert!(held.iter().all(|pick| pick.stats().in_flight() > 0));
                    }
                })
            })
            .collect();
        for picker in pickers {
            picker.join().unwrap();
        }
        picking.store(false, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(highest <= THREADS * HELD, "{highest} at once");
    assert_eq!(in_flight(&balancer), [0, 0]);
}

// ---- detached ---------------------------------------------------------------

#[test]
fn a_detached_pick_counts_as_the_pick_did() {
    let (balancer, stats) = one();
    let detached = pick(&balancer).detach();
    assert_eq!(
        (stats.in_flight(), stats.totals().ended()),
        (1, 0),
        "it is the same call"
    );
    assert_eq!(detached.endpoint(), balancer.nodes()[0].endpoint());
    detached.finish(Outcome::Success);
    drop(pick(&balancer).detach());
    let elsewhere = pick(&balancer).detach();
    thread::spawn(move || elsewhere.finish(Outcome::TimedOut))
        .join()
        .unwrap();
    assert_eq!(stats.in_flight(), 0);
    assert_eq!(counts(stats.totals()), (1, 1, 1));
}

#[test]
fn a_detached_pick_lets_go_of_the_set() {
    for detaches in [false, true] {
        let (balancer, mut updater) = balancer(P2c::new(), &[1, 1]);
        let neighbour = Arc::downgrade(balancer.nodes()[1].endpoint());
        let held = hold(&balancer, 0);
        let (guard, detached) = if detaches {
            (None, Some(held.detach()))
        } else {
            (Some(held), None)
        };
        updater.apply(weighted(&[1]));
        // This thread's next pick leaves the old set behind.
        drop(pick(&balancer));
        assert_eq!(
            updater.collect(),
            !detaches,
            "a state that is read is not collected"
        );
        assert_eq!(neighbour.upgrade().is_none(), detaches);
        drop((guard, detached));
        assert!(!updater.collect());
        assert!(neighbour.upgrade().is_none());
    }
}

// ---- latency ----------------------------------------------------------------

const MS: Duration = Duration::from_millis(1);

fn timed(latency: bool) -> (Balancer, Updater, Hands) {
    let (clock, hands) = Clock::manual();
    let builder = Balancer::builder("users").clock(clock).latency(latency);
    let builder = builder.strategy(P2c::new());
    let (balancer, mut updater) = builder.manual().expect("it is a name");
    updater.apply(weighted(&[1]));
    (balancer, updater, hands)
}

fn latency(balancer: &Balancer) -> Option<Duration> {
    balancer.nodes()[0].stats().latency()
}

#[test]
fn latency_is_the_time_from_pick_to_finish_of_answered_calls_alone() {
    for outcome in OUTCOMES {
        let (balancer, _updater, hands) = timed(true);
        assert_eq!(latency(&balancer), None);
        let (plain, detached) = (pick(&balancer), pick(&balancer).detach());
        hands.advance(3 * MS);
        assert_eq!(latency(&balancer), None, "nothing is known before the end");
        let answered = [
            Outcome::Success,
            Outcome::ServerError,
            Outcome::GatewayError,
        ]
        .contains(&outcome);
        let expected = answered.then_some(3 * MS);
        plain.finish(outcome);
        assert_eq!(latency(&balancer), expected, "{outcome:?}");
        hands.advance(Duration::from_secs(100));
        // Ten times the window of the mean: the last sample is all of it.
        detached.finish(outcome);
        let mean = latency(&balancer);
        assert_eq!(mean.is_some(), answered);
        assert!(
            mean.is_none_or(|mean| mean > Duration::from_secs(99)),
            "{mean:?}"
        );
    }
}

#[test]
fn a_dropped_guard_tells_nothing_of_latency() {
    let (balancer, _updater, hands) = timed(true);
    let (plain, detached) = (pick(&balancer), pick(&balancer).detach());
    hands.advance(3 * MS);
    drop((plain, detached));
    assert_eq!(latency(&balancer), None);
}

#[test]
fn latency_survives_new_weights_and_a_short_absence() {
    let (balancer, mut updater, hands) = timed(true);
    let call = pick(&balancer);
    hands.advance(5 * MS);
    call.finish(Outcome::Success);
    for set in [
        weighted(&[9]),
        weighted(&[2, 2]),
        EndpointSet::empty(),
        weighted(&[1]),
    ] {
        hands.advance(Duration::from_secs(20));
        updater.apply(set.clone());
        if !set.is_empty() {
            assert_eq!(latency(&balancer), Some(5 * MS));
        }
    }
}

/// What an endpoint was like before a long absence says nothing of what it is
/// like now; its calls that are still in flight do.
#[test]
fn a_long_absence_forgets_latency_but_no_call_in_flight() {
    for held_meanwhile in [false, true] {
        let (balancer, mut updater, hands) = timed(true);
        let call = pick(&balancer);
        hands.advance(5 * MS);
        call.finish(Outcome::Success);
        let held = held_meanwhile.then(|| pick(&balancer));
        updater.apply(EndpointSet::empty());
        hands.advance(Duration::from_hours(1));
        updater.apply(weighted(&[1]));
        let stats = balancer.nodes()[0].stats().clone();
        assert_eq!(stats.in_flight(), u32::from(held_meanwhile));
        if !held_meanwhile {
            assert_eq!(stats.latency(), None);
        }
        drop(held);
    }
}

#[test]
fn no_latency_is_taken_where_none_is_wanted() {
    let (balancer, _updater, hands) = timed(false);
    let (plain, detached) = (pick(&balancer), pick(&balancer).detach());
    hands.advance(3 * MS);
    plain.finish(Outcome::Success);
    detached.finish(Outcome::Success);
    assert_eq!(latency(&balancer), None);
    assert_eq!(
        balancer.nodes()[0].stats().totals().succeeded,
        2,
        "outcomes are counted all the same"
    );
}

// ---- who gets how much ------------------------------------------------------

#[test]
fn round_robin_is_a_strict_turn_on_one_thread() {
    for n in [1, 2, 3, 7, 64] {
        let (balancer, mut updater) = balancer(RoundRobin::new(), &vec![1; n]);
        let first = position(&pick(&balancer));
        for step in 1..3 * n {
            assert_eq!(position(&pick(&balancer)), (first + step) % n);
        }
        let last = (first + 3 * n - 1) % n;
        updater.apply(weighted(&vec![5; n]));
        assert_eq!(
            position(&pick(&balancer)),
            (last + 1) % n,
            "the turn survives a new set"
        );
    }
}

#[test]
fn round_robin_clients_do_not_walk_in_step() {
    let firsts = (0..200).map(|_| {
        let (balancer, _updater) = balancer(RoundRobin::new(), &[1; 4]);
        position(&pick(&balancer)) as NodeIndex
    });
    // One of four is missed by all 200 in one run of 10^24.
    assert!(shares(firsts, 4).iter().all(|&share| share > 0));
}

#[test]
fn every_eight_calls_in_turn_are_one_two_and_five() {
    let picks: Vec<NodeIndex> = sequence(&RoundRobin::new(), &[1, 2, 5], 3)
        .take(400)
        .collect();
    for window in picks.windows(8) {
        assert_eq!(shares(window.iter().copied(), 3), [1, 2, 5], "{window:?}");
    }
}

/// A full cycle of the stride is 65,535 rounds, in which each endpoint is met
/// as often as its weight is, scaled so that the heaviest has 65,535.
#[test]
fn a_full_cycle_of_the_stride_gives_each_its_exact_weight() {
    for weights in [&[1, 2, 3][..], &[7, 3, 11, 11], &[1, 1_000], &[100_000, 1]] {
        let heaviest = u64::from(*weights.iter().max().unwrap());
        let scaled: Vec<u64> = weights
            .iter()
            .map(|&weight| (u64::from(weight) * 65_535).div_ceil(heaviest))
            .collect();
        let cycle = scaled.iter().sum::<u64>() as usize;
        for seed in [1, 2] {
            let picks = sequence(&RoundRobin::new(), weights, seed).take(cycle);
            assert_eq!(shares(picks, weights.len()), scaled, "{weights:?}");
        }
    }
}

#[test]
fn random_gives_to_each_by_its_weight() {
    for weights in [
        &[1, 1, 1, 1][..],
        &[1, 2, 5, 8],
        &[1_000_000, 1_000_000, 1],
        &[3, 1],
    ] {
        let picks = sequence(&Random::new(), weights, 11).take(40_000);
        let expected: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        assert_shares(&shares(picks, weights.len()), &expected, 4.0);
    }
}

#[test]
fn an_idle_service_gets_its_calls_by_weight_from_the_better_of_two() {
    for weights in [&[1, 1, 1, 1, 1][..], &[1, 2, 5], &[4, 1]] {
        let picks = sequence(&P2c::new(), weights, 13).take(40_000);
        let expected: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        assert_shares(&shares(picks, weights.len()), &expected, 4.0);
    }
}

#[test]
fn the_better_of_two_is_never_the_busiest() {
    for weights in [&[1, 1][..], &[1, 1, 1, 1, 1]] {
        let (balancer, _updater) = balancer(P2c::new(), weights);
        let busy: Vec<Pick> = (0..50).map(|_| hold(&balancer, 1)).collect();
        for _ in 0..2_000 {
            assert_ne!(position(&pick(&balancer)), 1);
        }
        drop(busy);
        assert!(
            (0..2_000).any(|_| position(&pick(&balancer)) == 1),
            "idle again, picked again"
        );
    }
}

/// Of n with different loads, the one with r busier ones is picked when it is
/// drawn together with one of those: 2r of n(n - 1) ordered pairs.
#[test]
fn the_better_of_two_follows_the_order_of_loads() {
    const N: usize = 8;
    let (balancer, _updater) = balancer(P2c::new(), &[1; N]);
    let held: Vec<Pick> = (0..N)
        .flat_map(|at| (0..at).map(move |_| at))
        .map(|at| hold(&balancer, at))
        .collect();
    let picks = (0..20_000).map(|_| position(&pick(&balancer)) as NodeIndex);
    let expected: Vec<f64> = (0..N).map(|load| (N - 1 - load) as f64).collect();
    // The seed is the system's: 6 standard deviations are one run in 10^8.
    assert_shares(&shares(picks, N), &expected, 6.0);
    drop(held);
}

#[test]
fn the_better_of_two_compares_calls_per_unit_of_weight() {
    // 4 of 10 is less than 1 of 1.
    let (balancer, _updater) = balancer(P2c::new(), &[10, 1]);
    let held: Vec<Pick> = [0, 0, 0, 0, 1].map(|at| hold(&balancer, at)).into();
    assert!((0..500).all(|_| position(&pick(&balancer)) == 0));
    drop(held);
}

#[test]
fn least_conn_fills_all_to_the_same_height() {
    let (balancer, _updater) = balancer(LeastConn::new(), &[1; 6]);
    let mut held = Vec::new();
    for height in 1..=5 {
        held.extend((0..6).map(|_| pick(&balancer)));
        assert_eq!(in_flight(&balancer), [height; 6]);
    }
}

#[test]
fn least_conn_goes_round_among_ties() {
    let (balancer, _updater) = balancer(LeastConn::new(), &[1; 5]);
    let first = position(&pick(&balancer));
    for step in 1..15 {
        assert_eq!(
            position(&pick(&balancer)),
            (first + step) % 5,
            "all idle: each in turn"
        );
    }
    let busy = [hold(&balancer, 0), hold(&balancer, 3)];
    let picks = (0..500).map(|_| position(&pick(&balancer)) as NodeIndex);
    let shares = shares(picks, 5);
    assert_eq!((shares[0], shares[3]), (0, 0));
    assert!(
        [1, 2, 4].iter().all(|&tie| shares[tie] >= 100),
        "{shares:?}"
    );
    drop(busy);
}

#[derive(Clone, Debug)]
enum Step {
    Hold(usize),
    Release(usize),
    Pick { tried: Vec<usize>, keep: bool },
}

fn step() -> impl Gen<Value = Step> {
    prop_oneof![
        any::<usize>().prop_map(Step::Hold),
        any::<usize>().prop_map(Step::Release),
        (vec(any::<usize>(), 0..4), any::<bool>())
            .prop_map(|(tried, keep)| Step::Pick { tried, keep }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// The naive twin: a list of what is in flight, searched whole.
    #[test]
    fn least_conn_picks_a_true_minimum(
        weights in vec(1..10_u32, 1..7),
        steps in vec(step(), 1..60),
    ) {
        let n = weights.len();
        let (balancer, _updater) = balancer(LeastConn::new(), &weights);
        let keys: Vec<_> = balancer.nodes().iter().map(Node::key).collect();
        let mut held: Vec<(usize, Pick)> = Vec::new();
        for step in steps {
            match step {
                Step::Hold(at) => held.push((at % n, hold(&balancer, at % n))),
                Step::Release(at) => {
                    if !held.is_empty() {
                        let at = at % held.len();
                        drop(held.swap_remove(at));
                    }
                }
                Step::Pick { tried: positions, keep } => {
                    let mut load = vec![0_u64; n];
                    for (at, _) in &held {
                        load[*at] += 1;
                    }
                    let mut tried = Tried::new();
                    for at in positions {
                        tried.insert(keys[at % n]);
                    }
                    let left: Vec<usize> =
                        (0..n).filter(|&at| !tried.contains(keys[at])).collect();
                    let picked = balancer.pick_with(&PickOptions::new().tried(&tried));
                    let Ok(pick) = picked else {
                        prop_assert!(left.is_empty());
                        continue;
                    };
                    let at = position(&pick);
                    prop_assert!(left.contains(&at));
                    for other in left {
                        let ours = load[at] * u64::from(weights[other]);
                        let theirs = load[other] * u64::from(weights[at]);
                        prop_assert!(ours <= theirs, "{at} before {other}: {load:?} of {weights:?}");
                    }
                    if keep {
                        held.push((at, pick));
                    }
                }
            }
        }
        drop(held);
        prop_assert_eq!(in_flight(&balancer), vec![0; n]);
    }
}
