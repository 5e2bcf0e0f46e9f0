//! nginx: `hash KEY consistent` in an `upstream` block.
//!
//! Each server has 160 points for each unit of its weight. They are CRC-32s, chained: each is the
//! checksum of the host, a zero byte, the port, and the point before it. What is hashed is the
//! string after `server` as it stands in the configuration, not what it resolves to: `cache1:80`
//! and `10.0.0.1:80` have different points even if they are one machine, and so have
//! `10.0.0.1` and `10.0.0.1:80`. A key belongs to the first point at its own CRC-32 or after it.
//!
//! The order of the servers matters only where points of two of them are equal (the one listed
//! first has it), which with 10,000 points happens to one ring in a hundred.
//!
//! ```nginx
//! upstream caches {
//!     hash $request_uri consistent;
//!     server 10.0.0.1:11211 weight=2;
//!     server 10.0.0.2:11211;
//! }
//! ```
//!
//! is, for the same keys (here the request's URI):
//!
//! ```
//! use waypost::hash::compat::nginx::NginxRing;
//!
//! let ring = NginxRing::new([("10.0.0.1:11211", 2), ("10.0.0.2:11211", 1)])?;
//! let server = ring.lookup_key(b"/index.html").expect("the key is not empty");
//! assert_eq!(ring.name(server), Some("10.0.0.2:11211"));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! # Servers that are down
//!
//! nginx leaves the points of a server in place that is marked `down`, has failed `max_fails` times,
//! is full, or was tried before for this request, and looks at the next point instead; so does
//! [`Table::find`]. nginx gives up after 21 points, and takes turns among all servers from there on:
//! no two nginx agree on that. [`candidates`](NginxRing::candidates) are the servers that those 21
//! points name; `find` walks on along the ring, so that waypost's clients agree at least with each
//! other.
//!
//! # Limits
//!
//! - A key that is empty isn't hashed by nginx, which takes turns then:
//!   [`lookup_key`](NginxRing::lookup_key) says `None`.
//! - `backup` servers have no points in the same ring; build a second one from them.
//! - Of equal points the first listed wins because glibc's `qsort` was stable up to 2.36, the one of
//!   the proof. C libraries don't promise that.
//! - Several entries of the same string share one set of points, as long as that of the heaviest of
//!   them, and nginx takes turns among them by weight. Lookups answer with the first; the others are
//!   in [`twins`](NginxRing::twins). The same holds within nginx for a name with several addresses.

use super::super::{Table, TableError};
use super::crc32::{Crc32, crc32};
use super::hosts::{Hosts, points_within_limit};
use super::points::Points;

/// Points for each unit of weight.
const POINTS: u32 = 160;

/// How many points nginx looks at for one request.
const REACH: usize = 21;

/// The ring of nginx's `hash KEY consistent`. See the [module](self).
///
/// Hashes are CRC-32s: the methods that take a hash use its low 32 bits.
#[derive(Debug, Clone)]
pub struct NginxRing {
    hosts: Hosts,
    points: Points<u32>,
    /// For each host the next one that has the same string, around the circle of those.
    twins: Box<[u32]>,
}

impl NginxRing {
    /// Builds the ring from the strings after `server`, without parameters, and their weights.
    ///
    /// A host of weight 0 has no points, as if it weren't there; nginx refuses that weight.
    ///
    /// # Errors
    ///
    /// No hosts, all weights zero, or more than 2²⁶ points (a total weight of 419,430).
    pub fn new<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        let hosts = Hosts::collect(hosts)?;
        let wanted = hosts.total_weight() * u64::from(POINTS);
        let mut points = Vec::with_capacity(points_within_limit(wanted)?);
        let (twins, first) = twins_of(&hosts);
        for (node, name, weight) in hosts.placed() {
            let (host, port) = host_and_port(name);
            let base = Crc32::new().with(host).with(&[0]).with(port);
            let mut point = 0_u32;
            for _ in 0..u64::from(weight) * u64::from(POINTS) {
                point = base.with(&point.to_le_bytes()).finish();
                points.push((point, first[node as usize]));
            }
        }
        Ok(Self {
            hosts,
            points: Points::sorted_and_distinct(points),
            twins,
        })
    }

    /// The CRC-32 of a key.
    #[must_use]
    pub fn key_hash(&self, key: &[u8]) -> u64 {
        u64::from(crc32(key))
    }

    /// The server that nginx picks for a key while all are up; `None` for an empty key.
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        if key.is_empty() {
            return None;
        }
        self.lookup(self.key_hash(key))
    }

    /// The servers that nginx tries one after the other for a hash, as far as it follows the ring.
    ///
    /// Of servers with the same string all are named, in the order in which they were given.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::nginx::NginxRing;
    ///
    /// let ring = NginxRing::new([("a:80", 1), ("b:80", 1), ("c:80", 1)])?;
    /// let hash = ring.key_hash(b"/index.html");
    /// let tried: Vec<u32> = ring.candidates(hash).collect();
    /// assert_eq!(tried.len(), 3);
    /// assert_eq!(Some(tried[0]), ring.lookup_key(b"/index.html"));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let reached = self.points.nodes_from(self.start(hash)).take(REACH);
        let mut seen = Vec::with_capacity(REACH);
        reached
            .filter(move |node| {
                let new = !seen.contains(node);
                seen.push(*node);
                new
            })
            .flat_map(|node| std::iter::once(node).chain(self.twins(node)))
    }

    /// The other hosts that have the same string as this one, and so the same points.
    pub fn twins(&self, node: u32) -> impl Iterator<Item = u32> {
        let after = |at: u32| self.twins.get(at as usize).copied();
        std::iter::successors(after(node), move |&at| after(at)).take_while(move |&at| at != node)
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

impl Table for NginxRing {
    fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.points.node(self.start(hash)))
    }

    fn len(&self) -> usize {
        self.hosts.len()
    }

    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let mut found = None;
        self.points
            .find(self.start(hash), self.len() as u32, &mut |node| {
                found = std::iter::once(node)
                    .chain(self.twins(node))
                    .find(|&twin| accept(twin));
                found.is_some()
            })?;
        found
    }
}

