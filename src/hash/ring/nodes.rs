//! The nodes of a ring by index, in chunks that rings share.

use std::cmp::Ordering;
use std::sync::Arc;

use super::chunk::Point;
use crate::hash::nodes::Node;

/// Nodes in one allocation: a change copies so many names' reference counts, and one more for each
/// other chunk.
const CHUNK: usize = 32;

/// The nodes by index; none where one was removed. Every chunk but the last is full.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    chunks: Vec<Arc<Vec<Option<Node>>>>,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK + last.len(),
            None => 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Node> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
    }

    /// Puts a node, or none, at an index that is there or the next one.
    pub(super) fn set(&mut self, index: usize, node: Option<Node>) {
        if index / CHUNK == self.chunks.len() {
            self.chunks.push(Arc::default());
        }
        let chunk = Arc::make_mut(&mut self.chunks[index / CHUNK]);
        match chunk.get_mut(index % CHUNK) {
            Some(slot) => *slot = node,
            None => chunk.push(node),
        }
    }

    /// By index.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&Node>> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter().map(Option::as_ref))
    }

    /// Bytes on the heap, those shared with other rings included.
    pub(super) fn heap(&self) -> usize {
        let counters = 2 * size_of::<usize>();
        let chunk = |chunk: &Arc<Vec<Option<Node>>>| {
            counters + size_of::<Vec<Option<Node>>>() + chunk.capacity() * size_of::<Option<Node>>()
        };
        let name = |node: &Node| node.name.len() + counters;
        self.chunks.capacity() * size_of::<usize>()
            + self.chunks.iter().map(chunk).sum::<usize>()
            + self.iter().flatten().map(name).sum::<usize>()
    }
}

impl FromIterator<Node> for Nodes {
    fn from_iter<T: IntoIterator<Item = Node>>(nodes: T) -> Self {
        let mut nodes = nodes.into_iter().map(Some);
        let mut chunks = Vec::new();
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            chunk.extend(nodes.by_ref().take(CHUNK));
            if chunk.is_empty() {
                return Self { chunks };
            }
            chunks.push(Arc::new(chunk));
        }
    }
}

/// The order of points in a line: by key, and those of equal key by the names of their nodes, so
/// that neither the order of the input nor the indices decide.
pub(super) fn order(a: Point, b: Point, nodes: &Nodes) -> Ordering {
    let name = |point: Point| nodes.get(point.node).map(|node| &node.name);
    a.key.cmp(&b.key).then_with(|| {
        if a.node == b.node {
            Ordering::Equal
        } else {
            name(a).cmp(&name(b))
        }
    })
}
