//! The key of a call from its request, and where calls of equal keys go, on real servers.

mod client_common;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use client_common::{Server, told};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer as _, ServiceExt as _};
use waypost::client::http::{Balance, BalanceLayer, CloneBody, RequestKey, SourceAddr};
use waypost::hash::key_hash;
use waypost::resilience::{Attempts, Retry};
use waypost::strategy::{MissingKey, RingHash};
use waypost::{Balancer, Error, Fixed};

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::get(uri);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.body(()).expect("the parts are well-formed")
}

fn of(key: &str) -> u64 {
    key_hash(key.as_bytes())
}

// ---- what the key is ---------------------------------------------------------

#[test]
fn a_header_is_its_values() {
    let key = RequestKey::header("X-User").unwrap();
    assert_eq!(
        key.hash(&request("/", &[("x-user", "7"), ("other", "8")])),
        Some(of("7"))
    );
    assert_eq!(
        key.hash(&request(
            "/",
            &[("x-user", "7"), ("x-user", ""), ("x-user", "9")]
        )),
        Some(of("7,,9"))
    );
    for none in [&[("x-user", "")][..], &[("x-use", "7")], &[]] {
        assert_eq!(key.hash(&request("/", none)), None);
    }
}

#[test]
fn a_cookie_is_found_among_others() {
    let key = RequestKey::cookie("sid").unwrap();
    for line in [
        "sid=a=b",
        "x=1; sid=a=b ;sid=2",
        "sidx=3;sid=\"a=b\"",
        " sid=a=b",
    ] {
        assert_eq!(
            key.hash(&request("/", &[("cookie", line)])),
            Some(of("a=b")),
            "{line}"
        );
    }
    let lines = [("cookie", "x=1"), ("cookie", "sid=9")];
    assert_eq!(
        key.hash(&request("/", &lines)),
        Some(of("9")),
        "HTTP/2 splits cookies"
    );
    for line in ["sid", "sid=", "sid=\"\"", "xsid=4", "SID=4", ""] {
        assert_eq!(key.hash(&request("/", &[("cookie", line)])), None, "{line}");
    }
}

#[test]
fn a_query_parameter_is_the_first_of_its_name() {
    let key = RequestKey::query("q").unwrap();
    for uri in ["/?q=a", "http://h/p?x=1&q=a&q=b"] {
        assert_eq!(key.hash(&request(uri, &[])), Some(of("a")), "{uri}");
    }
    for uri in ["/", "/?", "/?q", "/?q=&q=a", "/?qq=a", "/q=a"] {
        assert_eq!(key.hash(&request(uri, &[])), None, "{uri}");
    }
}

#[test]
fn a_path_is_without_its_query() {
    let key = RequestKey::path();
    assert_eq!(
        key.hash(&request("http://h/a/b?q=1", &[])),
        Some(of("/a/b"))
    );
    assert_eq!(key.hash(&request("http://h", &[])), Some(of("/")));
}

#[test]
fn a_source_is_an_address_however_it_is_written() {
    let hash = |insert: &dyn Fn(&mut http::Extensions)| {
        let mut request = request("/", &[]);
        insert(request.extensions_mut());
        RequestKey::source().hash(&request)
    };
    let address: IpAddr = "192.0.2.7".parse().unwrap();
    let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    let peer: SocketAddr = "192.0.2.7:5555".parse().unwrap();
    let expected = Some(key_hash(&[192, 0, 2, 7]));
    assert_eq!(hash(&|e| _ = e.insert(SourceAddr(address))), expected);
    assert_eq!(hash(&|e| _ = e.insert(SourceAddr(mapped))), expected);
    assert_eq!(hash(&|e| _ = e.insert(peer)), expected);
    let both = |e: &mut http::Extensions| {
        e.insert(SourceAddr(address));
        e.insert::<SocketAddr>("[::1]:1".parse().unwrap());
    };
    assert_eq!(hash(&both), expected);
    assert_eq!(hash(&|_| ()), None);
}

#[test]
fn sources_are_asked_in_order_until_a_terminal_one_has_a_key() {
    let header = |name| RequestKey::header(name).unwrap();
    let combined = |a, b| Some(of(a).rotate_left(1) ^ of(b));
    let both = request("/", &[("a", "1"), ("b", "2")]);
    let second = request("/", &[("b", "2")]);

    let key = header("a").and(header("b"));
    assert_eq!(key.hash(&both), combined("1", "2"));
    assert_eq!(key.hash(&second), Some(of("2")));
    let same = header("a").and(header("a"));
    assert_ne!(same.hash(&both), Some(0), "equal ones do not cancel out");

    let key = header("a").terminal().and(header("b"));
    assert_eq!(key.hash(&both), Some(of("1")));
    assert_eq!(key.hash(&second), Some(of("2")));

    // A terminal source ends the search with what those before it found, too.
    let key = header("a").and(header("c").terminal()).and(header("b"));
    assert_eq!(key.hash(&both), Some(of("1")));
    assert_eq!(key.hash(&second), Some(of("2")));
}

#[test]
fn a_function_sees_the_whole_head() {
    let key = RequestKey::from_fn(|head| {
        assert_eq!(head.method, http::Method::GET);
        head.extensions
            .get::<u64>()
            .copied()
            .or(Some(head.headers.len() as u64))
    });
    let mut request = request("/", &[("a", "1")]);
    assert_eq!(key.hash(&request), Some(1));
    request.extensions_mut().insert(7_u64);
    assert_eq!(key.hash(&request), Some(7));
}

