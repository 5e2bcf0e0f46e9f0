//! A million distinct keys of 8 to 64 bytes, and small tools to time with.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const COUNT: usize = 1_000_000;

/// Keys in one buffer, in the order they are read.
pub(crate) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for index in 0..COUNT as u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let len = 8 + (random >> 40) as usize % 57;
            let start = bytes.len();
            bytes.extend(index.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
            while bytes.len() < start + len {
                bytes.push(b'a' + (bytes.len() % 26) as u8);
            }
            ends.push(bytes.len() as u32);
        }
        Self { bytes, ends }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.bytes[start..end as usize];
            start = end as usize;
            key
        })
    }

    /// Nanoseconds for each key: the least of `rounds` passes over all keys.
    pub(crate) fn stream(&self, rounds: usize, mut lookup: impl FnMut(&[u8]) -> usize) -> f64 {
        let pass = least(rounds, || {
            let mut sum = 0;
            for key in self.iter() {
                sum += lookup(key);
            }
            black_box(sum);
        });
        pass.as_secs_f64() * 1e9 / COUNT as f64
    }
}

/// Nanoseconds for each key where the next key waits for the last answer.
pub(crate) fn chain(rounds: usize, mut lookup: impl FnMut(&[u8]) -> usize) -> f64 {
    let pass = least(rounds, || {
        let mut key = [0u8; 24];
        let mut answer = 0usize;
        for index in 0..COUNT / 4 {
            let word = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ answer as u64;
            key[..8].copy_from_slice(&word.to_le_bytes());
            answer = lookup(&key);
        }
        black_box(answer);
    });
    pass.as_secs_f64() * 1e9 / (COUNT / 4) as f64
}

/// The least time of `rounds` runs.
pub(crate) fn least(rounds: usize, mut run: impl FnMut()) -> Duration {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..rounds)
        .map(|_| time(&mut run))
        .min()
        .unwrap_or_default()
}

pub(crate) fn address(index: usize) -> SocketAddr {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 8080))
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| address(index).to_string()).collect()
}

/// The index that an address was made of.
#[inline]
pub(crate) fn index(address: Option<SocketAddr>) -> usize {
    match address {
        Some(SocketAddr::V4(address)) => (address.ip().to_bits() & 0xFF_FFFF) as usize,
        _ => 0,
    }
}
