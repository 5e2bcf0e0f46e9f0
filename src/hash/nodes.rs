//! The nodes of a table, checked once for all algorithms.

use std::sync::Arc;

use super::{TableError, key_hash};

/// A node: what its points are made from.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: Arc<str>,
    /// The key hash of the name. Two names can share it, so that order is by hash, then by name.
    pub(super) hash: u64,
    pub(super) weight: u32,
}

impl Node {
    pub(super) fn new(name: &str, weight: u32) -> Self {
        Self {
            name: name.into(),
            hash: key_hash(name.as_bytes()),
            weight,
        }
    }
}

/// Collects nodes in the given order, so that a node's index is its place in the input.
///
/// Refuses an empty list, a name that appears twice, weights that are all zero, and more than
/// `limit` nodes.
pub(super) fn collect<S: AsRef<str>>(
    input: impl IntoIterator<Item = (S, u32)>,
    limit: u64,
) -> Result<Vec<Node>, TableError> {
    let nodes: Vec<Node> = input
        .into_iter()
        .map(|(name, weight)| Node::new(name.as_ref(), weight))
        .collect();
    if nodes.is_empty() {
        return Err(TableError::NoNodes);
    }
    if nodes.len() as u64 > limit {
        let nodes = nodes.len() as u64;
        return Err(TableError::TooManyNodes { nodes, limit });
    }
    if nodes.iter().all(|node| node.weight == 0) {
        return Err(TableError::AllWeightsZero);
    }
    let order = by_name_hash(&nodes);
    for pair in order.windows(2) {
        let (a, b) = (&nodes[pair[0] as usize], &nodes[pair[1] as usize]);
        if a.name == b.name {
            let name = a.name.to_string();
            return Err(TableError::DuplicateNode { name });
        }
    }
    Ok(nodes)
}

/// The indices of the nodes in an order that does not depend on the input's.
pub(super) fn by_name_hash(nodes: &[Node]) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = nodes.iter().map(|node| node.hash).zip(0..).collect();
    order.sort_unstable_by(|a, b| {
        let names = || nodes[a.1 as usize].name.cmp(&nodes[b.1 as usize].name);
        a.0.cmp(&b.0).then_with(names)
    });
    order.into_iter().map(|(_, index)| index).collect()
}