#[test]
fn names_that_cannot_be_are_refused() {
    type Make = fn(&str) -> Result<RequestKey, Error>;
    for (field, make) in [
        ("header", RequestKey::header as Make),
        ("cookie", RequestKey::cookie),
        ("query", RequestKey::query),
    ] {
        for name in ["", "a b", "a=b", "a\n", "a\0"] {
            let error = make(name).expect_err(name);
            assert!(
                error.is_invalid() && error.to_string().contains(field),
                "{error}"
            );
        }
    }
    for name in ["a&b", "a#b"] {
        assert!(RequestKey::query(name).is_err());
    }
    assert!(RequestKey::query("päth[0]").is_ok());
}

// ---- where calls go --------------------------------------------------------------

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

async fn servers() -> Vec<Server> {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(Server::start(name).await);
    }
    servers
}

async fn carts(servers: &[Server], strategy: RingHash) -> Balancer {
    Balancer::builder("carts")
        .strategy(strategy)
        .build(Fixed::new(servers.iter().map(Server::endpoint)).expect("ids differ"))
        .await
        .expect("there is a runtime")
}

type Carts = Balance<Client<HttpConnector, Full<Bytes>>, CloneBody>;

fn client(balancer: &Balancer, key: RequestKey) -> Carts {
    BalanceLayer::new(balancer.clone())
        .key(key)
        .retry(Retry::default().attempts(Attempts::at_most(3)))
        .layer(Client::builder(TokioExecutor::new()).build_http())
}

/// The server that answers a call of that user.
async fn reached(client: &Carts, user: usize) -> String {
    let request = Request::get("http://carts/v1")
        .header("x-user", user.to_string())
        .body(Full::default())
        .expect("the parts are well-formed");
    let answer = client
        .clone()
        .oneshot(request)
        .await
        .expect("some server answers");
    let body = answer.into_body().collect().await.expect("it is whole");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("it is text");
    told(&text, "name").to_owned()
}

async fn all_reached(client: &Carts) -> BTreeMap<usize, String> {
    let mut servers = BTreeMap::new();
    for user in 0..60 {
        servers.insert(user, reached(client, user).await);
    }
    servers
}

#[tokio::test]
async fn equal_keys_reach_one_server_from_every_client_and_a_stopped_servers_keys_alone_move() {
    let mut servers = servers().await;
    let user = RequestKey::header("x-user").unwrap();
    // Two balancers of their own, as two processes have.
    let first = client(&carts(&servers, RingHash::new()).await, user.clone());
    let second = client(&carts(&servers, RingHash::new()).await, user);
    let before = all_reached(&first).await;
    assert_eq!(before, all_reached(&first).await);
    assert_eq!(before, all_reached(&second).await);
    let mut shares = HashMap::new();
    for server in before.values() {
        *shares.entry(server.clone()).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), NAMES.len(), "{shares:?}");

    // It stops, and is in the registry still.
    drop(servers.remove(1));
    let after = all_reached(&first).await;
    assert_eq!(
        after,
        all_reached(&second).await,
        "every client finds the same other one"
    );
    for (user, was) in &before {
        if was == "b" {
            assert_ne!(after[user], "b");
        } else {
            assert_eq!(after[user], *was);
        }
    }
    // Taken out of the registry, its keys are where they had gone to.
    let third = client(
        &carts(&servers, RingHash::new()).await,
        RequestKey::header("x-user").unwrap(),
    );
    assert_eq!(after, all_reached(&third).await);
}

#[tokio::test]
async fn a_request_without_a_key_is_refused_where_that_is_asked_for() {
    let servers = servers().await;
    let strategy = RingHash::new().missing_key(MissingKey::Refuse);
    let client = client(
        &carts(&servers, strategy).await,
        RequestKey::query("user").unwrap(),
    );
    let send = async |uri: &str| {
        let request = Request::get(uri).body(Full::default()).unwrap();
        client.clone().oneshot(request).await
    };
    let error = send("http://carts/").await.expect_err("it has no key");
    assert!(
        error
            .downcast_ref::<Error>()
            .expect("it is the crate's")
            .is_declined()
    );
    assert!(send("http://carts/?user=7").await.is_ok());
}

#[tokio::test]
async fn reqwest_goes_by_the_key_as_well() {
    let servers = servers().await;
    let balancer = carts(&servers, RingHash::new()).await;
    let tower = client(&balancer, RequestKey::header("x-user").unwrap());
    // The middleware's extensions are those of the request.
    let key = RequestKey::header("x-user")
        .unwrap()
        .terminal()
        .and(RequestKey::source());
    // The tests' reqwest has TLS, and will not choose a provider by itself.
    drop(rustls::crypto::ring::default_provider().install_default());
    let reqwest = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(balancer.middleware().key(key))
        .build();
    for user in 0..20 {
        let answer = reqwest
            .get("http://carts/v1")
            .header("x-user", user)
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        assert_eq!(told(&text, "name"), reached(&tower, user).await);
    }
    let mut seen = Vec::new();
    for _ in 0..10 {
        let from = SourceAddr("192.0.2.7".parse().unwrap());
        let call = reqwest.get("http://carts/v1").with_extension(from);
        let text = call.send().await.unwrap().text().await.unwrap();
        seen.push(told(&text, "name").to_owned());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "one source, one server");
}
