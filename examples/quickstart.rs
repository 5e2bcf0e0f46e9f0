//! The main job, on real servers: discover, pick, call.
//!
//! Four HTTP servers register in the in-memory registry and are called by a
//! real client under load. Then one is stopped in good order, one is killed
//! without a word, and a new one comes. What every server got in each phase,
//! how long calls took, and how many failed is printed at the end.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! Exits with 1 when a call failed, or anything else that it claims is not so.

#[path = "quickstart/load.rs"]
mod load;
#[path = "quickstart/report.rs"]
mod report;
#[path = "quickstart/server.rs"]
mod server;

use std::process::ExitCode;
use std::time::Duration;

use waypost::{Balancer, InMemory, ServiceName};

use load::Load;
use report::{Claim, Report};
use server::Server;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long a server that sends no heartbeats stays in the registry.
const TTL: Duration = Duration::from_millis(600);
const PHASE: Duration = Duration::from_millis(1_500);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // reqwest is built here with rustls and no provider of its own.
    drop(rustls::crypto::ring::default_provider().install_default());

    // Five lines: a registry, a balancer, a client.
    let registry = InMemory::with_ttl(TTL)?;
    let service: ServiceName = "users".parse()?;
    let users = Balancer::builder("users").build(registry.clone()).await?;
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(users.middleware())
        .build();

    let mut servers = Vec::new();
    for name in ["amber", "birch", "cedar", "dune"] {
        servers.push(Server::start(name, &registry, &service).await?);
    }
    users.ready(Duration::from_secs(5)).await?;
    let mut nodes = users.nodes();

    println!(
        "calling http://users/v1/me on {} servers …\n",
        servers.len()
    );
    let load = Load::start(&client);

    let before = load.phase("all four serve", PHASE).await;

    // In good order: out of the registry, then finish what is under way.
    let birch = servers.remove(1);
    birch.stop().await?;
    let stopped = load.phase("birch was stopped in good order", PHASE).await;

    // Without a word: its connections break, its heartbeats cease.
    let cedar = servers.remove(1);
    cedar.kill();
    let killed = load.phase("cedar is killed", PHASE).await;

    servers.push(Server::start("elm", &registry, &service).await?);
    let joined = load.phase("elm came", PHASE).await;
    nodes.extend(
        users
            .nodes()
            .into_iter()
            .filter(|node| node.endpoint().id().as_str() == "elm"),
    );

    let totals = load.stop().await;
    for server in servers {
        server.stop().await?;
    }
    let phases = [before, stopped, killed, joined];
    let claims = claims(&phases, &totals);
    let sent_again = nodes.iter().map(|node| node.stats().totals().failed).sum();
    let report = Report {
        phases: &phases,
        sent_again,
        claims: &claims,
    };
    print!("{report}");
    let all_hold = claims.iter().all(|claim| claim.holds);
    Ok(if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn claims(phases: &[load::Phase; 4], totals: &load::Totals) -> Vec<Claim> {
    let [before, stopped, killed, joined] = phases;
    let load::Totals { calls, failed } = *totals;
    let fair = |phase: &load::Phase, name: &str, servers: f64| {
        let share = phase.served(name) as f64 / phase.calls().max(1) as f64;
        (share * servers - 1.0).abs() < 0.5
    };
    vec![
        Claim::new(
            calls > 0 && failed == 0,
            format!("{failed} of all {calls} calls failed, also while servers came and went"),
        ),
        Claim::new(
            ["amber", "birch", "cedar", "dune"]
                .iter()
                .all(|name| fair(before, name, 4.0)),
            "all four got a fair share at first",
        ),
        Claim::new(
            [stopped, killed, joined]
                .iter()
                .all(|phase| phase.served("birch") == 0),
            "birch got no call after it had left",
        ),
        Claim::new(
            joined.served("cedar") == 0 && fair(killed, "amber", 2.0),
            "the others took over from cedar when it died",
        ),
        Claim::new(
            fair(joined, "elm", 3.0),
            "elm got its share as soon as it came",
        ),
    ]
}
