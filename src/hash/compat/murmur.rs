//! MurmurHash2, 64 bits, for 64-bit platforms, with the finish and the seed that libstdc++'s
//! `std::hash` gives it: the other hash function of Envoy's ring.
//!
//! It is not Appleby's MurmurHash64A: the rest of the key is mixed in the same way, but as one
//! little-endian number.

const MULTIPLIER: u64 = 0xC6A4_A793_5BD1_E995;

/// What libstdc++ seeds it with.
pub(super) const SEED: u64 = 0xC70F_6907;

pub(super) fn murmur2(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        hash = (hash ^ shift(word).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    shift(shift(hash).wrapping_mul(MULTIPLIER))
}

fn shift(value: u64) -> u64 {
    value ^ value >> 47
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libstdc++'s `std::hash<std::string>` says on x86-64.
    #[test]
    fn agrees_with_libstdcxx() {
        let text = b"the quick brown fox jumps";
        let expected = [
            (0, 6_142_509_188_972_423_790),
            (1, 831_242_270_113_464_010),
            (3, 12_954_739_773_548_996_726),
            (7, 10_520_534_658_248_631_668),
            (8, 15_756_179_854_646_432_971),
            (9, 3_146_519_449_611_659_428),
            (15, 12_367_974_762_873_134_487),
            (16, 15_550_097_560_287_487_832),
            (17, 13_206_479_187_289_482_314),
            (25, 2_182_560_870_939_600_521),
        ];
        for (len, hash) in expected {
            assert_eq!(murmur2(&text[..len], SEED), hash, "{len} bytes");
        }
    }
}
