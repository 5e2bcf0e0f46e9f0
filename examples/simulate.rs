//! Compares strategies on simulated fleets:
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --scenario S1 --strategy p2c --seeds 5
//! ```
//!
//! Without `--scenario`, all of S1 to S8; without `--strategy`, all; both may be repeated.

use std::error::Error;

use waypost::sim::{Fleet, Rule, run, table};
use waypost::strategy::{LeastConn, P2c, Random, RoundRobin};

const SCENARIOS: [&str; 8] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];
const STRATEGIES: [&str; 6] = [
    "random",
    "round-robin",
    "least-conn",
    "p2c",
    "oracle-p2c",
    "oracle-jsq",
];

fn main() -> Result<(), Box<dyn Error>> {
    let (mut scenarios, mut strategies, mut seeds) = (Vec::new(), Vec::new(), 1_u64);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{flag}` needs a value"))?;
        match flag.as_str() {
            "--scenario" => scenarios.push(value),
            "--strategy" => strategies.push(value),
            "--seeds" => seeds = value.parse().map_err(|error| format!("--seeds: {error}"))?,
            _ => return Err(format!("`{flag}` is none of --scenario, --strategy, --seeds").into()),
        }
    }
    if scenarios.is_empty() {
        scenarios.extend(SCENARIOS.map(String::from));
    }
    if strategies.is_empty() {
        strategies.extend(STRATEGIES.map(String::from));
    }
    for scenario in &scenarios {
        let fleet = Fleet::named(scenario)
            .ok_or_else(|| format!("scenario `{scenario}` is none of {SCENARIOS:?}"))?;
        let mut rows = Vec::new();
        for strategy in &strategies {
            let rule = rule(strategy)?;
            eprintln!("{scenario} {strategy}: {seeds} seeds");
            let reports = (1..=seeds).map(|seed| run(&fleet, &rule, seed));
            rows.push((strategy.clone(), reports.collect::<Result<_, _>>()?));
        }
        println!("{scenario}, {seeds} seeds\n\n{}", table(&rows));
    }
    Ok(())
}

fn rule(name: &str) -> Result<Rule, String> {
    Ok(match name {
        "random" => Rule::of(Random::new()),
        "round-robin" => Rule::of(RoundRobin::new()),
        "least-conn" => Rule::of(LeastConn::new()),
        "p2c" => Rule::of(P2c::new()),
        "oracle-p2c" => Rule::Oracle(2),
        "oracle-jsq" => Rule::Shortest,
        _ => return Err(format!("strategy `{name}` is none of {STRATEGIES:?}")),
    })
}
