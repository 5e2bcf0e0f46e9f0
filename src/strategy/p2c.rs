//! The better of two.

use super::alias::{Alias, WeightedDraw};
use super::random::draw_untried;
use super::{BoxPicker, PickContext, Picker, Strategy, peak_ewma};
use crate::view::{NodeIndex, View};

/// Two endpoints are drawn at random, and the one with fewer calls in flight
/// gets the call: power of two choices.
///
/// One comparison turns the longest queue from O(log n) into O(log log n)
/// (Mitzenmacher, TPDS 12(10), 2001), and unlike the exact minimum it does not
/// send every client to the same endpoint when what they know is a little old.
/// The two are different, which beats drawing with replacement on small sets.
///
/// With weights, the draws are in proportion to them and in-flight calls are
/// compared per unit of weight; of two that are equal the first drawn wins, so
/// that a service that is mostly idle still gets its calls by weight.
///
/// O(1): a draw and the loads of two endpoints. A retry compares two of the
/// endpoints that are left.
///
/// [`peak_ewma`](Self::peak_ewma) compares what calls cost instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct P2c {
    by_latency: bool,
}

impl P2c {
    /// The strategy, on calls in flight.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_latency: false }
    }

    /// The strategy, on the peaks of latency: the cost of a call, times the
    /// calls in flight with the one to come (Finagle's peak EWMA).
    ///
    /// A call that took longer than an endpoint's cost becomes that cost at
    /// once; from there it falls over ten seconds, towards the latency of the
    /// calls that follow, or to nothing where there are none. So an endpoint
    /// that turns slow is left alone after its first slow call, and is tried
    /// again some time later. A failed call counts as one of a second at least:
    /// Finagle's own prices an answer of 500 within a millisecond as a fast
    /// one, and draws calls to the endpoint that gives it. One to a server that
    /// says [when to come back](crate::Pick::push_back) counts as one that
    /// takes till then.
    ///
    /// An endpoint of which nothing is known gets one call, and further ones
    /// when that has ended, unless the other one is no better.
    ///
    /// Weights decide how often an endpoint is drawn, and calls in flight count
    /// per unit of weight. Shares follow the weights while nothing is known;
    /// then, they follow latency.
    ///
    /// Records latency [whatever was said](Strategy::reads_latency). Reads write
    /// nothing: the fall of a cost is computed from the time of the pick, which
    /// the balancer reads anyway, so a pick costs a look at two more lines.
    #[must_use]
    pub const fn peak_ewma() -> Self {
        Self { by_latency: true }
    }
}

impl Strategy for P2c {
    fn reads_latency(&self) -> bool {
        self.by_latency
    }

    fn build(&self, view: &View) -> BoxPicker {
        if self.by_latency {
            return peak_ewma::build(view);
        }
        let picker = Weighted {
            draw: WeightedDraw::new(view),
            view: view.clone(),
        };
        if view.is_uniform() && view.len() >= 2 {
            Box::new(Uniform(picker))
        } else {
            Box::new(picker)
        }
    }
}

/// Two endpoints or more, all of one weight: what most services are, and so a
/// picker of its own, without the branches of the other.
pub(super) struct Uniform(Weighted);

impl Picker for Uniform {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        if !context.tried().is_empty() {
            return self.0.pick_untried(context);
        }
        let view = &self.0.view;
        let (first, second) = context.rng().two_below(view.len());
        // An idle one cannot be beaten, and so the other's counters, which may be
        // another core's by now, need not be read.
        let busy = view.in_flight(first);
        let fewer = busy > 0 && view.in_flight(second) < busy;
        Some(if fewer { second } else { first })
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
        if !context.tried().is_empty() {
            return self.pick_untried(context);
        }
        if self.view.is_empty() {
            return None;
        }
        let first = self.draw.draw(context.rng());
        let second = self.draw.draw_other(context.rng(), first);
        Some(second.map_or(first, |second| self.lighter(first, second)))
    }
}

impl Weighted {
    fn lighter(&self, first: NodeIndex, second: NodeIndex) -> NodeIndex {
        let view = &self.view;
        let a = view.in_flight(first);
        if a == 0 {
            return first;
        }
        let b = view.in_flight(second);
        let (a, b) = ((a, view.weight(first)), (b, view.weight(second)));
        if is_lighter(b, a) { second } else { first }
    }

    #[cold]
    fn pick_untried(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let drawn = self.draw.draw(context.rng());
        let first = draw_untried(&self.view, &self.draw, drawn, context)?;
        let drawn = self.draw.draw(context.rng());
        let second = draw_untried(&self.view, &self.draw, drawn, context)?;
        Some(self.lighter(first, second))
    }
}

/// Whether one endpoint has fewer calls in flight per unit of weight than another, both given with
/// their weights; without a division.
#[inline]
pub(super) fn is_lighter((calls, weight): (u32, u32), other: (u32, u32)) -> bool {
    u64::from(calls) * u64::from(other.1) < u64::from(other.0) * u64::from(weight)
}
