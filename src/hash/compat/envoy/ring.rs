//! Envoy's `ring_hash`.
//!
//! Weights are shares of 1. The ring is scaled so that the lightest host has a whole number of
//! points and all together at least the minimum, unless that exceeds the maximum; the others' may be
//! broken numbers, and what is left over by one host counts for the next. Point `i` of a host is the
//! hash of `NAME_i`.

use super::super::super::{Table, TableError};
use super::super::hosts::{Hosts, points_within_limit};
use super::super::murmur;
use super::super::points::Points;
use super::super::xxhash::xxh64;
use super::shares::{Shares, flatten};

/// No ring of Envoy's is larger: its configuration refuses it.
const LARGEST: u64 = 8_388_608;

/// What `hash_function` says: how points are hashed. Keys are hashed with XXH64 in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum EnvoyHash {
    /// `XX_HASH`, the default.
    #[default]
    XxHash,
    /// `MURMUR_HASH_2`, for clusters that moved to Envoy from `std::hash` of libstdc++.
    Murmur2,
}

/// The sizes and the hash function of an [`EnvoyRing`], by the names of Envoy's configuration.
///
/// # Examples
///
/// ```
/// use waypost::hash::compat::envoy::{EnvoyHash, EnvoyRing};
///
/// let ring = EnvoyRing::builder()
///     .minimum_ring_size(100_000)
///     .hash_function(EnvoyHash::Murmur2)
///     .build([("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])?;
/// assert_eq!(ring.points(), 100_000);
/// # Ok::<(), waypost::hash::TableError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvoyRingBuilder {
    pub(super) minimum: u64,
    pub(super) maximum: u64,
    hash: EnvoyHash,
}

impl Default for EnvoyRingBuilder {
    fn default() -> Self {
        Self {
            minimum: 1024,
            maximum: LARGEST,
            hash: EnvoyHash::XxHash,
        }
    }
}

impl EnvoyRingBuilder {
    /// At least so many points, if the maximum allows it. 1024 unless set.
    #[must_use]
    pub fn minimum_ring_size(mut self, points: u64) -> Self {
        self.minimum = points;
        self
    }

    /// At most so many points. 8,388,608 unless set, and no more.
    #[must_use]
    pub fn maximum_ring_size(mut self, points: u64) -> Self {
        self.maximum = points;
        self
    }

    /// How points are hashed. XXH64 unless set.
    #[must_use]
    pub fn hash_function(mut self, hash: EnvoyHash) -> Self {
        self.hash = hash;
        self
    }

    /// Builds the ring from what is [hashed of each host](super) and its weight.
    ///
    /// A host of weight 0 is left out, as an unhealthy one is; Envoy refuses that weight.
    ///
    /// # Errors
    ///
    /// No hosts, all weights zero, a name given twice, a total weight above 2³² - 1, a minimum of 0
    /// or above the maximum, or a maximum above 8,388,608.
    pub fn build<S: AsRef<str>>(
        self,
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<EnvoyRing, TableError> {
        let hosts = Hosts::collect(hosts)?;
        let shares = Shares::of(&hosts)?;
        self.place(hosts, &shares)
    }

    /// Builds the ring of a cluster with `locality_weighted_lb_config`: from the weight of each
    /// locality, and its hosts with their weights. Hosts are numbered on from one to the next.
    ///
    /// A locality of weight 0 has no keys. One whose hosts all weigh 0 keeps its part of the ring
    /// from being shared out, as with Envoy, so that the ring is smaller; one that lists no hosts
    /// does not, as Envoy does not know of it.
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), for the weights of the localities, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::envoy::EnvoyRing;
    ///
    /// let near = vec![("10.0.0.1:80", 1)];
    /// let far = vec![("10.1.0.1:80", 1), ("10.1.0.2:80", 1)];
    /// let ring = EnvoyRing::builder().build_by_locality([(2, near), (1, far)])?;
    /// assert_eq!(ring.name(2), Some("10.1.0.2:80"));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn build_by_locality<S: AsRef<str>, H: IntoIterator<Item = (S, u32)>>(
        self,
        localities: impl IntoIterator<Item = (u32, H)>,
    ) -> Result<EnvoyRing, TableError> {
        let (hosts, sizes) = flatten(localities)?;
        let shares = Shares::by_locality(&hosts, &sizes)?;
        self.place(hosts, &shares)
    }

    fn place(self, hosts: Hosts, shares: &Shares) -> Result<EnvoyRing, TableError> {
        hosts.refuse_duplicates()?;
        if self.maximum > LARGEST {
            return Err(TableError::BadTableSize {
                size: self.maximum,
                must_be: "at most 8388608, the largest ring that Envoy builds",
            });
        }
        if self.minimum == 0 || self.minimum > self.maximum {
            return Err(TableError::BadTableSize {
                size: self.minimum,
                must_be: "at least 1, and a minimum at most the maximum",
            });
        }
        let scale =
            ((shares.least * self.minimum as f64).ceil() / shares.least).min(self.maximum as f64);
        let mut points = Vec::with_capacity(points_within_limit(scale.ceil() as u64)?);
        let (mut current, mut target) = (0.0, 0.0);
        let mut name_and_number = String::new();
        for (node, name, share) in shares.placed(&hosts) {
            target += scale * share;
            let mut number = 0_u64;
            while current < target {
                name_and_number.clear();
                name_and_number.push_str(name);
                name_and_number.push('_');
                name_and_number.push_str(&number.to_string());
                points.push((self.point(name_and_number.as_bytes()), node));
                number += 1;
                current += 1.0;
            }
        }
        Ok(EnvoyRing {
            hosts,
            points: Points::sorted(points),
        })
    }

    fn point(self, bytes: &[u8]) -> u64 {
        match self.hash {
            EnvoyHash::XxHash => xxh64(bytes, 0),
            EnvoyHash::Murmur2 => murmur::murmur2(bytes, murmur::SEED),
        }
    }
}

