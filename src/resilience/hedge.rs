//! When a call is late enough to be sent a second time.

use std::time::Duration;

use super::{Percentile, RetryBudget, RetryTokens};
use crate::error::Error;
use crate::time::Timestamp;

/// Sends a call that is late to a second endpoint too, and takes the answer
/// that comes first.
///
/// In "The Tail at Scale" (Dean and Barroso, 2013), hedging after 10 ms took a
/// read's 99.9th percentile from 1,800 to 74 ms for 2 % more requests. What it
/// costs is bounded twice: by the delay, and by a [budget](Self::budget) of its
/// own. The attempt that loses is dropped and counted as cancelled.
///
/// Only calls that may be repeated are hedged: those of an idempotent method,
/// and others when [`Retry`](super::Retry) says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    delay: Delay,
    budget: RetryBudget,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Delay {
    Fixed(Duration),
    Share(f64),
}

impl Hedge {
    /// After a fixed delay.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self::with(Delay::Fixed(delay))
    }

    /// Once a call takes longer than this share of the service's calls did
    /// lately, such as 0.95. Nothing is hedged before a hundred calls.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] unless the share is in 0.5 to 0.999.
    pub fn beyond(share: f64) -> Result<Self, Error> {
        if !(0.5..=0.999).contains(&share) {
            let reason = "a share of the calls, from 0.5 to 0.999";
            return Err(Error::invalid("hedge.beyond", share, reason));
        }
        Ok(Self::with(Delay::Share(share)))
    }

    fn with(delay: Delay) -> Self {
        Self {
            delay,
            budget: RetryBudget::share(5).unwrap_or_default().min_per_second(1),
        }
    }

    /// What hedges may cost; by default 5 per cent of the calls and 1 a second.
    #[must_use]
    pub const fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = budget;
        self
    }

    /// What a service's hedges share, before its first call.
    #[must_use]
    pub fn start(self) -> Hedging {
        Hedging {
            tokens: self.budget.start(),
            delay: match self.delay {
                Delay::Fixed(delay) => Late::After(delay),
                Delay::Share(share) => Late::Beyond(Box::new(Percentile::new(share))),
            },
        }
    }
}

/// What the calls to one service have taken of a [`Hedge`]'s budget, and how
/// long they took.
#[derive(Debug)]
pub struct Hedging {
    tokens: RetryTokens,
    delay: Late,
}

#[derive(Debug)]
enum Late {
    After(Duration),
    Beyond(Box<Percentile>),
}

impl Hedging {
    /// A call was asked for: after how long it is late; none while nobody
    /// knows.
    #[must_use]
    pub fn asked(&self, now: Timestamp) -> Option<Duration> {
        self.tokens.asked(now);
        match &self.delay {
            Late::After(delay) => Some(*delay),
            Late::Beyond(percentile) => percentile.get(now),
        }
    }

    /// Takes what a hedge costs, if it is there.
    #[must_use]
    pub fn try_hedge(&self, now: Timestamp) -> bool {
        self.tokens.try_retry(now)
    }

    /// An attempt was answered well.
    pub fn answered(&self, latency: Duration, now: Timestamp) {
        if let Late::Beyond(percentile) = &self.delay {
            percentile.record(latency, now);
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_late_where_the_slowest_are_and_silent_before() {
        let hedging = Hedge::beyond(0.95).unwrap().start();
        let ms = Duration::from_millis(1);
        let at = |millis: u64| Timestamp::from_nanos(millis * 1_000_000);
        assert_eq!(hedging.asked(at(0)), None);
        (0..94).for_each(|_| hedging.answered(ms, at(1)));
        (0..6).for_each(|_| hedging.answered(ms * 100, at(1)));
        let late = hedging.asked(at(200)).unwrap();
        assert!(late > ms * 100 && late < ms * 113, "{late:?}");
        let fixed = Hedge::after(ms).start();
        assert_eq!(fixed.asked(at(0)), Some(ms));
    }

    #[test]
    fn hedges_cost_a_twentieth_of_the_calls_and_one_a_second() {
        let hedging = Hedge::after(Duration::ZERO).start();
        let now = Timestamp::default();
        for _ in 0..1_000 {
            assert!(hedging.asked(now).is_some());
        }
        let granted = (0..1_000).filter(|_| hedging.try_hedge(now)).count();
        assert_eq!(granted, 60);
    }

    #[test]
    fn a_share_that_is_none_is_refused() {
        for share in [0.0, 0.49, 1.0, f64::NAN] {
            assert!(Hedge::beyond(share).unwrap_err().is_invalid(), "{share}");
        }
    }
}
