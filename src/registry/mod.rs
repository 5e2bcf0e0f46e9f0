//! Where endpoints come from, and how they get there.
//!
//! Reading and announcing are two traits, so that a source that can only be
//! read (DNS, a file, a fixed list) cannot be asked to register at run time.
//! [`Discover`] tells sets; [`Registry`] takes entries, too. Both are
//! dyn-compatible: a service chooses its registry by configuration.
//!
//! Here are the two that need no server: [`InMemory`], shared by all who hold a
//! handle to it, and [`Fixed`], a list.
//!
//! # Three kinds of nothing
//!
//! - *Not known yet*: the stream has yielded nothing.
//! - *Empty*: it yielded `Ok` of an empty set. A real answer.
//! - *Failed*: it yielded `Err`. Never taken for an empty set.
//!
//! # A registry of your own
//!
//! Implement the traits, and run the contract suite of the `testing` module
//! (feature `testing`) on it: the same that ours pass.

#[cfg(any(
    test,
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod announce;
mod compose;
#[cfg(feature = "consul")]
#[cfg_attr(docsrs, doc(cfg(feature = "consul")))]
pub mod consul;
#[cfg(any(feature = "consul", feature = "eureka"))]
mod difference;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "etcd")]
#[cfg_attr(docsrs, doc(cfg(feature = "etcd")))]
pub mod etcd;
#[cfg(feature = "eureka")]
#[cfg_attr(docsrs, doc(cfg(feature = "eureka")))]
pub mod eureka;
#[cfg(feature = "file")]
mod file;
mod fixed;
#[cfg(any(
    test,
    feature = "consul",
    feature = "dns",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod follow;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
#[cfg(any(feature = "consul", feature = "eureka"))]
mod http;
mod memory;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod record;
mod registration;
#[cfg(feature = "snapshot")]
mod snapshot;
#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "zookeeper"
))]
mod tls;
#[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
mod transport;
#[cfg(feature = "zookeeper")]
#[cfg_attr(docsrs, doc(cfg(feature = "zookeeper")))]
pub mod zookeeper;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use compose::{Fallback, Map, Merge};
#[cfg(feature = "consul")]
#[cfg_attr(docsrs, doc(cfg(feature = "consul")))]
pub use consul::Consul;
#[cfg(feature = "dns")]
pub use dns::{Dns, DnsBuilder, Families};
#[cfg(feature = "etcd")]
#[cfg_attr(docsrs, doc(cfg(feature = "etcd")))]
pub use etcd::Etcd;
#[cfg(feature = "eureka")]
#[cfg_attr(docsrs, doc(cfg(feature = "eureka")))]
pub use eureka::Eureka;
#[cfg(feature = "file")]
pub use file::File;
pub use fixed::Fixed;
pub(crate) use guard::Guard;
pub use guard::RemovalGuard;
pub use memory::{Heartbeat, InMemory, Lease};
pub use registration::{Keeper, Registration, RegistrationState};
#[cfg(feature = "snapshot")]
pub use snapshot::Snapshotted;
#[cfg(feature = "zookeeper")]
#[cfg_attr(docsrs, doc(cfg(feature = "zookeeper")))]
pub use zookeeper::ZooKeeper;

use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;

/// What `Duration::MAX` means: longer than any process lives, and no sum of it
/// and a moment overflows.
const FOR_EVER: Duration = Duration::from_hours(24 * 365 * 100);

/// A source of endpoint sets.
pub trait Discover: Send + Sync + 'static {
    /// Follows a service.
    ///
    /// The stream yields whole sets, each the successor of the one before
    /// ([`EndpointSet::next`]), so that unchanged endpoints are shared: the
    /// first as soon as the state is known, and one after each change. Between
    /// changes it is pending. A slow reader may miss sets in between, never the
    /// last.
    ///
    /// An `Err` says that the source fails; it does not end the stream, which
    /// goes on trying, with jittered exponential backoff, for as long as it is
    /// polled. Dropping the stream ends the interest.
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>>;

    /// Whether its answers are never doubted ([`RemovalGuard`]): it is the
    /// truth, not somebody's knowledge of it. Only what lives in this process,
    /// or is written by hand, can say so.
    fn is_authoritative(&self) -> bool {
        false
    }

    /// A hint that calls to the service's endpoints fail, so that what was told
    /// of them may be old: those who ask from time to time ask now.
    ///
    /// A balancer gives it when calls to an endpoint fail in a row, at most once
    /// a second. It is cheap and never waits; a source that is told of changes
    /// has nothing to do. Sources around others hand it on.
    fn look_again(&self, _service: &ServiceName) {}
}

/// A source that takes entries, too.
pub trait Registry: Discover {
    /// Enters an endpoint, or replaces the entry that has its id.
    ///
    /// The [`Registration`] keeps the entry alive until it is deregistered or
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the registry refuses or cannot be reached;
    /// nothing is entered then.
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>>;
}

macro_rules! deref {
    ($pointer:ident) => {
        impl<T: Discover + ?Sized> Discover for $pointer<T> {
            fn watch(
                &self,
                service: &ServiceName,
            ) -> BoxStream<'static, Result<EndpointSet, Error>> {
                (**self).watch(service)
            }

            fn is_authoritative(&self) -> bool {
                (**self).is_authoritative()
            }

            fn look_again(&self, service: &ServiceName) {
                (**self).look_again(service);
            }
        }

        impl<T: Registry + ?Sized> Registry for $pointer<T> {
            fn register<'a>(
                &'a self,
                service: &'a ServiceName,
                endpoint: Endpoint,
            ) -> BoxFuture<'a, Result<Registration, Error>> {
                (**self).register(service, endpoint)
            }
        }
    };
}

deref!(Arc);
deref!(Box);
