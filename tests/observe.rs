//! What those who watch are told.

mod client_common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use client_common::{Server, dead, users};
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer as _, ServiceExt as _};
use tracing::field::{Field, Visit};
use tracing::span;
use waypost::client::http::BalanceLayer;
use waypost::config::Config;
use waypost::event::{CallEvent, CallScope, Observer};
use waypost::observe::{EndpointState, Freshness, Metered, Report, Traced, dashboard};
use waypost::resilience::Retry;
use waypost::strategy::RoundRobin;
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, ServiceName};

/// Two calls, one of which meets a dead endpoint first.
async fn two_calls(observer: impl Observer) -> Balancer {
    let live = Server::start("live").await;
    let balancer = users([dead("dead"), live.endpoint()]).await;
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .observe(observer)
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    for _ in 0..2 {
        let request = Request::get("http://users/?token=secret").body(Full::default());
        let answer = client.clone().oneshot(request.expect("well-formed")).await;
        let body = answer.expect("one is alive").into_body();
        body.collect().await.expect("it is whole");
    }
    balancer
}

#[tokio::test]
async fn metrics_count_attempts_retries_and_outcomes_by_service() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let balancer = two_calls(Metered::default().by_endpoint()).await;
    Metered::gauges(&balancer);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
        assert_eq!(labels[0], "users");
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Gauge(value) => value.into_inner() as u64,
            DebugValue::Histogram(values) => values.len() as u64,
        };
        *counts.entry(key.key().name().to_owned()).or_default() += count;
    }
    let retries = counts["waypost_retries_total"];
    assert!((1..=2).contains(&retries), "{counts:?}");
    assert_eq!(counts["waypost_attempts_total"], 2 + retries);
    assert_eq!(counts["waypost_attempt_seconds"], 2 + retries);
    assert_eq!(counts["waypost_call_seconds"], 2, "whatever the retries");
    assert_eq!(counts["waypost_endpoints"], 4, "two known, two eligible");
    assert_eq!(
        (counts["waypost_in_flight"], counts["waypost_stale"]),
        (0, 0)
    );
}

