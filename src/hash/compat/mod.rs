//! Tables that pick the same server as nginx, Envoy, gRPC, HAProxy and libmemcached do, byte for
//! byte.
//!
//! **The problem.** A fleet of caches sits behind a proxy that hashes: each key is warm on one
//! server. A client that starts to hash by itself, with another function or another ring, asks the
//! wrong server for nearly every key, and each server fills with a second copy of everything. So
//! nobody moves one client at a time, and nobody dares to move all at once.
//!
//! **The idea.** Hash as the proxy does. With the same hosts, weights and keys, these tables give
//! the answers that the proxy gives, so clients can leave it one by one, and go back to it, and no
//! key changes its server:
//!
//! 1. Build the table from what stands in the proxy's configuration, and compare for a while: ask the
//!    table for each key and count where the proxy went elsewhere (its access log or a response
//!    header names the upstream).
//! 2. Send the first client's requests to the table's choice. Its keys are warm where it asks.
//! 3. Move the others. When the proxy serves nobody, [`HashRing`](super::HashRing) is faster and
//!    moves fewer keys when weights change; moving to it costs one refill, at a time of your choice.
//!
//! | proxy | setting | table |
//! |---|---|---|
//! | nginx | `hash KEY consistent` | [`NginxRing`](nginx::NginxRing) |
//! | Envoy | `ring_hash`, XXH64 or murmur | [`EnvoyRing`](envoy::EnvoyRing) |
//! | Envoy | `maglev` | [`EnvoyMaglev`](envoy::EnvoyMaglev) |
//! | gRPC | `ring_hash_experimental` | [`EnvoyRing`](envoy::EnvoyRing), [capped](envoy::EnvoyRingBuilder::capped_as_in_grpc) |
//! | HAProxy | `hash-type consistent` | [`HaproxyRing`](haproxy::HaproxyRing) |
//! | libmemcached | weighted ketama | [`KetamaRing`](ketama::KetamaRing) |
//! | libketama | | [`KetamaRing::libketama`](ketama::KetamaRing::libketama) |
//!
//! All are a [`Table`](super::Table), so whatever takes one takes these. Each module says what its
//! proxy hashes, what it does when a server is down, and what no table can match.
//!
//! ```
//! use waypost::hash::Table;
//! use waypost::hash::compat::nginx::NginxRing;
//!
//! // upstream caches { hash $request_uri consistent; server 10.0.0.1:80 weight=2; … }
//! let ring = NginxRing::new([("10.0.0.1:80", 2), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)])?;
//! let hash = ring.key_hash(b"/logo.png");
//! let owner = ring.lookup(hash).expect("there are servers");
//!
//! // It is down: nginx would look at the next point, and so does every client.
//! let next = ring.find(hash, &mut |node| node != owner);
//! assert_eq!(next, ring.candidates(hash).nth(1));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! # How it is proven
//!
//! `tests/golden/` holds tables of answers that the real servers gave: nginx 1.22, Envoy 1.40,
//! HAProxy 2.6 and 3.0, gRPC 1.85, libmemcached 1.1 and libketama, all on x86-64, for up to 100 hosts, mixed
//! weights, other orders, odd strings, hosts down and gone, and the order of retries.
//! `tests/hash_compat.rs` asks every one of them, and `tests/golden/generate.sh` writes them anew.

pub mod envoy;
pub mod haproxy;
pub mod ketama;
pub mod nginx;

mod crc32;
mod hosts;
mod md5;
mod murmur;
mod points;
mod xxhash;
