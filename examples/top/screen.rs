//! Reports as text of a fixed width, with ANSI colours where they are seen.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use waypost::observe::{EndpointReport, EndpointState, Freshness, Report};

pub(crate) struct Screen {
    colours: bool,
    /// When the reports before were shown, and how many calls had ended and
    /// failed by then, by service and endpoint.
    before: Option<(Instant, Figures)>,
}

type Figures = HashMap<(String, String), (u64, u64)>;

/// What has happened since the look before.
struct Since {
    per_second: f64,
    failing: Option<f64>,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Screen {
    pub(crate) fn new(colours: bool) -> Self {
        Self {
            colours,
            before: None,
        }
    }

    pub(crate) fn frame(&mut self, reports: &[Report]) -> String {
        let now = Instant::now();
        let mut frame = String::new();
        for report in reports {
            self.service(&mut frame, report, now);
        }
        let ended = |one: &EndpointReport| {
            let ended = one.succeeded + one.failed + one.cancelled;
            (ended, one.failed)
        };
        let figures = reports.iter().flat_map(|report| {
            let endpoints = report.endpoints.iter();
            endpoints.map(|one| ((report.service.clone(), one.id.clone()), ended(one)))
        });
        self.before = Some((now, figures.collect()));
        frame
    }

    fn service(&self, frame: &mut String, report: &Report, now: Instant) {
        let since: Vec<_> = report
            .endpoints
            .iter()
            .map(|one| self.since(&report.service, one, now))
            .collect();
        let calls: f64 = since.iter().flatten().map(|since| since.per_second).sum();
        let (freshness, tone) = match report.discovery {
            Freshness::Fresh => ("fresh", GREEN),
            Freshness::Stale => ("stale", YELLOW),
            _ => ("unknown", RED),
        };
        let name = self.paint(BOLD, &report.service);
        let freshness = self.paint(tone, freshness);
        let (eligible, known) = (report.eligible, report.endpoints.len());
        let in_flight = report.in_flight;
        line(
            frame,
            &format!(
                "{name}  {freshness}  {eligible} of {known} endpoints may be picked  {calls:.0}/s  \
                 {in_flight} in flight"
            ),
        );
        if let Some(error) = &report.error {
            line(frame, &self.paint(RED, error));
        }
        let head = format!(
            "  {:<13} {:<18} {:<12} {:>9} {:>7} {:>8}  why",
            "state", "endpoint", "in flight", "latency", "calls", "failing"
        );
        line(frame, &self.paint(DIM, &head));
        let most = report.endpoints.iter().map(|one| one.in_flight).max();
        for (one, since) in report.endpoints.iter().zip(since) {
            line(frame, &self.endpoint(one, since, most.unwrap_or(0)));
        }
    }

    fn endpoint(&self, one: &EndpointReport, since: Option<Since>, most: u32) -> String {
        let tone = match one.state {
            EndpointState::Up | EndpointState::Ramping => GREEN,
            EndpointState::OnTrial => YELLOW,
            EndpointState::Ejected
            | EndpointState::CheckFailed
            | EndpointState::Down
            | EndpointState::Panic => RED,
            _ => DIM,
        };
        let state = self.paint(tone, &format!("● {:<13}", one.state.to_string()));
        let unknown = || "–".to_owned();
        let latency = one
            .latency_ms
            .map_or_else(unknown, |ms| format!("{ms:.1} ms"));
        let calls = since
            .as_ref()
            .map_or_else(unknown, |since| format!("{:.0}/s", since.per_second));
        let failing = since.and_then(|since| since.failing);
        let failing = failing.map_or_else(unknown, |percent| format!("{percent:.0} %"));
        let id: String = one.id.chars().take(18).collect();
        let load = format!("{:>3} {}", one.in_flight, bar(one.in_flight, most));
        let why = self.paint(if tone == RED { RED } else { DIM }, &one.why);
        format!("{state} {id:<18} {load:<12} {latency:>9} {calls:>7} {failing:>8}  {why}")
    }

    fn since(&self, service: &str, one: &EndpointReport, now: Instant) -> Option<Since> {
        let (then, figures) = self.before.as_ref()?;
        let (ended, failed) = figures.get(&(service.to_owned(), one.id.clone()))?;
        let seconds = now.duration_since(*then).as_secs_f64();
        let all = (one.succeeded + one.failed + one.cancelled).checked_sub(*ended)?;
        let failed = one.failed.checked_sub(*failed)?;
        Some(Since {
            per_second: all as f64 / seconds,
            failing: (all > 0).then(|| failed as f64 / all as f64 * 100.0),
        })
    }

    fn paint(&self, tone: &str, text: &str) -> String {
        // What a registry tells is shown, and never run by the terminal.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if self.colours {
            format!("\x1b[{tone}m{text}\x1b[0m")
        } else {
            text
        }
    }
}

fn line(frame: &mut String, text: &str) {
    writeln!(frame, "{text}").expect("a string can be written");
}

/// Eight cells, of eighths.
fn bar(value: u32, most: u32) -> String {
    let eighths = (value * 64).checked_div(most).unwrap_or(0);
    let part = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths as usize % 8];
    format!("{}{part}", "█".repeat(eighths as usize / 8))
}
