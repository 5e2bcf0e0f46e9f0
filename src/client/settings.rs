//! How calls are made, whatever the client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::http::{RequestKey, RequestSubset, Sticky};
use super::{Classify, HttpStatus};
use crate::endpoint::AddressPolicy;
use crate::event::Observer;
use crate::resilience::{AdaptiveLimit, Aimd, Gradient2, Hedge, Limits, Retry, Throttle};

/// How calls to a service are made: what is sent again, how long it may take,
/// how many there may be. Every integration takes it, and has each of these
/// settings as a method of its own, too.
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`retry`](Self::retry) | [`Retry::default`], where a body can be sent twice | harmless, and bounded by a budget |
/// | [`timeout`](Self::timeout) | none | only the application knows how long its calls take |
/// | [`per_try_timeout`](Self::per_try_timeout) | none | likewise |
/// | [`hedge`](Self::hedge) | none | costs load, which has to be there |
/// | [`limits`](Self::limits) | none | a count that all threads share |
/// | [`adaptive_limit`](Self::adaptive_limit) | none | likewise |
/// | [`throttle`](Self::throttle) | none | refuses calls, which should be asked for |
/// | [`wait`](Self::wait) | 5 s | a caller would rather wait a little for the registry's first answer than see its first call fail |
#[derive(Clone, Debug)]
pub struct CallSettings {
    pub(super) retry: Retry,
    pub(super) timeout: Option<Duration>,
    pub(super) per_try: Option<Duration>,
    pub(super) hedge: Option<Hedge>,
    pub(super) limits: Option<Limits>,
    pub(super) adaptive: Option<Adaptive>,
    pub(super) throttle: Option<Throttle>,
    pub(super) wait: Duration,
    /// None for the default, so that a call need not count who holds it.
    pub(super) classify: Option<Arc<dyn Classify>>,
    pub(super) key: Option<RequestKey>,
    pub(super) subset: Option<RequestSubset>,
    pub(super) sticky: Option<Sticky>,
    pub(super) addresses: Option<AddressPolicy>,
    pub(super) observer: Option<Arc<dyn Observer>>,
}

/// How a limit on calls in flight learns.
#[derive(Clone, Copy)]
pub struct Adaptive(Kind);

#[derive(Clone, Copy)]
enum Kind {
    Gradient2(Gradient2),
    Aimd(Aimd),
}

impl From<Gradient2> for Adaptive {
    fn from(machine: Gradient2) -> Self {
        Self(Kind::Gradient2(machine))
    }
}

impl From<Aimd> for Adaptive {
    fn from(machine: Aimd) -> Self {
        Self(Kind::Aimd(machine))
    }
}

impl Adaptive {
    pub(super) fn start(self) -> AdaptiveLimit {
        match self.0 {
            Kind::Gradient2(machine) => machine.into(),
            Kind::Aimd(machine) => machine.into(),
        }
    }
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Gradient2(machine) => machine.fmt(f),
            Kind::Aimd(machine) => machine.fmt(f),
        }
    }
}

impl CallSettings {
    /// The defaults of the table above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn classifier(&self) -> &dyn Classify {
        self.classify.as_deref().unwrap_or(&HttpStatus)
    }

    fn set(mut self, set: impl FnOnce(&mut Self)) -> Self {
        set(&mut self);
        self
    }
}

impl Default for CallSettings {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            timeout: None,
            per_try: None,
            hedge: None,
            limits: None,
            adaptive: None,
            throttle: None,
            wait: Duration::from_secs(5),
            classify: None,
            key: None,
            subset: None,
            sticky: None,
            addresses: None,
            observer: None,
        }
    }
}

/// The setters, for every type that has a `set`. A macro, so that a
/// setting is written once and each integration shows it in its own docs.
macro_rules! setters {
    () => {
        /// How long a call may take in all: every attempt, every pause, and its
        /// body. When it is over, the call fails, or its body breaks off.
        #[must_use]
        pub fn timeout(self, timeout: std::time::Duration) -> Self {
            self.set(|settings| settings.timeout = Some(timeout))
        }

        /// How long an attempt may take until the head of its answer is there;
        /// then it is given up, and the call sent again if it may be.
        #[must_use]
        pub fn per_try_timeout(self, timeout: std::time::Duration) -> Self {
            self.set(|settings| settings.per_try = Some(timeout))
        }

        /// Sends late calls to a second endpoint too.
        #[must_use]
        pub fn hedge(self, hedge: crate::resilience::Hedge) -> Self {
            self.set(|settings| settings.hedge = Some(hedge))
        }

        /// Bounds what is under way at once.
        #[must_use]
        pub fn limits(self, limits: crate::resilience::Limits) -> Self {
            self.set(|settings| settings.limits = Some(limits))
        }

        /// Bounds the calls in flight by what the service bears, as
        /// [`Gradient2`](crate::resilience::Gradient2) or
        /// [`Aimd`](crate::resilience::Aimd) learn it.
        #[must_use]
        pub fn adaptive_limit(self, limit: impl Into<crate::client::Adaptive>) -> Self {
            self.set(|settings| settings.adaptive = Some(limit.into()))
        }

        /// Refuses calls here while the service rejects most of them.
        #[must_use]
        pub fn throttle(self, throttle: crate::resilience::Throttle) -> Self {
            self.set(|settings| settings.throttle = Some(throttle))
        }

        /// How long a call waits for the registry's first answer.
        #[must_use]
        pub fn wait(self, wait: std::time::Duration) -> Self {
            self.set(|settings| settings.wait = wait)
        }

        /// How outcomes are told.
        #[must_use]
        pub fn classify(self, classify: impl crate::client::Classify) -> Self {
            self.set(|settings| settings.classify = Some(std::sync::Arc::new(classify)))
        }

        /// Where the key of a call is found, for strategies that go by keys; none
        /// if not set.
        #[must_use]
        pub fn key(self, key: crate::client::http::RequestKey) -> Self {
            self.set(|settings| settings.key = Some(key))
        }

        /// Where the [subset](crate::PickOptions::subset) is found that a call
        /// names; none if not set. A [`Selector`](crate::topology::Selector)
        /// among a request's extensions goes before it.
        #[must_use]
        pub fn subset(self, subset: crate::client::http::RequestSubset) -> Self {
            self.set(|settings| settings.subset = Some(subset))
        }

        /// Keeps sessions at their endpoints by name; does not if not set.
        #[must_use]
        pub fn sticky(self, sticky: crate::client::http::Sticky) -> Self {
            self.set(|settings| settings.sticky = Some(sticky))
        }

        /// Which addresses calls may go to, whatever a registry says. To keep health
        /// checks and probes from others as well, leave those endpoints out by
        /// [`Map::allowed`](crate::registry::Map::allowed).
        #[must_use]
        pub fn addresses(self, policy: crate::endpoint::AddressPolicy) -> Self {
            self.set(|settings| settings.addresses = Some(policy))
        }

        /// Who is told of each call, beside those who are told already.
        #[must_use]
        pub fn observe(self, observer: impl crate::event::Observer) -> Self {
            self.set(|settings| {
                settings.observer = Some(match settings.observer.take() {
                    Some(others) => std::sync::Arc::new((others, observer)),
                    None => std::sync::Arc::new(observer),
                });
            })
        }
    };
    (with retry) => {
        /// What is sent again, to another endpoint.
        #[must_use]
        pub fn retry(self, retry: crate::resilience::Retry) -> Self {
            self.set(|settings| settings.retry = retry)
        }

        crate::client::settings::setters!();
    };
}

pub(super) use setters;

impl CallSettings {
    setters!(with retry);
}
