//! The in-memory registry's laws, in virtual time: what lapses, what is kept
//! alive, whose entry it is, and who is told.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, advance, sleep, timeout};
use waypost::registry::Heartbeat;
use waypost::{
    Discover, Endpoint, EndpointSet, Error, InMemory, Registration, RegistrationState, Registry,
    ServiceName, Status,
};

const TTL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(1);
const JUST_BEFORE: Duration = TTL.saturating_sub(TICK);

type Watch = BoxStream<'static, Result<EndpointSet, Error>>;

fn users() -> ServiceName {
    "users".parse().expect("it is a name")
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::at(format!("10.0.0.{number}:80")).expect("it is an address")
}

fn with_ttl() -> InMemory {
    InMemory::with_ttl(TTL).expect("the time is long enough")
}

fn ids(set: &EndpointSet) -> Vec<String> {
    set.iter()
        .map(|endpoint| endpoint.id().to_string())
        .collect()
}

async fn next(watch: &mut Watch) -> EndpointSet {
    let set = timeout(Duration::from_hours(1), watch.next()).await;
    set.expect("a set comes")
        .expect("the stream goes on")
        .expect("memory does not fail")
}

/// Nothing more comes by itself, however long one waits.
async fn quiet(watch: &mut Watch) {
    let came = timeout(Duration::from_hours(1), watch.next()).await;
    assert!(came.is_err(), "nothing changed, and yet {came:?} came");
}

