//! What a service is made of: its name, its endpoints, and sets of them.
//!
//! An [`Endpoint`] is one replica: an [`EndpointId`] that stays the same when
//! everything else changes, an [`Address`] to call, and what balancing wants to
//! know (weight, locality, priority, status, metadata). An [`EndpointSet`] is
//! what a registry tells at one moment: whole, immutable and ordered.
//!
//! All of these are checked when they are built, so that nothing below has to
//! check again.
//!
//! ```
//! use waypost::{Endpoint, EndpointSet};
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let blue = Endpoint::builder("10.0.0.1:8080")
//!     .id("users-blue")
//!     .weight(2)
//!     .zone("eu-1a")
//!     .metadata("version", "v2")
//!     .build()?;
//! let set = EndpointSet::new([blue, Endpoint::at("10.0.0.2:8080")?])?;
//! assert_eq!(set.len(), 2);
//!
//! let error = Endpoint::builder("10.0.0.1:0").build().unwrap_err();
//! assert!(error.to_string().contains("port"));
//! # Ok(()) }
//! ```

mod address;
mod builder;
mod locality;
mod name;
mod policy;
mod record;
mod set;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use address::Address;
pub use builder::EndpointBuilder;
pub use locality::Locality;
pub use name::{EndpointId, ServiceName};
pub use policy::AddressPolicy;
pub(crate) use set::merge;
pub use set::{Changed, Diff, EndpointSet, Skipped};

use crate::error::Error;

/// What an endpoint says of itself, or its registry of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Takes calls.
    #[default]
    Up,
    /// Finishes what it has and gets nothing new.
    Draining,
    /// Takes no calls.
    Down,
    /// Not ready yet.
    Starting,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Starting => "starting",
        })
    }
}

/// One replica of a service.
///
/// Built by [`Endpoint::builder`], or from an address alone by
/// [`Endpoint::at`]. Two endpoints are equal when all of their fields are;
/// whether they are *the same replica* is a matter of their [`EndpointId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    id: EndpointId,
    address: Address,
    weight: u32,
    locality: Locality,
    priority: u32,
    status: Status,
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    tls_name: Option<Arc<str>>,
    authority: Option<Arc<str>>,
}

impl Endpoint {
    /// The weight of an endpoint that does not say otherwise.
    pub const DEFAULT_WEIGHT: u32 = 1;

    /// Starts an endpoint at `address`: `host:port`, `ip:port`, `[ipv6]:port`
    /// or `unix:/path`. What was wrong is told by [`EndpointBuilder::build`].
    pub fn builder(address: impl Into<EndpointBuilder>) -> EndpointBuilder {
        address.into()
    }

    /// An endpoint with nothing but an address, which is its id too.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the address cannot be parsed.
    pub fn at(address: impl Into<EndpointBuilder>) -> Result<Self, Error> {
        Self::builder(address).build()
    }

    /// What this replica is known by, whatever else changes.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Where to call it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its share of the calls, relative to its neighbours'; 0 drains it.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Where it runs.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// Its priority level: 0 is used first, a higher number as far as what is
    /// well of the lower ones does not suffice
    /// ([`topology::priority`](crate::topology::priority)).
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// What it says of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Free-form facts about it, ordered by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        &self.metadata
    }

    /// The name that its TLS certificate is checked against, where that is not
    /// the service's own.
    #[must_use]
    pub fn tls_name(&self) -> Option<&str> {
        self.tls_name.as_deref()
    }

    /// The authority (`Host`, `:authority`) that calls to it carry, where that
    /// is not the one the caller wrote.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Whether new calls may go to it at all: it is up and has weight.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.status == Status::Up && self.weight > 0
    }

    /// The same replica with another weight; 0 drains it.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The same replica with another status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.as_str() == self.address.as_str() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{} ({})", self.id, self.address)
        }
    }
}
