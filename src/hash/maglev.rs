//! Maglev: a table of fixed size that the nodes fill in turns.
//!
//! **The problem.** A ring's shares differ by some per cent, and its points take memory for every
//! node. Where nodes seldom change, even shares and the fastest lookup matter more than that not a
//! single key moves needlessly.
//!
//! **The idea.** Every node has its own order of all slots of a table whose size `M` is prime:
//! `offset + j · skip mod M`, both hashed from its name. Nodes take turns, each claiming the first
//! slot of its order that is free, a node of half the weight every second turn, until the table is
//! full ([Eisenbud et al., NSDI 2016, 3.4]). Shares differ by about one slot in `M / n`.
//!
//! **What moves.** Of the keys that a changed node does not gain or lose, a small part moves as
//! well: 0.6 % when one of 100 nodes leaves a table of 65,537 slots (measured). Use the
//! [ring](super::HashRing) where none may.
//!
//! ```
//! use waypost::hash::Maglev;
//!
//! let table = Maglev::new([("a:80", 1), ("b:80", 1)])?;
//! assert!(table.lookup_key(b"user:42").is_some());
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [Eisenbud et al., NSDI 2016, 3.4]: https://research.google/pubs/pub44824/

use super::compact::Compact;
use super::key::{mix, scale};
use super::nodes::{self, Node, Nodes};
use super::{Table, TableError, key_hash};

/// A Maglev table. See the [module](self).
///
/// | operation | time |
/// |---|---|
/// | [`lookup`](Self::lookup) | O(1): one array index |
/// | [`new`](Self::new) | O(M log M) expected |
/// | memory | 2 bytes for each slot, 4 above 65,536 nodes; one bit more while it is built |
#[derive(Debug, Clone)]
pub struct Maglev {
    slots: Compact,
    size: u64,
    nodes: usize,
}

impl Maglev {
    /// Slots of a table made by [`new`](Self::new), as in the paper and in Envoy.
    pub const DEFAULT_SIZE: u64 = 65_537;

    /// The largest table, as in Envoy.
    pub const MAX_SIZE: u64 = 5_000_011;

    /// Builds a table of [`DEFAULT_SIZE`](Self::DEFAULT_SIZE) slots.
    ///
    /// A node's index is its place in the input; the order of the input changes nothing else.
    ///
    /// # Errors
    ///
    /// No nodes, all weights zero, a name that appears twice, or more nodes than slots.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::Maglev;
    ///
    /// let table = Maglev::new([("a:80", 3), ("b:80", 1)])?;
    /// let a = (0..1000u64).filter(|i| table.lookup(i << 54) == Some(0)).count();
    /// assert!((700..800).contains(&a), "{a} of 1000 are three quarters");
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn new<S: AsRef<str>>(
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::with_size(Self::DEFAULT_SIZE, nodes)
    }

    /// Builds a table of `size` slots, a prime. At least 100 for each node keep the shares within
    /// 1 % of each other.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); and a size that is not a prime or above
    /// [`MAX_SIZE`](Self::MAX_SIZE).
    pub fn with_size<S: AsRef<str>>(
        size: u64,
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        if !(3..=Self::MAX_SIZE).contains(&size) || !is_prime(size) {
            let must_be = "a prime from 3 to 5,000,011, best above 100 for each node";
            return Err(TableError::BadTableSize { size, must_be });
        }
        let nodes = nodes::collect(nodes, size)?;
        let slots = fill(size, &nodes);
        Ok(Self {
            slots,
            size,
            nodes: nodes.len(),
        })
    }

    /// The node that owns a hash. Always `Some`. O(1).
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.slots.get(scale(hash, self.size) as usize))
    }

    /// The node that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.slots.heap()
    }
}

impl Table for Maglev {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.nodes
    }

    /// Goes over the slots in steps that the hash gives, so that the keys of a node that is not
    /// accepted go to all others by their weights. O(1 / the share that is accepted), at most `M`.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let mut slot = scale(hash, self.size);
        // The size is prime, so any step from 1 to M - 1 comes to every slot.
        let step = 1 + scale(mix(hash, 0), self.size - 1);
        for _ in 0..self.size {
            let node = self.slots.get(slot as usize);
            if accept(node) {
                return Some(node);
            }
            slot = (slot + step) % self.size;
        }
        None
    }
}

/// A node's turn: its next slot and step, and when it may claim again.
struct Claim {
    node: u32,
    next: u32,
    skip: u32,
    weight: u64,
    credit: u64,
}

fn fill(size: u64, nodes: &Nodes) -> Compact {
    let weights = nodes.iter().flatten().map(|node| node.weight);
    let heaviest = weights.max().unwrap_or(0);
    let claim = |index: u32| {
        let Node { hash, weight, .. } = nodes.get(index as usize)?;
        Some(Claim {
            node: index,
            next: scale(mix(hash, 0), size) as u32,
            skip: 1 + scale(mix(hash, 1), size - 1) as u32,
            weight: weight.into(),
            credit: 0,
        })
    };
    let order = nodes::by_name_hash(nodes);
    let mut claims: Vec<Claim> = order.into_iter().filter_map(claim).collect();
    claims.retain(|claim| claim.weight > 0);

    let mut slots = Compact::new(size as usize, nodes.len());
    let mut taken = vec![0u64; size.div_ceil(64) as usize];
    let mut free = size;
    loop {
        for claim in &mut claims {
            // The heaviest claims in every round, one of half its weight in every second.
            claim.credit += claim.weight;
            if claim.credit < heaviest.into() {
                continue;
            }
            claim.credit -= u64::from(heaviest);
            let slot = claim.take(&mut taken, size as u32);
            slots.set(slot as usize, claim.node);
            free -= 1;
            if free == 0 {
                return slots;
            }
        }
    }
}

impl Claim {
    /// Claims the first free slot in this node's order. There is one, and the order has every slot.
    fn take(&mut self, taken: &mut [u64], size: u32) -> u32 {
        loop {
            let slot = self.next;
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            let word = &mut taken[slot as usize / 64];
            let bit = 1 << (slot % 64);
            if *word & bit == 0 {
                *word |= bit;
                return slot;
            }
        }
    }
}

fn is_prime(size: u64) -> bool {
    size >= 2 && (2..=size.isqrt()).all(|divisor| !size.is_multiple_of(divisor))
}
