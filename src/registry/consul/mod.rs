//! Consul, over its HTTP API.
//!
//! **Problem.** A Consul agent tells who is there and how they are, and keeps an
//! entry for as long as its check passes. It is also restarted, loses its
//! leader, answers from the past, and forgets what was registered with it.
//!
//! **Idea.** Reading is a blocking query on `/v1/health/service`, by the index
//! rules of Consul's own documentation. An instance with a *critical* check is
//! left out, as Consul's DNS does, so that checks which lapse all at once (an
//! agent that was paused) are doubted as any other mass removal
//! ([`RemovalGuard`](super::RemovalGuard)); one in maintenance is
//! [`Status::Draining`], and *warning* has its warning weight. Writing is an entry at the agent with a check,
//! a TTL check by default, which this process passes for as long as it lives;
//! when the agent does not know the entry any more, it is entered again.
//!
//! ```no_run
//! use waypost::registry::consul::{Check, Consul};
//! use waypost::{Balancer, Endpoint, Registry};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), waypost::Error> {
//! let consul = Consul::builder("http://127.0.0.1:8500")
//!     .token("b1gs33cr3t")
//!     .check(Check::http("/health", Duration::from_secs(5)))
//!     .build()?;
//! let here = Endpoint::builder("10.0.0.1:8080").id("users-7").weight(2).build()?;
//! let registration = consul.register(&"users".parse()?, here).await?;
//!
//! let users = Balancer::builder("users").build(consul).await?;
//! println!("{}", users.pick()?.address());
//! registration.deregister().await?;
//! # Ok(()) }
//! ```
//!
//! # How an endpoint is written
//!
//! | endpoint | Consul |
//! | --- | --- |
//! | id | `Meta.waypost-id`; `ID` is the service's name, `:` and the id |
//! | address | `Address` and `Port` |
//! | weight | `Weights.Passing`, and `Meta.waypost-weight` where Consul takes no such number (0, above 65,535) |
//! | region, zone, sub-zone, priority, TLS name, authority | `Meta.waypost-…` |
//! | status | up: the check's. Others: `Meta.waypost-status`, the TTL check at *warning*, `Weights.Warning` 0 |
//! | metadata | `Meta`, under its own keys |
//!
//! An entry that others made has the id `node/ID` (Consul's ids are unique on
//! one agent only), the node's address where it has none of its own, its
//! `Weights`, `Locality` and `Meta`, and its tags, joined by commas, under the
//! metadata key `consul.tags`.
//!
//! # Traps
//!
//! - Where ACLs deny by default, a read without a token is answered with an
//!   empty list, not with an error.
//! - An agent takes at most 200 connections of one address
//!   (`http_max_conns_per_client`); each service that is watched holds one.
//! - Consul takes entries out at the earliest a minute after their check turned
//!   critical.

mod builder;
mod entry;
mod health;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::Method;

pub use builder::{Check, Consistency, ConsulBuilder};

use self::entry::Entry;
#[cfg(any(test, fuzzing))]
pub(crate) use self::health::fuzz;
use self::source::Health;
use super::announce::announce;
use super::follow::follow;
use super::http::{Ask, Servers};
use super::{Discover, Registration, Registry};
#[cfg(doc)]
use crate::endpoint::Status;
use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;

/// A registry in Consul.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct Consul {
    shared: Arc<Shared>,
}

/// What every watch and every registration needs.
struct Shared {
    servers: Arc<Servers>,
    settings: builder::Settings,
}

impl Consul {
    /// The agent at `url`, such as `http://127.0.0.1:8500`.
    pub fn builder(url: impl Into<String>) -> ConsulBuilder {
        ConsulBuilder::new(url.into())
    }
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consul").field(&self.shared.servers).finish()
    }
}

impl Discover for Consul {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        follow(Health::new(Arc::clone(&self.shared), service))
    }
}

impl Registry for Consul {
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

impl Shared {
    fn ask(&self, method: Method, path: String, within: Duration) -> Ask {
        let mut ask = Ask {
            method,
            path,
            body: bytes::Bytes::new(),
            like: Arc::default(),
            within,
        };
        if let Some(namespace) = &self.settings.namespace {
            let and = if ask.path.contains('?') { '&' } else { '?' };
            ask.path.push(and);
            ask.path.push_str("ns=");
            ask.path.push_str(&super::http::encoded(namespace));
        }
        ask
    }
}
