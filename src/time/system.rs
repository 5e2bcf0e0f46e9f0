//! The operating system's monotonic clock, as a number.
//!
//! An [`Instant`](std::time::Instant) is none: what it counts from has to be
//! kept, and taking one from another is a call that costs a fifth of the reading
//! itself. Where picks are measured, the system is asked directly.

use super::Timestamp;

#[cfg(target_os = "linux")]
#[inline]
pub(super) fn now() -> Timestamp {
    use nix::time::{ClockId, clock_gettime};

    // Linux has that clock always: it is what an `Instant` is read from.
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return Timestamp::default();
    };
    // Since the machine was started, so neither is below 0; 584 years fit.
    let (seconds, nanos) = (time.tv_sec() as u64, time.tv_nsec() as u64);
    Timestamp(seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> Timestamp {
    use std::sync::LazyLock;
    use std::time::Instant;

    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    let beginning = *BEGINNING;
    let passed = Instant::now().saturating_duration_since(beginning);
    Timestamp(super::saturating_nanos(passed))
}
