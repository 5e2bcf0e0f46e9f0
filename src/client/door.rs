//! The gate of a service, and those who wait at it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::resilience::{AdaptiveLimit, Entry, Gate, LimitSample, Limits};
use crate::stats::Outcome;

/// A gate and those who wait at it.
#[derive(Debug)]
pub(super) struct Door {
    gate: Gate,
    adaptive: Option<AdaptiveLimit>,
    queue: Mutex<Queue>,
}

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Permit>>,
}

/// One call in flight; it leaves when dropped.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<Door>>);

/// One retry under way; it ends when dropped.
pub(super) struct Retrying<'a>(Option<&'a Door>);

/// A place among those that wait; given up when dropped.
struct Waiting {
    door: Arc<Door>,
    ticket: u64,
}

/// How a call is received.
pub(super) enum Admission<W> {
    In(Permit),
    /// It waits until that ends.
    Pending(W),
}

impl Door {
    pub(super) fn new(limits: Limits, adaptive: Option<AdaptiveLimit>) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(limits),
            adaptive,
            queue: Mutex::default(),
        })
    }

    /// Lets a call in, or lets it wait; none when there is no room even for that.
    pub(super) fn admit(
        self: &Arc<Self>,
    ) -> Option<Admission<impl Future<Output = Permit> + use<>>> {
        match self.gate.enter(self.adaptive_limit()) {
            Entry::In => Some(Admission::In(Permit(Some(Arc::clone(self))))),
            Entry::Pending => Some(Admission::Pending(self.wait())),
            Entry::Refused => {
                // While it was counted, one of those who wait may have found no room.
                self.let_in();
                None
            }
        }
    }

    /// For a place to be free. The place among those that wait is given up when this is
    /// dropped, even if it never ran.
    fn wait(self: &Arc<Self>) -> impl Future<Output = Permit> + use<> {
        let (sender, receiver) = oneshot::channel();
        let waiting = {
            let mut queue = self.queue();
            let ticket = queue.next;
            queue.next += 1;
            queue.waiting.insert(ticket, sender);
            Waiting {
                door: Arc::clone(self),
                ticket,
            }
        };
        // Someone may have left before this one was seen.
        self.let_in();
        async move {
            let _waiting = waiting;
            match receiver.await {
                Ok(permit) => permit,
                Err(_) => unreachable!("it is let in before it is forgotten"),
            }
        }
    }

    /// Lets in those who wait for whom there is room: whoever makes room hands it on, so that
    /// nobody who comes later takes it, and a limit that has grown is used.
    fn let_in(self: &Arc<Self>) {
        while self.gate.waiting() > 0 && self.gate.has_room(self.adaptive_limit()) {
            let mut queue = self.queue();
            // It may be counted already, and not be here yet: then it looks itself.
            if queue.waiting.is_empty() || !self.gate.enter_pending(self.adaptive_limit()) {
                return;
            }
            let first = queue.waiting.pop_first();
            drop(queue);
            let permit = Permit(Some(Arc::clone(self)));
            if let Some((_, waiting)) = first {
                // Of one that has just given up, it comes back, and goes to the next.
                drop(waiting.send(permit));
            }
        }
    }

    /// A retry, if the limits have room for it.
    pub(super) fn begin_retry(&self) -> Option<Retrying<'_>> {
        // Made only if there is room: to drop it ends a retry.
        self.gate.try_retry().then(|| Retrying(Some(self)))
    }

    /// An attempt ended; what it tells of how much the service bears.
    pub(super) fn learn(&self, outcome: Outcome, latency: Duration) {
        if let Some(adaptive) = &self.adaptive
            && outcome != Outcome::Cancelled
        {
            adaptive.sample(LimitSample {
                latency,
                in_flight: self.gate.calls(),
                dropped: outcome.is_failure(),
            });
        }
    }

    fn adaptive_limit(&self) -> Option<u32> {
        self.adaptive.as_ref().map(AdaptiveLimit::get)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Where nothing is bounded.
    pub(super) const FREE: Self = Self(None);
}

impl Retrying<'_> {
    /// Where nothing is bounded.
    pub(super) const FREE: Self = Self(None);
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = self.door.queue().waiting.remove(&self.ticket);
        if left.is_some() {
            self.door.gate.give_up();
        }
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        if let Some(door) = self.0 {
            door.gate.retried();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(door) = &self.0 {
            door.gate.leave();
            door.let_in();
        }
    }
}
