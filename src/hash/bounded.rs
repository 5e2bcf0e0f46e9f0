//! Bounded loads: the key's owner, unless it has more than its share by now.
//!
//! **The problem.** Consistent hashing shares keys evenly, not requests: one hot key overloads its
//! owner while the others idle.
//!
//! **The idea.** With `m` requests in flight, node `i` of weight `w` of `W` may hold
//! `⌈(1+ε) · w/W · m⌉` of them ([Mirrokni, Thorup and Zadimoghaddam 2016]). There is always a node
//! with room, for the capacities add up to `m` or more. Going on to the *next* node on the ring
//! would fill that one too, and then the one after it; so the key is hashed again for each attempt,
//! the random jump of [Chen, Coleman and Shrivastava 2021], which spreads what overflows over all
//! nodes by their weights. The jumps depend on the key alone, so it meets the same nodes each time.
//!
//! This is arithmetic only: counting requests in flight is the caller's.
//!
//! ```
//! use waypost::hash::{BoundedLoad, HashRing};
//!
//! let ring = HashRing::new([("a:80", 1), ("b:80", 1)])?;
//! let owner = ring.lookup(7).expect("there are nodes");
//! let mut in_flight = [0u64; 2];
//! in_flight[owner as usize] = 10;
//!
//! let bound = BoundedLoad::new(0.25);
//! let picked = bound.pick(&ring, 7, |node| {
//!     in_flight[node as usize] < bound.capacity(1, 2, 10 + 1)
//! });
//! assert_eq!(picked, Some(1 - owner));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [Mirrokni, Thorup and Zadimoghaddam 2016]: https://arxiv.org/abs/1608.01350
//! [Chen, Coleman and Shrivastava 2021]: https://arxiv.org/abs/1908.08762

use super::Table;
use super::key::mix;

/// How much more than its share a node may hold. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundedLoad {
    /// `1 + ε` in units of 2^-20, so that capacities are integers that every platform agrees on.
    factor: u32,
}

impl BoundedLoad {
    const UNIT: u32 = 1 << 20;

    /// The greatest ε: at a thousand times its share a node is not bounded any more.
    const MAX_EPSILON: f64 = 1000.0;

    /// Random jumps before going over the table in order. With a fifth of the nodes free, as with
    /// ε = 0.25, 64 of them miss once in 1.6 million.
    const JUMPS: u64 = 64;

    /// A bound of `1 + epsilon` times the share: 0.25 is usual, as HAProxy's factor of 125.
    ///
    /// Less than 0 and NaN count as 0, more than 1000 as 1000.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::BoundedLoad;
    ///
    /// assert_eq!(BoundedLoad::new(f64::NAN), BoundedLoad::new(0.0));
    /// ```
    #[must_use]
    pub fn new(epsilon: f64) -> Self {
        // NaN is not above 0 either.
        let epsilon = if epsilon > 0.0 { epsilon } else { 0.0 };
        let factor = (1.0 + epsilon.min(Self::MAX_EPSILON)) * f64::from(Self::UNIT);
        Self {
            factor: factor.round() as u32,
        }
    }

    /// `⌈(1+ε) · weight / total_weight · load⌉`: what a node may hold when all hold `load`.
    ///
    /// Count the request that is to be placed in `load`; then the capacities of all nodes add up
    /// to `load` or more, so one of them has room. 0 if the weight is 0. O(1).
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::BoundedLoad;
    ///
    /// let bound = BoundedLoad::new(0.25);
    /// assert_eq!(bound.capacity(1, 4, 100), 32); // 1.25 · 25 = 31.25
    /// assert_eq!(bound.capacity(3, 4, 100), 94); // 1.25 · 75 = 93.75
    /// assert_eq!(bound.capacity(0, 0, 100), 0);
    /// ```
    #[must_use]
    pub fn capacity(&self, weight: u32, total_weight: u64, load: u64) -> u64 {
        if total_weight == 0 {
            return 0;
        }
        // 30 + 32 + 64 bits at most.
        let share = u128::from(self.factor) * u128::from(weight) * u128::from(load);
        let capacity = share.div_ceil(u128::from(total_weight) * u128::from(Self::UNIT));
        u64::try_from(capacity).unwrap_or(u64::MAX)
    }

    /// Whether a node that holds `held` may take one more: `held` is below its
    /// [`capacity`](Self::capacity), found without a division. O(1).
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::BoundedLoad;
    ///
    /// let bound = BoundedLoad::new(0.25);
    /// assert!(bound.has_room(31, 1, 4, 100) && !bound.has_room(32, 1, 4, 100));
    /// ```
    #[inline]
    #[must_use]
    pub fn has_room(&self, held: u64, weight: u32, total_weight: u64, load: u64) -> bool {
        // A whole number is below ⌈x⌉ exactly if it is below x. The left side saturates far above
        // what the right one can be.
        let share = u128::from(self.factor) * u128::from(weight) * u128::from(load);
        let taken = (u128::from(held) * u128::from(total_weight)).saturating_mul(Self::UNIT.into());
        taken < share
    }

    /// The owner of a hash if it has room, else the first node with room that random jumps meet;
    /// after 64 of them, the first in the table's own order. `None` if no node has room.
    ///
    /// `has_room` says whether a node's load is below its [`capacity`](Self::capacity). O(1)
    /// expected, times the lookup of the table.
    pub fn pick<T: Table + ?Sized>(
        &self,
        table: &T,
        hash: u64,
        mut has_room: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let jumps = (0..Self::JUMPS).map(|jump| mix(hash, jump));
        let met = std::iter::once(hash).chain(jumps);
        let free = met
            .filter_map(|hash| table.lookup(hash))
            .find(|&node| has_room(node));
        free.or_else(|| table.find(hash, &mut has_room))
    }
}
