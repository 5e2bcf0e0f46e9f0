//! One line of the ring: the points of one equal slice of the circle, in one cache line.
//!
//! A point's place in its slice has 24 bits. The top 8 are the *residual*, kept in the hot line
//! beside the nodes; the low 16 are kept in [`Cold`], since only a key whose residual equals a
//! point's needs them (load / 256, one lookup in 20). That keeps the answer exact, and what a
//! lookup touches at 5.3 bytes for each point: at 1.6 million points the hot lines still fit what
//! the TLB covers. Residuals of 16 bits would save the mispredicted branch of that one lookup, but
//! make lines of 15 points; measured, the memory costs more (55 ns against 35 a lookup).
//!
//! ```text
//! points of the line   (residual, low): (07, 1f00)=c  (3a, 0004)=a  (3a, 9000)=b
//! residuals            07 3a 3a ff ff ff ...
//! nodes                 c  a  b  s  .  .  ...         s = owner of the next point after the line
//! key 05 -> rank 0 -> c     key 20 -> rank 1 -> a     key 90 -> rank 3 -> s
//! key (3a, 0100) -> equal residual: the low parts decide -> b
//! ```

use std::hint::select_unpredictable;

/// How many lines share one allocation. A changed node copies each chunk that holds one of its
/// points (16 lines are 1.7 KiB), and every chunk costs two reference counts: 16 balances the two
/// between 160 thousand and 1.6 million points.
pub(super) const CHUNK: usize = 16;

/// Marks a line whose points are in [`Cold::spilled`].
const SPILLED: u8 = u8::MAX;

/// A node's index, as narrow as the ring allows.
pub(super) trait Id: Copy + Default + PartialEq + std::fmt::Debug {
    /// How many indices there are.
    const LIMIT: u64;
    fn new(index: u32) -> Self;
    fn get(self) -> u32;
}

impl Id for u16 {
    const LIMIT: u64 = 1 << 16;
    #[inline]
    fn new(index: u32) -> Self {
        index as u16
    }
    #[inline]
    fn get(self) -> u32 {
        self.into()
    }
}

/// 24 bits, so that 15 points still fit a cache line when a ring has more than 65,536 nodes.
pub(super) type U24 = [u8; 3];

impl Id for U24 {
    const LIMIT: u64 = 1 << 24;
    #[inline]
    fn new(index: u32) -> Self {
        let [a, b, c, _] = index.to_le_bytes();
        [a, b, c]
    }
    #[inline]
    fn get(self) -> u32 {
        let [a, b, c] = self;
        u32::from_le_bytes([a, b, c, 0])
    }
}

/// A point of a line: its place in the slice (24 bits) and its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) key: u32,
    pub(super) node: u32,
}

/// The part of a line that lookups read.
///
/// `N` residuals and `M = N + 1` nodes: 64 bytes for `u16` with 20 and `U24` with 15.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<I, const N: usize, const M: usize> {
    /// `nodes[count]` is the owner of the first point after the line, so that a rank past the
    /// last point needs no branch. A spilled line has its first node in front, its successor last.
    nodes: [I; M],
    /// Sorted; unused ones are the greatest, which no residual is above.
    residuals: [u8; N],
    count: u8,
}

/// The lookups' part of [`CHUNK`] lines, in one allocation that rings share.
pub(super) type Hot<I, const N: usize, const M: usize> = [Line<I, N, M>; CHUNK];

/// The rest of [`CHUNK`] lines, in an allocation of its own so that hot lines lie densely.
#[derive(Debug, Clone)]
pub(super) struct Cold<const N: usize> {
    low: [[u16; N]; CHUNK],
    /// Lines with more than `N` points (about 1 % of them), in no order.
    spilled: Option<Box<Spilled>>,
}

type Spilled = Vec<(u8, Vec<Point>)>;

impl<I: Id, const N: usize, const M: usize> Line<I, N, M> {
    pub(super) fn new() -> Self {
        Self {
            nodes: [I::default(); M],
            residuals: [u8::MAX; N],
            count: 0,
        }
    }

    /// The owner of the first point at or after `key`; `None` if the cold part must decide.
    #[inline]
    pub(super) fn owner(&self, key: u32) -> Option<I> {
        let residual = (key >> 16) as u8;
        let rank = self.rank(residual);
        let decided = self.count != SPILLED && self.residuals.get(rank) != Some(&residual);
        decided.then(|| self.nodes[rank])
    }

    /// How many residuals are below `residual`.
    ///
    /// They are sorted, so a few comparisons find eight that the rank is in, and those are compared
    /// at once: half the time of comparing all with baseline x86-64 instructions, and no branch.
    /// For 20 residuals the eight start at 0, 6 or 12.
    #[inline]
    fn rank(&self, residual: u8) -> usize {
        const HIGH: u64 = 0x8080_8080_8080_8080;
        let steps = const { N.div_ceil(8) - 1 };
        let step = const { (N - 8) / (N.div_ceil(8) - 1) };
        let skip = |i| {
            let below = self.residuals[step * i + 7] < residual;
            select_unpredictable(below, step, 0)
        };
        let start: usize = (0..steps).map(skip).sum();
        let mut word = [0; 8];
        word.copy_from_slice(&self.residuals[start..start + 8]);
        let word = u64::from_le_bytes(word);
        let same = u64::from(residual) * 0x0101_0101_0101_0101;
        // The high bit of each byte says whether it is at least `residual`: by its low seven bits
        // where the high bits are equal, by its high bit where not.
        let by_low = (word | HIGH) - (same & !HIGH);
        let at_least = ((word & !same) | (!(word ^ same) & by_low)) & HIGH;
        start + at_least.trailing_zeros() as usize / 8
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The owner of the line's start: its first point's node, or its successor if it has no point.
    pub(super) fn head(&self) -> I {
        self.nodes[0]
    }

    /// The owner of the first point after the line.
    pub(super) fn successor(&self) -> I {
        self.nodes[self.successor_at()]
    }

    pub(super) fn set_successor(&mut self, id: I) {
        self.nodes[self.successor_at()] = id;
    }

    fn successor_at(&self) -> usize {
        usize::from(self.count).min(N)
    }
}

impl<const N: usize> Cold<N> {
    pub(super) fn new() -> Self {
        Self {
            low: [[0; N]; CHUNK],
            spilled: None,
        }
    }

