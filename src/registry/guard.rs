//! What to make of an answer that suddenly misses most of a service.
//!
//! A registry that was restarted with an empty state, that was cut off from its
//! instances, or whose heartbeats time out all at once, answers "nothing" or
//! "half of it is gone", and the instances are fine. Taking such an answer at
//! its word turns the registry's outage into one's own. Not taking it keeps
//! calling what was shut down. So the answer is neither believed nor refused:
//! what vanished is held as *unconfirmed*. It goes on serving for as long as
//! calls to it succeed, is dropped at the first look that finds only failures,
//! and is dropped in any case when its time is up.
//!
//! Eureka's servers do the like from the other side (no eviction while fewer
//! than 85 % of the expected heartbeats arrive, measured over 15 minutes), and
//! the share at which doubt ends is theirs.
//!
//! ```
//! use std::time::Duration;
//! use waypost::registry::RemovalGuard;
//! use waypost::{Balancer, Fixed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let users = Balancer::builder("users")
//!     .removal_guard(RemovalGuard::new(30, Duration::from_secs(60))?)
//!     .build(Fixed::addresses(["10.0.0.1:80"])?)
//!     .await?;
//! assert_eq!(users.snapshot().unconfirmed, 0);
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{Endpoint, EndpointId, EndpointSet};
use crate::error::Error;
use crate::stats::Totals;
use crate::time::Timestamp;

/// When an answer is doubted, and for how long what it misses is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalGuard {
    /// Doubt begins below this share of what was there, in percent.
    left: u32,
    hold: Duration,
}

/// Doubt ends when this share, in percent, is back: Eureka's
/// `renewalPercentThreshold`. Higher than the one at which it began, so that a
/// service whose instances register again one by one is not cut to half on the
/// way.
const BACK: u32 = 85;

/// Within this time, many small removals count as one large one.
const WINDOW: Duration = Duration::from_mins(1);

impl Default for RemovalGuard {
    /// Less than half is left; held for 5 minutes.
    ///
    /// Half, because no rollout takes out more at once without putting in as
    /// much. Five minutes, because whatever lives has registered again by
    /// then: heartbeats come every 10 to 30 s, and Consul's agents synchronise
    /// every minute (up to 128 nodes; every two or three in the hundreds). Much
    /// longer, and an address may have been given to another service.
    fn default() -> Self {
        Self {
            left: 50,
            hold: Duration::from_mins(5),
        }
    }
}

impl RemovalGuard {
    /// Doubts answers that leave less than `left` percent of what was there
    /// within the last minute, and holds what they miss for at most `hold`.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when `left` is not in 1..=85 (at 85 % doubt ends),
    /// or `hold` is zero or above a day.
    pub fn new(left: u32, hold: Duration) -> Result<Self, Error> {
        if !(1..=BACK).contains(&left) {
            let reason = "a share in percent, from 1 to 85, is taken; 85 % is where doubt ends";
            return Err(Error::invalid("removal_guard.left", left, reason));
        }
        if hold.is_zero() || hold > Duration::from_hours(24) {
            let reason = "above zero and up to a day is taken; switch the guard off with `None`";
            let value = format!("{hold:?}");
            return Err(Error::invalid("removal_guard.hold", value, reason));
        }
        Ok(Self { left, hold })
    }
}

/// The machine: answers in, sets to serve out. `now` and the endpoints' figures
/// are handed in.
#[derive(Debug)]
pub(crate) struct Guard {
    rules: RemovalGuard,
    /// The registry's last answer.
    answer: EndpointSet,
    /// The answer and what is held.
    served: EndpointSet,
    held: BTreeMap<EndpointId, Held>,
    /// The most that took calls within the window, and since when it counts.
    peak: usize,
    peak_since: Timestamp,
}

#[derive(Debug)]
struct Held {
    endpoint: Arc<Endpoint>,
    since: Timestamp,
    /// How its calls had ended at the last look.
    seen: Option<Totals>,
}

impl Guard {
    pub(crate) fn new(rules: RemovalGuard) -> Self {
        Self {
            rules,
            answer: EndpointSet::empty(),
            served: EndpointSet::empty(),
            held: BTreeMap::new(),
            peak: 0,
            peak_since: Timestamp::default(),
        }
    }

    /// How many endpoints are served that the registry does not name.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.held.len()
    }

    /// Takes an answer, and gives the set to serve. O(n).
    pub(crate) fn take(&mut self, answer: EndpointSet, now: Timestamp) -> EndpointSet {
        let left = taking_calls(&answer);
        if self.is_doubted(left, now) {
            for endpoint in &self.served {
                if endpoint.takes_calls() && answer.get(endpoint.id()).is_none() {
                    self.held
                        .entry(endpoint.id().clone())
                        .or_insert_with(|| Held {
                            endpoint: Arc::clone(endpoint),
                            since: now,
                            seen: None,
                        });
                }
            }
            self.held.retain(|id, _| answer.get(id).is_none());
        } else {
            self.held.clear();
        }
        self.answer = answer;
        self.serve()
    }

    /// Looks at what is held: at least once a second while there is something,
    /// and right after [`take`](Self::take). Gives the set to serve when that
    /// changed. `totals` are an endpoint's figures.
    pub(crate) fn review(
        &mut self,
        now: Timestamp,
        totals: impl Fn(&EndpointId) -> Option<Totals>,
    ) -> Option<EndpointSet> {
        let before = self.held.len();
        let hold = self.rules.hold;
        self.held.retain(|id, held| {
            let ended = totals(id);
            let only_failed = held.seen.zip(ended).is_some_and(|(seen, ended)| {
                ended.failed > seen.failed && ended.succeeded == seen.succeeded
            });
            held.seen = ended;
            !only_failed && now.since(held.since) < hold
        });
        if self.held.len() == before {
            return None;
        }
        if self.held.is_empty() {
            // The doubt is over, and the answer was right.
            self.peak = taking_calls(&self.answer);
            self.peak_since = now;
        }
        Some(self.serve())
    }

    /// Whether an answer with `left` endpoints that take calls is doubted.
    fn is_doubted(&mut self, left: usize, now: Timestamp) -> bool {
        if self.held.is_empty() {
            let served = taking_calls(&self.served);
            if now.since(self.peak_since) >= WINDOW || served > self.peak {
                (self.peak, self.peak_since) = (served, now);
            }
            left * 100 < self.peak * self.rules.left as usize
        } else {
            left * 100 < self.peak * BACK as usize
        }
    }

    fn serve(&mut self) -> EndpointSet {
        let never_held = self.served.version() < self.answer.version();
        self.served = if self.held.is_empty() && never_held {
            self.answer.clone()
        } else {
            let held = self.held.values().map(|held| &held.endpoint);
            let both = self.answer.iter().chain(held).map(Arc::clone);
            let skipped = self.answer.skipped().cloned();
            self.served.next_shared(both).with_skipped(skipped)
        };
        self.served.clone()
    }
}

fn taking_calls(set: &EndpointSet) -> usize {
    set.iter().filter(|one| one.takes_calls()).count()
}

#[cfg(test)]
mod tests;
