//! Who an endpoint has to be, and who we are, on real TLS servers.

mod tls_common;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ServerConfig;
use tls_common::{Authority, Front, Server};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt as _;
use waypost::client::http::{BalanceLayer, BoxError, Pinned};
use waypost::client::tls::{EndpointTls, Identity, SPIFFE_KEY, SpiffeMatch};
use waypost::endpoint::{AddressPolicy, EndpointBuilder};
use waypost::{Balancer, Endpoint, Fixed};

const USERS: &str = "spiffe://example.org/ns/prod/sa/users";
const ORDERS: &str = "spiffe://example.org/ns/prod/sa/orders";

async fn ask(tls: EndpointTls, endpoint: Endpoint) -> Result<String, BoxError> {
    let balancer = Balancer::builder("users")
        .build(Fixed::new([endpoint])?)
        .await?;
    let client = BalanceLayer::new(balancer).per_endpoint(move |endpoint: &Endpoint| {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.config(endpoint)?)
            .https_only()
            .enable_http1()
            .wrap_connector(Pinned::new(HttpConnector::new(), endpoint)?);
        let client = Client::builder(TokioExecutor::new());
        Ok::<_, waypost::Error>(client.build::<_, Full<Bytes>>(connector))
    });
    let request = Request::get("https://users/").body(Full::default())?;
    let body = client.oneshot(request).await?.into_body().collect().await?;
    Ok(String::from_utf8(body.to_bytes().to_vec())?)
}

/// The same with reqwest.
async fn ask_reqwest(tls: EndpointTls, endpoint: Endpoint) -> Result<String, BoxError> {
    let balancer = Balancer::builder("users")
        .build(Fixed::new([endpoint])?)
        .await?;
    let middleware = balancer
        .middleware()
        .https_per_endpoint(move |endpoint: &Endpoint| {
            let mut config = tls.config(endpoint)?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(reqwest::Client::builder().tls_backend_preconfigured(config))
        });
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(middleware)
        .build();
    Ok(client.get("https://users/").send().await?.text().await?)
}

/// A tonic server behind TLS, with its task.
struct Grpc(Front, AbortHandle);

impl Grpc {
    async fn start(tls: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("users", ServingStatus::Serving)
            .await;
        let serving = tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener));
        let serving = tokio::spawn(serving).abort_handle();
        Self(Front::start(tls, address).await, serving)
    }

    /// With a certificate for these names; it wants one of the same authority.
    async fn mutual(authority: &Authority, names: &[&str]) -> Self {
        let mut tls = authority.mutual(names);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self::start(tls).await
    }

    /// Asks it, by a record that says this of it.
    async fn ask(
        &self,
        tls: EndpointTls,
        says: impl FnOnce(EndpointBuilder) -> EndpointBuilder,
    ) -> Result<(), String> {
        let endpoint = says(Endpoint::builder(self.0.address)).build();
        let source = Fixed::new([endpoint.expect("well-formed")]).expect("it is one");
        let balancer = Balancer::builder("users").build(source).await;
        let channel = balancer.expect("there is a runtime").grpc();
        let mut client = HealthClient::new(channel.endpoint_tls(tls).build());
        let request = HealthCheckRequest {
            service: "users".to_owned(),
        };
        let answer = client.check(request).await;
        answer.map(drop).map_err(|status| format!("{status:?}"))
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.1.abort();
    }
}

fn allowing(authority: &Authority, allowed: &str) -> EndpointTls {
    let allowed = SpiffeMatch::exact(allowed).expect("it is an ID");
    EndpointTls::new(authority.roots()).spiffe([allowed])
}

fn claiming(server: &Server, id: &str) -> Endpoint {
    let builder = Endpoint::builder(server.address).metadata(SPIFFE_KEY, id);
    builder.build().expect("the parts are well-formed")
}

#[tokio::test]
async fn the_workload_counts_and_not_its_address_or_name() {
    let authority = Authority::new();
    let users = Server::start("users", &authority, &[USERS]).await;
    let orders = Server::start("orders", &authority, &[ORDERS, "users"]).await;
    let tls = allowing(&authority, USERS);
    assert!(ask(tls.clone(), users.endpoint()).await.is_ok());
    let wrong = ask(tls, orders.endpoint()).await;
    assert!(wrong.is_err(), "a name is not asked for, the ID is");
    let below = SpiffeMatch::below("spiffe://example.org/ns/prod").expect("it is an ID");
    let wide = EndpointTls::new(authority.roots()).spiffe([below]);
    assert!(ask(wide, orders.endpoint()).await.is_ok());
}

