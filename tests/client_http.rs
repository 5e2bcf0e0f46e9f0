//! The laws of the tower layer, on real servers and hyper-util's client.

mod client_common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use client_common::{
    Server, dead, endpoint, eventually, in_flight, told, totals, totals_of, users,
};
use futures::channel::mpsc;
use futures::future::{Ready, ready};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tower::{Layer as _, Service, ServiceExt as _};
use waypost::client::http::{Balance, BalanceLayer, BoxError, CloneBody, Tracked};
use waypost::resilience::{Attempts, Retry};
use waypost::{Balancer, Directory, Endpoint, EndpointSet, Error, Fixed};

type Legacy = Client<HttpConnector, Full<Bytes>>;
type Answer = Response<Tracked<Incoming>>;

fn legacy() -> Legacy {
    Client::builder(TokioExecutor::new()).build_http()
}

fn once(balancer: &Balancer) -> Balance<Legacy> {
    BalanceLayer::new(balancer.clone()).layer(legacy())
}

fn up_to(attempts: u32, balancer: &Balancer) -> Balance<Legacy, CloneBody> {
    BalanceLayer::new(balancer.clone())
        .retry(Retry::default().attempts(Attempts::at_most(attempts)))
        .layer(legacy())
}

fn request(method: Method, uri: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Full::from("hello"))
        .expect("the parts are well-formed")
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    request(Method::GET, uri)
}

async fn text(answer: Answer) -> String {
    let body = answer.into_body().collect().await.expect("it is whole");
    String::from_utf8(body.to_bytes().to_vec()).expect("it is text")
}

async fn call<S>(client: &S, request: Request<Full<Bytes>>) -> Result<Answer, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Answer, Error = BoxError> + Clone,
{
    client.clone().oneshot(request).await
}

fn ours(error: &BoxError) -> &Error {
    error.downcast_ref().expect("it is the crate's error")
}

fn is_connect(error: &BoxError) -> bool {
    error
        .downcast_ref::<hyper_util::client::legacy::Error>()
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

// ---- where a request goes ---------------------------------------------------

#[tokio::test]
async fn path_query_method_and_body_arrive_and_the_host_stays_logical() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let answer = call(
        &once(&balancer),
        request(Method::PUT, "http://users/v1/me?q=1"),
    )
    .await;
    let text = text(answer.expect("it is answered")).await;
    assert_eq!(told(&text, "path"), "/v1/me?q=1");
    assert_eq!(told(&text, "host"), "users");
    assert_eq!(told(&text, "method"), "PUT");
    assert_eq!(told(&text, "body"), "hello");
}

#[tokio::test]
async fn the_host_is_the_endpoints_then_the_callers_then_the_urls() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let client = once(&balancer);
    let answer = call(&client, get("http://users:8080/"))
        .await
        .expect("it is answered");
    assert_eq!(told(&text(answer).await, "host"), "users:8080");

    let mut own = get("http://users/");
    own.headers_mut()
        .insert("host", "mine".parse().expect("it is a header"));
    let answer = call(&client, own).await.expect("it is answered");
    assert_eq!(told(&text(answer).await, "host"), "mine");

    let renamed = Endpoint::builder(server.address)
        .authority("inner.example:81")
        .build();
    let renamed = users([renamed.expect("the parts are well-formed")]).await;
    let answer = call(&once(&renamed), get("http://users/"))
        .await
        .expect("it is answered");
    assert_eq!(told(&text(answer).await, "host"), "inner.example:81");
}

#[tokio::test]
async fn requests_are_spread_over_the_endpoints() {
    let (a, b, c) = (
        Server::start("a").await,
        Server::start("b").await,
        Server::start("c").await,
    );
    let balancer = users([a.endpoint(), b.endpoint(), c.endpoint()]).await;
    let client = once(&balancer);
    for _ in 0..9 {
        text(
            call(&client, get("http://users/"))
                .await
                .expect("it is answered"),
        )
        .await;
    }
    assert_eq!([a.served(), b.served(), c.served()], [3, 3, 3]);
    assert_eq!(totals(&balancer), (9, 0, 0));
}

