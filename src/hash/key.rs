//! The key hash: from the bytes of a key to 64 bits, the same for ever and everywhere.
//!
//! **The problem.** Two clients agree on the owner of a key only if they hash it alike. A hash that
//! changes with the compiler, the platform or the version of a library (as std's `DefaultHasher`
//! may) empties every cache at the next deployment.
//!
//! **The idea.** [`key_hash`] is XXH3-64 with seed 0, as its specification fixes it, implemented
//! here so that no update of a dependency can change it. It will never change between versions or
//! platforms; golden vectors in the tests hold it to that.
//!
//! XXH3 was picked over XXH64 by measurement: over a million distinct keys of 8 to 64 bytes it
//! takes about 0.3 of XXH64's time (`cargo bench --bench hash -- key`), because keys of such
//! lengths take no loop.
//!
//! ```
//! use waypost::hash::key_hash;
//!
//! assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
//! assert_eq!(key_hash(b"user:1"), key_hash("user:1".as_bytes()));
//! ```

use super::xxh3::xxh3_64;

/// Hashes a key to 64 bits. Never changes between versions or platforms.
///
/// It is not keyed: whoever chooses the keys can make many of them collide. Where clients are
/// hostile, hash with a keyed function and give the tables that hash instead.
///
/// Takes time in the length of the key, and no allocation.
///
/// # Examples
///
/// ```
/// use waypost::hash::{HashRing, key_hash};
///
/// let ring = HashRing::new([("a:80", 1), ("b:80", 1)])?;
/// assert_eq!(ring.lookup(key_hash(b"user:1")), ring.lookup_key(b"user:1"));
/// # Ok::<(), waypost::hash::TableError>(())
/// ```
#[inline]
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The `index`-th number of the stream that `seed` starts: [SplitMix64] with random access.
///
/// Points, probes and attempts come from it. It costs two multiplications, where formatting and
/// hashing `"name-index"` costs 29 ns; and the numbers of one seed never depend on another.
///
/// [SplitMix64]: https://doi.org/10.1145/2660193.2660195
#[inline]
pub(super) fn mix(seed: u64, index: u64) -> u64 {
    let mut value = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// Maps 64 uniform bits to `0..bound` by their top bits, without a division.
#[inline]
pub(super) fn scale(hash: u64, bound: u64) -> u64 {
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}
