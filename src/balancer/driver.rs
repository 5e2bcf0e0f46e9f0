//! The background task that follows a registry.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::updater::Updater;
use crate::endpoint::EndpointSet;
use crate::error::Error;
use crate::registry::Guard;
use crate::time::Timestamp;

/// Ends the task when the last clone of the balancer is dropped.
#[derive(Debug)]
pub(super) struct Driver(pub(super) AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers that are ready at once are taken as one: only the last of them is
/// applied. The bound keeps a source that is always ready from starving it.
const COALESCED: usize = 64;

/// How long a state that threads still read waits for the next look.
const COLLECT: Duration = Duration::from_secs(1);

/// How often unconfirmed endpoints are looked at: soon enough that one which is
/// gone costs a second of failed attempts.
const REVIEW: Duration = Duration::from_secs(1);

/// Calls that fail are told to the source no more often than this.
const HINTS: Duration = Duration::from_secs(1);

/// Follows the answers, for as long as the future lives that this gives.
pub(super) fn run(
    updater: Updater,
    answers: BoxStream<'static, Result<EndpointSet, Error>>,
    guard: Option<Guard>,
    look_again: impl Fn(),
) -> impl Future<Output = ()> {
    // Made at once, since a runtime may end before it has polled a task.
    let feed = Feed {
        updater,
        guard,
        pace: Pace::default(),
    };
    follow(feed, answers, look_again)
}

async fn follow(
    mut feed: Feed,
    answers: BoxStream<'static, Result<EndpointSet, Error>>,
    look_again: impl Fn(),
) {
    let mut answers = answers.fuse();
    let (mut leftovers, mut ended) = (false, false);
    let mut review = Instant::now();
    let mut hinted: Option<Instant> = None;
    loop {
        let answer = tokio::select! {
            answer = answers.next(), if !ended => answer,
            () = sleep_until(review), if feed.is_holding() => {
                feed.review();
                review = Instant::now() + REVIEW;
                continue;
            }
            () = feed.updater.wait(), if feed.updater.listens() => {
                let rested = hinted.is_none_or(|hinted| hinted.elapsed() >= HINTS);
                if feed.updater.take_failing() && rested {
                    look_again();
                    hinted = Some(Instant::now());
                }
                feed.updater.look_now();
                leftovers = feed.updater.collect();
                continue;
            }
            () = sleep(COLLECT), if leftovers => {
                leftovers = feed.updater.collect();
                continue;
            }
            else => break,
        };
        let Some(answer) = answer else {
            let reason = "its stream of sets ended; the last set goes on serving";
            feed.updater.fail(Error::registry("registry", reason));
            ended = true;
            leftovers = true;
            continue;
        };
        let (mut set, mut error) = (None, None);
        let more = std::iter::from_fn(|| answers.next().now_or_never().flatten());
        for answer in std::iter::once(answer).chain(more.take(COALESCED)) {
            match answer {
                Ok(newer) => (set, error) = (Some(newer), None),
                Err(newer) => error = Some(newer),
            }
        }
        if let Some(set) = set {
            feed.apply(set);
        }
        if let Some(error) = error {
            feed.updater.fail(error);
        }
        leftovers = feed.updater.collect();
        match feed.pace.due(feed.updater.now()) {
            Some(pause) => sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
    }
}

/// From answers to applied sets.
struct Feed {
    updater: Updater,
    guard: Option<Guard>,
    pace: Pace,
}

impl Feed {
    fn apply(&mut self, answer: EndpointSet) {
        let begun = self.updater.now();
        match &mut self.guard {
            None => self.updater.apply(answer),
            Some(guard) => {
                let mut set = guard.take(answer, begun);
                // The figures of now are what later ones are compared with.
                if let Some(newer) = guard.review(begun, |id| self.updater.totals(id)) {
                    set = newer;
                }
                self.updater.apply_doubted(set, guard.unconfirmed());
            }
        }
        let now = self.updater.now();
        self.pace.spent(now.since(begun), now);
    }

    fn is_holding(&self) -> bool {
        self.guard
            .as_ref()
            .is_some_and(|guard| guard.unconfirmed() > 0)
    }

    fn review(&mut self) {
        let Some(guard) = &mut self.guard else {
            return;
        };
        let reviewed = guard.review(self.updater.now(), |id| self.updater.totals(id));
        if let Some(set) = reviewed {
            self.updater.hold(set, guard.unconfirmed());
        }
    }
}

impl Drop for Feed {
    /// Nobody follows the registry any more: the runtime has ended, a strategy panicked, or there is
    /// no balancer left.
    fn drop(&mut self) {
        self.updater.abandon();
    }
}

/// Keeps a storm of changes from taking more than a tenth of a core: each time
/// spent on applying a set is followed by nine times as much rest, in which
/// further changes become one. A change after a quiet time is applied at once.
#[derive(Debug, Default)]
struct Pace {
    rested: Timestamp,
}

/// A timer's tick: shorter rests add up before they are taken.
const TICK: Duration = Duration::from_millis(1);
/// The longest that a change may wait for the rest after the one before.
const LONGEST_REST: Duration = Duration::from_millis(100);

impl Pace {
    fn spent(&mut self, time: Duration, now: Timestamp) {
        let rested = self.rested.max(now).plus(time * 9);
        self.rested = rested.min(now.plus(LONGEST_REST));
    }

    /// The rest that is due.
    fn due(&self, now: Timestamp) -> Option<Duration> {
        let rest = self.rested.since(now);
        (rest >= TICK).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_takes_a_tenth_and_a_lone_change_waits_for_nothing() {
        let mut now = Timestamp::from_nanos(0);
        let cost = Duration::from_micros(50);
        let (mut pace, mut spent) = (Pace::default(), Duration::ZERO);
        assert_eq!(pace.due(now), None);
        while now < Timestamp::from_nanos(1_000_000_000) {
            now = now.plus(cost);
            spent += cost;
            pace.spent(cost, now);
            now = now.plus(pace.due(now).unwrap_or_default());
        }
        assert!(spent <= Duration::from_millis(110), "{spent:?}");
        assert!(spent >= Duration::from_millis(90), "{spent:?}");
        assert_eq!(pace.due(now.plus(TICK)), None);
    }

    #[test]
    fn no_change_waits_for_longer_than_the_longest_rest() {
        let mut pace = Pace::default();
        let now = Timestamp::from_nanos(7);
        pace.spent(Duration::from_secs(3), now);
        assert_eq!(pace.due(now), Some(LONGEST_REST));
    }
}
