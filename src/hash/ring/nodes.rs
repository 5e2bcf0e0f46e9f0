//! The nodes of a ring by index, in chunks that rings share.

use std::cmp::Ordering;
use std::sync::Arc;

use super::chunk::Point;
use crate::hash::nodes::{self, Node};

/// Nodes in one part: a change copies so many names, and a reference count for each other part.
const PART: usize = 32;

/// The nodes by index; none where one was removed. Every part but the last is full.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    parts: Vec<Arc<nodes::Nodes>>,
}

impl Nodes {
    pub(super) fn len(&self) -> usize {
        match self.parts.split_last() {
            Some((last, full)) => full.len() * PART + last.len(),
            None => 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<Node<'_>> {
        let index = index as usize;
        self.parts.get(index / PART)?.get(index % PART)
    }

    /// These nodes with one, or none, at an index that is there or the next one.
    pub(super) fn with(&self, index: usize, node: Option<Node<'_>>) -> Self {
        let mut parts = self.parts.clone();
        if index / PART == parts.len() {
            parts.push(Arc::default());
        }
        let (part, index) = (&mut parts[index / PART], index % PART);
        let place = |at| if at == index { node } else { part.get(at) };
        *part = Arc::new((0..part.len().max(index + 1)).map(place).collect());
        Self { parts }
    }

    /// By index.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<Node<'_>>> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Bytes on the heap, those shared with other rings included.
    pub(super) fn heap(&self) -> usize {
        let counters = 2 * size_of::<usize>();
        let part = |part: &Arc<nodes::Nodes>| counters + size_of::<nodes::Nodes>() + part.heap();
        self.parts.capacity() * size_of::<usize>() + self.parts.iter().map(part).sum::<usize>()
    }
}

impl From<&nodes::Nodes> for Nodes {
    fn from(nodes: &nodes::Nodes) -> Self {
        let part = |first| {
            let part = first..nodes.len().min(first + PART);
            Arc::new(part.map(|index| nodes.get(index)).collect())
        };
        Self {
            parts: (0..nodes.len()).step_by(PART).map(part).collect(),
        }
    }
}

/// The order of points in a line: by key, and those of equal key by the names of their nodes, so
/// that neither the order of the input nor the indices decide.
pub(super) fn order(a: Point, b: Point, nodes: &Nodes) -> Ordering {
    let name = |point: Point| nodes.get(point.node).map(|node| node.name);
    a.key.cmp(&b.key).then_with(|| {
        if a.node == b.node {
            Ordering::Equal
        } else {
            name(a).cmp(&name(b))
        }
    })
}
