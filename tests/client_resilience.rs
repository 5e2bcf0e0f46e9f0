//! The laws of resilience as the clients put it together: on real servers, and
//! in virtual time where a thousand runs are needed.

mod client_common;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use client_common::users;
use client_common::{SOON, Server, dead, endpoint, eventually, in_flight, told, totals, totals_of};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::{BalanceLayer, BoxError, RecordBody};
use waypost::endpoint::ServiceName;
use waypost::event::{CallEvent, Observer};
use waypost::resilience::{Aimd, Attempts, Hedge, Limits, Retry, RetryBudget, Throttle};
use waypost::rng::Rng;
use waypost::strategy::{Adaptive, P2c, RoundRobin, Strategy};
use waypost::time::Clock;
use waypost::{Balancer, Endpoint, EndpointSet, Error};

fn request(method: Method) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri("http://users/")
        .body(Full::from("hello"))
        .expect("the parts are well-formed")
}

fn get() -> Request<Full<Bytes>> {
    request(Method::GET)
}

fn legacy() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn ours(error: &BoxError) -> &Error {
    error.downcast_ref().expect("it is the crate's error")
}

const MS: Duration = Duration::from_millis(1);

// ---- a service within the test, for virtual time ----------------------------

/// What an endpoint does with its next call: after how long it answers, and
/// with which status; 0 is a connection that breaks.
type Script = Arc<dyn Fn(&Endpoint) -> (Duration, u16) + Send + Sync>;

#[derive(Clone)]
struct Scripted {
    endpoint: Endpoint,
    script: Script,
    sent: Arc<AtomicUsize>,
}

impl Service<Request<Full<Bytes>>> for Scripted {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let (after, status) = (self.script)(&self.endpoint);
        Box::pin(async move {
            tokio::time::sleep(after).await;
            let mut answer = Response::builder();
            if status == 429 {
                answer = answer.header("retry-after", "2");
            }
            match status {
                0 => Err("it broke".into()),
                _ => Ok(answer.status(status).body(Empty::new())?),
            }
        })
    }
}

fn manual(count: u16) -> Balancer {
    manual_by(count, Adaptive::new())
}

fn manual_by(count: u16, strategy: impl Strategy) -> Balancer {
    let builder = Balancer::builder("users").strategy(strategy);
    let (balancer, mut updater) = builder.manual().expect("it is a name");
    updater.apply(addressed(count));
    balancer
}

fn addressed(count: u16) -> EndpointSet {
    let at = |port| Endpoint::at(([10, 0, 0, 1], port).into_address());
    let endpoints = (1..=count).map(|port| at(port).expect("it is an address"));
    EndpointSet::new(endpoints).expect("ids differ")
}

trait IntoAddress {
    fn into_address(self) -> std::net::SocketAddr;
}

impl IntoAddress for ([u8; 4], u16) {
    fn into_address(self) -> std::net::SocketAddr {
        self.into()
    }
}

/// A factory of scripted endpoints, and how many calls were sent to them.
fn scripted(
    script: impl Fn(&Endpoint) -> (Duration, u16) + Send + Sync + 'static,
) -> (
    impl Fn(&Endpoint) -> Result<Scripted, Infallible> + Clone + Send + Sync + 'static,
    Arc<AtomicUsize>,
) {
    let (script, sent): (Script, _) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&sent);
    let factory = move |endpoint: &Endpoint| {
        Ok(Scripted {
            endpoint: endpoint.clone(),
            script: Arc::clone(&script),
            sent: Arc::clone(&sent),
        })
    };
    (factory, count)
}

/// The law that retries never amplify, through everything that a call passes.
#[tokio::test(start_paused = true)]
async fn calls_sent_never_exceed_the_budget_whatever_fails() {
    let mut retried = 0;
    for seed in 0..1_000 {
        let mut rng = Rng::seeded(seed);
        let (percent, hedges) = (rng.below(50), rng.below(10));
        let (failing, slow) = (rng.below(101), rng.below(50));
        let attempts = Attempts::at_most(1 + rng.below(6));
        let share = |percent| {
            let budget = RetryBudget::share(percent).expect("it is a share");
            budget.min_per_second(0)
        };
        let rng = Mutex::new(rng);
        let (factory, sent) = scripted(move |_| {
            let mut rng = rng.lock().expect("no test panics here");
            let status = match rng.below(100) {
                draw if draw >= failing => 200,
                draw => [0, 503, 500][draw as usize % 3],
            };
            let late = rng.below(100) < slow;
            (MS * if late { 200 } else { 1 }, status)
        });
        let retry = Retry::default().attempts(attempts).budget(share(percent));
        let mut client = BalanceLayer::new(manual(8))
            .retry(retry)
            .per_try_timeout(MS * 100)
            .hedge(Hedge::after(MS * 10).budget(share(hedges)))
            .per_endpoint(factory);
        let asked = 40;
        for _ in 0..asked {
            // Failing is what this is about.
            drop(client.call(get()).await);
        }
        let sent = sent.load(Ordering::Relaxed) as u32;
        let most = asked * (100 + percent + hedges) / 100;
        assert!(
            sent >= asked && sent <= most,
            "seed {seed}: {sent} of {most}"
        );
        retried += sent - asked;
    }
    assert!(retried > 1_000, "nothing was retried: {retried}");
}

