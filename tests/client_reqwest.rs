//! The laws of the reqwest middleware, on real servers.

mod client_common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_common::{Server, dead, endpoint, in_flight, told, totals, totals_of, users};
use reqwest_middleware::{
    ClientBuilder, ClientWithMiddleware, Error as CallError, Middleware, Next,
};
use tower::ServiceExt as _;
use waypost::client::reqwest::BalanceMiddleware;
use waypost::resilience::{Attempts, Retry};
use waypost::{Balancer, Directory, Fixed};

fn client(middleware: BalanceMiddleware) -> ClientWithMiddleware {
    // The tests' reqwest has TLS, and will not choose a provider by itself.
    drop(rustls::crypto::ring::default_provider().install_default());
    let plain = reqwest::Client::builder().no_proxy().build();
    ClientBuilder::new(plain.expect("it needs nothing"))
        .with(middleware)
        .build()
}

fn balanced(balancer: &Balancer) -> ClientWithMiddleware {
    client(balancer.middleware())
}

fn ours(error: &CallError) -> &waypost::Error {
    match error {
        CallError::Middleware(error) => error.downcast_ref().expect("it is the crate's error"),
        CallError::Reqwest(error) => panic!("it is reqwest's: {error}"),
    }
}

#[tokio::test]
async fn the_url_and_the_host_stay_logical_and_the_head_is_kept() {
    let server = Server::status("a", 404).await;
    let balancer = users([server.endpoint()]).await;
    let call = balanced(&balancer).get("http://users/v1/me?q=1").send();
    let answer = call.await.expect("it is answered");
    assert_eq!(answer.url().as_str(), "http://users/v1/me?q=1");
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.version(), http::Version::HTTP_11);
    assert_eq!(answer.headers()["x-server"], "a");
    let text = answer.text().await.expect("it is whole");
    assert_eq!(told(&text, "host"), "users");
    assert_eq!(told(&text, "path"), "/v1/me?q=1");
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (1, 0, 0)));
}

#[tokio::test]
async fn a_call_is_in_flight_until_its_last_chunk() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let call = balanced(&balancer).get("http://users/").send();
    let mut answer = call.await.expect("it is answered");
    assert_eq!(
        answer.chunk().await.expect("it is whole").as_deref(),
        Some(&b"one"[..])
    );
    assert_eq!((in_flight(&balancer), totals(&balancer)), (1, (0, 0, 0)));
    drop(chunks);
    assert!(answer.chunk().await.expect("it is whole").is_none());
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (1, 0, 0)));
}

#[tokio::test]
async fn what_was_not_sent_goes_elsewhere_if_its_body_can_be_cloned() {
    let server = Server::start("live").await;
    let balancer = users([dead("dead"), server.endpoint()]).await;
    let client = balanced(&balancer);
    for _ in 0..4 {
        let answer = client.post("http://users/").body("hello").send().await;
        let text = answer.expect("one is alive").text().await;
        assert_eq!(told(&text.expect("it is whole"), "body"), "hello");
    }
    assert_eq!(totals_of(&balancer, "live"), (4, 0, 0));
    assert!(totals_of(&balancer, "dead").1 > 0);

    let alone = users([dead("a"), dead("b")]).await;
    let part = futures::stream::iter([Ok::<_, std::io::Error>("hello")]);
    let body = reqwest::Body::wrap_stream(part);
    let call = balanced(&alone).post("http://users/").body(body).send();
    let error = call.await.expect_err("all are dead");
    assert!(error.is_connect(), "{error}");
    assert_eq!(totals(&alone), (0, 1, 0), "a stream cannot be sent twice");
}

#[tokio::test]
async fn a_closed_connection_is_sent_again_only_if_idempotent() {
    let (a, b) = (Server::closing("a").await, Server::closing("b").await);
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let client = balanced(&balancer);
    assert!(client.post("http://users/").send().await.is_err());
    assert_eq!(totals(&balancer), (0, 1, 0));
    assert!(client.get("http://users/").send().await.is_err());
    assert_eq!(totals(&balancer), (0, 3, 0));
    assert_eq!(a.served() + b.served(), 3);
}

#[tokio::test]
async fn a_timeout_is_a_failure_and_not_sent_again() {
    let (a, b) = (Server::silent("a").await, Server::silent("b").await);
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let call = balanced(&balancer).post("http://users/");
    let error = call.timeout(Duration::from_millis(100)).send().await;
    assert!(error.expect_err("it never answers").is_timeout());
    assert!(a.served() + b.served() <= 1);
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 1, 0)));
}

/// Tells how long each attempt may take.
#[derive(Clone, Default)]
struct Timeouts(Arc<Mutex<Vec<Option<Duration>>>>);

#[tonic::async_trait]
impl Middleware for Timeouts {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> Result<reqwest::Response, CallError> {
        let timeout = request.timeout().copied();
        self.0.lock().expect("no test panics here").push(timeout);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_requests_own_timeout_is_that_of_all_attempts() {
    let (a, b) = (Server::silent("a").await, Server::silent("b").await);
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let call = balanced(&balancer).get("http://users/");
    let error = call.timeout(Duration::from_millis(100)).send().await;
    assert!(error.expect_err("it never answers").is_timeout());
    assert_eq!(totals(&balancer), (0, 1, 0), "nothing was left for another");

    let ill = Server::status("ill", 503).await;
    let balancer = users([ill.endpoint(), endpoint("again", ill.address)]).await;
    let timeouts = Timeouts::default();
    let plain = reqwest::Client::builder().no_proxy().build();
    let client = ClientBuilder::new(plain.expect("it needs nothing"))
        .with(balancer.middleware())
        .with(timeouts.clone())
        .build();
    let hour = Duration::from_hours(1);
    client
        .get("http://users/")
        .timeout(hour)
        .send()
        .await
        .expect("it is answered");
    let told = timeouts.0.lock().expect("no test panics here").clone();
    assert_eq!((told.len(), told[0]), (2, Some(hour)));
    assert!(told[1].is_some_and(|left| left < hour), "{told:?}");
}

#[tokio::test]
async fn a_servers_error_of_a_post_is_handed_on_counted_and_not_sent_again() {
    let (a, b) = (
        Server::status("a", 503).await,
        Server::status("b", 503).await,
    );
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let answer = balanced(&balancer).post("http://users/").send().await;
    let answer = answer.expect("an error of the server is an answer");
    assert_eq!(answer.status(), 503);
    assert!(!answer.text().await.expect("it is whole").is_empty());
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 1, 0)));
    assert_eq!(a.served() + b.served(), 1);
}

