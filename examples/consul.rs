//! Registers with the Consul agent at `CONSUL_HTTP_ADDR` (by default
//! 127.0.0.1:8500), follows the service, and leaves again:
//!
//! ```console
//! consul agent -dev &
//! cargo run --example consul
//! ```

#[path = "common/registry.rs"]
mod registry;

use std::process::ExitCode;

use waypost::registry::Consul;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            eprintln!(
                "start an agent with `consul agent -dev`, or name one in CONSUL_HTTP_ADDR=host:port"
            );
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), waypost::Error> {
    let at = std::env::var("CONSUL_HTTP_ADDR").unwrap_or_else(|_| "127.0.0.1:8500".to_owned());
    let url = if at.contains("://") {
        at
    } else {
        format!("http://{at}")
    };
    let mut consul = Consul::builder(&url);
    if let Ok(token) = std::env::var("CONSUL_HTTP_TOKEN") {
        consul = consul.token(token);
    }
    let consul = consul.build()?;
    registry::visit(consul, &url).await
}
