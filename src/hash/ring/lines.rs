//! All lines of a ring: the circle cut in equal slices, in chunks that rings share.

use std::cmp::Ordering;
use std::sync::Arc;

use super::line::{CHUNK, Cold, Hot, Id, Line, Point};
use crate::hash::nodes::Node;

/// The fewest lines: with 31 bits of position and 24 of key in a line, no two positions share a
/// place if there are at least 2^7 lines.
const MIN_LINES: u64 = 1 << (POSITION_BITS - KEY_BITS);

/// The circle has 2^31 positions; ties beyond that are broken by name.
const POSITION_BITS: u32 = 31;

pub(super) const KEY_BITS: u32 = 24;

/// The nodes of a ring, by index; `None` where one was removed.
pub(super) type Nodes = [Option<Node>];

/// The points of a ring. See [`Line`] for `N` and `M`.
#[derive(Debug, Clone)]
pub(super) struct Lines<I, const N: usize, const M: usize> {
    pub(super) hot: Vec<Arc<Hot<I, N, M>>>,
    pub(super) cold: Vec<Arc<Cold<N>>>,
}

impl<I: Id, const N: usize, const M: usize> Lines<I, N, M> {
    /// Points for each line in a fresh build: at 12 of 20, 1.2 % of the lines spill.
    const LOAD: u64 = N as u64 * 3 / 5;

    /// How many lines a fresh build has for so many points.
    pub(super) fn lines_for(points: u64) -> u64 {
        let chunk = CHUNK as u64;
        points.div_ceil(Self::LOAD).max(MIN_LINES).div_ceil(chunk) * chunk
    }

    /// Whether so many points still fit the number of lines: up to a fifth more, down to half.
    pub(super) fn suits(&self, points: u64) -> bool {
        let lines = self.lines();
        let sparse = lines > MIN_LINES && points < lines * Self::LOAD / 2;
        points <= lines * Self::LOAD * 6 / 5 && !sparse
    }

    pub(super) fn lines(&self) -> u64 {
        (self.hot.len() * CHUNK) as u64
    }

    /// The owner of a hash. The ring has at least one point.
    #[inline]
    pub(super) fn owner(&self, hash: u64) -> u32 {
        let (line, key) = self.place(hash);
        match self.line(line).owner(key) {
            Some(id) => id.get(),
            None => self.exact_owner(line, key),
        }
    }

    #[cold]
    #[inline(never)]
    fn exact_owner(&self, line: usize, key: u32) -> u32 {
        match self.point(line, self.rank(line, key)) {
            Some(point) => point.node,
            None => self.line(line).successor().get(),
        }
    }

    #[inline]
    pub(super) fn line(&self, line: usize) -> &Line<I, N, M> {
        &self.hot[line / CHUNK][line % CHUNK]
    }

    /// A line and its cold part, to be changed; copies the chunk if it is shared.
    pub(super) fn line_mut(&mut self, line: usize) -> (&mut Line<I, N, M>, &mut Cold<N>) {
        (
            &mut Arc::make_mut(&mut self.hot[line / CHUNK])[line % CHUNK],
            Arc::make_mut(&mut self.cold[line / CHUNK]),
        )
    }

    fn rank(&self, line: usize, key: u32) -> usize {
        self.cold[line / CHUNK].rank(self.line(line), line % CHUNK, key)
    }

    /// The line and the rank of the first point at or after a hash; the rank can be past the end.
    pub(super) fn locate(&self, hash: u64) -> (usize, usize) {
        let (line, key) = self.place(hash);
        (line, self.rank(line, key))
    }

    /// The point at a rank of a line.
    #[inline]
    pub(super) fn point(&self, line: usize, rank: usize) -> Option<Point> {
        self.cold[line / CHUNK].point(self.line(line), line % CHUNK, rank)
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
            let at = (line + lines - back) % lines;
            if self.line(at).successor() == head {
                return;
            }
            let before = &mut Arc::make_mut(&mut self.hot[at / CHUNK])[at % CHUNK];
            before.set_successor(head);
            if !before.is_empty() {
                return;
            }
        }
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        let place = place(hash, self.lines());
        ((place >> KEY_BITS) as usize, key_of(place))
    }

    /// Bytes on the heap, those shared with other rings included.
    pub(super) fn heap(&self) -> usize {
        // An Arc has two counters in front, padded to the alignment of its content.
        let counters = |align: usize| align.max(2 * size_of::<usize>());
        let hot = size_of::<Hot<I, N, M>>() + counters(align_of::<Hot<I, N, M>>());
        let cold = size_of::<Cold<N>>() + counters(align_of::<Cold<N>>());
        (self.hot.capacity() + self.cold.capacity()) * size_of::<usize>()
            + self.hot.len() * hot
            + self.cold.iter().map(|c| cold + c.heap()).sum::<usize>()
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

/// The key within its line of a place.
#[inline]
pub(super) fn key_of(place: u64) -> u32 {
    place as u32 & ((1 << KEY_BITS) - 1)
}

/// The line of a place.
#[inline]
pub(super) fn line_of(place: u64) -> usize {
    (place >> KEY_BITS) as usize
}

/// The order of points in a line: by key, and those of equal key by the names of their nodes, so
/// that neither the order of the input nor the indices decide.
pub(super) fn order(a: Point, b: Point, nodes: &Nodes) -> Ordering {
    let name = |point: Point| {
        let node = nodes.get(point.node as usize)?.as_ref()?;
        Some(&node.name)
    };
    a.key.cmp(&b.key).then_with(|| {
        if a.node == b.node {
            Ordering::Equal
        } else {
            name(a).cmp(&name(b))
        }
    })
}