#[tokio::test(start_paused = true)]
async fn the_server_says_when_to_come_back() {
    let first = AtomicUsize::new(0);
    let (factory, sent) = scripted(move |_| {
        let status = if first.fetch_add(1, Ordering::Relaxed) == 0 {
            429
        } else {
            200
        };
        (MS, status)
    });
    let retry = Retry::default().statuses([429]).expect("it is an error");
    let mut client = BalanceLayer::new(manual(2))
        .retry(retry)
        .per_endpoint(factory.clone());
    let before = Instant::now();
    let answer = client.call(get()).await.expect("it is answered");
    assert_eq!(
        (answer.status().as_u16(), sent.load(Ordering::Relaxed)),
        (200, 2)
    );
    let waited = before.elapsed();
    assert!(waited >= 2_000 * MS && waited <= 3_010 * MS, "{waited:?}");

    // With less time than that, the answer is handed on at once.
    let (factory, _) = scripted(|_| (MS, 429));
    let layer = BalanceLayer::new(manual(2))
        .retry(retry)
        .timeout(1_000 * MS);
    let before = Instant::now();
    let answer = layer
        .per_endpoint(factory)
        .call(get())
        .await
        .expect("it is answered");
    assert_eq!(answer.status(), 429);
    assert!(before.elapsed() < 100 * MS);
}

