//! Sources made of sources keep the contract, and their own laws.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use waypost::endpoint::AddressPolicy;
use waypost::health::check::HealthCheck;
use waypost::registry::{Fallback, Map, Merge};
use waypost::{Balancer, Discover, Endpoint, EndpointSet, Error, Fixed, ServiceName, testing};

const PATIENCE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(10);

type Item = Result<EndpointSet, Error>;
type Sets = BoxStream<'static, Item>;

/// A source that says what it is told to say, to its one watcher.
#[derive(Clone)]
struct Puppet(Arc<Mutex<Option<mpsc::UnboundedReceiver<Item>>>>);

impl Puppet {
    fn new() -> (Self, mpsc::UnboundedSender<Item>) {
        let (say, heard) = mpsc::unbounded_channel();
        (Self(Arc::new(Mutex::new(Some(heard)))), say)
    }
}

impl Discover for Puppet {
    fn watch(&self, _: &ServiceName) -> Sets {
        let heard = self.0.lock().unwrap().take().expect("it has one watcher");
        stream::unfold(heard, |mut heard| async {
            let item = heard.recv().await?;
            Some((item, heard))
        })
        .boxed()
    }
}

fn users() -> ServiceName {
    "users".parse().unwrap()
}

fn at(id: &str, weight: u32) -> Endpoint {
    let endpoint = Endpoint::builder("10.0.0.1:80").id(id).weight(weight);
    endpoint
        .zone(format!("zone-{id}"))
        .metadata("id", id)
        .build()
        .unwrap()
}

fn set(entries: &[(&str, u32)]) -> EndpointSet {
    EndpointSet::new(entries.iter().map(|(id, weight)| at(id, *weight))).unwrap()
}

fn fixed(entries: &[(&str, u32)]) -> Fixed {
    Fixed::new(entries.iter().map(|(id, weight)| at(id, *weight))).unwrap()
}

fn failure() -> Item {
    Err(Error::registry("puppet", "down"))
}

async fn next(sets: &mut Sets) -> Item {
    let next = timeout(Duration::from_hours(1), sets.next()).await;
    next.expect("something is said").expect("it does not end")
}

async fn silent(sets: &mut Sets) {
    let next = timeout(Duration::from_mins(1), sets.next()).await;
    assert!(next.is_err(), "nothing is said: {next:?}");
}

