//! The better of two by what a call to each costs.

use super::alias::WeightedDraw;
use super::random::draw_untried;
use super::{PickContext, Picker};
use crate::view::{NodeIndex, View};

/// The picker of [`P2c::peak_ewma`](super::P2c::peak_ewma).
pub(super) struct PeakEwma {
    view: View,
    draw: WeightedDraw,
    mean_weight: f64,
}

/// Of an endpoint with calls under way and none that ended: dearer than all of
/// which something is known (Finagle's; 2^47 ns are 39 hours).
const UNKNOWN: f64 = (1_u64 << 47) as f64;

impl PeakEwma {
    /// O(n).
    pub(super) fn new(view: &View) -> Self {
        let total: f64 = view.weights().iter().copied().map(f64::from).sum();
        Self {
            draw: WeightedDraw::new(view),
            mean_weight: total / f64::from(view.len().max(1)),
            view: view.clone(),
        }
    }

    /// The cost of a call, times the calls that it would share the endpoint with, as one of mean
    /// weight has them.
    fn load(&self, index: NodeIndex, in_flight: u32, context: &PickContext<'_>) -> f64 {
        let node = self.view.node(index);
        let others = f64::from(in_flight) * self.mean_weight / f64::from(node.weight());
        let cost = f64::from(node.stats().peak_cost(context.now()));
        if cost == 0.0 && in_flight > 0 {
            return UNKNOWN + others;
        }
        cost * (others + 1.0)
    }

    /// The first of two that are equal, so that a service of which nothing is known gets its calls
    /// by weight.
    fn cheaper(&self, first: NodeIndex, second: NodeIndex, context: &PickContext<'_>) -> NodeIndex {
        let (a, b) = self.view.two_in_flight(first, second);
        if self.load(second, b, context) < self.load(first, a, context) {
            second
        } else {
            first
        }
    }

    #[cold]
    fn pick_untried(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let drawn = self.draw.draw(context.rng());
        let first = draw_untried(&self.view, &self.draw, drawn, context)?;
        let drawn = self.draw.draw(context.rng());
        let second = draw_untried(&self.view, &self.draw, drawn, context)?;
        Some(self.cheaper(first, second, context))
    }
}

impl Picker for PeakEwma {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        if !context.tried().is_empty() {
            return self.pick_untried(context);
        }
        let (first, second) = match self.view.len() {
            0 => return None,
            1 => return Some(0),
            n if self.view.is_uniform() => context.rng().two_below(n),
            _ => {
                let first = self.draw.draw(context.rng());
                match self.draw.draw_other(context.rng(), first) {
                    Some(second) => (first, second),
                    None => return Some(first),
                }
            }
        };
        Some(self.cheaper(first, second, context))
    }
}
