//! Whether a service is called at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::stats::EndpointStats;

/// The calls of one balancer, as far as a probe asks for them: whether there
/// ever was one.
#[derive(Default)]
pub(super) struct Traffic {
    seen: AtomicBool,
    stats: Mutex<Vec<EndpointStats>>,
}

impl Traffic {
    pub(super) fn follow(&self, stats: &[EndpointStats]) {
        if !self.seen.load(Ordering::Relaxed) {
            stats.clone_into(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// O(endpoints) until there was one.
    pub(super) fn is_seen(&self) -> bool {
        if self.seen.load(Ordering::Relaxed) {
            return true;
        }
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let is_called = |stats: &EndpointStats| stats.in_flight() > 0 || stats.totals().ended() > 0;
        let seen = stats.iter().any(is_called);
        if seen {
            self.seen.store(true, Ordering::Relaxed);
            stats.clear();
        }
        seen
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
