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
use std::sync::{Arc, Weak};

use super::core::Core;
use super::pick::{self, Mark, Pick};
use super::state::State;
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::strategy::{PickContext, PickOptions};
use crate::sync::{Lease, Slot};

thread_local! {
    static LOCAL: Local = Local::new();
}

struct Local {
    slot: Slot,
    seats: Seats,
    /// Gives the slot back when the thread ends.
    _lease: Lease,
}

/// Picks with the thread's own means; when that gives nothing, makes sure of it
/// and tells why.
#[inline]
pub(super) fn pick(core: &Arc<Core>, options: &PickOptions<'_>) -> Result<Pick, Error> {
    match LOCAL.try_with(|local| local.pick(core, options)) {
        Ok(Some(pick)) => Ok(pick),
        _ => pick_without_thread(core, options),
    }
}

/// Ends a call: uncounts it, and takes back the handle that it held.
#[inline]
pub(super) fn end(state: Arc<State>, mark: Mark, outcome: Outcome) {
    // Apart, because a call in the middle of the way costs the untimed ones
    // their registers.
    if state.stopwatch.is_some() {
        end_timed(state, mark, outcome);
    } else {
        end_untimed(state, mark, outcome);
    }
}

#[inline(never)]
fn end_timed(state: Arc<State>, mark: Mark, outcome: Outcome) {
    if let Some(clock) = &state.stopwatch
        && let Some(node) = state.nodes.get(mark.node())
    {
        pick::record(node, clock, mark, outcome);
    }
    end_untimed(state, mark, outcome);
}

#[inline]
fn end_untimed(state: Arc<State>, mark: Mark, outcome: Outcome) {
    let mut held = Some(state);
    let ended = LOCAL.try_with(|local| {
        if let Some(state) = held.take() {
            uncount(&state, mark, local.slot, outcome);
            local.keep(state);
        }
    });
    if ended.is_err()
        && let Some(state) = held
    {
        uncount(&state, mark, Slot::shared(), outcome);
    }
}

/// The slot of this thread, for a call that has no handle to give back.
pub(super) fn slot() -> Slot {
    LOCAL
        .try_with(|local| local.slot)
        .unwrap_or_else(|_| Slot::shared())
}

/// Picks from what is published now, with makeshift means: for a thread that is
/// ending, and as the second opinion of one that found nothing.
#[cold]
fn pick_without_thread(core: &Core, options: &PickOptions<'_>) -> Result<Pick, Error> {
    let mut rng = Rng::from_entropy();
    let cursor = first_cursor(&mut rng);
    let state = core.published.load();
    match choose(&state, &mut PickContext::new(rng, cursor, options)) {
        Some(node) => Ok(count(state, node, Slot::shared())),
        None => Err(state.refusal(core.service.shared(), options.is_first_try())),
    }
}

/// A random place in any turn, with room for a step.
fn first_cursor(rng: &mut Rng) -> u64 {
    rng.bits() >> 1
}

impl Local {
    fn new() -> Self {
        let lease = Lease::take();
        Self {
            slot: lease.slot(),
            seats: Seats::new(),
            _lease: lease,
        }
    }

    /// A function of its own, whose arguments and result are in registers.
    #[inline(never)]
    fn pick(&self, core: &Arc<Core>, options: &PickOptions<'_>) -> Option<Pick> {
        let seat = match self.seats.get(core.place) {
            Some(seat) if seat.stamp.get() == core.published.stamp() => seat,
            _ => self.refresh(core),
        };
        let state = seat.take(core);
        let mut context = PickContext::new(seat.rng.get(), seat.cursor.get(), options);
        let choice = choose(&state, &mut context);
        seat.rng.set(*context.rng());
        seat.cursor.set(*context.cursor());
        match choice {
            Some(node) => Some(count(state, node, self.slot)),
            None => {
                self.keep(state);
                None
            }
        }
    }

    /// Takes a handle back, if it is one to the state the thread knows.
    #[inline]
    fn keep(&self, state: Arc<State>) {
        if let Some(seat) = self.seats.get(state.place)
            && seat.stamp.get() == state.stamp
        {
            seat.give(state);
        }
    }

    /// Fetches the state that is published now.
    #[cold]
    fn refresh(&self, core: &Arc<Core>) -> &Seat {
        let state = core.published.load();
        let seat = self.seats.make(core.place);
        let known = seat.balancer.take();
        if known.is_none_or(|known| !std::ptr::eq(known.as_ptr(), Arc::as_ptr(core))) {
            // A balancer that is new to the thread: a good moment to let go of
            // those that are gone.
            self.seats.clear_abandoned();
            let mut rng = Rng::from_entropy();
            seat.cursor.set(first_cursor(&mut rng));
            seat.rng.set(rng);
        }
        seat.clear();
        seat.balancer.set(Some(Arc::downgrade(core)));
        seat.spares.replace({
            // Room for all of them, so that no later pick allocates.
            let mut spares = Vec::with_capacity(SPARES);
            spares.push(Arc::clone(&state));
            spares
        });
        seat.stamp.set(state.stamp);
        seat.give(state);
        seat
    }
}

/// The position, among the state's nodes, of the one that gets the call: from
/// the first level that has one left.
#[inline]
fn choose(state: &State, context: &mut PickContext<'_>) -> Option<u32> {
    match state.first.pick(context) {
        None => choose_below(state, context),
        first => first,
    }
}

