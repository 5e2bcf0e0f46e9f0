//! The processor's time stamp counter.

use std::sync::LazyLock;

use super::Timestamp;

pub(super) struct Tsc {
    clock: quanta::Clock,
    beginning: u64,
}

pub(super) static TSC: LazyLock<Tsc> = LazyLock::new(|| {
    let clock = quanta::Clock::new();
    let beginning = clock.raw();
    Tsc { clock, beginning }
});

#[inline]
pub(super) fn now() -> Timestamp {
    let Tsc { clock, beginning } = &*TSC;
    Timestamp(clock.delta_as_nanos(*beginning, clock.raw()))
}
