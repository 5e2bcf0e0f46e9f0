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
usage: cargo run --release --bin hash -- race | cold | table [--nodes N] [--name PART]

  race    the targets: the ring against pingora-ketama, Maglev against the
          crate of that name, block HRW at 5,000 nodes; half a minute
  cold    the time of a ring of a million points that is the first thing in
          this process, in us; the race asks for it
  table   the Markdown table of docs/hashing-table.md; some minutes

  --nodes N     only the table's rows of so many nodes
  --name PART   only those whose algorithm's name has this in it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = match arguments[..] {
        ["race"] => {
            let mut targets = Targets::default();
            race::run(&mut targets);
            race::maglev(&mut targets);
            block::run(&mut targets);
            cold::run(&mut targets);
            targets.print();
            true
        }
        ["cold"] => {
            cold::build();
            true
        }
        ["table", ref options @ ..] => match table::Rows::of(options) {
            Some(rows) => {
                table::run(&rows);
                true
            }
            None => false,
        },
        _ => false,
    };
    if ran {
        ExitCode::SUCCESS
    } else {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    }
}
