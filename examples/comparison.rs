//! Our client without a proxy, beside nginx (`least_conn`) and Envoy
//! (`LEAST_REQUEST`) as proxies: the same backends, the same client, the same
//! load, one after the other in turns.
//!
//! ```console
//! tests/servers/install.sh nginx envoy
//! cargo run --release --example comparison                            # prints the table
//! cargo run --release --example comparison -- docs/comparison.md      # and writes it there
//! ```
//!
//! Backends are processes of their own, which are this program, too. It ends with
//! 1 when a call of ours fails that might have been sent elsewhere.

#[path = "comparison/backend.rs"]
mod backend;
#[path = "comparison/load.rs"]
mod load;
#[path = "comparison/subject.rs"]
mod subject;

use std::fmt::Write as _;
use std::time::Duration;

use backend::Backend;
use load::{Calls, at_a_rate, flat_out};
use subject::{Kind, Subject};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const BACKENDS: usize = 4;
const ROUNDS: u32 = 5;
const LASTS: Duration = Duration::from_secs(1);

/// What was measured of one of them.
#[derive(Default)]
struct Measured {
    flat_out: Calls,
    at_a_rate: Calls,
    /// With a backend killed on the way.
    get: Calls,
    post: Calls,
}

fn main() -> Result<()> {
    let argument = std::env::args().nth(1);
    let runtime = tokio::runtime::Runtime::new()?;
    match argument.as_deref() {
        Some("backend") => runtime.block_on(backend::serve()),
        page => runtime.block_on(compare(page)),
    }
}

async fn compare(page: Option<&str>) -> Result<()> {
    let mut backends = Vec::new();
    for _ in 0..BACKENDS {
        backends.push(Backend::start()?);
    }
    let mut all = Vec::new();
    for kind in [Kind::Waypost, Kind::Nginx, Kind::Envoy] {
        if kind.is_there() {
            all.push((kind, Measured::default()));
        } else {
            eprintln!("{}: SKIPPED, see tests/servers/install.sh", kind.name());
        }
    }
    // In turns, so that all of them see the same machine.
    for round in 1..=ROUNDS {
        for (kind, measured) in &mut all {
            eprintln!("round {round} of {ROUNDS}: {}", kind.name());
            measure(*kind, &mut backends, measured).await?;
        }
    }
    let table = table(&mut all);
    println!("{table}");
    if let Some(page) = page {
        write(page, &table)?;
    }
    let (ours, measured) = &all[0];
    let lost = measured.get.failed + measured.flat_out.failed + measured.at_a_rate.failed;
    if lost > 0 {
        return Err(format!("{}: {lost} calls failed that may be repeated", ours.name()).into());
    }
    Ok(())
}

async fn measure(kind: Kind, backends: &mut [Backend], measured: &mut Measured) -> Result<()> {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let subject = Subject::start(kind, &addresses).await?;
    measured.flat_out += flat_out(&subject.caller, "GET", LASTS).await;
    measured.at_a_rate += at_a_rate(&subject.caller, LASTS).await;
    for (method, calls) in [("GET", &mut measured.get), ("POST", &mut measured.post)] {
        // Afresh: each of them keeps away for a time from what was killed before.
        let subject = Subject::start(kind, &addresses).await?;
        let load = flat_out(&subject.caller, method, LASTS);
        let kill = async {
            tokio::time::sleep(LASTS / 3).await;
            backends[0].kill()
        };
        let (these, killed) = tokio::join!(load, kill);
        killed?;
        *calls += these;
        backends[0].restart()?;
    }
    Ok(())
}

fn table(all: &mut [(Kind, Measured)]) -> String {
    let mut table = String::from(
        "| | calls/s | p50 | p99 | GETs failed | POSTs failed |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (kind, measured) in all {
        let rate = measured.flat_out.answered as f64 / (LASTS * ROUNDS).as_secs_f64();
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let (p50, p99) = (measured.at_a_rate.at(0.5), measured.at_a_rate.at(0.99));
        let of = |calls: &Calls| format!("{} of {}", calls.failed, calls.failed + calls.answered);
        writeln!(
            table,
            "| {} | {rate:.0} | {:.2} ms | {:.2} ms | {} | {} |",
            kind.name(),
            ms(p50),
            ms(p99),
            of(&measured.get),
            of(&measured.post),
        )
        .expect("a string can be written");
    }
    table
}

/// Puts the table where the page's last one is.
fn write(page: &str, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (begin, end) = ("<!-- table -->\n", "<!-- end -->");
    let parts = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| format!("{page} has no place for a table"))?;
    std::fs::write(page, format!("{before}{begin}{table}{end}{after}"))?;
    Ok(())
}