#[tokio::test]
async fn the_chain_is_verified_all_the_same() {
    let (ours, evil) = (Authority::new(), Authority::new());
    let forged = Server::start("forged", &evil, &[USERS]).await;
    assert!(
        ask(allowing(&ours, USERS), forged.endpoint())
            .await
            .is_err()
    );
    assert!(ask(allowing(&evil, USERS), forged.endpoint()).await.is_ok());
}

#[tokio::test]
async fn a_certificate_of_two_workloads_or_none_is_refused() {
    let authority = Authority::new();
    let both = Server::start("both", &authority, &[USERS, ORDERS]).await;
    let none = Server::start("none", &authority, &["users"]).await;
    for server in [&both, &none] {
        let answer = ask(allowing(&authority, USERS), server.endpoint()).await;
        assert!(answer.is_err(), "{}", server.name);
    }
}

/// A poisoned registry: the record says who the endpoint is.
#[tokio::test]
async fn a_record_can_narrow_who_is_called_but_never_widen_it() {
    let authority = Authority::new();
    let users = Server::start("users", &authority, &[USERS]).await;
    let orders = Server::start("orders", &authority, &[ORDERS]).await;
    let tls = allowing(&authority, USERS);
    assert!(ask(tls.clone(), claiming(&users, USERS)).await.is_ok());
    let redirected = ask(tls, claiming(&orders, ORDERS)).await;
    let error = redirected.expect_err("orders are not users").to_string();
    assert!(error.contains("not one of the service's"), "{error}");
    let below = SpiffeMatch::below("spiffe://example.org/ns/prod").expect("it is an ID");
    let wide = EndpointTls::new(authority.roots()).spiffe([below]);
    assert!(ask(wide.clone(), claiming(&orders, ORDERS)).await.is_ok());
    assert!(
        ask(wide, claiming(&users, ORDERS)).await.is_err(),
        "it is another"
    );
}

#[tokio::test]
async fn reqwest_checks_the_workload_and_the_record_too() {
    let authority = Authority::new();
    let users = Server::start("users", &authority, &[USERS]).await;
    let orders = Server::start("orders", &authority, &[ORDERS, "users"]).await;
    let tls = allowing(&authority, USERS);
    let answer = ask_reqwest(tls.clone(), claiming(&users, USERS)).await;
    let text = answer.expect("it is who it has to be");
    assert!(
        text.contains("sni=users") && text.contains("HTTP/2"),
        "{text}"
    );
    for (endpoint, why) in [
        (orders.endpoint(), "not the ID"),
        (claiming(&orders, ORDERS), "not one of the service's"),
    ] {
        let answer = ask_reqwest(tls.clone(), endpoint).await;
        assert!(answer.is_err(), "{why}");
    }
}

#[tokio::test]
async fn grpc_checks_the_workload_and_the_record_and_shows_who_we_are() {
    let authority = Authority::new();
    let folder = Folder::new("grpc");
    folder.write(&authority.identity(&["me"]));
    let ours = Identity::from_files(folder.0.join("cert.pem"), folder.0.join("key.pem"));
    let ours = ours.expect("they are whole");
    let users = Grpc::mutual(&authority, &[USERS]).await;
    let orders = Grpc::mutual(&authority, &[ORDERS, "users"]).await;
    let claims = |id: &'static str| move |it: EndpointBuilder| it.metadata(SPIFFE_KEY, id);

    let tls = allowing(&authority, USERS).identity(ours.clone());
    let answer = users.ask(tls.clone(), |it| it).await;
    answer.expect("it is who it has to be");
    let answer = users.ask(tls.clone(), claims(USERS)).await;
    answer.expect("the record says so, too");
    assert!(
        users
            .ask(allowing(&authority, USERS), |it| it)
            .await
            .is_err()
    );
    let error = orders.ask(tls.clone(), |it| it).await.unwrap_err();
    assert!(error.contains("Unavailable"), "{error}");
    let error = orders.ask(tls, claims(ORDERS)).await.unwrap_err();
    assert!(error.contains("not one of the service's"), "{error}");

    // Without IDs, by the service's name or the one in the record.
    let tls = EndpointTls::new(authority.roots()).identity(ours);
    let answer = orders.ask(tls.clone(), |it| it).await;
    answer.expect("it has the service's name");
    let elsewhere = |it: EndpointBuilder| it.tls_name("elsewhere");
    assert!(orders.ask(tls, elsewhere).await.is_err());
}

