//! A fresh ring in two passes over the points, without a comparison sort.
//!
//! Points are uniform by construction, so their top bits sort them: the first pass scatters them to
//! groups of 512 lines (a group's points fit the L1 cache), the second scatters each group to its
//! lines and sorts each line by ranks. Groups go from last to first, since a line ends with the
//! owner of the next one's first point.

use std::sync::Arc;

use super::chunk::{CHUNK, Chunk, Point};
use super::line::{Id, KEY_BITS, LOW_BITS, Lane, Line, STAGED, low_of};
use super::lines::{Lines, place};
use super::nodes::Nodes;
use crate::hash::key::mix;

/// Lines in a group: so many that the groups of 1.6 million points (333) have each a cache line of
/// the L1 to be written to, and so few that a group's lines nearly fit it while they are sorted.
const GROUP: usize = 1 << GROUP_BITS;
const GROUP_BITS: u32 = 8;

/// A node's points: its index, the hash of its name, how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) node: u32,
    pub(super) hash: u64,
    pub(super) points: u32,
}

impl<I: Id, const M: usize, const LOW: usize> Lines<I, M, LOW> {
    /// Builds the lines of all points of `sources`, which are at least one.
    pub(super) fn build(sources: &[Source], nodes: &Nodes) -> Self {
        let points = sources.iter().map(|source| u64::from(source.points)).sum();
        let lines = Self::lines_for(points);
        let mut groups = Self::scatter(sources, points, lines);

        let mut chunks = Vec::with_capacity(lines as usize / CHUNK);
        let mut stage = Stage::new();
        let mut head = I::default();
        let mut used = (lines - 1) as usize % GROUP + 1;
        // A group's memory is given back before its chunks are made, which often get it.
        while let Some(group) = groups.pop() {
            stage.fill::<I, M, LOW>(group);
            for first in (0..used).step_by(CHUNK).rev() {
                let mut chunk = Chunk::new();
                for at in (0..CHUNK).rev() {
                    stage.write(first + at, &mut chunk, at, head, nodes);
                    head = chunk.lines[at].head();
                }
                chunks.push(Arc::new(chunk));
            }
            used = GROUP;
        }
        chunks.reverse();
        let mut ring = Self { chunks };
        // The last line was written before the first one was known.
        ring.spread_head(0);
        ring
    }

    /// Bits of a place that tell no points apart.
    const UNUSED: u32 = if LOW == 0 { LOW_BITS } else { 0 };
    /// Where the residual begins in a point's word, and the line.
    const RESIDUAL_AT: u32 = LOW_BITS - Self::UNUSED + I::BITS;
    const LINE_AT: u32 = KEY_BITS - Self::UNUSED + I::BITS;

    /// The points by group of lines, each in a word: from below, its node, the low bits of its key
    /// if they are used, its residual, its line.
    fn scatter(sources: &[Source], points: u64, lines: u64) -> Vec<Vec<u64>> {
        // 8 standard deviations more than the mean: only names chosen to collide make a group grow.
        let mean = points as f64 * GROUP as f64 / lines as f64;
        let room = (mean + 8.0 * mean.sqrt()) as usize + 32;
        let groups = lines.div_ceil(GROUP as u64);
        let mut groups: Vec<Vec<u64>> = (0..groups).map(|_| Vec::with_capacity(room)).collect();
        for source in sources {
            for index in 0..source.points {
                let place = place(mix(source.hash, index.into()), lines);
                let group = (place >> (KEY_BITS + GROUP_BITS)) as usize;
                // The bits of the group are not needed, and may be shifted out.
                groups[group].push(place >> Self::UNUSED << I::BITS | u64::from(source.node));
            }
        }
        groups
    }
}

/// The lines of one group while they are filled.
struct Stage {
    lanes: Box<[[Lane; STAGED]; GROUP]>,
    /// The low half of each point's word, which has its node and the low bits of its key.
    words: Box<[[u32; STAGED]; GROUP]>,
    /// Where in all lanes a line's next point goes.
    ends: Box<[u16; GROUP]>,
    /// Points that their lines have no room for.
    excess: Vec<(usize, Point)>,
}

