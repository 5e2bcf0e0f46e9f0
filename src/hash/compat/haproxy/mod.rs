//! HAProxy: `hash-type consistent`.
//!
//! Each server has 16 points for each unit of its weight. They don't come from its address but,
//! unless `hash-key` says otherwise, from its **id**: what `id` sets, or else the lowest that is free,
//! which is its position in the list. A key belongs to the point that is **nearest**, on either
//! side; of two equally near ones, to the one before it.
//!
//! ```haproxy
//! backend caches
//!     balance hdr(x-user)
//!     hash-type consistent
//!     server a 10.0.0.1:80 weight 10
//!     server b 10.0.0.2:80 weight 20
//! ```
//!
//! is, for the same values of `x-user`:
//!
//! ```
//! use waypost::hash::compat::haproxy::HaproxyRing;
//!
//! let ring = HaproxyRing::new([("10.0.0.1:80", 10), ("10.0.0.2:80", 20)])?;
//! assert_eq!(ring.lookup_key(b"user-7"), Some(1));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! and with `hash-key`, ids and another function:
//!
//! ```
//! use waypost::hash::compat::haproxy::{HaproxyHash, HaproxyHashKey, HaproxyRing, HaproxyServer};
//!
//! let ring = HaproxyRing::builder()
//!     .hash_key(HaproxyHashKey::AddrPort)
//!     .hash_type(HaproxyHash::Crc32, true)
//!     .build([
//!         HaproxyServer::new("10.0.0.1:80").weight(10),
//!         HaproxyServer::new("/run/b.sock").weight(20).id(7), // no address: hashed by its id
//!     ])?;
//! assert!(ring.lookup_key(b"user-7").is_some());
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! # Servers that are down
//!
//! HAProxy takes the points of a server that is down, disabled or in maintenance out of its tree, and
//! looks for the nearest of those that are left; so does [`Table::find`]. Positions stay as they are.
//! **Leaving a server out of the list** moves the ids of all behind it, and with them most keys: in
//! HAProxy, and so here. Give ids, or a `hash-key`, to avoid that in both.
//!
//! After a failed try with `option redispatch`, HAProxy walks from the nearest point on to the next
//! one of a server other than the last: [`redispatch`](HaproxyRing::redispatch).
//!
//! # Limits
//!
//! - Keys are what `balance uri`, `url_param` or `hash` find, byte for byte. `source` and `hdr()` have
//!   methods, [`source_hash`](HaproxyRing::source_hash) and
//!   [`header_hash`](HaproxyRing::header_hash), as `hdr()` finds but the first of values between
//!   commas. A header that is missing or empty isn't hashed by HAProxy, which takes turns then.
//! - **HAProxy 3.0 to 3.2 before the fix of October 2025** hash ids in another way than all versions
//!   before and after: with those use [`HaproxyHashKey::IdHashedTwice`]. 3.0.11 was seen to have the
//!   fault; 2.6.12 and 3.2.26 were seen not to.
//! - `hash-key addr` and `addr-port` are of HAProxy 3.0, proven on little-endian machines.
//!   `hash-key guid` and `id32`, which 3.2.26 does not know yet, and `hash-type … none` are not here.
//! - Points of servers that share an address are equal with `hash-key addr`; those that came back up
//!   last then come last, which a table cannot know: here it is the order of the list.
//! - `hash-balance-factor` depends on what is in flight within one HAProxy, `slowstart` on its clock.
//!   Backup servers have a ring of their own.

mod hash;
mod server;

use std::net::IpAddr;

pub use self::hash::HaproxyHash;
use self::hash::avalanche;
use self::server::ids_of;
pub use self::server::{HaproxyHashKey, HaproxyServer};
use super::super::{Table, TableError};
use super::hosts::{Hosts, points_within_limit};
use super::points::Points;

/// Points for each unit of weight.
const POINTS: u32 = 16;

/// The greatest weight that HAProxy takes.
const MAX_WEIGHT: u32 = 256;

/// The settings of a [`HaproxyRing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HaproxyRingBuilder {
    key: HaproxyHashKey,
    hash: HaproxyHash,
    avalanche: bool,
}

impl Default for HaproxyRingBuilder {
    fn default() -> Self {
        Self {
            key: HaproxyHashKey::Id,
            hash: HaproxyHash::Sdbm,
            avalanche: true,
        }
    }
}