/// The ring of Envoy's `ring_hash`. See the [module](super).
#[derive(Debug, Clone)]
pub struct EnvoyRing {
    hosts: Hosts,
    points: Points<u64>,
}

impl EnvoyRing {
    /// Builds a ring of the default sizes. [`EnvoyRingBuilder::build`] says how.
    ///
    /// # Errors
    ///
    /// No hosts, all weights zero, a name given twice, or a total weight above 2³² - 1.
    pub fn new<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::builder().build(hosts)
    }

    /// Other sizes and hash functions.
    #[must_use]
    pub fn builder() -> EnvoyRingBuilder {
        EnvoyRingBuilder::default()
    }

    /// The XXH64 of a key.
    #[must_use]
    pub fn key_hash(&self, key: &[u8]) -> u64 {
        xxh64(key, 0)
    }

    /// The host that Envoy picks for a key.
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(self.key_hash(key))
    }

    /// The host that Envoy looks at in attempt `attempt` (from 0) to select one for a hash, when
    /// `retry_host_predicate` refused those before: the next point, which may be of the same host.
    #[must_use]
    pub fn attempt(&self, hash: u64, attempt: u32) -> u32 {
        let index = (self.points.at_or_after(hash) + attempt as usize) % self.points.len();
        self.points.node(index)
    }

    /// How many points there are.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points.len()
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
}

impl Table for EnvoyRing {
    fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.attempt(hash, 0))
    }

    fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The first host that `accept` takes in the order of Envoy's [attempts](EnvoyRing::attempt),
    /// as far as they may go (`host_selection_retry_max_attempts`, 1 unless configured).
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let start = self.points.at_or_after(hash);
        self.points.find(start, self.len() as u32, accept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ring that `ring_hash_lb_test.cc` writes down: six hosts, a minimum of 12.
    #[test]
    fn agrees_with_envoys_own_test() {
        let hosts = [90, 91, 92, 93, 94, 95].map(|port| (format!("127.0.0.1:{port}"), 1));
        let ring = EnvoyRing::builder()
            .minimum_ring_size(12)
            .build(hosts)
            .unwrap();
        assert_eq!(ring.points(), 12);
        let first = [
            (833_437_586_790_550_860, 4),
            (928_266_305_478_181_108, 2),
            (1_033_482_794_131_418_490, 0),
        ];
        for (index, point) in first.into_iter().enumerate() {
            assert_eq!((ring.points.place(index), ring.points.node(index)), point);
        }
        assert_eq!(ring.lookup(0), Some(4));
        assert_eq!(ring.lookup(u64::MAX), Some(4), "around the circle");
        assert_eq!(
            ring.lookup(3_551_244_743_356_806_947),
            Some(5),
            "a point itself"
        );
        assert_eq!(
            ring.attempt(3_551_244_743_356_806_947, 1),
            3,
            "the next one"
        );
    }

    #[test]
    fn sizes_that_envoy_refuses_are_refused() {
        let build = |minimum, maximum| {
            let sizes = EnvoyRing::builder()
                .minimum_ring_size(minimum)
                .maximum_ring_size(maximum);
            sizes.build([("a", 1)]).map(|ring| ring.points())
        };
        assert_eq!(build(1, 1), Ok(1));
        for (minimum, maximum) in [
            (0, 0),
            (0, 5),
            (6, 5),
            (1, LARGEST + 1),
            (u64::MAX, u64::MAX),
        ] {
            assert!(matches!(
                build(minimum, maximum),
                Err(TableError::BadTableSize { .. })
            ));
        }
    }

    #[test]
    fn a_host_given_twice_is_refused_unless_it_weighs_nothing() {
        assert_eq!(
            EnvoyRing::new([("a", 1), ("b", 1), ("a", 2)]).unwrap_err(),
            TableError::DuplicateNode { name: "a".into() }
        );
        assert!(EnvoyRing::new([("a", 1), ("b", 1), ("a", 0)]).is_ok());
    }

    #[test]
    fn more_weight_than_envoy_takes_is_refused() {
        let refused = EnvoyRing::new([("a", u32::MAX), ("b", 1)]).unwrap_err();
        assert!(matches!(refused, TableError::TooMuchWeight { .. }));
        let far_apart = EnvoyRing::builder().maximum_ring_size(2000);
        assert_eq!(
            far_apart
                .build([("a", u32::MAX - 1), ("b", 1)])
                .unwrap()
                .points(),
            2000
        );
    }
}