// ---- leases -----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_lease_without_heartbeat_lapses_when_its_time_is_up_and_not_before() {
    let registry = InMemory::new();
    let _lease = registry.lease(&users(), endpoint(1), TTL).unwrap();
    advance(JUST_BEFORE).await;
    assert_eq!(registry.endpoints(&users()).len(), 1);
    advance(TICK).await;
    assert!(
        registry.endpoints(&users()).is_empty(),
        "asking takes out what has lapsed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_gives_a_lease_its_whole_time_again() {
    let registry = InMemory::new();
    let lease = registry.lease(&users(), endpoint(1), TTL).unwrap();
    let version = registry.endpoints(&users()).version();
    for _ in 0..10 {
        advance(JUST_BEFORE).await;
        assert_eq!(lease.heartbeat().unwrap(), Heartbeat::Renewed);
    }
    advance(JUST_BEFORE).await;
    assert_eq!(
        registry.endpoints(&users()).version(),
        version,
        "a heartbeat changes no set"
    );
    advance(TICK).await;
    assert!(registry.endpoints(&users()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_after_the_lapse_enters_the_endpoint_again() {
    let registry = InMemory::new();
    let mut watch = registry.watch(&users());
    let lease = registry.lease(&users(), endpoint(1), TTL).unwrap();
    let before = next(&mut watch).await;
    assert!(next(&mut watch).await.is_empty());
    assert_eq!(lease.heartbeat().unwrap(), Heartbeat::Restored);
    let after = next(&mut watch).await;
    assert_eq!(after, before);
    assert!(after.version() > before.version());
    assert_eq!(lease.heartbeat().unwrap(), Heartbeat::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_out_at_once() {
    let registry = InMemory::new();
    let lease = registry.lease(&users(), endpoint(1), TTL).unwrap();
    let _other = registry.lease(&users(), endpoint(2), TTL).unwrap();
    lease.release();
    assert_eq!(ids(&registry.endpoints(&users())), ["10.0.0.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_stays_until_its_time_is_up() {
    let registry = InMemory::new();
    drop(registry.lease(&users(), endpoint(1), TTL).unwrap());
    advance(JUST_BEFORE).await;
    assert_eq!(registry.endpoints(&users()).len(), 1);
    advance(TICK).await;
    assert!(registry.endpoints(&users()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_last_lease_of_an_id_owns_the_entry() {
    let registry = InMemory::new();
    let old = registry.lease(&users(), endpoint(1), TTL).unwrap();
    let new = registry
        .lease(&users(), endpoint(1).with_weight(7), TTL)
        .unwrap();
    let error = old.heartbeat().unwrap_err();
    assert!(
        error.is_registry() && error.to_string().contains("users"),
        "{error}"
    );
    old.release();
    let set = registry.endpoints(&users());
    assert_eq!(
        set.endpoints()[0].weight(),
        7,
        "the old one cannot take out the new one"
    );
    assert_eq!(new.heartbeat().unwrap(), Heartbeat::Renewed);
}

#[test]
fn a_time_to_live_that_no_timer_keeps_is_refused() {
    for short in [Duration::ZERO, Duration::from_micros(2_999)] {
        let refused = [
            InMemory::with_ttl(short).err(),
            InMemory::new().lease(&users(), endpoint(1), short).err(),
        ];
        for error in refused {
            let error = error.expect("it is too short");
            assert!(
                error.is_invalid() && error.to_string().starts_with("ttl"),
                "{error}"
            );
        }
    }
    assert!(InMemory::with_ttl(Duration::from_millis(3)).is_ok());
}

/// Guards: the longest time to live was one too much for the clock.
#[tokio::test(start_paused = true)]
async fn a_time_to_live_without_end_is_one() {
    let registry = InMemory::with_ttl(Duration::MAX).unwrap();
    let _held = registry.register(&users(), endpoint(1)).await.unwrap();
    let _lease = registry.lease(&users(), endpoint(2), Duration::MAX);
    sleep(Duration::from_hours(24 * 365)).await;
    assert_eq!(registry.endpoints(&users()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_lease_enters_nothing() {
    let registry = InMemory::new();
    assert!(
        registry
            .lease(&users(), endpoint(1), Duration::ZERO)
            .is_err()
    );
    assert!(registry.endpoints(&users()).is_empty());
}

// ---- watchers ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_registered_is_empty_at_once() {
    let mut watch = InMemory::new().watch(&users());
    assert!(
        next(&mut watch)
            .now_or_never()
            .expect("it is known at once")
            .is_empty()
    );
    quiet(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_woken_at_each_lapse_when_it_is_due() {
    let registry = InMemory::new();
    let begun = Instant::now();
    for (number, seconds) in [(1, 5), (2, 2), (3, 9)] {
        let ttl = Duration::from_secs(seconds);
        drop(registry.lease(&users(), endpoint(number), ttl).unwrap());
    }
    let mut watch = registry.watch(&users());
    assert_eq!(next(&mut watch).await.len(), 3);
    for (due, left) in [(2, 2), (5, 1), (9, 0)] {
        assert_eq!(next(&mut watch).await.len(), left);
        let off = begun.elapsed().abs_diff(Duration::from_secs(due));
        assert!(off <= 2 * TICK, "{off:?} off");
    }
    quiet(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_not_woken_by_heartbeats() {
    let registry = with_ttl();
    let _kept = registry.register(&users(), endpoint(1)).await.unwrap();
    let mut watch = registry.watch(&users());
    next(&mut watch).await;
    quiet(&mut watch).await;
}

/// A watcher waits for the entry that is due next. An entry that takes the
/// place of an equal one changes no set, but it may be due sooner.
#[tokio::test(start_paused = true)]
async fn an_equal_entry_that_is_due_sooner_wakes_a_waiting_watcher_in_time() {
    for old_ttl in [None, Some(Duration::from_mins(10))] {
        let registry = InMemory::new();
        let mut kept = None;
        match old_ttl {
            Some(ttl) => drop(registry.lease(&users(), endpoint(1), ttl).unwrap()),
            None => kept = Some(registry.register(&users(), endpoint(1)).await.unwrap()),
        }
        let mut watch = registry.watch(&users());
        next(&mut watch).await;
        let waiting = tokio::spawn(async move {
            let set = watch.next().await.unwrap().unwrap();
            (set, Instant::now())
        });
        sleep(TICK).await;
        drop(registry.lease(&users(), endpoint(1), TTL).unwrap());
        let due = Instant::now() + TTL;
        let woken = timeout(Duration::from_mins(1), waiting).await;
        let (set, when) = woken.expect("the watcher is woken").unwrap();
        assert!(set.is_empty());
        assert!(when - due <= 2 * TICK, "{:?} late", when - due);
        drop(kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_set_and_nothing_twice() {
    let registry = InMemory::new();
    let mut watch = registry.watch(&users());
    assert!(next(&mut watch).await.is_empty());
    let mut kept = Vec::new();
    for number in 1..=20 {
        kept.push(registry.register(&users(), endpoint(number)).await.unwrap());
    }
    assert_eq!(next(&mut watch).await.len(), 20);
    quiet(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn sets_that_follow_one_another_share_what_did_not_change() {
    let registry = InMemory::new();
    let mut watch = registry.watch(&users());
    let _one = registry.register(&users(), endpoint(1)).await.unwrap();
    let first = next(&mut watch).await;
    let _two = registry.register(&users(), endpoint(2)).await.unwrap();
    let second = next(&mut watch).await;
    assert!(second.version() > first.version());
    assert!(Arc::ptr_eq(&first.endpoints()[0], &second.endpoints()[0]));
}

#[tokio::test(start_paused = true)]
async fn registering_what_is_there_already_tells_nobody() {
    let registry = InMemory::new();
    let _one = registry.register(&users(), endpoint(1)).await.unwrap();
    let mut watch = registry.watch(&users());
    next(&mut watch).await;
    let _again = registry.register(&users(), endpoint(1)).await.unwrap();
    quiet(&mut watch).await;
}

// ---- registrations ----------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_registration_beats_by_itself() {
    let registry = with_ttl();
    let registration = registry.register(&users(), endpoint(1)).await.unwrap();
    for _ in 0..100 {
        sleep(TTL).await;
        assert_eq!(registry.endpoints(&users()).len(), 1);
        assert!(registration.state().is_registered());
    }
    registration.deregister().await.unwrap();
    assert!(registry.endpoints(&users()).is_empty());
    sleep(10 * TTL).await;
    assert!(
        registry.endpoints(&users()).is_empty(),
        "no heartbeat enters it again"
    );
}

/// The process hangs, or its runtime is gone: nothing beats any more.
#[test]
fn a_registration_lapses_when_its_runtime_is_gone() {
    let ttl = Duration::from_mins(10);
    let registry = InMemory::with_ttl(ttl).unwrap();
    let runtime = |paused| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(paused)
            .build()
            .unwrap()
    };
    let first = runtime(false);
    let mut registration = first
        .block_on(registry.register(&users(), endpoint(1)))
        .unwrap();
    drop(first);

    // The hands of this one's clock stand at the present, and move when told.
    runtime(true).block_on(async {
        let mut watch = registry.watch(&users());
        assert_eq!(next(&mut watch).await.len(), 1);
        assert!(registration.state().is_registered());
        assert!(
            next(&mut watch).await.is_empty(),
            "the watcher is told of the lapse"
        );
        match registration.state() {
            RegistrationState::Retrying(error) => {
                assert!(error.is_registry(), "{error}");
                assert!(error.to_string().contains("runtime"), "{error}");
            }
            state => panic!("a lapsed entry is not {state:?}"),
        }
        registration.set_weight(5).await.unwrap();
        assert!(
            registration.state().is_registered(),
            "announcing enters it again"
        );
        assert_eq!(next(&mut watch).await.endpoints()[0].weight(), 5);
    });
}

#[tokio::test(start_paused = true)]
async fn dropping_a_registration_takes_it_out() {
    for registry in [InMemory::new(), with_ttl()] {
        let mut watch = registry.watch(&users());
        next(&mut watch).await;
        let registration = registry.register(&users(), endpoint(1)).await.unwrap();
        assert_eq!(next(&mut watch).await.len(), 1);
        drop(registration);
        assert!(next(&mut watch).await.is_empty());
        quiet(&mut watch).await;
    }
}

#[tokio::test(start_paused = true)]
async fn weight_and_status_reach_the_watchers() {
    let registry = with_ttl();
    let mut registration = registry.register(&users(), endpoint(1)).await.unwrap();
    let mut watch = registry.watch(&users());
    next(&mut watch).await;

    registration.set_weight(4).await.unwrap();
    assert_eq!(next(&mut watch).await.endpoints()[0].weight(), 4);
    registration.set_status(Status::Draining).await.unwrap();
    let set = next(&mut watch).await;
    let announced = &set.endpoints()[0];
    assert_eq!(
        (announced.weight(), announced.status()),
        (4, Status::Draining)
    );
    assert_eq!(registration.endpoint(), &**announced);
    assert_eq!(
        (registration.id(), registration.service()),
        (announced.id(), &users())
    );

    sleep(10 * TTL).await;
    assert_eq!(
        registry.endpoints(&users()),
        set,
        "heartbeats keep what was announced last"
    );
}

async fn two_of_one_id(registry: &InMemory) -> (Registration, Registration) {
    let old = registry.register(&users(), endpoint(1)).await.unwrap();
    assert!(old.state().is_registered());
    let new = registry
        .register(&users(), endpoint(1).with_weight(9))
        .await
        .unwrap();
    (old, new)
}

#[tokio::test(start_paused = true)]
async fn the_older_registration_of_an_id_is_lost_and_harmless() {
    for registry in [InMemory::new(), with_ttl()] {
        let (mut old, new) = two_of_one_id(&registry).await;
        sleep(10 * TTL).await;
        assert!(
            matches!(old.state(), RegistrationState::Lost),
            "{:?}",
            old.state()
        );
        assert!(new.state().is_registered());

        assert!(old.set_weight(2).await.unwrap_err().is_registry());
        assert!(
            old.set_status(Status::Down)
                .await
                .unwrap_err()
                .is_registry()
        );
        assert_eq!(
            old.endpoint(),
            &endpoint(1),
            "what was refused is not taken for announced"
        );
        old.deregister().await.unwrap();
        assert_eq!(registry.endpoints(&users()).endpoints()[0].weight(), 9);

        let (old, _new) = two_of_one_id(&registry).await;
        drop(old);
        assert_eq!(registry.endpoints(&users()).len(), 1);
    }
}

/// "It is out, and stays out": not even when the one that replaced it leaves.
#[tokio::test(start_paused = true)]
async fn a_lost_registration_stays_lost() {
    for registry in [InMemory::new(), with_ttl()] {
        let (old, new) = two_of_one_id(&registry).await;
        sleep(2 * TTL).await;
        new.deregister().await.unwrap();
        sleep(10 * TTL).await;
        assert!(registry.endpoints(&users()).is_empty());
        assert!(
            matches!(old.state(), RegistrationState::Lost),
            "{:?}",
            old.state()
        );
    }
}

/// A heartbeat may be under way on another thread at the very moment when its
/// registration is dropped; it must not enter the endpoint again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_heartbeat_brings_back_what_was_taken_out() {
    // The finest beat there is, one a millisecond, and drops all around it.
    let registry = InMemory::with_ttl(Duration::from_millis(3)).unwrap();
    for round in 0..150 {
        let mut kept = Vec::new();
        for number in 0..20 {
            kept.push(registry.register(&users(), endpoint(number)).await.unwrap());
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_micros(900 + round * 4) {
            std::hint::spin_loop();
        }
        drop(kept);
        let dropped = Instant::now();
        while dropped.elapsed() < Duration::from_micros(500) {
            let back = ids(&registry.endpoints(&users()));
            assert!(back.is_empty(), "round {round}: {back:?} came back");
            tokio::task::yield_now().await;
        }
    }
}

// ---- many -------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn services_do_not_know_each_other() {
    let registry = InMemory::new();
    let names: Vec<ServiceName> = (0..50).map(|i| format!("s{i}").parse().unwrap()).collect();
    let mut quiet_one = registry.watch(&names[0]);
    next(&mut quiet_one).await;
    let mut kept = Vec::new();
    for (number, name) in (1..).zip(&names[1..]) {
        kept.push(registry.register(name, endpoint(number)).await.unwrap());
        // The same id under every name, too.
        kept.push(registry.register(name, endpoint(200)).await.unwrap());
    }
    for (number, name) in (1..).zip(&names[1..]) {
        let set = registry.endpoints(name);
        assert_eq!(set.len(), 2);
        assert!(set.get(endpoint(number).id()).is_some());
    }
    quiet(&mut quiet_one).await;
    drop(kept);
    assert!(names.iter().all(|name| registry.endpoints(name).is_empty()));
}

#[tokio::test(start_paused = true)]
async fn all_clones_are_one_registry() {
    let registry = InMemory::new();
    let mut watch = registry.clone().watch(&users());
    next(&mut watch).await;
    let registration = registry
        .clone()
        .register(&users(), endpoint(1))
        .await
        .unwrap();
    assert_eq!(registry.endpoints(&users()).len(), 1);
    assert_eq!(next(&mut watch).await.len(), 1);

    // Neither entries nor watchers need the handle they came from.
    let other = registry.clone();
    drop(registry);
    registration.deregister().await.unwrap();
    assert!(other.endpoints(&users()).is_empty());
    drop(other);
    assert!(next(&mut watch).await.is_empty());
    quiet(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_can_be_chosen_at_run_time() {
    let memory = InMemory::new();
    let registry: Box<dyn Registry> = Box::new(memory.clone());
    let discover: Arc<dyn Discover> = Arc::new(memory);
    let registration = registry.register(&users(), endpoint(1)).await.unwrap();
    assert_eq!(next(&mut discover.watch(&users())).await.len(), 1);
    assert_eq!(next(&mut registry.watch(&users())).await.len(), 1);

    // The pointers are sources themselves, for what takes `impl Discover`.
    let balancer = waypost::Balancer::builder("users")
        .build(discover)
        .await
        .unwrap();
    assert_eq!(balancer.current().len(), 1);
    registration.deregister().await.unwrap();
}

// ---- without a runtime ------------------------------------------------------

#[test]
fn heartbeats_outside_of_a_runtime_are_refused_and_nothing_is_entered() {
    let registry = with_ttl();
    let refused = registry
        .register(&users(), endpoint(1))
        .now_or_never()
        .unwrap();
    let error = refused.expect_err("nothing could beat");
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
    assert!(!error.is_transient() && !error.is_registry() && !error.is_invalid());
    assert!(registry.endpoints(&users()).is_empty());
}

#[test]
fn without_a_time_to_live_no_runtime_is_needed() {
    let registry = InMemory::new();
    let registered = registry
        .register(&users(), endpoint(1))
        .now_or_never()
        .unwrap();
    let registration = registered.expect("there is nothing to run");
    assert_eq!(registry.endpoints(&users()).len(), 1);
    assert!(registration.state().is_registered());
    drop(registration);
    assert!(registry.endpoints(&users()).is_empty());
}
