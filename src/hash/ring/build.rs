//! A fresh ring in two passes over the points, without a comparison sort.
//!
//! Points are uniform by construction, so their top bits sort them: the first pass scatters them to
//! groups of 256 lines, the second scatters each group to its lines and sorts each line by ranks, a
//! chunk at a time. Groups go from last to first, since a line ends with the owner of the next
//! one's first point.

use std::sync::Arc;

use super::chunk::{CHUNK, Chunk, Point};
use super::line::{Id, KEY_BITS, LOW_BITS, Line, STAGED, TOP, UNUSED, key_of, low_of, residual_of};
use super::lines::{Lines, place};
use super::nodes::Nodes;
use crate::hash::key::mix;

/// Lines in a group: so many that the groups of 1.6 million points (625) have each a cache line of
/// the L1 to be written to, and so few that a group's lines (32 KiB) fit it while they are sorted.
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
            stage.fill::<I, M, LOW>(&group);
            drop(group);
            for first in (0..used).step_by(CHUNK).rev() {
                let mut shared = Arc::new(Chunk::new());
                let chunk = Arc::make_mut(&mut shared);
                stage.rank::<I, M, LOW>(first);
                for at in (0..CHUNK).rev() {
                    stage.write(first + at, chunk, at, head, nodes);
                    head = chunk.lines[at].head();
                }
                chunks.push(shared);
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
    #[inline(never)]
    fn scatter(sources: &[Source], points: u64, lines: u64) -> Vec<Vec<u64>> {
        // 8 standard deviations more than the mean: only names chosen to collide make a group grow.
        let mean = points as f64 * GROUP as f64 / lines as f64;
        let room = (mean + 8.0 * mean.sqrt()) as usize + 32;
        let groups = lines.div_ceil(GROUP as u64);
        let mut groups: Vec<Vec<u64>> = (0..groups).map(|_| Vec::with_capacity(room)).collect();
        for &Source { node, hash, points } in sources {
            let word = |number: u32| {
                let place = place(mix(hash, number.into()), lines);
                // The bits of the group are not needed, and may be shifted out.
                let word = place >> Self::UNUSED << I::BITS | u64::from(node);
                ((place >> (KEY_BITS + GROUP_BITS)) as usize, word)
            };
            let mut numbers = 0..points;
            // A group that is full is left to the outer loop: the inner one would save registers
            // for a call.
            while let Some(number) = numbers.find(|&number| {
                let (group, word) = word(number);
                let group = &mut groups[group];
                let full = group.len() == group.capacity();
                if !full {
                    group.push(word);
                }
                full
            }) {
                let (group, word) = word(number);
                groups[group].push(word);
            }
        }
        groups
    }

    /// The point of such a word.
    fn point_of(word: u64) -> Point {
        let low = if LOW == 0 {
            0
        } else {
            low_of((word >> I::BITS) as u32)
        };
        Point {
            key: key_of(residual_of(word >> Self::RESIDUAL_AT), low),
            node: I::new(word as u32).get(),
        }
    }
}

/// The lines of one group while they are filled.
struct Stage {
    /// The points' words by line, in no order, and [`UNUSED`] past the last one.
    words: Box<[[u64; STAGED]; GROUP]>,
    /// Where in all words a line's next point goes.
    ends: Box<[u16; GROUP]>,
    /// The lanes of one chunk's points; signed, since baseline x86-64 compares no unsigned words in
    /// vectors.
    lanes: [[i16; STAGED]; CHUNK],
    /// And where in their lines they belong.
    ranks: [[u16; STAGED]; CHUNK],
    /// Points that their lines have no room for.
    excess: Vec<(usize, u64)>,
}

impl Stage {
    fn new() -> Self {
        let words = vec![[UNUSED; STAGED]; GROUP].try_into();
        Self {
            words: words.expect("as many lines as a group has"),
            ends: Box::new([0; GROUP]),
            lanes: [[0; STAGED]; CHUNK],
            ranks: [[0; STAGED]; CHUNK],
            excess: Vec::new(),
        }
    }

    /// Takes the points of a group.
    fn fill<I: Id, const M: usize, const LOW: usize>(&mut self, points: &[u64]) {
        self.words.fill([UNUSED; STAGED]);
        for (end, first) in self.ends.iter_mut().zip((0..).step_by(STAGED)) {
            *end = first;
        }
        self.excess.clear();
        // Taken apart, so that no pointer is read again for each point.
        let (words, ends) = (self.words.as_flattened_mut(), &mut *self.ends);
        let mut points = points.iter();
        while let Some(full) = points.find_map(|&point| {
            // The remainders spare the bounds' checks.
            let at = (point >> Lines::<I, M, LOW>::LINE_AT) as usize % GROUP;
            let end = usize::from(ends[at]) % (GROUP * STAGED);
            if end % STAGED == Line::<I, M>::ROOM {
                return Some((at, point));
            }
            words[end] = point;
            ends[at] += 1;
            None
        }) {
            self.excess.push(full);
        }
    }

    /// Ranks the points of the lines of a chunk.
    ///
    /// A point's rank is how many lanes are above its own. One lane at a time is compared with all
    /// others, and the compiler makes vector code of it, which it does not where ranks are used at
    /// once: hence a pass of its own. Lanes past the last point are 0, have therefore the number of
    /// points as rank, and are handled like the others: going only so far as there are points would
    /// mispredict a branch in each line, which takes longer.
    fn rank<I: Id, const M: usize, const LOW: usize>(&mut self, first: usize) {
        let staged = first..first + CHUNK;
        for (words, lanes) in self.words[staged].iter().zip(&mut self.lanes) {
            *lanes = words.map(|word| {
                (TOP - residual_of(word >> Lines::<I, M, LOW>::RESIDUAL_AT)).cast_signed()
            });
        }
        for (lanes, ranks) in self.lanes.iter().zip(&mut self.ranks) {
            let mut sums = [0u16; STAGED];
            for &lane in lanes.iter().take(Line::<I, M>::ROOM) {
                for (sum, &other) in sums.iter_mut().zip(lanes) {
                    *sum += u16::from(lane > other);
                }
            }
            *ranks = sums;
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
        let words = &self.words[staged];
        // Distinct lanes have the ranks 0, 1, 2, … and the unused ones all the rank `count`; equal
        // ones share the lowest, and it takes more than lanes to put them in order.
        let sum: u16 = self.ranks[at].iter().sum();
        let distinct = count * count.saturating_sub(1) / 2 + (STAGED - count) * count;
        if usize::from(sum) == distinct {
            chunk.fill(
                at,
                (words, &self.lanes[at], &self.ranks[at]),
                count,
                successor,
            );
        } else {
            chunk.lines[at] = Line::new(successor);
            for &word in words.iter().take(count) {
                chunk.insert(at, Lines::<I, M, LOW>::point_of(word), nodes);
            }
        }
        if count == Line::<I, M>::ROOM {
            for (_, word) in self.excess.iter().filter(|(of, _)| *of == staged) {
                chunk.insert(at, Lines::<I, M, LOW>::point_of(*word), nodes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::nodes::collect;

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
        let names = collect((0..points).map(|i| (i.to_string(), 1)), u64::MAX).expect("good nodes");
        let names = Nodes::from(&names);
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
