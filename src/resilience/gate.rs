//! How many calls there may be at once.

use crate::error::Error;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Envoy's circuit breakers: bounds on what may be under way at once, so that a
/// service that hangs takes neither the client's memory nor its neighbours'
/// turn with it.
///
/// | bound | default | Envoy's name |
/// | --- | --- | --- |
/// | [`in_flight`](Self::in_flight) | 1,024 | `max_requests` |
/// | [`pending`](Self::pending) | 1,024 | `max_pending_requests` |
/// | [`retries`](Self::retries) | none | `max_retries`; the [budget](super::RetryBudget) bounds them better |
/// | [`per_endpoint`](Self::per_endpoint) | none | per-host `max_connections` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    in_flight: u32,
    pending: u32,
    retries: u32,
    per_endpoint: u32,
}

impl Limits {
    /// Calls to the service in flight at once.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is 0.
    pub fn in_flight(mut self, calls: u32) -> Result<Self, Error> {
        if calls == 0 {
            let reason = "at least 1: with 0 no call could be made";
            return Err(Error::invalid("limits.in_flight", calls, reason));
        }
        self.in_flight = calls;
        Ok(self)
    }

    /// Calls that may wait for one in flight to end; the next is refused.
    #[must_use]
    pub const fn pending(mut self, calls: u32) -> Self {
        self.pending = calls;
        self
    }

    /// Retries under way at once.
    #[must_use]
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Calls in flight at one endpoint; those that have as many are passed
    /// over. Threads that pick at the very same moment may each add one more.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is 0.
    pub fn per_endpoint(mut self, calls: u32) -> Result<Self, Error> {
        if calls == 0 {
            let reason = "at least 1: with 0 no endpoint could be picked";
            return Err(Error::invalid("limits.per_endpoint", calls, reason));
        }
        self.per_endpoint = calls;
        Ok(self)
    }

    /// The calls that may be in flight at one endpoint.
    #[must_use]
    pub const fn of_one_endpoint(self) -> u32 {
        self.per_endpoint
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 1_024,
            pending: 1_024,
            retries: u32::MAX,
            per_endpoint: u32::MAX,
        }
    }
}

/// Counts what is under way against [`Limits`]: one word each, changed by a
/// single atomic operation where there is room.
///
/// Whoever leaves and then sees nobody [waiting](Self::waiting) was seen to leave by
/// whoever begins to wait then and looks whether there [is room](Self::has_room):
/// all operations have one order.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    in_flight: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
}

/// What a call meets at a [`Gate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is in flight, until [`Gate::leave`].
    In,
    /// It is pending: it tries [`Gate::enter_pending`] whenever one leaves, and
    /// goes in or ends with [`Gate::give_up`].
    Pending,
    /// There is no room even to wait.
    Refused,
}

impl Gate {
    /// With nothing under way.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        }
    }

    /// Lets a call in, where an adaptive limit may ask for fewer calls than the
    /// fixed one.
    pub fn enter(&self, adaptive: Option<u32>) -> Entry {
        // Those who wait go first.
        if self.waiting() == 0 && self.try_enter(adaptive) {
            return Entry::In;
        }
        if raise(&self.pending, self.limits.pending) {
            Entry::Pending
        } else {
            Entry::Refused
        }
    }

    /// Lets a pending call in.
    #[must_use]
    pub fn enter_pending(&self, adaptive: Option<u32>) -> bool {
        let entered = self.try_enter(adaptive);
        if entered {
            lower(&self.pending);
        }
        entered
    }

    /// A pending call that waits no longer.
    pub fn give_up(&self) {
        lower(&self.pending);
    }

    /// A call is in flight no longer.
    pub fn leave(&self) {
        lower(&self.in_flight);
    }

    /// Begins a retry, which ends with [`Gate::retried`].
    #[must_use]
    pub fn try_retry(&self) -> bool {
        raise(&self.retries, self.limits.retries)
    }

    /// A retry ended.
    pub fn retried(&self) {
        lower(&self.retries);
    }

    /// Calls in flight.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.pending.load(Ordering::SeqCst)
    }

    /// Whether one more call could be in flight.
    #[must_use]
    pub fn has_room(&self, adaptive: Option<u32>) -> bool {
        self.calls() < self.limit(adaptive)
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    fn try_enter(&self, adaptive: Option<u32>) -> bool {
        raise(&self.in_flight, self.limit(adaptive))
    }

    fn limit(&self, adaptive: Option<u32>) -> u32 {
        let fixed = self.limits.in_flight;
        // One call at least, or nothing would ever be learnt again.
        adaptive.map_or(fixed, |limit| limit.clamp(1, fixed))
    }
}

