//! What those who watch a balancer are told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{Endpoint, EndpointId, EndpointSet, ServiceName};
use crate::error::Error;
use crate::stats::Outcome;
use crate::time::Timestamp;

/// How much is known about a service, and how fresh it is.
///
/// "Not known yet", "empty" and "failed" are three different things: the first
/// is [`Discovery::Unknown`] without an error, the second [`Discovery::Fresh`]
/// with an empty set, the third either `Unknown` with the error or, once a set
/// was known, [`Discovery::Stale`], with which the balancer goes on serving.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Discovery {
    /// No set has come yet.
    Unknown {
        /// The last error of the registry, if there was one.
        error: Option<Error>,
    },
    /// The set is the registry's last answer.
    Fresh,
    /// The registry fails, or nobody follows it any more; the set is the last one it told.
    Stale {
        /// When it failed first since its last answer.
        since: Timestamp,
        /// Its last error.
        error: Error,
    },
}

impl Discovery {
    /// Whether the registry's last word was an answer.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh)
    }

    /// Whether no set has come yet.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether an old set is being served because the registry fails.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// The registry's last error, if its last word was one.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Unknown { error } => error.as_ref(),
            Self::Fresh => None,
            Self::Stale { error, .. } => Some(error),
        }
    }
}

/// What happened to an endpoint, or to the spread of the calls: what
/// [`Balancer::events`](crate::Balancer::events) tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It gets no calls, because those that it got failed.
    Ejected {
        /// Which one.
        endpoint: EndpointId,
        /// When it gets a trial call.
        until: Timestamp,
        /// Why.
        cause: String,
    },
    /// It gets one call, which decides.
    OnTrial {
        /// Which one.
        endpoint: EndpointId,
    },
    /// It is ejected no longer.
    Admitted {
        /// Which one.
        endpoint: EndpointId,
    },
    /// It gets no calls, because it fails its health check.
    CheckFailed {
        /// Which one.
        endpoint: EndpointId,
        /// What the probe that decided it found.
        reason: String,
    },
    /// It passes its health check again.
    CheckPassed {
        /// Which one.
        endpoint: EndpointId,
    },
    /// So much of a level is ill that its health is not believed: all of its
    /// endpoints are used.
    PanicEntered {
        /// The level.
        priority: u32,
    },
    /// A level's health is believed again.
    PanicLeft {
        /// The level.
        priority: u32,
    },
    /// The spread of calls over levels became another.
    Loads {
        /// Each priority's share of all calls, of 1.
        loads: Vec<(u32, f64)>,
    },
}

/// What a balancer knows at one moment: what
/// [`Balancer::subscribe`](crate::Balancer::subscribe) tells on each change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The set picks are made from; empty while nothing is known.
    pub set: EndpointSet,
    /// How many of its endpoints may be picked.
    pub eligible: usize,
    /// How many of its endpoints the registry does not name any more, and which
    /// serve on because its answer is doubted
    /// ([`RemovalGuard`](crate::registry::RemovalGuard)).
    pub unconfirmed: usize,
    /// How fresh the set is.
    pub discovery: Discovery,
}

/// What a client decides about a call, and what becomes of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// An attempt goes to this endpoint.
    Picked {
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// Which attempt of the call it is, from 1.
        attempt: u32,
    },
    /// An attempt ended: its answer's head came, or it failed.
    Ended {
        /// The endpoint.
        endpoint: &'a Endpoint,
        /// How it ended, as far as the head tells.
        outcome: Outcome,
        /// How long that took.
        took: Duration,
    },
    /// The call is sent again after a pause.
    Retried {
        /// Which attempt comes next.
        attempt: u32,
        /// The pause.
        pause: Duration,
    },
    /// The call would have been sent again, but the budget is spent.
    RetryRefused,
    /// The call is late, and is sent to a second endpoint.
    Hedged {
        /// After how long.
        after: Duration,
    },
    /// The call was not sent at all.
    Refused {
        /// Why.
        error: &'a Error,
    },
    /// The call is over, as far as it goes before its body: the head of its
    /// answer is handed on, or its last error.
    Done {
        /// The endpoint of the last attempt.
        endpoint: &'a Endpoint,
        /// How many attempts there were.
        attempts: u32,
        /// How the last one ended.
        outcome: Outcome,
        /// How long all of it took, pauses included.
        took: Duration,
    },
}

/// Is told what clients decide, as it happens and on the calling task: it must
/// not block.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened to a call to that service.
    fn call(&self, service: &ServiceName, event: CallEvent<'_>);

    /// What a call shall run in, such as a span; asked as it begins.
    fn scope(&self, service: &ServiceName, method: &str) -> Option<Box<dyn CallScope>> {
        let _ = (service, method);
        None
    }
}

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        (**self).call(service, event);
    }

    fn scope(&self, service: &ServiceName, method: &str) -> Option<Box<dyn CallScope>> {
        (**self).scope(service, method)
    }
}

/// Both are told, in this order; a call runs in the scopes of both.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        self.0.call(service, event);
        self.1.call(service, event);
    }

    fn scope(&self, service: &ServiceName, method: &str) -> Option<Box<dyn CallScope>> {
        let scopes = (self.0.scope(service, method), self.1.scope(service, method));
        match scopes {
            (Some(outer), Some(inner)) => Some(Box::new(Nested { outer, inner })),
            (one, other) => one.or(other),
        }
    }
}

struct Nested {
    outer: Box<dyn CallScope>,
    inner: Box<dyn CallScope>,
}

impl CallScope for Nested {
    fn within(&self, step: &mut dyn FnMut()) {
        self.outer.within(&mut || self.inner.within(step));
    }

    fn told(&self, event: CallEvent<'_>) {
        self.outer.told(event);
        self.inner.told(event);
    }
}

/// What one call runs in. It is dropped when the call is over, or given up.
pub trait CallScope: Send + Sync + 'static {
    /// Runs the call from one wait to the next: calls `step` once.
    fn within(&self, step: &mut dyn FnMut());

    /// What the observer is told of this call.
    fn told(&self, event: CallEvent<'_>);
}
