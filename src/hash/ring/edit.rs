//! A ring with one node's points added or taken away, sharing every other chunk.

use super::line::{CHUNK, Id, Point};
use super::lines::{Lines, Nodes, key_of, line_of, order, place};
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

impl<I: Id, const N: usize, const M: usize> Lines<I, N, M> {
    /// These lines with the edit done. `nodes` names every node that has points before or after.
    ///
    /// The caller has checked that the points still [suit](Lines::suits) the lines and that one is
    /// left. Copies each chunk with a changed point, and the list of chunks.
    pub(super) fn edited(&self, edit: Edit, nodes: &Nodes) -> Self {
        let mut ring = self.clone();
        let lines = self.lines();
        let numbers = edit.before.min(edit.after)..edit.before.max(edit.after);
        let mut places: Vec<u64> = numbers
            .map(|number| place(mix(edit.hash, number.into()), lines))
            .collect();
        places.sort_unstable();

        let adds = edit.after > edit.before;
        let mut points = Vec::with_capacity(N + 4);
        for group in places.chunk_by(|a, b| line_of(*a) == line_of(*b)) {
            let line = line_of(group[0]);
            points.clear();
            points.extend((0..).map_while(|rank| ring.point(line, rank)));
            for &place in group {
                let point = Point {
                    key: key_of(place),
                    node: edit.node,
                };
                if adds {
                    let at = points.partition_point(|other| order(*other, point, nodes).is_lt());
                    points.insert(at, point);
                } else if let Some(at) = points.iter().position(|other| *other == point) {
                    points.remove(at);
                }
            }
            let (written, cold) = ring.line_mut(line);
            let successor = written.successor();
            cold.write(written, line % CHUNK, &points, successor);
            ring.spread_head(line);
        }
        ring
    }
}
