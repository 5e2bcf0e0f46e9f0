//! A thread's place at one balancer, and the ways to pick from there.
//!
//! The commonest choices are made in place. Each has a function of its own, which
//! needs no more registers than that choice does.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

use super::core::Core;
use super::pick::{Mark, Pick};
use super::shortcut::{Share, Shortcut};
use super::state::State;
use crate::rng::Rng;
use crate::stats::Stripes;
use crate::strategy::{Common, Memory, PickContext, PickOptions, begin_at_cheaper};
use crate::sync::Slot;
use crate::time::{Clock, Timestamp};

/// A thread's place at one balancer.
pub(super) struct Seat {
    memory: Memory,
    /// The stamp of the state that the handles are to; 0, which no state has,
    /// while there is none.
    pub(super) stamp: Cell<u64>,
    /// The handle that the next pick takes: where picks follow one another,
    /// there and back is all that happens.
    handle: Cell<Option<Arc<State>>>,
    spares: RefCell<Vec<Arc<State>>>,
    balancer: Cell<Option<Weak<Core>>>,
}

/// Further handles kept at a seat: as many calls as a thread usually has in
/// flight at once. Beyond it, a handle costs two locked instructions (4 ns).
const SPARES: usize = 32;

impl Seat {
    pub(super) const fn new() -> Self {
        Self {
            stamp: Cell::new(0),
            memory: Memory::new(),
            handle: Cell::new(None),
            spares: RefCell::new(Vec::new()),
            balancer: Cell::new(None),
        }
    }

    /// Picks any endpoint: by one of the commonest choices, if that is the
    /// state's and a handle is at hand.
    #[inline]
    pub(super) fn pick_any(&self, core: &Core, slot: Slot) -> Option<Pick> {
        let Some(state) = self.handle.take() else {
            return self.pick_with_spare(core, &PickOptions::ANY, slot);
        };
        let Some(Shortcut::Common(common)) = state.shortcut else {
            return self.pick_otherwise(state, slot);
        };
        match common {
            // Apart: it needs registers that the others then need not save.
            Common::P2c => match Stripes::in_use() {
                Stripes::One => self.pick_in_place(state, false, slot),
                Stripes::Two => self.pick_in_place(state, true, slot),
                Stripes::Many(stripes) => self.pick_in_place_of_many(state, stripes, slot),
            },
            _ => self.pick_with(common, state, (Stripes::One, slot)),
        }
    }

    /// Apart, so that the most common ones are not told from the others through
    /// a table.
    #[inline(never)]
    fn pick_otherwise(&self, state: Arc<State>, slot: Slot) -> Option<Pick> {
        match &state.shortcut {
            Some(Shortcut::ByWeight(_)) => self.pick_by_weight(state, slot),
            Some(Shortcut::ByCost(_)) => self.pick_by_cost(state, slot),
            Some(Shortcut::Shares(_)) => self.pick_of_shares(state, slot),
            Some(Shortcut::Common(_)) | None => self.pick(state, &PickOptions::ANY, slot),
        }
    }

    #[inline(never)]
    pub(super) fn pick_with_spare(
        &self,
        core: &Core,
        options: &PickOptions<'_>,
        slot: Slot,
    ) -> Option<Pick> {
        let state = self.handle.take();
        let state = state.unwrap_or_else(|| self.take_spare(core));
        self.pick(state, options, slot)
    }

    /// Of one stripe or two, which the flag leaves no doubt about: with a loop in
    /// it, this would need a stack.
    #[inline(never)]
    fn pick_in_place(&self, state: Arc<State>, two: bool, slot: Slot) -> Option<Pick> {
        let few = if two { Stripes::Two } else { Stripes::One };
        self.pick_with(Common::P2c, state, (few, slot))
    }

    #[inline(never)]
    fn pick_in_place_of_many(&self, state: Arc<State>, stripes: usize, slot: Slot) -> Option<Pick> {
        self.pick_with(Common::P2c, state, (Stripes::Many(stripes), slot))
    }

    #[expect(clippy::inline_always, reason = "in place is the point")]
    #[inline(always)]
    fn pick_with(
        &self,
        common: Common,
        state: Arc<State>,
        (stripes, slot): (Stripes, Slot),
    ) -> Option<Pick> {
        let (n, counters, memory) = (state.first.len(), &state.roster.counters, &self.memory);
        match common.begin((0, n), &memory.cursor, counters, (stripes, slot), memory) {
            Some(node) => Some(guard(state, node)),
            None => self.pick(state, &PickOptions::ANY, slot),
        }
    }

    #[inline(never)]
    fn pick_by_weight(&self, state: Arc<State>, slot: Slot) -> Option<Pick> {
        let (roster, memory) = (&state.roster, &self.memory);
        match &state.shortcut {
            Some(Shortcut::ByWeight(common)) => {
                let node = common.begin(&roster.weights, &roster.counters, slot, memory);
                Some(guard(state, node))
            }
            _ => self.pick(state, &PickOptions::ANY, slot),
        }
    }

    /// Picks by what calls cost at this moment, which is when the call begins.
    #[inline(never)]
    fn pick_by_cost(&self, state: Arc<State>, slot: Slot) -> Option<Pick> {
        match Stripes::in_use() {
            Stripes::Many(stripes) => self.pick_by_cost_of_many(state, stripes, slot),
            few => self.pick_cheaper(state, (few, slot)),
        }
    }

    #[inline(never)]
    fn pick_by_cost_of_many(&self, state: Arc<State>, stripes: usize, slot: Slot) -> Option<Pick> {
        self.pick_cheaper(state, (Stripes::Many(stripes), slot))
    }

