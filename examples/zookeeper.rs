//! Registers with the ZooKeeper at `ZK_HOSTS` (by default 127.0.0.1:2181; more
//! than one with commas), follows the service, and leaves again:
//!
//! ```console
//! zkServer.sh start
//! cargo run --example zookeeper
//! ```

#[path = "common/registry.rs"]
mod registry;

use std::process::ExitCode;

use waypost::registry::ZooKeeper;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            eprintln!("start a server with `zkServer.sh start`, or name one in ZK_HOSTS=host:port");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), waypost::Error> {
    let at = std::env::var("ZK_HOSTS").unwrap_or_else(|_| "127.0.0.1:2181".to_owned());
    let mut hosts = at.split(',');
    let mut zookeeper = ZooKeeper::builder(hosts.next().unwrap_or_default());
    for host in hosts {
        zookeeper = zookeeper.server(host);
    }
    registry::visit(zookeeper.build()?, &at).await
}
