//! The balancer's laws: what it says when there is nothing to pick, which
//! endpoints it picks from, how long it lives, and what it tells.

mod common;

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::{endpoint, weighted};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use waypost::strategy::{
    BoxPicker, LeastConn, P2c, PickContext, PickOptions, Picker, Random, RoundRobin, Strategy,
    Tried,
};
use waypost::view::{NodeIndex, View};
use waypost::{
    Balancer, Discover, Discovery, Endpoint, EndpointSet, Error, Fixed, InMemory, Outcome,
    Registry, ServiceName, Status, Updater,
};

type Answer = Result<EndpointSet, Error>;

/// A source that answers what the test sends, and whose watcher is seen to go.
#[derive(Debug)]
struct Script(Mutex<Option<mpsc::UnboundedReceiver<Answer>>>);

fn script() -> (mpsc::UnboundedSender<Answer>, Script) {
    let (answers, replies) = mpsc::unbounded_channel();
    (answers, Script(Mutex::new(Some(replies))))
}

impl Discover for Script {
    fn watch(&self, _service: &ServiceName) -> BoxStream<'static, Answer> {
        let replies = self.0.lock().unwrap().take().expect("it is watched once");
        stream::unfold(replies, |mut replies| async move {
            let answer = replies.recv().await?;
            Some((answer, replies))
        })
        .boxed()
    }
}

fn outage(reason: &str) -> Error {
    Error::registry("script", reason)
}

fn manual() -> (Balancer, Updater) {
    Balancer::builder("users").manual().expect("it is a name")
}

/// Lets the driver take in what was sent, and rest from it: at most 100 ms of
/// a time that passes at once.
async fn settle() {
    sleep(Duration::from_millis(101)).await;
}

fn set(numbers: impl IntoIterator<Item = usize>) -> EndpointSet {
    EndpointSet::new(numbers.into_iter().map(endpoint)).expect("numbers differ")
}

fn picked(balancer: &Balancer) -> String {
    balancer
        .pick()
        .expect("there are endpoints")
        .id()
        .to_string()
}

// ---- nothing to pick --------------------------------------------------------

/// Exactly these of the predicates on a pick's error hold, in this order: not
/// known yet, discovery failed, empty, none eligible, all tried, declined, not
/// ready, registry.
fn predicates(error: &Error) -> Vec<&'static str> {
    [
        ("not known yet", error.is_not_known_yet()),
        ("discovery failed", error.is_discovery_failed()),
        ("empty", error.is_empty()),
        ("none eligible", error.is_none_eligible()),
        ("all tried", error.is_all_tried()),
        ("declined", error.is_declined()),
        ("not ready", error.is_not_ready()),
        ("registry", error.is_registry()),
        ("invalid", error.is_invalid()),
    ]
    .into_iter()
    .filter_map(|(name, holds)| holds.then_some(name))
    .collect()
}

fn refused(balancer: &Balancer) -> Error {
    let error = balancer.pick().expect_err("there is nothing to pick");
    assert_eq!(error.service(), Some("users"));
    assert!(error.to_string().contains("`users`"), "{error}");
    assert!(error.is_transient(), "{error}");
    error
}

#[test]
fn before_the_first_answer_nothing_is_known() {
    let (balancer, _updater) = manual();
    let error = refused(&balancer);
    assert_eq!(predicates(&error), ["not known yet"]);
    assert!(error.to_string().contains("not known yet"), "{error}");
    assert!(error.counts().is_none());
    assert!(balancer.discovery().is_unknown() && balancer.discovery().error().is_none());
}

#[test]
fn a_failure_before_the_first_answer_is_the_reason() {
    let (balancer, mut updater) = manual();
    updater.fail(outage("connection refused"));
    let error = refused(&balancer);
    assert_eq!(predicates(&error), ["discovery failed", "registry"]);
    assert!(error.to_string().contains("connection refused"), "{error}");
    let discovery = balancer.discovery();
    assert!(discovery.is_unknown());
    assert!(
        discovery
            .error()
            .unwrap()
            .to_string()
            .contains("connection refused")
    );

    updater.fail(outage("still down"));
    assert!(
        refused(&balancer).to_string().contains("still down"),
        "the last reason counts"
    );
    updater.apply(set([1]));
    assert_eq!(picked(&balancer), "00001");
}

#[test]
fn an_empty_answer_is_an_answer() {
    let (balancer, mut updater) = manual();
    updater.apply(EndpointSet::empty());
    let error = refused(&balancer);
    assert_eq!(predicates(&error), ["empty"]);
    assert!(error.to_string().contains("no endpoints"), "{error}");
    assert_eq!(error.counts().unwrap().known, 0);
    assert!(balancer.discovery().is_fresh());
}

