//! Checks that a real agent makes, and what it does when they fail.

mod client_common;
mod registry_common;
mod server_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use futures::stream::BoxStream;
use registry_common::{set_where, users};
use server_common::{Launch, Server, http_get, until};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use waypost::registry::consul::{Check, Consul, ConsulBuilder};
use waypost::{Discover, Endpoint, EndpointSet, Error, Registry};

const EVERY: Duration = Duration::from_secs(1);

type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

async fn consul() -> Option<Server> {
    Some(Launch::of("consul")?.start().await)
}

fn at(server: &Server) -> ConsulBuilder {
    Consul::builder(format!("http://{}", server.address()))
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::builder(address)
        .id("users-1")
        .weight(5)
        .build()
        .unwrap()
}

/// The weight of the one endpoint, or none where there is none.
async fn shows(sets: &mut Sets, what: &str, weight: Option<u32>) {
    let is_so = |set: &EndpointSet| set.endpoints().first().map(|it| it.weight()) == weight;
    set_where(sets, what, is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_check_passes_warns_and_fails() {
    let Some(server) = consul().await else { return };
    let health = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&health);
    let answer = move || {
        let status = told.load(Ordering::Relaxed);
        async move { StatusCode::from_u16(status).unwrap() }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/health", get(answer));
    tokio::spawn(async { axum::serve(listener, app).await });

    let check = Check::http("/health", EVERY).timeout(EVERY);
    let builder = at(&server).check(check).warning_weight(2);
    let registry = builder.build().unwrap();
    let _held = registry
        .register(&users(), endpoint(address))
        .await
        .unwrap();
    let mut sets = registry.watch(&users());
    for (status, what, weight) in [
        (200, "200 passes", Some(5)),
        (429, "429 warns", Some(2)),
        (500, "500 is critical", None),
        (204, "any 2xx passes", Some(5)),
        (404, "404 is critical", None),
    ] {
        health.store(status, Ordering::Relaxed);
        shows(&mut sets, what, weight).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_check_asks_for_the_service_or_for_the_server() {
    let Some(server) = consul().await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    let serving = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));

    for service in ["", "users.v1.Users"] {
        let registry = at(&server).check(Check::grpc(service, EVERY));
        let registry = registry.build().unwrap();
        let held = registry.register(&users(), endpoint(address)).await;
        let mut sets = registry.watch(&users());
        for (status, weight) in [
            (ServingStatus::Serving, Some(5)),
            (ServingStatus::NotServing, None),
            (ServingStatus::Serving, Some(5)),
        ] {
            reporter.set_service_status(service, status).await;
            shows(&mut sets, &format!("`{service}` is {status:?}"), weight).await;
        }
        held.unwrap().deregister().await.unwrap();
        shows(&mut sets, "it is gone", None).await;
    }
}

/// Consul looks every 30 s for what has been critical for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn the_entry_of_a_process_that_died_is_taken_out() {
    let Some(server) = consul().await else { return };
    let ttl = at(&server).check(Check::ttl(EVERY)).build().unwrap();
    let never = at(&server)
        .check(Check::ttl(EVERY))
        .deregister_critical_after(None)
        .build()
        .unwrap();
    // Nobody keeps the entries when their runtime is gone, nor takes them out.
    let dying = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let held = runtime.block_on(async {
            let here = endpoint("127.0.0.1:1".parse().unwrap());
            let others = "others".parse().unwrap();
            let first = ttl.register(&users(), here.clone()).await.unwrap();
            (first, never.register(&others, here).await.unwrap())
        });
        runtime.shutdown_background();
        held
    });
    let held = dying.await.unwrap();
    let services = async || {
        http_get(server.port(), "/v1/agent/services")
            .await
            .unwrap()
            .1
    };
    assert!(services().await.contains("users:users-1"));
    let mut sets = at(&server).build().unwrap().watch(&users());
    set_where(&mut sets, "it is critical", EndpointSet::is_empty).await;
    let after = Duration::from_mins(3);
    until("the agent takes it out", after, async || {
        !services().await.contains("users:users-1")
    })
    .await;
    let left = services().await;
    assert!(left.contains("others:users-1"), "never is never: {left}");
    drop(held);
}
