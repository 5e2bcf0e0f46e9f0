//! One line of the ring: the points of one equal slice of the circle, in one cache line.
//!
//! A point's place in its slice has 24 bits. The top 15, its *residual*, are in the line beside
//! the nodes, and decide for all keys but those whose residual equals a point's: one of 3,300. The
//! low 9 are kept apart, in the line's [`Chunk`](super::chunk::Chunk); with 65,536 lines or more
//! there are none, for then line and residual have all bits of the position. Residuals of 8 bits
//! would make the lines denser by a fifth, but one lookup in 20 would then guess its branch wrongly
//! after it has waited for memory, and wait again: compared by words as here, 7 to 8 ns a lookup
//! against 3.5 at 160 thousand points, and 16 or more against 5 to 7 at 1.6 million.
//!
//! ```text
//! points of the line   residuals 07d0=c  3a00=a  6b12=b
//! lanes (7fff - res.)  782f 45ff 14ed 0000 0000 ...  3    the last lane holds the number of points
//! nodes                   c    a    b    s    s ...  s    s = owner of the next point after the line
//! key 0500 -> rank 0 -> c     key 2000 -> rank 1 -> a     key 7000 -> rank 3 -> s
//! ```
//!
//! A key `k` is behind a point if `k > residual`, that is if `lane + k` reaches 2^15: the top bit
//! of each lane of a sum tells, four lanes to a word, and no lane ever carries into the next.

/// The residual that no key is behind: lanes are differences to it.
pub(super) const TOP: u16 = (1 << RESIDUAL_BITS) - 1;
const RESIDUAL_BITS: u32 = 15;

/// The bits of a key in a line: its residual and the low ones.
pub(super) const KEY_BITS: u32 = RESIDUAL_BITS + LOW_BITS;
pub(super) const LOW_BITS: u32 = 9;

/// A node's index, as narrow as the ring allows.
pub(super) trait Id: Copy + Default + PartialEq + std::fmt::Debug {
    const BITS: u32;
    /// How many indices there are.
    const LIMIT: u64 = 1 << Self::BITS;
    fn new(index: u32) -> Self;
    fn get(self) -> u32;
}

impl Id for u16 {
    const BITS: u32 = 16;
    #[inline]
    fn new(index: u32) -> Self {
        index as u16
    }
    #[inline]
    fn get(self) -> u32 {
        self.into()
    }
}

/// 24 bits, so that 11 points still fit a cache line when a ring has more than 65,536 nodes.
pub(super) type U24 = [u8; 3];

impl Id for U24 {
    const BITS: u32 = 24;
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

/// The part of a line that lookups read: up to `M - 1` points.
///
/// 64 bytes for `u16` with 16 lanes and for `U24` with 12. `M` is a multiple of 4.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line<I, const M: usize> {
    /// Falling, as the residuals rise; unused ones are 0. The last one is the number of points.
    lanes: [u16; M],
    /// From the last point on, the owner of the first point after the line, so that a rank past
    /// the last point needs no branch.
    nodes: [I; M],
}

impl<I: Id, const M: usize> Line<I, M> {
    /// The most points of a line.
    pub(super) const ROOM: usize = M - 1;

    /// A line without points.
    pub(super) fn new(successor: I) -> Self {
        Self {
            lanes: [0; M],
            nodes: [successor; M],
        }
    }

    /// The owner of the first point at or after a key with this residual; `None` if the chunk must
    /// decide: a point has the same residual, or all points of a full line are before the key, and
    /// the chunk may have more.
    #[inline]
    pub(super) fn owner(&self, residual: u16) -> Option<I> {
        let rank = self.rank(residual);
        let decided = rank < Self::ROOM && self.lanes[rank] + residual != TOP;
        decided.then(|| self.nodes[rank])
    }

