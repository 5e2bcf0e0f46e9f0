//! Shards: which nodes hold which, and what must be copied when the nodes change.
//!
//! **The problem.** A store is cut into a fixed number of shards, each on several nodes. When a node
//! joins or leaves, someone must know which shard to copy from where to where, before and not after
//! traffic goes there.
//!
//! **The idea.** A [`ShardMap`] writes down the first `r` choices of a [`Table`] for every shard,
//! by the names of the nodes; [`plan`] compares two of them. With a [`HashRing`](super::HashRing)
//! below, the plan has only moves that the change demands.
//!
//! ```
//! use waypost::hash::{HashRing, ShardMap, key_hash, plan};
//!
//! let before = ["a", "b", "c"];
//! let after = ["a", "b", "c", "d"];
//! let map = |names: &[&'static str]| {
//!     let ring = HashRing::new(names.iter().map(|name| (name, 1)))?;
//!     Ok::<_, waypost::hash::TableError>(ShardMap::new(&ring, 64, 2, |node| names[node as usize]))
//! };
//! let (before, after) = (map(&before)?, map(&after)?);
//! for step in plan(&before, &after) {
//!     assert_eq!(step.to, Some("d"), "only the new node gets shards");
//! }
//! let shard = after.shard_of(key_hash(b"user:42"));
//! assert_eq!(after.replicas(shard).len(), 2);
//! # Ok::<(), waypost::hash::TableError>(())
//! ```

use super::Table;
use super::key::{mix, scale};

/// The nodes of every shard, each by what `N` names it. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap<N> {
    /// The replicas of each shard in order, the first one its owner.
    shards: Vec<Vec<N>>,
}

impl<N> ShardMap<N> {
    /// Gives every shard its first `replicas` choices; fewer if the table has fewer nodes.
    ///
    /// `name` says what a node of the table is called: something that means the same in another
    /// table, as an address does and an index does not. O(shards) calls of
    /// [`Table::choices`].
    pub fn new<T: Table + ?Sized>(
        table: &T,
        shards: u32,
        replicas: usize,
        name: impl Fn(u32) -> N,
    ) -> Self {
        let nodes = |shard: u32| {
            let choices = table.choices(mix(SEED, shard.into()), replicas);
            choices.into_iter().map(&name).collect()
        };
        Self {
            shards: (0..shards).map(nodes).collect(),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.shards.len() as u32
    }

    /// Whether there are no shards.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The shard of a hash: equal ranges of hashes, in order. 0 if there are no shards. O(1).
    #[must_use]
    pub fn shard_of(&self, hash: u64) -> u32 {
        scale(hash, self.shards.len() as u64) as u32
    }

    /// The nodes that hold a shard, its owner first; empty if there is no such shard.
    #[must_use]
    pub fn replicas(&self, shard: u32) -> &[N] {
        self.shards.get(shard as usize).map_or(&[], Vec::as_slice)
    }
}

/// Sets the places of shards apart from those of keys and points.
const SEED: u64 = 0x7761_7970_6f73_7421;

/// One step from one map to another: a replica of a shard that goes to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move<N> {
    /// The shard.
    pub shard: u32,
    /// Its place among the shard's replicas: after the change, or before it if there is no `to`.
    pub replica: usize,
    /// The node that holds it no longer; `None` if the shard gets one more replica.
    pub from: Option<N>,
    /// The node that is to hold it; `None` if the shard gets one replica less.
    pub to: Option<N>,
}

/// What must move between two maps, by shard.
///
/// A node that stays among a shard's replicas is not in the plan, even if its place among them
/// changes: its data is there. O(shards · replicas²).
///
/// # Examples
///
/// ```
/// use waypost::hash::{HashRing, ShardMap, plan};
///
/// let ring = HashRing::new([("a", 1), ("b", 1)])?;
/// let map = ShardMap::new(&ring, 8, 1, |node| node);
/// assert_eq!(plan(&map, &map), []);
///
/// let smaller = ring.with_node_removed(0)?;
/// let steps = plan(&map, &ShardMap::new(&smaller, 8, 1, |node| node));
/// assert!(steps.iter().all(|step| (step.from, step.to) == (Some(0), Some(1))));
/// # Ok::<(), waypost::hash::TableError>(())
/// ```
#[must_use]
pub fn plan<N: Clone + PartialEq>(before: &ShardMap<N>, after: &ShardMap<N>) -> Vec<Move<N>> {
    let mut moves = Vec::new();
    for shard in 0..before.len().max(after.len()) {
        let (old, new) = (before.replicas(shard), after.replicas(shard));
        let mut leaving = old
            .iter()
            .enumerate()
            .filter(|(_, node)| !new.contains(node));
        for (replica, to) in new.iter().enumerate() {
            if !old.contains(to) {
                moves.push(Move {
                    shard,
                    replica,
                    from: leaving.next().map(|(_, node)| node.clone()),
                    to: Some(to.clone()),
                });
            }
        }
        moves.extend(leaving.map(|(replica, from)| Move {
            shard,
            replica,
            from: Some(from.clone()),
            to: None,
        }));
    }
    moves
}