#[tokio::test]
async fn other_hosts_pass_through_as_they_are() {
    let (ours, other) = (Server::start("ours").await, Server::start("other").await);
    let balancer = users([ours.endpoint()]).await;
    let answer = call(
        &once(&balancer),
        get(&format!("http://{}/x", other.address)),
    )
    .await;
    let text = text(answer.expect("it is answered")).await;
    assert_eq!(told(&text, "name"), "other");
    assert_eq!(told(&text, "host"), other.address.to_string());
    assert_eq!((ours.served(), totals(&balancer)), (0, (0, 0, 0)));
}

#[tokio::test]
async fn what_cannot_be_routed_is_refused_and_never_counted_as_answered() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    for uri in ["/no/host", "https://users/"] {
        let error = call(&once(&balancer), get(uri)).await.expect_err(uri);
        assert!(ours(&error).is_unroutable(), "{error}");
    }
    let socket = waypost::Address::unix("/run/users.sock").expect("it is a path");
    let unix = users([Endpoint::at(socket).expect("it is an address")]).await;
    let error = call(&up_to(3, &unix), get("http://users/"))
        .await
        .expect_err("it is a path");
    assert!(ours(&error).is_unroutable(), "{error}");
    assert_eq!(server.served(), 0);
    assert_eq!((in_flight(&unix), totals(&unix).0), (0, 0));
}

/// A URI's user and query may be secrets, and errors are logged.
#[tokio::test]
async fn an_error_shows_no_user_and_no_query() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let directory = Directory::new(Fixed::addresses(["127.0.0.1:9"]).expect("it is an address"));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let named = BalanceLayer::directory(directory)
        .per_endpoint(move |_: &Endpoint| Ok::<_, std::io::Error>(client.clone()));
    for (error, place) in [
        (
            call(
                &once(&balancer),
                get("https://bob:hunter2@users/me?token=hunter2"),
            )
            .await,
            "https://users/me",
        ),
        (
            call(&named, get("http://bob:hunter2@10.0.0.1/me?token=hunter2")).await,
            "http://10.0.0.1/me",
        ),
        (
            call(&once(&balancer), get("/me?token=hunter2")).await,
            "/me",
        ),
    ] {
        let error = error.expect_err(place);
        let texts = [
            format!("{error}"),
            format!("{error:?}"),
            format!("{error:#?}"),
        ];
        assert!(texts[0].contains(place), "{error}");
        assert!(
            texts.iter().all(|text| !text.contains("hunter2")),
            "{texts:?}"
        );
    }
    assert_eq!(server.served(), 0);
}

/// A URI that is rewritten has the endpoint's address in `:authority`.
#[tokio::test]
async fn over_http2_calls_share_a_connection_to_each_endpoint() {
    let (a, connected_a) = http2_server("a").await;
    let (b, connected_b) = http2_server("b").await;
    let balancer = users([a.clone(), b.clone()]).await;
    let http2 = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let client = BalanceLayer::new(balancer.clone())
        .retry(Retry::default())
        .layer(http2);
    // One to each, so that what follows finds them connected.
    for _ in 0..2 {
        text(call(&client, get("http://users/")).await.expect("it is up")).await;
    }
    let calls = (0..20).map(|_| call(&client, get("http://users/v1/me?q=1")));
    for answer in futures::future::join_all(calls).await {
        let told = text(answer.expect("it is up")).await;
        let of = |endpoint: &Endpoint| format!("{} users /v1/me?q=1", endpoint.address());
        assert!([of(&a), of(&b)].contains(&told), "{told}");
    }
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (22, 0, 0)));
    assert_eq!(
        (totals_of(&balancer, "a").0, totals_of(&balancer, "b").0),
        (11, 11)
    );
    for connected in [connected_a, connected_b] {
        assert_eq!(connected.load(Ordering::Relaxed), 1);
    }
}