#[cold]
fn choose_below(state: &State, context: &mut PickContext<'_>) -> Option<u32> {
    state.below.iter().find_map(|level| level.pick(context))
}

/// Counts the call and makes its guard.
///
/// The node is there, and so is its stripe; they are looked up without a way to
/// panic, since that way alone, never taken, would make every pick keep its
/// handle in memory for the unwinding.
#[inline]
fn count(state: Arc<State>, node: u32, slot: Slot) -> Pick {
    if let Some(node) = state.nodes.get(node as usize) {
        node.stats().begin(slot);
    }
    let mark = match &state.stopwatch {
        None => Mark::untimed(node),
        Some(clock) => Mark::new(node, clock.now()),
    };
    Pick::new(state, mark)
}

#[inline]
fn uncount(state: &State, mark: Mark, slot: Slot, outcome: Outcome) {
    if let Some(node) = state.nodes.get(mark.node()) {
        node.stats().end(slot, outcome);
    }
}

/// Further handles kept at a seat: as many calls as a thread usually has in
/// flight at once. Beyond it, a handle costs two locked instructions (4 ns).
const SPARES: usize = 32;

/// A thread's place at one balancer.
///
/// In this order, because of how a processor forwards what was just written:
/// `rng` and `cursor` side by side are copied as one word of 16 bytes, which
/// must wait until the two words of 8 that it was written as have left for the
/// cache (some 20 cycles, a quarter of a pick).
#[repr(C)]
struct Seat {
    rng: Cell<Rng>,
    /// The stamp of the state that the handles are to; 0, which no state has,
    /// while there is none.
    stamp: Cell<u64>,
    cursor: Cell<u64>,
    /// The handle that the next pick takes: where picks follow one another,
    /// there and back is all that happens.
    handle: Cell<Option<Arc<State>>>,
    spares: RefCell<Vec<Arc<State>>>,
    balancer: Cell<Option<Weak<Core>>>,
}

impl Seat {
    fn new() -> Self {
        Self {
            stamp: Cell::new(0),
            rng: Cell::new(Rng::seeded(0)),
            cursor: Cell::new(0),
            handle: Cell::new(None),
            spares: RefCell::new(Vec::new()),
            balancer: Cell::new(None),
        }
    }

    #[inline]
    fn take(&self, core: &Core) -> Arc<State> {
        match self.handle.take() {
            Some(state) => state,
            None => self.take_spare(core),
        }
    }

    #[inline(never)]
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
        drop((handle, spares));
    }
}

/// A seat for each balancer, found by its place. A seat never moves once it is
/// there: the first few are part of the thread's own storage, the others come
/// in rows of 8, 16, 32 …
struct Seats {
    near: [Seat; Seats::NEAR as usize],
    far: [OnceCell<Box<[Seat]>>; Seats::ROWS],
}

impl Seats {
    const NEAR: u32 = 8;
    /// Enough for every place that a `u32` names.
    const ROWS: usize = 30;

    fn new() -> Self {
        Self {
            near: std::array::from_fn(|_| Seat::new()),
            far: [const { OnceCell::new() }; Self::ROWS],
        }
    }

    #[inline]
    fn get(&self, place: u32) -> Option<&Seat> {
        match self.near.get(place as usize) {
            None => self.get_far(place),
            near => near,
        }
    }

    #[cold]
    fn get_far(&self, place: u32) -> Option<&Seat> {
        let (row, offset) = Self::locate(place);
        self.far[row].get().map(|seats| &seats[offset])
    }

    fn make(&self, place: u32) -> &Seat {
        if let Some(near) = self.near.get(place as usize) {
            return near;
        }
        let (row, offset) = Self::locate(place);
        let seats = self.far[row].get_or_init(|| {
            let len = Self::NEAR << row;
            (0..len).map(|_| Seat::new()).collect()
        });
        &seats[offset]
    }

    /// The row of a far place, and where in it: row r begins at 8 · 2^r.
    fn locate(place: u32) -> (usize, usize) {
        let row = place.ilog2() - Self::NEAR.ilog2();
        (row as usize, (place - (Self::NEAR << row)) as usize)
    }

    fn clear_abandoned(&self) {
        let far = self.far.iter().filter_map(OnceCell::get).flatten();
        for seat in self.near.iter().chain(far) {
            let balancer = seat.balancer.take();
            if balancer
                .as_ref()
                .is_some_and(|balancer| balancer.strong_count() == 0)
            {
                seat.clear();
            } else {
                seat.balancer.set(balancer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_seat_of_its_own() {
        let mut next = (0, 0);
        for place in Seats::NEAR..10_000 {
            assert_eq!(Seats::locate(place), next);
            next.1 += 1;
            if next.1 == (Seats::NEAR as usize) << next.0 {
                next = (next.0 + 1, 0);
            }
        }
        assert!(Seats::locate(u32::MAX).0 < Seats::ROWS);

        let seats = Seats::new();
        for place in [0, 7, 8, 9, 100] {
            seats.make(place).stamp.set(u64::from(place) + 1);
        }
        for place in [0, 7, 8, 9, 100] {
            let seat = seats.get(place).expect("it was made");
            assert_eq!(seat.stamp.get(), u64::from(place) + 1);
        }
        assert!(seats.get(1_000).is_none());
    }
}
