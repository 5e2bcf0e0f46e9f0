//! Block rendezvous: a vote among 16 nodes that the key's first bits give.
//!
//! **The problem.** A ring of 5,000 nodes with 256 points each gives its luckiest node 28 % more
//! than the mean. Rendezvous hashing over all nodes would be even, and take 5 µs for each key.
//!
//! **The idea.** Cut the circle into blocks and keep, for each, the next 16 distinct nodes on a
//! ring; a key's block gives its candidates, and rendezvous hashing among them the owner. A node's
//! share is then a mean over 16 times as many draws. This is [local rendezvous hashing] with the
//! walk precomputed: a lookup reads one half of a cache line.
//!
//! **What moves.** The candidates are fixed when the table is built. A node that is not accepted
//! by [`find`](Table::find) keeps its place among them, so only its own keys move, to the next
//! scores in the same block, and they come back. When the membership itself changes and the table
//! is built again, a lost node's place goes to the next node on the ring, which wins some keys of
//! the others: about as many as the lost node had. So build again when membership changes, not
//! when health does.
//!
//! All nodes weigh the same: with 16 candidates a node cannot have more than 1/16 of a block. Use a
//! [ring](super::HashRing) for weights.
//!
//! ```
//! use waypost::hash::{BlockHrw, Table};
//!
//! let table = BlockHrw::new(["a:80", "b:80", "c:80"])?;
//! let owner = table.lookup_key(b"user:42").expect("there are nodes");
//! let other = table.find(7, &mut |node| node != owner);
//! assert!(other.is_some());
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [local rendezvous hashing]: https://arxiv.org/abs/2512.23434

use super::compact::Compact;
use super::key::scale;
use super::{HashRing, Table, TableError, key_hash};

/// Rendezvous hashing among fixed candidates. See the [module](self).
///
/// | operation | time |
/// |---|---|
/// | [`lookup`](Self::lookup) | O(16): one half of a cache line |
/// | [`new`](Self::new) | O(16 · points), 256 points for each node |
/// | memory | 1.6 to 3.2 KiB for each node; twice that above 65,536 nodes |
#[derive(Debug, Clone)]
pub struct BlockHrw {
    /// `candidates` nodes for each block, the nearest first.
    table: Compact,
    /// For each node, 32 bits of the hash of its name.
    salts: Vec<u32>,
    blocks: u64,
    candidates: usize,
}

impl BlockHrw {
    /// Candidates for each block. More even the shares little: the lookups get slower first.
    const CANDIDATES: usize = 16;

    /// Points of each node on the ring that gives the candidates.
    const VNODES: u32 = 256;

    /// Blocks for each node: 50 give a largest share of 1.08 of the mean at 5,000 nodes, 13 give
    /// 1.13.
    const BLOCKS_PER_NODE: usize = 50;

    /// Builds the table. A node's index is its place in the input.
    ///
    /// # Errors
    ///
    /// No nodes, a name that appears twice, or more than 131,072 nodes.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::{BlockHrw, TableError};
    ///
    /// assert_eq!(BlockHrw::new([""; 0]).unwrap_err(), TableError::NoNodes);
    /// ```
    pub fn new<S: AsRef<str>>(nodes: impl IntoIterator<Item = S>) -> Result<Self, TableError> {
        let builder = HashRing::builder()
            .vnodes(Self::VNODES)
            .max_points(u64::from(Self::VNODES) << 17);
        let ring = builder.build(nodes.into_iter().map(|name| (name, 1)))?;
        let nodes = ring.len();
        let salt = |node| {
            ring.name(node)
                .map_or(0, |name| (key_hash(name.as_bytes()) >> 32) as u32)
        };
        let blocks = (nodes * Self::BLOCKS_PER_NODE)
            .next_power_of_two()
            .max(1 << 12);
        let candidates = Self::CANDIDATES.min(nodes);
        Ok(Self {
            table: candidates_of(&ring, blocks, candidates),
            salts: (0..nodes as u32).map(salt).collect(),
            blocks: blocks as u64,
            candidates,
        })
    }