impl Stage {
    fn new() -> Self {
        Self {
            lanes: Box::new([[Lane::default(); STAGED]; GROUP]),
            words: Box::new([[0; STAGED]; GROUP]),
            ends: Box::new([0; GROUP]),
            excess: Vec::new(),
        }
    }

    fn fill<I: Id, const M: usize, const LOW: usize>(&mut self, points: Vec<u64>) {
        self.lanes.fill([Lane::default(); STAGED]);
        for (end, first) in self.ends.iter_mut().zip((0..).step_by(STAGED)) {
            *end = first;
        }
        self.excess.clear();
        let (lanes, words) = (self.lanes.as_flattened_mut(), self.words.as_flattened_mut());
        for point in points {
            // The remainders spare the bounds' checks.
            let at = (point >> Lines::<I, M, LOW>::LINE_AT) as usize % GROUP;
            let lane = Lane::new(point >> Lines::<I, M, LOW>::RESIDUAL_AT);
            let end = usize::from(self.ends[at]) % (GROUP * STAGED);
            if end % STAGED == Line::<I, M>::ROOM {
                let point = Self::point::<I, LOW>(lane, point as u32);
                self.excess.push((at, point));
                continue;
            }
            lanes[end] = lane;
            words[end] = point as u32;
            self.ends[at] += 1;
        }
    }

    fn point<I: Id, const LOW: usize>(lane: Lane, word: u32) -> Point {
        let low = if LOW == 0 { 0 } else { low_of(word >> I::BITS) };
        Point {
            key: lane.key(low),
            node: I::new(word).get(),
        }
    }

    /// Writes a line of the group.
    #[inline]
    fn write<I: Id, const M: usize, const LOW: usize>(
        &self,
        staged: usize,
        chunk: &mut Chunk<I, M, LOW>,
        at: usize,
        successor: I,
        nodes: &Nodes,
    ) {
        let count = usize::from(self.ends[staged]) % STAGED;
        let (lanes, words) = (&self.lanes[staged], &self.words[staged]);
        if !chunk.fill(at, (lanes, words), count, successor) {
            for (&lane, &word) in lanes.iter().zip(words).take(count) {
                chunk.insert(at, Self::point::<I, LOW>(lane, word), nodes);
            }
        }
        if count == Line::<I, M>::ROOM {
            for (_, point) in self.excess.iter().filter(|(of, _)| *of == staged) {
                chunk.insert(at, *point, nodes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::nodes::Node;

    type Fine = Lines<u16, 16, 15>;

    /// Sources whose points all fall into one group, as only chosen names would.
    fn crowded(points: u32, lines: u64) -> Vec<Source> {
        let source = |node: u32| Source {
            node,
            hash: u64::from(node),
            points: 1,
        };
        let group = |source: &Source| place(mix(source.hash, 0), lines) >> (KEY_BITS + GROUP_BITS);
        (0..)
            .map(source)
            .filter(|source| group(source) == 1)
            .take(points as usize)
            .zip(0..)
            .map(|(source, node)| Source { node, ..source })
            .collect()
    }

    #[test]
    fn a_crowded_group_grows() {
        let points = 30_000;
        let lines = Fine::lines_for(points.into());
        let sources = crowded(points, lines);
        let mean = f64::from(points) * GROUP as f64 / lines as f64;
        assert!(
            f64::from(points) > 3.0 * mean,
            "more than a guessed room holds"
        );
        let groups = Fine::scatter(&sources, points.into(), lines);
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        assert_eq!((sizes[1], sizes.iter().sum()), (30_000, 30_000));

        // The ring has them all, in order, and the lines that are too full say so.
        let names: Nodes = (0..points).map(|i| Node::new(&i.to_string(), 1)).collect();
        let ring = Fine::build(&sources, &names);
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
