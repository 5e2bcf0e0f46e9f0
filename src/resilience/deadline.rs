//! Until when a call may last.

use std::time::Duration;

use crate::time::Timestamp;

/// The end of a call, of which each attempt gets what is left.
///
/// ```
/// use std::time::Duration;
/// use waypost::resilience::Deadline;
/// use waypost::time::Timestamp;
///
/// let start = Timestamp::default();
/// let call = Deadline::of(start, Some(Duration::from_secs(1)));
/// let later = start.plus(Duration::from_millis(700));
/// let per_try = Some(Duration::from_millis(500));
/// assert_eq!(call.attempt(later, per_try), Some(Duration::from_millis(300)));
/// assert!(!call.leaves(later, Duration::from_millis(400)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Timestamp);

/// 584 years: of a call that has no end.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

impl Deadline {
    /// Of a call that begins at `now` and may take so long, or for ever.
    #[must_use]
    pub fn of(now: Timestamp, timeout: Option<Duration>) -> Self {
        Self(timeout.map_or(NEVER, |timeout| now.plus(timeout)))
    }

    /// What is left; none when there is no end.
    #[must_use]
    pub fn left(self, now: Timestamp) -> Option<Duration> {
        (self.0 != NEVER).then(|| self.0.since(now))
    }

    /// Whether a pause of `wait` ends before the call does.
    #[must_use]
    pub fn leaves(self, now: Timestamp, wait: Duration) -> bool {
        self.left(now).is_none_or(|left| wait < left)
    }

    /// How long an attempt that begins now may take: its own limit, or what is
    /// left of the call, whichever is shorter.
    #[must_use]
    pub fn attempt(self, now: Timestamp, per_try: Option<Duration>) -> Option<Duration> {
        match (self.left(now), per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }
}

impl Default for Deadline {
    /// Of a call that may take for ever.
    fn default() -> Self {
        Self(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn attempts_and_pauses_never_outlast_the_call() {
        for seed in 0..1_000 {
            let mut rng = Rng::seeded(seed);
            let mut ms = |n| Duration::from_millis(u64::from(rng.below(n)));
            let start = Timestamp::default().plus(ms(10_000));
            let timeout = ms(1_000);
            let call = Deadline::of(start, Some(timeout));
            let (now, per_try, wait) = (start.plus(ms(2_000)), ms(1_000), ms(1_000));
            let attempt = call.attempt(now, Some(per_try)).unwrap();
            assert!(attempt <= per_try && attempt <= timeout);
            assert!(now.since(start) >= timeout || now.since(start) + attempt <= timeout);
            if call.leaves(now, wait) {
                assert!(now.since(start) + wait < timeout);
            }
        }
    }

    #[test]
    fn without_an_end_only_the_attempts_limit_counts() {
        let (call, now) = (Deadline::default(), Timestamp::default());
        assert_eq!(call.attempt(now, None), None);
        assert_eq!(call.attempt(now, Some(Duration::MAX)), Some(Duration::MAX));
        assert!(call.leaves(now, Duration::MAX));
        assert_eq!(Deadline::of(now, None), call);
        assert_eq!(Deadline::of(now, Some(Duration::MAX)), call);
    }
}
