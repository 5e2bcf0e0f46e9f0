//! A fresh ring in two passes over the points, without a comparison sort.
//!
//! Points are uniform by construction, so their top bits sort them: the first pass scatters them to
//! groups of 512 lines (a group's points fit the L1 cache), the second scatters each group to its
//! lines and sorts each line by ranks. Groups go from last to first, since a line ends with the
//! owner of the next one's first point.

use std::sync::Arc;

use super::line::{CHUNK, Cold, Id, Line, Point};
use super::lines::{KEY_BITS, Lines, Nodes, key_of, line_of, order, place};
use crate::hash::key::mix;

/// Lines in a group: so many that the groups of 1.6 million points (261) have each a cache line of
/// the L1 to be written to, and so few that a group's lines (30 KiB) fit it while they are sorted.
/// 256 and 128 take a twentieth longer there, and the same for fewer points.
const GROUP: usize = 1 << GROUP_BITS;
const GROUP_BITS: u32 = 9;

/// Bits of a place within its group.
const PLACE_BITS: u32 = KEY_BITS + GROUP_BITS;

/// Bits of a node's index beside it in one word.
const NODE_BITS: u32 = 24;

/// A node's points: its index, the hash of its name, how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) node: u32,
    pub(super) hash: u64,
    pub(super) points: u32,
}

impl<I: Id, const N: usize, const M: usize> Lines<I, N, M> {
    /// Builds the lines of all points of `sources`, which are at least one.
    pub(super) fn build(sources: &[Source], nodes: &Nodes) -> Self {
        let points = sources.iter().map(|source| u64::from(source.points)).sum();
        let lines = Self::lines_for(points);
        let groups = scatter(sources, points, lines);

        let chunks = lines as usize / CHUNK;
        let (mut hot, mut cold) = (Vec::with_capacity(chunks), Vec::with_capacity(chunks));
        let mut stage = Stage::<I, N>::new();
        let mut rests = Vec::with_capacity(GROUP / CHUNK);
        let mut head = I::default();
        for group in (0..groups.len()).rev() {
            stage.fill(groups.points(group));
            let used = GROUP.min(lines as usize - group * GROUP);
            for first in (0..used).step_by(CHUNK).rev() {
                let mut shared = Arc::new([Line::new(); CHUNK]);
                let lines = Arc::make_mut(&mut shared);
                let rest = rests.push_mut(Cold::new());
                for (at, line) in lines.iter_mut().enumerate().rev() {
                    stage.write(first + at, line, at, rest, head, nodes);
                    head = line.head();
                }
                hot.push(shared);
            }
            // Allocated after the group's hot lines, so that those share pages with each other.
            cold.extend(rests.drain(..).map(Arc::new));
        }
        drop(groups);
        hot.reverse();
        cold.reverse();
        let mut ring = Self { hot, cold };
        // The last line was written before the first one was known.
        ring.spread_head(0);
        ring
    }
}

/// Points by group: `(line in group, key, node)` in the bits 48.., 24.., 0...
struct Groups {
    points: Vec<u64>,
    bounds: Vec<(u32, u32)>,
}

impl Groups {
    fn len(&self) -> usize {
        self.bounds.len()
    }

    fn points(&self, group: usize) -> &[u64] {
        let (start, end) = self.bounds[group];
        &self.points[start as usize..end as usize]
    }
}

/// Scatters the points into rooms of guessed sizes; if one is too small, counts and does it again.
///
/// A room has 8 standard deviations more than the mean, so only names chosen to collide make it
/// overflow. Guessing saves a pass that computes every point.
fn scatter(sources: &[Source], points: u64, lines: u64) -> Groups {
    let groups = lines.div_ceil(GROUP as u64) as usize;
    let mean = points as f64 * GROUP as f64 / lines as f64;
    let room = (mean + 8.0 * mean.sqrt() + 32.0) as u32;
    let guess = vec![room; groups];
    if let Some(groups) = scatter_into(&guess, sources, lines) {
        return groups;
    }
    let mut counts = vec![0; groups];
    for source in sources {
        for index in 0..source.points {
            counts[group_of(source, index, lines).0] += 1;
        }
    }
    scatter_into(&counts, sources, lines).unwrap_or_else(|| unreachable!("rooms were counted"))
}

fn scatter_into(rooms: &[u32], sources: &[Source], lines: u64) -> Option<Groups> {
    let mut bounds = Vec::with_capacity(rooms.len());
    let mut limits = Vec::with_capacity(rooms.len());
    let mut total = 0;
    for &room in rooms {
        bounds.push((total, total));
        total += room;
        limits.push(total);
    }
    let mut points = vec![0; total as usize];
    for source in sources {
        for index in 0..source.points {
            let (group, place) = group_of(source, index, lines);
            let end = &mut bounds[group].1;
            if *end == limits[group] {
                return None;
            }
            points[*end as usize] = place << NODE_BITS | u64::from(source.node);
            *end += 1;
        }
    }
    Some(Groups { points, bounds })
}