#[tokio::test]
async fn a_body_that_is_left_counts_as_cancelled_and_one_that_breaks_as_failed() {
    for breaks in [false, true] {
        let (server, chunks) = Server::streaming("a").await;
        let balancer = users([server.endpoint()]).await;
        chunks.send("one");
        let call = balanced(&balancer).get("http://users/").send();
        let mut answer = call.await.expect("it is answered");
        assert!(answer.chunk().await.expect("the first is whole").is_some());
        let ended = if breaks {
            chunks.break_off();
            assert!(answer.chunk().await.is_err());
            (0, 1, 0)
        } else {
            drop(answer);
            (0, 0, 1)
        };
        assert_eq!((in_flight(&balancer), totals(&balancer)), (0, ended));
    }
}

#[tokio::test]
async fn attempts_have_a_bound_and_no_endpoint_is_tried_twice() {
    let all_dead = || ["a", "b", "c", "d", "e"].map(dead);
    let balancer = users(all_dead()).await;
    let error = balanced(&balancer).get("http://users/").send().await;
    assert!(error.expect_err("all are dead").is_connect());
    assert_eq!(totals(&balancer), (0, 3, 0), "three attempts by default");

    let balancer = users(all_dead()).await;
    let middleware = balancer
        .middleware()
        .retry(Retry::default().attempts(Attempts::at_most(9)));
    let error = client(middleware).post("http://users/").send().await;
    assert!(error.expect_err("all are dead").is_connect());
    for id in ["a", "b", "c", "d", "e"] {
        assert_eq!(totals_of(&balancer, id), (0, 1, 0), "{id} is tried once");
    }
}

#[tokio::test]
async fn another_host_passes_and_https_is_refused() {
    let (ours_, other) = (Server::start("ours").await, Server::start("other").await);
    let balancer = users([ours_.endpoint()]).await;
    let client = balanced(&balancer);
    let answer = client
        .get(format!("http://{}/", other.address))
        .send()
        .await;
    let text = answer.expect("it is answered").text().await;
    assert_eq!(told(&text.expect("it is whole"), "name"), "other");
    let error = client.get("https://users/").send().await;
    assert!(ours(&error.expect_err("it is https")).is_unroutable());
    assert_eq!((ours_.served(), totals(&balancer)), (0, (0, 0, 0)));
}

/// A URL's user and query may be secrets, and errors are logged.
#[tokio::test]
async fn an_error_shows_no_user_and_no_query() {
    let balancer = users([dead("a")]).await;
    let call = balanced(&balancer).get("https://bob:hunter2@users/me?token=hunter2");
    let error = call.send().await.expect_err("it is https");
    assert!(ours(&error).is_unroutable(), "{error}");
    let texts = [format!("{}", ours(&error)), format!("{error:?}")];
    assert!(texts[0].contains("https://users/me"), "{error}");
    assert!(
        texts.iter().all(|text| !text.contains("hunter2")),
        "{texts:?}"
    );
}

#[tokio::test]
async fn the_client_is_a_tower_service_too() {
    let servers = [Server::start("a").await, Server::start("b").await];
    let balancer = users(servers.iter().map(Server::endpoint)).await;
    let service = tower::ServiceBuilder::new()
        .concurrency_limit(1)
        .service(balanced(&balancer));
    for _ in 0..4 {
        let url = "http://users/v1/me".parse().expect("it is a URL");
        let request = reqwest::Request::new(reqwest::Method::GET, url);
        let answer = service.clone().oneshot(request).await;
        let answer = answer.expect("both are up");
        assert_eq!(answer.url().as_str(), "http://users/v1/me");
        assert_eq!(
            told(&answer.text().await.expect("it is whole"), "host"),
            "users"
        );
    }
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (4, 0, 0)));
    assert_eq!((servers[0].served(), servers[1].served()), (2, 2));
}

#[tokio::test]
async fn a_directory_serves_names_passes_addresses_and_refuses_the_unknown() {
    let (ours_, other) = (Server::start("ours").await, Server::start("other").await);
    let fixed = Fixed::new([ours_.endpoint()]).expect("ids differ");
    let directory = Directory::builder(fixed).max_services(2).build();
    let client = client(directory.middleware());
    for service in ["users", "orders"] {
        let call = client.get(format!("http://{service}/")).send().await;
        let text = call.expect("it is answered").text().await;
        assert_eq!(told(&text.expect("it is whole"), "host"), service);
    }
    let call = client
        .get(format!("http://{}/", other.address))
        .send()
        .await;
    let text = call.expect("it is answered").text().await;
    assert_eq!(told(&text.expect("it is whole"), "name"), "other");

    let empty = Directory::new(Fixed::new([]).expect("none differ"));
    let middleware = empty.middleware().wait(Duration::from_millis(10));
    let call = self::client(middleware).get("http://nobody/").send().await;
    let error = call.expect_err("nobody is there");
    assert_eq!(ours(&error).service(), Some("nobody"));
}
