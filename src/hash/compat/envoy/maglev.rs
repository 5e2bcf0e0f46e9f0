//! Envoy's `maglev`.
//!
//! Hosts are sorted by name and take turns in claiming slots of a table; each prefers the slots in
//! an order of its own, a walk of constant stride from its own beginning. A host with a third of the
//! greatest weight takes every third turn.

use super::super::super::{Table, TableError};
use super::super::hosts::Hosts;
use super::super::xxhash::xxh64;
use super::shares::{Shares, flatten};

/// `table_size` unless it is set.
const DEFAULT: u64 = 65_537;

/// The largest `table_size` that Envoy takes.
const LARGEST: u64 = 5_000_011;

/// The table of Envoy's `maglev`. See the [module](super).
#[derive(Debug, Clone)]
pub struct EnvoyMaglev {
    hosts: Hosts,
    slots: Box<[u32]>,
}

impl EnvoyMaglev {
    /// Builds a table of 65,537 slots from what is [hashed of each host](super) and its weight.
    ///
    /// A host of weight 0 is left out, as an unhealthy one is; Envoy refuses that weight.
    ///
    /// # Errors
    ///
    /// No hosts, all weights zero, a name given twice, or a total weight above 2³² - 1.
    pub fn new<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::with_table_size(DEFAULT, hosts)
    }

    /// Builds a table of another size. It takes about `size · ln size` steps, or `size · hosts` if
    /// there are more hosts than slots.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a size that Envoy refuses: it must be prime and at most
    /// 5,000,011.
    pub fn with_table_size<S: AsRef<str>>(
        size: u64,
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        let hosts = Hosts::collect(hosts)?;
        let shares = Shares::of(&hosts)?;
        Self::place(size, hosts, &shares)
    }

    /// Builds the table of a cluster with `locality_weighted_lb_config`: from the weight of each
    /// locality, and its hosts with their weights. Hosts are numbered on from one to the next.
    ///
    /// # Errors
    ///
    /// Those of [`with_table_size`](Self::with_table_size), for the weights of the localities, too.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::compat::envoy::EnvoyMaglev;
    ///
    /// let near = vec![("10.0.0.1:80", 1)];
    /// let far = vec![("10.1.0.1:80", 1), ("10.1.0.2:80", 1)];
    /// let maglev = EnvoyMaglev::by_locality(65_537, [(2, near), (1, far)])?;
    /// let near = maglev.slots().iter().filter(|&&node| node == 0).count();
    /// assert!(near.abs_diff(65_537 * 2 / 3) < 3);
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn by_locality<S: AsRef<str>, H: IntoIterator<Item = (S, u32)>>(
        size: u64,
        localities: impl IntoIterator<Item = (u32, H)>,
    ) -> Result<Self, TableError> {
        let (hosts, sizes) = flatten(localities)?;
        let shares = Shares::by_locality(&hosts, &sizes)?;
        Self::place(size, hosts, &shares)
    }

    fn place(size: u64, hosts: Hosts, shares: &Shares) -> Result<Self, TableError> {
        if size > LARGEST || !is_prime(size) {
            return Err(TableError::BadTableSize {
                size,
                must_be: "prime and at most 5000011",
            });
        }
        hosts.refuse_duplicates()?;
        let mut claims: Vec<Claim<'_>> = shares
            .placed(&hosts)
            .map(|(node, name, share)| Claim {
                name,
                node,
                share,
                target: 0.0,
                slot: xxh64(name.as_bytes(), 0) % size,
                stride: xxh64(name.as_bytes(), 1) % (size - 1) + 1,
            })
            .collect();
        claims.sort_unstable_by_key(|claim| claim.name);
        let slots = fill(size, &mut claims, shares.greatest);
        Ok(Self { hosts, slots })
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
    /// `retry_host_predicate` refused those before. It may be the same host again.
    #[must_use]
    pub fn attempt(&self, hash: u64, attempt: u32) -> u32 {
        let turned = hash ^ u64::from(attempt).wrapping_neg();
        self.slots[(turned % self.slots.len() as u64) as usize]
    }

    /// The host of each slot; a hash belongs to the slot of its remainder.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        &self.slots
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

impl Table for EnvoyMaglev {
    fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.attempt(hash, 0))
    }

    fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The first host that `accept` takes in the order of Envoy's [attempts](EnvoyMaglev::attempt),
    /// as far as they may go (`host_selection_retry_max_attempts`, 1 unless configured). Attempts
    /// need not ever reach every host: after 32 for each they give way to the table's slots in order,
    /// so that a host that has a slot and is accepted is found.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let hosts = self.len() as u32;
        let attempts = hosts.saturating_mul(32).min(1 << 20);
        for attempt in 0..attempts {
            let node = self.attempt(hash, attempt);
            if accept(node) {
                return Some(node);
            }
            if attempt == hosts && !(0..hosts).any(&mut *accept) {
                return None;
            }
        }
        let start = (hash % self.slots.len() as u64) as usize;
        let (before, after) = self.slots.split_at(start);
        after
            .iter()
            .chain(before)
            .copied()
            .find(|&node| accept(node))
    }
}

