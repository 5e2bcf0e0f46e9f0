//! The tables of `waypost::hash` beside other crates'.
//!
//! What is measured is told by the README; each file says how.

mod block;
mod cold;
mod heap;
mod keys;
mod race;
mod table;
mod targets;

use std::process::ExitCode;

use targets::Targets;

const USAGE: &str = "\
usage: cargo run --release --bin hash -- race | table | all | cold [--most N]

  race    the targets: the ring against pingora-ketama, Maglev against the
          crate of that name, block HRW at 5,000 nodes; a minute
  cold    the time of a ring of a million points that is the first thing in
          this process, in us; the race asks for it
  table   the Markdown table of docs/hashing-table.md; some twelve minutes
  all     both

  --most N   leaves out of the table what has more nodes";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (what, most) = match *arguments {
        [what] => (what, Ok(usize::MAX)),
        [what, "--most", most] => (what, most.parse()),
        _ => ("", Ok(0)),
    };
    let (Ok(most), "race" | "table" | "all" | "cold") = (most, what) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if what == "cold" {
        cold::build();
        return ExitCode::SUCCESS;
    }
    if what != "table" {
        let mut targets = Targets::default();
        race::run(&mut targets);
        race::maglev(&mut targets);
        block::run(&mut targets);
        cold::run(&mut targets);
        targets.print();
    }
    if what != "race" {
        table::run(most);
    }
    ExitCode::SUCCESS
}
