//! The choices that are made most, without a call through a pointer.
//!
//! Endpoints of equal weight, of which the call has tried none: that is nearly
//! every pick there is. A balancer makes these in place, where what the choice
//! reads and writes stays in registers; the call through a pointer, and what is
//! written to memory for it and read back, would be a third of the pick.
//! Whatever takes a call after all, such as to add up the stripes of many
//! threads, is left to the picker: a function that calls nothing needs no stack.

use std::any::Any;
use std::cell::Cell;

use super::{Picker, p2c, random, round_robin};
use crate::rng::Rng;
use crate::stats::{Counters, FewStripes};
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
    /// the call; none, with nothing begun or drawn, where this is not one of
    /// the simplest cases, and the picker has to be asked.
    #[expect(clippy::inline_always, reason = "in place is the point")]
    #[inline(always)]
    pub(crate) fn begin(
        self,
        n: u32,
        counters: &Counters,
        slot: Slot,
        rng: &Cell<Rng>,
        cursor: &Cell<u64>,
    ) -> Option<NodeIndex> {
        let node = match self {
            Self::RoundRobin => {
                let next = round_robin::next_of(n, cursor.get())?;
                cursor.set(u64::from(next));
                next
            }
            Self::Random => draw(rng, |rng| rng.below(n)),
            Self::P2c => {
                let few = FewStripes::in_use()?;
                let (first, second) = draw(rng, |rng| rng.two_below(n));
                return Some(counters.begin_at_fewer(first, second, few, slot));
            }
        };
        counters.begin(node, slot);
        Some(node)
    }
}

#[inline]
fn draw<T>(rng: &Cell<Rng>, draw: impl FnOnce(&mut Rng) -> T) -> T {
    let mut taken = rng.get();
    let drawn = draw(&mut taken);
    rng.set(taken);
    drawn
}
