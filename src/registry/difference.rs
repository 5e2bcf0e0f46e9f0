//! A text as it comes in, told by what is new in it.
//!
//! Some servers answer every change with the whole of what they know. What is
//! like the answer before is compared where it arrives, in the connection's
//! buffer, and neither kept nor copied: of 10 MB with one change, a few
//! kilobytes are.

use std::sync::Arc;

/// A text by its parts: so many bytes of the one before from its front on, what
/// is new, and so many up to its end.
#[derive(Debug, Default)]
#[cfg_attr(
    not(feature = "consul"),
    expect(dead_code, reason = "Eureka tells changes alone")
)]
pub(super) struct Received {
    pub(super) front: usize,
    pub(super) new: Vec<u8>,
    pub(super) back: usize,
}

/// Takes a text piece by piece.
pub(super) struct Difference {
    /// The text before.
    like: Arc<Vec<u8>>,
    front: usize,
    new: Vec<u8>,
    /// The part of `like` that has come after `new`, once its place was found.
    back: Option<(usize, usize)>,
    /// When its place is sought next, by the length of `new`.
    seek_at: usize,
}

/// How much that is new is collected until the place is sought where the text
/// goes on as before; after each failure, twice as much.
const SEEK: usize = 4096;
/// What is sought: more than one entry of a list, so that it is in one place.
const MARK: usize = 1024;
/// How far from where it would be if nothing had come or gone.
const REACH: usize = 64 * 1024;

impl Difference {
    pub(super) fn from(like: Arc<Vec<u8>>) -> Self {
        Self {
            like,
            front: 0,
            new: Vec::new(),
            back: None,
            seek_at: SEEK,
        }
    }

    /// Takes what comes next. O(its length).
    pub(super) fn push(&mut self, piece: &[u8]) {
        let mut piece = piece;
        while !piece.is_empty() {
            if let Some((from, to)) = self.back {
                let more = common_prefix(&self.like[to..], piece);
                piece = &piece[more..];
                if piece.is_empty() {
                    self.back = Some((from, to + more));
                    return;
                }
                // It goes on as nowhere before.
                self.new.extend_from_slice(&self.like[from..to + more]);
                self.back = None;
                self.seek_at = self.new.len() + SEEK;
            } else if self.new.is_empty() {
                let more = common_prefix(&self.like[self.front..], piece);
                self.front += more;
                piece = &piece[more..];
            }
            let taken = piece.len().min(self.seek_at - self.new.len());
            self.new.extend_from_slice(&piece[..taken]);
            piece = &piece[taken..];
            if self.new.len() == self.seek_at {
                self.seek();
            }
        }
    }

    fn seek(&mut self) {
        let mark = &self.new[self.new.len() - MARK..];
        let expected = self.front + self.new.len() - MARK;
        let first = expected.saturating_sub(REACH).max(self.front);
        let last = (expected + REACH + MARK).min(self.like.len());
        let found = self
            .like
            .get(first..last)
            .and_then(|part| part.windows(MARK).position(|window| window == mark));
        match found {
            Some(at) => {
                let from = first + at;
                self.new.truncate(self.new.len() - MARK);
                self.back = Some((from, from + MARK));
            }
            None => self.seek_at *= 2,
        }
    }

    /// The text has come to its end.
    pub(super) fn finish(self) -> Received {
        let Self {
            like,
            front,
            mut new,
            back,
            ..
        } = self;
        let mut from = like.len();
        match back {
            Some((back, to)) if to == like.len() => from = back,
            Some((back, to)) => new.extend_from_slice(&like[back..to]),
            None => {}
        }
        let alike = common_suffix(&like[front..from], &new);
        new.truncate(new.len() - alike);
        Received {
            front,
            new,
            back: like.len() - from + alike,
        }
    }
}

impl Received {
    #[cfg(all(any(test, fuzzing), feature = "consul"))]
    pub(super) fn of(text: &[u8], like: Arc<Vec<u8>>) -> Self {
        let mut difference = Difference::from(like);
        difference.push(text);
        difference.finish()
    }

    /// The text, of which `like` was the one before.
    #[cfg(any(test, feature = "consul"))]
    pub(super) fn whole(&self, like: &[u8]) -> Vec<u8> {
        let (front, back) = (&like[..self.front], &like[like.len() - self.back..]);
        [front, &self.new, back].concat()
    }
}

/// In blocks, so that equal ones are compared as the machine does it best.
const BLOCK: usize = 1024;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let whole = BLOCK * blocks.take_while(|(a, b)| a == b).count();
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let bytes = a.iter().rev().zip(b.iter().rev());
    bytes.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn received(like: &[u8], text: &[u8], mut piece: impl FnMut() -> usize) -> Received {
        let mut difference = Difference::from(Arc::new(like.to_vec()));
        let mut rest = text;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
            difference.push(now);
            rest = later;
        }
        difference.finish()
    }

    fn list(rng: &mut Rng, entries: u32) -> Vec<Vec<u8>> {
        let bits = (0..entries).map(|i| (i, rng.bits()));
        bits.map(|(i, bits)| format!("entry {i}: {bits:x} {}", "x".repeat(400)).into_bytes())
            .collect()
    }

    /// Whatever changes and however it comes, the parts make up the text.
    #[test]
    fn the_parts_make_up_the_text() {
        let mut rng = Rng::seeded(7);
        for _ in 0..2_000 {
            let entries = rng.below(100);
            let mut list = list(&mut rng, entries);
            let like = list.concat();
            for _ in 0..rng.below(4) {
                let at = rng.below(list.len() as u32 + 1) as usize;
                match rng.below(3) {
                    0 => list.insert(at, format!("new {}", rng.bits()).into_bytes()),
                    1 if at < list.len() => drop(list.remove(at)),
                    2 if at < list.len() => list[at][0] ^= 1,
                    _ => list.truncate(at),
                }
            }
            let text = list.concat();
            let longest = [1, 100, 10_000, 1 << 20][rng.below(4) as usize];
            let parts = received(&like, &text, || rng.below(longest) as usize);
            assert!(parts.front + parts.back <= like.len());
            assert!(parts.whole(&like) == text);
        }
    }

    #[test]
    fn of_one_change_among_many_that_change_alone_is_new() {
        let mut rng = Rng::seeded(8);
        let mut entries = list(&mut rng, 5_000);
        let like = entries.concat();
        for at in [0, 2_500, 4_999] {
            let was = entries[at].clone();
            for now in [
                b"another".to_vec(),
                Vec::new(),
                [was.as_slice(), b"!"].concat(),
            ] {
                entries[at].clone_from(&now);
                let text = entries.concat();
                let parts = received(&like, &text, || 16_384);
                assert!(
                    parts.new.len() <= now.len() + 16,
                    "{at}: {}",
                    parts.new.len()
                );
                assert!(parts.whole(&like) == text);
            }
            entries[at] = was;
        }
        let same = received(&like, &like, || 16_384);
        assert_eq!((same.front, same.new.len(), same.back), (like.len(), 0, 0));
    }

    #[test]
    fn a_text_that_is_like_none_before_is_all_new() {
        let mut rng = Rng::seeded(9);
        let like = list(&mut rng, 1_000).concat();
        let text: Vec<u8> = (0..1 << 20).map(|_| rng.bits() as u8).collect();
        let parts = received(&like, &text, || 16_384);
        assert!(parts.new.len() + 16 > text.len());
        assert!(parts.whole(&like) == text);
        assert_eq!(received(&[], &text, || 16_384).new, text);
    }
}