impl HaproxyRingBuilder {
    /// Where points come from. The id unless set.
    #[must_use]
    pub fn hash_key(mut self, key: HaproxyHashKey) -> Self {
        self.key = key;
        self
    }

    /// How keys are hashed: `hash-type consistent FUNCTION [avalanche]`.
    ///
    /// A bare `hash-type consistent`, the default here, is sdbm with `avalanche`; one that names
    /// the function has no avalanche unless it says so.
    #[must_use]
    pub fn hash_type(mut self, function: HaproxyHash, avalanche: bool) -> Self {
        self.hash = function;
        self.avalanche = avalanche;
        self
    }

    /// Builds the ring.
    ///
    /// # Errors
    ///
    /// No servers, all weights zero, a weight above 256, an id given twice, or more than 2²⁶ points.
    pub fn build<T: Into<HaproxyServer>>(
        self,
        servers: impl IntoIterator<Item = T>,
    ) -> Result<HaproxyRing, TableError> {
        let servers: Vec<HaproxyServer> = servers.into_iter().map(Into::into).collect();
        let hosts = Hosts::collect(servers.iter().map(|server| (&server.name, server.weight)))?;
        if let Some(server) = servers.iter().find(|server| server.weight > MAX_WEIGHT) {
            return Err(TableError::TooMuchWeight {
                weight: server.weight.into(),
                limit: MAX_WEIGHT.into(),
            });
        }
        let ids = ids_of(&servers)?;
        let wanted = hosts.total_weight() * u64::from(POINTS);
        let mut points = Vec::with_capacity(points_within_limit(wanted)?);
        for (node, name, weight) in hosts.placed() {
            let base = self.key.base(name, ids[node as usize]);
            let numbers = 0..weight * POINTS;
            points.extend(numbers.map(|number| (avalanche(base.wrapping_add(number)), node)));
        }
        Ok(HaproxyRing {
            hosts,
            points: Points::sorted(points),
            settings: self,
        })
    }
}

/// The tree of HAProxy's `hash-type consistent`. See the [module](self).
///
/// Hashes have 32 bits: the methods that take a hash use its low 32 bits.
#[derive(Debug, Clone)]
pub struct HaproxyRing {
    hosts: Hosts,
    points: Points<u32>,
    settings: HaproxyRingBuilder,
}

impl HaproxyRing {
    /// Builds the ring of a bare `hash-type consistent` from addresses and weights; the servers'
    /// ids are their positions, from 1.
    ///
    /// # Errors
    ///
    /// No servers, all weights zero, a weight above 256, or more than 2²⁶ points.
    pub fn new<S: AsRef<str>>(
        servers: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::builder().build(servers)
    }

    /// Other hash keys and functions.
    #[must_use]
    pub fn builder() -> HaproxyRingBuilder {
        HaproxyRingBuilder::default()
    }

    /// The hash of a key, with the function that was set.
    #[must_use]
    pub fn key_hash(&self, key: &[u8]) -> u64 {
        self.finish(self.settings.hash.of(key))
    }

    /// The hash of a client's address for `balance source`, which knows no other function than the
    /// address itself and the avalanche.
    #[must_use]
    pub fn source_hash(&self, source: IpAddr) -> u64 {
        self.finish(match source {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(ip) => {
                let words = ip.octets();
                let words = words.as_chunks::<4>().0.iter();
                words.fold(0, |hash, word| hash ^ u32::from_be_bytes(*word))
            }
        })
    }

