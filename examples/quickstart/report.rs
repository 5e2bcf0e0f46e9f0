//! What is printed at the end.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::load::Phase;

pub(crate) struct Report<'a> {
    pub(crate) phases: &'a [Phase],
    /// Attempts that failed, each of which was made up for elsewhere.
    pub(crate) sent_again: u64,
    pub(crate) claims: &'a [Claim],
}

/// Something the example says, and whether it turned out so.
pub(crate) struct Claim {
    pub(crate) holds: bool,
    text: String,
}

impl Claim {
    pub(crate) fn new(holds: bool, text: impl Into<String>) -> Self {
        Self {
            holds,
            text: text.into(),
        }
    }
}

const WIDTH: usize = 32;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: BTreeSet<&str> = self.phases.iter().flat_map(Phase::servers).collect();
        for phase in self.phases {
            let per_second = phase.calls() as f64 / phase.took.as_secs_f64();
            writeln!(f, "{}", phase.what)?;
            for name in &servers {
                let share = phase.served(name) as f64 / phase.calls().max(1) as f64;
                let bar = bar(share);
                let (calls, percent) = (phase.served(name), share * 100.0);
                writeln!(f, "  {name:<6} {bar:<WIDTH$} {calls:>7}  {percent:>4.1} %")?;
            }
            writeln!(
                f,
                "  {} calls ({per_second:.0}/s), {} failed; p50 {}, p99 {}, p99.9 {}, longest {}\n",
                phase.calls(),
                phase.failed,
                Ms(phase.percentile(0.5)),
                Ms(phase.percentile(0.99)),
                Ms(phase.percentile(0.999)),
                Ms(phase.percentile(1.0)),
            )?;
        }
        writeln!(
            f,
            "{} attempts met a server that was gone, and were sent to another\n",
            self.sent_again
        )?;
        for claim in self.claims {
            let mark = if claim.holds { "✓" } else { "✗" };
            writeln!(f, "{mark} {}", claim.text)?;
        }
        Ok(())
    }
}

/// A bar of eighths; the whole width is half of all calls.
fn bar(share: f64) -> String {
    let eighths = (share * 2.0 * (WIDTH * 8) as f64).round() as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][rest];
    if full >= WIDTH {
        return "█".repeat(WIDTH);
    }
    format!("{}{rest}", "█".repeat(full))
}

struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0.as_secs_f64() * 1_000.0)
    }
}
