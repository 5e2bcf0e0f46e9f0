//! An axum service from its registration to its end: it registers, serves, says
//! that it drains, finishes what it has, and leaves; and its client's dashboard
//! shows that.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use waypost::observe::{Report, dashboard};
use waypost::{Balancer, Endpoint, InMemory, Registry as _, Status};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let registry = InMemory::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::at(listener.local_addr()?)?;
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "done"
    };
    let router = axum::Router::new().route("/slow", axum::routing::get(slow));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        // A dropped sender means the same.
        let _ended = stopped.await;
    });
    let serving = tokio::spawn(async move { serving.await });
    let mut registration = registry.register(&"users".parse()?, endpoint).await?;

    let users = Balancer::builder("users").build(registry).await?;
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(users.middleware())
        .build();
    let last = tokio::spawn(client.get("http://users/slow").send());
    while Report::of(&users).in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    // What a service does on SIGTERM.
    registration.set_status(Status::Draining).await?;
    while Report::of(&users).eligible > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = Report::of(&users);
    println!(
        "{} {}",
        report.endpoints[0].address, report.endpoints[0].why
    );
    let refused = client.get("http://users/slow").send().await;
    let answer = last.await??.text().await?;
    println!(
        "the call under way ended with {answer:?}, a new one with: {}",
        refused.is_err()
    );
    drop(stop);
    serving.await??;
    registration.deregister().await?;
    // To be served on a port for operators.
    let _router = dashboard([users]);
    if answer != "done" || refused.is_ok() {
        return Err("draining lost a call, or took a new one".into());
    }
    Ok(())
}
