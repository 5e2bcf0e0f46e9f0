//! What all clones of a balancer, its updater and its threads share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::state::State;
use crate::endpoint::ServiceName;
use crate::event::Snapshot;
use crate::sync::Published;

pub(super) struct Core {
    pub(super) service: ServiceName,
    pub(super) published: Published<State>,
    pub(super) snapshots: watch::Sender<Snapshot>,
    /// Its place in every thread's table; free for another when it is gone.
    pub(super) place: u32,
    /// Tells it from the balancer that had its place before.
    pub(super) id: u64,
}

static PLACES: Mutex<Places> = Mutex::new(Places {
    free: Vec::new(),
    next: 0,
});

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

struct Places {
    free: Vec<u32>,
    next: u32,
}

/// A place in the threads' tables, before there is a core that gives it back.
pub(super) fn take_place() -> u32 {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    places.free.pop().unwrap_or_else(|| {
        places.next += 1;
        places.next - 1
    })
}

pub(super) fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Drop for Core {
    fn drop(&mut self) {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.free.push(self.place);
    }
}
