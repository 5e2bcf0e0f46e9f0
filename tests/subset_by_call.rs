//! Calls that name the endpoints they go to: a version, a stage.

mod client_common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client_common::{Server, told};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use waypost::balancer::Why;
use waypost::client::http::{BalanceLayer, RequestSubset};
use waypost::health::outlier::OutlierEjection;
use waypost::strategy::{Random, RoundRobin, Tried};
use waypost::time::Clock;
use waypost::topology::{Fallback, Selector, Topology};
use waypost::{Balancer, Endpoint, EndpointSet, Fixed, Outcome, PickOptions, Status, Updater};

fn version(number: &str) -> Selector {
    Selector::new("version", number)
}

/// Nine of v1 and one of v2, which nobody gets without naming it.
fn hidden() -> Topology {
    Topology::new().split([(version("v1"), 1), (version("v2"), 0)])
}

fn set(v2: Status) -> EndpointSet {
    let endpoint = |i: usize| {
        let is_new = i >= 9;
        Endpoint::builder(format!("10.0.0.{i}:80"))
            .metadata("version", if is_new { "v2" } else { "v1" })
            .zone(if i.is_multiple_of(2) { "even" } else { "odd" })
            .status(if is_new { v2 } else { Status::Up })
            .build()
            .unwrap()
    };
    EndpointSet::new((0..11).map(endpoint)).unwrap()
}

fn balancer(topology: Topology) -> (Balancer, Updater) {
    let builder = Balancer::builder("users").strategy(Random::new());
    let (balancer, mut updater) = builder.topology(topology).manual().unwrap();
    updater.apply(set(Status::Up));
    (balancer, updater)
}

/// How many of 1,000 calls each version gets.
fn shares(balancer: &Balancer, subset: Option<&Selector>) -> BTreeMap<String, u32> {
    let options = subset.map_or(PickOptions::new(), |it| PickOptions::new().subset(it));
    let mut shares = BTreeMap::new();
    for _ in 0..1_000 {
        let pick = balancer.pick_with(&options).unwrap();
        *shares
            .entry(pick.metadata()["version"].to_string())
            .or_default() += 1;
    }
    shares
}

#[test]
fn a_part_of_weight_0_gets_the_calls_that_name_it_and_no_others() {
    let (balancer, _updater) = balancer(hidden());
    assert_eq!(shares(&balancer, None), [("v1".to_owned(), 1_000)].into());
    assert_eq!(
        shares(&balancer, Some(&version("v2"))),
        [("v2".to_owned(), 1_000)].into()
    );
    assert_eq!(
        shares(&balancer, Some(&version("v1"))),
        [("v1".to_owned(), 1_000)].into()
    );
    // Not even a call that has tried all of the others.
    let mut tried = Tried::new();
    while let Ok(pick) = balancer.pick_with(&PickOptions::new().tried(&tried)) {
        assert_eq!(&*pick.metadata()["version"], "v1");
        tried.insert(pick.key());
    }
    assert_eq!(tried.len(), 9);
    let why = balancer.explain();
    let named = why.endpoints.iter().filter(|it| it.why == Why::Named);
    assert_eq!(named.count(), 2, "{why}");
}

#[test]
fn a_part_with_a_share_can_be_named_too_and_keeps_its_zones() {
    let split = Topology::new().split([(version("v1"), 90), (version("v2"), 10)]);
    let (balancer, _updater) = balancer(split.zone("even").min_hosts(1));
    let named = shares(&balancer, Some(&version("v2")));
    assert_eq!(named, [("v2".to_owned(), 1_000)].into());
    let new = version("v2");
    let options = PickOptions::new().subset(&new);
    let mut zones: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..1_000 {
        let pick = balancer.pick_with(&options).unwrap();
        *zones
            .entry(pick.locality().zone().unwrap().to_owned())
            .or_default() += 1;
    }
    // One of v2 in either zone, and as many clients in the one as in the other.
    assert_eq!(zones, [("even".to_owned(), 1_000)].into());
    let plain = shares(&balancer, None);
    assert!(plain["v2"].abs_diff(100) < 40, "{plain:?}");
}

#[test]
fn a_call_whose_part_is_down_falls_back_as_the_split_does() {
    let new = version("v2");
    let named = |fallback: Fallback| {
        let (balancer, mut updater) = balancer(hidden().fallback(fallback));
        updater.apply(set(Status::Down));
        balancer
            .pick_with(&PickOptions::new().subset(&new))
            .map(|it| it.id().to_string())
    };
    assert!(named(Fallback::Any).is_ok());
    assert!(named(Fallback::To(version("v1"))).is_ok());
    let error = named(Fallback::None).unwrap_err();
    assert!(error.is_none_eligible(), "{error}");
    assert!(error.to_string().contains("version=v2"), "{error}");
    assert!(named(Fallback::To(version("v3"))).is_err());
}

