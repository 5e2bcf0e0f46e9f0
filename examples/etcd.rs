//! Registers with the etcd at `ETCD_ENDPOINTS` (by default 127.0.0.1:2379; more
//! than one with commas), follows the service, and leaves again:
//!
//! ```console
//! etcd &
//! cargo run --example etcd
//! ```

#[path = "common/registry.rs"]
mod registry;

use std::env::var;
use std::process::ExitCode;

use waypost::registry::Etcd;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            eprintln!("start a server with `etcd`, or name one in ETCD_ENDPOINTS=host:port");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), waypost::Error> {
    let at = var("ETCD_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:2379".to_owned());
    let mut urls = at.split(',').map(|one| {
        if one.contains("://") {
            one.to_owned()
        } else {
            format!("http://{one}")
        }
    });
    let mut etcd = Etcd::builder(urls.next().unwrap_or_default());
    for url in urls {
        etcd = etcd.endpoint(url);
    }
    if let (Ok(name), Ok(password)) = (var("ETCD_USER"), var("ETCD_PASSWORD")) {
        etcd = etcd.user(name, password);
    }
    registry::visit(etcd.build()?, &at).await
}
