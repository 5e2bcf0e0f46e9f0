//! The choices that are made most, without a call through a pointer.
//!
//! Endpoints of equal weight, of which the call has tried none: that is nearly
//! every pick there is. A balancer makes these in place, where what the choice
//! reads and writes stays in registers; the call through a pointer, and what is
//! written to memory for it and read back, would be a third of the pick.

use std::any::Any;

use super::{Picker, p2c, random, round_robin};
use crate::rng::Rng;
use crate::stats::Counters;
use crate::sync::Slot;
use crate::view::NodeIndex;

/// A choice among the nodes of a view that are of one weight.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Common {
    RoundRobin,
    Random,
    P2c,
}

impl Common {
    /// The choice that a picker makes when a call has tried nothing, if it is
    /// one of these.
    pub(crate) fn of(picker: &dyn Picker) -> Option<Self> {
        let picker: &dyn Any = picker;
        if picker.is::<round_robin::Equal>() {
            Some(Self::RoundRobin)
        } else if picker.is::<random::Uniform>() {
            Some(Self::Random)
        } else if picker.is::<p2c::Uniform>() {
            Some(Self::P2c)
        } else {
            None
        }
    }

    /// Picks one of the first `n` endpoints that are counted there, and begins
    /// the call.
    #[expect(clippy::inline_always, reason = "in place is the point")]
    #[inline(always)]
    pub(crate) fn begin(
        self,
        n: u32,
        counters: &Counters,
        slot: Slot,
        rng: &mut Rng,
        cursor: &mut u64,
    ) -> NodeIndex {
        let node = match self {
            Self::RoundRobin => round_robin::next_of(n, cursor, rng),
            Self::Random => rng.below(n),
            Self::P2c => {
                let (first, second) = rng.two_below(n);
                return counters.begin_at_fewer(first, second, slot);
            }
        };
        counters.begin(node, slot);
        node
    }
}