/// The group of a point, and its place within the group.
#[inline]
fn group_of(source: &Source, index: u32, lines: u64) -> (usize, u64) {
    let place = place(mix(source.hash, index.into()), lines);
    (
        (place >> PLACE_BITS) as usize,
        place & ((1 << PLACE_BITS) - 1),
    )
}

/// The lines of one group while they are filled.
struct Stage<I, const N: usize> {
    /// 24 bits each; signed, since baseline x86-64 compares no unsigned words in vectors.
    keys: Box<[[i32; N]; GROUP]>,
    nodes: Box<[[I; N]; GROUP]>,
    counts: [u32; GROUP],
    /// Points past the `N`-th of their line.
    excess: Vec<(usize, Point)>,
}

impl<I: Id, const N: usize> Stage<I, N> {
    fn new() -> Self {
        Self {
            keys: Box::new([[i32::MAX; N]; GROUP]),
            nodes: Box::new([[I::default(); N]; GROUP]),
            counts: [0; GROUP],
            excess: Vec::new(),
        }
    }

    fn fill(&mut self, points: &[u64]) {
        self.keys.fill([i32::MAX; N]);
        self.counts.fill(0);
        self.excess.clear();
        for &point in points {
            let place = point >> NODE_BITS;
            // The remainder spares the bounds' checks.
            let (line, key) = (line_of(place) % GROUP, key_of(place));
            let node = point as u32 & ((1 << NODE_BITS) - 1);
            let count = &mut self.counts[line];
            match self.keys[line].get_mut(*count as usize) {
                Some(slot) => {
                    *slot = key.cast_signed();
                    self.nodes[line][*count as usize] = I::new(node);
                }
                None => self.excess.push((line, Point { key, node })),
            }
            *count += 1;
        }
    }

    /// Writes a line of the group.
    fn write<const M: usize>(
        &self,
        staged: usize,
        line: &mut Line<I, N, M>,
        at: usize,
        cold: &mut Cold<N>,
        successor: I,
        nodes: &Nodes,
    ) {
        let count = self.counts[staged] as usize;
        let (keys, ids) = (&self.keys[staged], &self.nodes[staged]);
        if count <= N && cold.write_unsorted(line, at, count, (keys, ids), successor) {
            return;
        }
        let known = keys.iter().zip(ids).take(count);
        let known = known.map(|(&key, id)| Point {
            key: key as u32,
            node: id.get(),
        });
        let excess = self.excess.iter().filter(|(of, _)| *of == staged);
        let mut points: Vec<Point> = known.chain(excess.map(|&(_, point)| point)).collect();
        points.sort_unstable_by(|a, b| order(*a, *b, nodes));
        cold.write(line, at, &points, successor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::nodes::Node;

    /// Sources whose points all fall into one group, as only chosen names would.
    fn crowded(points: u32, lines: u64) -> Vec<Source> {
        let source = |node: u32| Source {
            node,
            hash: u64::from(node),
            points: 1,
        };
        (0..)
            .map(source)
            .filter(|source| group_of(source, 0, lines).0 == 1)
            .take(points as usize)
            .zip(0..)
            .map(|(source, node)| Source { node, ..source })
            .collect()
    }

    #[test]
    fn points_that_crowd_a_group_are_counted_and_scattered_again() {
        let points = 30_000;
        let lines = Lines::<u16, 20, 21>::lines_for(points.into());
        let sources = crowded(points, lines);
        let mean = f64::from(points) * GROUP as f64 / lines as f64;
        assert!(
            f64::from(points) > 3.0 * mean,
            "more than a guessed room holds"
        );
        let groups = scatter(&sources, points.into(), lines);
        let sizes: Vec<usize> = (0..groups.len())
            .map(|group| groups.points(group).len())
            .collect();
        assert_eq!((sizes[1], sizes.iter().sum()), (30_000, 30_000));

        // The ring has them all, in order, and the lines that are too full spill.
        let names: Vec<Option<Node>> = (0..points)
            .map(|i| Some(Node::new(&i.to_string(), 1)))
            .collect();
        let ring = Lines::<u16, 20, 21>::build(&sources, &names);
        let mut found: Vec<(u64, u32)> = Vec::new();
        for line in 0..lines as usize {
            found.extend((0..).map_while(|rank| ring.entry(line, rank)));
        }
        assert!(found.is_sorted_by_key(|&(position, _)| position));
        let mut expected: Vec<(u64, u32)> = sources
            .iter()
            .map(|source| (mix(source.hash, 0) >> 33 << 33, source.node))
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