#[test]
fn what_keeps_endpoints_from_being_picked_is_counted() {
    let (balancer, mut updater) = manual();
    let of = |number, status| endpoint(number).with_status(status);
    let endpoints = [
        of(1, Status::Draining),
        of(2, Status::Draining).with_weight(0),
        of(3, Status::Down),
        of(4, Status::Starting),
        of(5, Status::Starting),
        of(6, Status::Starting),
        endpoint(7).with_weight(0),
    ];
    updater.apply(EndpointSet::new(endpoints).unwrap());
    let error = refused(&balancer);
    assert_eq!(predicates(&error), ["none eligible"]);
    let counts = error.counts().unwrap();
    assert_eq!(counts.known, 7);
    assert_eq!((counts.draining, counts.down, counts.starting), (2, 1, 3));
    assert_eq!((counts.weightless, counts.eligible), (1, 0));
    let text = error.to_string();
    for part in [
        "7 known",
        "2 draining",
        "1 down",
        "3 starting",
        "1 of weight 0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_call_that_has_tried_everything_is_told_so() {
    let (balancer, mut updater) = manual();
    updater.apply(set([1, 2, 3]).with(endpoint(4).with_status(Status::Down)));
    let mut tried = Tried::new();
    for _ in 0..3 {
        let pick = balancer
            .pick_with(&PickOptions::new().tried(&tried))
            .unwrap();
        assert!(!tried.contains(pick.key()));
        tried.insert(pick.key());
    }
    let error = balancer
        .pick_with(&PickOptions::new().tried(&tried))
        .unwrap_err();
    assert_eq!(predicates(&error), ["all tried"]);
    assert_eq!(error.service(), Some("users"));
    let counts = error.counts().unwrap();
    assert_eq!((counts.known, counts.eligible, counts.down), (4, 3, 1));
    let text = error.to_string();
    assert!(
        text.contains("tried every endpoint") && text.contains("4 known, 3 eligible"),
        "{text}"
    );
    drop(balancer.pick().expect("another call begins anew"));
}

#[test]
fn a_refused_pick_counts_nothing_in_flight() {
    let (balancer, mut updater) = manual();
    updater.apply(set([1]));
    let pick = balancer.pick().unwrap();
    let mut tried = Tried::new();
    tried.insert(pick.key());
    for _ in 0..10 {
        balancer
            .pick_with(&PickOptions::new().tried(&tried))
            .unwrap_err();
    }
    assert_eq!(pick.stats().in_flight(), 1);
}

#[test]
fn a_service_must_have_a_name() {
    for name in ["", "users/v1", "a b"] {
        let error = Balancer::builder(name).manual().unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains("service name"),
            "{error}"
        );
    }
}

// ---- eligibility and priorities ---------------------------------------------

#[test]
fn what_drains_is_down_starts_or_weighs_nothing_gets_nothing() {
    let (balancer, mut updater) = manual();
    let barred = [
        endpoint(0).with_status(Status::Draining),
        endpoint(3).with_status(Status::Down),
        endpoint(5).with_status(Status::Starting),
        endpoint(9).with_weight(0),
    ];
    let all = barred
        .iter()
        .fold(set([1, 4, 7]), |set, barred| set.with(barred.clone()));
    updater.apply(all);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let mut tried = Tried::new();
        for _ in 0..3 {
            let pick = balancer
                .pick_with(&PickOptions::new().tried(&tried))
                .unwrap();
            tried.insert(pick.key());
            seen.insert(pick.id().to_string());
        }
        let past = balancer.pick_with(&PickOptions::new().tried(&tried));
        assert!(
            past.unwrap_err().is_all_tried(),
            "a retry does not fall to them either"
        );
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["00001", "00004", "00007"]
    );
}

fn at_level(number: usize, priority: u32) -> Endpoint {
    let builder = Endpoint::builder(format!("10.1.0.{number}:80")).id(format!("{number:05}"));
    builder.priority(priority).build().unwrap()
}

#[test]
fn a_level_is_used_only_when_the_one_above_has_nobody() {
    let (balancer, mut updater) = manual();
    // Ids and levels run against each other; levels need not be consecutive.
    let levels = [
        at_level(1, 7),
        at_level(2, 1),
        at_level(3, 1),
        at_level(4, 0),
        at_level(5, 0),
    ];
    let seen = |balancer: &Balancer| -> Vec<String> {
        let mut seen: Vec<String> = (0..200).map(|_| picked(balancer)).collect();
        seen.sort();
        seen.dedup();
        seen
    };
    let mut all = EndpointSet::new(levels).unwrap();
    updater.apply(all.clone());
    assert_eq!(seen(&balancer), ["00004", "00005"]);

    all = all.with(at_level(4, 0).with_status(Status::Draining));
    updater.apply(all.clone());
    assert_eq!(seen(&balancer), ["00005"]);

    all = all.with(at_level(5, 0).with_weight(0));
    updater.apply(all.clone());
    assert_eq!(seen(&balancer), ["00002", "00003"]);

    all = all
        .without(at_level(2, 1).id())
        .without(at_level(3, 1).id());
    updater.apply(all.clone());
    assert_eq!(seen(&balancer), ["00001"]);

    updater.apply(all.with(at_level(4, 0)));
    assert_eq!(
        seen(&balancer),
        ["00004"],
        "back to the first level at once"
    );
}