#[tokio::test]
async fn a_server_without_http2_is_told_as_one() {
    let authority = Authority::new();
    let identity = authority.identity(&["users"]);
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert], identity.key)
        .expect("key and certificate match");
    let server = Grpc::start(tls).await;
    let tls = EndpointTls::new(authority.roots());
    let error = server.ask(tls, |it| it).await.unwrap_err();
    assert!(error.contains("did not choose HTTP/2"), "{error}");
}

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("waypost-mtls-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("there is room");
        Self(path)
    }

    fn write(&self, identity: &tls_common::Identity) {
        std::fs::write(self.0.join("cert.pem"), &identity.cert_pem).expect("there is room");
        std::fs::write(self.0.join("key.pem"), &identity.key_pem).expect("there is room");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn our_certificate_is_shown_and_reloaded_and_a_bad_one_changes_nothing() {
    let (authority, old) = (Authority::new(), Authority::new());
    let server = Server::with("mtls", authority.mutual(&["users"])).await;
    let folder = Folder::new("reload");
    folder.write(&old.identity(&["me"]));
    let (cert, key) = (folder.0.join("cert.pem"), folder.0.join("key.pem"));
    let ours = Identity::from_files(&cert, &key).expect("they are whole");
    let tls = EndpointTls::new(authority.roots());
    assert!(
        ask(tls.clone(), server.endpoint()).await.is_err(),
        "it asks for one"
    );
    let tls = tls.identity(ours.clone());
    assert!(
        ask(tls.clone(), server.endpoint()).await.is_err(),
        "not that one"
    );

    folder.write(&authority.identity(&["me"]));
    assert!(ours.reload().expect("they are whole"));
    let text = ask(tls.clone(), server.endpoint()).await.expect("that one");
    assert!(text.contains("peers=1"), "{text}");
    assert!(!ours.reload().expect("they are whole"), "it is the same");

    std::fs::write(&key, &authority.identity(&["me"]).key_pem).expect("there is room");
    let error = ours.reload().expect_err("it is another certificate's key");
    assert!(error.is_invalid(), "{error}");
    let secret = std::fs::read_to_string(&key).expect("it is there");
    let secret = secret.lines().nth(1).expect("it has a body");
    for shown in [format!("{error}{error:?}"), format!("{ours:?}{tls:?}")] {
        assert!(!shown.contains(secret), "{shown}");
    }
    std::fs::remove_file(&cert).expect("it was there");
    assert!(
        ours.reload()
            .expect_err("it is gone")
            .to_string()
            .contains("cert.pem")
    );
    assert!(
        ask(tls, server.endpoint()).await.is_ok(),
        "the last good one serves"
    );
}

#[tokio::test]
async fn an_identity_that_is_followed_is_the_one_of_its_files() {
    let (authority, old) = (Authority::new(), Authority::new());
    let folder = Folder::new("follow");
    folder.write(&old.identity(&["me"]));
    let (cert, key) = (folder.0.join("cert.pem"), folder.0.join("key.pem"));
    let ours = Identity::from_files(&cert, &key).expect("they are whole");
    let (told, mut errors) = tokio::sync::mpsc::unbounded_channel();
    let failed = move |error: waypost::Error| drop(told.send(error));
    let following = tokio::spawn(ours.follow(Duration::from_millis(2), failed));

    let next = authority.identity(&["me"]);
    std::fs::write(&cert, &next.cert_pem).expect("there is room");
    let error = errors.recv().await.expect("it is followed");
    assert!(error.is_invalid(), "of another key: {error}");
    let server = Server::with("mtls", authority.mutual(&["users"])).await;
    let tls = EndpointTls::new(authority.roots()).identity(ours);
    assert!(ask(tls.clone(), server.endpoint()).await.is_err());
    std::fs::write(&key, &next.key_pem).expect("there is room");
    let taken = async { while ask(tls.clone(), server.endpoint()).await.is_err() {} };
    let taken = tokio::time::timeout(Duration::from_secs(30), taken).await;
    taken.expect("the new one is shown");

    drop(tls);
    following.await.expect("it ends with the last of them");
}

#[tokio::test]
async fn addresses_that_a_policy_refuses_are_never_called() {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let metadata = Fixed::addresses(["169.254.169.254:80"]).expect("it is an address");
    let balancer = Balancer::builder("users").build(metadata).await;
    let layer = BalanceLayer::new(balancer.expect("there is a runtime"));
    let layer = layer.addresses(AddressPolicy::default());
    let request = Request::get("http://users/").body(Full::default());
    let answer = tower::Layer::layer(&layer, client)
        .oneshot(request.expect("well-formed"))
        .await;
    let error = answer.expect_err("it is refused").to_string();
    assert!(error.contains("address policy"), "{error}");
}
