//! Sessions that keep to their endpoint.

mod client_common;

use bytes::Bytes;
use client_common::{Server, told};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use waypost::client::http::{BalanceLayer, Sticky};
use waypost::endpoint::EndpointId;
use waypost::health::outlier::OutlierEjection;
use waypost::strategy::{Random, RoundRobin, Tried};
use waypost::{Balancer, Endpoint, EndpointSet, Outcome, PickOptions, Status, Updater};

fn endpoint(id: &str, status: Status) -> Endpoint {
    let builder = Endpoint::builder(format!("{id}:80"));
    builder.id(id).status(status).build().expect("it is one")
}

fn carts(statuses: &[(&str, Status)]) -> (Balancer, Updater) {
    let builder = Balancer::builder("carts").strategy(RoundRobin::new());
    let one_failure = OutlierEjection::new().consecutive_failures(1);
    let (balancer, mut updater) = builder
        .outlier_ejection(one_failure)
        .manual()
        .expect("it is a name");
    updater.apply(set(statuses));
    (balancer, updater)
}

fn set(statuses: &[(&str, Status)]) -> EndpointSet {
    let endpoints = statuses.iter().map(|&(id, status)| endpoint(id, status));
    EndpointSet::new(endpoints).expect("ids differ")
}

fn ids(ids: &[&str]) -> Vec<EndpointId> {
    ids.iter().map(|id| EndpointId::new(id).unwrap()).collect()
}

/// Where twelve calls go that prefer those.
fn picked(balancer: &Balancer, preferred: &[&str]) -> Vec<String> {
    let preferred = ids(preferred);
    let options = PickOptions::new().prefer(&preferred);
    let picks = (0..12).map(|_| balancer.pick_with(&options).expect("one is up"));
    let mut ids: Vec<_> = picks.map(|pick| pick.id().to_string()).collect();
    ids.sort();
    ids.dedup();
    ids
}

use Status::{Down, Draining, Starting, Up};

#[test]
fn the_preferred_one_gets_every_call_while_it_is_up_or_draining() {
    for status in [Up, Draining] {
        let (balancer, _updater) = carts(&[("a", Up), ("b", status), ("c", Up)]);
        assert_eq!(picked(&balancer, &["b"]), ["b"], "{status:?}");
        assert_eq!(picked(&balancer, &["gone", "b", "a"]), ["b"]);
    }
    for status in [Down, Starting] {
        let (balancer, _updater) = carts(&[("a", Up), ("b", status), ("c", Up)]);
        assert_eq!(picked(&balancer, &["b"]), ["a", "c"], "{status:?}");
        assert_eq!(picked(&balancer, &["b", "c"]), ["c"]);
    }
}

#[test]
fn a_change_of_the_set_moves_nobody_whose_endpoint_stays() {
    let (balancer, mut updater) = carts(&[("b", Up)]);
    for before in ["a", "aa", "c"] {
        updater.apply(set(&[(before, Up), ("b", Up)]));
        assert_eq!(picked(&balancer, &["b"]), ["b"]);
    }
    updater.apply(set(&[("c", Up)]));
    assert_eq!(picked(&balancer, &["b"]), ["c"]);
}

#[test]
fn one_that_is_ejected_loses_its_sessions_until_it_is_back() {
    let (balancer, mut updater) = carts(&[("a", Up), ("b", Up), ("c", Up)]);
    let preferred = ids(&["b"]);
    let pick = balancer.pick_with(&PickOptions::new().prefer(&preferred));
    pick.expect("it is up").finish(Outcome::ServerError);
    updater.look();
    assert_eq!(picked(&balancer, &["b"]), ["a", "c"]);
}

#[test]
fn a_call_that_tried_it_goes_to_the_next_and_then_anywhere() {
    let (balancer, _updater) = carts(&[("a", Up), ("b", Up), ("c", Up)]);
    let preferred = ids(&["c", "a"]);
    let mut tried = Tried::new();
    for expected in ["c", "a", "b"] {
        let options = PickOptions::new().prefer(&preferred).tried(&tried);
        let pick = balancer.pick_with(&options).expect("one is left");
        assert_eq!(pick.id().as_str(), expected);
        tried.insert(pick.key());
    }
    let options = PickOptions::new().prefer(&preferred).tried(&tried);
    assert!(balancer.pick_with(&options).unwrap_err().is_all_tried());
}

// ---- over HTTP ----------------------------------------------------------------

/// The server that answers, and what the answer names it by.
async fn call(layer: &BalanceLayer, header: &str, value: Option<&str>) -> (String, Option<String>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::get("http://carts/").body(Full::default()).unwrap();
    if let Some(value) = value {
        let name: http::HeaderName = header.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = layer
        .layer(client)
        .oneshot(request)
        .await
        .expect("it is answered");
    let named = if header == COOKIE {
        SET_COOKIE.as_str()
    } else {
        header
    };
    let named = answer.headers().get(named);
    let named = named.map(|value| value.to_str().unwrap().to_owned());
    let body = answer.into_body().collect().await.expect("it is whole");
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    (told(&text, "name").to_owned(), named)
}

#[tokio::test]
async fn a_cookie_keeps_a_session_until_its_server_is_gone() {
    let servers = [
        Server::start("a").await,
        Server::start("b").await,
        Server::start("c").await,
    ];
    let (carts, mut updater) = Balancer::builder("carts")
        .strategy(Random::new())
        .manual()
        .expect("it is a name");
    let all = servers.iter().map(Server::endpoint);
    updater.apply(EndpointSet::new(all.clone()).unwrap());
    let layer = BalanceLayer::new(carts).sticky(Sticky::cookie("at").unwrap());

    let (first, named) = call(&layer, "cookie", None).await;
    let set = named.expect("the first answer names it");
    let cookie = set.split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        let again = call(&layer, "cookie", Some(&cookie)).await;
        assert_eq!(again, (first.clone(), None), "it is named but once");
    }
    updater.apply(EndpointSet::new(all.filter(|it| it.id().as_str() != first)).unwrap());
    let (next, named) = call(&layer, "cookie", Some(&cookie)).await;
    assert_ne!(next, first);
    let cookie = named
        .expect("it is another")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    for _ in 0..20 {
        assert_eq!(call(&layer, "cookie", Some(&cookie)).await.0, next);
    }
}

#[tokio::test]
async fn a_header_does_as_well() {
    let servers = [Server::start("a").await, Server::start("b").await];
    let (carts, mut updater) = Balancer::builder("carts")
        .strategy(Random::new())
        .manual()
        .expect("it is a name");
    updater.apply(EndpointSet::new(servers.iter().map(Server::endpoint)).unwrap());
    let layer = BalanceLayer::new(carts).sticky(Sticky::header("x-at").unwrap());
    let (first, named) = call(&layer, "x-at", None).await;
    let named = named.expect("the answer names it");
    for _ in 0..20 {
        let again = call(&layer, "x-at", Some(&named)).await;
        assert_eq!(again, (first.clone(), None));
    }
    // Whatever else is there is nobody's name.
    let (_, named) = call(&layer, "x-at", Some("%%%")).await;
    assert!(named.is_some());
}
