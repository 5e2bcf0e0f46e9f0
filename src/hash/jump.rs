//! Jump consistent hashing: numbered buckets, no memory at all.
//!
//! **The problem.** Shards and partitions are numbered from 0 and only the last comes or goes;
//! storing anything for them is waste.
//!
//! **The idea.** Adding bucket `b` must take a key with probability `1/(b+1)`; call `b` active for
//! the key if it does. The owner among `n` is the last active bucket below `n`. [Jump hash] finds
//! it going up, in `ln n` steps of floating point. [JumpBackHash] goes down: the octave
//! `[2^k, 2^(k+1))` holds an active bucket with probability ½, one random bit, and its last one is
//! uniform there; below that, uniform draws give the one before. Whatever `n` is, 5/3 random
//! numbers are enough on average.
//!
//! **What moves.** From `n` to `n + 1` buckets, a key stays or goes to bucket `n`. Only the last
//! bucket can be removed, and there are no weights; nodes are their numbers.
//!
//! ```
//! use waypost::hash::{Jump, key_hash};
//!
//! let hash = key_hash(b"user:42");
//! let before = Jump::new(10)?.lookup(hash);
//! let after = Jump::new(11)?.lookup(hash);
//! assert!(after == before || after == Some(10));
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [Jump hash]: https://arxiv.org/abs/1406.2294
//! [JumpBackHash]: https://arxiv.org/abs/2403.18682

use super::key::{mix, scale};
use super::{Table, TableError, key_hash};

/// `JumpBackHash` over numbered buckets. See the [module](self).
///
/// [`lookup`](Self::lookup) takes O(1) expected time; nothing is stored but the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    buckets: u32,
}

impl Jump {
    /// A table of the buckets `0..buckets`.
    ///
    /// # Errors
    ///
    /// No buckets, or more than 2^31.
    pub fn new(buckets: u32) -> Result<Self, TableError> {
        match buckets {
            0 => Err(TableError::NoNodes),
            1..=0x8000_0000 => Ok(Self { buckets }),
            _ => Err(TableError::TooManyNodes {
                nodes: buckets.into(),
                limit: 1 << 31,
            }),
        }
    }

    /// The bucket that owns a hash. Always `Some`. O(1) expected.
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        Some(self.bucket(hash))
    }

    /// The bucket that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    #[inline]
    fn bucket(self, hash: u64) -> u32 {
        let n = self.buckets;
        if n == 1 {
            return 0;
        }
        let drawn = mix(hash, 0);
        let halves = [drawn as u32, (drawn >> 32) as u32];
        // Bit k: whether the octave [2^k, 2^(k+1)) has an active bucket. A half alone is
        // independent of the exclusive or of both, so the same bits can serve to place it.
        let mut octaves = (halves[0] ^ halves[1]) & (u32::MAX >> (n - 1).leading_zeros());
        let mut next = 1;
        while octaves != 0 {
            let octave = 1 << octaves.ilog2();
            let half = halves[octaves.count_ones() as usize & 1];
            let mut bucket = octave + (half & (octave - 1));
            // Only the highest octave reaches past n. Draws from below 2^(k+1), the first that is
            // below n: the last active bucket, or none in this octave.
            while bucket >= n {
                bucket = (mix(hash, next) as u32) & (octave | (octave - 1));
                next += 1;
            }
            if bucket >= octave {
                return bucket;
            }
            octaves ^= octave;
        }
        0
    }
}

impl Table for Jump {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.buckets as usize
    }

    /// Hashes again for each bucket that is not accepted; after 64 attempts goes over all of them.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let first = self.bucket(hash);
        if accept(first) {
            return Some(first);
        }
        // Other numbers than the lookups draw from, so that attempts do not follow the owner.
        let seed = mix(!hash, 0);
        let attempt = (0..64)
            .map(|i| self.bucket(mix(seed, i)))
            .find(|&bucket| accept(bucket));
        attempt.or_else(|| {
            let start = scale(seed, self.buckets.into()) as u32;
            let mut all = (start..self.buckets).chain(0..start);
            all.find(|&bucket| accept(bucket))
        })
    }
}
