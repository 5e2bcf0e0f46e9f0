//! What an endpoint's failures add up to.
//!
//! Only a call that fails writes here. A success writes nothing: how many there
//! were is in the stripes anyway, and a failure that finds more of them than the
//! failure before it begins a new streak. So ejection after consecutive failures
//! costs the calls that succeed nothing at all.

use super::Outcome;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The failures of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Accrual {
    all: Streak,
    answered: Streak,
    gateway: Streak,
    local: Streak,
    trial: AtomicU32,
}

/// Failures in a row, up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streaks {
    /// Of any kind.
    pub all: u32,
    /// Answers that were errors of the endpoint; unanswered calls between them
    /// do not count.
    pub answered: u32,
    /// Answers that were gateway errors. Any other answer ends the streak;
    /// unanswered calls between them do not count.
    pub gateway: u32,
    /// Calls without an answer: not sent, interrupted, timed out. Any answer
    /// ends the streak.
    pub local: u32,
}

impl Accrual {
    /// Takes in a failed call, before which `succeeded` calls had succeeded.
    pub(crate) fn failed(&self, outcome: Outcome, succeeded: u64) -> Streaks {
        // What this call made of each streak, and not what another has made of
        // it since: somebody waits for the very number.
        let mut streaks = self.streaks(succeeded);
        streaks.all = self.all.extend(succeeded);
        if outcome.is_answer() {
            self.local.end();
            streaks.local = 0;
            streaks.answered = self.answered.extend(succeeded);
        } else {
            streaks.local = self.local.extend(succeeded);
        }
        match outcome {
            Outcome::GatewayError => streaks.gateway = self.gateway.extend(succeeded),
            Outcome::ServerError => {
                self.gateway.end();
                streaks.gateway = 0;
            }
            _ => {}
        }
        streaks
    }

    pub(crate) fn streaks(&self, succeeded: u64) -> Streaks {
        Streaks {
            all: self.all.so_far(succeeded),
            answered: self.answered.so_far(succeeded),
            gateway: self.gateway.so_far(succeeded),
            local: self.local.so_far(succeeded),
        }
    }

    /// Whether a call has failed since all was forgiven.
    pub(crate) fn is_suspect(&self) -> bool {
        self.all.0.load(Ordering::Relaxed) != 0
    }

    /// Forgets the streaks: what was done about them is done.
    pub(crate) fn forgive(&self) {
        for streak in [&self.all, &self.answered, &self.gateway, &self.local] {
            streak.end();
        }
    }

    pub(crate) fn trial(&self) -> Trial {
        Trial::from_word(self.trial.load(Ordering::Acquire))
    }

    pub(crate) fn set_trial(&self, trial: Trial) {
        self.trial.store(trial as u32, Ordering::Release);
    }

    /// Takes the trial call, if nobody has.
    pub(crate) fn claim_trial(&self) -> bool {
        self.step(Trial::Open, Trial::Taken)
    }

    /// Ends the trial call as it went; a call that was given up leaves it to the
    /// next one. Tells whether there is something to be told.
    pub(crate) fn end_trial(&self, outcome: Outcome) -> bool {
        let next = match outcome {
            Outcome::Success => Trial::Passed,
            Outcome::Cancelled => Trial::Open,
            _ => Trial::Failed,
        };
        self.step(Trial::Taken, next) && next != Trial::Open
    }

    fn step(&self, from: Trial, to: Trial) -> bool {
        let (from, to) = (from as u32, to as u32);
        self.trial
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Where an endpoint is with its trial call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It has none to pass.
    None,
    /// The next call takes it.
    Open,
    /// A call has taken it.
    Taken,
    Passed,
    Failed,
}

impl Trial {
    fn from_word(word: u32) -> Self {
        let all = [Self::Open, Self::Taken, Self::Passed, Self::Failed];
        let of_word = all.into_iter().find(|&trial| trial as u32 == word);
        of_word.unwrap_or(Self::None)
    }
}

/// A number of failures, and the low half of how many successes there were when
/// the last one came, in one word.
#[derive(Debug, Default)]
struct Streak(AtomicU64);

impl Streak {
    fn extend(&self, succeeded: u64) -> u32 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let failures = count(word, succeeded).saturating_add(1);
            let next = succeeded << 32 | u64::from(failures);
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return failures,
                Err(current) => word = current,
            }
        }
    }

    fn so_far(&self, succeeded: u64) -> u32 {
        count(self.0.load(Ordering::Relaxed), succeeded)
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn count(word: u64, succeeded: u64) -> u32 {
    if word >> 32 == succeeded & u64::from(u32::MAX) {
        word as u32
    } else {
        0
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_success_between_two_failures_begins_a_new_streak() {
        let accrual = Accrual::default();
        assert_eq!(accrual.failed(Outcome::ServerError, 7).all, 1);
        assert_eq!(accrual.failed(Outcome::ServerError, 7).all, 2);
        assert_eq!(accrual.streaks(7).all, 2);
        assert_eq!(accrual.streaks(8).all, 0);
        assert_eq!(accrual.failed(Outcome::ServerError, 8).all, 1);
    }

    #[test]
    fn answers_and_their_absence_are_counted_apart() {
        let accrual = Accrual::default();
        accrual.failed(Outcome::NotSent, 0);
        accrual.failed(Outcome::TimedOut, 0);
        let two = accrual.streaks(0);
        assert_eq!((two.all, two.answered, two.local), (2, 0, 2));
        accrual.failed(Outcome::ServerError, 0);
        let three = accrual.streaks(0);
        assert_eq!((three.all, three.answered, three.local), (3, 1, 0));
        assert!(accrual.is_suspect());
        accrual.forgive();
        assert!(!accrual.is_suspect());
        assert_eq!(accrual.streaks(0), Streaks::default());
    }

    #[test]
    fn gateway_errors_are_counted_among_answers_and_apart() {
        let accrual = Accrual::default();
        accrual.failed(Outcome::GatewayError, 0);
        accrual.failed(Outcome::NotSent, 0);
        let three = accrual.failed(Outcome::GatewayError, 0);
        assert_eq!((three.all, three.answered, three.gateway), (3, 2, 2));
        let four = accrual.failed(Outcome::ServerError, 0);
        assert_eq!((four.all, four.answered, four.gateway), (4, 3, 0));
    }

    #[test]
    fn one_call_takes_the_trial_and_a_cancelled_one_gives_it_back() {
        let accrual = Accrual::default();
        assert!(!accrual.claim_trial());
        accrual.set_trial(Trial::Open);
        assert!(accrual.claim_trial() && !accrual.claim_trial());
        assert!(!accrual.end_trial(Outcome::Cancelled));
        assert!(accrual.claim_trial());
        assert!(accrual.end_trial(Outcome::Success));
        assert_eq!(accrual.trial(), Trial::Passed);
        assert!(!accrual.end_trial(Outcome::NotSent), "it has ended");
    }
}
