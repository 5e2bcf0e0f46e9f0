//! Redirects that go through the balancer, on real servers.

mod client_common;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use client_common::{in_flight, totals, totals_of};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::net::TcpListener;
use waypost::client::reqwest::BalanceMiddleware;
use waypost::strategy::RoundRobin;
use waypost::{Balancer, Endpoint, Fixed};

/// `/STATUS/LOCATION` redirects to the location, and all else tells what was
/// asked of whom.
async fn server(name: &'static str) -> Endpoint {
    let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: String| async move {
        let path = uri.path().trim_start_matches('/');
        if let Some((status, location)) = path.split_once('/')
            && let Ok(status) = status.parse::<u16>()
        {
            let status = StatusCode::from_u16(status).expect("it is one");
            let location = format!(
                "{location}{}",
                uri.query().map_or(String::new(), |q| format!("?{q}"))
            );
            return (status, [(header::LOCATION, location)], "moved").into_response();
        }
        let of = |name| {
            headers
                .get(name)
                .map_or("", |value| value.to_str().expect("text"))
        };
        let told = format!(
            "{name} {method} {uri} host={} authorization={} type={} body={body}",
            of(header::HOST),
            of(header::AUTHORIZATION),
            of(header::CONTENT_TYPE),
        );
        Response::new(told.into())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Endpoint::builder(address).id(name).build().expect("valid")
}

async fn fleet(names: [&'static str; 2]) -> Balancer {
    let set = [server(names[0]).await, server(names[1]).await];
    Balancer::builder("users")
        .strategy(RoundRobin::new())
        .build(Fixed::new(set).expect("ids differ"))
        .await
        .expect("it starts")
}

fn client(middleware: BalanceMiddleware) -> ClientWithMiddleware {
    drop(rustls::crypto::ring::default_provider().install_default());
    let plain = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy();
    ClientBuilder::new(plain.build().expect("it needs nothing"))
        .with(middleware)
        .build()
}

#[tokio::test]
async fn each_redirect_is_a_call_that_is_picked_for_anew() {
    let balancer = fleet(["a", "b"]).await;
    let client = client(balancer.middleware().redirects(10));
    for location in ["http://users/v2", "/v2"] {
        for _ in 0..4 {
            let url = format!("http://users/302/{location}?q=1");
            let answer = client.get(url).send().await.expect("it is answered");
            assert_eq!(answer.url().as_str(), "http://users/v2?q=1");
            let text = answer.text().await.expect("it is whole");
            assert!(text.contains(" GET /v2?q=1 host=users "), "{text}");
        }
    }
    // Two calls each, in turn: one is redirected by the one, and to the other.
    let of = |id| totals_of(&balancer, id);
    assert_eq!((of("a"), of("b")), ((8, 0, 0), (8, 0, 0)));
    assert_eq!(in_flight(&balancer), 0, "all bodies were read to the end");
}

#[tokio::test]
async fn methods_and_bodies_are_as_browsers_have_them() {
    let balancer = fleet(["a", "b"]).await;
    let client = client(balancer.middleware().redirects(10));
    for (method, status, then, has_body) in [
        (Method::POST, 301, "GET", false),
        (Method::POST, 302, "GET", false),
        (Method::POST, 303, "GET", false),
        (Method::PUT, 303, "GET", false),
        (Method::PUT, 302, "PUT", true),
        (Method::POST, 307, "POST", true),
        (Method::POST, 308, "POST", true),
    ] {
        let url = format!("http://users/{status}//v2");
        let call = client.request(method.clone(), url).body("hello");
        let call = call.header("content-type", "text/plain");
        let text = call.send().await.expect("it is answered").text().await;
        let text = text.expect("it is whole");
        let (kind, body) = if has_body {
            ("text/plain", "hello")
        } else {
            ("", "")
        };
        assert!(
            text.contains(&format!(" {then} ")),
            "{method} {status}: {text}"
        );
        assert!(
            text.ends_with(&format!("type={kind} body={body}")),
            "{method} {status}: {text}"
        );
    }
    // A body that is gone is not sent again, but a GET needs none.
    for (status, then) in [(307, StatusCode::TEMPORARY_REDIRECT), (303, StatusCode::OK)] {
        let part = futures::stream::iter([Ok::<_, std::io::Error>("hello")]);
        let call = client.post(format!("http://users/{status}//v2"));
        let answer = call.body(reqwest::Body::wrap_stream(part)).send().await;
        assert_eq!(answer.expect("it is answered").status(), then);
    }
}

#[tokio::test]
async fn secrets_stay_with_their_host() {
    let balancer = fleet(["a", "b"]).await;
    let other = server("other").await;
    let client = client(balancer.middleware().redirects(10));
    let call = async |location: String| {
        let call = client.get(format!("http://users/307/{location}"));
        let answer = call.header("authorization", "secret").send().await;
        let text = answer.expect("it is answered").text().await;
        text.expect("it is whole")
    };
    assert!(
        call("http://users/v2".into())
            .await
            .contains("authorization=secret ")
    );
    let elsewhere = call(format!("http://{}/v2", other.address())).await;
    assert!(
        elsewhere.starts_with("other GET"),
        "it is none of ours, and passes: {elsewhere}"
    );
    assert!(elsewhere.contains("authorization= "), "{elsewhere}");
}

#[tokio::test]
async fn redirects_are_bounded_and_off_by_default() {
    let balancer = fleet(["a", "b"]).await;
    let ended = || totals(&balancer).0;
    // It leads to itself.
    let url = "http://users/302//302//302//302//302//302//v2";
    let bounded = client(balancer.middleware().redirects(3));
    let answer = bounded.get(url).send().await.expect("it is answered");
    assert_eq!(answer.status(), StatusCode::FOUND);
    drop(answer.bytes().await.expect("it is whole"));
    assert_eq!(ended(), 4, "the call, and three redirects");
    let off = client(balancer.middleware());
    let answer = off.get(url).send().await.expect("it is answered");
    assert_eq!(answer.status(), StatusCode::FOUND);
    drop(answer.bytes().await.expect("it is whole"));
    assert_eq!(ended(), 5);
    // Neither out of the web, nor nowhere.
    for location in ["ftp://users/v2", "http://[/"] {
        let call = bounded.get(format!("http://users/302/{location}"));
        let answer = call.send().await.expect("it is answered");
        assert_eq!(answer.status(), StatusCode::FOUND, "{location}");
    }
}

/// A redirect announces a body that never comes.
#[tokio::test]
async fn a_redirects_own_body_is_not_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.expect("it connects");
            let mut asked = [0; 1_024];
            let _ = stream.read(&mut asked).await.expect("it asks");
            let head = "HTTP/1.1 302 Found\r\nlocation: http://users/there\r\n\
                        content-length: 99\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("it listens");
            // The connection stays open.
            open.push(stream);
        }
    });
    let stuck = Endpoint::builder(address)
        .id("stuck")
        .build()
        .expect("valid");
    let set = Fixed::new([stuck, server("b").await]).expect("ids differ");
    let builder = Balancer::builder("users").strategy(RoundRobin::new());
    let balancer = builder.build(set).await.expect("it starts");
    let client = client(balancer.middleware().redirects(3));
    for _ in 0..2 {
        let asking = client.get("http://users/here").send();
        let answer = tokio::time::timeout(client_common::SOON, asking).await;
        let answer = answer.expect("it follows").expect("one answers");
        assert_eq!(answer.status(), 200);
    }
    serving.abort();
}

/// By reqwest itself, below the middleware.
#[tokio::test]
async fn the_url_of_an_answer_is_where_it_comes_from() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let other = server("other").await;
    let balancer = fleet(["a", "b"]).await;
    let plain = reqwest::Client::builder().no_proxy().build();
    let client = ClientBuilder::new(plain.expect("it needs nothing"))
        .with(balancer.middleware())
        .build();
    for (asked, answered) in [
        ("here?a=b".to_owned(), "http://users/here?a=b".to_owned()),
        (
            "302//there?a=b".to_owned(),
            "http://users/there?a=b".to_owned(),
        ),
        (
            format!("302/http://{}/here", other.address()),
            format!("http://{}/here", other.address()),
        ),
    ] {
        let answer = client.get(format!("http://users/{asked}")).send().await;
        let answer = answer.expect("it is answered");
        assert_eq!(answer.url().as_str(), answered, "{asked}");
    }
}
