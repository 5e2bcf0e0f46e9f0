//! https through every client: the name stays logical, whatever the address.

mod client_common;
mod tls_common;

use bytes::Bytes;
use client_common::{dead, told, totals_of, users};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::ClientBuilder;
use std::sync::Arc;
use tls_common::{Authority, Server};
use tower::ServiceExt as _;
use waypost::client::http::{BalanceLayer, Pinned};
use waypost::resilience::Retry;
use waypost::strategy::RoundRobin;
use waypost::{Balancer, Endpoint, Fixed};

fn middleware(
    balancer: &Balancer,
    authority: &Authority,
) -> reqwest_middleware::ClientWithMiddleware {
    let mut tls = authority.client();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let jar = Arc::new(reqwest::cookie::Jar::default());
    let https = balancer.middleware().https(move || {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .cookie_provider(Arc::clone(&jar))
    });
    let plain = reqwest::Client::builder().tls_backend_preconfigured(authority.client());
    ClientBuilder::new(plain.build().expect("it needs nothing"))
        .with(https)
        .build()
}

#[tokio::test]
async fn reqwest_keeps_sni_certificate_authority_cookies_and_url_logical() {
    let authority = Authority::new();
    let (a, b) = (
        Server::start("a", &authority, &["users"]).await,
        Server::start("b", &authority, &["users"]).await,
    );
    let balancer = users([a.endpoint(), b.endpoint()]).await;
    let client = middleware(&balancer, &authority);
    let mut seen = Vec::new();
    for turn in 0..4 {
        let answer = client.get("https://users/v1/me?q=1").send().await;
        let answer = answer.expect("the name is right");
        assert_eq!(answer.url().as_str(), "https://users/v1/me?q=1");
        assert_eq!(answer.version(), http::Version::HTTP_2);
        let text = answer.text().await.expect("it is whole");
        assert_eq!(told(&text, "sni"), "users");
        assert_eq!(told(&text, "authority"), "users");
        assert_eq!(told(&text, "path"), "/v1/me?q=1");
        let cookie = if turn == 0 { "-" } else { "seen=yes" };
        assert_eq!(told(&text, "cookie"), cookie, "one jar for all endpoints");
        seen.push(told(&text, "name").to_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["a", "a", "b", "b"]);
    assert_eq!(totals_of(&balancer, "a"), (2, 0, 0));
}

#[tokio::test]
async fn a_port_in_the_url_stays_logical_too() {
    let authority = Authority::new();
    let server = Server::start("a", &authority, &["users"]).await;
    let balancer = users([server.endpoint()]).await;
    let answer = middleware(&balancer, &authority)
        .get("https://users:8443/")
        .send()
        .await;
    let answer = answer.expect("the endpoint has its own port");
    assert_eq!(answer.url().as_str(), "https://users:8443/");
    let text = answer.text().await.expect("it is whole");
    assert_eq!(told(&text, "host"), "users:8443");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_the_record_says_so() {
    let authority = Authority::new();
    let other = Server::start("other", &authority, &["orders"]).await;
    let balancer = users([other.endpoint()]).await;
    let error = middleware(&balancer, &authority)
        .get("https://users/")
        .send()
        .await;
    let error = error.expect_err("the certificate is for orders");
    assert!(error.is_connect(), "{error}");
    assert_eq!(totals_of(&balancer, "other"), (0, 1, 0));

    let renamed = Endpoint::builder(other.address).tls_name("orders").build();
    let balancer = users([renamed.expect("well-formed")]).await;
    let answer = middleware(&balancer, &authority)
        .get("https://users/")
        .send()
        .await;
    let answer = answer.expect("the record names the certificate's name");
    assert_eq!(answer.url().as_str(), "https://users/");
    let text = answer.text().await.expect("it is whole");
    assert_eq!(
        (told(&text, "sni"), told(&text, "host")),
        ("orders", "users")
    );
}

#[tokio::test]
async fn a_redirect_is_handed_on_and_what_was_not_sent_goes_elsewhere() {
    let authority = Authority::new();
    let server = Server::start("a", &authority, &["users"]).await;
    let balancer = users([dead("dead"), server.endpoint()]).await;
    let client = middleware(&balancer, &authority);
    for _ in 0..2 {
        let answer = client.post("https://users/redirect").send().await;
        let answer = answer.expect("one is alive");
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.headers()["location"], "https://elsewhere/");
    }
}

#[tokio::test]
async fn hyper_speaks_http1_and_http2_to_each_endpoint_by_name() {
    let authority = Authority::new();
    let server = Server::start("a", &authority, &["users"]).await;
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let balancer = users([server.endpoint()]).await;
        let tls = authority.client();
        let client = BalanceLayer::new(balancer.clone())
            .retry(Retry::default())
            .per_endpoint(move |endpoint: &Endpoint| {
                let pinned = Pinned::new(HttpConnector::new(), endpoint)?;
                let builder = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_tls_config(tls.clone())
                    .https_only();
                let connector = if http2 {
                    builder.enable_http2().wrap_connector(pinned)
                } else {
                    builder.enable_http1().wrap_connector(pinned)
                };
                let client = Client::builder(TokioExecutor::new());
                Ok::<_, waypost::Error>(client.build::<_, Full<Bytes>>(connector))
            });
        let request = Request::get("https://users/v1").body(Full::default());
        let answer = client.oneshot(request.expect("well-formed")).await;
        let body = answer.expect("the name is right").into_body();
        let text = body.collect().await.expect("it is whole").to_bytes();
        let text = std::str::from_utf8(&text).expect("it is text");
        assert_eq!(told(text, "version"), version);
        assert_eq!(
            (told(text, "sni"), told(text, "authority")),
            ("users", "users")
        );
        assert_eq!(totals_of(&balancer, "a"), (1, 0, 0));
    }
}

#[tokio::test]
async fn an_address_by_name_is_looked_up() {
    let authority = Authority::new();
    let server = Server::start("a", &authority, &["users"]).await;
    let by_name = format!("localhost:{}", server.address.port());
    let balancer = Balancer::builder("users")
        .strategy(RoundRobin::new())
        .build(Fixed::addresses([by_name.as_str()]).expect("it is an address"))
        .await
        .expect("there is a runtime");
    let answer = middleware(&balancer, &authority)
        .get("https://users/")
        .send()
        .await;
    let text = answer.expect("it is found").text().await;
    assert_eq!(told(&text.expect("it is whole"), "sni"), "users");
}
