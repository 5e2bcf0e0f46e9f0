//! The fewest calls in flight: of all, or of some drawn at random.

use super::alias::WeightedDraw;
use super::round_robin::Turn;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::error::Error;
use crate::view::{NodeIndex, View};

/// The call goes to the endpoint with the fewest calls in flight per unit of
/// weight, found exactly; ties go round in turn.
///
/// With one client or few, this is the best that can be done without the
/// servers' help. With many clients it gains nothing over [`P2c`](super::P2c)
/// and costs more: the scan is O(n) while every endpoint is busy (it begins
/// where the turn is, and ends at the first idle one, so that a service with
/// fewer calls than endpoints is O(1) in practice).
///
/// [`choices`](Self::choices) looks at a few endpoints only, drawn at random.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConn {
    /// None for all.
    choices: Option<u32>,
}

impl LeastConn {
    /// The most endpoints that may be drawn.
    pub const MAX_CHOICES: u32 = 32;

    /// The strategy, which looks at every endpoint.
    #[must_use]
    pub const fn new() -> Self {
        Self { choices: None }
    }

    /// The least loaded of `choices` different endpoints, drawn at random in
    /// proportion to their weights: O(choices). Of two that are equal the first
    /// drawn wins, so that a service that is mostly idle still gets its calls by
    /// weight. Where there are no more endpoints than that, all are looked at.
    ///
    /// Envoy's and gRPC's `choice_count`, but without replacement. Two are
    /// [`P2c`](super::P2c), which does it for less; each further choice gains
    /// less than the one before (at 90 % load the mean time in the system is
    /// 2.61 service times with two, 2.03 with three, 1.63 with five;
    /// Mitzenmacher, TPDS 12(10), 2001).
    ///
    /// Where weights differ so much that the same few endpoints keep being
    /// drawn, or a retry has tried most of them, fewer are compared: at most
    /// eight draws are made for each choice.
    ///
    /// # Errors
    ///
    /// When it is not from 2 to [`MAX_CHOICES`](Self::MAX_CHOICES).
    ///
    /// ```
    /// use waypost::strategy::LeastConn;
    ///
    /// let of_three = LeastConn::new().choices(3)?;
    /// assert!(LeastConn::new().choices(1).is_err());
    /// # Ok::<(), waypost::Error>(())
    /// ```
    pub fn choices(self, choices: u32) -> Result<Self, Error> {
        if !(2..=Self::MAX_CHOICES).contains(&choices) {
            return Err(Error::invalid(
                "choices",
                choices,
                format_args!("is not from 2 to {}", Self::MAX_CHOICES),
            ));
        }
        Ok(Self {
            choices: Some(choices),
        })
    }
}

impl Strategy for LeastConn {
    fn build(&self, view: &View) -> BoxPicker {
        match self.choices {
            Some(choices) if choices < view.len() => Box::new(OfSome {
                choices: choices as usize,
                draw: WeightedDraw::new(view),
                view: view.clone(),
            }),
            _ => Box::new(OfAll {
                turn: Turn::new(view),
                view: view.clone(),
            }),
        }
    }
}

struct OfAll {
    view: View,
    turn: Turn,
}

impl Picker for OfAll {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let view = &self.view;
        let start = self.turn.next(context).min(view.len());
        let mut best: Option<(NodeIndex, Load)> = None;
        for index in (start..view.len()).chain(0..start) {
            if !context.may_pick(view, index) {
                continue;
            }
            let load = Load::of(view, index);
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

/// More endpoints than choices.
struct OfSome {
    view: View,
    draw: WeightedDraw,
    choices: usize,
}

impl Picker for OfSome {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let view = &self.view;
        let mut drawn = [0; LeastConn::MAX_CHOICES as usize];
        let mut found = 0;
        let mut best: Option<(NodeIndex, Load)> = None;
        for _ in 0..8 * self.choices {
            let index = self.draw.draw(context.rng());
            if drawn[..found].contains(&index) || !context.may_pick(view, index) {
                continue;
            }
            let load = Load::of(view, index);
            let idle = load.in_flight == 0;
            if best.as_ref().is_none_or(|(_, best)| load.is_below(best)) {
                best = Some((index, load));
            }
            drawn[found] = index;
            found += 1;
            if idle || found == self.choices {
                break;
            }
        }
        match best {
            Some((index, _)) => Some(index),
            None => {
                let start = context.rng().below(view.len());
                context.first_untried(view, start)
            }
        }
    }
}

/// Calls in flight per unit of weight.
struct Load {
    in_flight: u32,
    weight: u32,
}

impl Load {
    fn of(view: &View, index: NodeIndex) -> Self {
        Self {
            in_flight: view.in_flight(index),
            weight: view.weight(index),
        }
    }

    /// Compares the fractions without a division.
    fn is_below(&self, other: &Self) -> bool {
        u64::from(self.in_flight) * u64::from(other.weight)
            < u64::from(other.in_flight) * u64::from(self.weight)
    }
}