#[tokio::test]
async fn ejections_are_counted_until_the_balancer_is_gone() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let (balancer, mut updater) = Balancer::builder("users").manual().expect("it is a name");
    let at = |address| Endpoint::at(address).expect("an address");
    updater.apply(EndpointSet::new([at("10.0.0.1:1"), at("10.0.0.2:1")]).expect("ids differ"));
    let counting = Metered::default().follow(&balancer);
    for _ in 0..20 {
        let pick = balancer.pick().expect("there is one");
        pick.finish(Outcome::Interrupted);
        updater.look();
    }
    drop((balancer, updater));
    counting.await;
    let ejections = snapshots.snapshot().into_vec().into_iter().map(|one| {
        let (key, _, _, value) = one;
        (key.key().name().to_owned(), value)
    });
    // The other one is all that is left, and stays.
    let expected = ("waypost_ejections_total".to_owned(), DebugValue::Counter(1));
    assert_eq!(ejections.collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn a_configuration_that_has_metrics_has_those_of_changes_too() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let config = "service = 'users'\ncalls.observe.metrics = true\n\
                  registry.fixed.addresses = ['10.0.0.1:80', '10.0.0.2:80']";
    let config = Config::from_toml(config).expect("it is one");
    let (balancer, _calls) = config.build().await.expect("it can be built");
    for _ in 0..20 {
        let pick = balancer.pick().expect("one is always left");
        pick.finish(Outcome::Interrupted);
    }
    let counted = async {
        loop {
            let mut metrics = snapshots.snapshot().into_vec().into_iter();
            if metrics.any(|(key, ..)| key.key().name() == "waypost_ejections_total") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(30), counted).await;
    counted.expect("the ejection is counted");
}

/// Notes its name whenever it is told something.
#[derive(Clone, Debug)]
struct Noting(&'static str, Arc<Mutex<Vec<String>>>);

impl Noting {
    fn note(&self, what: &str) {
        let mut notes = self.1.lock().expect("no test panics here");
        notes.push(format!("{} {what}", self.0));
    }
}

impl Observer for Noting {
    fn call(&self, _: &ServiceName, event: CallEvent<'_>) {
        if let CallEvent::Done { .. } = event {
            self.note("done");
        }
    }

    fn scope(&self, _: &ServiceName, method: &str) -> Option<Box<dyn CallScope>> {
        self.note(method);
        Some(Box::new(self.clone()))
    }
}

impl CallScope for Noting {
    fn within(&self, step: &mut dyn FnMut()) {
        self.note("in");
        step();
        self.note("out");
    }

    fn told(&self, event: CallEvent<'_>) {
        if let CallEvent::Done { .. } = event {
            self.note("told");
        }
    }
}

#[tokio::test]
async fn all_who_observe_are_told_and_calls_run_within_the_scopes_of_all() {
    let notes = Arc::<Mutex<Vec<String>>>::default();
    let live = Server::start("live").await;
    let client = BalanceLayer::new(users([live.endpoint()]).await)
        .observe(Noting("first", Arc::clone(&notes)))
        .observe(Noting("second", Arc::clone(&notes)))
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let request = Request::get("http://users/").body(Full::default());
    let answer = client.oneshot(request.expect("well-formed")).await;
    answer.expect("it is alive");
    let notes = notes.lock().expect("no test panics here");
    assert_eq!(
        notes[..4],
        ["first GET", "second GET", "first in", "second in"]
    );
    let told = ["first done", "second done", "first told", "second told"];
    let last = [&told[..], &["second out", "first out"]].concat();
    assert_eq!(notes[notes.len() - last.len()..], last);
}

/// Keeps every event as text.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("waypost")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                use std::fmt::Write as _;
                write!(self.0, " {field}={value:?}").expect("it is a string");
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().expect("no test panics here").push(text.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn tracing_is_told_each_decision_and_no_secret() {
    let events = Events::default();
    let guard = tracing::subscriber::set_default(events.clone());
    two_calls(Traced).await;
    drop(guard);
    let events = events.0.lock().expect("no test panics here");
    let count = |wanted: &str| events.iter().filter(|event| event.contains(wanted)).count();
    assert!(count("TRACE message=picked service=users endpoint=dead attempt=1") >= 1);
    assert!(count("DEBUG message=retried service=users attempt=2") >= 1);
    assert_eq!(count("outcome=Success"), 2, "{events:?}");
    assert_eq!(count("secret"), 0, "{events:?}");
}

#[test]
fn a_report_says_why_an_endpoint_takes_no_calls() {
    // Which calls one that fails until it is ejected, as others would not.
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(RoundRobin::new())
        .manual()
        .expect("it is a name");
    assert_eq!(Report::of(&balancer).discovery, Freshness::Unknown);
    let at = |id: &str, port: u16| Endpoint::builder(format!("10.0.0.1:{port}")).id(id);
    let endpoints = [
        at("a", 1).build(),
        at("b", 2).weight(0).build(),
        at("c", 3)
            .build()
            .map(|one| one.with_status(waypost::Status::Draining)),
    ];
    let endpoints = endpoints.map(|endpoint| endpoint.expect("well-formed"));
    updater.apply(EndpointSet::new(endpoints).expect("ids differ"));
    let held = balancer.pick().expect("there is one");
    let report = Report::of(&balancer);
    assert_eq!(
        (report.discovery, report.eligible, report.in_flight),
        (Freshness::Fresh, 1, 1)
    );
    let why = |id: &str| {
        report
            .endpoints
            .iter()
            .find(|one| one.id == id)
            .map(|one| one.why.as_str())
    };
    assert_eq!(why("a"), Some("100.0 % of the calls"));
    assert_eq!(why("b"), Some("no calls, its weight is 0"));
    assert!(why("c").is_some_and(|why| why.contains("draining")));

    // What calls have told of it, too.
    drop(held);
    let two = [at("a", 1), at("b", 2)].map(|it| it.build().expect("well-formed"));
    updater.apply(EndpointSet::new(two).expect("ids differ"));
    for _ in 0..100 {
        let pick = balancer.pick().expect("there is one");
        let is_ill = pick.id().as_str() == "a";
        pick.finish(if is_ill {
            Outcome::NotSent
        } else {
            Outcome::Success
        });
        updater.look();
    }
    let report = Report::of(&balancer);
    let why: Vec<_> = report
        .endpoints
        .iter()
        .map(|one| one.why.as_str())
        .collect();
    assert!(why[0].contains("without an answer"), "{why:?}");
    assert_eq!((report.eligible, why[1]), (1, "100.0 % of the calls"));
    let states = report.endpoints.iter().map(|one| one.state);
    let expected = [EndpointState::Ejected, EndpointState::Up];
    assert_eq!(states.collect::<Vec<_>>(), expected);
    let written = serde_json::to_string(&report).expect("JSON");
    let read: Report = serde_json::from_str(&written).expect("it reads back");
    assert_eq!(read.endpoints[0].why, report.endpoints[0].why);
    assert_eq!(read.endpoints[0].state, EndpointState::Ejected);
}

#[tokio::test]
async fn the_dashboard_serves_a_page_of_its_own_and_json() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let router = dashboard([balancer]);
    let ask = async |path: &str| {
        let request = Request::get(path).body(axum::body::Body::new(Empty::new()));
        let answer = router.clone().oneshot(request.expect("well-formed")).await;
        let answer = answer.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("it is whole");
        String::from_utf8(body.to_bytes().to_vec()).expect("it is text")
    };
    let page = ask("/").await;
    assert!(page.contains("<title>waypost</title>"));
    for elsewhere in ["http://", "https://", "src=", "innerHTML"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    let reports: serde_json::Value =
        serde_json::from_str(&ask("/balancers.json").await).expect("it is JSON");
    assert_eq!(reports[0]["service"], "users");
    assert_eq!(reports[0]["endpoints"][0]["id"], "a");
}