#[test]
fn a_retry_falls_to_the_next_level_when_one_is_all_tried() {
    fn runs(strategy: impl Strategy) {
        let what = format!("{strategy:?}");
        let (balancer, mut updater) = Balancer::builder("users")
            .strategy(strategy)
            .manual()
            .unwrap();
        let levels = [
            at_level(1, 1),
            at_level(2, 0),
            at_level(3, 1),
            at_level(4, 0),
            at_level(5, 2),
        ];
        updater.apply(EndpointSet::new(levels).unwrap());
        for _ in 0..50 {
            let mut tried = Tried::new();
            let mut order = Vec::new();
            for _ in 0..5 {
                let pick = balancer
                    .pick_with(&PickOptions::new().tried(&tried))
                    .unwrap();
                tried.insert(pick.key());
                order.push(pick.priority());
            }
            assert_eq!(order, [0, 0, 1, 1, 2], "{what}");
            let past = balancer.pick_with(&PickOptions::new().tried(&tried));
            assert!(past.unwrap_err().is_all_tried());
        }
    }
    runs(RoundRobin::new());
    runs(Random::new());
    runs(P2c::new());
    runs(LeastConn::new());
}

// ---- freshness --------------------------------------------------------------

fn stale_since(balancer: &Balancer) -> waypost::time::Timestamp {
    match balancer.discovery() {
        Discovery::Stale { since, .. } => since,
        other => panic!("it should be stale, and is {other:?}"),
    }
}

#[test]
fn a_failing_registry_leaves_the_last_set_serving_and_says_since_when() {
    let (clock, hands) = waypost::time::Clock::manual();
    let (balancer, mut updater) = Balancer::builder("users")
        .clock(clock.clone())
        .manual()
        .unwrap();
    let second = Duration::from_secs(1);
    updater.apply(set([1]));
    assert!(balancer.discovery().is_fresh());

    hands.advance(second);
    let since = clock.now();
    for round in 0..5 {
        updater.fail(outage(&format!("round {round}")));
        assert_eq!(
            stale_since(&balancer),
            since,
            "later errors do not move the beginning"
        );
        let error = balancer.discovery().error().unwrap().to_string();
        assert!(error.contains(&format!("round {round}")), "{error}");
        assert_eq!(picked(&balancer), "00001");
        assert_eq!(balancer.current(), set([1]));
        hands.advance(second);
    }

    updater.apply(set([1]));
    assert!(
        balancer.discovery().is_fresh(),
        "the same set is an answer, too"
    );
    hands.advance(second);
    updater.fail(outage("again"));
    assert_eq!(
        stale_since(&balancer),
        clock.now(),
        "each outage has its own beginning"
    );
    updater.apply(set([2]));
    assert!(balancer.discovery().is_fresh());
    assert_eq!(picked(&balancer), "00002");
}

#[test]
fn an_empty_set_goes_stale_as_any_other() {
    let (balancer, mut updater) = manual();
    updater.apply(EndpointSet::empty());
    updater.fail(outage("down"));
    assert!(balancer.discovery().is_stale());
    assert_eq!(predicates(&refused(&balancer)), ["empty"]);
}

/// Its driver ends with the runtime that it was started on; it must not be taken for fresh then.
#[test]
fn a_balancer_whose_runtime_ended_says_so_and_serves_on() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let (known, early) = (runtime(), runtime());
    let registry = Fixed::addresses(["10.0.0.1:80"]).unwrap();
    let users = known.block_on(Balancer::builder("users").build(registry));
    let users = users.unwrap();
    let (_answers, source) = script();
    let nobody = early.block_on(async { Balancer::builder("nobody").spawn(source).unwrap() });
    let (last, snapshots) = (users.clone(), users.subscribe());
    assert!(users.discovery().is_fresh());
    drop((known, early));
    let error = users.discovery().error().expect("it is told").to_string();
    assert!(
        users.discovery().is_stale() && error.contains("runtime"),
        "{error}"
    );
    assert_eq!(users.pick().unwrap().address().as_str(), "10.0.0.1:80");
    assert!(nobody.discovery().is_unknown() && nobody.pick().unwrap_err().is_discovery_failed());
    // One that is dropped by its last holder tells nobody so.
    drop((users, last));
    let told: Vec<_> = snapshots.collect().now_or_never().expect("it has ended");
    assert_eq!(told.len(), 1);
    let again = runtime();
    let snapshots = again.block_on(async {
        let registry = Fixed::addresses(["10.0.0.1:80"]).unwrap();
        let users = Balancer::builder("users").build(registry).await.unwrap();
        let snapshots = users.subscribe();
        drop(users);
        snapshots.collect::<Vec<_>>().await
    });
    assert!(snapshots.iter().all(|it| !it.discovery.is_stale()));
}