    /// The node that owns a hash. Always `Some`. O(16).
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        self.best(hash, |_| true)
    }

    /// The node that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    /// The nodes that own the hashes, in their order; stops at the end of the shorter slice.
    ///
    /// For throughput: at thousands of nodes a lookup waits for memory most of its time, and takes
    /// too many instructions for the processor to run ahead to the next one. Here the first
    /// candidates of 16 blocks are read before any of them is scored, so that the waits overlap.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::BlockHrw;
    ///
    /// let table = BlockHrw::new(["a:80", "b:80", "c:80"])?;
    /// let mut owners = [0; 3];
    /// table.lookup_all(&[7, 8, 9], &mut owners);
    /// assert_eq!(Some(owners[1]), table.lookup(8));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn lookup_all(&self, hashes: &[u64], owners: &mut [u32]) {
        for (hashes, owners) in hashes.chunks(BATCH).zip(owners.chunks_mut(BATCH)) {
            match &self.table {
                Compact::Narrow(ids) => self.batch(ids, hashes, owners),
                Compact::Wide(ids) => self.batch(ids, hashes, owners),
            }
        }
    }

    /// Up to [`BATCH`] lookups in two passes.
    fn batch<I: Copy + Into<u32>>(&self, ids: &[I], hashes: &[u64], owners: &mut [u32]) {
        let mut starts = [0; BATCH];
        for ((start, owner), &hash) in starts.iter_mut().zip(owners.iter_mut()).zip(hashes) {
            *start = scale(hash, self.blocks) as usize * self.candidates;
            *owner = ids[*start].into();
        }
        for ((start, owner), &hash) in starts.into_iter().zip(owners).zip(hashes) {
            let block = &ids[start..start + self.candidates];
            if let Some(best) = highest(block, hash, &self.salts, |_| true) {
                *owner = best;
            }
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.table.heap() + self.salts.capacity() * size_of::<u32>()
    }

    #[inline]
    fn best(&self, hash: u64, accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let start = scale(hash, self.blocks) as usize * self.candidates;
        let block = start..start + self.candidates;
        match &self.table {
            Compact::Narrow(ids) => highest(&ids[block], hash, &self.salts, accept),
            Compact::Wide(ids) => highest(&ids[block], hash, &self.salts, accept),
        }
    }
}

/// Lookups whose waits for memory overlap: as many as a core has misses under way.
const BATCH: usize = 16;

/// The accepted candidate with the highest score.
#[inline]
fn highest<I: Copy + Into<u32>>(
    ids: &[I],
    hash: u64,
    salts: &[u32],
    mut accept: impl FnMut(u32) -> bool,
) -> Option<u32> {
    // A score with the place of its candidate in the low bits, which are above 0: one comparison
    // finds both, and equal scores go to the last candidate.
    let mut best = 0;
    for (place, &id) in (1..).zip(ids) {
        let id = id.into();
        let ranked = (score(hash, salts[id as usize]) & !PLACE) | place;
        let ranked = if accept(id) { ranked } else { 0 };
        best = best.max(ranked);
    }
    let place = (best & PLACE).checked_sub(1)?;
    Some(ids[place as usize].into())
}

/// Room for the places 1 to 16 and for 0, no candidate.
const PLACE: u64 = 31;

/// A candidate's score for a hash. The block takes the top bits of the hash, so the low ones are
/// independent of who the candidates are. Of two candidates each wins for exactly half of them, for
/// `hash ^ salt ^ other` swaps their scores; that leaves one multiplication enough.
#[inline]
fn score(hash: u64, salt: u32) -> u64 {
    u64::from(hash as u32 ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// For each block, the next distinct nodes on the ring from the block's start.
///
/// Goes round backwards with the list of nodes met last: passing a point brings its node to the
/// front.
fn candidates_of(ring: &HashRing, blocks: usize, count: usize) -> Compact {
    let points: Vec<(u64, u32)> = ring.points().collect();
    let mut table = Compact::new(blocks * count, ring.len());
    // After the last point come the first ones.
    let mut recent: Vec<u32> = ring.replicas(0, count).collect();
    let mut points = points.into_iter().rev().peekable();
    for block in (0..blocks).rev() {
        while let Some((_, node)) =
            points.next_if(|&(position, _)| scale(position, blocks as u64) >= block as u64)
        {
            let len = recent.len();
            let at = recent
                .iter()
                .position(|&other| other == node)
                .unwrap_or(len - 1);
            recent[..=at].rotate_right(1);
            recent[0] = node;
        }
        for (slot, &node) in recent.iter().enumerate() {
            table.set(block * count + slot, node);
        }
    }
    table
}

impl Table for BlockHrw {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.salts.len()
    }

    /// The highest score among the accepted candidates of the block; if none of them is, of the
    /// blocks after it, and at last any node. O(16) as long as one of 16 is accepted.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let width = (u64::MAX / self.blocks).saturating_add(1);
        let blocks = (0..self.blocks).map(|block| hash.wrapping_add(block.wrapping_mul(width)));
        // Ten blocks hold far more than the nodes that fail together by chance.
        let near = blocks
            .take(10)
            .find_map(|hash| self.best(hash, &mut *accept));
        near.or_else(|| (0..self.salts.len() as u32).find(|&node| accept(node)))
    }
}
