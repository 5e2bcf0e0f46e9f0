//! The crate's one error: opaque, cheap to clone, and asked with predicates.
//!
//! A load balancer fails in few ways, but each asks for something else of its
//! caller: a set that is *not known yet* asks for a little patience, an *empty*
//! one for an operator, one whose endpoints were *all tried* for giving up.
//! [`Error`] keeps them apart ([`Error::is_not_known_yet`] and its siblings),
//! names the service, and carries the [`Counts`] that explain the decision.
//!
//! ```
//! use waypost::{Balancer, EndpointSet};
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let (users, mut updater) = Balancer::builder("users").manual()?;
//! assert!(users.pick().unwrap_err().is_not_known_yet());
//!
//! updater.apply(EndpointSet::empty());
//! let error = users.pick().unwrap_err();
//! assert!(error.is_empty());
//! assert_eq!(error.service(), Some("users"));
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, for which service, and what to do about it.
///
/// The kind is asked with the `is_*` predicates; the text says what happened,
/// where, and what to do. Cloning bumps a reference count.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum Inner {
    #[error("{field}: `{value}` is refused: {reason}")]
    Invalid {
        field: &'static str,
        value: String,
        reason: String,
    },
    #[cfg_attr(
        not(feature = "config"),
        expect(dead_code, reason = "only configurations have keys")
    )]
    #[error("configuration: {path}: {reason}")]
    Config { path: String, reason: String },
    #[error(
        "service `{service}`: its endpoints are not known yet: the registry has not answered; \
         wait with `Balancer::ready` or try again"
    )]
    NotKnownYet { service: Arc<str> },
    #[error(
        "service `{service}`: discovery failed before any endpoint was known ({source}); \
         it is being retried"
    )]
    DiscoveryFailed { service: Arc<str>, source: Error },
    #[error(
        "service `{service}`: the registry answered that it has no endpoints; \
         check that an instance is registered under this very name"
    )]
    Empty { service: Arc<str> },
    #[error(
        "service `{service}`: none of its endpoints may be picked now ({counts}); \
         wait for one to come up, or check its status and weight in the registry"
    )]
    NoneEligible { service: Arc<str>, counts: Counts },
    #[error(
        "service `{service}`: none of the endpoints with {subset} may be picked now ({counts}); \
         name another part of the split, or set another fallback for it"
    )]
    NoneOfSubset {
        service: Arc<str>,
        subset: String,
        counts: Counts,
    },
    #[error(
        "service `{service}`: this call has tried every endpoint that may be picked ({counts}); \
         give up, or start a new call"
    )]
    AllTried { service: Arc<str>, counts: Counts },
    #[error(
        "service `{service}`: its strategy picked none of the endpoints it may pick ({counts}); \
         a strategy of your own must return a position within its view"
    )]
    Declined { service: Arc<str>, counts: Counts },
    #[error("service `{service}`: no endpoint became ready within {within:?}: {source}")]
    NotReady {
        service: Arc<str>,
        within: Duration,
        source: Error,
    },
    #[error("{origin}: {reason}")]
    Registry {
        origin: String,
        reason: String,
        #[source]
        source: Option<Source>,
    },
    #[error(
        "{what} needs a Tokio runtime: call it inside one (`#[tokio::main]`), or use \
         `BalancerBuilder::manual` and drive the updates yourself"
    )]
    NoRuntime { what: &'static str },
    #[error("{what}: the limit of {limit} is reached; {advice}")]
    Limit {
        what: &'static str,
        limit: usize,
        advice: &'static str,
    },
    #[error("cannot balance a call to `{target}`: {reason}")]
    Unroutable { target: String, reason: String },
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only clients time calls")
    )]
    #[error(
        "service `{service}`: the {what} of {after:?} is over; the endpoint is slow or gone; \
         raise the timeout if such calls take that long"
    )]
    TimedOut {
        service: Arc<str>,
        what: &'static str,
        after: Duration,
    },
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only clients refuse calls")
    )]
    #[error("service `{service}`: the call was refused before it was sent: {reason}")]
    Overloaded {
        service: Arc<str>,
        reason: &'static str,
    },
}