/// Tells `:authority`, `Host` and the path; and how often it was connected to.
async fn http2_server(id: &str) -> (Endpoint, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let connected = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connected);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let tell = service_fn(|request: Request<Incoming>| async move {
                let uri = request.uri();
                let authority = uri.authority().map_or("-", |authority| authority.as_str());
                let host = request.headers().get("host");
                let host = host.map_or("-", |host| host.to_str().expect("it is text"));
                let path = uri.path_and_query().map_or("-", |path| path.as_str());
                let told = format!("{authority} {host} {path}");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(told))))
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), tell));
        }
    });
    (endpoint(id, address), connected)
}

#[tokio::test]
async fn an_endpoint_that_no_uri_can_name_is_passed_over() {
    let server = Server::start("a").await;
    let socket = waypost::Address::unix("/run/users.sock").expect("it is a path");
    let unix = Endpoint::at(socket).expect("it is an address");
    let balancer = users([unix, server.endpoint()]).await;
    let client = up_to(2, &balancer);
    for _ in 0..20 {
        let answer = call(&client, request(Method::POST, "http://users/")).await;
        assert!(answer.is_ok(), "the other endpoint can be called");
    }
    assert_eq!(server.served(), 20);
}

// ---- how long a pick lives --------------------------------------------------

#[tokio::test]
async fn a_call_is_in_flight_until_its_body_ends() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let answer = call(&once(&balancer), get("http://users/"))
        .await
        .expect("it is answered");
    let mut body = answer.into_body();
    let frame = body
        .frame()
        .await
        .expect("there is more")
        .expect("it is whole");
    assert_eq!(frame.into_data().expect("it is data"), "one");
    assert_eq!((in_flight(&balancer), totals(&balancer)), (1, (0, 0, 0)));
    drop(chunks);
    assert!(body.frame().await.is_none());
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (1, 0, 0)));
    drop(body);
    assert_eq!(totals(&balancer), (1, 0, 0), "it is counted once");
}

#[tokio::test]
async fn a_body_of_known_length_ends_with_its_last_byte() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let answer = call(&once(&balancer), get("http://users/"))
        .await
        .expect("it is answered");
    let mut body = answer.into_body();
    let mut left = body.size_hint().exact().expect("its length is told");
    assert_eq!(in_flight(&balancer), 1);
    while left > 0 {
        let frame = body
            .frame()
            .await
            .expect("there is more")
            .expect("it is whole");
        left -= frame.into_data().expect("it is data").len() as u64;
    }
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (1, 0, 0)));
}

#[tokio::test]
async fn an_empty_body_ends_at_once() {
    let server = Server::bare("a", 204).await;
    let balancer = users([server.endpoint()]).await;
    let answer = call(&once(&balancer), get("http://users/"))
        .await
        .expect("it is answered");
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (1, 0, 0)));
    drop(answer);
    assert_eq!(totals(&balancer), (1, 0, 0));
}

#[tokio::test]
async fn a_body_dropped_half_read_is_cancelled() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let answer = call(&once(&balancer), get("http://users/"))
        .await
        .expect("it is answered");
    let mut body = answer.into_body();
    assert!(body.frame().await.is_some());
    drop(body);
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 0, 1)));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_failed() {
    let (server, chunks) = Server::streaming("a").await;
    let balancer = users([server.endpoint()]).await;
    chunks.send("one");
    let answer = call(&up_to(3, &balancer), get("http://users/"))
        .await
        .expect("it is answered");
    let mut body = answer.into_body();
    assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
    chunks.break_off();
    assert!(body.frame().await.is_some_and(|frame| frame.is_err()));
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 1, 0)));
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled() {
    let server = Server::silent("a").await;
    let balancer = users([server.endpoint()]).await;
    let client = once(&balancer);
    let asking = tokio::spawn(async move { call(&client, get("http://users/")).await.is_ok() });
    server.has_served(1).await;
    assert_eq!(in_flight(&balancer), 1);
    asking.abort();
    assert!(asking.await.expect_err("it never ends").is_cancelled());
    assert_eq!((in_flight(&balancer), totals(&balancer)), (0, (0, 0, 1)));
}

// ---- what is sent again -----------------------------------------------------

