//! etcd, over its gRPC API.
//!
//! **Problem.** An etcd cluster tells every change at once, and an entry lives
//! as long as the lease it hangs on. Watches break off, are cancelled, and find
//! that what they ask for was compacted away; leases end while a process is
//! alive, when it is paused or cut off for longer than they last. Many clients,
//! etcd's own in Go among them, stop there for good.
//!
//! **Idea.** Reading is a range of the service's keys and a watch from the next
//! revision on. A watch that broke off goes on after the last revision it saw
//! and is checked against everything within ten seconds; one that was compacted
//! away, and one in a cluster that went back in time, begins anew with
//! everything. Where no leader answers, a member is asked for what it has.
//! Writing is a key on a lease that is renewed three times in its time to live;
//! when the lease is gone, there is a new one, and the key is put again, for as
//! long as the process lives.
//!
//! ```no_run
//! use waypost::registry::etcd::Etcd;
//! use waypost::{Balancer, Endpoint, Registry};
//!
//! # async fn example() -> Result<(), waypost::Error> {
//! let etcd = Etcd::builder("http://10.0.0.1:2379")
//!     .endpoint("http://10.0.0.2:2379")
//!     .endpoint("http://10.0.0.3:2379")
//!     .user("waypost", "s3cret")
//!     .build()?;
//! let here = Endpoint::builder("10.0.0.7:8080").weight(2).build()?;
//! let registration = etcd.register(&"users".parse()?, here).await?;
//!
//! let users = Balancer::builder("users").build(etcd).await?;
//! println!("{}", users.pick()?.address());
//! registration.deregister().await?;
//! # Ok(()) }
//! ```
//!
//! # How an endpoint is written
//!
//! The key is the prefix, the service, `/` and the id, as it is. The value is
//! by default what etcd's Go client calls an endpoint ([`Layout::Grpc`]), so
//! that a Go program which dials `etcd:///users` calls ours, and we call what
//! it registered:
//!
//! | endpoint | value |
//! | --- | --- |
//! | address | `Addr` |
//! | metadata | `Metadata`, under its own keys |
//! | weight, locality, priority, status, TLS name, authority | `Metadata.waypost`, where they are not the default |
//!
//! Others' metadata is taken where it is an object; values that are no texts are
//! kept as JSON. [`Layout::Plain`] is the endpoint's own record.
//!
//! # Traps
//!
//! - etcd makes a lease last one and a half election timeouts at least, and
//!   every lease begins anew when another leader is elected: an entry of a
//!   process that died may stay for twice its time to live.
//! - A key that is written into a service's range by mistake is skipped and
//!   counted ([`EndpointSet::skipped`]).
//! - Go clients read a prefix: an id with a `/` in it is in the service of
//!   whatever stands before that, too, to them and to us.
//! - The role of a user needs `readwrite` for the prefix; a lease needs none.
//!
//! # On tonic
//!
//! The crate `etcd-client` generates its code with `protoc` when it is built,
//! which a machine with nothing but a Rust toolchain lacks. The six calls that
//! discovery needs are fifteen messages; they stand in `wire.rs`, and tonic
//! carries them.

mod builder;
mod connect;
mod entry;
mod layout;
mod servers;
mod source;
mod table;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// What is parsed here.
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    pub(crate) use super::layout::fuzz::value;
    pub(crate) use super::table::fuzz::answer;
}

pub use builder::EtcdBuilder;
pub use layout::Layout;

use self::entry::Entry;
use self::servers::Servers;
use self::source::Reader;
use super::announce::announce;
use super::follow::follow;
use super::{Discover, Registration, Registry};
use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;

/// A registry in etcd.
///
/// Clones share their connections, which are made when they are needed.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

/// What every watch and every registration needs.
struct Shared {
    servers: Servers,
    layout: Layout,
    prefix: String,
    ttl: Duration,
    max_bytes: usize,
}

impl Etcd {
    /// The member at `url`, such as `http://127.0.0.1:2379`.
    pub fn builder(url: impl Into<String>) -> EtcdBuilder {
        EtcdBuilder::new(url.into())
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Etcd").field(&self.shared.servers).finish()
    }
}

impl Discover for Etcd {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        follow(Reader::new(Arc::clone(&self.shared), service))
    }
}

impl Registry for Etcd {
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