/// Adds first and looks then, so that it is one operation where there is room;
/// the count may be seen too high for a moment, never too low.
fn raise(count: &AtomicU32, limit: u32) -> bool {
    let before = count.fetch_add(1, Ordering::SeqCst);
    if before >= limit {
        lower(count);
    }
    before < limit
}

fn lower(count: &AtomicU32) {
    let before = count.fetch_sub(1, Ordering::SeqCst);
    debug_assert!(before > 0, "what ends has begun");
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn limits(in_flight: u32, pending: u32) -> Limits {
        Limits::default()
            .in_flight(in_flight)
            .unwrap()
            .pending(pending)
    }

    /// The naive twin: three numbers.
    #[test]
    fn no_bound_is_ever_exceeded_and_room_is_never_denied() {
        for seed in 0..1_000 {
            let mut rng = Rng::seeded(seed);
            let (most, queue) = (1 + rng.below(5), rng.below(4));
            let gate = Gate::new(limits(most, queue));
            let (mut calls, mut waiting) = (0, 0);
            for _ in 0..200 {
                match rng.below(4) {
                    0 | 1 => {
                        let expected = if waiting == 0 && calls < most {
                            calls += 1;
                            Entry::In
                        } else if waiting < queue {
                            waiting += 1;
                            Entry::Pending
                        } else {
                            Entry::Refused
                        };
                        assert_eq!(gate.enter(None), expected);
                    }
                    2 if calls > 0 => {
                        gate.leave();
                        calls -= 1;
                        if waiting > 0 {
                            assert!(gate.enter_pending(None));
                            (waiting, calls) = (waiting - 1, calls + 1);
                        }
                    }
                    3 if waiting > 0 => {
                        gate.give_up();
                        waiting -= 1;
                    }
                    _ => {}
                }
                assert_eq!((gate.calls(), gate.waiting()), (calls, waiting));
                assert_eq!(gate.has_room(None), calls < most);
                assert!(calls <= most && waiting <= queue);
            }
        }
    }

    #[test]
    fn threads_together_stay_within() {
        let gate = Gate::new(limits(3, 0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if gate.enter(None) == Entry::In {
                            // Those that are about to be turned away count too,
                            // for a moment.
                            assert!(gate.calls() <= 3 + 4);
                            gate.leave();
                        }
                    }
                });
            }
        });
        assert_eq!((gate.calls(), gate.waiting()), (0, 0));
    }

    #[test]
    fn an_adaptive_limit_narrows_but_never_closes_or_widens() {
        let gate = Gate::new(limits(2, 0));
        assert_eq!(gate.enter(Some(0)), Entry::In);
        assert_eq!(gate.enter(Some(1)), Entry::Refused);
        assert_eq!(gate.enter(Some(9)), Entry::In);
        assert_eq!(gate.enter(Some(9)), Entry::Refused);
    }

    #[test]
    fn retries_have_a_bound_of_their_own() {
        let gate = Gate::new(Limits::default().retries(1));
        assert!(gate.try_retry() && !gate.try_retry());
        gate.retried();
        assert!(gate.try_retry());
        assert!(Limits::default().in_flight(0).unwrap_err().is_invalid());
        assert!(Limits::default().per_endpoint(0).unwrap_err().is_invalid());
    }
}
