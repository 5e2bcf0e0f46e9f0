//! The hash functions of HAProxy's `hash-type`.

use super::super::crc32::crc32;

/// The function of `hash-type consistent FUNCTION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HaproxyHash {
    /// `sdbm`, the default.
    #[default]
    Sdbm,
    /// `djb2`: DJB2.
    Djb2,
    /// `wt6`, Willy Tarreau's.
    Wt6,
    /// `crc32`: that of Ethernet and gzip.
    Crc32,
}

impl HaproxyHash {
    pub(super) fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Sdbm => sdbm(bytes),
            Self::Djb2 => djb2(bytes),
            Self::Wt6 => wt6(bytes),
            Self::Crc32 => crc32(bytes),
        }
    }
}

/// `hash = byte + 65599 · hash`.
fn sdbm(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |hash: u32, &byte| {
        hash.wrapping_mul(65_599).wrapping_add(u32::from(byte))
    })
}

/// `hash = byte + 33 · hash`, from 5381.
fn djb2(bytes: &[u8]) -> u32 {
    bytes.iter().fold(5381, |hash: u32, &byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(byte))
    })
}

/// Two words that turn each other by amounts that depend on both.
fn wt6(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (0xA53C_965A_u32, 0x5CA6_953A_u32);
    let (mut turn_b, mut turn_a) = (6, 18);
    for &byte in bytes {
        a = !(a ^ u32::from(byte));
        b = !b.wrapping_add(u32::from(byte));
        (a, b) = (b.rotate_left(turn_b), a.rotate_left(turn_a));
        let mixed = (a >> 16 ^ b) & 0xFFFF;
        (turn_b, turn_a) = (mixed & 31, mixed >> 11);
    }
    a ^ b
}

/// The `avalanche` modifier, which also spreads the points: six steps of Bob Jenkins's [integer
/// hash], and a product that spreads small differences over the circle.
///
/// [integer hash]: https://burtleburtle.net/bob/hash/integer.html
pub(super) fn avalanche(mut a: u32) -> u32 {
    a = a.wrapping_add(0x7ED5_5D16).wrapping_add(a << 12);
    a = a ^ 0xC761_C23C ^ a >> 19;
    a = a.wrapping_add(0x1656_67B1).wrapping_add(a << 5);
    a = a.wrapping_add(0xD3A2_646C) ^ a << 9;
    a = a.wrapping_add(0xFD70_46C5).wrapping_add(a << 3);
    a = a ^ 0xB55A_4F09 ^ a >> 16;
    a.wrapping_mul(3_221_225_473)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(djb2(b""), 5381);
        assert_eq!(djb2(b"a"), 177_670);
        assert_eq!(sdbm(b"a"), 97);
        assert_eq!(sdbm(b"ab"), 97 * 65_599 + 98);
    }

    /// No two numbers share an image in a sample: every step can be undone.
    #[test]
    fn the_avalanche_is_one_to_one() {
        let mut images: Vec<u32> = (0..100_000).map(avalanche).collect();
        images.sort_unstable();
        images.dedup();
        assert_eq!(images.len(), 100_000);
    }
}