impl Error {
    /// An error about a value that was refused: which field, what it held, and
    /// why, with what would be taken instead. For implementors of registries
    /// and strategies.
    pub fn invalid(
        field: &'static str,
        value: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> Self {
        Inner::Invalid {
            field,
            value: value.to_string(),
            reason: reason.to_string(),
        }
        .into()
    }

    #[cfg(feature = "config")]
    pub(crate) fn config(path: impl Into<String>, reason: impl fmt::Display) -> Self {
        Inner::Config {
            path: path.into(),
            reason: reason.to_string(),
        }
        .into()
    }

    /// The field that a builder refused.
    #[cfg(all(
        feature = "config",
        any(
            feature = "consul",
            feature = "etcd",
            feature = "eureka",
            feature = "zookeeper"
        )
    ))]
    pub(crate) fn field(&self) -> Option<&'static str> {
        match &*self.inner {
            Inner::Invalid { field, .. } => Some(field),
            _ => None,
        }
    }

    /// What a builder refused, with the path of the key that said so: the last
    /// part of the field, in that section of a configuration.
    #[cfg(feature = "config")]
    pub(crate) fn within(self, section: &str) -> Self {
        let Inner::Invalid {
            field,
            value,
            reason,
        } = &*self.inner
        else {
            return self;
        };
        let key = field.rsplit('.').next().unwrap_or(field);
        let path = if section.is_empty() {
            key.to_owned()
        } else {
            format!("{section}.{key}")
        };
        Self::config(path, format!("`{value}` is refused: {reason}"))
    }

    /// An error of a registry: where it happened (`origin`, such as
    /// `consul http://127.0.0.1:8500`) and what was wrong. For implementors of
    /// [`Discover`](crate::Discover) and [`Registry`](crate::Registry).
    ///
    /// Secrets do not belong in either text.
    pub fn registry(origin: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Inner::Registry {
            origin: origin.to_string(),
            reason: reason.to_string(),
            source: None,
        }
        .into()
    }

    /// As [`Error::registry`], with the error that caused it as the
    /// [`source`](std::error::Error::source).
    pub fn registry_because(
        origin: impl fmt::Display,
        reason: impl fmt::Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Inner::Registry {
            origin: origin.to_string(),
            reason: reason.to_string(),
            source: Some(Arc::new(source)),
        }
        .into()
    }

    pub(crate) fn not_known_yet(service: &Arc<str>) -> Self {
        let service = Arc::clone(service);
        Inner::NotKnownYet { service }.into()
    }

    pub(crate) fn discovery_failed(service: &Arc<str>, source: Error) -> Self {
        let service = Arc::clone(service);
        Inner::DiscoveryFailed { service, source }.into()
    }

    pub(crate) fn empty(service: &Arc<str>) -> Self {
        let service = Arc::clone(service);
        Inner::Empty { service }.into()
    }

    pub(crate) fn none_eligible(service: &Arc<str>, counts: Counts) -> Self {
        let service = Arc::clone(service);
        Inner::NoneEligible { service, counts }.into()
    }

    pub(crate) fn none_of_subset(
        service: &Arc<str>,
        subset: impl fmt::Display,
        counts: Counts,
    ) -> Self {
        let (service, subset) = (Arc::clone(service), subset.to_string());
        Inner::NoneOfSubset {
            service,
            subset,
            counts,
        }
        .into()
    }

    pub(crate) fn all_tried(service: &Arc<str>, counts: Counts) -> Self {
        let service = Arc::clone(service);
        Inner::AllTried { service, counts }.into()
    }

    pub(crate) fn declined(service: &Arc<str>, counts: Counts) -> Self {
        let service = Arc::clone(service);
        Inner::Declined { service, counts }.into()
    }

    pub(crate) fn not_ready(service: &Arc<str>, within: Duration, source: Error) -> Self {
        let service = Arc::clone(service);
        Inner::NotReady {
            service,
            within,
            source,
        }
        .into()
    }

    pub(crate) fn no_runtime(what: &'static str) -> Self {
        Inner::NoRuntime { what }.into()
    }

    pub(crate) fn limit(what: &'static str, limit: usize, advice: &'static str) -> Self {
        Inner::Limit {
            what,
            limit,
            advice,
        }
        .into()
    }

    /// An error about a call that cannot be balanced as it is: what it was for,
    /// and why. For implementors of client integrations.
    pub fn unroutable(target: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Inner::Unroutable {
            target: target.to_string(),
            reason: reason.to_string(),
        }
        .into()
    }

    #[cfg(feature = "http")]
    pub(crate) fn timed_out(service: &Arc<str>, what: &'static str, after: Duration) -> Self {
        Inner::TimedOut {
            service: Arc::clone(service),
            what,
            after,
        }
        .into()
    }

    #[cfg(feature = "http")]
    pub(crate) fn overloaded(service: &Arc<str>, reason: &'static str) -> Self {
        let service = Arc::clone(service);
        Inner::Overloaded { service, reason }.into()
    }

    /// A value was refused when something was built. Nothing has changed;
    /// trying again with the same value fails again.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(*self.inner, Inner::Invalid { .. } | Inner::Config { .. })
    }

    /// The registry has not answered yet: neither a set nor an error.
    #[must_use]
    pub fn is_not_known_yet(&self) -> bool {
        self.any(|inner| matches!(inner, Inner::NotKnownYet { .. }))
    }

    /// The registry failed before it ever told a set. Once a set is known, an
    /// error of the registry never fails a pick.
    #[must_use]
    pub fn is_discovery_failed(&self) -> bool {
        self.any(|inner| matches!(inner, Inner::DiscoveryFailed { .. }))
    }

    /// The registry answered, and its answer is that there are no endpoints.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.any(|inner| matches!(inner, Inner::Empty { .. }))
    }

    /// There are endpoints, but none may be picked: all are draining, down,
    /// starting, or of weight 0.
    #[must_use]
    pub fn is_none_eligible(&self) -> bool {
        self.any(|inner| {
            matches!(
                inner,
                Inner::NoneEligible { .. } | Inner::NoneOfSubset { .. }
            )
        })
    }

    /// The call has tried every endpoint that may be picked.
    #[must_use]
    pub fn is_all_tried(&self) -> bool {
        matches!(*self.inner, Inner::AllTried { .. })
    }

    /// A strategy returned no endpoint though the call had tried none.
    #[must_use]
    pub fn is_declined(&self) -> bool {
        matches!(*self.inner, Inner::Declined { .. })
    }

    /// Waiting for an endpoint took longer than the caller allowed; the other
    /// predicates tell what the state was when the time was up.
    #[must_use]
    pub fn is_not_ready(&self) -> bool {
        matches!(*self.inner, Inner::NotReady { .. })
    }

    /// A registry could not be read, or refused what was asked of it.
    #[must_use]
    pub fn is_registry(&self) -> bool {
        self.any(|inner| matches!(inner, Inner::Registry { .. }))
    }

    /// A request cannot be balanced as it is, such as one without a host.
    #[must_use]
    pub fn is_unroutable(&self) -> bool {
        matches!(*self.inner, Inner::Unroutable { .. })
    }

    /// An attempt, or the whole call, took longer than its settings allow.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(*self.inner, Inner::TimedOut { .. })
    }

    /// The call was refused here, before it was sent, because its service is
    /// overloaded: by a limit on what may be in flight, or by client-side
    /// throttling.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        matches!(*self.inner, Inner::Overloaded { .. })
    }

    /// Whether the same call may succeed later without anything being mended
    /// by hand: true for everything that hangs on the registry's or the
    /// endpoints' state.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !self.is_invalid()
            && !matches!(
                *self.inner,
                Inner::NoRuntime { .. } | Inner::Unroutable { .. }
            )
    }

    /// The service the error is about, where it is about one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match &*self.inner {
            Inner::NotKnownYet { service }
            | Inner::DiscoveryFailed { service, .. }
            | Inner::Empty { service }
            | Inner::NoneEligible { service, .. }
            | Inner::NoneOfSubset { service, .. }
            | Inner::AllTried { service, .. }
            | Inner::Declined { service, .. }
            | Inner::NotReady { service, .. }
            | Inner::TimedOut { service, .. }
            | Inner::Overloaded { service, .. } => Some(service),
            _ => None,
        }
    }

    /// How many endpoints were known, and why they could not be picked, where
    /// the error is a failed pick.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        match &*self.inner {
            Inner::NoneEligible { counts, .. }
            | Inner::NoneOfSubset { counts, .. }
            | Inner::AllTried { counts, .. }
            | Inner::Declined { counts, .. } => Some(*counts),
            Inner::NotReady { source, .. } => source.counts(),
            Inner::Empty { .. } => Some(Counts::default()),
            _ => None,
        }
    }

    /// Tests this error and those it wraps.
    fn any(&self, test: impl Fn(&Inner) -> bool) -> bool {
        let mut error = self;
        loop {
            if test(&error.inner) {
                return true;
            }
            match &*error.inner {
                Inner::NotReady { source, .. } | Inner::DiscoveryFailed { source, .. } => {
                    error = source;
                }
                _ => return false,
            }
        }
    }
}