/// So it is when a strategy panics over a new set, which nobody sees but the runtime.
#[tokio::test(start_paused = true)]
async fn a_strategy_that_panics_over_a_new_set_leaves_the_last_one_stale() {
    #[derive(Debug)]
    struct AtMostOne;
    impl Strategy for AtMostOne {
        fn build(&self, view: &View) -> BoxPicker {
            assert!(view.len() < 2, "there is but one");
            RoundRobin::new().build(view)
        }
    }
    let (answers, source) = script();
    let builder = Balancer::builder("users").strategy(AtMostOne);
    let balancer = builder.spawn(source).unwrap();
    let set = |numbers: &[usize]| EndpointSet::new(numbers.iter().map(|&n| endpoint(n))).unwrap();
    answers.send(Ok(set(&[1]))).unwrap();
    balancer.ready(Duration::from_secs(1)).await.unwrap();
    assert!(balancer.discovery().is_fresh());
    answers.send(Ok(set(&[1, 2]))).unwrap();
    settle().await;
    let error = balancer
        .discovery()
        .error()
        .expect("it is told")
        .to_string();
    assert!(error.contains("panic"), "{error}");
    assert_eq!(balancer.pick().unwrap().id(), endpoint(1).id());
}

#[tokio::test(start_paused = true)]
async fn the_driver_serves_on_through_errors_of_the_registry() {
    let (answers, source) = script();
    answers.send(Ok(set([1]))).unwrap();
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    assert_eq!(picked(&balancer), "00001");
    answers.send(Err(outage("down"))).unwrap();
    settle().await;
    assert!(balancer.discovery().is_stale());
    assert_eq!(picked(&balancer), "00001");
    // Ready at once and taken together: the last word counts.
    answers.send(Ok(set([2]))).unwrap();
    answers.send(Err(outage("down again"))).unwrap();
    answers.send(Ok(set([3]))).unwrap();
    settle().await;
    assert!(balancer.discovery().is_fresh());
    assert_eq!(picked(&balancer), "00003");
    answers.send(Ok(set([4]))).unwrap();
    answers.send(Err(outage("and again"))).unwrap();
    settle().await;
    assert!(balancer.discovery().is_stale());
    assert_eq!(
        picked(&balancer),
        "00004",
        "a set that came before an error is not lost"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_an_outage_not_an_empty_set() {
    let (answers, source) = script();
    answers.send(Ok(set([1]))).unwrap();
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    drop(answers);
    settle().await;
    assert!(balancer.discovery().is_stale());
    assert!(
        balancer
            .discovery()
            .error()
            .unwrap()
            .to_string()
            .contains("ended")
    );
    assert_eq!(picked(&balancer), "00001");

    let (answers, source) = script();
    drop(answers);
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    assert_eq!(
        predicates(&refused(&balancer)),
        ["discovery failed", "registry"]
    );
}

#[test]
fn the_same_set_applied_twice_changes_nothing() {
    let (balancer, mut updater) = manual();
    updater.apply(weighted(&[3, 5]));
    let mut snapshots = balancer.subscribe();
    assert!(snapshots.next().now_or_never().is_some());
    let version = balancer.current().version();
    let nodes = balancer.nodes();
    // The very same, and one that is equal but shares nothing with it.
    updater.apply(balancer.current());
    updater.apply(weighted(&[3, 5]));
    assert_eq!(balancer.current().version(), version);
    let same = nodes.iter().zip(balancer.nodes());
    assert!(
        same.into_iter()
            .all(|(before, after)| Arc::ptr_eq(before.endpoint(), after.endpoint()))
    );
    assert!(
        snapshots.next().now_or_never().is_none(),
        "nobody is woken for nothing"
    );
}

#[test]
fn the_last_set_serves_on_without_its_updater() {
    let (balancer, mut updater) = manual();
    updater.apply(set([1]));
    drop(updater);
    assert_eq!(picked(&balancer), "00001");
    assert_eq!(balancer.current(), set([1]));
}

// ---- starting ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn build_waits_for_the_first_answer_of_any_kind() {
    let answers: [Answer; 3] = [Ok(set([1])), Ok(EndpointSet::empty()), Err(outage("down"))];
    for answer in answers {
        let (sender, source) = script();
        let begun = Instant::now();
        let late = Duration::from_secs(2);
        let sent = answer.clone();
        let task = tokio::spawn(async move {
            sleep(late).await;
            sender.send(sent).unwrap();
            sender
        });
        let balancer = Balancer::builder("users").build(source).await.unwrap();
        let took = begun.elapsed();
        assert!(
            took >= late && took < late + Duration::from_millis(10),
            "{took:?}"
        );
        assert!(!matches!(
            balancer.discovery(),
            Discovery::Unknown { error: None }
        ));
        drop(task.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_registry_does_not_keep_an_application_from_starting() {
    for within in [
        Duration::ZERO,
        Duration::from_millis(250),
        Duration::from_secs(5),
    ] {
        let (answers, source) = script();
        let begun = Instant::now();
        let builder = Balancer::builder("users").first_answer(within);
        let balancer = builder.build(source).await.expect("late is no error");
        let took = begun.elapsed();
        assert!(
            took >= within && took < within + Duration::from_millis(10),
            "{took:?}"
        );
        assert!(refused(&balancer).is_not_known_yet());
        answers.send(Ok(set([1]))).unwrap();
        settle().await;
        assert_eq!(picked(&balancer), "00001", "it goes on asking");
    }
}

#[test]
fn a_driver_needs_a_runtime_and_says_so() {
    let built = Balancer::builder("users")
        .build(InMemory::new())
        .now_or_never()
        .unwrap();
    let spawned = Balancer::builder("users").spawn(InMemory::new());
    for error in [built.unwrap_err(), spawned.unwrap_err()] {
        let text = error.to_string();
        assert!(
            text.contains("Tokio runtime") && text.contains("manual"),
            "{text}"
        );
        assert!(!error.is_transient());
        assert_eq!(predicates(&error), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn ready_is_at_once_when_something_may_be_picked() {
    let source = Fixed::new([endpoint(1)]).unwrap();
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    balancer
        .ready(Duration::ZERO)
        .now_or_never()
        .expect("at once")
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn ready_waits_until_something_may_be_picked() {
    let (answers, source) = script();
    let balancer = Balancer::builder("users").spawn(source).unwrap();
    let begun = Instant::now();
    let waiting = {
        let balancer = balancer.clone();
        tokio::spawn(async move { balancer.ready(Duration::from_mins(1)).await })
    };
    let second = Duration::from_secs(1);
    let starting = endpoint(1).with_status(Status::Starting);
    for answer in [
        Err(outage("down")),
        Ok(EndpointSet::empty()),
        Ok(EndpointSet::empty().with(starting)),
        Ok(set([1])),
    ] {
        sleep(second).await;
        assert!(!waiting.is_finished());
        answers.send(answer).unwrap();
    }
    waiting.await.unwrap().unwrap();
    assert!(begun.elapsed() < 5 * second);
    drop(balancer.pick().unwrap());
}

#[tokio::test(start_paused = true)]
async fn ready_that_takes_too_long_tells_what_was_missing() {
    let none_up = EndpointSet::empty().with(endpoint(1).with_status(Status::Down));
    let cases: [(Option<Answer>, &[&str]); 4] = [
        (None, &["not known yet", "not ready"]),
        (
            Some(Err(outage("down"))),
            &["discovery failed", "not ready", "registry"],
        ),
        (Some(Ok(EndpointSet::empty())), &["empty", "not ready"]),
        (Some(Ok(none_up)), &["none eligible", "not ready"]),
    ];
    for (answer, expected) in cases {
        let (answers, source) = script();
        if let Some(answer) = answer {
            answers.send(answer).unwrap();
        }
        let balancer = Balancer::builder("users").spawn(source).unwrap();
        let begun = Instant::now();
        let error = balancer.ready(Duration::from_secs(3)).await.unwrap_err();
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(4),
            "{took:?}"
        );
        assert_eq!(predicates(&error), expected);
        assert_eq!(error.service(), Some("users"));
        assert!(error.to_string().contains("3s"), "{error}");
        assert_eq!(
            error.counts().map(|counts| counts.known),
            refused(&balancer).counts().map(|counts| counts.known)
        );
    }
}

// ---- living and ending ------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn the_driver_lives_as_long_as_any_clone() {
    let (answers, source) = script();
    answers.send(Ok(set([1]))).unwrap();
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    let clones = [balancer.clone(), balancer.clone()];
    drop(balancer);
    let [one, other] = clones;
    drop(one);
    settle().await;
    assert!(!answers.is_closed(), "a clone still needs the watch");
    answers.send(Ok(set([2]))).unwrap();
    settle().await;
    assert_eq!(picked(&other), "00002");

    drop(other);
    let closed = timeout(Duration::from_secs(1), answers.closed()).await;
    assert!(
        closed.is_ok(),
        "the last clone ends the driver, and with it the watch"
    );
}

#[tokio::test(start_paused = true)]
async fn neither_a_guard_nor_a_subscriber_keeps_the_driver() {
    let (answers, source) = script();
    answers.send(Ok(set([1]))).unwrap();
    let balancer = Balancer::builder("users").build(source).await.unwrap();
    let pick = balancer.pick().unwrap();
    let mut snapshots = balancer.subscribe();
    drop(balancer);
    assert!(
        timeout(Duration::from_secs(1), answers.closed())
            .await
            .is_ok()
    );
    assert_eq!(pick.id(), endpoint(1).id(), "the guard is as good as ever");
    assert!(
        snapshots.next().await.is_some(),
        "what was known last can still be read"
    );
    assert!(
        timeout(Duration::from_secs(1), snapshots.next())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn giving_up_on_build_ends_the_driver() {
    let (answers, source) = script();
    let building = Balancer::builder("users").build(source);
    assert!(timeout(Duration::from_secs(1), building).await.is_err());
    assert!(
        timeout(Duration::from_secs(1), answers.closed())
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_balancer_follows_the_memory_registry() {
    let registry = InMemory::new();
    let name: ServiceName = "users".parse().unwrap();
    let balancer = Balancer::builder("users")
        .build(registry.clone())
        .await
        .unwrap();
    assert!(refused(&balancer).is_empty());
    let mut registration = registry.register(&name, endpoint(1)).await.unwrap();
    balancer.ready(Duration::from_secs(1)).await.unwrap();
    registration.set_status(Status::Draining).await.unwrap();
    settle().await;
    assert!(refused(&balancer).is_none_eligible());
    drop(registration);
    settle().await;
    assert!(refused(&balancer).is_empty());
}

// ---- being told -------------------------------------------------------------

#[test]
fn a_subscriber_gets_what_is_known_and_then_each_change() {
    let (balancer, mut updater) = manual();
    let mut snapshots = balancer.subscribe();
    let mut told = || {
        snapshots
            .next()
            .now_or_never()
            .map(|snapshot| snapshot.expect("it goes on"))
    };

    let first = told().expect("what is known comes at once");
    assert!(first.discovery.is_unknown() && first.set.is_empty() && first.eligible == 0);
    assert!(told().is_none());

    updater.fail(outage("down"));
    assert!(
        told()
            .expect("a failure is told")
            .discovery
            .error()
            .is_some()
    );
    updater.apply(set([1, 2]).with(endpoint(3).with_weight(0)));
    let known = told().expect("a set is told");
    assert_eq!((known.set.len(), known.eligible), (3, 2));
    assert!(known.discovery.is_fresh());
    updater.fail(outage("down"));
    let stale = told().expect("staleness is told");
    assert!(stale.discovery.is_stale() && stale.set == known.set);
    updater.apply(known.set.clone());
    assert!(told().expect("and its end").discovery.is_fresh());
    assert!(told().is_none());
}

#[test]
fn a_slow_subscriber_gets_the_latest_and_a_late_one_the_current() {
    let (balancer, mut updater) = manual();
    let mut slow = balancer.subscribe();
    assert!(slow.next().now_or_never().is_some());
    for number in 1..=50 {
        updater.apply(set([number]));
    }
    for mut subscriber in [slow, balancer.subscribe()] {
        let snapshot = subscriber
            .next()
            .now_or_never()
            .expect("there is news")
            .unwrap();
        assert_eq!(snapshot.set, set([50]));
        assert!(subscriber.next().now_or_never().is_none());
    }
    assert_eq!(balancer.current(), set([50]));
}

#[test]
fn a_subscription_ends_with_the_balancer() {
    let (balancer, updater) = manual();
    let mut snapshots = balancer.subscribe();
    assert!(snapshots.next().now_or_never().is_some());
    drop(balancer);
    assert!(
        snapshots.next().now_or_never().is_none(),
        "its updater still has it"
    );
    drop(updater);
    let end = snapshots
        .next()
        .now_or_never()
        .expect("the end comes at once");
    assert!(end.is_none());
}

#[test]
fn current_is_the_set_that_picks_are_made_from() {
    let (balancer, mut updater) = manual();
    assert!(balancer.current().is_empty());
    for numbers in [vec![1], vec![2, 3], vec![]] {
        let applied = set(numbers);
        updater.apply(applied.clone());
        assert!(std::ptr::eq(
            balancer.current().endpoints(),
            applied.endpoints()
        ));
        assert_eq!(balancer.nodes().len(), applied.len());
    }
}

// ---- strategies of the user's own -------------------------------------------

/// Returns the same position whatever the view.
#[derive(Clone, Copy, Debug)]
struct Always(Option<NodeIndex>);

impl Strategy for Always {
    fn build(&self, _view: &View) -> BoxPicker {
        Box::new(*self)
    }
}

impl Picker for Always {
    fn pick(&self, _context: &mut PickContext<'_>) -> Option<NodeIndex> {
        self.0
    }
}

#[test]
fn a_strategy_that_returns_nothing_usable_is_told_on_and_nothing_breaks() {
    for choice in [None, Some(3), Some(4), Some(NodeIndex::MAX)] {
        let (balancer, mut updater) = Balancer::builder("users")
            .strategy(Always(choice))
            .manual()
            .unwrap();
        // One endpoint more than may be picked: position 3 exists, out of view.
        updater.apply(set([1, 2, 3]).with(endpoint(4).with_status(Status::Down)));
        for _ in 0..3 {
            let error = refused(&balancer);
            assert_eq!(predicates(&error), ["declined"], "{choice:?}");
            assert_eq!(error.counts().unwrap().eligible, 3);
            assert!(error.to_string().contains("strategy"), "{error}");
        }
        assert!(
            balancer
                .nodes()
                .iter()
                .all(|node| node.stats().in_flight() == 0)
        );
    }
}

#[test]
fn a_position_beyond_its_level_never_reaches_into_the_next() {
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(Always(Some(1)))
        .manual()
        .unwrap();
    let levels = [at_level(1, 0), at_level(2, 1), at_level(3, 1)];
    updater.apply(EndpointSet::new(levels).unwrap());
    // Position 1 is out of the first level, and the second node of the next.
    assert_eq!(picked(&balancer), "00003");
}

/// A strategy whose picker first makes a pick of its own from the balancer it
/// serves, once for each pick from outside, and then feeds it `meanwhile`.
#[derive(Clone, Default)]
struct Reentrant {
    balancer: Arc<OnceLock<Balancer>>,
    meanwhile: Arc<Mutex<Option<Updater>>>,
}

impl std::fmt::Debug for Reentrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reentrant")
    }
}

struct ReentrantPicker {
    strategy: Reentrant,
    view: View,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static NEXT: Cell<usize> = const { Cell::new(100) };
}

impl Strategy for Reentrant {
    fn build(&self, view: &View) -> BoxPicker {
        Box::new(ReentrantPicker {
            strategy: self.clone(),
            view: view.clone(),
        })
    }
}

impl Picker for ReentrantPicker {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        if let Some(balancer) = self.strategy.balancer.get()
            && !INSIDE.replace(true)
        {
            let outer = self.view.node(0).endpoint();
            let (one, two) = (balancer.pick().unwrap(), balancer.pick().unwrap());
            assert_eq!((one.endpoint(), two.endpoint()), (outer, outer));
            drop(one);
            if let Some(updater) = &mut *self.strategy.meanwhile.lock().unwrap() {
                let number = NEXT.get() + 1;
                NEXT.set(number);
                updater.apply(set([number]));
                assert_eq!(balancer.pick().unwrap().id(), endpoint(number).id());
            }
            drop(two);
            INSIDE.set(false);
        }
        context.first_untried(&self.view, 0)
    }
}

#[test]
fn a_picker_may_itself_pick_from_its_balancer() {
    let strategy = Reentrant::default();
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(strategy.clone())
        .manual()
        .unwrap();
    updater.apply(set([100]));
    assert!(strategy.balancer.set(balancer.clone()).is_ok());
    for _ in 0..100 {
        let pick = balancer.pick().unwrap();
        assert_eq!(
            (pick.id(), pick.stats().in_flight()),
            (endpoint(100).id(), 1)
        );
    }

    // The set changes in the middle of a pick: the pick that was under way ends
    // up in the set that it began with, the next one in the new.
    *strategy.meanwhile.lock().unwrap() = Some(updater);
    for round in 0..100 {
        let pick = balancer.pick().unwrap();
        assert_eq!(pick.id(), endpoint(100 + round).id());
        assert_eq!(pick.stats().in_flight(), 1);
    }
    assert_eq!(balancer.nodes()[0].stats().in_flight(), 0);
    // The knot of balancer, strategy and updater is undone.
    strategy.meanwhile.lock().unwrap().take();
}

#[test]
fn a_picker_that_panics_harms_that_pick_alone() {
    #[derive(Debug)]
    struct Sometimes;
    struct SometimesPicker(View);
    impl Strategy for Sometimes {
        fn build(&self, view: &View) -> BoxPicker {
            Box::new(SometimesPicker(view.clone()))
        }
    }
    impl Picker for SometimesPicker {
        fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
            assert!(context.hash().is_none(), "asked to panic");
            context.first_untried(&self.0, 0)
        }
    }
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(Sometimes)
        .manual()
        .unwrap();
    updater.apply(set([1]));
    for _ in 0..50 {
        let asked =
            std::panic::AssertUnwindSafe(|| balancer.pick_with(&PickOptions::new().hash(1)));
        assert!(std::panic::catch_unwind(asked).is_err());
        let pick = balancer.pick().unwrap();
        assert_eq!(pick.stats().in_flight(), 1);
    }
    updater.apply(set([2]));
    assert_eq!(picked(&balancer), "00002");
}

// ---- many balancers ---------------------------------------------------------

/// A balancer with one endpoint, and where its picks have to go.
struct One {
    balancer: Balancer,
    updater: Updater,
    number: usize,
}

impl One {
    fn new(number: usize) -> Self {
        let (balancer, mut updater) = manual();
        updater.apply(set([number]));
        Self {
            balancer,
            updater,
            number,
        }
    }

    fn picks_rightly(&self) {
        let pick = self.balancer.pick().expect("it has an endpoint");
        assert_eq!(pick.id(), endpoint(self.number).id());
        assert_eq!(pick.stats().in_flight(), 1);
    }
}

#[test]
fn any_number_of_balancers_on_one_thread_keep_apart() {
    for many in [3, 8, 9, 12, 150] {
        let mut ones: Vec<One> = (0..many).map(One::new).collect();
        for round in 0..3 {
            ones.iter().for_each(One::picks_rightly);
            ones.iter().rev().for_each(One::picks_rightly);
            for one in ones.iter_mut().skip(round).step_by(3) {
                one.number += 1_000;
                one.updater.apply(set([one.number]));
                one.picks_rightly();
            }
        }
        // Guards of all of them at once, given back in another order.
        let held: Vec<_> = ones
            .iter()
            .map(|one| one.balancer.pick().unwrap())
            .collect();
        for (one, pick) in ones.iter().zip(&held) {
            assert_eq!(pick.id(), endpoint(one.number).id());
        }
        drop(held);
        ones.iter().for_each(One::picks_rightly);
    }
}

#[test]
fn a_place_that_is_used_again_gives_nothing_of_the_balancer_before() {
    let mut ones: Vec<One> = (0..120).map(One::new).collect();
    let mut next = 1_000;
    for round in 2..12 {
        ones.iter().for_each(One::picks_rightly);
        // Guards outlive their balancers, and come back to seats that are
        // another's by then.
        let held: Vec<_> = ones
            .iter()
            .step_by(round)
            .map(|one| one.balancer.pick().unwrap())
            .collect();
        ones = ones
            .into_iter()
            .enumerate()
            .filter_map(|(at, one)| (at % round != 0).then_some(one))
            .collect();
        while ones.len() < 120 {
            ones.push(One::new(next));
            next += 1;
        }
        drop(held);
        ones.iter().for_each(One::picks_rightly);
        std::thread::scope(|scope| {
            scope.spawn(|| ones.iter().for_each(One::picks_rightly));
        });
    }
}

#[test]
fn a_balancer_that_is_gone_frees_its_endpoints_when_the_thread_meets_another() {
    let one = One::new(1);
    one.picks_rightly();
    let kept = Arc::downgrade(one.balancer.nodes()[0].endpoint());
    drop(one);
    let other = One::new(2);
    other.picks_rightly();
    assert!(
        kept.upgrade().is_none(),
        "a thread's seat does not keep a dead balancer's set"
    );
}

#[test]
fn its_debug_form_tells_what_it_has() {
    let (balancer, mut updater) = manual();
    updater.apply(set([1, 2]).with(endpoint(3).with_weight(0)));
    balancer.pick().unwrap().finish(Outcome::Success);
    let text = format!("{balancer:?}");
    for part in ["users", "endpoints: 3", "eligible: 2", "Fresh"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(format!("{updater:?}").contains("users"));
    assert_eq!(balancer.service().as_str(), "users");
}

// ---- a changed set is as good as a new one ----------------------------------

/// One of six endpoints as it becomes; mostly one that can be picked like the
/// others, so that sets are mostly alike.
fn change() -> impl proptest::strategy::Strategy<Value = (usize, Option<Endpoint>)> {
    use proptest::prelude::*;
    let rarely = || proptest::bool::weighted(0.1);
    (0..6_usize, 0..4_u32, rarely(), rarely(), rarely()).prop_map(
        |(number, weight, lower, draining, gone)| {
            let status = if draining {
                Status::Draining
            } else {
                Status::Up
            };
            let endpoint = Endpoint::builder(format!("10.0.0.{}:80", number + 1))
                .weight(weight)
                .priority(u32::from(lower))
                .status(status)
                .build();
            (
                number,
                (!gone).then(|| endpoint.expect("it is an endpoint")),
            )
        },
    )
}

proptest::proptest! {
    /// However a balancer came to a set, it knows and picks what one does that
    /// was given the set at once; and on the way, no endpoint got the stats of
    /// another.
    #[test]
    fn a_set_that_was_changed_to_is_as_good_as_a_first_one(
        changes in proptest::collection::vec(change(), 1..24)
    ) {
        let manual = || {
            let builder = Balancer::builder("users").strategy(RoundRobin::new());
            builder.manual().expect("it is a name")
        };
        let (changed, mut updater) = manual();
        let mut endpoints = [const { None }; 6];
        let mut set = EndpointSet::empty();
        let mut keys = std::collections::BTreeMap::new();
        for (number, endpoint) in changes {
            endpoints[number] = endpoint;
            set = set.next(endpoints.iter().flatten().cloned()).expect("ids differ");
            updater.apply(set.clone());
            for node in changed.nodes() {
                let id = node.endpoint().id().clone();
                proptest::prop_assert_eq!(*keys.entry(id).or_insert(node.key()), node.key());
            }
        }
        let (fresh, mut first) = manual();
        first.apply(set);

        let known = |balancer: &Balancer| -> Vec<Endpoint> {
            let nodes = balancer.nodes();
            nodes.iter().map(|node| node.endpoint().as_ref().clone()).collect()
        };
        proptest::prop_assert_eq!(known(&changed), known(&fresh));

        let shares = |balancer: &Balancer| {
            let mut shares = std::collections::BTreeMap::<_, u32>::new();
            for pick in (0..600).map_while(|_| balancer.pick().ok()) {
                *shares.entry(pick.id().clone()).or_default() += 1;
            }
            shares
        };
        let (ours, twins) = (shares(&changed), shares(&fresh));
        proptest::prop_assert!(ours.keys().eq(twins.keys()), "{ours:?} {twins:?}");
        for (id, count) in ours {
            // The same but for where the turn began.
            proptest::prop_assert!(count.abs_diff(twins[&id]) <= 6, "{id}: {count} {twins:?}");
        }
    }
}
