//! The hash ring: each key belongs to the node whose point comes next on a circle.
//!
//! **The problem.** A ring is read far more often than it is built, is rebuilt whenever a weight
//! changes, and at thousands of nodes no longer fits the caches: a binary search over 1.6 million
//! sorted points takes 20 dependent steps, half of them to memory.
//!
//! **The idea.** Points are hashes, so they are uniform, and the place of a key can be computed
//! instead of searched. The circle is cut into equal slices of about 10 points; the points of a
//! slice fill one 64-byte line, and a lookup reads that line and nothing else. Lines lie in chunks
//! of 32 that rings share: changing a node copies the chunks with its points, no others. The same
//! chunks are written by a radix scatter in two passes when a ring is built afresh.
//!
//! **The promises.** The points of a node depend on its name and its weight alone: point `r` is the
//! top 31 bits of the `r`-th number of the [SplitMix64] stream that starts at the name's
//! [`key_hash`], and a greater weight only adds points. So a change of one node moves only keys
//! that this node gains or loses, exactly. Where two points fall on one position the smaller name
//! has it, so neither the order of the input nor the history of changes matters.
//!
//! With `v` points each, `n` nodes get shares with a standard deviation of `1/√v`, and the largest
//! is about `1 + √(2 ln n / v)` of the mean ([Karger et al. 1997]): 8 % and 1.29 at 160 points and
//! 1,000 nodes.
//!
//! ```
//! use waypost::hash::HashRing;
//!
//! let ring = HashRing::new([("a:80", 1), ("b:80", 1), ("c:80", 2)])?;
//! let owner = ring.lookup_key(b"user:42").expect("the ring has nodes");
//! assert!(ring.name(owner).is_some());
//!
//! // Whoever owned a key still does, unless it was the node that left.
//! let without_c = ring.with_node_removed(2)?;
//! if owner != 2 {
//!     assert_eq!(without_c.lookup_key(b"user:42"), Some(owner));
//! }
//! # Ok::<(), waypost::hash::TableError>(())
//! ```
//!
//! [SplitMix64]: https://doi.org/10.1145/2660193.2660195
//! [Karger et al. 1997]: https://doi.org/10.1145/258533.258660

mod build;
mod change;
mod chunk;
mod edit;
mod line;
mod lines;
mod nodes;
mod replicas;

use self::build::Source;
use self::line::{Id, U24};
use self::lines::{COARSE_LINES, Lines};
use self::nodes::Nodes;
pub use self::replicas::Replicas;
use super::nodes::{Node, collect};
use super::{Table, TableError, key_hash};

/// A weighted consistent-hash ring. See the [module](self) for what it promises.
///
/// Immutable: a change gives a new ring that shares most of its memory with the old one, so readers
/// of the old one never wait. Put it in an `Arc` and swap that.
///
/// | operation | time |
/// |---|---|
/// | [`lookup`](Self::lookup) | O(1), one cache line |
/// | [`new`](Self::new) | O(points) |
/// | [`with_node_changed`](Self::with_node_changed) and its siblings | O(points of the node + points / 320) |
/// | memory | about 10.3 bytes for each point, 7.3 from 655,360 points on |
///
/// Two rings are equal if they have the same points with the same names.
#[derive(Clone)]
pub struct HashRing {
    nodes: Nodes,
    points: u64,
    settings: HashRingBuilder,
    wheel: Wheel,
}

/// The points, with indices as narrow as the number of nodes allows, and with low bits only where
/// the lines are so few that they matter.
#[derive(Clone)]
enum Wheel {
    Empty,
    Fine(Lines<u16, 16, 15>),
    Coarse(Lines<u16, 16, 0>),
    Wide(Lines<U24, 12, 0>),
}

/// The same expression for the lines of any wheel that has some.
macro_rules! with_lines {
    ($wheel:expr, $lines:ident => $some:expr, $none:expr) => {
        match $wheel {
            Wheel::Fine($lines) => $some,
            Wheel::Coarse($lines) => $some,
            Wheel::Wide($lines) => $some,
            Wheel::Empty => $none,
        }
    };
}
use with_lines;

