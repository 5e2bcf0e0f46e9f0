//! Consistent hashing: keys and weights in, the index of a node out.
//!
//! **The problem.** Many clients must send the same key to the same server without asking each
//! other, and when a server comes or goes only the keys it gains or loses should move: every other
//! move is a cache miss, or a shard to copy.
//!
//! **The idea.** Each table here maps a 64-bit hash to the index of a node, as a function of the
//! nodes' names and weights alone. Not of their order, of earlier changes, of the platform or of
//! the version: [`key_hash`] is fixed for ever. No I/O, no clock, no randomness, nothing async; the
//! tables are immutable, so readers never wait. They can be used without the rest of the crate.
//!
//! | table | lookup | shares, largest / mean | needless moves | weights | good for |
//! |---|---|---|---|---|---|
//! | [`HashRing`] | O(1), one cache line | 1.3 | none | yes | the default; replicas, zones |
//! | [`Maglev`] | O(1), one index | 1.01 | 0.6 % | yes | even shares, few changes |
//! | [`BlockHrw`] | O(1), 16 candidates | 1.08 | none while only health changes | no | thousands of nodes |
//! | [`MultiProbe`] | O(21) | 1.05 | none | small | many nodes, little memory |
//! | [`Rendezvous`] | O(nodes) | by chance only | none | yes | dozens of nodes |
//! | [`Jump`] | O(1), no memory | by chance only | none | no | numbered shards |
//!
//! All implement [`Table`], which also finds the next node when the owner is down, the same for
//! every client. [`BoundedLoad`] keeps a hot key from overloading its owner; [`ShardMap`] and
//! [`plan`] map shards to nodes and tell what a change moves.
//!
//! ```
//! use waypost::hash::{HashRing, key_hash};
//!
//! let ring = HashRing::new([("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 2)])?;
//! let hash = key_hash(b"session:42");
//! let owner = ring.lookup(hash);
//! let replicas: Vec<u32> = ring.replicas(hash, 3).collect();
//! assert_eq!(owner, Some(replicas[0]));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```

pub mod block_hrw;
pub mod bounded;
mod compact;
pub mod compat;
mod error;
pub mod jump;
pub mod key;
pub mod maglev;
pub mod multi_probe;
mod nodes;
pub mod rendezvous;
pub mod ring;
pub mod shard;
mod table;
mod xxh3;

pub use self::block_hrw::BlockHrw;
pub use self::bounded::BoundedLoad;
pub use self::error::TableError;
pub use self::jump::Jump;
pub use self::key::key_hash;
pub use self::maglev::Maglev;
pub use self::multi_probe::MultiProbe;
pub use self::rendezvous::Rendezvous;
pub use self::ring::{HashRing, HashRingBuilder, Replicas};
pub use self::shard::{Move, ShardMap, plan};
pub use self::table::Table;
