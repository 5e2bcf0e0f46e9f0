//! XXH3-64 with seed 0 and the default secret, in safe Rust.
//!
//! Written after the [specification]; the names of the stages are the specification's. Only the
//! one-shot form is here: every key is in memory already.
//!
//! [specification]: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md#xxh3-algorithm-overview

use std::hint::select_unpredictable;

/// Hashes `input` with XXH3-64, seed 0.
#[inline]
pub(super) fn xxh3_64(input: &[u8]) -> u64 {
    match input.len() {
        // The order of the arms is the order of how often a key has that length.
        17..=128 => hash_17_to_128(input),
        9..=16 => hash_9_to_16(input),
        4..=8 => hash_4_to_8(input),
        1..=3 => hash_1_to_3(input),
        0 => avalanche_xxh64(secret64(56) ^ secret64(64)),
        129..=240 => hash_129_to_240(input),
        _ => hash_long(input),
    }
}

const PRIME32_1: u64 = 0x9E37_79B1;
const PRIME32_2: u64 = 0x85EB_CA77;
const PRIME32_3: u64 = 0xC2B2_AE3D;
const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME64_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME64_5: u64 = 0x27D4_EB2F_1656_67C5;
const PRIME_MX1: u64 = 0x1656_6791_9E37_79F9;
const PRIME_MX2: u64 = 0x9FB2_1C65_1E98_DF25;

const STRIPE: usize = 64;
const STRIPES_PER_BLOCK: usize = (SECRET.len() - STRIPE) / 8;

fn hash_1_to_3(input: &[u8]) -> u64 {
    let len = input.len();
    let (first, middle, last) = (input[0], input[len / 2], input[len - 1]);
    let combined =
        u32::from(first) << 16 | u32::from(middle) << 24 | u32::from(last) | (len as u32) << 8;
    let flip = (secret64(0) as u32) ^ (secret64(0) >> 32) as u32;
    avalanche_xxh64(u64::from(combined ^ flip))
}

fn hash_4_to_8(input: &[u8]) -> u64 {
    let len = input.len();
    let low = u64::from(read32(input, 0));
    let high = u64::from(read32(input, len - 4));
    let mut value = (high | low << 32) ^ secret64(8) ^ secret64(16);
    value ^= value.rotate_left(49) ^ value.rotate_left(24);
    value = value.wrapping_mul(PRIME_MX2);
    value ^= (value >> 35).wrapping_add(len as u64);
    value = value.wrapping_mul(PRIME_MX2);
    value ^ value >> 28
}

#[inline]
fn hash_9_to_16(input: &[u8]) -> u64 {
    let len = input.len();
    let low = read64(input, 0) ^ secret64(24) ^ secret64(32);
    let high = read64(input, len - 8) ^ secret64(40) ^ secret64(48);
    let sum = (len as u64)
        .wrapping_add(low.swap_bytes())
        .wrapping_add(high)
        .wrapping_add(fold_multiply(low, high));
    avalanche(sum)
}

#[inline]
fn hash_17_to_128(input: &[u8]) -> u64 {
    let len = input.len();
    let mut sum = (len as u64).wrapping_mul(PRIME64_1);
    if len > 64 {
        if len > 96 {
            sum = sum
                .wrapping_add(mix16(input, 48, 96))
                .wrapping_add(mix16(input, len - 64, 112));
        }
        sum = sum
            .wrapping_add(mix16(input, 32, 64))
            .wrapping_add(mix16(input, len - 48, 80));
    }
    // Keys are shorter or longer than 32 bytes with no pattern, so a branch here would often be
    // mispredicted: the middle is computed always, of whatever bytes are there, and used if due.
    let middle =
        mix16(input, (len - 16).min(16), 32).wrapping_add(mix16(input, len.saturating_sub(32), 48));
    sum = sum
        .wrapping_add(select_unpredictable(len > 32, middle, 0))
        .wrapping_add(mix16(input, 0, 0))
        .wrapping_add(mix16(input, len - 16, 16));
    avalanche(sum)
}

fn hash_129_to_240(input: &[u8]) -> u64 {
    let len = input.len();
    let head = (0..8).fold((len as u64).wrapping_mul(PRIME64_1), |sum, i| {
        sum.wrapping_add(mix16(input, 16 * i, 16 * i))
    });
    let body = (8..len / 16).fold(avalanche(head), |sum, i| {
        sum.wrapping_add(mix16(input, 16 * i, 16 * (i - 8) + 3))
    });
    avalanche(body.wrapping_add(mix16(input, len - 16, 136 - 17)))
}

fn hash_long(input: &[u8]) -> u64 {
    let mut lanes = [
        PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1,
    ];
    // The last stripe is always taken from the end of the input, so the blocks stop one byte short.
    let body = &input[..input.len() - 1];
    for block in body.chunks(STRIPE * STRIPES_PER_BLOCK) {
        for (i, stripe) in block.chunks_exact(STRIPE).enumerate() {
            accumulate(&mut lanes, stripe, 8 * i);
        }
        if block.len() == STRIPE * STRIPES_PER_BLOCK {
            scramble(&mut lanes);
        }
    }
    accumulate(
        &mut lanes,
        &input[input.len() - STRIPE..],
        SECRET.len() - STRIPE - 7,
    );
    let start = (input.len() as u64).wrapping_mul(PRIME64_1);
    avalanche((0..4).fold(start, |sum, i| {
        let low = lanes[2 * i] ^ secret64(11 + 16 * i);
        let high = lanes[2 * i + 1] ^ secret64(11 + 16 * i + 8);
        sum.wrapping_add(fold_multiply(low, high))
    }))
}

fn accumulate(lanes: &mut [u64; 8], stripe: &[u8], secret: usize) {
    for i in 0..8 {
        let value = read64(stripe, 8 * i);
        let keyed = value ^ secret64(secret + 8 * i);
        lanes[i ^ 1] = lanes[i ^ 1].wrapping_add(value);
        lanes[i] = lanes[i].wrapping_add((keyed & 0xFFFF_FFFF).wrapping_mul(keyed >> 32));
    }
}

fn scramble(lanes: &mut [u64; 8]) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        let mixed = *lane ^ *lane >> 47 ^ secret64(SECRET.len() - STRIPE + 8 * i);
        *lane = mixed.wrapping_mul(PRIME32_1);
    }
}

#[inline]
fn mix16(input: &[u8], at: usize, secret: usize) -> u64 {
    // One slice of both words, so that bounds are checked once.
    let input = &input[at..at + 16];
    fold_multiply(
        read64(input, 0) ^ secret64(secret),
        read64(input, 8) ^ secret64(secret + 8),
    )
}

#[inline]
fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn avalanche(mut value: u64) -> u64 {
    value ^= value >> 37;
    value = value.wrapping_mul(PRIME_MX1);
    value ^ value >> 32
}

fn avalanche_xxh64(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(PRIME64_2);
    value ^= value >> 29;
    value = value.wrapping_mul(PRIME64_3);
    value ^ value >> 32
}

#[inline]
fn secret64(at: usize) -> u64 {
    read64(&SECRET, at)
}

#[inline]
fn read64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn read32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The default secret of the specification.
#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];
