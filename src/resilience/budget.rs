//! How many retries there may be in all.

use std::time::Duration;

use super::window::Window;
use crate::error::Error;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::time::Timestamp;

/// Bounds what a service's failures may cost in extra calls: whatever fails,
/// the calls sent are at most `1 + share` times the calls asked for.
///
/// | kind | a retry needs | follows |
/// | --- | --- | --- |
/// | [`share`](Self::share) (default) | one of the tokens that calls leave behind, or of the reserve | Finagle's `RetryBudget` |
/// | [`throttle`](Self::throttle) | more than half of the tokens, which failures take and successes give back | gRPC's `retryThrottling` (A6) |
/// | [`unlimited`](Self::unlimited) | nothing | |
///
/// A call that was provably not sent costs its service nothing, and is never
/// charged when it goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Share {
        percent: u32,
        min_per_second: u32,
        ttl: Duration,
    },
    Throttle {
        max_millis: u32,
        ratio_millis: u32,
    },
    Unlimited,
}

impl RetryBudget {
    /// Retries are at most `percent` of the calls of the last ten seconds, and
    /// ten a second more, so that a client of few calls can retry at all
    /// (Finagle's figures, with 20 per cent).
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] beyond 1,000 per cent.
    pub fn share(percent: u32) -> Result<Self, Error> {
        if percent > 1_000 {
            let reason = "at most 1000: ten retries for each call";
            return Err(Error::invalid("retry_budget.percent", percent, reason));
        }
        Ok(Self(Kind::Share {
            percent,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        }))
    }

    /// Retries stop while half of the tokens, or more, are gone: each failure
    /// takes one, each success gives `ratio` back.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] unless `max_tokens` is in 1 to 1,000 and `ratio`
    /// in 0.001 to 1,000.
    pub fn throttle(max_tokens: u32, ratio: f64) -> Result<Self, Error> {
        if !(1..=1_000).contains(&max_tokens) {
            let reason = "1 to 1000 tokens, as gRPC has it";
            return Err(Error::invalid(
                "retry_budget.max_tokens",
                max_tokens,
                reason,
            ));
        }
        if !(0.001..=1_000.0).contains(&ratio) {
            let reason = "0.001 to 1000 tokens for a success";
            return Err(Error::invalid("retry_budget.token_ratio", ratio, reason));
        }
        Ok(Self(Kind::Throttle {
            max_millis: max_tokens * 1_000,
            ratio_millis: (ratio * 1_000.0) as u32,
        }))
    }

    /// No bound but that of each call's attempts. Only where something else
    /// bounds the load.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(Kind::Unlimited)
    }

    /// Of a share: the retries a second that are allowed whatever the number of
    /// calls; 10 by default.
    #[must_use]
    pub const fn min_per_second(mut self, retries: u32) -> Self {
        if let Kind::Share { min_per_second, .. } = &mut self.0 {
            *min_per_second = retries;
        }
        self
    }

    /// Of a share: how long a call's part of a token lasts; 10 s by default,
    /// and 1 s to 60 s.
    #[must_use]
    pub fn ttl(mut self, lasts: Duration) -> Self {
        if let Kind::Share { ttl, .. } = &mut self.0 {
            *ttl = lasts.clamp(Duration::from_secs(1), Duration::from_mins(1));
        }
        self
    }

    /// A budget that nothing was taken from.
    #[must_use]
    pub fn start(self) -> RetryTokens {
        RetryTokens(match self.0 {
            Kind::Share {
                percent,
                min_per_second,
                ttl,
            } => State::Share {
                calls: Window::new(ttl),
                batch: Batch::new(ttl),
                retries: Window::new(ttl),
                percent: u64::from(percent),
                reserve: u64::from(min_per_second) * ttl.as_secs(),
            },
            Kind::Throttle {
                max_millis,
                ratio_millis,
            } => State::Throttle {
                millis: AtomicU32::new(max_millis),
                max: max_millis,
                ratio: ratio_millis,
            },
            Kind::Unlimited => State::Unlimited,
        })
    }
}

impl Default for RetryBudget {
    /// Finagle's: 20 per cent of the calls, and 10 a second.
    fn default() -> Self {
        Self(Kind::Share {
            percent: 20,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        })
    }
}

/// Calls that are not in the window yet. Most calls need the time for nothing else,
/// and it costs more to read than all that is done with it here: so the first of a
/// batch reads it, and the last one enters them all at that time. A batch that is
/// entered late expires early, which never grants a retry too much.
#[derive(Debug)]
struct Batch {
    /// Of all calls; what goes beyond whole batches is not entered yet.
    count: AtomicU64,
    /// When the batch began, in nanoseconds.
    began: AtomicU64,
    lasts: Duration,
}

