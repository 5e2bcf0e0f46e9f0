//! 32 lines in one allocation that rings share, with what lookups seldom need.

use super::line::{Id, Line, STAGED, key_of, low_of, residual};
use super::nodes::{Nodes, order};

/// How many lines share one allocation. A changed node copies each chunk that holds one of its
/// points, and every chunk costs an allocation when a ring is built and a reference count when it
/// is changed: 16 make a build of 1,000 nodes slower by a fifteenth and a change at 10,000 by a
/// third, and a change at 1,000 faster by a twentieth.
pub(super) const CHUNK: usize = 32;

/// A point of a line: its place in the slice (24 bits) and its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) key: u32,
    pub(super) node: u32,
}

/// See [`Line`] for `M`. `LOW` is the most points of a line, or 0 where low bits are not needed.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Chunk<I, const M: usize, const LOW: usize> {
    pub(super) lines: [Line<I, M>; CHUNK],
    /// The low bits of the points in the lines.
    low: [[u16; LOW]; CHUNK],
    /// The points that a full line has no room for, with the line's number: by line, and in order.
    excess: Vec<(u8, Point)>,
}

impl<I: Id, const M: usize, const LOW: usize> Chunk<I, M, LOW> {
    const ROOM: usize = Line::<I, M>::ROOM;

    /// Lines without points.
    pub(super) fn new() -> Self {
        Self {
            lines: [Line::new(I::default()); CHUNK],
            low: [[0; LOW]; CHUNK],
            excess: Vec::new(),
        }
    }

    /// How many points of the line `at` are before `key`.
    pub(super) fn rank(&self, at: usize, key: u32) -> usize {
        self.rank_where(at, key, |point| point.key < key)
    }

    /// How many points of the line `at` are `before` one with this key.
    fn rank_where(&self, at: usize, key: u32, before: impl Fn(Point) -> bool) -> usize {
        let mut rank = self.lines[at].rank(residual(key));
        while self.point(at, rank).is_some_and(&before) {
            rank += 1;
        }
        rank
    }

    /// The point at a rank of the line `at`, or none past the last one.
    #[inline]
    pub(super) fn point(&self, at: usize, rank: usize) -> Option<Point> {
        let line = &self.lines[at];
        if rank < line.len() {
            let (residual, id) = line.at(rank);
            let low = self.low[at].get(rank).copied().unwrap_or(0);
            return Some(Point {
                key: key_of(residual, low),
                node: id.get(),
            });
        }
        let (of, point) = self.excess.get(self.excess_at(at, rank)?)?;
        (usize::from(*of) == at).then_some(*point)
    }

    /// Where in the excess the point of a rank is, if it were there; none if lines have room for it.
    fn excess_at(&self, at: usize, rank: usize) -> Option<usize> {
        let past = rank.checked_sub(Self::ROOM)?;
        let before = |(of, _): &(u8, Point)| usize::from(*of) < at;
        Some(self.excess.partition_point(before) + past)
    }

    /// Puts a point in the line `at`. `nodes` names all nodes that have points.
    pub(super) fn insert(&mut self, at: usize, point: Point, nodes: &Nodes) {
        let before = |other| order(other, point, nodes).is_lt();
        let rank = self.rank_where(at, point.key, before);
        if let Some(place) = self.excess_at(at, rank) {
            self.excess.insert(place, (at as u8, point));
            return;
        }
        let last = Self::ROOM - 1;
        if let Some(pushed) = self.point(at, last) {
            self.lines[at].remove(last);
            if let Some(place) = self.excess_at(at, Self::ROOM) {
                self.excess.insert(place, (at as u8, pushed));
            }
        }
        self.put(at, rank, point);
    }

    /// Puts a point at a rank of the line `at`, which has room.
    fn put(&mut self, at: usize, rank: usize, point: Point) {
        let len = self.lines[at].len();
        self.lines[at].insert(rank, residual(point.key), I::new(point.node));
        if let Some(low) = self.low[at].get_mut(rank..=len) {
            low.rotate_right(1);
            low[0] = low_of(point.key);
        }
    }

    /// Takes a point out of the line `at`, if it is there.
    pub(super) fn remove(&mut self, at: usize, point: Point) {
        let mut rank = self.rank(at, point.key);
        while self.point(at, rank).is_some_and(|other| other != point) {
            rank += 1;
        }
        if self.point(at, rank).is_none() {
            return;
        }
        if let Some(place) = self.excess_at(at, rank) {
            self.excess.remove(place);
            return;
        }
        let next = self.point(at, Self::ROOM);
        let len = self.lines[at].len();
        self.lines[at].remove(rank);
        if let Some(low) = self.low[at].get_mut(rank..len) {
            low.rotate_left(1);
        }
        if let (Some(next), Some(place)) = (next, self.excess_at(at, Self::ROOM)) {
            self.excess.remove(place);
            self.put(at, Self::ROOM - 1, next);
        }
    }

    /// Makes the line `at` anew of points in no order: see [`Line::fill`].
    #[inline]
    pub(super) fn fill(
        &mut self,
        at: usize,
        points: (&[u64; STAGED], &[i16; STAGED], &[u16; STAGED]),
        count: usize,
        successor: I,
    ) {
        self.lines[at] = Line::new(successor);
        self.lines[at].fill(points, count, &mut self.low[at]);
    }

    /// Bytes on the heap beside the chunk's own allocation.
    pub(super) fn heap(&self) -> usize {
        self.excess.capacity() * size_of::<(u8, Point)>()
    }
}
