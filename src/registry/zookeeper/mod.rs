//! ZooKeeper, as Curator's service discovery and Spring Cloud lay it out.
//!
//! **Problem.** An entry is a node that ends with its session, and sessions
//! expire while a process lives: when it is paused, cut off, or when its
//! ensemble was away for longer than they last. A watch is good for one event
//! and one connection, so that who sets it late or on the wrong one is told
//! nothing, for good. And an ensemble that was restored from a backup refuses
//! every client that has seen more than it knows.
//!
//! **Idea.** All watches and registrations of a [`ZooKeeper`] share one
//! session. A connection that breaks off is made again at another server within
//! the session's time; after that there is a new session, with nothing that the
//! old one knew. Each look at a node sets its watch, and after every break all
//! is looked at again. An entry looks after its node three times in the
//! session's time, and enters it again when it is gone or an older session's.
//!
//! ```no_run
//! use waypost::registry::ZooKeeper;
//! use waypost::{Balancer, Endpoint, Registry};
//!
//! # async fn example() -> Result<(), waypost::Error> {
//! let zookeeper = ZooKeeper::builder("10.0.0.1:2181")
//!     .server("10.0.0.2:2181")
//!     .server("10.0.0.3:2181")
//!     .base_path("/services")
//!     .build()?;
//! let here = Endpoint::builder("10.0.0.7:8080").weight(2).build()?;
//! let registration = zookeeper.register(&"users".parse()?, here).await?;
//!
//! let users = Balancer::builder("users").build(zookeeper).await?;
//! println!("{}", users.pick()?.address());
//! registration.deregister().await?;
//! # Ok(()) }
//! ```
//!
//! # How an endpoint is written
//!
//! As a `ServiceInstance` of Curator's `x-discovery`, in JSON, at
//! `/services/users/ID`:
//!
//! | endpoint | field |
//! | --- | --- |
//! | id | `id`, and the node's name with what ZooKeeper refuses in it as `%XX` |
//! | address | `address` and `port` |
//! | status other than up | `enabled` is false |
//! | metadata | `payload.metadata`, as Spring Cloud has it |
//! | weight, locality, priority, status, TLS name, authority | `payload.waypost`, where they are not the default |
//!
//! Without any of the last two the payload is null, which Curator needs for a
//! `ServiceDiscovery<Void>`. Others' payload is taken as metadata where it is
//! an object; an instance that is not enabled drains; one without a port is
//! taken at its `sslPort`.
//!
//! # Traps
//!
//! - The server decides how long a session lasts: 2 to 20 of its ticks.
//! - A server that has lost its quorum answers nothing, reads included.
//! - Nodes above the entries are containers, which ZooKeeper takes away some
//!   time after they became empty; it has them since 3.5.
//! - What is malformed is skipped and counted ([`EndpointSet::skipped`]).
//!
//! # On tokio
//!
//! The crate `zookeeper-client` brings a reactor and a thread pool of its own
//! into the process, and TLS that needs `aws-lc`. The protocol is length,
//! number, and a dozen kinds of requests; it stands in `wire.rs`.

mod builder;
mod connection;
mod entry;
mod layout;
mod session;
mod socket;
mod source;
mod watchers;
mod wire;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// What is parsed here.
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    pub(crate) use super::layout::fuzz::node;
    pub(crate) use super::wire::fuzz::messages;
}

pub use builder::ZooKeeperBuilder;

use self::entry::Entry;
use self::session::Session;
use self::source::Reader;
use super::announce::announce;
use super::follow::follow;
use super::{Discover, Registration, Registry};
use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;

/// A registry in ZooKeeper.
///
/// Clones share their session, which begins when it is needed and ends with the
/// last of them, of their watches and of their registrations.
#[derive(Clone)]
pub struct ZooKeeper {
    shared: Arc<Shared>,
}

/// What every watch and every registration needs.
struct Shared {
    session: Session,
    /// The path of the node that services are under; nothing for the root.
    base: String,
}

impl ZooKeeper {
    /// The ensemble that the server at `host:port` belongs to, such as
    /// `127.0.0.1:2181`.
    pub fn builder(server: impl Into<String>) -> ZooKeeperBuilder {
        ZooKeeperBuilder::new(server.into())
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("servers", &self.shared.session.settings().servers)
            .field("base_path", &self.shared.base)
            .finish_non_exhaustive()
    }
}

impl Discover for ZooKeeper {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        follow(Reader::new(Arc::clone(&self.shared), service))
    }
}

impl Registry for ZooKeeper {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        async move {
            let entry = Entry::new(Arc::clone(&self.shared), service, &endpoint)?;
            announce(entry, service, endpoint).await
        }
        .boxed()
    }
}
