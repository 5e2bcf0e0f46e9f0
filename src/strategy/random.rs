//! Random choice.

use super::alias::{Alias, WeightedDraw};
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::view::{NodeIndex, View};

/// Each call goes to an endpoint drawn at random, in proportion to the weights.
///
/// Without any state, many clients can never fall into step; but an endpoint's
/// queue grows as if there were no balancing: at 90 % load the mean time in the
/// system is 10 service times, against 2.6 for the better of two
/// (Mitzenmacher, TPDS 12(10), 2001). O(1), two loads and a draw.
///
/// A retry goes to any of the endpoints left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Random {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Strategy for Random {
    fn build(&self, view: &View) -> BoxPicker {
        let picker = Weighted {
            draw: WeightedDraw::new(view),
            view: view.clone(),
        };
        if view.is_uniform() && !view.is_empty() {
            Box::new(Uniform(picker))
        } else {
            Box::new(picker)
        }
    }
}

/// Endpoints of one weight: what most services are, and so a picker of its own,
/// without the branches of the other.
pub(super) struct Uniform(Weighted);

impl Picker for Uniform {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        if !context.tried().is_empty() {
            return self.0.pick(context);
        }
        Some(context.rng().below(self.0.view.len()))
    }
}

pub(super) struct Weighted {
    view: View,
    draw: WeightedDraw,
}

impl Weighted {
    pub(super) fn alias(&self) -> Option<&Alias> {
        self.draw.alias()
    }
}

impl Picker for Weighted {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let index = self.draw.draw(context.rng());
        if context.tried().is_empty() {
            return (index < self.view.len()).then_some(index);
        }
        draw_untried(&self.view, &self.draw, index, context)
    }
}

/// A draw for a call that has tried some: again a few times, which keeps the
/// shares of the others as they are, then the next in turn from a random place.
#[cold]
pub(super) fn draw_untried(
    view: &View,
    draw: &WeightedDraw,
    first: NodeIndex,
    context: &mut PickContext<'_>,
) -> Option<NodeIndex> {
    let mut index = first;
    for _ in 0..8 {
        if index < view.len() && context.may_pick(view, index) {
            return Some(index);
        }
        index = draw.draw(context.rng());
    }
    let start = context.rng().below(view.len());
    context.first_untried(view, start)
}
