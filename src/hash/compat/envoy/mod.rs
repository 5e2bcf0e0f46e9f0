//! Envoy: the load balancing policies `ring_hash` and `maglev`, and gRPC's `ring_hash`.
//!
//! **What is hashed of a host.** The first of these that it has, as one string, which is the name
//! to build the table with:
//!
//! 1. the string `hash_key` in its metadata under `envoy.lb`, if it isn't empty,
//! 2. its hostname, if the cluster sets `use_hostname_for_hashing`,
//! 3. its address: `10.0.0.1:80` or `[2001:db8::1]:80`.
//!
//! **What is hashed of a request.** [`lookup_key`](EnvoyRing::lookup_key) takes the value of the one
//! header, cookie or query parameter of a route's hash policy, and hashes it with XXH64 as Envoy
//! does. Several policies without `terminal` are combined by Envoy: compute that hash and give it to
//! [`Table::lookup`](crate::hash::Table::lookup).
//!
//! ```yaml
//! lb_policy: RING_HASH                    # or MAGLEV
//! ring_hash_lb_config: { minimum_ring_size: 1024 }
//! # and in the route:
//! hash_policy: [{ header: { header_name: x-user } }]
//! ```
//!
//! is, for the same value of `x-user`:
//!
//! ```
//! use waypost::hash::compat::envoy::{EnvoyMaglev, EnvoyRing};
//!
//! let hosts = [("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 2)];
//! let ring = EnvoyRing::new(hosts)?;
//! assert_eq!(ring.lookup_key(b"user-7"), Some(2));
//! let maglev = EnvoyMaglev::new(hosts)?;
//! assert_eq!(maglev.lookup_key(b"user-7"), Some(1));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! # Hosts that are down
//!
//! Envoy has no unhealthy host in its table: when health changes it builds another one, from the
//! healthy hosts alone, with weights shared anew. To agree with it, **build again with weight 0 for
//! each unhealthy host**; the indices stay. If fewer than half are healthy (the panic threshold,
//! 50 % unless configured) Envoy builds from all of them, healthy or not.
//!
//! [`Table::find`](crate::hash::Table::find) on the full table is Envoy's other way: a retry with
//! the predicate `previous_hosts`, which tries the same table again for hosts that it did not try
//! yet.
//!
//! # Localities
//!
//! With `locality_weighted_lb_config`, localities have their keys by their weights, whatever hosts
//! they have: [`EnvoyRingBuilder::build_by_locality`] and [`EnvoyMaglev::by_locality`]. Give them in
//! Envoy's order, that of region, zone and sub-zone, the locality of Envoy itself before all others.
//! Without that setting the hosts of all localities are one list, in the assignment's order.
//!
//! # Limits
//!
//! - The order of the hosts is Envoy's: that of the assignment. The ring depends on it only where
//!   hosts don't get whole numbers of points (mixed weights, or a maximum that is reached); maglev
//!   not at all.
//! - Two hosts with the same string are an error here. Envoy shares keys out between them by what no
//!   document fixes: the leftovers of an unstable sort in the ring, memory addresses in maglev. Merge
//!   them into one host of their common weight, or give each a `hash_key` of its own.
//! - Of several priorities each has a table.
//! - `hash_balance_factor` (bounded load) depends on what is in flight within one Envoy, so only the
//!   host that it tries first can be the same.

mod grpc;
mod maglev;
mod ring;
mod shares;

pub use self::maglev::EnvoyMaglev;
pub use self::ring::{EnvoyHash, EnvoyRing, EnvoyRingBuilder};
