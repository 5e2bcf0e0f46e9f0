//! The nodes of a table, checked once for all algorithms.

use super::{TableError, key_hash};

/// A node: what its points are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    /// The key hash of the name. Two names can share it, so that order is by hash, then by name.
    pub(super) hash: u64,
    pub(super) weight: u32,
}

impl<'a> Node<'a> {
    pub(super) fn new(name: &'a str, weight: u32) -> Self {
        Self {
            name,
            hash: key_hash(name.as_bytes()),
            weight,
        }
    }
}

/// Nodes by index, and places where there is none.
///
/// All names are in one text: with one allocation for each, a ring of 1,000 nodes spent a twelfth
/// of its time to build on making and freeing them.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    names: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    /// Where the name ends, which begins where the one before ends.
    end: usize,
    weight: u32,
    vacant: bool,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Node<'_>> {
        let entry = self.entries.get(index).filter(|entry| !entry.vacant)?;
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].end);
        Some(Node {
            name: &self.names[start..entry.end],
            hash: entry.hash,
            weight: entry.weight,
        })
    }

    /// By index.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<Node<'_>>> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(super) fn push(&mut self, node: Option<Node<'_>>) {
        let (name, hash, weight) = node.map_or(("", 0, 0), |n| (n.name, n.hash, n.weight));
        self.names.push_str(name);
        self.entries.push(Entry {
            hash,
            end: self.names.len(),
            weight,
            vacant: node.is_none(),
        });
    }

    /// Bytes on the heap.
    pub(super) fn heap(&self) -> usize {
        self.names.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

impl<'a> FromIterator<Option<Node<'a>>> for Nodes {
    fn from_iter<T: IntoIterator<Item = Option<Node<'a>>>>(nodes: T) -> Self {
        let nodes = nodes.into_iter();
        let mut made = Self::default();
        made.entries.reserve_exact(nodes.size_hint().0);
        nodes.for_each(|node| made.push(node));
        made
    }
}

/// Collects nodes in the given order, so that a node's index is its place in the input.
///
/// Refuses an empty list, a name that appears twice, weights that are all zero, and more than
/// `limit` nodes.
pub(super) fn collect<S: AsRef<str>>(
    input: impl IntoIterator<Item = (S, u32)>,
    limit: u64,
) -> Result<Nodes, TableError> {
    let input = input.into_iter();
    let mut nodes = Nodes::default();
    nodes.entries.reserve(input.size_hint().0);
    for (name, weight) in input {
        nodes.push(Some(Node::new(name.as_ref(), weight)));
    }
    if nodes.len() == 0 {
        return Err(TableError::NoNodes);
    }
    if nodes.len() as u64 > limit {
        let nodes = nodes.len() as u64;
        return Err(TableError::TooManyNodes { nodes, limit });
    }
    if nodes.iter().flatten().all(|node| node.weight == 0) {
        return Err(TableError::AllWeightsZero);
    }
    let order = by_name_hash(&nodes);
    for pair in order.windows(2) {
        let name = |at: usize| nodes.get(pair[at] as usize).map(|node| node.name);
        if let (Some(a), Some(b)) = (name(0), name(1))
            && a == b
        {
            let name = a.to_owned();
            return Err(TableError::DuplicateNode { name });
        }
    }
    Ok(nodes)
}

/// The indices of the nodes in an order that does not depend on the input's.
pub(super) fn by_name_hash(nodes: &Nodes) -> Vec<u32> {
    let hashes = nodes.iter().flatten().map(|node| node.hash);
    let mut order: Vec<(u64, u32)> = hashes.zip(0..).collect();
    order.sort_unstable_by(|a, b| {
        let name = |index: u32| nodes.get(index as usize).map(|node| node.name);
        a.0.cmp(&b.0).then_with(|| name(a.1).cmp(&name(b.1)))
    });
    order.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_than_the_indices_are_refused() {
        let nodes = |count: u32| (0..count).map(|node| (node.to_string(), 1));
        assert_eq!(collect(nodes(3), 3).unwrap().len(), 3);
        let (refused, limit) = (collect(nodes(4), 3).unwrap_err(), 3);
        assert_eq!(refused, TableError::TooManyNodes { nodes: 4, limit });
    }

    #[test]
    fn vacant_places_are_kept() {
        let (a, c) = (Node::new("a", 1), Node::new("c", 0));
        let nodes: Nodes = [Some(a), None, Some(Node::new("", 2)), Some(c)]
            .into_iter()
            .collect();
        let told = |index: usize| nodes.get(index).map(|node| (node.name, node.weight));
        let all = [Some(("a", 1)), None, Some(("", 2)), Some(("c", 0)), None];
        assert_eq!([0, 1, 2, 3, 4].map(told), all);
    }
}