#[test]
fn a_call_that_names_what_is_no_part_falls_back() {
    let (balancer, _updater) = balancer(hidden());
    assert_eq!(
        shares(&balancer, Some(&version("v9"))),
        [("v1".to_owned(), 1_000)].into()
    );
    // And one that names something where nothing is split is like any other.
    let (balancer, _updater) = self::balancer(Topology::new());
    let any = shares(&balancer, Some(&version("v2")));
    assert_eq!(any.len(), 2, "{any:?}");
}

/// Its trial call is one that names it, too.
#[test]
fn no_other_call_finds_out_whether_a_part_of_weight_0_is_back() {
    let (clock, hands) = Clock::manual();
    let ejection = OutlierEjection::connections().jitter(Duration::ZERO);
    // Which calls one that fails until it is ejected, as others would not.
    let builder = Balancer::builder("users")
        .strategy(RoundRobin::new())
        .clock(clock)
        .outlier_ejection(ejection);
    let (balancer, mut updater) = builder.topology(hidden()).manual().unwrap();
    updater.apply(set(Status::Up));
    let new = version("v2");
    let named = PickOptions::new().subset(&new);
    let ill = balancer.pick_with(&named).unwrap().id().clone();
    let mut failures = 0;
    while failures < 5 {
        let pick = balancer.pick_with(&named).unwrap();
        let fails = *pick.id() == ill;
        failures += u32::from(fails);
        pick.finish(if fails {
            Outcome::NotSent
        } else {
            Outcome::Success
        });
    }
    updater.look();
    hands.advance(Duration::from_secs(31));
    updater.look();
    assert_eq!(shares(&balancer, None), [("v1".to_owned(), 1_000)].into());
    let trial = balancer.pick_with(&named).unwrap();
    assert_eq!(*trial.id(), ill, "{}", balancer.explain());
}

/// When all that have a share are gone, those of weight 0 are what is left.
#[test]
fn any_endpoint_is_one_of_weight_0_too() {
    let gone = |fallback: Fallback| {
        let (balancer, mut updater) = balancer(hidden().fallback(fallback));
        let left = set(Status::Up)
            .iter()
            .filter(|it| &*it.metadata()["version"] == "v2")
            .map(|it| (**it).clone())
            .collect::<Vec<_>>();
        updater.apply(EndpointSet::new(left).unwrap());
        balancer
    };
    let any = gone(Fallback::Any);
    assert_eq!(shares(&any, None), [("v2".to_owned(), 1_000)].into());
    let none = gone(Fallback::None);
    assert!(none.pick().unwrap_err().is_none_eligible());
    let named = shares(&none, Some(&version("v2")));
    assert_eq!(named, [("v2".to_owned(), 1_000)].into());
}

#[tokio::test]
async fn a_header_names_the_version_on_real_servers() {
    let mut servers = Vec::new();
    for name in ["v1", "v2"] {
        servers.push(Server::start(name).await);
    }
    let endpoints = servers.iter().map(|server| {
        let (name, at) = (server.name, server.endpoint());
        Endpoint::builder(at.address().clone())
            .metadata("version", name)
            .build()
            .unwrap()
    });
    let users = Balancer::builder("users")
        .topology(hidden())
        .build(Fixed::new(endpoints).unwrap())
        .await
        .unwrap();
    let subset = RequestSubset::header("x-version", "version").unwrap();
    let client = BalanceLayer::new(users)
        .subset(subset)
        .layer(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let reached = async |headers: &[(&'static str, &str)], named: Option<Selector>| {
        let mut request = Request::get("http://users/").body(Full::default()).unwrap();
        let headers = headers.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        request.headers_mut().extend(headers.collect::<HeaderMap>());
        request
            .extensions_mut()
            .extend(named.map(extension).unwrap_or_default());
        let answer = client.clone().oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        told(std::str::from_utf8(&body).unwrap(), "name").to_owned()
    };
    for _ in 0..10 {
        assert_eq!(reached(&[], None).await, "v1");
        assert_eq!(reached(&[("x-version", "v2")], None).await, "v2");
        assert_eq!(reached(&[("x-version", "v1")], None).await, "v1");
        let named = Some(version("v2"));
        assert_eq!(reached(&[("x-version", "v1")], named).await, "v2");
    }
}

fn extension(selector: Selector) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    extensions.insert(selector);
    extensions
}

#[test]
fn names_of_headers_that_cannot_be_are_refused() {
    let error = RequestSubset::header("x version", "version").unwrap_err();
    assert!(
        error.is_invalid() && error.to_string().contains("header"),
        "{error}"
    );
}
