//! How the figures are shown, and held against the targets.

use crate::timing::Row;
use crate::{floors, pingora, tower, waypost};

/// The rows of one kind of work.
pub struct Section {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

impl Section {
    fn find(&self, name: &str, n: Option<usize>, threads: u32) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.name == name && row.n == n && row.threads == threads)
    }

    /// How many times as long a row takes as waypost for the same work.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let ours = self.find(row.like?, row.n, row.threads)?;
        Some(row.typical() / ours.typical())
    }

    /// The throughput of two threads as a multiple of one's.
    fn scaling(&self, row: &Row) -> Option<f64> {
        let alone = self.find(&row.name, row.n, 1)?;
        let threads = f64::from(row.threads);
        (row.threads > 1).then(|| threads * alone.median() / row.median())
    }
}

pub fn print(sections: &[Section]) {
    println!(
        "{:<42} {:>6} {:>7} {:>11} {:>11} {:>8} {:>10}",
        "", "n", "threads", "ns fastest", "ns median", "scaling", "x waypost"
    );
    for section in sections {
        println!("{}", section.title);
        for row in &section.rows {
            println!(
                "  {:<40} {:>6} {:>7} {:>11} {:>11} {:>8} {:>10}",
                row.name,
                row.n.map(grouped).unwrap_or_default(),
                row.threads,
                nanos(row.fastest()),
                nanos(row.median()),
                shown(section.scaling(row)),
                shown(section.ratio(row)),
            );
        }
    }
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(String::new, |figure| format!("{figure:.2}"))
}

fn nanos(nanos: f64) -> String {
    if nanos < 1_000.0 {
        format!("{nanos:.1}")
    } else {
        grouped(nanos as usize)
    }
}

/// 12345 as 12,345; nothing here reaches a thousand millions.
fn grouped(number: usize) -> String {
    match (number / 1_000_000, number / 1_000 % 1_000, number % 1_000) {
        (0, 0, ones) => format!("{ones}"),
        (0, thousands, ones) => format!("{thousands},{ones:03}"),
        (millions, thousands, ones) => format!("{millions},{thousands:03},{ones:03}"),
    }
}

/// What waypost set out for.
enum Target {
    /// At most this part of the time that the peer takes.
    Part(&'static str, f64),
    /// At most twice that floor and so many nanoseconds.
    TwiceAnd(&'static str, f64),
    /// Two threads do at least so many times what one does.
    Scaling(f64),
}

/// Each target, in the section it is about and for each n that was measured.
pub fn print_targets(picks: &Section, rebuilds: &Section, contended: &Section) {
    use Target::{Part, Scaling, TwiceAnd};
    println!("targets");
    for (section, threads, ours, target) in [
        (picks, 1, waypost::P2C, Part(tower::PENDING, 15.0)),
        (
            picks,
            1,
            waypost::ROUND_ROBIN,
            Part(pingora::ROUND_ROBIN, 20.0),
        ),
        (picks, 1, waypost::RANDOM, Part(pingora::RANDOM, 20.0)),
        (
            picks,
            1,
            waypost::P2C_LATENCY,
            TwiceAnd(floors::INSTANT, 20.0),
        ),
        (
            picks,
            1,
            waypost::P2C_LATENCY_TSC,
            TwiceAnd(floors::TSC, 20.0),
        ),
        (contended, 2, waypost::P2C, Part(tower::PENDING_MUTEX, 15.0)),
        (contended, 2, waypost::ROUND_ROBIN, Scaling(1.5)),
        (contended, 2, waypost::RANDOM, Scaling(1.5)),
        (
            rebuilds,
            1,
            waypost::APPLY_WEIGHT,
            Part(pingora::UPDATE, 50.0),
        ),
        (
            rebuilds,
            1,
            waypost::APPLY_METADATA,
            Part(pingora::UPDATE, 50.0),
        ),
    ] {
        let of_interest = |row: &&Row| row.name == ours && row.threads == threads;
        for row in section.rows.iter().filter(of_interest) {
            let n = row.n.map(grouped).unwrap_or_default();
            let threads = if threads == 1 { "" } else { ", two threads" };
            let (met, figures) = match target {
                Part(peer, part) => {
                    let Some(peer_row) = section.find(peer, row.n, row.threads) else {
                        continue;
                    };
                    let ratio = peer_row.typical() / row.typical();
                    let (ours, theirs) = (nanos(row.typical()), nanos(peer_row.typical()));
                    let figures = format!(
                        "{ours} ns to {theirs} of {peer}: 1/{ratio:.1}, to be at most 1/{part}"
                    );
                    (ratio >= part, figures)
                }
                TwiceAnd(floor, more) => {
                    let Some(floor_row) = section.find(floor, None, row.threads) else {
                        continue;
                    };
                    let (ours, twice) = (row.typical(), 2.0 * floor_row.typical());
                    let (above, figure) = (ours - twice, nanos(ours));
                    let figures = format!(
                        "{figure} ns: twice {floor} and {above:.1}, to be at most {more} more"
                    );
                    (above <= more, figures)
                }
                Scaling(least) => {
                    let scaling = section.scaling(row).unwrap_or_default();
                    let figures = format!("scaling {scaling:.2}, to be at least {least}");
                    (scaling >= least, figures)
                }
            };
            let met = if met { "met   " } else { "missed" };
            println!("  {met} {ours}{threads}, n = {n}: {figures}");
        }
    }
}
