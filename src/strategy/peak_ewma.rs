//! The better of two by what a call to each costs.

use std::any::Any;

use super::alias::WeightedDraw;
use super::common::Memory;
use super::random::draw_untried;
use super::{BoxPicker, PickContext, Picker};
use crate::stats::{Counters, Place, Stripes};
use crate::sync::Slot;
use crate::time::Timestamp;
use crate::view::{NodeIndex, View};

/// The picker of [`P2c::peak_ewma`](super::P2c::peak_ewma). O(n).
pub(super) fn build(view: &View) -> BoxPicker {
    let picker = Weighted {
        draw: WeightedDraw::new(view),
        mean_weight: view.mean_weight(),
        view: view.clone(),
    };
    if view.is_uniform() && view.len() >= 2 {
        Box::new(Uniform(picker))
    } else {
        Box::new(picker)
    }
}

/// Two endpoints or more, all of one weight, so that a balancer can choose in
/// place.
pub(super) struct Uniform(Weighted);

impl Picker for Uniform {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        self.0.pick(context)
    }
}

/// Whether that picker chooses as [`begin_at_cheaper`] does when a call has tried
/// nothing.
pub(crate) fn is_peak_ewma(picker: &dyn Picker) -> bool {
    let picker: &dyn Any = picker;
    picker.is::<Uniform>()
}

/// Begins a call at the cheaper of two of the first `n` endpoints, all of one
/// weight, without a call through a pointer.
#[inline]
pub(crate) fn begin_at_cheaper(
    n: u32,
    counters: &Counters,
    (stripes, slot): (Stripes, Slot),
    memory: &Memory,
    now: Timestamp,
) -> NodeIndex {
    let two = memory.draw().two_below(n);
    let read = |place: Place<'_>| {
        let others = f64::from(place.in_flight(stripes));
        load(place.gauges().peak_cost(now), others)
    };
    counters.begin_at_better(two, slot, read, |_| false, |a, b| b < a)
}

struct Weighted {
    view: View,
    draw: WeightedDraw,
    mean_weight: f64,
}

/// Of an endpoint with calls under way and none that ended: dearer than all of
/// which something is known (Finagle's; 2^47 ns are 39 hours).
const UNKNOWN: f64 = (1_u64 << 47) as f64;

/// The cost of a call, times the calls that it would share the endpoint with.
#[inline]
pub(super) fn load(cost: f32, others: f64) -> f64 {
    if cost == 0.0 && others > 0.0 {
        return UNKNOWN + others;
    }
    f64::from(cost) * (others + 1.0)
}

impl Weighted {
    /// With the calls in flight as an endpoint of mean weight has them.
    fn load(&self, index: NodeIndex, in_flight: u32, now: Timestamp) -> f64 {
        let node = self.view.node(index);
        let others = f64::from(in_flight) * self.mean_weight / f64::from(node.weight());
        load(node.stats().gauges().peak_cost(now), others)
    }

    /// The first of two that are equal, so that a service of which nothing is known gets its calls
    /// by weight.
    fn cheaper(&self, first: NodeIndex, second: NodeIndex, now: Timestamp) -> NodeIndex {
        let (a, b) = self.view.two_in_flight(first, second);
        if self.load(second, b, now) < self.load(first, a, now) {
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
        Some(self.cheaper(first, second, context.now()))
    }
}

impl Picker for Weighted {
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
        Some(self.cheaper(first, second, context.now()))
    }
}