impl From<Inner> for Error {
    fn from(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

/// A text from outside, for a message: on one line, and of no more than so many
/// characters, of which those in the middle are left out.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let count = text.chars().count();
    let (head, tail) = if count > most {
        (most - most / 3, most / 3)
    } else {
        (count, 0)
    };
    let cut = (count > most).then_some('…');
    let shown = text.chars().take(head).chain(cut);
    shown
        .chain(text.chars().skip(count - tail))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// How many endpoints a service has, by what keeps them from being picked.
///
/// Each endpoint is counted once, in the first column that fits, in the order
/// of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Endpoints in the set.
    pub known: usize,
    /// Endpoints that announced that they are leaving.
    pub draining: usize,
    /// Endpoints that are down.
    pub down: usize,
    /// Endpoints that are not ready yet.
    pub starting: usize,
    /// Endpoints that are up but have weight 0.
    pub weightless: usize,
    /// Endpoints that are ejected because calls to them fail.
    pub ejected: usize,
    /// Endpoints that fail their health check.
    pub failing: usize,
    /// Endpoints that may be picked.
    pub eligible: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} known", self.known)?;
        for (count, what) in [
            (self.eligible, "eligible"),
            (self.draining, "draining"),
            (self.down, "down"),
            (self.starting, "starting"),
            (self.weightless, "of weight 0"),
            (self.ejected, "ejected"),
            (self.failing, "failing their check"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_line_and_keeps_both_ends() {
        assert_eq!(excerpt("as\nit is", 8), "as it is");
        assert_eq!(excerpt("", 8), "");
        let long = format!("begin{}end", "ä".repeat(10_000));
        assert_eq!(excerpt(&long, 9), "beginä…end");
    }
}
