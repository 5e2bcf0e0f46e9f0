//! What a thread keeps for itself, so that a pick shares nothing that is
//! written.
//!
//! For each balancer it uses, a thread has a [`Seat`]: a few handles to the
//! state it saw last, and its place in the turn. A pick reads one stamp to see
//! whether that state is still the one that is published, takes a handle with
//! it, and gives it back when it ends: no reference count moves, no cache line
//! is written that another core writes. When the stamp is another, the thread
//! fetches the new state; it does so at its next pick, and a thread that never
//! picks again keeps the last one until it ends.
//!
//! Everything is in [`Cell`]s, taken out while it is in use: a picker that
//! itself picks finds them empty and makes do.

use std::cell::{Cell, OnceCell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Weak};

use super::core::Core;
use super::pick::{self, Mark, Pick};
use super::state::{Ending, Share, State};
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::{Bell as _, Outcome, Stripes};
use crate::strategy::{Common, Memory, PickContext, PickOptions, begin_at_cheaper};
use crate::sync::{Lease, Slot};
use crate::time::{Clock, Timestamp};

thread_local! {
    /// Without a destructor, so that to reach it is to add an offset: it can
    /// be reached at any time, and need not be asked whether it is there.
    static LOCAL: Local = const { Local::new() };

    /// What the thread gives back when it ends, and the destructor of both.
    static KEEPER: Keeper = Keeper::new();
}

struct Local {
    slot: Cell<Slot>,
    near: ManuallyDrop<[Seat; NEAR]>,
}

struct Keeper {
    lease: Lease,
    far: Far,
}

/// Picks with the thread's own means; when that gives nothing, makes sure of it
/// and tells why.
#[inline]
pub(super) fn pick(core: &Arc<Core>, options: &PickOptions<'_>) -> Result<Pick, Error> {
    let picked = LOCAL.try_with(|local| local.pick_at_leisure(core, options));
    match picked {
        Ok(Some(pick)) => Ok(pick),
        _ => pick_without_thread(core, options),
    }
}

/// Picks any endpoint: what nearly every call asks for.
#[inline]
pub(super) fn pick_any(core: &Arc<Core>) -> Result<Pick, Error> {
    match LOCAL.try_with(|local| local.pick(core)) {
        Ok(Some(pick)) => Ok(pick),
        _ => pick_without_thread(core, &PickOptions::ANY),
    }
}

/// Ends a call: uncounts it, and takes back the handle that it held.
///
/// A function of its own, so that what remains with the caller is small enough
/// to be in place, and its pick in registers.
#[inline(never)]
pub(super) fn end(state: Arc<State>, mark: Mark, outcome: Outcome) {
    end_here::<0>(state, mark, outcome);
}

/// Ends a call that its caller gave up.
#[inline(never)]
pub(super) fn cancel(state: Arc<State>, mark: Mark) {
    end_here::<1>(state, mark, Outcome::Cancelled);
}

/// Numbered, so that each way here has code of its own: shared, it would be a
/// call more, and would not know that a cancelled call is no failure.
#[inline]
fn end_here<const WAY: u8>(state: Arc<State>, mark: Mark, outcome: Outcome) {
    // Apart, because a call in the middle of the way costs the untimed ones
    // their registers.
    match state.ending {
        Ending::Plain => end_untimed::<WAY>(state, mark, outcome),
        Ending::Timed => end_timed(state, mark, outcome),
        Ending::Full => end_in_full(state, mark, outcome),
    }
}

#[inline(never)]
fn end_timed(state: Arc<State>, mark: Mark, outcome: Outcome) {
    time(&state, mark, outcome);
    end_untimed::<2>(state, mark, outcome);
}

#[expect(clippy::inline_always, reason = "as what it calls")]
#[inline(always)]
fn time(state: &State, mark: Mark, outcome: Outcome) {
    if let Some(clock) = &state.stopwatch
        && let Some(gauges) = state.roster.counters.gauges(mark.node())
    {
        pick::record(gauges, clock, mark, outcome, state.by_latency);
    }
}

#[inline(never)]
fn end_in_full(state: Arc<State>, mark: Mark, outcome: Outcome) {
    if state.roster.counters.has_total() {
        state.roster.counters.end_in_total(slot(), outcome);
    }
    time(&state, mark, outcome);
    if state.has_trials() && !outcome.is_failure() {
        tell(&state, mark, outcome);
    }
    end_untimed::<3>(state, mark, outcome);
}

#[inline]
fn end_untimed<const WAY: u8>(state: Arc<State>, mark: Mark, outcome: Outcome) {
    // `LOCAL` is always there.
    let _ = LOCAL.try_with(|local| match local.near.get(state.place as usize) {
        Some(seat) if seat.stamp.get() == state.stamp => {
            uncount(&state, mark, local.slot.get(), outcome);
            seat.give(state);
        }
        _ => end_elsewhere(state, mark, outcome),
    });
}

/// Ends a call whose state this thread does not know, or at a far seat.
#[cold]
#[inline(never)]
fn end_elsewhere(state: Arc<State>, mark: Mark, outcome: Outcome) {
    uncount(&state, mark, slot(), outcome);
    keep(state);
}

