//! The choices that are made most, without a call through a pointer.
//!
//! Endpoints of which the call has tried none: that is nearly every pick there
//! is. A balancer makes these in place, where what the choice
//! reads and writes stays in registers; the call through a pointer, and what is
//! written to memory for it and read back, would be a third of the pick.
//! Whatever takes a call after all is left to the picker: a function that calls
//! nothing needs no stack.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use super::alias::{Alias, other_than};
use super::{PickContext, PickOptions, Picker, p2c, random, round_robin};
use crate::rng::{Bits, Rng};
use crate::stats::{Counters, Place, Stripes};
use crate::sync::Slot;
use crate::time::Timestamp;
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

    /// Picks one of the `n` endpoints from `start` on that are counted there, and
    /// begins the call; `turn` is whose turn it is among them. None, with nothing
    /// begun or drawn, where this is not one of the simplest cases, and the
    /// picker has to be asked.
    #[expect(clippy::inline_always, reason = "in place is the point")]
    #[inline(always)]
    pub(crate) fn begin(
        self,
        (start, n): (u32, u32),
        turn: &Cell<u64>,
        counters: &Counters,
        (stripes, slot): (Stripes, Slot),
        memory: &Memory,
    ) -> Option<NodeIndex> {
        let node = match self {
            Self::RoundRobin => {
                let next = round_robin::next_of(n, turn.get())?;
                turn.set(u64::from(next));
                start + next
            }
            Self::Random => start + memory.draw().below(n),
            Self::P2c => {
                let (first, second) = memory.draw().two_below(n);
                let (first, second) = (start + first, start + second);
                let read = |place: Place<'_>| place.in_flight(stripes);
                let (idle, fewer) = (|a| a == 0, |a, b| b < a);
                return Some(counters.begin_at_better((first, second), slot, read, idle, fewer));
            }
        };
        counters.begin(node, slot);
        Some(node)
    }
}

/// A choice among nodes of different weights, with the table that it is made by.
#[derive(Clone, Debug)]
pub(crate) enum CommonByWeight {
    RoundRobin(Arc<[u16]>),
    Random(Alias),
    P2c(Alias),
}

impl CommonByWeight {
    /// As [`Common::of`].
    pub(crate) fn of(picker: &dyn Picker) -> Option<Self> {
        let picker: &dyn Any = picker;
        if let Some(picker) = picker.downcast_ref::<round_robin::Weighted>() {
            picker.stride().cloned().map(Self::RoundRobin)
        } else if let Some(picker) = picker.downcast_ref::<random::Weighted>() {
            picker.alias().cloned().map(Self::Random)
        } else if let Some(picker) = picker.downcast_ref::<p2c::Weighted>() {
            picker.alias().cloned().map(Self::P2c)
        } else {
            None
        }
    }

    /// Picks one of the first endpoints that are counted there, of these
    /// weights, and begins the call.
    #[inline]
    pub(crate) fn begin(
        &self,
        weights: &[u32],
        counters: &Counters,
        slot: Slot,
        memory: &Memory,
    ) -> NodeIndex {
        let node = match self {
            Self::RoundRobin(strides) => {
                let mut cursor = memory.cursor.get();
                let stride = |at| strides.get(at).copied().unwrap_or(u16::MAX);
                let node = round_robin::stride(strides.len(), stride, &mut cursor);
                memory.cursor.set(cursor);
                node
            }
            Self::Random(alias) => alias.draw(memory.draw()),
            Self::P2c(alias) => {
                let stripes = Stripes::in_use();
                let first = alias.draw(memory.draw());
                match other_than(first, || alias.draw(memory.draw())) {
                    Some(second) => {
                        let weight = |node: NodeIndex| {
                            let weight = weights.get(node as usize);
                            weight.copied().unwrap_or(1)
                        };
                        let (one, other) = (weight(first), weight(second));
                        let read = |place: Place<'_>| place.in_flight(stripes);
                        let idle = |a| a == 0;
                        let lighter = |a, b| p2c::is_lighter((b, other), (a, one));
                        let two = (first, second);
                        return counters.begin_at_better(two, slot, read, idle, lighter);
                    }
                    None => first,
                }
            }
        };
        counters.begin(node, slot);
        node
    }
}

/// What a thread keeps from pick to pick of one balancer.
///
/// In this order, because of how a processor forwards what was just written:
/// `rng` and `cursor` side by side are copied as one word of 16 bytes, which
/// must wait until the two words of 8 that it was written as have left for the
/// cache (some 20 cycles, a quarter of a pick).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Memory {
    rng: Cell<Rng>,
    /// The next draw. Made one pick ahead, while the pick before waits for its
    /// counters: a draw takes ten cycles that nothing else could be begun in.
    drawn: Cell<Bits>,
    pub(crate) cursor: Cell<u64>,
    pub(crate) turns: Turns,
    /// Where in [0, 1), in steps of 2^-32, the draw among groups is.
    spread: Cell<u32>,
}

/// Whose turn it is in each of several groups; those beyond the eighth share.
#[derive(Debug)]
pub(crate) struct Turns([Cell<u64>; 8]);

impl Turns {
    #[inline]
    pub(crate) fn of(&self, group: usize) -> &Cell<u64> {
        &self.0[group % 8]
    }

    /// Lends the turn of a group to a pick within it.
    #[inline]
    pub(crate) fn lend<T>(
        &self,
        group: usize,
        context: &mut PickContext<'_>,
        pick: impl FnOnce(&mut PickContext<'_>) -> T,
    ) -> T {
        let turn = self.of(group);
        let outer = std::mem::replace(context.cursor(), turn.get());
        let picked = pick(context);
        turn.set(std::mem::replace(context.cursor(), outer));
        picked
    }
}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            rng: Cell::new(Rng::seeded(0)),
            cursor: Cell::new(0),
            drawn: Cell::new(Bits(0)),
            turns: Turns([const { Cell::new(0) }; 8]),
            spread: Cell::new(0),
        }
    }

    /// Begins anew, at a random place in any turn.
    pub(crate) fn begin(&self, mut rng: Rng) {
        self.cursor.set(rng.bits() >> 1);
        for turn in &self.turns.0 {
            turn.set(rng.bits() >> 1);
        }
        self.drawn.set(Bits(rng.bits()));
        self.spread.set(rng.bits() as u32);
        self.rng.set(rng);
    }

    /// The next of 2^32 numbers, each of which comes once, and of which any few
    /// in a row lie evenly: steps of the golden ratio (Weyl's sequence). Shares
    /// come true to within a call or two, where random draws stray by the root
    /// of their number; and a processor foresees most of them.
    #[inline]
    pub(crate) fn next_in_spread(&self) -> u32 {
        let next = self.spread.get().wrapping_add(0x9E37_79B9);
        self.spread.set(next);
        next
    }

    #[inline]
    pub(super) fn draw(&self) -> Bits {
        let mut rng = self.rng.get();
        let drawn = self.drawn.replace(Bits(rng.bits()));
        self.rng.set(rng);
        drawn
    }

    /// Lends it to a picker, for one pick.
    #[inline]
    pub(crate) fn lend<T>(
        &self,
        options: &PickOptions<'_>,
        now: Option<Timestamp>,
        pick: impl FnOnce(&mut PickContext<'_>) -> T,
    ) -> T {
        let mut context = PickContext::new(self.rng.get(), self.cursor.get(), options);
        context.set_now(now.unwrap_or_default());
        let picked = pick(&mut context);
        self.rng.set(*context.rng());
        self.cursor.set(*context.cursor());
        picked
    }
}
