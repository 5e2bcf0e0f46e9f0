//! Each in turn.

use std::sync::Arc;

use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::view::{NodeIndex, View};

/// Calls go to the endpoints in turn, in proportion to their weights.
///
/// Every thread walks its own turn from a random start: a counter that all
/// threads shared would travel from core to core with each call (two threads
/// reach 0.4 of the throughput of one), and each endpoint's share comes out the
/// same. Over any window of calls, with T threads, an endpoint of n equal ones
/// gets its n-th to within T calls. The place in the turn survives changes of
/// the set.
///
/// With equal weights a pick is O(1). With different ones it is a static-stride
/// scheduler (gRPC A58): no state but a counter, every round of n steps skips
/// the lighter ones evenly; O(1) on average, O(n · max/mean) at worst.
///
/// A retry goes to the next in turn that the call has not tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl RoundRobin {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Strategy for RoundRobin {
    fn build(&self, view: &View) -> BoxPicker {
        let view = view.clone();
        match Turn::new(&view) {
            Turn::Equal(n) if n > 0 => Box::new(Equal(view)),
            turn => Box::new(Weighted { view, turn }),
        }
    }
}

/// One endpoint or more, all of one weight: what most services are, and so a picker of its own,
/// without the branches of the other.
pub(super) struct Equal(View);

impl Picker for Equal {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let index = next_or_any(self.0.len(), context);
        if context.tried().is_empty() {
            return Some(index);
        }
        context.first_untried(&self.0, index)
    }
}

pub(super) struct Weighted {
    view: View,
    turn: Turn,
}

impl Weighted {
    pub(super) fn stride(&self) -> Option<&Arc<[u16]>> {
        match &self.turn {
            Turn::Equal(_) => None,
            Turn::Stride(weights) => Some(weights),
        }
    }
}

impl Picker for Weighted {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let index = self.turn.next(context);
        context.first_untried(&self.view, index)
    }
}

/// Whose turn it is.
pub(super) enum Turn {
    Equal(u32),
    Stride(Arc<[u16]>),
}

impl Turn {
    /// O(n).
    pub(super) fn new(view: &View) -> Self {
        if view.is_uniform() {
            return Self::Equal(view.len());
        }
        let heaviest = view.weights().iter().copied().max().unwrap_or(1);
        let scale = |weight: u32| {
            let share = u64::from(weight) * u64::from(u16::MAX);
            // A weight of 1 beside one of 100,000 still gets a turn.
            (share.div_ceil(u64::from(heaviest))).max(1) as u16
        };
        // Most have the weight of their neighbour, which spares the division.
        let mut last = (heaviest, scale(heaviest));
        let scaled = |&weight: &u32| {
            if weight != last.0 {
                last = (weight, scale(weight));
            }
            last.1
        };
        Self::Stride(view.weights().iter().map(scaled).collect())
    }

    #[inline]
    pub(super) fn next(&self, context: &mut PickContext<'_>) -> NodeIndex {
        match self {
            Self::Equal(n) => next_or_any(*n, context),
            Self::Stride(weights) => stride(weights.len(), |at| weights[at], context.cursor()),
        }
    }
}

/// The next of n places. The cursor after the last place is the first; none for
/// one that lies beyond, because it comes from before the set shrank, or is a
/// new thread's random one.
#[inline]
pub(super) fn next_of(n: u32, cursor: u64) -> Option<NodeIndex> {
    let n = u64::from(n);
    let next = cursor + 1;
    let next = if next == n { 0 } else { next };
    (next < n).then_some(next as NodeIndex)
}

/// The next of n places, from a random one where the cursor names none.
#[inline]
pub(super) fn next_or_any(n: u32, context: &mut PickContext<'_>) -> NodeIndex {
    let next = next_of(n, *context.cursor()).unwrap_or_else(|| context.rng().below(n));
    *context.cursor() = u64::from(next);
    next
}

/// Steps the sequence until it meets a place that is not skipped in its round.
///
/// In round g, place i with weight w of 65535 is used if the line of slope
/// w/65535 crosses an integer between g and g + 1; shifting every other place
/// by half keeps equal light weights from all falling into one round.
///
/// The cursor is the round and the place, so that a step divides nothing.
#[inline]
pub(super) fn stride(n: usize, weight: impl Fn(usize) -> u16, cursor: &mut u64) -> NodeIndex {
    const FULL: u32 = u16::MAX as u32;
    let n = n as u32;
    let (mut round, mut place) = ((*cursor >> 32) as u32, *cursor as u32);
    if place >= n || round >= FULL {
        // From before the set shrank, or a new thread's random one.
        (round, place) = (round % FULL, place % n);
    }
    loop {
        place += 1;
        if place == n {
            place = 0;
            round = if round + 1 == FULL { 0 } else { round + 1 };
        }
        let weight = u32::from(weight(place as usize));
        let offset = (place % 2) * (FULL / 2);
        if (weight * round + offset) % FULL >= FULL - weight {
            *cursor = u64::from(round) << 32 | u64::from(place);
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// gRPC's static stride for the weights 1, 2, 3 from sequence 0.
    #[test]
    fn the_stride_is_grpcs() {
        let weights = [21845, 43690, 65535];
        // The last place of the last round.
        let mut cursor = u64::from(u16::MAX - 1) << 32 | 2;
        let mut next = || stride(weights.len(), |at| weights[at], &mut cursor);
        let sequence: Vec<u32> = (0..12).map(|_| next()).collect();
        assert_eq!(sequence, [1, 2, 2, 0, 1, 2, 1, 2, 2, 0, 1, 2]);
    }
}
