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

use std::cell::{Cell, OnceCell};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::core::Core;
use super::pick::{self, Mark, Pick};
use super::seat::{Seat, count};
use super::state::{Ending, State};
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::{Bell as _, Outcome};
use crate::strategy::{Memory, PickOptions};
use crate::sync::{Lease, Slot};

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
        if let Some(seat) = seat {
            seat.keep(state);
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

    /// Picks any endpoint at a near seat that is up to date.
    ///
    /// Every way off this one is the last thing it does: so it needs no stack,
    /// and its arguments and result are in registers.
    #[inline(never)]
    fn pick(&self, core: &Arc<Core>) -> Option<Pick> {
        let seat = match self.near.get(core.place as usize) {
            Some(seat) if seat.stamp.get() == core.published.stamp() => seat,
            _ => return pick_elsewhere(core, &PickOptions::ANY),
        };
        seat.pick_any(core, self.slot.get())
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

#[inline]
fn uncount(state: &State, mark: Mark, slot: Slot, outcome: Outcome) {
    state.roster.counters.end(mark.node(), slot, outcome);
    if outcome.is_failure() {
        tell(state, mark, outcome);
    }
}

/// Tells of a call whose end somebody may be waiting for. Cannot unwind, for
/// the sake of the picks, which are then in registers.
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
