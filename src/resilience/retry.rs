//! Whether a call may be sent again, and when.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Pushback, RetryBudget, RetryTokens};
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::Outcome;

/// How often a call is sent in all, counting the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(NonZeroU32);

impl Attempts {
    /// Once: nothing is sent again.
    pub const ONCE: Self = Self(NonZeroU32::MIN);

    /// `count` times in all; 0 is taken for once.
    #[must_use]
    pub const fn at_most(count: u32) -> Self {
        match NonZeroU32::new(count) {
            Some(count) => Self(count),
            None => Self::ONCE,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Attempts {
    /// Three: with one endpoint in ten dead, one call in a thousand meets three
    /// dead ones.
    fn default() -> Self {
        Self::at_most(3)
    }
}

/// Which calls are sent again, to another endpoint.
///
/// | an attempt ended with | is sent again | charged to the budget |
/// | --- | --- | --- |
/// | nothing sent, provably | always | no |
/// | a broken connection or a timeout | if the method is idempotent (RFC 9110, 9.2.2) | yes |
/// | one of [`statuses`](Self::statuses) or [`grpc_codes`](Self::grpc_codes) | likewise | yes |
/// | any other answer | never | |
///
/// What a server says in `Retry-After` or `grpc-retry-pushback-ms` goes before
/// the backoff.
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`attempts`](Self::attempts) | 3 | see [`Attempts`] |
/// | [`budget`](Self::budget) | 20 % and 10/s | Finagle's |
/// | [`backoff`](Self::backoff) | 25 ms, doubling, at most 250 ms, full jitter | Envoy's |
/// | [`statuses`](Self::statuses) | 502, 503, 504 | Envoy's `gateway-error`: another endpoint may well answer |
/// | [`grpc_codes`](Self::grpc_codes) | 14 (`UNAVAILABLE`) | the one code that asks for it |
/// | [`any_method`](Self::any_method) | off | only the application knows what may happen twice |
/// | [`max_wait`](Self::max_wait) | 5 s | a caller that has set no deadline should still get an answer |
/// | [`max_body`](Self::max_body) | 64 KiB | gRPC keeps 256 KiB a call, Envoy's buffer is 1 MiB; most requests fit in far less |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    attempts: Attempts,
    budget: RetryBudget,
    base: Duration,
    max: Duration,
    statuses: Statuses,
    grpc: u32,
    any_method: bool,
    max_wait: Duration,
    max_body: u64,
}

/// The end of an attempt, as a [`Retry`] has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status of its answer.
    pub status: Option<u16>,
    /// The gRPC status of its answer.
    pub grpc: Option<u32>,
    /// What its answer says of retries.
    pub pushback: Pushback,
    /// Whether the call's method is idempotent.
    pub idempotent: bool,
    /// How many attempts there were, this among them.
    pub attempts: u32,
}

impl Retry {
    /// The defaults of the table above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is sent again.
    #[must_use]
    pub fn never() -> Self {
        Self::default().attempts(Attempts::ONCE)
    }

    /// How often a call is sent in all.
    #[must_use]
    pub const fn attempts(mut self, attempts: Attempts) -> Self {
        self.attempts = attempts;
        self
    }

    /// What retries may cost in all.
    #[must_use]
    pub const fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The pause before the second attempt is random up to `base`, and up to
    /// twice, four times, … that before those that follow, but `max` at most.
    #[must_use]
    pub const fn backoff(mut self, base: Duration, max: Duration) -> Self {
        (self.base, self.max) = (base, max);
        self
    }

    /// The HTTP statuses that are worth another attempt.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] for a status that is no error (not 400 to 599).
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Result<Self, Error> {
        self.statuses = Statuses::default();
        for status in statuses {
            if !self.statuses.insert(status) {
                let reason = "only errors, 400 to 599, can be worth another attempt";
                return Err(Error::invalid("retry.statuses", status, reason));
            }
        }
        Ok(self)
    }

    /// The gRPC status codes that are worth another attempt.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] for a code that is no error (not 1 to 16).
    pub fn grpc_codes(mut self, codes: impl IntoIterator<Item = u32>) -> Result<Self, Error> {
        self.grpc = 0;
        for code in codes {
            if !(1..=16).contains(&code) {
                let reason = "the codes of errors are 1 to 16";
                return Err(Error::invalid("retry.grpc_codes", code, reason));
            }
            self.grpc |= 1 << code;
        }
        Ok(self)
    }