impl Batch {
    /// The reading is a sixteenth of what it was, and at most three retries of a
    /// fifth come late.
    const CALLS: u32 = 16;

    fn new(lasts: Duration) -> Self {
        Self {
            count: AtomicU64::new(0),
            began: AtomicU64::new(0),
            lasts,
        }
    }

    fn add(&self, calls: &Window, clock: impl FnOnce() -> Timestamp) {
        // Begins before it is in the window, where `pending` is read after.
        let before = self.count.fetch_add(1, Ordering::Relaxed) as u32 % Self::CALLS;
        if before == 0 {
            self.began.store(clock().as_nanos(), Ordering::Relaxed);
        } else if before == Self::CALLS - 1 {
            let began = Timestamp::from_nanos(self.began.load(Ordering::Relaxed));
            calls.add_many(began, Self::CALLS);
        }
    }

    /// The calls that wait to be entered, and are not too old for it.
    fn pending(&self, now: Timestamp) -> u64 {
        let began = Timestamp::from_nanos(self.began.load(Ordering::Relaxed));
        let fresh = now.since(began) < self.lasts;
        let pending = self.count.load(Ordering::Relaxed) % u64::from(Self::CALLS);
        if fresh { pending } else { 0 }
    }
}

/// What is left of a [`RetryBudget`]. One is shared by all calls to a service;
/// every operation is wait-free but for the first of each tenth of the window.
#[derive(Debug)]
pub struct RetryTokens(State);

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each service, and the largest is the default"
)]
enum State {
    Share {
        calls: Window,
        batch: Batch,
        retries: Window,
        percent: u64,
        /// In retries.
        reserve: u64,
    },
    Throttle {
        millis: AtomicU32,
        max: u32,
        ratio: u32,
    },
    Unlimited,
}

impl RetryTokens {
    /// A call was asked for: its first attempt, never a retry.
    pub fn asked(&self, now: Timestamp) {
        if let State::Share { calls, .. } = &self.0 {
            calls.add(now);
        }
    }

    /// As [`asked`](Self::asked), for calls that need no clock otherwise: it is read for
    /// one of sixteen only. They count as asked for when the first of them was, so a
    /// call may expire early, and never grants a retry too much.
    ///
    /// ```
    /// use waypost::resilience::RetryBudget;
    /// use waypost::time::Clock;
    ///
    /// let (clock, tokens) = (Clock::system(), RetryBudget::default().start());
    /// tokens.asked_by(|| clock.now());
    /// ```
    pub fn asked_by(&self, clock: impl FnOnce() -> Timestamp) {
        if let State::Share { calls, batch, .. } = &self.0 {
            batch.add(calls, clock);
        }
    }

    /// An attempt ended, well or in a failure that is worth a retry.
    pub fn ended(&self, well: bool) {
        if let State::Throttle { millis, max, ratio } = &self.0 {
            let change = |held: u32| {
                let next = if well {
                    held.saturating_add(*ratio).min(*max)
                } else {
                    held.saturating_sub(1_000)
                };
                (next != held).then_some(next)
            };
            // Full, or empty, stays so.
            let _unchanged = millis.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        }
    }

