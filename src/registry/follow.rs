//! What every backend that reads has in common: going on after errors, sharing
//! what did not change, telling nothing twice.
//!
//! A backend says how it gets its next whole answer ([`Source`]); [`follow`]
//! makes the stream of [`Discover::watch`](super::Discover::watch) of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::endpoint::{Endpoint, EndpointSet, Skipped};
use crate::error::Error;
use crate::rng::Rng;

/// One backend's way of reading one service.
pub(crate) trait Source: Send + 'static {
    /// Waits for the next whole answer: the first at once, each further one
    /// when something changed. An answer takes over everything that is there
    /// already, so that a storm of changes is one answer.
    ///
    /// Called again after each answer; after an error, called again once the
    /// backoff has passed, and connects anew then. It bounds its own waiting
    /// for a server that hangs.
    fn next(&mut self) -> impl Future<Output = Result<Answer, Error>> + Send;
}

/// Does work that several watchers wait for, to its end: a watcher that nobody
/// reads on, or that is dropped, holds up none of the others.
#[cfg(any(feature = "dns", feature = "eureka"))]
pub(crate) async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and so does whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// All endpoints of a service, as its registry tells them.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// In any order; of two with the same id, the first is taken. Those that
    /// are shared with the answer before are known to be the same at a glance.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// What could not be read.
    pub(crate) skipped: Option<Skipped>,
}

/// The wait after a first failure: some round trips within a data centre.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait: half of it on average until a registry that is back is
/// noticed, while its clients' tries cost it nothing.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Follows a source: sets that share unchanged endpoints, no answer that is
/// equal to the one before, each error once, then on after a wait.
pub(crate) fn follow(source: impl Source) -> BoxStream<'static, Result<EndpointSet, Error>> {
    let follower = Follower {
        source,
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, Rng::from_entropy()),
        wait: None,
        good_since: None,
        told: None,
    };
    stream::unfold(follower, |mut follower| async {
        let item = follower.next().await;
        Some((item, follower))
    })
    .boxed()
}

struct Follower<S> {
    source: S,
    backoff: Backoff,
    /// What is to be waited before the next try.
    wait: Option<Duration>,
    good_since: Option<Instant>,
    told: Option<Told>,
}

struct Told {
    set: EndpointSet,
    /// Whether an error came after it.
    failed_since: bool,
}

impl<S: Source> Follower<S> {
    async fn next(&mut self) -> Result<EndpointSet, Error> {
        loop {
            if let Some(wait) = self.wait.take() {
                tokio::time::sleep(wait).await;
            }
            let answer = match self.source.next().await {
                Ok(answer) => answer,
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            };
            self.good_since.get_or_insert_with(Instant::now);
            if let Some(set) = self.take(answer) {
                return Ok(set);
            }
        }
    }

    fn fail(&mut self) {
        let good = self.good_since.take().map(|since| since.elapsed());
        self.wait = Some(self.backoff.after(good.unwrap_or_default()));
        if let Some(told) = &mut self.told {
            told.failed_since = true;
        }
    }