    /// Calls of every method may be repeated: the application says so. gRPC
    /// calls are all POST, so that this is what makes them more than once.
    #[must_use]
    pub const fn any_method(mut self) -> Self {
        self.any_method = true;
        self
    }

    /// The longest pause; an answer that asks for a longer one is handed on.
    #[must_use]
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// The largest request body, in bytes, that is kept to be sent again.
    #[must_use]
    pub const fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Whether an attempt that ended so may be followed by another, and after
    /// what pause. Whether there is budget for it is the caller's to ask, when
    /// [`Retry::is_charged`].
    #[must_use]
    pub fn decide(&self, ended: &Ended, rng: &mut Rng) -> Option<Duration> {
        if ended.attempts >= self.attempts.get() || !self.is_worth_it(ended) {
            return None;
        }
        let backoff = self.pause(ended, rng);
        let pause = match ended.pushback {
            Pushback::Never => return None,
            // Half as much again, so that those told alike do not come back
            // together (Envoy's rate-limited backoff).
            Pushback::After(wait) => wait.saturating_add(jitter(wait / 2, rng)),
            Pushback::None => backoff,
        };
        (pause <= self.max_wait).then_some(pause)
    }

    /// Whether such a retry costs the service anything.
    #[must_use]
    pub fn is_charged(ended: &Ended) -> bool {
        !ended.outcome.is_not_sent()
    }

    /// Whether the call may be repeated at all, as a hedge does before it knows
    /// how the first attempt ends.
    #[must_use]
    pub const fn may_repeat(&self, idempotent: bool) -> bool {
        idempotent || self.any_method
    }

    fn is_worth_it(&self, ended: &Ended) -> bool {
        let repeatable = self.may_repeat(ended.idempotent);
        match ended.outcome {
            Outcome::NotSent => true,
            Outcome::Cancelled => false,
            Outcome::Interrupted | Outcome::TimedOut => repeatable,
            Outcome::Success | Outcome::ServerError | Outcome::GatewayError => {
                let grpc = ended.grpc.is_some_and(|code| self.has_grpc(code));
                let status = ended.status.is_some_and(|code| self.statuses.has(code));
                repeatable && (grpc || status)
            }
        }
    }

    fn has_grpc(&self, code: u32) -> bool {
        code < 32 && self.grpc & (1 << code) != 0
    }

    /// What was not sent has nothing to wait for: the next endpoint may be
    /// well.
    fn pause(&self, ended: &Ended, rng: &mut Rng) -> Duration {
        if ended.outcome.is_not_sent() {
            return Duration::ZERO;
        }
        let doublings = ended.attempts.saturating_sub(1).min(31);
        let most = self.base.saturating_mul(1 << doublings).min(self.max);
        jitter(most, rng)
    }

    /// How often a call is sent in all.
    #[must_use]
    pub const fn most_attempts(&self) -> Attempts {
        self.attempts
    }

    /// The largest request body that is kept, in bytes.
    #[must_use]
    pub const fn largest_body(&self) -> u64 {
        self.max_body
    }

    /// The budget, of which nothing is taken yet.
    #[must_use]
    pub fn start_budget(&self) -> RetryTokens {
        self.budget.start()
    }
}

/// Uniform from 0 to `most`.
fn jitter(most: Duration, rng: &mut Rng) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    let product = u128::from(nanos) * u128::from(rng.bits());
    Duration::from_nanos((product >> 64) as u64)
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: Attempts::default(),
            budget: RetryBudget::default(),
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
            statuses: Statuses::GATEWAY,
            grpc: 1 << 14,
            any_method: false,
            max_wait: Duration::from_secs(5),
            max_body: 64 * 1_024,
        }
    }
}

/// A set of the statuses 400 to 599, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Statuses([u64; 4]);

impl Statuses {
    /// 502, 503, 504.
    const GATEWAY: Self = Self([0, 0b111 << (102 - 64), 0, 0]);

    fn insert(&mut self, status: u16) -> bool {
        let fits = (400..600).contains(&status);
        if fits {
            let at = status - 400;
            self.0[usize::from(at / 64)] |= 1 << (at % 64);
        }
        fits
    }

