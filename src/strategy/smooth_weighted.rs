//! Each in turn by weight, in nginx's order.

use super::round_robin::next_or_any;
use super::{BoxPicker, PickContext, Picker, RoundRobin, Strategy};
use crate::view::{NodeIndex, View};

/// Smooth weighted round robin: the very sequence of nginx, in which 5, 1, 1 is
/// a a b a c a a and not a a a a a b c.
///
/// nginx adds to every endpoint its weight, takes the one with the most, and
/// takes the sum of all weights off it: O(n) a call, under a lock. As the sums
/// are back at zero after as many calls as the weights add up to (divided by
/// what divides them all), the sequence is written down once for a set, and
/// each thread walks it from a place of its own: O(1), one load.
///
/// It is written down while that takes at most 2^20 steps (endpoints × calls of
/// a period: some milliseconds, and at most 2 MiB for a sequence): a hundred
/// endpoints whose weights add up to 10,000, or a thousand with 1,000. Above it,
/// and where all weights are equal, this is [`RoundRobin`], whose shares are the
/// same. Slow start makes weights that
/// divide by nothing: while it lasts, sets of many endpoints are above.
///
/// A retry goes to the next, in the order of ids, that the call has not tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmoothWeighted;

impl SmoothWeighted {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Strategy for SmoothWeighted {
    fn build(&self, view: &View) -> BoxPicker {
        if view.is_uniform() {
            return RoundRobin::new().build(view);
        }
        match period(view.weights()) {
            Some(turn) => Box::new(Written {
                turn,
                view: view.clone(),
            }),
            None => RoundRobin::new().build(view),
        }
    }
}

/// One period of the sequence.
struct Written {
    turn: Box<[NodeIndex]>,
    view: View,
}

impl Picker for Written {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let place = next_or_any(self.turn.len() as u32, context);
        let index = *self.turn.get(place as usize)?;
        if context.tried().is_empty() {
            return Some(index);
        }
        context.first_untried(&self.view, index)
    }
}

/// Endpoints × calls.
const MOST_STEPS: u64 = 1 << 20;

/// None where it takes too many steps to write down.
fn period(weights: &[u32]) -> Option<Box<[NodeIndex]>> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|w| i64::from(w / divisor)).collect();
    let sum: i64 = weights.iter().sum();
    let steps = sum.cast_unsigned().saturating_mul(weights.len() as u64);
    if steps > MOST_STEPS {
        return None;
    }
    let mut current = vec![0_i64; weights.len()];
    let turn = (0..sum).map(|_| {
        let mut best = 0;
        for (at, weight) in weights.iter().enumerate() {
            current[at] += weight;
            // Of equal ones, nginx takes the first.
            if current[at] > current[best] {
                best = at;
            }
        }
        current[best] -= sum;
        best as NodeIndex
    });
    Some(turn.collect())
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
