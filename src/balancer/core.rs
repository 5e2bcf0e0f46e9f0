//! What all clones of a balancer, its updater and its threads share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, watch};

use super::alarm::Alarm;
use super::state::State;
use crate::endpoint::ServiceName;
use crate::event::{Event, Snapshot};
use crate::sync::Published;
use crate::time::Clock;

pub(super) struct Core {
    pub(super) service: ServiceName,
    pub(super) published: Published<State>,
    pub(super) snapshots: watch::Sender<Snapshot>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) alarm: Option<Arc<Alarm>>,
    pub(super) clock: Clock,
    /// Its place among every thread's seats; free for another when it is gone.
    pub(super) place: u32,
}

static PLACES: Mutex<Places> = Mutex::new(Places {
    free: Vec::new(),
    next: 0,
});

struct Places {
    free: Vec<u32>,
    next: u32,
}

/// A place among the threads' seats, before there is a core that gives it back.
pub(super) fn take_place() -> u32 {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    places.free.pop().unwrap_or_else(|| {
        places.next += 1;
        places.next - 1
    })
}

impl Drop for Core {
    fn drop(&mut self) {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.free.push(self.place);
    }
}