    /// How many points of `line`, which is the chunk's `at`-th, are before `key`.
    pub(super) fn rank<I: Id, const M: usize>(
        &self,
        line: &Line<I, N, M>,
        at: usize,
        key: u32,
    ) -> usize {
        if let Some(points) = self.spill(line, at) {
            return points.partition_point(|point| point.key < key);
        }
        let (residual, low) = ((key >> 16) as u8, key as u16);
        let count = usize::from(line.count);
        let mut rank = line.rank(residual);
        while rank < count && line.residuals[rank] == residual && self.low[at][rank] < low {
            rank += 1;
        }
        rank
    }

    /// The point at a rank of `line`, or none past the last one.
    #[inline]
    pub(super) fn point<I: Id, const M: usize>(
        &self,
        line: &Line<I, N, M>,
        at: usize,
        rank: usize,
    ) -> Option<Point> {
        if line.count == SPILLED {
            return self.spill(line, at)?.get(rank).copied();
        }
        (rank < usize::from(line.count)).then(|| Point {
            key: u32::from(line.residuals[rank]) << 16 | u32::from(self.low[at][rank]),
            node: line.nodes[rank].get(),
        })
    }

    /// Replaces the points of `line` by `points`, which are in order.
    pub(super) fn write<I: Id, const M: usize>(
        &mut self,
        line: &mut Line<I, N, M>,
        at: usize,
        points: &[Point],
        successor: I,
    ) {
        if let Some(spilled) = &mut self.spilled {
            spilled.retain(|(of, _)| usize::from(*of) != at);
        }
        line.residuals = [u8::MAX; N];
        if points.len() > N {
            line.count = SPILLED;
            line.nodes[0] = I::new(points[0].node);
            line.nodes[N] = successor;
            let spilled = self.spilled.get_or_insert_default();
            spilled.push((at as u8, points.to_vec()));
            return;
        }
        line.count = points.len() as u8;
        for (i, point) in points.iter().enumerate() {
            line.residuals[i] = (point.key >> 16) as u8;
            line.nodes[i] = I::new(point.node);
            self.low[at][i] = point.key as u16;
        }
        line.nodes[points.len()] = successor;
    }

    /// [`write`](Self::write) for a line never written before, from points in no order.
    ///
    /// Each point's rank is how many keys are below its own. One key at a time is compared with all
    /// others: no branch, and the compiler makes vector code of it. Keys past `count` must be
    /// `i32::MAX`. Returns false, with the line still empty, if two keys are equal: they need the
    /// names to be put in order.
    pub(super) fn write_unsorted<I: Id, const M: usize>(
        &mut self,
        line: &mut Line<I, N, M>,
        at: usize,
        count: usize,
        (keys, nodes): (&[i32; N], &[I; N]),
        successor: I,
    ) -> bool {
        let mut ranks = [0i32; N];
        for &key in keys.iter().take(count) {
            for (rank, &other) in ranks.iter_mut().zip(keys) {
                *rank += i32::from(key < other);
            }
        }
        let sum: i32 = ranks.iter().take(count).sum();
        // Distinct keys have the ranks 0, 1, 2, …; equal ones share the lowest.
        if sum as usize != count * count.saturating_sub(1) / 2 {
            return false;
        }
        let low = &mut self.low[at];
        for ((&rank, &key), &node) in ranks.iter().zip(keys).zip(nodes).take(count) {
            let rank = rank as usize;
            line.residuals[rank] = (key >> 16) as u8;
            line.nodes[rank] = node;
            low[rank] = key as u16;
        }
        line.count = count as u8;
        line.nodes[count] = successor;
        true
    }

    fn spill<I, const M: usize>(&self, line: &Line<I, N, M>, at: usize) -> Option<&[Point]> {
        if line.count != SPILLED {
            return None;
        }
        let spilled = self.spilled.as_ref()?;
        let found = spilled.iter().find(|(of, _)| usize::from(*of) == at);
        found.map(|(_, points)| points.as_slice())
    }

    /// Bytes on the heap beside the chunk's own allocation.
    pub(super) fn heap(&self) -> usize {
        let points = |(_, points): &(u8, Vec<Point>)| points.capacity() * size_of::<Point>();
        self.spilled.as_ref().map_or(0, |spilled| {
            size_of::<Spilled>()
                + spilled.capacity() * size_of::<(u8, Vec<Point>)>()
                + spilled.iter().map(points).sum::<usize>()
        })
    }
}
