//! The span of a call and what is in it, and the events of changes.

mod client_common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use client_common::{Server, dead, users};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};
use waypost::client::http::BalanceLayer;
use waypost::observe::{Traced, trace_changes};
use waypost::resilience::Retry;
use waypost::{Balancer, Endpoint, InMemory, Outcome, Registry as _, strategy};

/// Collects spans and events, on the one thread of a test.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Everything>>);

#[derive(Default)]
struct Everything {
    spans: Vec<Fields>,
    /// Each with the span that it came in.
    events: Vec<(Option<u64>, Fields)>,
    entered: Vec<u64>,
}

type Fields = BTreeMap<String, String>;

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl Collected {
    fn all(&self) -> MutexGuard<'_, Everything> {
        self.0.lock().expect("no test panics here")
    }
}

impl Subscriber for Collected {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("waypost")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let metadata = attributes.metadata();
        let mut fields = Fields::from([
            ("level".into(), metadata.level().to_string()),
            ("name".into(), metadata.name().into()),
        ]);
        attributes.record(&mut Read(&mut fields));
        let mut all = self.all();
        all.spans.push(fields);
        span::Id::from_u64(all.spans.len() as u64)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        let at = id.into_u64() as usize - 1;
        values.record(&mut Read(&mut self.all().spans[at]));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = event.metadata().level().to_string();
        let mut fields = Fields::from([("level".into(), level)]);
        event.record(&mut Read(&mut fields));
        let mut all = self.all();
        let within = all.entered.last().copied();
        all.events.push((within, fields));
    }

    fn enter(&self, id: &span::Id) {
        self.all().entered.push(id.into_u64());
    }

    fn exit(&self, id: &span::Id) {
        assert_eq!(self.all().entered.pop(), Some(id.into_u64()));
    }
}

fn fields<const N: usize>(of: [(&str, &str); N]) -> Fields {
    of.map(|(name, value)| (name.into(), value.into())).into()
}

async fn call(balancer: &Balancer, method: &str) -> bool {
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .observe(Traced)
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let request = Request::builder()
        .method(method)
        .uri("http://users/private/path?token=secret")
        .header("authorization", "secret")
        .body(Full::from("secret"));
    match client.oneshot(request.expect("well-formed")).await {
        Ok(answer) => {
            let body = answer.into_body().collect();
            body.await.expect("it is whole");
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_call_is_one_span_and_each_decision_an_event_in_it() {
    let collected = Collected::default();
    let live = Server::start("live").await;
    // The first in the order of ids is dead, and is tried first.
    let set = [dead("a-dead"), live.endpoint()];
    let (balancer, mut updater) = Balancer::builder("users")
        .strategy(strategy::PickFirst::new())
        .manual()
        .expect("it is a name");
    updater.apply(waypost::EndpointSet::new(set).expect("ids differ"));
    let guard = tracing::subscriber::set_default(collected.clone());
    assert!(call(&balancer, "GET").await && call(&balancer, "PUT").await);
    drop(guard);

    let all = collected.all();
    let expected = |method| {
        fields([
            ("level", "INFO"),
            ("name", "call"),
            ("service", "users"),
            ("method", method),
            ("endpoint", "live"),
            ("attempts", "2"),
            ("outcome", "success"),
        ])
    };
    assert_eq!(all.spans, [expected("GET"), expected("PUT")]);
    assert!(all.entered.is_empty());
    for span in [1, 2] {
        let events = all
            .events
            .iter()
            .filter(|(within, _)| *within == Some(span));
        let told: Vec<_> = events
            .map(|(_, fields)| (&*fields["level"], &*fields["message"]))
            .collect();
        let attempt = [("TRACE", "picked"), ("TRACE", "ended")];
        let expected = [&attempt[..], &[("DEBUG", "retried")], &attempt].concat();
        assert_eq!(told, expected);
    }
    assert_eq!(all.events.len(), 10, "all of them are in a span");
    let shown = format!("{:?}{:?}", all.spans, all.events);
    assert!(
        !shown.contains("secret") && !shown.contains("private"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_call_that_is_refused_and_one_that_is_given_up_say_so() {
    let collected = Collected::default();
    let guard = tracing::subscriber::set_default(collected.clone());
    let nobody = users([]).await;
    assert!(!call(&nobody, "GET").await);
    let hangs = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = hangs.local_addr().expect("it is bound");
    let hanging = users([Endpoint::builder(address)
        .id("hangs")
        .build()
        .expect("valid")])
    .await;
    tokio::select! {
        _ = call(&hanging, "GET") => unreachable!("nobody answers"),
        accepted = hangs.accept() => drop(accepted.expect("it came")),
    }
    drop(guard);
    let all = collected.all();
    let outcomes = all
        .spans
        .iter()
        .map(|span| span.get("outcome").map(|text| &**text));
    assert_eq!(outcomes.collect::<Vec<_>>(), [Some("refused"), None]);
    let refused = all
        .events
        .iter()
        .find(|(_, event)| event["level"] == "WARN");
    let (within, event) = refused.expect("it was told");
    assert_eq!((*within, &*event["message"]), (Some(1), "refused"));
}

#[tokio::test]
async fn changes_are_told_at_info_until_the_balancer_is_gone() {
    let collected = Collected::default();
    let guard = tracing::subscriber::set_default(collected.clone());
    let registry = InMemory::new();
    let service = "users".parse().expect("a name");
    let mut registrations = Vec::new();
    for port in [1, 2] {
        let endpoint = Endpoint::at(format!("10.0.0.{port}:80")).expect("valid");
        let registered = registry.register(&service, endpoint).await;
        registrations.push(registered.expect("it takes entries"));
    }
    // Which calls one that fails until it is ejected, as others would not.
    let balancer = Balancer::builder("users")
        .strategy(strategy::RoundRobin::new())
        .build(registry)
        .await
        .expect("it starts");
    let tracing = tokio::spawn(trace_changes(&balancer));
    for _ in 0..20 {
        let pick = balancer.pick().expect("there is one");
        let ill = pick.address().as_str() == "10.0.0.1:80";
        pick.finish(if ill {
            Outcome::Interrupted
        } else {
            Outcome::Success
        });
    }
    let told = |message: &str| {
        let all = collected.all();
        let said = |event: &&(_, Fields)| event.1["message"] == message;
        all.events.iter().find(said).map(|(_, event)| event.clone())
    };
    while told("ejected").is_none() {
        tokio::task::yield_now().await;
    }
    let ejected = told("ejected").expect("it was told");
    assert_eq!(
        (&*ejected["level"], &*ejected["endpoint"]),
        ("WARN", "10.0.0.1:80")
    );
    let fresh = told("the set is fresh").expect("it was told");
    assert_eq!((&*fresh["level"], &*fresh["endpoints"]), ("INFO", "2"));
    drop(balancer);
    tracing
        .await
        .expect("it ends when nobody holds the balancer");
    drop(guard);
}
