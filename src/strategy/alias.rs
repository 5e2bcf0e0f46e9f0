//! Draws from a weighted set in constant time.

use std::sync::Arc;

use crate::rng::{Bits, Rng};
use crate::view::{NodeIndex, View};

/// Draws nodes in proportion to their weights: uniformly where all are equal,
/// else by Walker's alias method in Vose's construction (IEEE TSE 17(9), 1991):
/// every column holds one unit of probability, split between at most two nodes,
/// so a draw is a column and a coin.
pub(super) enum WeightedDraw {
    Uniform(u32),
    Alias(Alias),
}

/// The table of a draw by unequal weights; cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Alias(Arc<[Column]>);

#[derive(Debug)]
struct Column {
    /// Of 2^32 coins, how many stay with this column's own node. All of them
    /// do in a column that was never split, whose alias is itself.
    keep: u32,
    alias: NodeIndex,
}

impl WeightedDraw {
    /// O(n).
    pub(super) fn new(view: &View) -> Self {
        let n = view.len();
        if view.is_uniform() {
            return Self::Uniform(n);
        }
        // Scaled by n, so that the mean column is `total`: integers keep the
        // shares exact. 2^32 nodes of weight 2^32 are 2^64 < 2^128.
        let total: u128 = view.weights().iter().copied().map(u128::from).sum();
        let mut share: Vec<u128> = view
            .weights()
            .iter()
            .map(|&weight| u128::from(weight) * u128::from(n))
            .collect();
        let mut columns: Vec<Column> = (0..n)
            .map(|alias| Column {
                keep: u32::MAX,
                alias,
            })
            .collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..n).partition(|&i| share[i as usize] < total);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            let kept = share[poor as usize];
            columns[poor as usize] = Column {
                keep: (kept * (1 << 32) / total) as u32,
                alias: rich,
            };
            share[rich as usize] -= total - kept;
            if share[rich as usize] < total {
                large.pop();
                small.push(rich);
            }
        }
        Self::Alias(Alias(columns.into()))
    }

    /// The table, where weights differ.
    pub(super) fn alias(&self) -> Option<&Alias> {
        match self {
            Self::Uniform(_) => None,
            Self::Alias(alias) => Some(alias),
        }
    }

    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> NodeIndex {
        match self {
            Self::Uniform(n) => rng.below(*n),
            Self::Alias(alias) => alias.draw(Bits(rng.bits())),
        }
    }

    /// A draw that differs from `first`, by trying a few times; `None` when
    /// `first` outweighs all the others together so far that it keeps coming.
    #[inline]
    pub(super) fn draw_other(&self, rng: &mut Rng, first: NodeIndex) -> Option<NodeIndex> {
        other_than(first, || self.draw(rng))
    }
}

/// A draw that differs from `first`, by trying a few times.
#[inline]
pub(super) fn other_than(
    first: NodeIndex,
    mut draw: impl FnMut() -> NodeIndex,
) -> Option<NodeIndex> {
    // With the first drawn by weight, even one node of nine tenths of all
    // weight comes eight times in a row in 43 % of such draws only, and
    // then the caller's fallback, that very node, is the right answer.
    (0..8).map(|_| draw()).find(|&index| index != first)
}

impl Alias {
    /// The half of the bits that choose the column leave the other for its coin.
    #[inline]
    pub(super) fn draw(&self, bits: Bits) -> NodeIndex {
        let at = bits.below(self.0.len() as u32);
        // There always is one; without a way to panic, a pick needs no stack.
        match self.0.get(at as usize) {
            Some(column) if bits.0 as u32 >= column.keep => column.alias,
            _ => at,
        }
    }
}
