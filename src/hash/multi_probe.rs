//! Multi-probe hashing: one point for each node, several for each key.
//!
//! **The problem.** A ring is even only with hundreds of points for each node; at a hundred
//! thousand nodes that is memory, and time for every build.
//!
//! **The idea.** Give each node one point and hash the key `k` times; the probe that is closest
//! before a point wins. Long gaps attract no more keys than short ones, for a probe in a long gap
//! is seldom the closest. With `k = 21` the largest share is about 1.05 of the mean
//! ([Appleton and O'Reilly 2015]). A changed node moves only keys that it gains or loses.
//!
//! A node of weight `w` has `w` points, so weights should be small: divide them if you can.
//!
//! ```
//! use waypost::hash::MultiProbe;
//!
//! let table = MultiProbe::new([("a:80", 1), ("b:80", 1)])?;
//! assert!(table.lookup_key(b"user:42").is_some());
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [Appleton and O'Reilly 2015]: https://arxiv.org/abs/1505.00062

use super::key::{mix, scale};
use super::nodes;
use super::{Table, TableError, key_hash};

/// A ring of few points that a key probes several times. See the [module](self).
///
/// | operation | time |
/// |---|---|
/// | [`lookup`](Self::lookup) | O(probes) expected |
/// | [`new`](Self::new) | O(points · log points) |
/// | memory | 20 bytes for each point |
#[derive(Debug, Clone)]
pub struct MultiProbe {
    /// Sorted by position; of two at the same, the smaller name is in front.
    points: Vec<(u64, u32)>,
    /// For each equal slice of the circle, the first point at or after its start.
    starts: Vec<u32>,
    probes: u32,
    nodes: usize,
}

impl MultiProbe {
    /// Probes for each key in a table made by [`new`](Self::new): the paper's choice for 1.05.
    pub const DEFAULT_PROBES: u32 = 21;

    /// The most points that all nodes may have together.
    const MAX_POINTS: u64 = 1 << 24;

    /// Builds a table that is probed [`DEFAULT_PROBES`](Self::DEFAULT_PROBES) times for each key.
    ///
    /// # Errors
    ///
    /// No nodes, all weights zero, a name that appears twice, or weights of more than 2^24
    /// together.
    pub fn new<S: AsRef<str>>(
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::with_probes(Self::DEFAULT_PROBES, nodes)
    }

    /// Builds a table that is probed `probes` times for each key; 0 counts as 1.
    ///
    /// The largest share is about `1 + 1 / (probes - 1)` of the mean.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_probes<S: AsRef<str>>(
        probes: u32,
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        let nodes = nodes::collect(nodes, Self::MAX_POINTS)?;
        let weights = nodes.iter().flatten().map(|node| u64::from(node.weight));
        let count: u64 = weights.sum();
        if count > Self::MAX_POINTS {
            let (points, limit) = (count, Self::MAX_POINTS);
            return Err(TableError::TooManyPoints { points, limit });
        }
        let mut points = Vec::with_capacity(count as usize);
        for (index, node) in (0..).zip(nodes.iter().flatten()) {
            points.extend((0..node.weight).map(|r| (mix(node.hash, r.into()), index)));
        }
        points.sort_unstable_by(|a, b| {
            let name = |index: u32| nodes.get(index as usize).map(|node| node.name);
            a.0.cmp(&b.0).then_with(|| name(a.1).cmp(&name(b.1)))
        });
        let mut starts = Vec::with_capacity(points.len());
        for slice in 0..points.len() as u64 {
            let mut at = starts.last().map_or(0, |&at: &u32| at as usize);
            let before = |position| scale(position, points.len() as u64) < slice;
            while points
                .get(at)
                .is_some_and(|&(position, _)| before(position))
            {
                at += 1;
            }
            starts.push(at as u32);
        }
        Ok(Self {
            points,
            starts,
            probes: probes.max(1),
            nodes: nodes.len(),
        })
    }

    /// The node that owns a hash. Always `Some`. O(probes) expected.
    #[inline]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        self.closest(hash, |_| true)
    }

    /// The node that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.points.capacity() * size_of::<(u64, u32)>() + self.starts.capacity() * 4
    }

    /// The node of the accepted point that a probe comes closest to from before.
    #[inline]
    fn closest(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let (mut least, mut owner) = (u64::MAX, None);
        for probe in 0..self.probes {
            let probe = mix(hash, probe.into());
            let (before, from) = self.points.split_at(self.next(probe));
            // No point is accepted for the first probe only if none is for any.
            let mut points = from.iter().chain(before);
            let &(position, node) = points.find(|point| accept(point.1))?;
            // Wraps where the next point is before the probe.
            let distance = position.wrapping_sub(probe);
            if distance < least || owner.is_none() {
                (least, owner) = (distance, Some(node));
            }
        }
        owner
    }

    /// The first point at or after a position.
    fn next(&self, position: u64) -> usize {
        let slice = scale(position, self.points.len() as u64) as usize;
        let mut at = self.starts[slice] as usize;
        while self.points.get(at).is_some_and(|point| point.0 < position) {
            at += 1;
        }
        if at == self.points.len() { 0 } else { at }
    }
}

impl Table for MultiProbe {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.nodes
    }

    /// The owner in a table of the accepted nodes alone, so only keys of the others move. O(probes)
    /// expected while a good part is accepted, O(points) if none is.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.closest(hash, accept)
    }
}