/// What nginx takes for the host and the port: the path behind `unix:`, or what stands before and
/// behind the last colon if only digits follow it.
fn host_and_port(server: &str) -> (&[u8], &[u8]) {
    let bytes = server.as_bytes();
    if let Some((scheme, path)) = bytes.split_at_checked(5)
        && scheme.eq_ignore_ascii_case(b"unix:")
    {
        return (path, b"");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host.as_bytes(), port.as_bytes())
        }
        _ => (bytes, b""),
    }
}

/// For each host the next of the same string, and the first; hosts without weight are alone.
fn twins_of(hosts: &Hosts) -> (Box<[u32]>, Vec<u32>) {
    let alone = 0..hosts.len() as u32;
    let (mut next, mut first): (Vec<u32>, Vec<u32>) = (alone.clone().collect(), alone.collect());
    let mut placed: Vec<(&str, u32)> = hosts.placed().map(|(node, name, _)| (name, node)).collect();
    placed.sort_unstable();
    for same in placed.chunk_by(|a, b| a.0 == b.0) {
        for (place, &(_, node)) in same.iter().enumerate() {
            next[node as usize] = same[(place + 1) % same.len()].1;
            first[node as usize] = same[0].1;
        }
    }
    (next.into(), first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_is_cut_as_nginx_cuts_it() {
        let cut = |server| {
            let (host, port) = host_and_port(server);
            (str::from_utf8(host).unwrap(), str::from_utf8(port).unwrap())
        };
        assert_eq!(cut("a:80"), ("a", "80"));
        assert_eq!(cut("a"), ("a", ""));
        assert_eq!(cut("a:"), ("a", ""));
        assert_eq!(cut("[::1]:80"), ("[::1]", "80"));
        assert_eq!(cut("[::1]"), ("[::1]", ""));
        assert_eq!(cut("unix:/run/a.sock"), ("/run/a.sock", ""));
        assert_eq!(cut("UNIX:/run/a:80"), ("/run/a:80", ""));
        assert_eq!(cut("a:8o"), ("a:8o", ""));
        assert_eq!(cut(""), ("", ""));
    }

    #[test]
    fn hosts_of_one_string_answer_for_each_other() {
        let ring = NginxRing::new([("a:1", 1), ("b:1", 1), ("a:1", 3), ("a:1", 0)]).unwrap();
        assert_eq!(ring.twins(0).collect::<Vec<_>>(), [2]);
        assert_eq!(ring.twins(2).collect::<Vec<_>>(), [0]);
        assert_eq!(ring.twins(3).count(), 0);
        assert_eq!(ring.twins(99).count(), 0);
        let mut hashes = (0..4096).map(|i| i << 20);
        let of_a = hashes.find(|&hash| ring.lookup(hash) == Some(0)).unwrap();
        assert_eq!(ring.find(of_a, &mut |node| node != 0), Some(2));
        assert_eq!(ring.find(of_a, &mut |node| node == 1), Some(1));
        assert_eq!(ring.find(of_a, &mut |_| false), None);
    }

    #[test]
    fn an_empty_key_is_not_hashed() {
        let ring = NginxRing::new([("a:1", 1)]).unwrap();
        assert_eq!(ring.lookup_key(b""), None);
        assert_eq!(ring.lookup_key(b"k"), Some(0));
    }

    #[test]
    fn too_much_weight_is_refused_before_memory_is_taken() {
        let refused = NginxRing::new([("a:1", u32::MAX), ("b:1", u32::MAX)]).unwrap_err();
        assert!(
            matches!(refused, TableError::TooManyPoints { points, .. } if points == 2 * 160 * u64::from(u32::MAX))
        );
    }
}
