//! The key hash is XXH3-64, and stays it.

use waypost::hash::key_hash;
use xxhash_rust::xxh3::xxh3_64;

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 131 + len * 7 + (i >> 3)) as u8)
        .collect()
}

#[test]
fn agrees_with_another_implementation_at_every_length() {
    for len in (0..2_100).chain([4_096, 65_537]) {
        let key = bytes(len);
        assert_eq!(key_hash(&key), xxh3_64(&key), "length {len}");
    }
}

/// If one of these fails, every client with the new version sends every key elsewhere.
#[test]
fn golden_vectors() {
    let long = "x".repeat(1_000);
    let vectors = [
        ("", 0x2d06_8005_38d3_94c2),
        ("a", 0xe6c6_32b6_1e96_4e1f),
        ("abc", 0x78af_5f94_892f_3950),
        ("user:42", 0x9fc1_e605_fa71_74aa),
        ("10.0.0.1:8080", 0xb655_a4a4_783c_5011),
        ("the quick brown fox jumps", 0x9060_2c70_ee7f_6208),
        (
            "a key of more than thirty-two bytes, as URLs are",
            0x3a47_feb8_5744_8331,
        ),
        (long.as_str(), 0xc0a4_877b_962c_ba82),
    ];
    for (key, hash) in vectors {
        assert_eq!(key_hash(key.as_bytes()), hash, "{key:.30}");
    }
}
