//! Changing one node of a ring.

use super::edit::Edit;
use super::line::{Id, U24};
use super::lines::Lines;
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
    /// O(points of the node + points / 192): it copies the 16-line chunks with changed points, and
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
        let before = self.settings.points_of(old.weight) as u32;
        let mut nodes = self.nodes.clone();
        if let Some(Some(changed)) = nodes.get_mut(node as usize) {
            changed.weight = weight;
        }
        self.edited(node, old.hash, before, nodes)
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
        let twin = |node: &Node| node.hash == added.hash && node.name == added.name;
        if self.nodes.iter().flatten().any(twin) {
            let name = name.to_owned();
            return Err(TableError::DuplicateNode { name });
        }
        let mut nodes = self.nodes.clone();
        let vacant = nodes.iter().position(Option::is_none);
        let index = vacant.unwrap_or(nodes.len());
        if index as u64 >= U24::LIMIT {
            let (nodes, limit) = (index as u64 + 1, U24::LIMIT);
            return Err(TableError::TooManyNodes { nodes, limit });
        }
        if index == nodes.len() {
            nodes.push(None);
        }
        let hash = added.hash;
        nodes[index] = Some(added);
        let index = index as u32;
        Ok((self.edited(index, hash, 0, nodes)?, index))
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
        let old = self.node(node).ok_or(TableError::UnknownNode { node })?;
        let mut nodes = self.nodes.clone();
        nodes[node as usize] = None;
        let edit = Edit {
            node,
            hash: old.hash,
            before: self.settings.points_of(old.weight) as u32,
            after: 0,
        };
        self.apply(edit, nodes)
    }

    /// The ring with the points that `node` has in `nodes`, where it had `before`.
    fn edited(
        &self,
        node: u32,
        hash: u64,
        before: u32,
        nodes: Vec<Option<Node>>,
    ) -> Result<Self, TableError> {
        self.settings.count(&nodes)?;
        let changed = nodes[node as usize].as_ref();
        let after = changed.map_or(0, |node| self.settings.points_of(node.weight)) as u32;
        let edit = Edit {
            node,
            hash,
            before,
            after,
        };
        self.apply(edit, nodes)
    }

    fn apply(&self, edit: Edit, nodes: Vec<Option<Node>>) -> Result<Self, TableError> {
        let points = self.points - u64::from(edit.before) + u64::from(edit.after);
        let wheel = match &self.wheel {
            Wheel::Narrow(lines) if fits(lines, edit, points, nodes.len()) => {
                Wheel::Narrow(lines.edited(edit, &nodes))
            }
            Wheel::Wide(lines) if fits(lines, edit, points, nodes.len()) => {
                Wheel::Wide(lines.edited(edit, &nodes))
            }
            _ => return Self::assemble(nodes, self.settings),
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
fn fits<I: Id, const N: usize, const M: usize>(
    lines: &Lines<I, N, M>,
    edit: Edit,
    points: u64,
    nodes: usize,
) -> bool {
    // A point edited copies most of a chunk, so it costs several times a point built.
    let changed = u64::from(edit.before.abs_diff(edit.after));
    let cheap = changed.saturating_mul(8) < points;
    points > 0 && cheap && lines.suits(points) && nodes as u64 <= I::LIMIT
}
