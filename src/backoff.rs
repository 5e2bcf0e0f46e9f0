//! How long to wait before the next try.
//!
//! What failed is tried again soon, and ever more rarely while it goes on
//! failing. When a registry comes back, all of its clients are waiting for it,
//! and they must not return in step: so each waits a random part of its turn
//! ("full jitter", Brooker, "Exponential Backoff And Jitter", 2015), but never
//! less than half of the first one, so that a draw near zero is no busy loop.
//!
//! With the registries' defaults, 10,000 clients of a registry that was away
//! for long come back over ten seconds, 1,000 a second.

use std::time::Duration;

use crate::rng::Rng;

/// Jittered exponential backoff.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    /// The upper bound of the next draw.
    ceiling: Duration,
    rng: Rng,
}

impl Backoff {
    /// Waits of `first` / 2 to `first` after the first failure, whose upper
    /// bound doubles with each further one up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration, rng: Rng) -> Self {
        Self {
            first,
            longest: longest.max(first),
            ceiling: first,
            rng,
        }
    }

    /// The wait after a failure that comes after `good` time without one; zero
    /// when the try before failed, too.
    ///
    /// Only what was good for longer than the wait begins anew: a server that
    /// answers once and breaks off is not asked ten times a second.
    pub(crate) fn after(&mut self, good: Duration) -> Duration {
        if good > self.ceiling {
            self.ceiling = self.first;
        }
        let (least, most) = (self.first / 2, self.ceiling);
        self.ceiling = (self.ceiling * 2).min(self.longest);
        least + self.rng.part_of(most.saturating_sub(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(FIRST, LONGEST, Rng::seeded(seed))
    }

    #[test]
    fn waits_double_to_the_longest_and_no_wait_is_zero() {
        let mut ceiling = FIRST;
        let mut many: Vec<_> = (0..1_000).map(backoff).collect();
        for _ in 0..12 {
            let waits: Vec<_> = many
                .iter_mut()
                .map(|one| one.after(Duration::ZERO))
                .collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(
                *least >= FIRST / 2 && *most <= ceiling,
                "{least:?} {most:?}"
            );
            assert!(*most > ceiling / 10 * 9, "the whole turn is used: {most:?}");
            ceiling = (ceiling * 2).min(LONGEST);
        }
    }

    #[test]
    fn clients_that_failed_together_come_back_apart() {
        let mut many: Vec<_> = (0..1_000).map(backoff).collect();
        let mut slots = [0; 10];
        for one in &mut many {
            let wait = (0..10).map(|_| one.after(Duration::ZERO)).last().unwrap();
            slots[(wait.as_millis() * 10 / (LONGEST.as_millis() + 1)) as usize] += 1;
        }
        // 100 each; five standard deviations are 48.
        assert!(slots.iter().all(|n| (52..148).contains(n)), "{slots:?}");
    }

    #[test]
    fn only_a_long_good_time_begins_anew() {
        let mut flapping = backoff(1);
        let waits: Duration = (0..20).map(|_| flapping.after(FIRST)).sum();
        assert!(waits > LONGEST, "flaps are slowed down: {waits:?}");
        assert!(flapping.after(LONGEST * 2) <= FIRST, "then it was good");
    }
}
