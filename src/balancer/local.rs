//! What a thread keeps for itself, so that a pick shares nothing that is
//! written.
//!
//! For each balancer it uses, a thread keeps the state it saw last and a few
//! spare handles to it. A pick then reads one version number, takes a spare
//! handle with it, and gives it back when it ends: no reference count moves,
//! no cache line is written that another core writes. When the version has
//! moved on, the thread fetches the new state; it does so at its next pick, and
//! a thread that never picks again keeps the last one until it ends.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use super::core::Core;
use super::pick::Pick;
use super::state::State;
use super::PickOptions;
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::strategy::PickContext;
use crate::sync::{Lease, Slot};
use crate::time::Timestamp;

/// Spare handles kept for a balancer: as many calls as a thread usually has in
/// flight at once. Beyond it, a handle costs two locked instructions (4 ns).
const SPARES: usize = 32;

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::new());
}

struct Local {
    lease: Lease,
    rng: Rng,
    /// By the place of the balancer.
    seen: Vec<Option<Seen>>,
}

struct Seen {
    balancer: Weak<Core>,
    id: u64,
    state: Arc<State>,
    spares: Vec<Arc<State>>,
    cursor: u64,
}

/// Picks with the thread's own means, or, where they are out of reach (a picker
/// that picks, a thread that is ending), with makeshift ones.
#[inline]
pub(super) fn pick(core: &Arc<Core>, options: &PickOptions<'_>) -> Result<Pick, Error> {
    LOCAL
        .try_with(|local| {
            let mut local = local.try_borrow_mut().ok()?;
            Some(local.pick(core, options))
        })
        .ok()
        .flatten()
        .unwrap_or_else(|| pick_without_thread(core, options))
}

#[cold]
fn pick_without_thread(core: &Arc<Core>, options: &PickOptions<'_>) -> Result<Pick, Error> {
    let state = core.published.load();
    let mut rng = Rng::from_entropy();
    let mut cursor = first_cursor(&mut rng);
    let node = choose(&state, &mut rng, &mut cursor, options)
        .ok_or_else(|| state.refusal(core.service.shared(), options.tried.is_empty()))?;
    Ok(begin(state, node, Slot::shared()))
}

/// A random place in any turn, with room for a step.
fn first_cursor(rng: &mut Rng) -> u64 {
    rng.bits() >> 1
}

impl Local {
    fn new() -> Self {
        Self {
            lease: Lease::take(),
            rng: Rng::from_entropy(),
            seen: Vec::new(),
        }
    }

    #[inline]
    fn pick(&mut self, core: &Arc<Core>, options: &PickOptions<'_>) -> Result<Pick, Error> {
        let slot = self.lease.slot();
        let place = core.place as usize;
        let current = match self.seen.get(place) {
            Some(Some(seen)) => seen.id == core.id && seen.state.version >= core.published.version(),
            _ => false,
        };
        if !current {
            self.refresh(core);
        }
        let Some(Some(seen)) = self.seen.get_mut(place) else {
            unreachable!("`refresh` fills the balancer's place");
        };
        let Some(node) = choose(&seen.state, &mut self.rng, &mut seen.cursor, options) else {
            return Err(seen
                .state
                .refusal(core.service.shared(), options.tried.is_empty()));
        };
        let state = seen
            .spares
            .pop()
            .unwrap_or_else(|| Arc::clone(&seen.state));
        Ok(begin(state, node, slot))
    }

    /// Fetches the state that is published now.
    #[cold]
    fn refresh(&mut self, core: &Arc<Core>) {
        let state = core.published.load();
        let place = core.place as usize;
        match self.seen.get_mut(place) {
            Some(Some(seen)) if seen.id == core.id => {
                seen.spares.clear();
                seen.state = state;
            }
            _ => self.meet(core, state),
        }
    }

    /// Makes room for a balancer that is new to the thread, and lets go of
    /// those that are gone.
    fn meet(&mut self, core: &Arc<Core>, state: Arc<State>) {
        for place in &mut self.seen {
            if place
                .as_ref()
                .is_some_and(|seen| seen.balancer.strong_count() == 0)
            {
                *place = None;
            }
        }
        let place = core.place as usize;
        if self.seen.len() <= place {
            self.seen.resize_with(place + 1, || None);
        }
        self.seen[place] = Some(Seen {
            balancer: Arc::downgrade(core),
            id: core.id,
            state,
            spares: Vec::with_capacity(SPARES),
            cursor: first_cursor(&mut self.rng),
        });
    }

    /// Takes a handle back, if it is one to the state the thread knows.
    #[inline]
    fn keep(&mut self, state: Arc<State>) {
        if let Some(Some(seen)) = self.seen.get_mut(state.place as usize)
            && Arc::ptr_eq(&seen.state, &state)
            && seen.spares.len() < SPARES
        {
            seen.spares.push(state);
        }
    }
}

/// The position, among the state's nodes, of the one that gets the call: from
/// the first level that has one left.
#[inline]
fn choose(
    state: &State,
    rng: &mut Rng,
    cursor: &mut u64,
    options: &PickOptions<'_>,
) -> Option<u32> {
    let mut context = PickContext::new(rng, cursor, options.tried).with_hash(options.hash);
    state.levels.iter().find_map(|level| {
        let index = level.picker.pick(&mut context)?;
        (index < level.view.len()).then(|| level.view.start() + index)
    })
}

/// Counts the call and makes its guard.
#[inline]
fn begin(state: Arc<State>, node: u32, slot: Slot) -> Pick {
    state.nodes[node as usize].stats().begin(slot);
    let started = state
        .stopwatch
        .as_ref()
        .map_or(Timestamp::default(), |clock| clock.now());
    Pick::new(state, node, started)
}

/// Uncounts a call and takes back the handle that it held.
#[inline]
pub(super) fn end(state: Arc<State>, node: u32, outcome: Outcome) {
    let mut state = Some(state);
    let done = LOCAL.try_with(|local| {
        if let Ok(mut local) = local.try_borrow_mut()
            && let Some(state) = state.take()
        {
            state.nodes[node as usize]
                .stats()
                .end(local.lease.slot(), outcome);
            local.keep(state);
        }
    });
    if let (Ok(()) | Err(_), Some(state)) = (done, state) {
        state.nodes[node as usize].stats().end(Slot::shared(), outcome);
    }
}

/// The slot of this thread, for a call that has no handle to give back.
pub(super) fn slot() -> Slot {
    LOCAL
        .try_with(|local| local.try_borrow().ok().map(|local| local.lease.slot()))
        .ok()
        .flatten()
        .unwrap_or_else(Slot::shared)
}