    /// How many residuals are below `residual`, up to all `M - 1`.
    ///
    /// The compiler makes two 16-byte vectors of the four words, with baseline instructions.
    #[inline]
    pub(super) fn rank(&self, residual: u16) -> usize {
        const ONES: u64 = 0x0001_0001_0001_0001;
        let mut behind = 0;
        for word in 0..M / 4 {
            let lane = |i: usize| u64::from(self.lanes[4 * word + i]) << (16 * i);
            let lanes = lane(0) | lane(1) | lane(2) | lane(3);
            // The number of points in the last lane is no residual.
            let ones = if word == M / 4 - 1 { ONES >> 16 } else { ONES };
            behind += lanes.wrapping_add(u64::from(residual) * ONES) >> RESIDUAL_BITS & ones;
        }
        (behind.wrapping_mul(ONES) >> 48) as usize
    }

    /// The number of points here, which are the first of the slice.
    pub(super) fn len(&self) -> usize {
        usize::from(self.lanes[Self::ROOM]).min(Self::ROOM)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The owner of the line's start: its first point's node, or its successor if it has no point.
    pub(super) fn head(&self) -> I {
        self.nodes[0]
    }

    /// The owner of the first point after the line.
    pub(super) fn successor(&self) -> I {
        self.nodes[Self::ROOM]
    }

    pub(super) fn set_successor(&mut self, id: I) {
        let len = self.len();
        self.nodes[len..].fill(id);
    }

    /// The residual and the node at a rank below [`len`](Self::len).
    pub(super) fn at(&self, rank: usize) -> (u16, I) {
        (TOP - self.lanes[rank], self.nodes[rank])
    }

    /// Puts a point at a rank; there is room for it.
    pub(super) fn insert(&mut self, rank: usize, residual: u16, id: I) {
        let len = self.len();
        self.lanes.copy_within(rank..len, rank + 1);
        self.nodes.copy_within(rank..len, rank + 1);
        self.lanes[rank] = TOP - residual;
        self.nodes[rank] = id;
        self.lanes[Self::ROOM] += 1;
    }

    /// Takes the point at a rank below [`len`](Self::len) away.
    pub(super) fn remove(&mut self, rank: usize) {
        let len = self.len();
        self.lanes.copy_within(rank + 1..len, rank);
        self.nodes.copy_within(rank + 1..=len, rank);
        self.lanes[len - 1] = 0;
        self.lanes[Self::ROOM] -= 1;
    }

    /// Fills an empty line with the first `count` of the words, whose lanes and ranks these are. A
    /// word has the point's node in its low bits and its low bits, which go to `low`, above them.
    #[inline]
    pub(super) fn fill<const LOW: usize>(
        &mut self,
        (words, lanes, ranks): (&[u64; STAGED], &[i16; STAGED], &[u16; STAGED]),
        count: usize,
        low: &mut [u16; LOW],
    ) {
        let successor = self.successor();
        for ((&rank, lane), &word) in ranks.iter().zip(lanes).zip(words).take(Self::ROOM) {
            // The remainder spares the bounds' checks.
            let rank = usize::from(rank) % M;
            self.lanes[rank] = lane.cast_unsigned();
            self.nodes[rank] = I::new(word as u32);
            if let Some(low) = low.get_mut(rank) {
                *low = (word >> I::BITS) as u16;
            }
        }
        self.nodes[count % M] = successor;
        self.lanes[Self::ROOM] = count as u16;
    }
}

/// Words of the points of a line while they are put in order: at least its lanes.
pub(super) const STAGED: usize = 16;

/// The word of no point: it has the greatest residual, whose lane is 0.
pub(super) const UNUSED: u64 = u64::MAX;

/// A key of its two parts; bits of `low` above its own do not count.
#[inline]
pub(super) fn key_of(residual: u16, low: u16) -> u32 {
    u32::from(residual) << LOW_BITS | u32::from(low_of(low.into()))
}

/// The low bits of a key.
#[inline]
pub(super) fn low_of(key: u32) -> u16 {
    key as u16 & ((1 << LOW_BITS) - 1)
}

/// The part of a key that a line knows.
#[inline]
pub(super) fn residual(key: u32) -> u16 {
    residual_of((key >> LOW_BITS).into())
}

/// The residual in the low bits of a word.
#[inline]
pub(super) fn residual_of(word: u64) -> u16 {
    word as u16 & TOP
}
