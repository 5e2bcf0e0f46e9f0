//! The next registry while the first does not answer.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::Either;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, sleep_until};

use super::super::{Discover, FOR_EVER};
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;

/// A source, and another for while the first is silent or fails.
///
/// The second is asked when the first has not answered, or has failed, for
/// `after`; what was known goes on serving until then, and the second's first
/// answer takes over. The first's next answer takes back, at once. An empty
/// answer of the first is an answer.
#[derive(Clone)]
pub struct Fallback {
    first: Arc<dyn Discover>,
    second: Arc<dyn Discover>,
    after: Duration,
}

impl Fallback {
    /// Uses `second` when `first` has been silent or failing for `after`.
    pub fn new(first: impl Discover, second: impl Discover, after: Duration) -> Self {
        Self {
            first: Arc::new(first),
            second: Arc::new(second),
            after: after.min(FOR_EVER),
        }
    }
}

impl Discover for Fallback {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let follower = Follower {
            first: self.first.watch(service),
            behind: Arc::clone(&self.second),
            service: service.clone(),
            second: None,
            second_serves: false,
            after: self.after,
            failing_since: Some(Instant::now()),
            told: EndpointSet::empty(),
        };
        stream::unfold(follower, |mut follower| async {
            let item = follower.next().await?;
            Some((item, follower))
        })
        .boxed()
    }

    fn is_authoritative(&self) -> bool {
        self.first.is_authoritative() && self.second.is_authoritative()
    }

    fn look_again(&self, service: &ServiceName) {
        self.first.look_again(service);
        self.second.look_again(service);
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

type Sets = BoxStream<'static, Result<EndpointSet, Error>>;

struct Follower {
    first: Sets,
    behind: Arc<dyn Discover>,
    service: ServiceName,
    /// There while it is needed.
    second: Option<Sets>,
    /// Whether what was told last is the second's, and it was well then.
    second_serves: bool,
    after: Duration,
    /// Since when the first is silent or fails; none while it is well.
    failing_since: Option<Instant>,
    told: EndpointSet,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<EndpointSet, Error>> {
        loop {
            let due = match (&self.second, self.failing_since) {
                (None, Some(since)) => Some(since + self.after),
                _ => None,
            };
            let late = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            let second = match &mut self.second {
                Some(second) => Either::Left(second.next()),
                None => Either::Right(pending()),
            };
            tokio::select! {
                biased;
                item = self.first.next() => match item? {
                    Ok(set) => {
                        (self.failing_since, self.second) = (None, None);
                        self.second_serves = false;
                        return Some(Ok(self.follow(&set)));
                    }
                    Err(error) => {
                        self.failing_since.get_or_insert_with(Instant::now);
                        // While the second serves, what is served is fresh.
                        if !self.second_serves {
                            return Some(Err(error));
                        }
                    }
                },
                item = second => {
                    let item = item?;
                    self.second_serves = item.is_ok();
                    return Some(item.map(|set| self.follow(&set)));
                }
                () = late => self.second = Some(self.behind.watch(&self.service)),
            }
        }
    }

    /// Two sources count their versions apart.
    fn follow(&mut self, set: &EndpointSet) -> EndpointSet {
        let next = self.told.next_shared(set.iter().map(Arc::clone));
        self.told = next.with_skipped(set.skipped().cloned());
        self.told.clone()
    }
}