    /// Takes what a retry costs, if it is there.
    ///
    /// Of two threads that ask for the last token at once, both may be refused;
    /// never do both get it.
    #[must_use]
    pub fn try_retry(&self, now: Timestamp) -> bool {
        match &self.0 {
            State::Share {
                calls,
                batch,
                retries,
                percent,
                reserve,
            } => {
                retries.add(now);
                let granted = retries.sum(now) * 100;
                // In this order: a batch that is entered meanwhile counts once at most.
                let asked = calls.sum(now) + batch.pending(now);
                let allowed = asked * percent + reserve * 100;
                if granted > allowed {
                    retries.undo(now);
                }
                granted <= allowed
            }
            State::Throttle { millis, max, .. } => millis.load(Ordering::Relaxed) > max / 2,
            State::Unlimited => true,
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// The law, over the whole run and over each part of it.
    #[test]
    fn retries_never_exceed_the_share_and_the_reserve() {
        for seed in 0..1_000 {
            let mut rng = Rng::seeded(seed);
            let percent = rng.below(60);
            let floor = rng.below(3) * 5;
            let budget = RetryBudget::share(percent).unwrap();
            let tokens = budget.min_per_second(floor).start();
            let (mut millis, mut calls, mut retries) = (0, 0_u64, 0_u64);
            for _ in 0..2_000 {
                millis += u64::from(rng.below(20) * rng.below(20));
                if rng.below(3) == 0 {
                    tokens.asked(at(millis));
                    calls += 1;
                } else if tokens.try_retry(at(millis)) {
                    retries += 1;
                }
                // The reserve is there once for each ten seconds begun.
                let reserve = u64::from(floor) * 10 * (millis / 10_000 + 1);
                let allowed = calls * u64::from(percent) / 100 + reserve;
                assert!(retries <= allowed, "seed {seed}: {retries} of {allowed}");
            }
        }
    }

    #[test]
    fn an_idle_client_has_ten_a_second_and_a_busy_one_a_fifth_more() {
        let tokens = RetryBudget::default().start();
        let granted = |millis| (0..10_000).filter(|_| tokens.try_retry(at(millis))).count();
        assert_eq!(granted(0), 100, "ten seconds' worth");
        assert_eq!(granted(9_900), 0);
        assert_eq!(granted(10_000), 100, "they come back as they expire");
        (0..5_000).for_each(|_| tokens.asked(at(25_000)));
        assert_eq!(granted(25_000), 1_100);
        assert_eq!(granted(60_000), 100, "what calls left behind expires");
    }

    #[test]
    fn threads_together_get_no_more_than_there_is() {
        let tokens = RetryBudget::share(20).unwrap().min_per_second(0).start();
        (0..10_000).for_each(|_| tokens.asked(at(0)));
        let granted = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..5_000).filter(|_| tokens.try_retry(at(1))).count()))
                .collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<usize>()
        });
        assert!((1_900..=2_000).contains(&granted), "{granted}");
    }

    /// The law of [`retries_never_exceed_the_share_and_the_reserve`], and nearly all
    /// that is granted where each call reads the clock.
    #[test]
    fn calls_that_share_a_reading_of_the_clock_grant_no_retry_too_much() {
        for seed in 0..300 {
            let mut rng = Rng::seeded(seed);
            let budget = RetryBudget::share(25).unwrap().min_per_second(0);
            let (exact, tokens) = (budget.start(), budget.start());
            let (mut millis, mut calls, mut reads) = (0, 0_u64, 0_u64);
            let (mut granted, mut at_most) = (0, 0);
            for _ in 0..5_000 {
                millis += u64::from(rng.below(8) * rng.below(8));
                exact.asked(at(millis));
                tokens.asked_by(|| {
                    reads += 1;
                    at(millis)
                });
                calls += 1;
                if rng.below(100) == 0 {
                    let retries = |of: &RetryTokens| {
                        let granted = (0..1_000).filter(|_| of.try_retry(at(millis)));
                        granted.count() as u64
                    };
                    granted += retries(&tokens);
                    at_most += retries(&exact);
                    assert!(granted <= calls / 4, "seed {seed}: {granted} of {calls}");
                }
            }
            let near = granted * 100 >= at_most * 95;
            assert!(near, "seed {seed}: {granted} where {at_most} might be");
            assert_eq!(reads, calls.div_ceil(16));
        }
    }

    #[test]
    fn few_calls_count_before_their_batch_is_whole_and_not_for_ever() {
        let budget = RetryBudget::share(100).unwrap().min_per_second(0);
        let granted = |calls: u32, later| {
            let tokens = budget.start();
            (0..calls).for_each(|_| tokens.asked_by(|| at(0)));
            (0..100).filter(|_| tokens.try_retry(at(later))).count()
        };
        for calls in [1, 15, 16, 17, 40] {
            assert_eq!(granted(calls, 0), calls as usize);
            assert_eq!(granted(calls, 10_000), 0);
        }
    }

    /// gRPC A6: retries stop at half of the tokens.
    #[test]
    fn failures_take_tokens_and_successes_give_them_back() {
        let tokens = RetryBudget::throttle(10, 0.5).unwrap().start();
        (0..4).for_each(|_| tokens.ended(false));
        assert!(tokens.try_retry(at(0)), "6 of 10");
        tokens.ended(false);
        assert!(!tokens.try_retry(at(0)), "5 of 10");
        tokens.ended(true);
        assert!(tokens.try_retry(at(0)), "5.5 of 10");
        (0..100).for_each(|_| tokens.ended(true));
        (0..4).for_each(|_| tokens.ended(false));
        assert!(tokens.try_retry(at(0)), "there are never more than 10");
        (0..100).for_each(|_| tokens.ended(false));
        (0..11).for_each(|_| tokens.ended(true));
        assert!(tokens.try_retry(at(0)), "there are never fewer than 0");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for error in [
            RetryBudget::share(1_001).unwrap_err(),
            RetryBudget::throttle(0, 0.1).unwrap_err(),
            RetryBudget::throttle(1_001, 0.1).unwrap_err(),
            RetryBudget::throttle(10, 0.0).unwrap_err(),
            RetryBudget::throttle(10, f64::NAN).unwrap_err(),
        ] {
            assert!(error.is_invalid(), "{error}");
        }
    }
}
