//! How a balancer accounts for the calls to its endpoints.

use std::fmt;
use std::sync::Arc;

use super::{EndpointStats, Outcome, Recent};
use crate::time::{Clock, Timestamp};

/// What the stats of all endpoints of a balancer share, so that a call which holds
/// on to an endpoint's stats has all that its end needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounting {
    /// By which calls are timed; none when nobody asks for latency.
    pub(crate) stopwatch: Option<Clock>,
    /// Whether the strategy goes by what calls cost.
    pub(crate) by_latency: bool,
    /// Whether it goes by what servers say of their load.
    pub(crate) by_reports: bool,
    /// Told of each call that ended.
    pub(crate) bell: Option<Arc<dyn Bell>>,
    pub(crate) recent: Arc<Recent>,
}

impl Accounting {
    /// The time of something that the strategy has `asked` for; none where it has not, or
    /// nothing is timed.
    pub(crate) fn now_if(&self, asked: bool) -> Option<Timestamp> {
        let clock = self.stopwatch.as_ref().filter(|_| asked)?;
        Some(clock.now())
    }
}

/// Who is told of calls that ended.
pub(crate) trait Bell: fmt::Debug + Send + Sync {
    /// Takes in how a call ended, which is no longer counted in flight.
    fn ended(&self, stats: &EndpointStats, outcome: Outcome);
}
