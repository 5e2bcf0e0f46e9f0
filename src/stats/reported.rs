//! What a server said last, in the words that strategies read.

use std::time::Duration;

use super::latency::{TICK_BITS, of_ticks, pack, tick_of, unpack};
use super::peak::elapsed;
use crate::load::LoadReport;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// A report is kept in words that change one by one: a reader may see the calls in flight of one
/// report beside the utilization of the next, which are as true as each other.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// When the last report came; an `f32` of the calls that the server held, below 0 where it did
    /// not say.
    held: AtomicU64,
    /// Calls of our own that were in flight then, and since when reports come.
    own: AtomicU64,
    utilization: AtomicU64,
    /// An `f32` of nanoseconds, and before it one of the calls by which the
    /// server held more than those that reported about then.
    latency: AtomicU64,
    rates: AtomicU64,
}

/// What a server said of the calls that it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Held {
    /// Calls of all clients.
    pub(crate) calls: f32,
    /// How many more they were than at the servers that reported about then.
    pub(crate) surplus: f32,
    /// Calls of ours that were in flight then.
    pub(crate) own: u32,
    /// How long ago, in nanoseconds.
    pub(crate) age: f32,
}

impl Reported {
    /// Takes in a report; `held` is what it says of the calls in flight.
    pub(super) fn record(
        &self,
        report: &LoadReport,
        held: Option<f32>,
        surplus: f32,
        own: u32,
        now: Timestamp,
    ) {
        // Never 0, which says that there was none.
        let tick = tick_of(now).max(1);
        let before = self.held.load(Ordering::Relaxed);
        let since = match (before, self.own.load(Ordering::Relaxed) as u32) {
            (0, _) | (_, 0) => tick,
            (_, since) => since,
        };
        let utilization = report.utilization_to_balance() as f32;
        let latency = report
            .latency()
            .map_or(0.0, |latency| latency.as_nanos() as f32);
        self.latency
            .store(pack(surplus, latency.to_bits()), Ordering::Relaxed);
        let rates = (report.rps_fractional as f32, report.eps as f32);
        self.utilization
            .store(u64::from(utilization.to_bits()), Ordering::Relaxed);
        self.rates
            .store(pack(rates.0, rates.1.to_bits()), Ordering::Relaxed);
        self.own
            .store(u64::from(own) << 32 | u64::from(since), Ordering::Relaxed);
        self.held
            .store(pack(held.unwrap_or(-1.0), tick), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn latency(&self) -> f32 {
        f32::from_bits(self.latency.load(Ordering::Relaxed) as u32)
    }

    /// None where the server never said.
    #[inline]
    pub(super) fn held(&self, now: Timestamp) -> Option<Held> {
        let word = self.held.load(Ordering::Relaxed);
        let (calls, tick) = unpack(word);
        if word == 0 || calls < 0.0 {
            return None;
        }
        Some(Held {
            calls,
            own: (self.own.load(Ordering::Relaxed) >> 32) as u32,
            surplus: unpack(self.latency.load(Ordering::Relaxed)).0,
            age: (u64::from(elapsed(tick, tick_of(now))) << TICK_BITS) as f32,
        })
    }

    /// gRPC A58's weight, where a report came within `expiry` and the first of them no later than
    /// `blackout` ago.
    pub(super) fn weight(
        &self,
        penalty: f32,
        blackout: Duration,
        expiry: Duration,
        now: Timestamp,
    ) -> Option<f32> {
        let (_, tick) = unpack(self.held.load(Ordering::Relaxed));
        let own = self.own.load(Ordering::Relaxed);
        if tick == 0 || own as u32 == 0 {
            return None;
        }
        if since(tick, now) >= expiry {
            // What comes next is a new beginning.
            self.own.store(own >> 32 << 32, Ordering::Relaxed);
            return None;
        }
        if since(own as u32, now) < blackout {
            return None;
        }
        let utilization = f32::from_bits(self.utilization.load(Ordering::Relaxed) as u32);
        let (rate, failures) = unpack(self.rates.load(Ordering::Relaxed));
        let failures = f32::from_bits(failures);
        let priced = utilization + failures / rate * penalty;
        let weight = rate / priced;
        (rate > 0.0 && utilization > 0.0 && weight.is_finite()).then_some(weight)
    }
}

fn since(tick: u32, now: Timestamp) -> Duration {
    of_ticks(elapsed(tick, tick_of(now)))
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn report(rate: f64, utilization: f64, eps: f64) -> LoadReport {
        LoadReport {
            rps_fractional: rate,
            cpu_utilization: utilization,
            eps,
            ..LoadReport::default()
        }
    }

    fn record(reported: &Reported, report: &LoadReport, own: u32, seconds: u64) {
        let held = report.in_flight().map(|calls| calls as f32);
        reported.record(report, held, 0.5, own, at(seconds));
    }

    fn weight(reported: &Reported, seconds: u64) -> Option<f32> {
        let (blackout, expiry) = (Duration::from_secs(10), Duration::from_mins(3));
        reported.weight(1.0, blackout, expiry, at(seconds))
    }

    #[test]
    fn a_weight_begins_after_the_blackout_and_ends_at_the_expiry() {
        let reported = Reported::default();
        assert_eq!(weight(&reported, 5), None);
        record(&reported, &report(100.0, 0.5, 0.0), 0, 5);
        assert_eq!(weight(&reported, 14), None);
        assert_eq!(weight(&reported, 16), Some(200.0));
        // 100 / (.5 + 10/100).
        record(&reported, &report(100.0, 0.5, 10.0), 0, 20);
        assert!((weight(&reported, 21).unwrap() - 166.67).abs() < 0.01);
        assert!(weight(&reported, 199).is_some());
        assert_eq!(weight(&reported, 201), None);
        // A new beginning, and a new blackout.
        record(&reported, &report(100.0, 0.5, 0.0), 0, 202);
        assert_eq!(weight(&reported, 203), None);
        assert_eq!(weight(&reported, 213), Some(200.0));
    }

    #[test]
    fn without_a_rate_or_a_utilization_there_is_no_weight() {
        let reported = Reported::default();
        for (rate, utilization) in [(0.0, 0.5), (10.0, 0.0)] {
            record(&reported, &report(rate, utilization, 1.0), 0, 1);
            assert_eq!(weight(&reported, 20), None);
        }
    }

    #[test]
    fn what_a_server_holds_is_kept_with_its_age() {
        let reported = Reported::default();
        record(&reported, &report(1.0, 0.5, 0.0), 2, 1);
        assert_eq!(reported.held(at(2)), None);
        let mut busy = report(1.0, 0.5, 0.0);
        busy.named_metrics.insert(LoadReport::IN_FLIGHT.into(), 7.0);
        record(&reported, &busy, 3, 1);
        let held = reported.held(at(3)).expect("it was said");
        assert_eq!((held.calls, held.surplus, held.own), (7.0, 0.5, 3));
        assert!((held.age / 1e9 - 2.0).abs() < 0.001);
    }
}