#[tokio::test]
async fn an_answer_of_5xx_is_a_failure_and_sent_again_only_if_harmless_and_worth_it() {
    for (method, status, sent) in [
        (Method::GET, 503, 2),
        (Method::GET, 500, 1),
        (Method::POST, 503, 1),
    ] {
        let (a, b) = (
            Server::status("a", status).await,
            Server::status("b", status).await,
        );
        let balancer = users([a.endpoint(), b.endpoint()]).await;
        let answer = call(&up_to(3, &balancer), request(method, "http://users/"))
            .await
            .expect("it is answered");
        assert_eq!(answer.status(), status, "the last answer is handed on");
        assert!(!text(answer).await.is_empty());
        assert_eq!(a.served() + b.served(), sent);
        assert_eq!(totals(&balancer), (0, sent, 0));
    }
}

#[tokio::test]
async fn an_answer_of_4xx_is_no_fault_of_the_endpoint() {
    let server = Server::status("a", 404).await;
    let balancer = users([server.endpoint()]).await;
    let answer = call(&once(&balancer), get("http://users/"))
        .await
        .expect("it is answered");
    text(answer).await;
    assert_eq!(totals(&balancer), (1, 0, 0));
}

#[tokio::test]
async fn what_was_provably_not_sent_goes_elsewhere_whatever_its_method() {
    let server = Server::start("live").await;
    let balancer = users([dead("dead"), server.endpoint()]).await;
    let client = up_to(3, &balancer);
    for method in [Method::POST, Method::GET, Method::POST, Method::PATCH] {
        let answer = call(&client, request(method.clone(), "http://users/")).await;
        let text = text(answer.expect("one is alive")).await;
        assert_eq!(
            (told(&text, "method"), told(&text, "body")),
            (method.as_str(), "hello")
        );
        assert_eq!(told(&text, "host"), "users");
    }
    assert_eq!(
        (server.served(), totals_of(&balancer, "live")),
        (4, (4, 0, 0))
    );
    let (succeeded, failed, cancelled) = totals_of(&balancer, "dead");
    assert!(succeeded == 0 && failed > 0 && cancelled == 0, "{failed}");
}