/// How a [`HashRing`] turns weights into points.
///
/// All clients that shall agree must use the same numbers for [`vnodes`](Self::vnodes) and
/// [`unit_weight`](Self::unit_weight).
///
/// # Examples
///
/// Weights of about a hundred, as many registries have them:
///
/// ```
/// use waypost::hash::HashRing;
///
/// let ring = HashRing::builder()
///     .unit_weight(100)
///     .build([("a:80", 100), ("b:80", 150)])?;
/// assert_eq!(ring.points().count(), 160 + 240);
/// # Ok::<(), waypost::hash::TableError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRingBuilder {
    vnodes: u32,
    unit_weight: u32,
    max_points: u64,
}

impl HashRing {
    /// Builds a ring with 160 points for each unit of weight.
    ///
    /// A node's index is its place in the input. A node of weight 0 has an index and no points.
    ///
    /// # Errors
    ///
    /// No nodes, all weights zero, a name that appears twice, or too many nodes or points.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::{HashRing, TableError};
    ///
    /// assert!(HashRing::new([("a:80", 1), ("b:80", 0)]).is_ok());
    /// let none: [(&str, u32); 0] = [];
    /// assert_eq!(HashRing::new(none).unwrap_err(), TableError::NoNodes);
    /// ```
    pub fn new<S: AsRef<str>>(
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        Self::builder().build(nodes)
    }

    /// Starts a ring with other settings.
    #[must_use]
    pub fn builder() -> HashRingBuilder {
        HashRingBuilder::default()
    }

    /// The node that owns a hash; `None` if the ring has no points. O(1).
    ///
    /// Only the top 31 bits of the hash are used.
    #[expect(clippy::inline_always, reason = "a call would cost a tenth of it")]
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self, hash: u64) -> Option<u32> {
        // Two cases in line: a table of jumps and the code of a third make calls of lookups.
        match &self.wheel {
            Wheel::Coarse(lines) => Some(lines.owner(hash)),
            Wheel::Fine(lines) => Some(lines.owner(hash)),
            _ => self.lookup_wide(hash),
        }
    }

    #[inline(never)]
    fn lookup_wide(&self, hash: u64) -> Option<u32> {
        with_lines!(&self.wheel, lines => Some(lines.owner(hash)), None)
    }

    /// The node that owns a key: [`lookup`](Self::lookup) of its [`key_hash`].
    #[inline]
    #[must_use]
    pub fn lookup_key(&self, key: &[u8]) -> Option<u32> {
        self.lookup(key_hash(key))
    }

    /// The name of a node; `None` if there is no such node.
    #[must_use]
    pub fn name(&self, node: u32) -> Option<&str> {
        Some(self.node(node)?.name)
    }

    /// The weight of a node; `None` if there is no such node.
    #[must_use]
    pub fn weight(&self, node: u32) -> Option<u32> {
        Some(self.node(node)?.weight)
    }

    /// How it turns weights into points.
    #[must_use]
    pub fn settings(&self) -> HashRingBuilder {
        self.settings
    }

    /// All points in order: the position as the top 31 bits of a hash, and the node.
    ///
    /// A key belongs to the first point at or after its hash.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::HashRing;
    ///
    /// let ring = HashRing::new([("a:80", 1), ("b:80", 1)])?;
    /// let (position, node) = ring.points().next().expect("the ring has points");
    /// assert_eq!(ring.lookup(position), Some(node));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn points(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        (0..self.lines() as usize).flat_map(move |line| {
            (0..).map_while(
                move |rank| with_lines!(&self.wheel, lines => lines.entry(line, rank), None),
            )
        })
    }

    /// Bytes on the heap, those that are shared with other rings included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.nodes.heap() + with_lines!(&self.wheel, lines => lines.heap(), 0)
    }

    fn node(&self, node: u32) -> Option<Node<'_>> {
        self.nodes.get(node)
    }

    fn named_points(&self) -> impl Iterator<Item = (u64, Option<&str>)> {
        self.points()
            .map(|(position, node)| (position, self.name(node)))
    }

    fn lines(&self) -> u64 {
        with_lines!(&self.wheel, lines => lines.lines(), 0)
    }

    /// Builds the wheel for nodes that have been checked, and that have so many points.
    fn assemble(nodes: Nodes, points: u64, settings: HashRingBuilder) -> Self {
        let source = |(index, node): (u32, Option<Node>)| {
            let node = node?;
            Some(Source {
                node: index,
                hash: node.hash,
                points: settings.points_of(node.weight) as u32,
            })
        };
        let sources: Vec<Source> = (0..).zip(nodes.iter()).filter_map(source).collect();
        let wheel = if points == 0 {
            Wheel::Empty
        } else if nodes.len() as u64 > u16::LIMIT {
            Wheel::Wide(Lines::build(&sources, &nodes))
        } else if Lines::<u16, 16, 15>::lines_for(points) < COARSE_LINES {
            Wheel::Fine(Lines::build(&sources, &nodes))
        } else {
            Wheel::Coarse(Lines::build(&sources, &nodes))
        };
        Self {
            nodes,
            points,
            settings,
            wheel,
        }
    }
}

