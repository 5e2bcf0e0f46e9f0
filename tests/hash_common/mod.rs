//! What the hash tests share: names, keys, and the naive twins' arithmetic.
#![allow(dead_code, reason = "each test file uses some of it")]

use waypost::hash::key_hash;

pub(crate) const KEYS: u64 = 100_000;

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|i| format!("10.{}.{}.{}:8080", i >> 16, (i >> 8) & 255, i & 255))
        .collect()
}

pub(crate) fn equal(count: usize) -> Vec<(String, u32)> {
    names(count).into_iter().map(|name| (name, 1)).collect()
}

pub(crate) fn hashes(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|i| key_hash(&i.to_le_bytes()))
}

/// `SplitMix64`, as the documentation of the ring describes it.
pub(crate) fn split_mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The ring as a sorted list of `(31-bit position, name)`.
pub(crate) struct NaiveRing(Vec<(u64, String)>);

impl NaiveRing {
    pub(crate) fn new(nodes: &[(String, u32)], vnodes: u32) -> Self {
        let mut points = Vec::new();
        for (name, weight) in nodes {
            for r in 0..u64::from(weight * vnodes) {
                let position = split_mix(key_hash(name.as_bytes()), r) >> 33;
                points.push((position, name.clone()));
            }
        }
        points.sort();
        Self(points)
    }

    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = &str> {
        let at = self.0.partition_point(|point| point.0 < hash >> 33);
        let (before, from) = self.0.split_at(at);
        from.iter().chain(before).map(|point| point.1.as_str())
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = (u64, &str)> {
        self.0
            .iter()
            .map(|(position, name)| (position << 33, name.as_str()))
    }
}