#[tokio::test]
async fn all_keep_the_contract() {
    let expected = set(&[("a", 1), ("b", 2)]);
    let (hangs, _say) = Puppet::new();
    let merged = || {
        Merge::new()
            .source("x", fixed(&[("a", 1)]))
            .source("y", fixed(&[("a", 9), ("b", 2)]))
    };
    testing::discover(merged(), &users(), &expected, PATIENCE).await;
    testing::discover(Merge::new(), &users(), &EndpointSet::empty(), PATIENCE).await;
    let two = || fixed(&[("a", 1), ("b", 2)]);
    let fallback = Fallback::new(two(), hangs, AFTER);
    testing::discover(fallback, &users(), &expected, PATIENCE).await;
    let three = fixed(&[("a", 1), ("b", 2), ("c", 3)]);
    let mapped = Map::filter(three.clone(), |one| one.weight() < 3);
    testing::discover(mapped, &users(), &expected, PATIENCE).await;
    let zone = Map::zone(three.clone(), "zone-c");
    testing::discover(zone, &users(), &set(&[("c", 3)]), PATIENCE).await;
    let tagged = Map::metadata(three, "id", "b");
    testing::discover(tagged, &users(), &set(&[("b", 2)]), PATIENCE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_waits_for_all_and_lets_the_first_that_knows_speak() {
    let ((first, say_first), (second, say_second)) = (Puppet::new(), Puppet::new());
    let merge = Merge::new().source("first", first).source("second", second);
    let mut sets = merge.watch(&users());
    say_second.send(Ok(set(&[("a", 2), ("b", 2)]))).unwrap();
    let soon = timeout(Duration::from_secs(1), sets.next()).await;
    assert!(soon.is_err(), "half of the answer is none");
    say_first.send(Ok(set(&[("a", 1)]))).unwrap();
    let both = next(&mut sets).await.unwrap();
    assert_eq!(both, set(&[("a", 1), ("b", 2)]));
    let origin = |id: &str| merge.origin(&users(), at(id, 1).id());
    assert_eq!(origin("a").as_deref(), Some("first"));
    assert_eq!(origin("b").as_deref(), Some("second"));
    assert_eq!(origin("c"), None);

    say_first.send(Ok(EndpointSet::empty())).unwrap();
    let one = next(&mut sets).await.unwrap();
    assert_eq!(one, set(&[("a", 2), ("b", 2)]));
    assert!(one.version() > both.version());
    assert!(Arc::ptr_eq(&both.endpoints()[1], &one.endpoints()[1]));
    assert_eq!(origin("a").as_deref(), Some("second"));
}

/// Guards: each service that was ever asked for was kept for ever.
#[tokio::test(start_paused = true)]
async fn a_merge_forgets_the_origins_of_what_nobody_watches() {
    let merge = Merge::new().source("one", fixed(&[("a", 1)]));
    let (mut first, mut second) = (merge.watch(&users()), merge.watch(&users()));
    next(&mut first).await.unwrap();
    next(&mut second).await.unwrap();
    let known = || merge.origin(&users(), at("a", 1).id()).is_some();
    drop(first);
    assert!(known(), "the other still watches");
    drop(second);
    assert!(!known());
}

#[tokio::test(start_paused = true)]
async fn a_merge_keeps_what_a_source_that_fails_told_and_says_which() {
    let ((first, say_first), (second, say_second)) = (Puppet::new(), Puppet::new());
    let merge = Merge::new().source("first", first).source("second", second);
    let mut sets = merge.watch(&users());
    say_first.send(Ok(set(&[("a", 1)]))).unwrap();
    say_second.send(Ok(set(&[("b", 1)]))).unwrap();
    assert_eq!(next(&mut sets).await.unwrap().len(), 2);
    say_first.send(failure()).unwrap();
    let error = next(&mut sets).await.unwrap_err();
    assert!(error.to_string().contains("`first`"), "{error}");
    say_second.send(Ok(set(&[("b", 1), ("c", 1)]))).unwrap();
    assert_eq!(next(&mut sets).await.unwrap().len(), 3);
    assert!(next(&mut sets).await.is_err(), "a part of it is still old");
    say_first.send(Ok(set(&[("a", 1)]))).unwrap();
    assert_eq!(next(&mut sets).await.unwrap().len(), 3, "all is well again");
    silent(&mut sets).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_does_not_keep_a_merge_from_serving() {
    let ((hangs, say_late), (well, say)) = (Puppet::new(), Puppet::new());
    let merge = Merge::new().source("hangs", hangs).source("well", well);
    let mut sets = merge.watch(&users());
    say.send(Ok(set(&[("a", 1)]))).unwrap();
    let begun = Instant::now();
    assert_eq!(next(&mut sets).await.unwrap().len(), 1);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "before a balancer gives up"
    );
    say_late.send(Ok(set(&[("b", 1)]))).unwrap();
    assert_eq!(next(&mut sets).await.unwrap().len(), 2);
}

/// Guards: while the second was asked and had said nothing yet, or failed, nobody
/// was told that the first failed.
#[tokio::test(start_paused = true)]
async fn a_fallback_that_has_nothing_either_tells_why() {
    let ((first, say_first), (second, say_second)) = (Puppet::new(), Puppet::new());
    let mut sets = Fallback::new(first, second, AFTER).watch(&users());
    silent(&mut sets).await;
    say_first.send(failure()).unwrap();
    assert!(next(&mut sets).await.is_err(), "both are silent");
    say_second.send(Ok(set(&[("spare", 1)]))).unwrap();
    assert_eq!(next(&mut sets).await.unwrap().len(), 1);
    say_first.send(failure()).unwrap();
    silent(&mut sets).await;
    say_second.send(failure()).unwrap();
    assert!(next(&mut sets).await.is_err());
    say_first.send(failure()).unwrap();
    assert!(next(&mut sets).await.is_err(), "neither is well");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_may_wait_for_ever() {
    let (first, _say) = Puppet::new();
    let never = Fallback::new(first, fixed(&[("spare", 1)]), Duration::MAX);
    silent(&mut never.watch(&users())).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_serves_while_the_first_is_silent_or_fails() {
    let (first, say) = Puppet::new();
    let fallback = Fallback::new(first, fixed(&[("spare", 1)]), AFTER);
    let mut sets = fallback.watch(&users());
    let begun = Instant::now();
    assert_eq!(next(&mut sets).await.unwrap(), set(&[("spare", 1)]));
    assert!(begun.elapsed() >= AFTER);

    say.send(Ok(set(&[("a", 1)]))).unwrap();
    let back = next(&mut sets).await.unwrap();
    assert_eq!(back, set(&[("a", 1)]), "the first takes back");

    say.send(failure()).unwrap();
    let failed = Instant::now();
    assert!(next(&mut sets).await.is_err());
    say.send(failure()).unwrap();
    assert!(next(&mut sets).await.is_err());
    let spare = next(&mut sets).await.unwrap();
    assert_eq!(spare, set(&[("spare", 1)]));
    assert!(spare.version() > back.version());
    assert!(failed.elapsed() >= AFTER && failed.elapsed() < AFTER * 2);
    say.send(failure()).unwrap();
    silent(&mut sets).await;

    say.send(Ok(EndpointSet::empty())).unwrap();
    assert!(
        next(&mut sets).await.unwrap().is_empty(),
        "empty is an answer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_asks_no_second() {
    let (first, say) = Puppet::new();
    let (second, _never) = Puppet::new();
    let unasked = second.clone();
    let mut sets = Fallback::new(first, second, AFTER).watch(&users());
    for _ in 0..5 {
        say.send(failure()).unwrap();
        assert!(next(&mut sets).await.is_err());
        tokio::time::sleep(AFTER / 2).await;
        say.send(Ok(set(&[("a", 1)]))).unwrap();
        assert!(next(&mut sets).await.is_ok());
    }
    assert!(unasked.0.lock().unwrap().is_some(), "nobody watched it");
}

#[tokio::test(start_paused = true)]
async fn a_map_changes_each_endpoint_once_and_keeps_ids_apart() {
    let (source, say) = Puppet::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let mapped = Map::new(source, move |one| {
        seen.lock().unwrap().push(one.id().to_string());
        match one.id().as_str() {
            "out" => None,
            "renamed" => Some(at("a", 1)),
            _ => Some(one.clone().with_weight(one.weight() * 10)),
        }
    });
    let mut sets = mapped.watch(&users());
    let first = set(&[("a", 1), ("out", 1), ("renamed", 1)]);
    say.send(Ok(first.clone())).unwrap();
    let before = next(&mut sets).await.unwrap();
    assert_eq!(before, set(&[("a", 10)]));
    say.send(Ok(first.with(at("b", 2)))).unwrap();
    let after = next(&mut sets).await.unwrap();
    assert_eq!(after, set(&[("a", 10), ("b", 20)]));
    assert!(Arc::ptr_eq(&before.endpoints()[0], &after.endpoints()[0]));
    assert_eq!(*calls.lock().unwrap(), ["a", "out", "renamed", "b"]);

    say.send(Ok(first.with(at("b", 2)).without(at("out", 1).id())))
        .unwrap();
    say.send(failure()).unwrap();
    assert!(
        next(&mut sets).await.is_err(),
        "what is left out changes nothing"
    );
    say.send(Ok(first.with(at("b", 2)))).unwrap();
    assert_eq!(
        next(&mut sets).await.unwrap().version(),
        after.version(),
        "well again"
    );
}

/// Guards: an address policy was one of calls, and a poisoned registry had health checks sent to
/// whatever it named.
#[tokio::test]
async fn nothing_is_sent_to_addresses_that_a_policy_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let told = Fixed::addresses([here.as_str(), "10.0.0.1:80"]).unwrap();
    let strict = AddressPolicy::default().without_loopback();
    let check = HealthCheck::tcp().interval(Duration::from_millis(10));
    let checked = async |source: Arc<dyn Discover>| {
        let builder = Balancer::builder("users").health_check(check.clone());
        builder.build(source).await.unwrap()
    };
    let refusing = checked(Arc::new(Map::allowed(told.clone(), strict))).await;
    let set = refusing.current();
    assert_eq!(set.len(), 1);
    let skipped = set.skipped().unwrap();
    assert_eq!(skipped.count, 1);
    let why = skipped.example.to_string();
    assert!(
        why.contains("address policy") && why.contains(&here),
        "{why}"
    );
    let connected = timeout(Duration::from_millis(300), listener.accept());
    assert!(connected.await.is_err(), "it was checked");

    let _other = checked(Arc::new(told)).await;
    let connected = timeout(PATIENCE, listener.accept());
    assert!(connected.await.is_ok(), "without a policy it is checked");
}

#[tokio::test]
async fn what_a_policy_refuses_is_told_when_the_count_changes() {
    let (puppet, say) = Puppet::new();
    let mut sets = Map::allowed(puppet, AddressPolicy::default()).watch(&users());
    let fine = Endpoint::at("10.0.0.1:80").unwrap();
    let metadata = Endpoint::at("169.254.169.254:80").unwrap();
    let both = EndpointSet::new([fine.clone(), metadata]).unwrap();
    let one = both.next([fine]).unwrap();
    for (set, refused) in [(both, Some(1)), (one, None)] {
        say.send(Ok(set)).unwrap();
        let told = timeout(PATIENCE, sets.next()).await.unwrap().unwrap();
        let told = told.unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!(told.skipped().map(|skipped| skipped.count), refused);
    }
}
