//! Endpoints from DNS: A and AAAA records with a port that is known, or SRV
//! records, which bring port, priority and weight.
//!
//! DNS tells nobody of a change, so it is asked again when an answer's time to
//! live is over, within bounds, and not in step with others. What it fails to
//! tell is not taken for "nothing": servers that fail or hang leave the last
//! good set standing for up to a day (RFC 8767 has one to three), and "no such
//! name" leaves it for half a minute, since that is what a zone says while it
//! is being replaced.
//!
//! ```no_run
//! use waypost::Balancer;
//! use waypost::registry::Dns;
//!
//! # async fn example() -> Result<(), waypost::Error> {
//! // Kubernetes: a headless service with a named port.
//! let dns = Dns::srv("_http._tcp.{service}.default.svc.cluster.local").build()?;
//! let users = Balancer::builder("users").build(dns).await?;
//!
//! // A name with several addresses.
//! let dns = Dns::addresses("{service}.internal.example.org", 8080).build()?;
//! # Ok(()) }
//! ```

mod builder;
mod lookup;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

pub use self::builder::{DnsBuilder, Families};
use self::lookup::Lookup;
use self::source::{DnsSource, Name};
use super::Discover;
use super::follow::follow;
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;

/// The registry of DNS. Clones share everything; watchers of one name share
/// its queries.
#[derive(Clone)]
pub struct Dns {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Arc<Lookup>,
    pattern: String,
    names: Mutex<HashMap<ServiceName, Arc<Name>>>,
}

impl Dns {
    /// Resolves the A and AAAA records of `pattern`, in which `{service}`
    /// stands for the service's name; the endpoints listen on `port`.
    ///
    /// The name is taken as complete: resolv.conf's search list is not used.
    pub fn addresses(pattern: impl Into<String>, port: u16) -> DnsBuilder {
        DnsBuilder::new(pattern.into(), Some(port))
    }

    /// Resolves the SRV records of `pattern`, in which `{service}` stands for
    /// the service's name.
    ///
    /// A record's priority becomes the endpoint's, and its weight, too. Weight
    /// 0 means "hardly ever" beside others (RFC 2782), and not "never": it
    /// counts as a hundredth of weight 1. Its target becomes the authority, and
    /// each address of the target an endpoint with the record's weight.
    pub fn srv(pattern: impl Into<String>) -> DnsBuilder {
        DnsBuilder::new(pattern.into(), None)
    }
}

impl Discover for Dns {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let written = self.shared.pattern.replace("{service}", service.as_str());
        let name = match Name::new(&written) {
            Ok(name) => {
                let names = self.shared.names.lock();
                let mut names = names.unwrap_or_else(PoisonError::into_inner);
                // Names that nobody watches any more.
                names.retain(|_, name| Arc::strong_count(name) > 1);
                let name = names
                    .entry(service.clone())
                    .or_insert_with(|| Arc::new(name));
                Arc::clone(name)
            }
            // Whatever is asked for later, this name stays wrong.
            Err(error) => {
                return stream::once(async { Err(error) })
                    .chain(stream::pending())
                    .boxed();
            }
        };
        follow(DnsSource::new(Arc::clone(&self.shared.lookup), name))
    }

    /// Asks for a service again now, and not when its answer's time is over; at
    /// most once a second. All watchers get the answer.
    fn look_again(&self, service: &ServiceName) {
        let names = self.shared.names.lock();
        if let Some(name) = names.unwrap_or_else(PoisonError::into_inner).get(service) {
            name.hint();
        }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("pattern", &self.shared.pattern)
            .finish_non_exhaustive()
    }
}
