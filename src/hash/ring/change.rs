//! Changing one node of a ring.

use super::edit::Edit;
use super::line::{Id, U24};
use super::lines::Lines;
use super::nodes::Nodes;
use super::{HashRing, Wheel};
use crate::hash::TableError;
use crate::hash::nodes::Node;

impl HashRing {
    /// This ring with another weight for one node, which keeps its index.
    ///
    /// The same points as a fresh build has. Only keys of this node's gain or loss move: from
    /// weight 9 to 10, one in ten of its keys come newly, and nothing else changes. A weight of 0
    /// takes all its points away and keeps the index; a ring left without points finds nothing.
    ///
    /// O(points of the node + points / 320): it copies the 32-line chunks with changed points, and
    /// shares the others.
    ///
    /// # Errors
    ///
    /// No such node, or too many points.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::HashRing;
    ///
    /// let ring = HashRing::new([("a:80", 9), ("b:80", 9)])?;
    /// let heavier = ring.with_node_changed(0, 10)?;
    /// assert_eq!(heavier, HashRing::new([("a:80", 10), ("b:80", 9)])?);
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn with_node_changed(&self, node: u32, weight: u32) -> Result<Self, TableError> {
        let old = self.node(node).ok_or(TableError::UnknownNode { node })?;
        let changed = Some(Node { weight, ..old });
        self.edited(node, self.nodes.with(node as usize, changed))
    }

    /// This ring with one more node, and the index it got: that of the first node removed earlier
    /// and not replaced, or the next one.
    ///
    /// The same points as a fresh build has; only keys that the new node gets move. Costs as much
    /// as [`with_node_changed`](Self::with_node_changed).
    ///
    /// # Errors
    ///
    /// The name is taken, or too many nodes or points.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::HashRing;
    ///
    /// let (ring, a) = HashRing::default().with_node_added("a:80", 1)?;
    /// let (ring, b) = ring.with_node_added("b:80", 1)?;
    /// assert_eq!((a, b), (0, 1));
    /// assert_eq!(ring, HashRing::new([("b:80", 1), ("a:80", 1)])?);
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn with_node_added(&self, name: &str, weight: u32) -> Result<(Self, u32), TableError> {
        let added = Node::new(name, weight);
        let twin = |node: Node| node.hash == added.hash && node.name == added.name;
        if self.nodes.iter().flatten().any(twin) {
            let name = name.to_owned();
            return Err(TableError::DuplicateNode { name });
        }
        let vacant = self.nodes.iter().position(|node| node.is_none());
        let index = vacant.unwrap_or(self.nodes.len());
        if index as u64 >= U24::LIMIT {
            let (nodes, limit) = (index as u64 + 1, U24::LIMIT);
            return Err(TableError::TooManyNodes { nodes, limit });
        }
        let nodes = self.nodes.with(index, Some(added));
        let index = index as u32;
        Ok((self.edited(index, nodes)?, index))
    }

    /// This ring without a node. The others keep their indices.
    ///
    /// The same points as a fresh build has; only the keys of this node move. Costs as much as
    /// [`with_node_changed`](Self::with_node_changed). A ring left without nodes finds nothing.
    ///
    /// # Errors
    ///
    /// No such node.
    ///
    /// # Examples
    ///
    /// ```
    /// use waypost::hash::HashRing;
    ///
    /// let ring = HashRing::new([("a:80", 1), ("b:80", 1)])?;
    /// assert_eq!(ring.with_node_removed(0)?.lookup_key(b"any"), Some(1));
    /// # Ok::<(), waypost::hash::TableError>(())
    /// ```
    pub fn with_node_removed(&self, node: u32) -> Result<Self, TableError> {
        self.node(node).ok_or(TableError::UnknownNode { node })?;
        self.edited(node, self.nodes.with(node as usize, None))
    }

    /// The ring with the points that `node` has in `nodes`; the others there are as before.
    fn edited(&self, node: u32, nodes: Nodes) -> Result<Self, TableError> {
        let (old, new) = (self.node(node), nodes.get(node));
        let points_of = |node: Option<Node>| node.map_or(0, |n| self.settings.points_of(n.weight));
        let (before, after) = (points_of(old), points_of(new));
        let points = (self.points - before).saturating_add(after);
        self.settings.admit(points)?;
        let edit = Edit {
            node,
            hash: old.or(new).map_or(0, |node| node.hash),
            before: before as u32,
            after: after as u32,
        };
        let wheel = match &self.wheel {
            Wheel::Fine(lines) if fits(lines, edit, points, nodes.len()) => {
                Wheel::Fine(lines.edited(edit, &nodes))
            }
            Wheel::Coarse(lines) if fits(lines, edit, points, nodes.len()) => {
                Wheel::Coarse(lines.edited(edit, &nodes))
            }
            Wheel::Wide(lines) if fits(lines, edit, points, nodes.len()) => {
                Wheel::Wide(lines.edited(edit, &nodes))
            }
            _ => return Ok(Self::assemble(nodes, points, self.settings)),
        };
        Ok(Self {
            nodes,
            points,
            settings: self.settings,
            wheel,
        })
    }
}

/// Whether an edit in place is possible, and cheaper than a fresh build.
fn fits<I: Id, const M: usize, const LOW: usize>(
    lines: &Lines<I, M, LOW>,
    edit: Edit,
    points: u64,
    nodes: usize,
) -> bool {
    // A point edited copies most of a chunk, so it costs several times a point built.
    let changed = u64::from(edit.before.abs_diff(edit.after));
    let cheap = changed.saturating_mul(8) < points;
    points > 0 && cheap && lines.suits(points) && nodes as u64 <= I::LIMIT
}
