//! Compares strategies on simulated fleets:
//!
//! ```text
//! cargo run --release --features sim --example simulate -- --scenario S1 --strategy p2c --seeds 5
//! ```
//!
//! Without `--scenario`, all of S1 to S8; without `--strategy`, all. `--fleet FILE` is a fleet of
//! yours in TOML, with the fields of [`Fleet`]. All three may be repeated.

use std::error::Error;
use std::fs::read_to_string;
use std::num::NonZeroU64;

use waypost::sim::{Fleet, Rule, run, table};
use waypost::strategy::{Adaptive, LeastConn, P2c, Prequal, Random, RoundRobin};

const SCENARIOS: [&str; 8] = ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"];
const STRATEGIES: [&str; 9] = [
    "random",
    "round-robin",
    "least-conn",
    "p2c",
    "p2c-peak-ewma",
    "adaptive",
    "prequal",
    "oracle-p2c",
    "oracle-jsq",
];

fn main() -> Result<(), Box<dyn Error>> {
    let (mut fleets, mut strategies, mut seeds) = (Vec::new(), Vec::new(), 1_u64);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{flag}` needs a value"))?;
        match flag.as_str() {
            "--scenario" => fleets.push((value.clone(), named(&value)?)),
            "--strategy" => strategies.push(value),
            "--fleet" => fleets.push((value.clone(), Fleet::from_toml(&read_to_string(&value)?)?)),
            "--seeds" => {
                seeds = value
                    .parse::<NonZeroU64>()
                    .map_err(|error| format!("--seeds: {error}"))?
                    .get();
            }
            _ => {
                return Err(format!(
                    "`{flag}` is none of --scenario, --fleet, --strategy, --seeds"
                )
                .into());
            }
        }
    }
    if fleets.is_empty() {
        for name in SCENARIOS {
            fleets.push((name.to_owned(), named(name)?));
        }
    }
    if strategies.is_empty() {
        strategies.extend(STRATEGIES.map(String::from));
    }
    for (scenario, fleet) in &fleets {
        let mut rows = Vec::new();
        for strategy in &strategies {
            let rule = rule(strategy)?;
            eprintln!("{scenario} {strategy}: {seeds} seeds");
            // Which lives on probes, and has three for each call.
            let probes = if strategy == "prequal" {
                3.0
            } else {
                fleet.probes
            };
            let fleet = Fleet {
                probes,
                ..fleet.clone()
            };
            let reports = (1..=seeds).map(|seed| run(&fleet, &rule, seed));
            rows.push((strategy.clone(), reports.collect::<Result<_, _>>()?));
        }
        println!("{scenario}, {seeds} seeds\n\n{}", table(&rows));
    }
    Ok(())
}

fn named(name: &str) -> Result<Fleet, String> {
    Fleet::named(name).ok_or_else(|| format!("scenario `{name}` is none of {SCENARIOS:?}"))
}

fn rule(name: &str) -> Result<Rule, String> {
    Ok(match name {
        "random" => Rule::of(Random::new()),
        "round-robin" => Rule::of(RoundRobin::new()),
        "least-conn" => Rule::of(LeastConn::new()),
        "p2c" => Rule::of(P2c::new()),
        "p2c-peak-ewma" => Rule::of(P2c::peak_ewma()),
        "adaptive" => Rule::of(Adaptive::new()),
        "prequal" => Rule::of(Prequal::new()),
        "oracle-p2c" => Rule::Oracle(2),
        "oracle-jsq" => Rule::Shortest,
        _ => return Err(format!("strategy `{name}` is none of {STRATEGIES:?}")),
    })
}