/// Quick refusals would draw all calls to an endpoint, as 429 is no fault of its own.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_when_to_come_back_is_left_alone_till_then() {
    let strategies: [Box<dyn Strategy>; 2] =
        [Box::new(P2c::peak_ewma()), Box::new(Adaptive::new())];
    for strategy in strategies {
        let name = format!("{strategy:?}");
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        let (factory, _) = scripted(move |endpoint| {
            if endpoint.address().as_str() == "10.0.0.1:1" {
                count.fetch_add(1, Ordering::Relaxed);
                return (Duration::ZERO, 429);
            }
            (MS, 200)
        });
        let mut client = BalanceLayer::new(manual_by(4, strategy)).per_endpoint(factory);
        for _ in 0..400 {
            client.call(get()).await.expect("it is answered");
        }
        assert_eq!(refused.load(Ordering::Relaxed), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_deadline_however_many_attempts_are_left() {
    let (factory, sent) = scripted(|_| (MS * 10_000, 200));
    let mut client = BalanceLayer::new(manual(8))
        .retry(Retry::default().attempts(Attempts::at_most(8)))
        .per_try_timeout(MS * 300)
        .timeout(MS * 1_000)
        .per_endpoint(factory);
    let before = Instant::now();
    let error = client
        .call(get())
        .await
        .expect_err("it never answers in time");
    assert!(ours(&error).is_timed_out(), "{error}");
    assert!(before.elapsed() <= 1_001 * MS, "{:?}", before.elapsed());
    assert!((3..=4).contains(&sent.load(Ordering::Relaxed)));
}

#[tokio::test(start_paused = true)]
async fn late_calls_are_hedged_by_the_percentile_of_the_others() {
    let calls = AtomicUsize::new(0);
    let (factory, sent) = scripted(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        (if call % 50 == 49 { MS * 5_000 } else { MS * 10 }, 200)
    });
    let hedge = Hedge::beyond(0.9).expect("it is a share");
    let mut client = BalanceLayer::new(manual(4))
        .retry(Retry::default())
        .hedge(hedge)
        .per_endpoint(factory);
    let mut slowest = Duration::ZERO;
    for call in 0..1_000 {
        let before = Instant::now();
        client.call(get()).await.expect("it is answered");
        if call >= 200 {
            slowest = slowest.max(before.elapsed());
        }
    }
    assert!(slowest < MS * 30, "{slowest:?}");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent <= 1_060 && sent > 1_010, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn what_a_service_rejects_is_refused_here() {
    let (factory, sent) = scripted(|_| (MS, 503));
    let mut client = BalanceLayer::new(manual(2))
        .throttle(Throttle::default())
        .per_endpoint(factory);
    let mut refused = 0;
    for _ in 0..500 {
        match client.call(get()).await {
            Ok(answer) => assert_eq!(answer.status(), 503),
            Err(error) => {
                assert!(ours(&error).is_overloaded(), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!(sent.load(Ordering::Relaxed) + refused, 500);
    assert!(refused > 450, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_keeps_a_slow_service_from_filling_up() {
    // A service that takes 5 ms for each call in flight.
    let busy = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (inner, peak) = (Arc::clone(&busy), Arc::clone(&most));
    let (factory, _) = scripted(move |_| {
        let calls = inner.fetch_add(1, Ordering::Relaxed) + 1;
        peak.fetch_max(calls, Ordering::Relaxed);
        let inner = Arc::clone(&inner);
        let takes = MS * 5 * calls as u32;
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            inner.fetch_sub(1, Ordering::Relaxed);
        });
        (takes, 200)
    });
    let client = BalanceLayer::new(manual(4))
        .adaptive_limit(Aimd::within(1, 1_000, MS * 50))
        .per_endpoint(factory);
    let calls = (0..400).map(|_| client.clone().oneshot(get()));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "those beyond it wait");
    let most = most.load(Ordering::Relaxed);
    // It begins at 20, and the ten calls that come first are fast enough to raise it.
    assert!(most <= 35, "of 400 calls: {most}");
}

/// All attempts answer 429, which asks for two seconds, and is to be sent again.
fn asked_to_wait() -> Retry {
    let retry = Retry::default().statuses([429]).expect("it is an error");
    retry.budget(RetryBudget::unlimited())
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_no_time_of_the_endpoint_before_it() {
    let (clock, hands) = Clock::manual();
    let working = hands.clone();
    let (factory, sent) = scripted(move |endpoint| {
        let busy = endpoint.address().as_str() == "10.0.0.1:1";
        working.advance(MS * 10);
        (MS * 10, if busy { 429 } else { 200 })
    });
    let builder = Balancer::builder("users").clock(clock);
    let (balancer, mut updater) = builder
        .strategy(RoundRobin::new())
        .manual()
        .expect("it is a name");
    updater.apply(addressed(2));
    let client = BalanceLayer::new(balancer.clone())
        .retry(asked_to_wait())
        .per_endpoint(factory);
    for _ in 0..4 {
        let before = sent.load(Ordering::Relaxed);
        let call = tokio::spawn(client.clone().oneshot(get()));
        // In the pause, if there is one, nothing is under way.
        tokio::time::sleep(MS * 1_000).await;
        if sent.load(Ordering::Relaxed) == before + 1 && !call.is_finished() {
            assert_eq!(in_flight(&balancer), 0);
            hands.advance(MS * 2_000);
        }
        let answer = call.await.expect("no panic").expect("one answers");
        assert_eq!(answer.status(), 200);
    }
    assert!(sent.load(Ordering::Relaxed) > 4, "some were sent again");
    for node in balancer.nodes() {
        let latency = node.stats().latency().expect("it has answered");
        assert!(latency < MS * 20, "{latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_handed_on_when_nobody_is_left_after_the_pause() {
    let (factory, sent) = scripted(|_| (MS, 429));
    let (balancer, mut updater) = Balancer::builder("users").manual().expect("it is a name");
    updater.apply(addressed(2));
    let client = BalanceLayer::new(balancer.clone())
        .retry(asked_to_wait())
        .per_endpoint(factory);
    let call = tokio::spawn(client.oneshot(get()));
    tokio::time::sleep(MS * 100).await;
    assert_eq!(sent.load(Ordering::Relaxed), 1);
    updater.apply(addressed(0));
    let answer = call.await.expect("no panic").expect("it was answered");
    assert_eq!(answer.status(), 429);
    assert_eq!(sent.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn of_its_retries_a_call_has_one_under_way_at_a_time() {
    let (factory, sent) = scripted(|_| (MS, 503));
    let mut client = BalanceLayer::new(manual(5))
        .retry(Retry::default().attempts(Attempts::at_most(4)))
        .limits(Limits::default().retries(1))
        .per_endpoint(factory);
    client.call(get()).await.expect("it is answered");
    assert_eq!(sent.load(Ordering::Relaxed), 4);
}

/// However many are refused, the bound stays where it is.
#[tokio::test(start_paused = true)]
async fn retries_under_way_never_exceed_their_limit() {
    let (busy, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (now, peak) = (Arc::clone(&busy), Arc::clone(&most));
    let (factory, sent) = scripted(move |endpoint| {
        if endpoint.address().port() == Some(1) {
            return (MS, 503);
        }
        // Those that are not the first are retries.
        peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let now = Arc::clone(&now);
        tokio::spawn(async move {
            tokio::time::sleep(MS * 50).await;
            now.fetch_sub(1, Ordering::Relaxed);
        });
        (MS * 50, 200)
    });
    let (balancer, mut updater) = Balancer::builder("users").manual().expect("it is a name");
    let spare = |endpoint: &Arc<Endpoint>| {
        let priority = u32::from(endpoint.address().port() != Some(1));
        let spare = Endpoint::builder(endpoint.address().clone()).priority(priority);
        spare.build().expect("the parts are well-formed")
    };
    let spares = addressed(4).iter().map(spare).collect::<Vec<_>>();
    updater.apply(EndpointSet::new(spares).expect("ids differ"));
    let retry = Retry::default().backoff(Duration::ZERO, Duration::ZERO);
    let client = BalanceLayer::new(balancer)
        .retry(retry.budget(RetryBudget::unlimited()))
        .limits(Limits::default().retries(3))
        .per_endpoint(factory);
    for _ in 0..3 {
        let calls = (0..50).map(|_| client.clone().oneshot(get()));
        let answers = futures::future::join_all(calls).await;
        let well = answers
            .iter()
            .filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200));
        assert_eq!(well.count(), 3, "as many as may be under way at once");
        tokio::time::sleep(MS * 100).await;
    }
    assert_eq!(most.load(Ordering::Relaxed), 3);
    assert_eq!(sent.load(Ordering::Relaxed), 3 * 53);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_an_attempt_too() {
    for most in 2..5 {
        // The first attempt fails last.
        let calls = AtomicUsize::new(0);
        let (factory, sent) = scripted(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => (MS * 100, 503),
            _ => (MS * 20, 503),
        });
        let notes = Notes::default();
        let mut client = BalanceLayer::new(manual(6))
            .retry(Retry::default().attempts(Attempts::at_most(most)))
            .hedge(Hedge::after(MS * 10))
            .observe(notes.clone())
            .per_endpoint(factory);
        client.call(get()).await.expect("it is answered");
        assert_eq!(sent.load(Ordering::Relaxed), most as usize);
        let notes = notes.0.lock().expect("no test panics here");
        assert_eq!(notes.last(), Some(&format!("users: done {most}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_without_budget_picks_nobody() {
    let (factory, sent) = scripted(|_| (MS * 50, 200));
    let balancer = manual(4);
    let none = RetryBudget::share(0).expect("0 is a share");
    let mut client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .hedge(Hedge::after(MS * 10).budget(none.min_per_second(0)))
        .per_endpoint(factory);
    for _ in 0..10 {
        client.call(get()).await.expect("it is answered");
    }
    assert_eq!(sent.load(Ordering::Relaxed), 10);
    assert_eq!(totals(&balancer), (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_in_by_their_order() {
    let (factory, _) = scripted(|_| (MS * 10, 200));
    let limits = Limits::default().in_flight(1).expect("one is allowed");
    let client = BalanceLayer::new(manual(4))
        .limits(limits)
        .per_endpoint(factory);
    let ends = Arc::<Mutex<Vec<usize>>>::default();
    let callers: Vec<_> = (0..5)
        .map(|caller| {
            let (client, ends) = (client.clone(), Arc::clone(&ends));
            tokio::spawn(async move {
                for _ in 0..4 {
                    client.clone().oneshot(get()).await.expect("it is answered");
                    ends.lock().expect("no test panics here").push(caller);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    let ends = ends.lock().expect("no test panics here");
    let in_turn: Vec<usize> = (0..4).flat_map(|_| 0..5).collect();
    assert_eq!(*ends, in_turn, "nobody comes before those who waited");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_grows_lets_in_those_who_wait() {
    let busy = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&busy), Arc::clone(&most));
    let (factory, _) = scripted(move |_| {
        peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let now = Arc::clone(&now);
        tokio::spawn(async move {
            tokio::time::sleep(MS * 10).await;
            now.fetch_sub(1, Ordering::Relaxed);
        });
        (MS * 10, 200)
    });
    let client = BalanceLayer::new(manual(4))
        .adaptive_limit(Aimd::within(1, 1_000, MS * 50))
        .per_endpoint(factory);
    let calls = (0..1_000).map(|_| client.clone().oneshot(get()));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    let most = most.load(Ordering::Relaxed);
    assert!(most > 60, "it began at 20, and every call was fast: {most}");
}

/// Calls that end, and that are given up while they wait, hand their turn on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_turn_is_lost_among_thousands_of_calls() {
    let limits = Limits::default().in_flight(3).expect("three are allowed");
    let (factory, _) = scripted(|_| (Duration::ZERO, 200));
    let balancer = manual(4);
    let client = BalanceLayer::new(balancer.clone())
        .limits(limits.pending(40))
        .per_endpoint(factory);
    let callers: Vec<_> = (0..100_u64)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut rng = Rng::seeded(caller);
                let mut answered = 0;
                for _ in 0..100 {
                    let call = client.clone().oneshot(get());
                    let given_up = async {
                        for _ in 0..rng.below(8) {
                            tokio::task::yield_now().await;
                        }
                    };
                    tokio::select! {
                        answer = call => answered += u64::from(answer.is_ok()),
                        () = given_up => {}
                    }
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        let calls = tokio::time::timeout(SOON * 12, caller).await;
        answered += calls.expect("no call waits for ever").expect("no panic");
    }
    assert!(answered > 0);
    assert_eq!((in_flight(&balancer), totals(&balancer).0), (0, answered));
    // Whoever comes now has all the room there is.
    let calls = (0..43).map(|_| client.clone().oneshot(get()));
    let answers = tokio::time::timeout(SOON * 12, futures::future::join_all(calls)).await;
    let answers = answers.expect("no call waits for ever");
    assert!(answers.iter().all(Result::is_ok));
}

/// Polls a future so many times, and drops it then, unless it has ended.
struct GivenUp<F> {
    future: Option<Pin<Box<F>>>,
    left: u32,
}

impl<F: Future> Future for GivenUp<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        self.left -= 1;
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}

/// Retries, pauses, hedges, limits, a wait for room: whenever the caller goes, all that was
/// counted is uncounted, and the next call has all the room there was.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_at_any_moment_leaves_nothing_behind() {
    let calls = AtomicUsize::new(0);
    let (factory, _) = scripted(move |_| match calls.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => (MS * 30, 503),
        1 => (MS * 20, 503),
        2 => (MS * 5, 0),
        _ => (MS * 40, 200),
    });
    let balancer = manual(6);
    let limits = Limits::default().in_flight(1).expect("one is allowed");
    let retry = Retry::default().attempts(Attempts::at_most(4));
    let none = RetryBudget::unlimited();
    let client = BalanceLayer::new(balancer.clone())
        .retry(retry.budget(none))
        .hedge(Hedge::after(MS * 10).budget(none))
        .limits(limits.pending(1).retries(1))
        .per_try_timeout(MS * 35)
        .timeout(MS * 10_000)
        .per_endpoint(factory);
    let mut ended = 0;
    for left in (0..200).chain(0..200) {
        // One in flight, so that the other waits first; both are given up.
        let give_up = |left| GivenUp {
            future: Some(Box::pin(client.clone().oneshot(get()))),
            left,
        };
        let (first, second) = tokio::join!(give_up(left / 8), give_up(left % 8));
        ended += usize::from(first.is_some()) + usize::from(second.is_some());
        drop((first, second));
        assert_eq!(in_flight(&balancer), 0, "given up after {left}");
        let (first, second) =
            tokio::join!(client.clone().oneshot(get()), client.clone().oneshot(get()));
        let refused = [first, second].into_iter().filter_map(Result::err);
        let refused = refused.filter(|error| {
            let ours = error.downcast_ref::<Error>();
            ours.is_some_and(Error::is_overloaded)
        });
        assert_eq!(refused.count(), 0, "one goes and one waits, after {left}");
    }
    assert!(ended > 0, "some were polled to their end");
    assert_eq!(in_flight(&balancer), 0);
}

#[derive(Clone)]
struct Endless;

impl Service<Request<Full<Bytes>>> for Endless {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        let part = || Ok(Frame::data(Bytes::from_static(b"more")));
        let body = StreamBody::new(futures::stream::repeat_with(part));
        std::future::ready(Ok(Response::new(UnsyncBoxBody::new(body))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_lets_wait_breaks_off_in_time_too() {
    let balancer = manual(1);
    let client = BalanceLayer::new(balancer.clone())
        .timeout(MS * 100)
        .layer(Endless);
    let began = Instant::now();
    let mut body = client.oneshot(get()).await.expect("it begins").into_body();
    let error = loop {
        match body.frame().await.expect("it has no end") {
            Ok(_) => tokio::time::advance(MS).await,
            Err(error) => break error,
        }
        assert!(began.elapsed() < MS * 200, "its time is over");
    };
    assert!(ours(&error).is_timed_out(), "{error}");
    // Whoever has something to read and does not is late, and not the endpoint.
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 0, 1)));
}

// ---- on real servers --------------------------------------------------------

#[tokio::test]
async fn an_attempt_that_hangs_is_given_up_and_made_elsewhere() {
    let (silent, live) = (Server::silent("silent").await, Server::start("live").await);
    let balancer = users([silent.endpoint(), live.endpoint()]).await;
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .per_try_timeout(200 * MS)
        .layer(legacy());
    for _ in 0..2 {
        let answer = client.clone().oneshot(get()).await.expect("one answers");
        let text = answer.into_body().collect().await.expect("it is whole");
        assert!(!text.to_bytes().is_empty());
    }
    assert!(silent.served() >= 1 && live.served() == 2);
    assert_eq!(totals_of(&balancer, "silent"), (0, silent.served(), 0));
    let before = silent.served() + live.served();
    // What may not happen twice is not made twice.
    let posts = (0..2).map(|_| client.clone().oneshot(request(Method::POST)));
    let ends = futures::future::join_all(posts).await;
    let timed_out = ends.into_iter().filter_map(Result::err);
    assert_eq!(
        timed_out.filter(|error| ours(error).is_timed_out()).count(),
        1
    );
    assert_eq!(silent.served() + live.served(), before + 2);
}

#[tokio::test]
async fn a_body_breaks_off_when_the_calls_time_is_over() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let client = BalanceLayer::new(balancer.clone())
        .timeout(300 * MS)
        .layer(legacy());
    let answer = client.oneshot(get()).await.expect("its head comes");
    let mut body = answer.into_body();
    assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
    let error = body
        .frame()
        .await
        .expect("it does not end")
        .expect_err("nothing comes");
    assert!(ours(&error).is_timed_out(), "{error}");
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 1, 0)));
}

#[tokio::test]
async fn a_late_call_is_hedged_and_the_loser_counted_once_as_cancelled() {
    let (silent, live) = (Server::silent("silent").await, Server::start("live").await);
    let balancer = users([silent.endpoint(), live.endpoint()]).await;
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .hedge(Hedge::after(50 * MS))
        .layer(legacy());
    for _ in 0..4 {
        let answer = client.clone().oneshot(get()).await.expect("one answers");
        let text = answer.into_body().collect().await.expect("it is whole");
        assert_eq!(
            told(std::str::from_utf8(&text.to_bytes()).expect("text"), "name"),
            "live"
        );
    }
    assert_eq!(totals_of(&balancer, "live"), (4, 0, 0));
    let (succeeded, failed, cancelled) = totals_of(&balancer, "silent");
    assert!(
        (succeeded, failed) == (0, 0) && cancelled >= 1,
        "{cancelled}"
    );
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn calls_beyond_the_limits_wait_or_are_refused() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let limits = Limits::default()
        .in_flight(1)
        .expect("one is allowed")
        .pending(1);
    let client = BalanceLayer::new(balancer.clone())
        .limits(limits)
        .layer(legacy());
    let first = client.clone().oneshot(get()).await.expect("there is room");
    let mut others = [(); 2].map(|()| tokio::spawn(client.clone().oneshot(get())));
    eventually("one is refused", || {
        others.iter().any(JoinHandle::is_finished)
    })
    .await;
    others.sort_by_key(|other| !other.is_finished());
    let [refused, waiting] = others;
    let refused = refused
        .await
        .expect("no panic")
        .expect_err("there is no room");
    assert!(ours(&refused).is_overloaded(), "{refused}");
    assert!(!waiting.is_finished(), "the other one waits");
    assert_eq!(server.served(), 1);
    drop((first, chunks));
    let waited = tokio::time::timeout(SOON, waiting)
        .await
        .expect("it gets its turn");
    let error = waited
        .expect("no panic")
        .expect_err("the server streams but once");
    assert!(
        error.downcast_ref::<Error>().is_none(),
        "it was sent: {error}"
    );
    assert_eq!(server.served(), 2);
}

#[tokio::test]
async fn an_endpoint_that_is_full_is_passed_over() {
    let (slow, chunks) = Server::streaming("slow").await;
    let live = Server::start("live").await;
    let balancer = users([slow.endpoint(), live.endpoint()]).await;
    let limits = Limits::default().per_endpoint(1).expect("one is allowed");
    let client = BalanceLayer::new(balancer.clone())
        .limits(limits)
        .layer(legacy());
    chunks.send("one");
    // Both are asked once; the answer of one stays open.
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(client.clone().oneshot(get()).await.expect("there is room"));
    }
    let full = client
        .clone()
        .oneshot(get())
        .await
        .expect_err("both are busy");
    assert!(ours(&full).is_overloaded(), "{full}");
    open.retain(|answer| answer.headers()["x-server"] == "slow");
    for _ in 0..5 {
        let answer = client.clone().oneshot(get()).await.expect("one is free");
        answer.into_body().collect().await.expect("it is whole");
    }
    assert_eq!((slow.served(), live.served()), (1, 6));
}

#[tokio::test]
async fn a_streamed_body_is_recorded_and_sent_again() {
    type Boxed = UnsyncBoxBody<Bytes, Infallible>;
    let live = Server::start("live").await;
    let balancer = users([dead("dead"), live.endpoint()]).await;
    let client = BalanceLayer::new(balancer)
        .retry_with(Retry::default(), RecordBody::new(Boxed::new))
        .layer(Client::builder(TokioExecutor::new()).build_http::<Boxed>());
    for _ in 0..2 {
        let frames = ["hel", "lo"].map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let body = Boxed::new(StreamBody::new(futures::stream::iter(frames)));
        let request = Request::post("http://users/")
            .body(body)
            .expect("well-formed");
        let answer = client.clone().oneshot(request).await.expect("one is alive");
        let text = answer.into_body().collect().await.expect("it is whole");
        assert_eq!(
            told(std::str::from_utf8(&text.to_bytes()).expect("text"), "body"),
            "hello"
        );
    }
}

/// Each attempt is the whole request; where a URI is rewritten, to another authority.
#[tokio::test]
async fn what_is_sent_again_is_all_that_was_asked() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u32);

    for rewritten in [true, false] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = tower::service_fn({
            let seen = Arc::clone(&seen);
            move |request: Request<Full<Bytes>>| {
                let (head, body) = request.into_parts();
                seen.lock().expect("no test panics here").push((head, body));
                std::future::ready(Ok::<_, BoxError>(
                    Response::builder()
                        .status(503)
                        .body(Empty::<Bytes>::new())
                        .expect("it is well-formed"),
                ))
            }
        });
        let mut asked = request(Method::PUT);
        *asked.uri_mut() = "http://users/v1/me?q=1".parse().expect("it is a URI");
        *asked.version_mut() = http::Version::HTTP_10;
        for (name, value) in [("accept", "a"), ("x-own", "b"), ("accept", "c")] {
            let value = value.parse().expect("it is a value");
            asked.headers_mut().append(name, value);
        }
        asked.extensions_mut().insert(Mark(7));
        let layer = BalanceLayer::new(manual(3)).retry(Retry::default().backoff(MS, MS));
        let answer = if rewritten {
            layer.layer(record).oneshot(asked).await
        } else {
            let factory = move |_: &Endpoint| Ok::<_, Infallible>(record.clone());
            layer.per_endpoint(factory).oneshot(asked).await
        };
        assert_eq!(answer.expect("503 is an answer").status(), 503);

        let seen = std::mem::take(&mut *seen.lock().expect("no test panics here"));
        assert_eq!(seen.len(), 3);
        let mut authorities: Vec<_> = Vec::new();
        for (head, body) in seen {
            assert_eq!(
                (&head.method, head.version),
                (&Method::PUT, http::Version::HTTP_10)
            );
            assert_eq!(head.uri.scheme_str(), Some("http"));
            assert_eq!(
                head.uri.path_and_query().expect("it has a path"),
                "/v1/me?q=1"
            );
            let of = |name| head.headers.get_all(name).iter().collect::<Vec<_>>();
            assert_eq!(of("accept"), ["a", "c"]);
            assert_eq!(of("x-own"), ["b"]);
            assert_eq!(of("host"), if rewritten { vec!["users"] } else { vec![] });
            assert_eq!(head.extensions.get(), Some(&Mark(7)));
            let body = body
                .clone()
                .collect()
                .await
                .expect("it is there")
                .to_bytes();
            assert_eq!(body, "hello");
            authorities.push(head.uri.authority().expect("it has one").to_string());
        }
        authorities.sort_unstable();
        let expected = if rewritten {
            ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]
        } else {
            ["users"; 3]
        };
        assert_eq!(authorities, expected);
    }
}

// ---- a client for each endpoint ---------------------------------------------

#[tokio::test]
async fn each_endpoint_has_a_client_that_goes_with_it() {
    type Made = Arc<Mutex<HashMap<String, Arc<()>>>>;
    #[derive(Clone)]
    struct Held {
        _alive: Arc<()>,
    }
    impl Service<Request<Full<Bytes>>> for Held {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
            assert_eq!(request.uri(), "http://users/", "it stays logical");
            std::future::ready(Ok(Response::new(Full::default())))
        }
    }
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(waypost::strategy::RoundRobin::new())
        .manual()
        .expect("it is a name");
    let at = |id, port| endpoint(id, ([10, 0, 0, 1], port).into_address());
    let set = EndpointSet::new([at("a", 1), at("b", 2)]).expect("ids differ");
    updater.apply(set.clone());
    let made = Made::default();
    let count = Arc::new(AtomicUsize::new(0));
    let (makes, counts) = (Arc::clone(&made), Arc::clone(&count));
    let client = BalanceLayer::new(balancer.clone()).per_endpoint(move |endpoint: &Endpoint| {
        counts.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::new(());
        let mut makes = makes.lock().expect("no test panics here");
        makes.insert(endpoint.id().to_string(), Arc::clone(&alive));
        Ok::<_, Infallible>(Held { _alive: alive })
    });
    let ask = async |times| {
        for _ in 0..times {
            client.clone().oneshot(get()).await.expect("it is answered");
        }
    };
    ask(10).await;
    assert_eq!(count.load(Ordering::Relaxed), 2, "one for each, made once");
    let holders = |id: &str| Arc::strong_count(&made.lock().expect("no panic")[id]);
    assert_eq!((holders("a"), holders("b")), (2, 2));
    // Another weight is no reason for another client, another address is.
    let heavy = at("a", 1).with_weight(5);
    updater.apply(set.next([heavy, at("b", 3)]).expect("ids differ"));
    ask(20).await;
    assert_eq!(count.load(Ordering::Relaxed), 3);
    updater.apply(set.without(&"a".parse().expect("it is an id")));
    eventually("a's client is dropped", || holders("a") == 1).await;
    assert_eq!(holders("b"), 2);
    drop(client);
    eventually("b's goes with the last clone", || holders("b") == 1).await;
}

#[tokio::test]
async fn a_factory_that_fails_for_one_endpoint_leaves_the_others() {
    let balancer = manual(2);
    let (inner, _) = scripted(|_| (MS, 200));
    let mut client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .per_endpoint(move |endpoint: &Endpoint| {
            if endpoint.address().port() == Some(1) {
                return Err("no client for this one");
            }
            Ok(inner(endpoint).unwrap_or_else(|never| match never {}))
        });
    for _ in 0..10 {
        let answer = client
            .call(request(Method::POST))
            .await
            .expect("one can be called");
        assert!(answer.body().is_end_stream());
    }
    assert_eq!(totals(&balancer).0, 10);
}

// ---- who looks on -----------------------------------------------------------

#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        let note = match event {
            CallEvent::Picked { endpoint, attempt } => format!("pick {} {attempt}", endpoint.id()),
            CallEvent::Ended { outcome, .. } => format!("{outcome:?}"),
            CallEvent::Retried { attempt, .. } => format!("retry {attempt}"),
            CallEvent::Done { attempts, .. } => format!("done {attempts}"),
            _ => "other".to_owned(),
        };
        let mut notes = self.0.lock().expect("no test panics here");
        notes.push(format!("{service}: {note}"));
    }
}

#[tokio::test]
async fn an_observer_is_told_each_decision_in_order() {
    let live = Server::start("live").await;
    let balancer = users([dead("dead"), live.endpoint()]).await;
    let notes = Notes::default();
    let client = BalanceLayer::new(balancer)
        .retry(Retry::default())
        .observe(notes.clone())
        .layer(legacy());
    for _ in 0..2 {
        client.clone().oneshot(get()).await.expect("one is alive");
    }
    let notes = notes.0.lock().expect("no test panics here").join(", ");
    let retried = "users: pick dead 1, users: NotSent, users: retry 2, users: pick live 2, \
                   users: Success";
    assert!(notes.contains(retried), "{notes}");
    assert_eq!(notes.matches("Success").count(), 2, "{notes}");
}
