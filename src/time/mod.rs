//! The clock that is read on hot paths, and that tests hand in.
//!
//! Everything that decides by time takes a [`Timestamp`] as an argument; only
//! the edges read a [`Clock`]. A test or a simulation uses
//! [`Clock::manual`] and turns the hands itself.
//!
//! ```
//! use std::time::Duration;
//! use waypost::time::Clock;
//!
//! let (clock, hands) = Clock::manual();
//! let start = clock.now();
//! hands.advance(Duration::from_millis(3));
//! assert_eq!(clock.now().since(start), Duration::from_millis(3));
//! ```

mod system;
#[cfg(feature = "quanta")]
mod tsc;

use std::sync::Arc;
#[cfg(feature = "quanta")]
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment: nanoseconds since the clock's own beginning. `u64` lasts for 584
/// years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `nanos` nanoseconds after the clock's beginning.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time that passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `duration` more, saturating.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }
}

/// In 64 bits throughout: this is part of every reading of the clock.
const fn saturating_nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos() as u64)
}

/// A source of [`Timestamp`]s: the system's monotonic clock, the processor's
/// counter, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    #[cfg(feature = "quanta")]
    Tsc,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The operating system's monotonic clock. One reading costs what
    /// [`Instant::now`](std::time::Instant::now) costs: about 23 ns on the
    /// virtual machines measured.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// The processor's time stamp counter, calibrated against the system's clock
    /// by the crate `quanta`: a reading costs less than half of the system
    /// clock's where that is no more than a counter either. Where the processor
    /// has none that is steady, it is the system's clock after all.
    ///
    /// The first call of a process calibrates, which takes up to 200 ms: make
    /// it when the application starts.
    #[cfg(feature = "quanta")]
    #[cfg_attr(docsrs, doc(cfg(feature = "quanta")))]
    #[must_use]
    pub fn tsc() -> Self {
        LazyLock::force(&tsc::TSC);
        Self(Source::Tsc)
    }

    /// A clock that stands still until its [`Hands`] are moved.
    #[must_use]
    pub fn manual() -> (Self, Hands) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Self(Source::Manual(Arc::clone(&nanos))), Hands(nanos))
    }

    /// The current moment.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system::now(),
            #[cfg(feature = "quanta")]
            Source::Tsc => tsc::now(),
            Source::Manual(nanos) => Timestamp(nanos.load(Ordering::Acquire)),
        }
    }
}

/// The hands of a manual [`Clock`].
#[derive(Clone, Debug)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(saturating_nanos(by), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_system_clock_never_runs_back() {
        let clock = Clock::system();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_system_clock_goes_at_the_pace_of_instants() {
        let clock = Clock::system();
        let outer = Instant::now();
        let began = clock.now();
        let inner = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        let within = inner.elapsed();
        let passed = clock.now().since(began);
        let around = outer.elapsed();
        assert!(
            within <= passed && passed <= around,
            "{within:?} {passed:?} {around:?}"
        );
    }

    #[cfg(feature = "quanta")]
    #[test]
    fn the_counter_goes_at_the_systems_pace() {
        let (system, tsc) = (Clock::system(), Clock::tsc());
        let (begun, counted) = (system.now(), tsc.now());
        // Long enough that a reading's own time, or a pause between two
        // readings, is small beside it.
        while system.now().since(begun) < Duration::from_millis(200) {}
        let (passed, counted) = (system.now().since(begun), tsc.now().since(counted));
        let ratio = counted.as_secs_f64() / passed.as_secs_f64();
        assert!((0.8..1.25).contains(&ratio), "{passed:?} {counted:?}");
    }

    #[test]
    fn a_span_into_the_past_is_zero() {
        let early = Timestamp::from_nanos(5);
        let late = early.plus(Duration::MAX);
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.as_nanos(), u64::MAX);
    }
}
