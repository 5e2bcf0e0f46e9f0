//! One server: its workers, who waits for them, and what it says of itself.

use std::collections::VecDeque;
use std::time::Duration;

use super::estimate::Estimator;
use super::{Fleet, SECOND};
use crate::health::slow_start::SlowStart;
use crate::load::{BusyTime, LoadReport};
use crate::time::Timestamp;

/// Times are in nanoseconds.
#[derive(Default)]
pub(super) struct Server {
    /// Calls that no worker has begun.
    waiting: VecDeque<u32>,
    busy: u32,
    /// Whether something else slows it down now.
    disturbed: bool,
    /// Since when it is away, and when it was back.
    left: Option<u64>,
    back: Option<u64>,
    /// Until when it is slow after it was away.
    cold_until: u64,
    /// Where reports are read.
    figures: Option<Figures>,
}

/// What a server knows of itself.
struct Figures {
    estimator: Estimator,
    at_work: BusyTime,
    /// The second that is counted, calls answered and failed in it, and in the one before.
    second: u64,
    answered: [(u32, u32); 2],
    /// What it said last, and when it looked.
    said: Option<(u64, Said)>,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Said {
    /// Calls that it holds.
    held: u32,
    /// What one takes that comes now, in microseconds; 0 where it does not know.
    micros: u32,
    /// Calls that it answered in the last whole second, and those of them that failed.
    rate: u32,
    failures: u32,
    /// The share of its workers that was at work, in millionths.
    busy: u32,
}

impl Server {
    pub(super) fn new(fleet: &Fleet, reports: bool) -> Self {
        Self {
            figures: reports.then(|| Figures::new(fleet)),
            ..Self::default()
        }
    }

    /// How many calls it holds.
    pub(super) fn queue(&self) -> usize {
        self.waiting.len() + self.busy as usize
    }

    /// Takes a call, and tells whether a worker is free to begin it.
    pub(super) fn take(&mut self, call: u32, workers: u32, now: u64) -> bool {
        if let Some(figures) = &self.figures {
            figures.at_work.begin(Timestamp::from_nanos(now));
        }
        let is_free = self.busy < workers;
        if is_free {
            self.busy += 1;
        } else {
            self.waiting.push_back(call);
        }
        is_free
    }

    /// Is done with a call that came at that time beside so many others; the call
    /// that its worker begins then.
    pub(super) fn finish(
        &mut self,
        (came, beside): (u64, u32),
        failed: bool,
        now: u64,
    ) -> Option<u32> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.busy -= 1;
        }
        if let Some(figures) = &mut self.figures {
            figures.finish((came, beside), failed, now);
        }
        next
    }

    /// What it says now, which it found out at most `lasts` ago; nothing where no
    /// reports are read.
    pub(super) fn look(&mut self, lasts: u64, now: u64) -> Said {
        let held = self.queue() as u32;
        let figures = self.figures.as_mut();
        figures.map_or_else(Said::default, |figures| figures.look(held, lasts, now))
    }

    /// How many times as long as usual a call takes that is begun now, but for
    /// what befalls it as the one that it is.
    pub(super) fn slowness(&self, fleet: &Fleet, now: u64) -> f64 {
        let antagonist = fleet.antagonist.filter(|_| self.disturbed);
        let cold = fleet.deploy.filter(|_| now < self.cold_until);
        antagonist.map_or(1.0, |other| other.factor) * cold.map_or(1.0, |deploy| deploy.cold_factor)
    }

    /// Something else begins to slow it down, or ends; whether it began.
    pub(super) fn flip(&mut self) -> bool {
        self.disturbed = !self.disturbed;
        self.disturbed
    }

    pub(super) fn leave(&mut self, now: u64) {
        self.left = Some(now);
    }

    pub(super) fn come_back(&mut self, cold_until: u64, now: u64) {
        (self.left, self.back) = (None, Some(now));
        self.cold_until = cold_until;
    }

    /// Whether it is away and takes no calls that are sent then: it goes on with
    /// those of a grace, in seconds.
    pub(super) fn refuses(&self, sent: u64, grace: f64) -> bool {
        let last = |left: u64| left.saturating_add((grace * SECOND) as u64);
        self.left.is_some_and(|left| sent > last(left))
    }

    /// Its weight in thousandths while it ramps up.
    pub(super) fn weight(&self, ramp: &SlowStart, now: u64) -> u32 {
        let factor = self.back.map_or(1.0, |back| {
            ramp.factor(Duration::from_nanos(now.saturating_sub(back)))
        });
        (1_000.0 * factor) as u32
    }
}

impl Figures {
    fn new(fleet: &Fleet) -> Self {
        Self {
            estimator: Estimator::new(fleet.estimate),
            at_work: BusyTime::new(fleet.workers, Timestamp::default()),
            second: 0,
            answered: [(0, 0); 2],
            said: None,
        }
    }

    fn finish(&mut self, (came, beside): (u64, u32), failed: bool, now: u64) {
        let at = Timestamp::from_nanos(now);
        self.at_work.end(at);
        if !failed {
            let took = Duration::from_nanos(now - came);
            self.estimator.record(beside, took, at);
        }
        self.turn(now);
        self.answered[0].0 += 1;
        self.answered[0].1 += u32::from(failed);
    }

    fn turn(&mut self, now: u64) {
        let second = now / SECOND as u64;
        if second != self.second {
            let before = if second == self.second + 1 {
                self.answered[0]
            } else {
                (0, 0)
            };
            (self.second, self.answered) = (second, [(0, 0), before]);
        }
    }

    fn last_second(&self, now: u64) -> (u32, u32) {
        match now / SECOND as u64 - self.second {
            0 => self.answered[1],
            1 => self.answered[0],
            _ => (0, 0),
        }
    }

    fn look(&mut self, held: u32, lasts: u64, now: u64) -> Said {
        match self.said {
            Some((at, said)) if now < at.saturating_add(lasts) => said,
            _ => {
                let said = self.say(held, now);
                self.said = Some((now, said));
                said
            }
        }
    }

    fn say(&self, held: u32, now: u64) -> Said {
        let (rate, failures) = self.last_second(now);
        let at = Timestamp::from_nanos(now);
        let latency = self.estimator.estimate(held, at);
        Said {
            held,
            micros: latency.map_or(0, |latency| latency.as_micros() as u32),
            rate,
            failures,
            busy: (self.at_work.share(at) * 1e6) as u32,
        }
    }
}

impl Said {
    /// Writes it as [`ReportLoad`](crate::server::ReportLoad) with a limit does.
    pub(super) fn write(self, report: &mut LoadReport) {
        let metrics = &mut report.named_metrics;
        let held = metrics.entry(LoadReport::IN_FLIGHT.to_owned());
        *held.or_default() = f64::from(self.held);
        let latency = metrics.entry(LoadReport::LATENCY_MS.to_owned());
        *latency.or_default() = f64::from(self.micros) / 1e3;
        report.application_utilization = f64::from(self.busy) / 1e6;
        report.rps_fractional = f64::from(self.rate);
        report.eps = f64::from(self.failures);
    }
}