#[tokio::test]
async fn nothing_is_sent_again_unasked() {
    let server = Server::start("live").await;
    let balancer = users([dead("dead"), server.endpoint()]).await;
    let client = once(&balancer);
    let mut refused = 0;
    for _ in 0..4 {
        match call(&client, get("http://users/")).await {
            Ok(answer) => assert!(!text(answer).await.is_empty()),
            Err(error) => {
                assert!(is_connect(&error), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((refused, server.served()), (2, 2));
    assert_eq!(totals(&balancer), (2, 2, 0));
}

#[tokio::test]
async fn a_connection_closed_unanswered_is_sent_again_only_if_idempotent() {
    let (a, b) = (Server::closing("a").await, Server::closing("b").await);
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let client = up_to(3, &balancer);
    let error = call(&client, request(Method::POST, "http://users/")).await;
    assert!(!is_connect(&error.expect_err("it is closed")));
    assert_eq!((a.served() + b.served(), totals(&balancer)), (1, (0, 1, 0)));

    let error = call(&client, get("http://users/")).await;
    assert!(!is_connect(&error.expect_err("both are closed")));
    assert_eq!((a.served() + b.served(), totals(&balancer)), (3, (0, 3, 0)));
}

#[tokio::test]
async fn attempts_are_bounded() {
    let endpoints = [dead("a"), dead("b"), dead("c"), dead("d")];
    let balancer = users(endpoints).await;
    for attempts in 1..=3 {
        let before = totals(&balancer).1;
        let error = call(&up_to(attempts, &balancer), get("http://users/")).await;
        assert!(is_connect(&error.expect_err("all are dead")));
        assert_eq!(totals(&balancer).1 - before, u64::from(attempts));
    }
}

#[tokio::test]
async fn when_all_are_dead_each_is_tried_once_and_the_clients_error_comes_back() {
    let balancer = users([dead("a"), dead("b"), dead("c")]).await;
    let error = call(&up_to(9, &balancer), get("http://users/"))
        .await
        .expect_err("all are dead");
    assert!(is_connect(&error), "{error}");
    for id in ["a", "b", "c"] {
        assert_eq!(totals_of(&balancer, id), (0, 1, 0), "{id}");
    }
    assert_eq!(in_flight(&balancer), 0);
}

// ---- waiting ----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_service_not_known_yet_is_waited_for_as_long_as_allowed() {
    let (balancer, _updater) = Balancer::builder("users").manual().expect("it is a name");
    let wait = Duration::from_secs(7);
    let client = BalanceLayer::new(balancer).wait(wait).layer(legacy());
    let before = tokio::time::Instant::now();
    let error = call(&client, get("http://users/"))
        .await
        .expect_err("nothing is known");
    assert!(ours(&error).is_not_ready(), "{error}");
    assert!(before.elapsed() >= wait && before.elapsed() < wait * 2);
}

#[tokio::test]
async fn a_call_goes_on_when_the_first_answer_comes() {
    let server = Server::start("a").await;
    let (balancer, mut updater) = Balancer::builder("users").manual().expect("it is a name");
    let client = once(&balancer);
    let asking = tokio::spawn(async move { call(&client, get("http://users/")).await });
    tokio::task::yield_now().await;
    updater.apply(EndpointSet::new([server.endpoint()]).expect("ids differ"));
    let answer = asking
        .await
        .expect("it does not panic")
        .expect("it is answered");
    assert_eq!(told(&text(answer).await, "name"), "a");
}

// ---- the service ------------------------------------------------------------

/// Panics when it is called but was not ready; a clone never is.
struct Strict {
    ready: bool,
    pending_first: bool,
    calls: mpsc::UnboundedSender<String>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            pending_first: true,
            calls: self.calls.clone(),
        }
    }
}

impl Service<Request<Full<Bytes>>> for Strict {
    type Response = Response<Empty<Bytes>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.pending_first {
            self.pending_first = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        let authority = request.uri().authority().map(ToString::to_string);
        self.calls
            .unbounded_send(authority.unwrap_or_default())
            .expect("the test listens");
        ready(Ok(Response::new(Empty::new())))
    }
}

#[tokio::test]
async fn readiness_is_awaited_on_the_instance_that_is_called() {
    let (calls, mut called) = mpsc::unbounded();
    let strict = Strict {
        ready: false,
        pending_first: true,
        calls,
    };
    let balancer = users([Endpoint::at("10.0.0.1:80").expect("it is an address")]).await;
    let mut client = BalanceLayer::new(balancer).layer(strict);
    for uri in ["http://users/", "http://other/", "http://users/"] {
        let answer = client.ready().await.expect("always").call(get(uri)).await;
        assert!(answer.expect("it is answered").body().is_end_stream());
    }
    drop(client);
    let mut seen = Vec::new();
    while let Ok(authority) = called.try_recv() {
        seen.push(authority);
    }
    assert_eq!(seen, ["10.0.0.1:80", "other", "10.0.0.1:80"]);
}

#[tokio::test]
async fn clones_share_the_balancer_and_its_counts() {
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let client = once(&balancer);
    let copy = client.clone();
    for client in [&client, &copy, &client, &copy] {
        text(
            call(client, get("http://users/"))
                .await
                .expect("it is answered"),
        )
        .await;
    }
    assert_eq!([a.served(), b.served()], [2, 2]);
    assert_eq!(totals(&balancer), (4, 0, 0));
}

#[tokio::test]
async fn connections_are_kept_alive() {
    let server = Server::start("a").await;
    let balancer = users([server.endpoint()]).await;
    let client = up_to(3, &balancer);
    for turn in 1..=20 {
        let answer = call(&client, get("http://users/"))
            .await
            .expect("it is answered");
        assert_eq!(told(&text(answer).await, "served"), turn.to_string());
    }
    eventually("the calls are counted", || totals(&balancer) == (20, 0, 0)).await;
    assert!(server.connections() < 20, "{}", server.connections());
}