/// A host while the table is filled.
struct Claim<'a> {
    name: &'a str,
    node: u32,
    share: f64,
    /// The host sits out while its share of the turns so far is less than this.
    target: f64,
    /// The next slot of its walk.
    slot: u64,
    stride: u64,
}

fn fill(size: u64, claims: &mut [Claim<'_>], greatest: f64) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; size as usize];
    let (mut left, mut turn) = (size, 0_u64);
    // It ends: the host of the greatest share sits out no two turns in a row.
    loop {
        turn += 1;
        for claim in &mut *claims {
            if turn as f64 * claim.share < claim.target {
                continue;
            }
            claim.target += greatest;
            while slots[claim.slot as usize] != FREE {
                claim.slot = (claim.slot + claim.stride) % size;
            }
            slots[claim.slot as usize] = claim.node;
            left -= 1;
            if left == 0 {
                return slots.into();
            }
        }
    }
}

fn is_prime(number: u64) -> bool {
    let mut divisors = 2..=number.isqrt();
    number >= 2 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that `maglev_lb_test.cc` writes down.
    #[test]
    fn agrees_with_envoys_own_test() {
        let hosts = [90, 91, 92, 93, 94, 95].map(|port| (format!("127.0.0.1:{port}"), 1));
        let table = EnvoyMaglev::with_table_size(7, hosts).unwrap();
        assert_eq!(table.slots(), [2, 4, 0, 1, 5, 0, 3]);
    }

    #[test]
    fn sizes_that_envoy_refuses_are_refused() {
        for size in [0, 1, 4, 65_536, 5_000_013, 5_000_023, u64::MAX] {
            let refused = EnvoyMaglev::with_table_size(size, [("a", 1)]).unwrap_err();
            assert!(matches!(refused, TableError::BadTableSize { .. }), "{size}");
        }
        for size in [2, 3, 5_000_011] {
            let table = EnvoyMaglev::with_table_size(size, [("a", 1), ("b", 1)]).unwrap();
            assert_eq!(table.slots().len() as u64, size);
        }
    }

    #[test]
    fn every_host_with_a_slot_is_found() {
        let table =
            EnvoyMaglev::with_table_size(251, (0..100).map(|i| (format!("h{i}"), 1))).unwrap();
        for hash in [0, 7, u64::MAX] {
            for wanted in 0..100 {
                assert_eq!(table.find(hash, &mut |node| node == wanted), Some(wanted));
            }
            assert_eq!(table.find(hash, &mut |_| false), None);
        }
    }

    #[test]
    fn weights_that_are_far_apart_still_fill_the_table() {
        let hosts = [("a", u32::MAX - 1), ("b", 1)];
        let table = EnvoyMaglev::with_table_size(7, hosts).unwrap();
        // Each host has its first turn at once.
        assert_eq!(table.slots().iter().filter(|&&node| node == 1).count(), 1);
    }
}
