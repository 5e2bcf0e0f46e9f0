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
/// [`choices`](Self::choices) looks at a few endpoints only, drawn at random;
/// [`active_request_bias`](Self::active_request_bias) draws among all as Envoy does.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastConn(Rule);

#[derive(Clone, Copy, Debug, Default)]
enum Rule {
    #[default]
    All,
    Some(u32),
    Biased(f32),
}

impl LeastConn {
    /// The most endpoints that may be drawn.
    pub const MAX_CHOICES: u32 = 32;

    /// The strategy, which looks at every endpoint.
    #[must_use]
    pub const fn new() -> Self {
        Self(Rule::All)
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
        Ok(Self(Rule::Some(choices)))
    }

    /// Each endpoint in proportion to `weight / (calls in flight + 1)^bias`: the shares of Envoy's
    /// `least_request` with unequal weights, whose `active_request_bias` is 1. With 0 it is weighted
    /// random, and the higher it is the more calls in flight count.
    ///
    /// For clients that shall spread calls as an Envoy beside them does. Drawn and not taken in
    /// turn, so that nothing is shared between threads; the shares are the same. It never leaves a
    /// slow endpoint alone altogether, which the exact rule does. O(n).
    ///
    /// # Errors
    ///
    /// When it is below 0, or not finite.
    ///
    /// ```
    /// use waypost::strategy::LeastConn;
    ///
    /// let as_envoy = LeastConn::new().active_request_bias(1.0)?;
    /// assert!(LeastConn::new().active_request_bias(-1.0).is_err());
    /// # Ok::<(), waypost::Error>(())
    /// ```
    pub fn active_request_bias(self, bias: f64) -> Result<Self, Error> {
        if !(bias.is_finite() && bias >= 0.0) {
            let reason = "is below 0 or not finite";
            return Err(Error::invalid("active_request_bias", bias, reason));
        }
        Ok(Self(Rule::Biased(bias as f32)))
    }
}

impl Strategy for LeastConn {
    fn build(&self, view: &View) -> BoxPicker {
        match self.0 {
            Rule::Biased(bias) => Box::new(Biased {
                view: view.clone(),
                bias,
            }),
            Rule::Some(choices) if choices < view.len() => Box::new(OfSome {
                choices: choices as usize,
                draw: WeightedDraw::new(view),
                view: view.clone(),
            }),
            Rule::Some(_) | Rule::All => Box::new(OfAll {
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

/// Drawn by weight and load.
struct Biased {
    view: View,
    bias: f32,
}

impl Biased {
    /// Of those that the call may go to, each with what it weighs now.
    fn weights(&self, context: &PickContext<'_>) -> impl Iterator<Item = (NodeIndex, f32)> {
        let open = (0..self.view.len()).filter(|&index| context.may_pick(&self.view, index));
        open.map(|index| {
            let load = self.view.in_flight(index) as f32 + 1.0;
            // The usual one, for which no power need be taken.
            let load = if (self.bias - 1.0).abs() < f32::EPSILON {
                load
            } else {
                load.powf(self.bias)
            };
            (index, self.view.weight(index) as f32 / load)
        })
    }
}

impl Picker for Biased {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let part = context.rng().below(1 << 24) as f32 / (1 << 24) as f32;
        let total: f32 = self.weights(context).map(|(_, weight)| weight).sum();
        let mut left = part * total;
        let mut last = None;
        for (index, weight) in self.weights(context) {
            last = Some(index);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        // Past the end where calls began meanwhile, or by rounding.
        last
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

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::endpoint::{Endpoint, EndpointSet};
    use crate::rng::Rng;
    use crate::{Balancer, Pick};

    /// The shares of 20,000 picks while so many calls are held at each.
    fn shares(bias: f64, endpoints: &[(u32, usize)]) -> Vec<f64> {
        let strategy = LeastConn::new().active_request_bias(bias).unwrap();
        let (balancer, mut updater) = Balancer::builder("users")
            .strategy(strategy)
            .manual()
            .unwrap();
        let endpoint = |(i, &(weight, _)): (usize, &(u32, usize))| {
            let address = format!("10.0.0.{i}:80");
            Endpoint::builder(address.as_str())
                .weight(weight)
                .build()
                .unwrap()
        };
        let ids: Vec<_> = endpoints.iter().enumerate().map(endpoint).collect();
        updater.apply(EndpointSet::new(ids.clone()).unwrap());
        let at = |pick: &Pick| ids.iter().position(|it| it.id() == pick.id()).unwrap();
        let mut held = Vec::new();
        for (wanted, &(_, calls)) in endpoints.iter().enumerate() {
            while held.iter().filter(|pick| at(pick) == wanted).count() < calls {
                let pick = balancer.pick().unwrap();
                if at(&pick) == wanted {
                    held.push(pick);
                }
            }
        }
        let mut counts = vec![0.0; endpoints.len()];
        for _ in 0..20_000 {
            counts[at(&balancer.pick().unwrap())] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn a_bias_gives_the_shares_of_its_formula() {
        for (bias, endpoints, expected) in [
            // 1 : 3, whatever is in flight.
            (0.0, [(1, 0), (3, 5)], [0.25, 0.75]),
            // 2/1 : 6/3.
            (1.0, [(2, 0), (6, 2)], [0.5, 0.5]),
            // 1/1 : 1/9.
            (2.0, [(1, 0), (1, 2)], [0.9, 0.1]),
        ] {
            let found = shares(bias, &endpoints);
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 0.015,
                    "{bias}: {found} of {expected}"
                );
            }
        }
    }

    #[test]
    fn a_biased_draw_passes_over_what_was_tried() {
        use crate::strategy::{PickOptions, Tried};
        let view =
            View::standalone(["a:1", "b:1", "c:1"].map(|address| Endpoint::at(address).unwrap()));
        let picker = LeastConn::new()
            .active_request_bias(1.0)
            .unwrap()
            .build(&view);
        let mut tried = Tried::new();
        for left in [3, 2, 1] {
            let options = PickOptions::new().tried(&tried);
            let mut context = PickContext::new(Rng::seeded(left), 0, &options);
            let index = picker.pick(&mut context).unwrap();
            let key = view.node(index).key();
            assert!(!tried.contains(key));
            tried.insert(key);
        }
        let options = PickOptions::new().tried(&tried);
        let mut context = PickContext::new(Rng::seeded(9), 0, &options);
        assert_eq!(picker.pick(&mut context), None);
    }
}