impl Table for HashRing {
    #[inline]
    fn lookup(&self, hash: u64) -> Option<u32> {
        self.lookup(hash)
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The owner of the next point whose node is accepted. O(points) if none is.
    fn find(&self, hash: u64, accept: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let mut last = None;
        self.walk(hash).find(|&node| {
            // Neighbouring points often have the same node; it need not be asked again.
            let again = last.replace(node) == Some(node);
            !again && accept(node)
        })
    }

    fn choices(&self, hash: u64, n: usize) -> Vec<u32> {
        self.replicas(hash, n).collect()
    }
}

impl Default for HashRing {
    /// A ring without nodes, to which nodes can be added.
    fn default() -> Self {
        Self {
            nodes: Nodes::default(),
            points: 0,
            settings: HashRingBuilder::default(),
            wheel: Wheel::Empty,
        }
    }
}

impl PartialEq for HashRing {
    fn eq(&self, other: &Self) -> bool {
        self.points == other.points && self.named_points().eq(other.named_points())
    }
}

impl std::fmt::Debug for HashRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashRing")
            .field("nodes", &self.nodes.iter().flatten().count())
            .field("points", &self.points)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl HashRingBuilder {
    /// Points for each unit of weight; 160 if not set, as nginx and ketama have.
    ///
    /// The standard deviation of the shares is `1/√vnodes`. 0 counts as 1.
    #[must_use]
    pub fn vnodes(mut self, vnodes: u32) -> Self {
        self.vnodes = vnodes;
        self
    }

    /// The weight that stands for [`vnodes`](Self::vnodes) points; 1 if not set.
    ///
    /// A node of weight `w` gets `vnodes · w / unit_weight` points, rounded up, so every weight
    /// above 0 gets at least one. Set it to the usual weight of a node where weights are large.
    /// 0 counts as 1.
    #[must_use]
    pub fn unit_weight(mut self, weight: u32) -> Self {
        self.unit_weight = weight;
        self
    }

    /// The most points that all nodes may have together; 2^24 (117 MiB) if not set.
    ///
    /// Weights beyond it are refused and not scaled down: a scale that depends on the other nodes'
    /// weights would move keys between nodes that did not change. At most 2^31.
    #[must_use]
    pub fn max_points(mut self, points: u64) -> Self {
        self.max_points = points;
        self
    }

    /// Builds the ring. See [`HashRing::new`].
    ///
    /// # Errors
    ///
    /// No nodes, all weights zero, a name that appears twice, or too many nodes or points.
    pub fn build<S: AsRef<str>>(
        self,
        nodes: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<HashRing, TableError> {
        let nodes = collect(nodes, U24::LIMIT)?;
        // 2^24 nodes of at most 2^64 - 2^33 points each do not fit 64 bits.
        let points = nodes.iter().flatten().fold(0u64, |sum, node| {
            sum.saturating_add(self.points_of(node.weight))
        });
        self.admit(points)?;
        Ok(HashRing::assemble(Nodes::from(&nodes), points, self))
    }

    /// The points of a node of this weight.
    fn points_of(&self, weight: u32) -> u64 {
        (u64::from(self.vnodes.max(1)) * u64::from(weight)).div_ceil(self.unit_weight.max(1).into())
    }

    /// Whether the nodes may have so many points together.
    fn admit(&self, points: u64) -> Result<(), TableError> {
        let limit = self.max_points.min(1 << 31);
        if points > limit {
            return Err(TableError::TooManyPoints { points, limit });
        }
        Ok(())
    }
}

impl Default for HashRingBuilder {
    fn default() -> Self {
        Self {
            vnodes: 160,
            unit_weight: 1,
            max_points: 1 << 24,
        }
    }
}