    /// The set to tell; none when it was told already.
    fn take(&mut self, answer: Answer) -> Option<EndpointSet> {
        let empty = EndpointSet::empty();
        let before = self.told.as_ref().map_or(&empty, |told| &told.set);
        let (set, twice) = before.next_of_firsts(answer.endpoints);
        let mut skipped = answer.skipped;
        for endpoint in twice {
            let reason = "another entry of the service has this id, and came first";
            let refused = Error::invalid("endpoint.id", endpoint.id(), reason);
            Skipped::count(&mut skipped, refused);
        }
        let count = |skipped: Option<&Skipped>| skipped.map_or(0, |skipped| skipped.count);
        let nothing_new =
            set.version() == before.version() && count(skipped.as_ref()) == count(before.skipped());
        if nothing_new && self.told.as_ref().is_some_and(|told| !told.failed_since) {
            return None;
        }
        let set = set.with_skipped(skipped);
        self.told = Some(Told {
            set: set.clone(),
            failed_since: false,
        });
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;
    use std::sync::Mutex;

    use super::*;

    /// Answers from a script, then is silent; and when it was asked.
    struct Script {
        answers: VecDeque<Result<Answer, Error>>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Source for Script {
        async fn next(&mut self) -> Result<Answer, Error> {
            self.asked.lock().unwrap().push(Instant::now());
            match self.answers.pop_front() {
                Some(answer) => answer,
                None => pending().await,
            }
        }
    }

    type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

    fn script(
        answers: impl IntoIterator<Item = Result<Answer, Error>>,
    ) -> (Sets, Arc<Mutex<Vec<Instant>>>) {
        let asked = Arc::default();
        let script = Script {
            answers: answers.into_iter().collect(),
            asked: Arc::clone(&asked),
        };
        (follow(script), asked)
    }

    fn answer(ports: &[u16]) -> Answer {
        let at = |port: &u16| Arc::new(Endpoint::at(format!("10.0.0.1:{port}")).unwrap());
        Answer {
            endpoints: ports.iter().map(at).collect(),
            skipped: None,
        }
    }

    fn failure() -> Result<Answer, Error> {
        Err(Error::registry("script", "down"))
    }

    async fn silent(sets: &mut Sets) {
        let next = tokio::time::timeout(Duration::from_hours(1), sets.next());
        assert!(next.await.is_err(), "nothing else comes");
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_endpoints_are_shared_and_nothing_is_told_twice() {
        let (mut sets, _) =
            script([&[1, 2][..], &[2, 1], &[1, 2, 3]].map(|ports| Ok(answer(ports))));
        let two = sets.next().await.unwrap().unwrap();
        let three = sets.next().await.unwrap().unwrap();
        assert_eq!((two.len(), three.len()), (2, 3));
        assert!(three.version() > two.version());
        assert!(Arc::ptr_eq(&two.endpoints()[0], &three.endpoints()[0]));
        silent(&mut sets).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_answer_of_nothing_is_told() {
        let (mut sets, _) = script([Ok(answer(&[]))]);
        assert!(sets.next().await.unwrap().unwrap().is_empty());
        silent(&mut sets).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_told_once_and_the_same_set_after_it_says_that_it_is_over() {
        let (mut sets, _) = script([
            Ok(answer(&[1])),
            failure(),
            Ok(answer(&[1])),
            Ok(answer(&[1])),
        ]);
        let before = sets.next().await.unwrap().unwrap();
        assert!(sets.next().await.unwrap().is_err());
        let after = sets.next().await.unwrap().unwrap();
        assert_eq!(before.version(), after.version());
        silent(&mut sets).await;
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_ever_more_rarely_and_never_given_up() {
        let failures = (0..1_000).map(|_| failure());
        let (mut sets, asked) = script(failures.chain([Ok(answer(&[1]))]));
        for _ in 0..1_000 {
            assert!(sets.next().await.unwrap().is_err());
        }
        assert_eq!(sets.next().await.unwrap().unwrap().len(), 1);
        let asked = asked.lock().unwrap();
        let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits.iter().all(|wait| *wait >= FIRST_WAIT / 2));
        assert!(
            waits
                .iter()
                .all(|wait| *wait <= LONGEST_WAIT + Duration::from_millis(2))
        );
        let mean = waits[100..].iter().sum::<Duration>() / 900;
        assert!(mean > LONGEST_WAIT / 3, "{mean:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_is_counted_and_told_when_the_count_changes() {
        let twice = || answer(&[1, 2, 1]);
        let mut worse = twice();
        worse.skipped = Some(Skipped::one(Error::registry("script", "garbage")));
        let (mut sets, _) = script([twice(), twice(), worse, answer(&[1, 2])].map(Ok));
        let mut told = Vec::new();
        for _ in 0..3 {
            let set = sets.next().await.unwrap().unwrap();
            assert_eq!(set.len(), 2);
            told.push(set.skipped().map(|skipped| skipped.count));
        }
        assert_eq!(told, [Some(1), Some(2), None]);
        silent(&mut sets).await;
    }
}
