//! A generated gRPC client over three servers, one of which dies.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost::resilience::Retry;
use waypost::{Balancer, Fixed};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// A server on a runtime of its own, so that its connections die with it.
async fn serve() -> Result<(SocketAddr, Runtime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await??;
    let address = listener.local_addr()?;
    runtime.spawn(async move {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("users", ServingStatus::Serving)
            .await;
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener))
            .await
    });
    Ok((address, runtime))
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut servers = vec![serve().await?, serve().await?, serve().await?];
    let addresses: Vec<String> = servers
        .iter()
        .map(|(address, _)| address.to_string())
        .collect();
    let users = Balancer::builder("users")
        .build(Fixed::addresses(addresses.iter().map(String::as_str))?)
        .await?;
    // A health check may be made twice.
    let channel = users.grpc().retry(Retry::default().any_method()).build();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest {
        service: "users".to_owned(),
    };
    for call in 0..300 {
        if call == 150
            && let Some((_, runtime)) = servers.pop()
        {
            runtime.shutdown_background();
        }
        client.check(request.clone()).await?;
    }
    println!("300 calls answered, a server killed after 150");
    for (_, runtime) in servers {
        runtime.shutdown_background();
    }
    Ok(())
}
