//! Prints every key of a configuration with its default, or checks a file of
//! yours and prints what comes of it.
//!
//! ```console
//! cargo run --example config
//! cargo run --example config -- users.toml
//! WAYPOST__CALLS__TIMEOUT=2s cargo run --example config -- users.toml
//! ```

use std::process::ExitCode;

use waypost::Error;
use waypost::config::{Config, REFERENCE, Sources};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        print!("{REFERENCE}");
        return ExitCode::SUCCESS;
    };
    if path == "--help" || path == "-h" {
        println!("usage: config [FILE]\n\nPrints every key with its default, or checks a file.");
        return ExitCode::SUCCESS;
    }
    match check(&path).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn check(path: &str) -> Result<(), Error> {
    let sources = Sources::new().file(path).environment("WAYPOST");
    let config: Config = sources.read()?;
    print!("{}", config.to_toml()?);
    let (balancer, _calls) = config.build().await?;
    let endpoints = balancer.current().len();
    eprintln!("{}: {endpoints} endpoints", config.service);
    // What is written is right all the same.
    let discovery = balancer.discovery();
    match discovery.error() {
        Some(error) => eprintln!("the registry fails: {error}"),
        None if discovery.is_unknown() => eprintln!("the registry has not answered yet"),
        None => {}
    }
    Ok(())
}
