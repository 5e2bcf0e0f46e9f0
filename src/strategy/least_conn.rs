//! The fewest calls in flight, exactly.

use super::round_robin::Turn;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::view::{NodeIndex, View};

/// The call goes to the endpoint with the fewest calls in flight per unit of
/// weight, found exactly; ties go round in turn.
///
/// With one client or few, this is the best that can be done without the
/// servers' help. With many clients it gains nothing over [`P2c`](super::P2c)
/// and costs more: the scan is O(n) while every endpoint is busy (it begins
/// where the turn is, and ends at the first idle one, so that a service with
/// fewer calls than endpoints is O(1) in practice).
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConn;

impl LeastConn {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

struct LeastConnPicker {
    view: View,
    turn: Turn,
}

impl Strategy for LeastConn {
    fn build(&self, view: &View) -> BoxPicker {
        Box::new(LeastConnPicker {
            turn: Turn::new(view),
            view: view.clone(),
        })
    }
}

impl Picker for LeastConnPicker {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let view = &self.view;
        let start = self.turn.next(context).min(view.len());
        let mut best: Option<(NodeIndex, Load)> = None;
        for index in (start..view.len()).chain(0..start) {
            if !context.may_pick(view, index) {
                continue;
            }
            let load = Load {
                in_flight: view.in_flight(index),
                weight: view.weight(index),
            };
            if best.as_ref().is_none_or(|(_, best)| load.is_below(best)) {
                let idle = load.in_flight == 0;
                best = Some((index, load));
                if idle {
                    break;
                }
            }
        }
        best.map(|(index, _)| index)
    }
}

/// Calls in flight per unit of weight.
struct Load {
    in_flight: u32,
    weight: u32,
}

impl Load {
    /// Compares the fractions without a division.
    fn is_below(&self, other: &Self) -> bool {
        u64::from(self.in_flight) * u64::from(other.weight)
            < u64::from(other.in_flight) * u64::from(self.weight)
    }
}