    fn has(self, status: u16) -> bool {
        (400..600).contains(&status) && {
            let at = status - 400;
            self.0[usize::from(at / 64)] & (1 << (at % 64)) != 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome) -> Ended {
        Ended {
            outcome,
            status: None,
            grpc: None,
            pushback: Pushback::None,
            idempotent: true,
            attempts: 1,
        }
    }

    fn answered(status: u16) -> Ended {
        Ended {
            status: Some(status),
            ..ended(Outcome::ServerError)
        }
    }

    fn decide(retry: Retry, ended: Ended) -> Option<Duration> {
        retry.decide(&ended, &mut Rng::seeded(1))
    }

    #[test]
    fn only_what_is_harmless_is_repeated() {
        let retry = Retry::default();
        for (outcome, idempotent, again) in [
            (Outcome::NotSent, false, true),
            (Outcome::Interrupted, true, true),
            (Outcome::Interrupted, false, false),
            (Outcome::TimedOut, true, true),
            (Outcome::TimedOut, false, false),
            (Outcome::Cancelled, true, false),
            (Outcome::Success, true, false),
            (Outcome::ServerError, true, false),
        ] {
            let ended = Ended {
                idempotent,
                ..ended(outcome)
            };
            assert_eq!(decide(retry, ended).is_some(), again, "{ended:?}");
        }
        let post = Ended {
            idempotent: false,
            ..answered(503)
        };
        assert_eq!(decide(retry, post), None);
        assert!(decide(retry.any_method(), post).is_some());
    }

    #[test]
    fn of_answers_only_the_statuses_asked_for_are_repeated() {
        for status in 100..1_000 {
            let again = decide(Retry::default(), answered(status)).is_some();
            assert_eq!(again, (502..=504).contains(&status), "{status}");
        }
        let retry = Retry::default().statuses([429, 599, 400]).unwrap();
        let kept: Vec<u16> = (100..1_000)
            .filter(|&status| decide(retry, answered(status)).is_some())
            .collect();
        assert_eq!(kept, [400, 429, 599]);
        assert!(Retry::default().statuses([200]).unwrap_err().is_invalid());
        assert!(Retry::default().grpc_codes([0]).unwrap_err().is_invalid());
        for code in 0..40 {
            let told = Ended {
                grpc: Some(code),
                ..ended(Outcome::Success)
            };
            let again = decide(Retry::default(), told).is_some();
            assert_eq!(again, code == 14, "{code}");
        }
    }

    #[test]
    fn the_server_goes_before_the_backoff() {
        let told = |pushback| {
            let ended = Ended {
                pushback,
                ..answered(503)
            };
            decide(Retry::default(), ended)
        };
        let second = Duration::from_secs(1);
        let pause = told(Pushback::After(second)).unwrap();
        assert!(pause >= second && pause <= second * 3 / 2, "{pause:?}");
        assert_eq!(told(Pushback::Never), None);
        assert_eq!(
            told(Pushback::After(second * 6)),
            None,
            "longer than allowed"
        );
        assert_eq!(told(Pushback::After(Duration::MAX)), None);
    }

    #[test]
    fn pauses_double_with_full_jitter_up_to_the_bound() {
        let base = Duration::from_millis(25);
        let retry = Retry::default()
            .attempts(Attempts::at_most(u32::MAX))
            .backoff(base, base * 10);
        for attempts in (1..10).chain([40, u32::MAX - 1]) {
            let most = base
                .saturating_mul(1 << (attempts - 1).min(20))
                .min(base * 10);
            let mut rng = Rng::seeded(u64::from(attempts));
            let ended = Ended {
                attempts,
                ..answered(503)
            };
            let pauses: Vec<_> = (0..1_000)
                .map(|_| retry.decide(&ended, &mut rng).unwrap())
                .collect();
            assert!(pauses.iter().all(|&pause| pause <= most));
            let mean = pauses.iter().sum::<Duration>() / 1_000;
            assert!(mean > most * 4 / 10 && mean < most * 6 / 10, "{mean:?}");
        }
        assert_eq!(decide(retry, ended(Outcome::NotSent)), Some(Duration::ZERO));
    }

    #[test]
    fn attempts_are_bounded() {
        for most in 0..6 {
            let retry = Retry::default().attempts(Attempts::at_most(most));
            for attempts in 1..8 {
                let ended = Ended {
                    attempts,
                    ..answered(503)
                };
                assert_eq!(decide(retry, ended).is_some(), attempts < most);
            }
        }
        assert_eq!(decide(Retry::never(), ended(Outcome::NotSent)), None);
    }
}