    #[expect(clippy::inline_always, reason = "as pick_with")]
    #[inline(always)]
    fn pick_cheaper(&self, state: Arc<State>, (stripes, slot): (Stripes, Slot)) -> Option<Pick> {
        let Some(Shortcut::ByCost(clock)) = &state.shortcut else {
            return self.pick(state, &PickOptions::ANY, slot);
        };
        let now = clock.now();
        let (n, counters, memory) = (state.first.len(), &state.roster.counters, &self.memory);
        let node = begin_at_cheaper(n, counters, (stripes, slot), memory, now);
        Some(Pick::new(state, Mark::new(node, now)))
    }

    /// Picks of the group that is drawn, where several share the calls.
    #[inline(never)]
    fn pick_of_shares(&self, state: Arc<State>, slot: Slot) -> Option<Pick> {
        let Some(Shortcut::Shares(shares)) = &state.shortcut else {
            return self.pick(state, &PickOptions::ANY, slot);
        };
        let memory = &self.memory;
        let (at, share) = shares.at(memory.next_in_spread());
        let Share { start, len, common } = share;
        let counters = &state.roster.counters;
        let begun = common.and_then(|common| {
            let stripes = (Stripes::in_use(), slot);
            common.begin((start, len), memory.turns.of(at), counters, stripes, memory)
        });
        match begun {
            Some(node) => Some(guard(state, node)),
            None => self.pick_drawn(state, at, slot),
        }
    }

    /// Picks with the picker of a group that was drawn.
    #[inline(never)]
    fn pick_drawn(&self, state: Arc<State>, drawn: usize, slot: Slot) -> Option<Pick> {
        self.pick_by(state, &PickOptions::ANY, slot, |state, context| {
            state.pick_of(drawn, &self.memory.turns, context)
        })
    }

    /// Picks with any picker, from the first level that has one left.
    #[inline(never)]
    fn pick(&self, state: Arc<State>, options: &PickOptions<'_>, slot: Slot) -> Option<Pick> {
        self.pick_by(state, options, slot, |state, context| {
            state.pick(&self.memory.turns, context)
        })
    }

    #[inline]
    fn pick_by(
        &self,
        state: Arc<State>,
        options: &PickOptions<'_>,
        slot: Slot,
        pick: impl FnOnce(&State, &mut PickContext<'_>) -> Option<u32>,
    ) -> Option<Pick> {
        let now = state.time_of_pick();
        match self
            .memory
            .lend(options, now, |context| pick(&state, context))
        {
            Some(node) => Some(count(state, node, now, slot)),
            None => {
                self.keep(state);
                None
            }
        }
    }

    /// Fetches the state that is published now.
    pub(super) fn refresh(&self, core: &Arc<Core>, clear_abandoned: impl FnOnce()) {
        let state = core.published.load();
        let known = self.balancer.take();
        if known.is_none_or(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(core))) {
            // A balancer that is new to the thread: a good moment to let go of
            // those that are gone.
            clear_abandoned();
            self.memory.begin(Rng::from_entropy());
        }
        self.clear();
        self.balancer.set(Some(Arc::downgrade(core)));
        self.spares.replace({
            // Room for all of them, so that no later pick allocates.
            let mut spares = Vec::with_capacity(SPARES);
            spares.push(Arc::clone(&state));
            spares
        });
        self.stamp.set(state.stamp);
        self.give(state);
    }

    fn take_spare(&self, core: &Core) -> Arc<State> {
        let mut spares = self.spares.borrow_mut();
        match spares.pop() {
            // The last one stays, to be copied from.
            Some(last) if spares.is_empty() => {
                spares.push(Arc::clone(&last));
                last
            }
            Some(spare) => spare,
            // Published after the stamp was read, at worst: newer, never older.
            None => core.published.load(),
        }
    }

    /// Takes a handle back, if it is one to the state that the thread knows.
    pub(super) fn keep(&self, state: Arc<State>) {
        if self.stamp.get() == state.stamp {
            self.give(state);
        }
    }

    #[inline]
    pub(super) fn give(&self, state: Arc<State>) {
        if let Some(other) = self.handle.replace(Some(state)) {
            self.give_spare(other);
        }
    }

    #[inline(never)]
    fn give_spare(&self, state: Arc<State>) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES {
            spares.push(state);
        }
    }

    pub(super) fn clear(&self) {
        self.stamp.set(0);
        let handle = self.handle.take();
        // Dropped after the borrow has ended: a state may own a picker that
        // picks when it is dropped.
        let spares = self.spares.take();
        drop((handle, spares, self.balancer.take()));
    }

    pub(super) fn clear_abandoned(&self) {
        let balancer = self.balancer.take();
        let gone = |balancer: &Weak<Core>| balancer.strong_count() == 0;
        if balancer.as_ref().is_some_and(gone) {
            self.clear();
        } else {
            self.balancer.set(balancer);
        }
    }
}

/// Counts the call and makes its guard.
#[inline]
pub(super) fn count(state: Arc<State>, node: u32, now: Option<Timestamp>, slot: Slot) -> Pick {
    state.roster.counters.begin_in_total(slot);
    state.roster.counters.begin(node, slot);
    if let Some(now) = now {
        return Pick::new(state, Mark::new(node, now));
    }
    guard(state, node)
}

/// The guard of a call that is counted.
#[inline]
fn guard(state: Arc<State>, node: u32) -> Pick {
    if state.stopwatch.is_some() {
        return timed_guard(state, node);
    }
    Pick::new(state, Mark::untimed(node))
}

#[inline(never)]
fn timed_guard(state: Arc<State>, node: u32) -> Pick {
    let started = state.stopwatch.as_ref().map(Clock::now);
    let mark = Mark::new(node, started.unwrap_or_default());
    Pick::new(state, mark)
}