    /// The hash of a header for `balance hdr(NAME)`, which does not take it whole: of values between
    /// commas it hashes the first, without blanks around it. Commas between double quotes do not
    /// count. None where that is empty; HAProxy takes turns then.
    ///
    /// ```
    /// use waypost::hash::compat::haproxy::HaproxyRing;
    ///
    /// let ring = HaproxyRing::new([("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])?;
    /// let hash = ring.header_hash(b"Mozilla/5.0 (KHTML, like Gecko)");
    /// assert_eq!(hash, Some(ring.key_hash(b"Mozilla/5.0 (KHTML")));
    /// assert_eq!(ring.header_hash(b", like Gecko"), None);
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    #[must_use]
    pub fn header_hash(&self, value: &[u8]) -> Option<u64> {
        let (mut quoted, mut escaped) = (false, false);
        let ends = |&byte: &u8| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            byte == b',' && !quoted
        };
        let end = value.iter().position(ends).unwrap_or(value.len());
        let first = value[..end].trim_ascii();
        (!first.is_empty()).then(|| self.key_hash(first))
    }

    /// The server that HAProxy picks for a key while all are up.
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(self.key_hash(key))
    }

    /// The server that HAProxy picks for a hash after `last` failed, among those that `accept` says
    /// are up: the same one as before unless that was `last`, else the next in order of points.
    ///
    /// If no other is up it is `last` again; if none at all, `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::haproxy::HaproxyRing;
    ///
    /// let ring = HaproxyRing::new([("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])?;
    /// let hash = ring.key_hash(b"user-7");
    /// let first = ring.lookup_key(b"user-7").unwrap();
    /// let second = ring.redispatch(hash, first, &mut |_| true).unwrap();
    /// assert_ne!(first, second);
    /// // HAProxy avoids only the last one.
    /// assert_eq!(ring.redispatch(hash, second, &mut |_| true), Some(first));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn redispatch(
        &self,
        hash: u64,
        last: u32,
        accept: &mut dyn FnMut(u32) -> bool,
    ) -> Option<u32> {
        let nearest = self.nearest(hash as u32, accept)?;
        let other = self
            .points
            .nodes_from(nearest)
            .find(|&node| node != last && accept(node));
        other.or(Some(last))
    }

    /// The address of a server.
    #[must_use]
    pub fn name(&self, node: u32) -> Option<&str> {
        self.hosts.name(node)
    }

    /// The weight of a server.
    #[must_use]
    pub fn weight(&self, node: u32) -> Option<u32> {
        self.hosts.weight(node)
    }

    fn finish(&self, hash: u32) -> u64 {
        let hash = if self.settings.avalanche {
            avalanche(hash)
        } else {
            hash
        };
        hash.into()
    }

    /// The point nearest to a place, of those whose servers are accepted.
    fn nearest(&self, place: u32, accept: &mut dyn FnMut(u32) -> bool) -> Option<usize> {
        let hosts = self.len() as u32;
        let first = self.points.at_or_after(place);
        let mut after = first;
        for asked in 1.. {
            if accept(self.points.node(after)) {
                break;
            }
            // All refused so far: see whether anyone is up before all points are asked.
            if asked == 2 * hosts as usize && !(0..hosts).any(&mut *accept) {
                return None;
            }
            after = self.points.next(after);
            if after == first {
                return None;
            }
        }
        // One of them is accepted, so this comes to an end.
        let mut before = self.points.previous(first);
        while before != after && !accept(self.points.node(before)) {
            before = self.points.previous(before);
        }
        let to_before = place.wrapping_sub(self.points.place(before));
        let to_after = self.points.place(after).wrapping_sub(place);
        Some(if to_before <= to_after { before } else { after })
    }
}

impl Table for HaproxyRing {
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.find(hash, &mut |_| true)
    }

    fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The server of the nearest point among those that `accept` says are up.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let nearest = self.nearest(hash as u32, accept)?;
        Some(self.points.node(nearest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_is_a_lookup_in_the_tree_of_those_that_are_up() {
        let all: Vec<_> = (1..=7)
            .map(|id| HaproxyServer::new("a").id(id).weight(id))
            .collect();
        let ring = HaproxyRing::builder().build(all.clone()).unwrap();
        let down = [1, 4, 5];
        let mut left = all;
        for node in down {
            left[node as usize].weight = 0;
        }
        let tree = HaproxyRing::builder().build(left).unwrap();
        for key in 0..1000_u32 {
            let hash = avalanche(key).into();
            let found = ring.find(hash, &mut |node| !down.contains(&node));
            assert_eq!(found, tree.lookup(hash));
            assert_eq!(ring.find(hash, &mut |node| node == 3), Some(3));
            assert_eq!(ring.find(hash, &mut |_| false), None);
            assert_eq!(ring.redispatch(hash, 3, &mut |node| node == 3), Some(3));
        }
    }

    #[test]
    fn weights_that_haproxy_refuses_are_refused() {
        assert!(HaproxyRing::new([("a", 256)]).is_ok());
        let refused = HaproxyRing::new([("a", 257)]).unwrap_err();
        assert_eq!(
            refused,
            TableError::TooMuchWeight {
                weight: 257,
                limit: 256
            }
        );
        assert_eq!(
            HaproxyRing::new([("a", 0)]).unwrap_err(),
            TableError::AllWeightsZero
        );
    }
}
