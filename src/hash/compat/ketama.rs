//! libmemcached's weighted ketama, `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`, and the original libketama.
//!
//! Every host has up to 40 MD5 digests, fewer or more by its share of the weight, and each digest is
//! four points. A key belongs to the first point at the start of its own MD5 or after it. Clients of
//! memcached that speak of weighted ketama mean this, among them pylibmc
//! (`behaviors={"ketama_weighted": True}`) and PHP's `memcached` (`OPT_LIBKETAMA_COMPATIBLE`); it
//! is proven against libmemcached itself.
//!
//! ```
//! use waypost::hash::compat::ketama::KetamaRing;
//!
//! let ring = KetamaRing::new([("10.0.0.1:11211", 1), ("10.0.0.2:11211", 3)])?;
//! assert_eq!(ring.lookup_key(b"user-7"), Some(0));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! # Hosts that are down
//!
//! With `AUTO_EJECT_HOSTS` libmemcached builds the ring again without the host, and shares the
//! weights anew: build again with weight 0 for it. [`Table::find`] instead walks on to the next point
//! on the full ring, which moves nobody else's keys, but is no habit of libmemcached.
//!
//! # Limits
//!
//! - The port 11211 isn't hashed by libmemcached: `10.0.0.1:11211` and `10.0.0.1` are the same string
//!   there and here.
//! - [`KetamaRing::libketama`] is the library that Last.fm published in 2007: it hashes every port, and
//!   rounds shares in another precision. It takes strings of up to 23 bytes.
//! - A host whose share is below a fortieth of the mean has no points, as in libmemcached.
//! - libmemcached's unweighted `KETAMA` and its `spy` variant have other points and are not here.

use super::super::{Table, TableError};
use super::hosts::{Hosts, points_within_limit};
use super::md5::md5;
use super::points::Points;

/// Digests for a host of mean weight, four points each.
const DIGESTS: f32 = 40.0;

/// libmemcached leaves this port out of the string that it hashes.
const DEFAULT_PORT: &str = ":11211";

/// The ring of libmemcached's weighted ketama. See the [module](self).
///
/// Hashes have 32 bits: the methods that take a hash use its low 32 bits.
#[derive(Debug, Clone)]
pub struct KetamaRing {
    hosts: Hosts,
    points: Points<u32>,
}

impl KetamaRing {
    /// Builds the ring from hosts as `HOST:PORT` and their weights.
    ///
    /// A host of weight 0 is left out, as an ejected one is; libmemcached takes that weight for 1.
    ///
    /// # Errors
    ///
    /// No hosts, all weights zero, or more than 2²⁶ points (419,430 hosts).
    pub fn new<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        // libmemcached computes in single precision, in this order.
        Self::build(hosts, |name, share, live| {
            let digests = share * (4.0 * DIGESTS) / 4.0 * live;
            (name.strip_suffix(DEFAULT_PORT).unwrap_or(name), digests)
        })
    }

    /// Builds the ring of the original libketama, whose weights are the servers' memory.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::ketama::KetamaRing;
    ///
    /// let ring = KetamaRing::libketama([("10.0.0.1:11211", 600), ("10.0.0.2:11211", 300)])?;
    /// assert!(ring.lookup_key(b"user-7").is_some());
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn libketama<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        // The share is of single precision, and the constant of double.
        Self::build(hosts, |name, share, live| {
            let digests = f64::from(share) * f64::from(DIGESTS) * f64::from(live);
            (name, digests as f32)
        })
    }

    /// `digests` tells, of a host's string, its share and the number of hosts, what is hashed of it
    /// and how often, not rounded yet.
    fn build<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
        digests: impl Fn(&str, f32, f32) -> (&str, f32),
    ) -> Result<Self, TableError> {
        let hosts = Hosts::collect(hosts)?;
        let live = hosts.placed().count();
        let mut points = Vec::with_capacity(points_within_limit(live as u64 * 160)?);
        let total = hosts.total_weight() as f32;
        for (node, name, weight) in hosts.placed() {
            let (name, digests) = digests(name, weight as f32 / total, live as f32);
            for number in 0..digests.floor() as u32 {
                let digest = md5(format!("{name}-{number}").as_bytes());
                let places = digest.as_chunks::<4>().0.iter();
                points.extend(places.map(|place| (u32::from_le_bytes(*place), node)));
            }
        }
        Ok(Self {
            hosts,
            points: Points::sorted(points),
        })
    }

    /// The first four bytes of a key's MD5.
    #[must_use]
    pub fn key_hash(&self, key: &[u8]) -> u64 {
        let [a, b, c, d, ..] = md5(key);
        u32::from_le_bytes([a, b, c, d]).into()
    }

    /// The host that libmemcached picks for a key.
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(self.key_hash(key))
    }

    /// The string of a host.
    #[must_use]
    pub fn name(&self, node: u32) -> Option<&str> {
        self.hosts.name(node)
    }

    /// The weight of a host.
    #[must_use]
    pub fn weight(&self, node: u32) -> Option<u32> {
        self.hosts.weight(node)
    }

    fn start(&self, hash: u64) -> usize {
        self.points.at_or_after(hash as u32)
    }
}

impl Table for KetamaRing {
    fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.points.node(self.start(hash)))
    }

    fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The first host that `accept` takes from the point of a hash on.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.points
            .find(self.start(hash), self.len() as u32, accept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_of_mean_weight_has_160_points() {
        let ring = KetamaRing::new([("a:1", 7), ("b:1", 7), ("c:1", 0)]).unwrap();
        assert_eq!(ring.points.len(), 320);
    }

    /// Rounding must never leave the ring without points, whatever the weights.
    #[test]
    fn some_host_always_has_points() {
        for weight in [1, 3, u32::MAX - 1, u32::MAX] {
            for count in [1, 2, 3, 7, 100] {
                let hosts = || (0..count).map(|i| (format!("h{i}:1"), weight));
                for ring in [KetamaRing::new(hosts()), KetamaRing::libketama(hosts())] {
                    let points = ring.unwrap().points.len();
                    assert!(points >= 150 * count, "{weight}, {count}");
                }
            }
        }
    }
}