/// Takes a handle back, if it is one to the state the thread knows.
pub(super) fn keep(state: Arc<State>) {
    with_seat(state.place, |seat| {
        if let Some(seat) = seat
            && seat.stamp.get() == state.stamp
        {
            seat.give(state);
        }
    });
}

/// Shows the thread's seat at that place, if there is one.
fn with_seat<T>(place: u32, look: impl FnOnce(Option<&Seat>) -> T) -> T {
    LOCAL.with(|local| {
        if let Some(seat) = local.near.get(place as usize) {
            return look(Some(seat));
        }
        let mut look = Some(look);
        let seen = KEEPER.try_with(|keeper| look.take().map(|look| look(keeper.far.get(place))));
        match (seen, look) {
            (Ok(Some(seen)), _) => seen,
            (_, Some(look)) => look(None),
            (_, None) => unreachable!("whoever looked has seen"),
        }
    })
}

/// The slot of this thread; a shared one while it ends.
pub(super) fn slot() -> Slot {
    let slot = KEEPER.try_with(|keeper| keeper.lease.slot());
    slot.unwrap_or_else(|_| Slot::shared())
}

/// Picks from what is published now, with makeshift means: for a thread that is
/// ending, and as the second opinion of one that found nothing.
#[cold]
fn pick_without_thread(core: &Core, options: &PickOptions<'_>) -> Result<Pick, Error> {
    let memory = Memory::new();
    memory.begin(Rng::from_entropy());
    let state = core.published.load();
    let now = state.time_of_pick();
    match memory.lend(options, now, |context| state.pick(&memory.turns, context)) {
        Some(node) => Ok(count(state, node, now, Slot::shared())),
        None => Err(state.refusal(core.service.shared(), options)),
    }
}

impl Local {
    const fn new() -> Self {
        Self {
            // Never used: a seat that has a stamp was made after a lease.
            slot: Cell::new(Slot {
                stripe: 0,
                exclusive: false,
            }),
            near: ManuallyDrop::new([const { Seat::new() }; NEAR]),
        }
    }

    /// Picks any endpoint at a near seat that is up to date, with a handle at
    /// hand, by one of the commonest choices.
    ///
    /// Every way off this one is the last thing it does: so it needs no stack,
    /// and its arguments and result are in registers.
    #[inline(never)]
    fn pick(&self, core: &Arc<Core>) -> Option<Pick> {
        let seat = match self.near.get(core.place as usize) {
            Some(seat) if seat.stamp.get() == core.published.stamp() => seat,
            _ => return pick_elsewhere(core, &PickOptions::ANY),
        };
        let slot = self.slot.get();
        let Some(state) = seat.handle.take() else {
            return seat.pick_with_spare(core, &PickOptions::ANY, slot);
        };
        match state.in_place {
            // Apart: it needs registers that the others then need not save.
            Some(Common::P2c) => match Stripes::in_use() {
                Stripes::One => seat.pick_in_place(state, false, slot),
                Stripes::Two => seat.pick_in_place(state, true, slot),
                Stripes::Many(stripes) => seat.pick_in_place_of_many(state, stripes, slot),
            },
            Some(common) => seat.pick_with(common, state, (Stripes::One, slot)),
            None if state.by_cost.is_some() => seat.pick_by_cost(state, slot),
            None if state.by_weight.is_some() => seat.pick_by_weight(state, slot),
            None => seat.pick_of_shares(state, slot),
        }
    }

    /// Picks at a near seat that is up to date, whatever is asked for.
    fn pick_at_leisure(&self, core: &Arc<Core>, options: &PickOptions<'_>) -> Option<Pick> {
        match self.near.get(core.place as usize) {
            Some(seat) if seat.stamp.get() == core.published.stamp() => {
                seat.pick_with_spare(core, options, self.slot.get())
            }
            _ => pick_elsewhere(core, options),
        }
    }
}

/// Picks at a far seat, or at one that has to be brought up to date.
#[cold]
#[inline(never)]
fn pick_elsewhere(core: &Arc<Core>, options: &PickOptions<'_>) -> Option<Pick> {
    let picked = KEEPER.try_with(|keeper| {
        LOCAL.with(|local| {
            let slot = keeper.lease.slot();
            local.slot.set(slot);
            let near = local.near.get(core.place as usize);
            let seat = near.unwrap_or_else(|| keeper.far.make(core.place));
            if seat.stamp.get() != core.published.stamp() {
                seat.refresh(core, || {
                    local.near.iter().for_each(Seat::clear_abandoned);
                    keeper.far.seats().for_each(Seat::clear_abandoned);
                });
            }
            seat.pick_with_spare(core, options, slot)
        })
    });
    picked.ok().flatten()
}

