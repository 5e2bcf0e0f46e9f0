//! What servers say of their load, from a real server by a real client to the strategies that go by
//! it.

#![allow(clippy::float_cmp, reason = "reported numbers come back as they were")]

mod common;
#[allow(dead_code, reason = "shared with tests that use more of it")]
#[path = "common/picks.rs"]
mod picks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use picks::{balancer, hold, position};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceExt as _};
use waypost::client::LoadProbes;
use waypost::client::http::BalanceLayer;
use waypost::load::LoadReport;
use waypost::server::ReportLoad;
use waypost::strategy::{Adaptive, LoadWeighted, P2c, Prequal, Strategy};
use waypost::time::{Clock, Hands};
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, Updater};

// ---- end to end -------------------------------------------------------------

/// An answer that holds nothing else.
fn said(layer: &ReportLoad) -> impl axum::response::IntoResponse + use<> {
    let value = layer.report().to_header().expect("it is text");
    [(LoadReport::HEADER, value)]
}

/// A server whose calls end when a permit comes.
async fn server(layer: ReportLoad, permits: Arc<Semaphore>) -> Endpoint {
    let held = move || {
        let permits = Arc::clone(&permits);
        async move {
            let permit = permits.acquire().await.expect("it is never closed");
            permit.forget();
            "done"
        }
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/held", get(held))
        .layer(layer.clone())
        .route("/load", get(move || async move { said(&layer) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Endpoint::at(address.to_string().as_str()).expect("it is an address")
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let uri = format!("http://users{path}");
    Request::get(uri)
        .body(Full::default())
        .expect("it is well-formed")
}

fn over(endpoints: Vec<Endpoint>, strategy: impl Strategy) -> (Balancer, Updater) {
    let built = Balancer::builder("users").strategy(strategy).manual();
    let (balancer, mut updater) = built.expect("it is a name");
    updater.apply(EndpointSet::new(endpoints).expect("ids differ"));
    (balancer, updater)
}

#[tokio::test]
async fn a_server_that_says_it_is_busy_gets_no_calls_of_a_client_that_sees_none() {
    let permits = Arc::new(Semaphore::new(0));
    let busy = ReportLoad::new().limit(10).expect("it is above 0");
    let idle = ReportLoad::new().limit(10).expect("it is above 0");
    let busy_one = server(busy.clone(), Arc::clone(&permits)).await;
    let address = busy_one.address().clone();
    let endpoints = vec![busy_one, server(idle, Arc::clone(&permits)).await];

    let plain: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    // Another client's calls, of which ours knows nothing.
    let others: Vec<_> = (0..8)
        .map(|_| {
            let uri = format!("http://{address}/held")
                .parse()
                .expect("it is a URI");
            tokio::spawn(plain.get(uri))
        })
        .collect();
    comes_true(|| busy.report().in_flight() == Some(8.0)).await;

    let (balancer, _updater) = over(endpoints, Adaptive::new());
    let client = BalanceLayer::new(balancer.clone()).layer(plain.clone());
    for _ in 0..20 {
        let answer = client
            .clone()
            .oneshot(request("/"))
            .await
            .expect("it is answered");
        let report = LoadReport::of(answer.headers())
            .expect("it is one")
            .expect("it is there");
        let held = report.in_flight().expect("it is told");
        assert!([0.0, 8.0].contains(&held), "{held}");
        answer.into_body().collect().await.expect("it is whole");
    }
    let calls_of = |wanted: bool| {
        let nodes = balancer.nodes();
        let mut nodes = nodes.iter();
        let node = nodes.find(|node| (*node.endpoint().address() == address) == wanted);
        node.expect("it is known").stats().totals().succeeded
    };
    // Eight of ten for as long as they are held, and nothing before.
    let utilization = busy.report().application_utilization;
    assert!(utilization > 0.0 && utilization <= 0.8, "{utilization}");
    // One call, to hear of it.
    assert!(
        calls_of(true) <= 2,
        "{} {}",
        calls_of(true),
        calls_of(false)
    );
    permits.add_permits(8);
    for other in others {
        assert!(
            other
                .await
                .expect("it ran")
                .expect("it is answered")
                .status()
                .is_success()
        );
    }
}

/// Reports are read from reqwest's answers as from hyper's.
#[tokio::test]
async fn a_client_of_reqwest_hears_that_a_server_is_busy() {
    let permits = Arc::new(Semaphore::new(0));
    let [busy, idle] = [(); 2].map(|()| ReportLoad::new().limit(10).expect("it is above 0"));
    let busy_one = server(busy.clone(), Arc::clone(&permits)).await;
    let (id, address) = (busy_one.id().clone(), busy_one.address().clone());
    let endpoints = vec![busy_one, server(idle, permits).await];
    // The tests' reqwest has TLS, and will not choose a provider by itself.
    drop(rustls::crypto::ring::default_provider().install_default());
    let plain = reqwest::Client::builder().no_proxy().build();
    let plain = plain.expect("it needs nothing");
    // Another client's calls, of which ours knows nothing.
    let _others: Vec<_> = (0..8)
        .map(|_| tokio::spawn(plain.get(format!("http://{address}/held")).send()))
        .collect();
    comes_true(|| busy.report().in_flight() == Some(8.0)).await;

    let (balancer, _updater) = over(endpoints, Adaptive::new());
    let client = reqwest_middleware::ClientBuilder::new(plain)
        .with(balancer.middleware())
        .build();
    for _ in 0..20 {
        let answer = client.get("http://users/").send().await;
        let text = answer.expect("it is answered").text().await;
        assert_eq!(text.expect("it is whole"), "hello");
    }
    let nodes = balancer.nodes();
    let busy_node = nodes.iter().find(|node| *node.endpoint().id() == id);
    let calls = busy_node.expect("it is known").stats().totals().succeeded;
    // One call, to hear of it.
    assert!(calls <= 2, "{calls}");
}

/// Nobody's calls go there, and yet its load is known.
#[tokio::test]
async fn probes_tell_what_no_call_could() {
    let permits = Arc::new(Semaphore::new(0));
    let (busy, idle) = (ReportLoad::new(), ReportLoad::new());
    let busy_one = server(busy.clone(), Arc::clone(&permits)).await;
    let address = busy_one.address().clone();
    let endpoints = vec![busy_one, server(idle, Arc::clone(&permits)).await];
    let plain: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let others: Vec<_> = (0..8)
        .map(|_| {
            let uri = format!("http://{address}/held").parse();
            tokio::spawn(plain.get(uri.expect("it is a URI")))
        })
        .collect();
    comes_true(|| busy.report().in_flight() == Some(8.0)).await;

    let (balancer, _updater) = over(endpoints, Prequal::new());
    assert!(LoadProbes::http(plain.clone(), "load").is_err());
    let probes = LoadProbes::http(plain, "/load").expect("it is a path");
    let probing = probes.start(&balancer).expect("there is a runtime");
    let node = |wanted: bool| {
        let nodes = balancer.nodes();
        let mut nodes = nodes.into_iter();
        nodes.find(|node| (*node.endpoint().address() == address) == wanted)
    };
    // Sixteen at first, then three for each call.
    comes_true(|| probing.answered() >= 16).await;
    let before = node(true).expect("it is known").stats().totals().ended();
    for _ in 0..8 {
        balancer
            .pick()
            .expect("both are up")
            .finish(Outcome::Success);
    }
    let after = node(true).expect("it is known").stats().totals().ended();
    assert_eq!(after - before, 0, "the probes said that it is busy");
    comes_true(|| probing.answered() >= 16 + 24).await;
    assert_eq!(probing.failed(), 0);
    permits.add_permits(8);
    for other in others {
        assert!(other.await.expect("it ran").is_ok());
    }
}

async fn comes_true(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.expect("it comes true");
}

// ---- by reports, in virtual time --------------------------------------------

fn timed(strategy: impl Strategy, weights: &[u32]) -> (Balancer, Updater, Hands) {
    let (clock, hands) = Clock::manual();
    let built = Balancer::builder("users")
        .strategy(strategy)
        .clock(clock)
        .manual();
    let (balancer, mut updater) = built.expect("it is a name");
    updater.apply(common::weighted(weights));
    (balancer, updater, hands)
}

fn report(rate: f64, utilization: f64) -> LoadReport {
    LoadReport {
        rps_fractional: rate,
        application_utilization: utilization,
        ..LoadReport::default()
    }
}

fn tell(balancer: &Balancer, at: usize, report: &LoadReport) {
    let pick = hold(balancer, at);
    pick.report(report);
    pick.finish(Outcome::Success);
}

fn shares(balancer: &Balancer, n: usize, calls: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n];
    for _ in 0..calls {
        let pick = balancer.pick().expect("there are endpoints");
        counts[position(&pick)] += 1.0 / calls as f64;
        pick.finish(Outcome::Success);
    }
    counts
}

fn assert_near(found: &[f64], expected: &[f64]) {
    let total: f64 = expected.iter().sum();
    for (found_one, expected) in found.iter().zip(expected) {
        let expected = expected / total;
        assert!(
            (found_one - expected).abs() < 0.005,
            "{found:?}: not {expected}"
        );
    }
}

#[test]
fn shares_are_the_weights_that_the_reports_give() {
    let (balancer, _updater, hands) = timed(LoadWeighted::new(), &[1, 1, 1, 1]);
    let said = [report(100.0, 0.25), report(100.0, 0.5), report(100.0, 1.0)];
    for (at, report) in said.iter().enumerate() {
        tell(&balancer, at, report);
    }
    hands.advance(Duration::from_secs(9));
    assert_near(&shares(&balancer, 4, 4_000), &[1.0; 4]);
    hands.advance(Duration::from_secs(2));
    // The last says nothing, and gets the mean of 400, 200 and 100.
    assert_near(&shares(&balancer, 4, 20_000), &[400.0, 200.0, 100.0, 233.3]);
    hands.advance(Duration::from_mins(3));
    assert_near(&shares(&balancer, 4, 4_000), &[1.0; 4]);
}

#[test]
fn an_endpoints_own_weight_multiplies_what_it_reports() {
    let (balancer, _updater, hands) = timed(LoadWeighted::new(), &[1, 3, 1]);
    assert_near(&shares(&balancer, 3, 5_000), &[1.0, 3.0, 1.0]);
    for at in 0..3 {
        tell(
            &balancer,
            at,
            &report(10.0, if at == 0 { 0.1 } else { 0.2 }),
        );
    }
    hands.advance(Duration::from_secs(11));
    assert_near(&shares(&balancer, 3, 12_000), &[2.0, 3.0, 1.0]);
}

#[test]
fn a_change_of_the_set_does_not_begin_the_blackout_anew() {
    let (balancer, mut updater, hands) = timed(LoadWeighted::new(), &[1, 1]);
    tell(&balancer, 0, &report(10.0, 0.1));
    tell(&balancer, 1, &report(10.0, 0.4));
    hands.advance(Duration::from_secs(11));
    updater.apply(common::weighted(&[2, 2]));
    assert_near(&shares(&balancer, 2, 5_000), &[4.0, 1.0]);
}

/// Two endpoints at a hundred calls a second, of which the first fails some, at half their use.
fn told(strategy: LoadWeighted, failures: f64) -> (Balancer, Updater, Hands) {
    let (balancer, updater, hands) = timed(strategy.blackout(Duration::ZERO), &[1, 1]);
    let failing = LoadReport {
        eps: failures,
        ..report(100.0, 0.5)
    };
    tell(&balancer, 0, &failing);
    tell(&balancer, 1, &report(100.0, 0.5));
    hands.advance(Duration::from_secs(1));
    (balancer, updater, hands)
}

#[test]
fn failures_weigh_what_the_penalty_says() {
    // 100 / (.5 + 50 / 100 · penalty), beside 100 / .5.
    for (penalty, expected) in [(0.0, 200.0), (1.0, 100.0), (3.0, 50.0)] {
        let strategy = LoadWeighted::new().penalty(penalty).expect("it is one");
        let (balancer, ..) = told(strategy, 50.0);
        assert_near(&shares(&balancer, 2, 10_000), &[expected, 200.0]);
    }
    for penalty in [-0.1, f32::NAN, f32::INFINITY] {
        let refused = LoadWeighted::new().penalty(penalty).unwrap_err();
        assert!(refused.is_invalid() && refused.to_string().contains("penalty"));
    }
}

#[test]
fn a_report_counts_until_it_expires() {
    let strategy = LoadWeighted::new().expiry(Duration::from_secs(5));
    let (balancer, _updater, hands) = told(strategy, 50.0);
    let unequal = [100.0, 200.0];
    assert_near(&shares(&balancer, 2, 6_000), &unequal);
    hands.advance(Duration::from_secs(3));
    assert_near(&shares(&balancer, 2, 6_000), &unequal);
    hands.advance(Duration::from_secs(2));
    assert_near(&shares(&balancer, 2, 6_000), &[1.0, 1.0]);
}

/// As often as gRPC at the most, whatever is asked for.
#[test]
fn weights_are_computed_when_they_are_due() {
    for (asked, period) in [(5_000, 5_000), (1, 100)] {
        let strategy = LoadWeighted::new().update(Duration::from_millis(asked));
        let (balancer, _updater, hands) = told(strategy, 50.0);
        let (old, new) = ([100.0, 200.0], [1.0, 1.0]);
        hands.advance(Duration::from_secs(10));
        assert_near(&shares(&balancer, 2, 6_000), &old);
        tell(&balancer, 0, &report(100.0, 0.5));
        hands.advance(Duration::from_millis(period - 1));
        assert_near(&shares(&balancer, 2, 6_000), &old);
        hands.advance(Duration::from_millis(1));
        assert_near(&shares(&balancer, 2, 6_000), &new);
    }
}

#[test]
fn a_strategy_that_does_not_ask_is_told_nothing() {
    let (balancer, _updater) = balancer(P2c::new(), &[1, 1]);
    assert!(!hold(&balancer, 0).detach().wants_report());
    let (balancer, _updater) = self::balancer(Adaptive::new(), &[1, 1]);
    assert!(hold(&balancer, 0).detach().wants_report());
}

#[test]
fn what_fails_is_left_alone_and_comes_back() {
    let (balancer, _updater, hands) = timed(Adaptive::new(), &[1, 1, 1]);
    let mut failed = 0;
    let mut run = |calls: u32, broken: bool| {
        for _ in 0..calls {
            let pick = balancer.pick().expect("there are endpoints");
            let fails = broken && position(&pick) == 0;
            failed += u32::from(fails);
            hands.advance(Duration::from_micros(if fails { 100 } else { 1_000 }));
            pick.finish(if fails {
                Outcome::ServerError
            } else {
                Outcome::Success
            });
        }
        std::mem::take(&mut failed)
    };
    assert_eq!(run(100, false), 0);
    // Though it answers ten times faster than the others.
    let lost = run(5_000, true);
    assert!((1..=2).contains(&lost), "{lost}");
    hands.advance(Duration::from_mins(3));
    let before = balancer
        .nodes()
        .iter()
        .map(|node| node.stats().totals().succeeded)
        .min();
    run(1_000, false);
    let after = balancer
        .nodes()
        .iter()
        .map(|node| node.stats().totals().succeeded)
        .min();
    assert!(after > before, "{before:?} {after:?}");
}

#[test]
fn an_idle_service_is_shared_by_weight_while_nothing_is_known() {
    let (balancer, _updater) = balancer(Adaptive::new(), &[1, 1, 1, 1]);
    let held: Vec<_> = (0..40)
        .map(|_| balancer.pick().expect("there are some"))
        .collect();
    let mut counts = [0; 4];
    for pick in &held {
        counts[position(pick)] += 1;
    }
    assert_eq!(counts, [10; 4]);
}
