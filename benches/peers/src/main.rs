//! waypost beside its peers on the same work, in one table.
//!
//! What each row includes is told by the README and at the top of each file.

mod floors;
mod pingora;
mod table;
mod timing;
mod tower;
mod volo;
mod waypost;

use std::collections::HashSet;
use std::hash::Hash;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use table::Section;
use timing::{Helper, Row};

const USAGE: &str = "\
usage: cargo run --release [-- --quick]

Measures waypost, pingora-load-balancing, tower and volo for about 75 seconds
and prints one table.

  --quick   about 10 seconds, for a look whether it runs; coarse figures";

/// How long one section is measured, and how long each of its samples lasts.
struct Effort {
    sample: Duration,
    picks: Duration,
    contended: Duration,
    rebuilds: Duration,
}

impl Effort {
    const FULL: Self = Self {
        sample: Duration::from_millis(5),
        picks: Duration::from_secs(30),
        contended: Duration::from_secs(25),
        rebuilds: Duration::from_secs(15),
    };
    const QUICK: Self = Self {
        sample: Duration::from_millis(1),
        picks: Duration::from_secs(2),
        contended: Duration::from_secs(2),
        rebuilds: Duration::from_secs(1),
    };
}

fn main() -> ExitCode {
    let mut effort = Effort::FULL;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => effort = Effort::QUICK,
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("unknown argument {other}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }

    let begun = Instant::now();
    // Two threads come last: while only one has ever picked, a reader of
    // waypost's striped counters has one stripe to look at, and their
    // section pins threads to cores.
    let picks = measured("one thread", picks(), &effort, effort.picks);
    let rebuilds = measured(
        "a new set with one change",
        rebuilds(),
        &effort,
        effort.rebuilds,
    );
    let contended = measured(
        "two threads on one balancer",
        contended(),
        &effort,
        effort.contended,
    );

    let sections = [picks, rebuilds, contended];
    table::print(&sections);
    let [picks, rebuilds, contended] = &sections;
    table::print_targets(picks, rebuilds, contended);
    println!("took {} s", begun.elapsed().as_secs());
    ExitCode::SUCCESS
}

fn measured(title: &'static str, mut rows: Vec<Row>, effort: &Effort, budget: Duration) -> Section {
    timing::run(&mut rows, effort.sample, budget);
    Section { title, rows }
}

fn picks() -> Vec<Row> {
    let mut rows = floors::rows();
    for n in [10, 100, 1_000, 10_000] {
        rows.extend(waypost::picks(n));
        rows.extend(tower::picks(n));
        rows.extend(pingora::picks(n));
        rows.push(volo::picks(n));
    }
    rows
}

fn contended() -> Vec<Row> {
    let helper = Helper::start();
    let mut rows = Vec::from(floors::contended(&helper));
    for n in [64, 1_000] {
        rows.extend(waypost::contended(n, &helper));
        rows.extend(tower::contended(n, &helper));
        rows.extend(pingora::contended(n, &helper));
    }
    rows
}

fn rebuilds() -> Vec<Row> {
    let mut rows = Vec::new();
    for n in [1_000, 10_000] {
        rows.extend(waypost::rebuilds(n));
        rows.push(pingora::rebuild(n));
    }
    rows
}

/// The address of the endpoint of that number, the same for all.
fn address(i: usize) -> SocketAddr {
    let [.., a, b, c] = i.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 80))
}

/// That picks go all over the `n` endpoints, so that no row measures a
/// shortcut.
fn assert_spread<K: Eq + Hash>(n: usize, mut pick: impl FnMut() -> K) {
    let picked: HashSet<K> = (0..10 * n).map(|_| pick()).collect();
    assert!(picked.len() * 10 >= n * 8, "{} of {n} picked", picked.len());
}
