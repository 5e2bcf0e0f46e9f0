//! All lines of a ring: the circle cut in equal slices, in chunks that rings share.

use std::sync::Arc;

use super::chunk::{CHUNK, Chunk, Point};
use super::line::{Id, KEY_BITS, LOW_BITS, Line, residual};

/// The circle has 2^31 positions; ties beyond that are broken by name.
const POSITION_BITS: u32 = 31;

/// With so many lines no two positions share a key of [`KEY_BITS`] in a line.
const MIN_LINES: u64 = 1 << (POSITION_BITS - KEY_BITS);

/// And with so many none share a residual, so that low bits are not needed.
pub(super) const COARSE_LINES: u64 = MIN_LINES << LOW_BITS;

/// The points of a ring. See [`Line`] for `M` and [`Chunk`] for `LOW`.
#[derive(Debug, Clone)]
pub(super) struct Lines<I, const M: usize, const LOW: usize> {
    pub(super) chunks: Vec<Arc<Chunk<I, M, LOW>>>,
}

impl<I: Id, const M: usize, const LOW: usize> Lines<I, M, LOW> {
    /// Points for each chunk in a fresh build: at 10 of 15 for each line, 5 % of the lines are
    /// crowded, and one key in 100 is behind the points that a full line holds.
    const LOAD: u64 = (Line::<I, M>::ROOM * CHUNK) as u64 * 2 / 3;

    /// The fewest lines.
    const LEAST: u64 = if LOW == 0 { COARSE_LINES } else { MIN_LINES };

    /// Where fewer points make no fresh build smaller. None where low bits are left out for there
    /// being so many lines: with fewer points a fresh build has fewer lines, and the low bits.
    const FLOOR: u64 = if LOW == 0 && I::LIMIT <= u16::LIMIT {
        0
    } else {
        Self::LEAST
    };

    /// How many lines a fresh build has for so many points.
    pub(super) fn lines_for(points: u64) -> u64 {
        let chunk = CHUNK as u64;
        points.div_ceil(Self::LOAD).max(Self::LEAST / chunk) * chunk
    }

    /// Whether so many points still fit the number of lines: up to a fifth more, down to half.
    pub(super) fn suits(&self, points: u64) -> bool {
        let fresh = self.chunks.len() as u64 * Self::LOAD;
        let sparse = self.lines() > Self::FLOOR && points < fresh / 2;
        points <= fresh + fresh / 5 && !sparse
    }

    pub(super) fn lines(&self) -> u64 {
        (self.chunks.len() * CHUNK) as u64
    }

    /// The owner of a hash. The ring has at least one point.
    #[inline]
    pub(super) fn owner(&self, hash: u64) -> u32 {
        let place = place(hash, self.lines());
        match self.line(line_of(place)).owner(residual(place as u32)) {
            Some(id) => id.get(),
            None => self.exact_owner(hash),
        }
    }

    #[cold]
    #[inline(never)]
    fn exact_owner(&self, hash: u64) -> u32 {
        let (line, rank) = self.locate(hash);
        match self.point(line, rank) {
            Some(point) => point.node,
            None => self.line(line).successor().get(),
        }
    }

    #[inline]
    pub(super) fn line(&self, line: usize) -> &Line<I, M> {
        &self.chunks[line / CHUNK].lines[line % CHUNK]
    }

    /// The chunk of a line, to be changed, and the line's place in it; copies it if it is shared.
    pub(super) fn chunk_mut(&mut self, line: usize) -> (&mut Chunk<I, M, LOW>, usize) {
        (Arc::make_mut(&mut self.chunks[line / CHUNK]), line % CHUNK)
    }

    fn rank(&self, line: usize, key: u32) -> usize {
        self.chunks[line / CHUNK].rank(line % CHUNK, key)
    }

    /// The line and the rank of the first point at or after a hash; the rank can be past the end.
    pub(super) fn locate(&self, hash: u64) -> (usize, usize) {
        let place = place(hash, self.lines());
        let (line, key) = (line_of(place), Self::key_of(place));
        (line, self.rank(line, key))
    }

    /// The point at a rank of a line.
    #[inline]
    pub(super) fn point(&self, line: usize, rank: usize) -> Option<Point> {
        self.chunks[line / CHUNK].point(line % CHUNK, rank)
    }

    /// The position and node of the point at a rank of a line.
    pub(super) fn entry(&self, line: usize, rank: usize) -> Option<(u64, u32)> {
        let point = self.point(line, rank)?;
        Some((self.position(line, point.key), point.node))
    }

    /// The position of a key in a line on the circle, as the top bits of a hash.
    fn position(&self, line: usize, key: u32) -> u64 {
        let place = (line as u64) << KEY_BITS | u64::from(key);
        let scaled = place << (POSITION_BITS - KEY_BITS);
        scaled.div_ceil(self.lines()) << (64 - POSITION_BITS)
    }

    /// Sets the successor of every line before `line` that looks at its head, going back.
    ///
    /// Empty lines have their successor as head, so the walk goes on over them; at most once round.
    pub(super) fn spread_head(&mut self, line: usize) {
        let lines = self.lines() as usize;
        let head = self.line(line).head();
        for back in 1..=lines {
            let before = (line + lines - back) % lines;
            if self.line(before).successor() == head {
                return;
            }
            let (chunk, at) = self.chunk_mut(before);
            chunk.lines[at].set_successor(head);
            if !chunk.lines[at].is_empty() {
                return;
            }
        }
    }

    /// The key within its line of a place.
    #[inline]
    pub(super) fn key_of(place: u64) -> u32 {
        let unused = if LOW == 0 { LOW_BITS } else { 0 };
        (place as u32 & ((1 << KEY_BITS) - 1)) >> unused << unused
    }

    /// Bytes on the heap, those shared with other rings included.
    pub(super) fn heap(&self) -> usize {
        // An Arc has two counters in front, padded to the alignment of its content.
        let counters = align_of::<Chunk<I, M, LOW>>().max(2 * size_of::<usize>());
        let chunk = size_of::<Chunk<I, M, LOW>>() + counters;
        self.chunks.capacity() * size_of::<usize>()
            + self.chunks.iter().map(|c| chunk + c.heap()).sum::<usize>()
    }
}

/// Where a hash lies: its line in the bits above 24, its key within the line in those below.
///
/// The product scales the position to any number of lines, not only to powers of two, and keeps
/// the order; that two positions never share a place needs at least [`MIN_LINES`] lines.
#[inline]
pub(super) fn place(hash: u64, lines: u64) -> u64 {
    ((hash >> (64 - POSITION_BITS)) * lines) >> (POSITION_BITS - KEY_BITS)
}

/// The line of a place.
#[inline]
pub(super) fn line_of(place: u64) -> usize {
    (place >> KEY_BITS) as usize
}