impl Keeper {
    fn new() -> Self {
        Self {
            lease: Lease::take(),
            far: Far::new(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        LOCAL.with(|local| local.near.iter().for_each(Seat::clear));
        self.far.seats().for_each(Seat::clear);
    }
}

/// Counts the call and makes its guard.
#[inline]
fn count(state: Arc<State>, node: u32, now: Option<Timestamp>, slot: Slot) -> Pick {
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

#[inline]
fn uncount(state: &State, mark: Mark, slot: Slot, outcome: Outcome) {
    state.roster.counters.end(mark.node(), slot, outcome);
    if outcome.is_failure() {
        tell(state, mark, outcome);
    }
}

/// Tells of a call whose end somebody may be waiting for. Cannot unwind, for
/// the sake of the picks: see [`count`].
#[cold]
#[inline(never)]
#[expect(improper_ctypes_definitions, reason = "the ABI is for not unwinding")]
extern "C" fn tell(state: &State, mark: Mark, outcome: Outcome) {
    if let Some(alarm) = &state.alarm
        && let Some(stats) = state.roster.stats.get(mark.node() as usize)
    {
        alarm.ended(stats, outcome);
    }
}

/// Further handles kept at a seat: as many calls as a thread usually has in
/// flight at once. Beyond it, a handle costs two locked instructions (4 ns).
const SPARES: usize = 32;

/// A thread's place at one balancer.
struct Seat {
    memory: Memory,
    /// The stamp of the state that the handles are to; 0, which no state has,
    /// while there is none.
    stamp: Cell<u64>,
    /// The handle that the next pick takes: where picks follow one another,
    /// there and back is all that happens.
    handle: Cell<Option<Arc<State>>>,
    spares: RefCell<Vec<Arc<State>>>,
    balancer: Cell<Option<Weak<Core>>>,
}

impl Seat {
    const fn new() -> Self {
        Self {
            stamp: Cell::new(0),
            memory: Memory::new(),
            handle: Cell::new(None),
            spares: RefCell::new(Vec::new()),
            balancer: Cell::new(None),
        }
    }

    #[inline(never)]
    fn pick_with_spare(&self, core: &Core, options: &PickOptions<'_>, slot: Slot) -> Option<Pick> {
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
        match &state.by_weight {
            Some(common) => {
                let node = common.begin(&roster.weights, &roster.counters, slot, memory);
                Some(guard(state, node))
            }
            None => self.pick(state, &PickOptions::ANY, slot),
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
        let Some(clock) = &state.by_cost else {
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
        let Some(shares) = &state.shares else {
            return self.pick(state, &PickOptions::ANY, slot);
        };
        let memory = &self.memory;
        let (at, share) = shares.of(memory.next_in_spread());
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
                keep(state);
                None
            }
        }
    }

    /// Fetches the state that is published now.
    fn refresh(&self, core: &Arc<Core>, clear_abandoned: impl FnOnce()) {
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

    #[inline]
    fn give(&self, state: Arc<State>) {
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

    fn clear(&self) {
        self.stamp.set(0);
        let handle = self.handle.take();
        // Dropped after the borrow has ended: a state may own a picker that
        // picks when it is dropped.
        let spares = self.spares.take();
        drop((handle, spares, self.balancer.take()));
    }

    fn clear_abandoned(&self) {
        let balancer = self.balancer.take();
        let gone = |balancer: &Weak<Core>| balancer.strong_count() == 0;
        if balancer.as_ref().is_some_and(gone) {
            self.clear();
        } else {
            self.balancer.set(balancer);
        }
    }
}

/// How many balancers have a seat in the thread's own storage.
const NEAR: usize = 64;

/// The seats of further balancers, found by their place, in rows of 64, 128,
/// 256 … A seat never moves once it is there.
struct Far([OnceCell<Box<[Seat]>>; Far::ROWS]);

impl Far {
    /// Enough for every place that a `u32` names.
    const ROWS: usize = 26;

    const fn new() -> Self {
        Self([const { OnceCell::new() }; Self::ROWS])
    }

    fn get(&self, place: u32) -> Option<&Seat> {
        let (row, offset) = Self::locate(place);
        self.0[row].get().map(|seats| &seats[offset])
    }

    fn make(&self, place: u32) -> &Seat {
        let (row, offset) = Self::locate(place);
        let seats = self.0[row].get_or_init(|| {
            let len = NEAR << row;
            (0..len).map(|_| Seat::new()).collect()
        });
        &seats[offset]
    }

    fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.0.iter().filter_map(OnceCell::get).flatten()
    }

    /// The row of a place, and where in it: row r begins at 64 · 2^r.
    fn locate(place: u32) -> (usize, usize) {
        let row = place.ilog2() - NEAR.ilog2();
        (row as usize, place as usize - (NEAR << row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_far_place_has_a_seat_of_its_own() {
        let mut next = (0, 0);
        for place in NEAR as u32..10_000 {
            assert_eq!(Far::locate(place), next);
            next.1 += 1;
            if next.1 == NEAR << next.0 {
                next = (next.0 + 1, 0);
            }
        }
        assert!(Far::locate(u32::MAX).0 < Far::ROWS);

        let seats = Far::new();
        for place in [64, 65, 1_000] {
            seats.make(place).stamp.set(u64::from(place) + 1);
        }
        for place in [64, 65, 1_000] {
            let seat = seats.get(place).expect("it was made");
            assert_eq!(seat.stamp.get(), u64::from(place) + 1);
        }
        assert!(seats.get(10_000).is_none());
    }
}
