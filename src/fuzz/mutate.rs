//! Breaks bytes in ways that servers, networks and files break them.

use crate::rng::Rng;

/// What text and JSON are held together by, and numbers at their edges.
const PIECES: [&[u8]; 20] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"65536",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"\\u0000",
    b"\xff",
    b"\n",
    b"..",
    b"\xc3\xa4",
];

/// A mutant of `bytes`; `other` is what a piece may come from.
pub(super) fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let Some(at) = place(bytes, rng) else {
        bytes.extend_from_slice(other);
        return;
    };
    match rng.below(9) {
        0 => bytes[at] = rng.below(256) as u8,
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end(bytes, at, rng))),
        4 => {
            let piece = PIECES[rng.below(PIECES.len() as u32) as usize];
            bytes.splice(at..at, piece.iter().copied());
        }
        5 => {
            let piece = PIECES[rng.below(PIECES.len() as u32) as usize];
            let end = end(bytes, at, rng);
            bytes.splice(at..end, piece.iter().copied());
        }
        6 => {
            let copy = bytes[at..end(bytes, at, rng)].to_vec();
            let to = rng.below(bytes.len() as u32) as usize;
            bytes.splice(to..to, copy);
        }
        7 => number(bytes, at, rng),
        _ => {
            if let Some(from) = place(other, rng) {
                let piece = other[from..end(other, from, rng)].to_vec();
                let end = end(bytes, at, rng);
                bytes.splice(at..end, piece);
            }
        }
    }
}

fn place(bytes: &[u8], rng: &mut Rng) -> Option<usize> {
    (!bytes.is_empty()).then(|| rng.below(bytes.len() as u32) as usize)
}

/// The end of a piece that begins there: most are short.
fn end(bytes: &[u8], at: usize, rng: &mut Rng) -> usize {
    let longest = [4, 32, 256][rng.below(3) as usize];
    (at + 1 + rng.below(longest) as usize).min(bytes.len())
}

/// Puts another number in the place of the next one.
fn number(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let from = at + from;
    let digits = bytes[from..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let to = from + digits.count();
    let edges = [0, 1, 255, 65_535, 65_536, u64::from(u32::MAX), u64::MAX];
    let number = edges[rng.below(edges.len() as u32) as usize].to_string();
    bytes.splice(from..to, number.into_bytes());
}
