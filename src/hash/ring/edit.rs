//! A ring with one node's points added or taken away, sharing every other chunk.

use super::chunk::Point;
use super::line::Id;
use super::lines::{Lines, line_of, place};
use super::nodes::Nodes;
use crate::hash::key::mix;

/// What happens to one node's points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    pub(super) node: u32,
    pub(super) hash: u64,
    /// How many points it has before and after. Those with a lower number stay where they are.
    pub(super) before: u32,
    pub(super) after: u32,
}

impl<I: Id, const M: usize, const LOW: usize> Lines<I, M, LOW> {
    /// These lines with the edit done. `nodes` names every node that has points before or after.
    ///
    /// The caller has checked that the points still [suit](Lines::suits) the lines and that one is
    /// left. Copies each chunk with a changed point, and the list of chunks.
    pub(super) fn edited(&self, edit: Edit, nodes: &Nodes) -> Self {
        let mut ring = self.clone();
        let lines = self.lines();
        let adds = edit.after > edit.before;
        for number in edit.before.min(edit.after)..edit.before.max(edit.after) {
            let place = place(mix(edit.hash, number.into()), lines);
            let point = Point {
                key: Self::key_of(place),
                node: edit.node,
            };
            let (chunk, at) = ring.chunk_mut(line_of(place));
            let head = chunk.lines[at].head();
            if adds {
                chunk.insert(at, point, nodes);
            } else {
                chunk.remove(at, point);
            }
            if chunk.lines[at].head() != head {
                ring.spread_head(line_of(place));
            }
        }
        ring
    }
}
