//! What came of it.

use std::fmt::Write as _;

use crate::stats::Outcome;

/// What came of one run: calls that were sent after the warm-up.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Calls that ended, in whatever way.
    pub calls: u64,
    /// Those of them that failed or timed out.
    pub failed: u64,
    /// Mean latency of all of them, in milliseconds; 0 when there were none.
    pub mean_ms: f64,
    /// The latency that half of them did not exceed.
    pub p50_ms: f64,
    /// The latency that 99 % did not exceed.
    pub p99_ms: f64,
    /// The latency that 99.9 % did not exceed.
    pub p999_ms: f64,
    /// What workers spent on these calls, all together, in milliseconds; 0 of a trace, which does
    /// not tell. Beside the workers' time it is the load that the run had, where [`Fleet::load`] is
    /// what many runs have in the mean.
    ///
    /// [`Fleet::load`]: super::Fleet::load
    pub work_ms: f64,
    /// Calls of each server.
    pub by_server: Vec<u64>,
    /// Events that were simulated, those of the warm-up too.
    pub events: u64,
    #[serde(skip)]
    latencies: Vec<u64>,
    #[serde(skip)]
    samples: Vec<LoadSample>,
}

/// What the servers held at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadSample {
    /// When, from the beginning of the simulation on.
    pub seconds: f64,
    /// The calls at each server, waiting ones too, ascending.
    pub calls: Vec<u32>,
}

impl Report {
    pub(super) fn new(servers: u32) -> Self {
        Self {
            calls: 0,
            failed: 0,
            mean_ms: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            p999_ms: 0.0,
            work_ms: 0.0,
            by_server: vec![0; servers as usize],
            events: 0,
            latencies: Vec::new(),
            samples: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, server: u32, nanos: u64, outcome: Outcome) {
        self.calls += 1;
        self.failed += u64::from(outcome.is_failure());
        self.by_server[server as usize] += 1;
        self.latencies.push(nanos);
    }

    pub(super) fn sample(&mut self, seconds: f64, mut calls: Vec<u32>) {
        calls.sort_unstable();
        self.samples.push(LoadSample { seconds, calls });
    }

    /// What the servers held, at two hundred moments from the beginning to the end.
    #[must_use]
    pub fn load_over_time(&self) -> &[LoadSample] {
        &self.samples
    }

    pub(super) fn close(&mut self) {
        self.latencies.sort_unstable();
        let sum: f64 = self.latencies.iter().map(|&nanos| nanos as f64).sum();
        self.mean_ms = sum / self.calls.max(1) as f64 / 1e6;
        self.p50_ms = self.quantile_ms(0.5);
        self.p99_ms = self.quantile_ms(0.99);
        self.p999_ms = self.quantile_ms(0.999);
    }

    /// The latency that this share of the calls, in 0..=1, did not exceed, in
    /// milliseconds; 0 when there were none. O(1).
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.latencies.len().max(1)) - 1;
        self.latencies
            .get(at)
            .map_or(0.0, |&nanos| nanos as f64 / 1e6)
    }

    /// The share of calls that failed, in 0..=1.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        self.failed as f64 / self.calls.max(1) as f64
    }
}

/// One line for each name: means over its reports, which differ in their seed,
/// and half the width of the mean's 95 % interval by the normal law.
#[must_use]
pub fn table(rows: &[(String, Vec<Report>)]) -> String {
    let mut text = String::from(
        "| strategy | mean ms | p99 ms | p99.9 ms | errors % |\n| --- | --- | --- | --- | --- |\n",
    );
    for (name, reports) in rows {
        let cell = |of: fn(&Report) -> f64| {
            let values: Vec<f64> = reports.iter().map(of).collect();
            interval(&values)
        };
        let (mean, p99) = (cell(|report| report.mean_ms), cell(|report| report.p99_ms));
        let p999 = cell(|report| report.p999_ms);
        let errors = cell(|report| report.error_share() * 100.0);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {mean} | {p99} | {p999} | {errors} |");
    }
    text
}

/// One line for each report, under a line of names: what spreadsheets and plotters read.
#[must_use]
pub fn csv(rows: &[(String, Vec<Report>)]) -> String {
    let mut text = String::from("strategy,seed,calls,failed,mean_ms,p50_ms,p99_ms,p999_ms\n");
    for (name, reports) in rows {
        // As RFC 4180 has it, for names of files.
        let name = if name.contains([',', '"', '\n']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.clone()
        };
        for (seed, report) in (1..).zip(reports) {
            let Report {
                calls,
                failed,
                mean_ms,
                p50_ms,
                p99_ms,
                p999_ms,
                ..
            } = report;
            let _ = writeln!(
                text,
                "{name},{seed},{calls},{failed},{mean_ms},{p50_ms},{p99_ms},{p999_ms}"
            );
        }
    }
    text
}

fn interval(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return format!("{mean:.3}");
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let half = 1.96 * (squares / (n - 1.0) / n).sqrt();
    format!("{mean:.3} ± {half:.3}")
}
