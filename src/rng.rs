//! The random source that picks draw from: small, seedable, not for secrets.
//!
//! Balancing needs independent draws at a nanosecond each, and tests and
//! simulations need the same draws again: hence a generator that is seeded
//! from the operating system in production and by hand in a test.
//!
//! ```
//! use waypost::rng::Rng;
//!
//! let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
//! assert_eq!(a.below(100), b.below(100));
//! ```

use std::time::{Duration, SystemTime};

use rand::TryRng as _;
use rand::rngs::SysRng;

/// A fast, seedable generator: wyrand, one multiplication and eight bytes of
/// state, which passes the usual batteries (`BigCrush`, `PractRand`). The
/// sequence of a seed may change between versions of this crate.
#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that repeats the same draws for the same seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator seeded from the operating system's entropy. Touches no
    /// thread-local storage, so that it serves a thread that is ending, too.
    #[must_use]
    pub fn from_entropy() -> Self {
        // A system without entropy has a clock, and any seed will do.
        let seed = SysRng.try_next_u64().unwrap_or_else(|_| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.unwrap_or_default().as_nanos() as u64
        });
        Self::seeded(seed)
    }

    /// 64 uniform random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x2d35_8dcc_aa6c_78a5);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0x8bb8_4b93_962e_acc9);
        (product >> 64) as u64 ^ product as u64
    }

    /// A uniform draw from `0..n`, and 0 for `n = 0`.
    ///
    /// One multiplication instead of a division (Lemire, "Fast random integer
    /// generation in an interval", 2019), without its rejection step: the bias
    /// is at most `n / 2^32`, below one in 400,000 for 10,000 endpoints.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        Bits(self.bits()).below(n)
    }

    /// A uniform draw from no time to all of `whole`.
    #[must_use]
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        // 53 bits are what an f64 holds, and 1 is never reached.
        let share = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        whole.mul_f64(share)
    }

    /// Two different uniform draws from `0..n`, from one draw of 64 bits. `n`
    /// must be at least 2.
    #[inline]
    pub fn two_below(&mut self, n: u32) -> (u32, u32) {
        Bits(self.bits()).two_below(n)
    }
}

/// 64 random bits, to be made something of once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits(pub(crate) u64);

impl Bits {
    #[inline]
    pub(crate) fn below(self, n: u32) -> u32 {
        scale(self.0 >> 32, n)
    }

    #[inline]
    pub(crate) fn two_below(self, n: u32) -> (u32, u32) {
        debug_assert!(n >= 2);
        let first = scale(self.0 >> 32, n);
        let second = scale(self.0 & u64::from(u32::MAX), n - 1);
        // Skipping over the first leaves the other n - 1 equally likely.
        (first, second + u32::from(second >= first))
    }
}

#[inline]
const fn scale(bits32: u64, n: u32) -> u32 {
    ((bits32 * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_distinct_and_uniform() {
        let mut rng = Rng::seeded(1);
        let n = 5;
        let mut seen = vec![0_u32; (n * n) as usize];
        for _ in 0..100_000 {
            let (a, b) = rng.two_below(n);
            assert!(a < n && b < n && a != b);
            seen[(a * n + b) as usize] += 1;
        }
        // 20 ordered pairs of 5,000 each; four standard deviations are 276.
        for a in 0..n {
            for b in (0..n).filter(|&b| b != a) {
                let count = seen[(a * n + b) as usize];
                assert!(count.abs_diff(5_000) < 276, "({a}, {b}): {count}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_beyond_the_bound() {
        let mut rng = Rng::seeded(2);
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| rng.below(1) == 0));
    }
}
