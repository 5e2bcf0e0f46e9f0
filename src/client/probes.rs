//! Endpoints are asked how busy they are, as often as calls are made.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::balancer::Balancer;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::load::LoadReport;
use crate::rng::Rng;
use crate::view::Node;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Ask = dyn Fn(Arc<Endpoint>) -> BoxFuture<'static, Result<LoadReport, BoxError>> + Send + Sync;

/// Probes of endpoints' load, for strategies that go by it, of which
/// [`Prequal`](crate::strategy::Prequal) lives on them.
///
/// For each call, so many endpoints are asked, drawn at random and none twice before all had their
/// turn (Prequal, NSDI'24, has three). No call waits for that: a task counts the calls every ten
/// milliseconds and sends what is owed, sixty-four at a time at most; what is beyond that is not
/// made up for. It begins with sixteen, and while there are no calls, one endpoint is asked each
/// second.
///
/// ```
/// use waypost::client::LoadProbes;
/// use waypost::load::LoadReport;
/// use waypost::strategy::Prequal;
/// use waypost::{Balancer, InMemory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost::Error> {
/// let users = Balancer::builder("users").strategy(Prequal::new()).spawn(InMemory::new())?;
/// let probing = LoadProbes::new(async |endpoint| {
///     // Ask it; `LoadProbes::http` does, over a client of HTTP.
///     Ok(LoadReport::from_text("named_metrics.in_flight=3")?)
/// })
/// .start(&users)?;
/// # drop(probing);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LoadProbes {
    ask: Arc<Ask>,
    per_call: f64,
    timeout: Duration,
}

/// Probes under way, which keep the balancer; they end when this is dropped.
#[derive(Debug)]
pub struct Probing {
    task: AbortHandle,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Often enough for reports that last a second, and seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_secs(1);

/// Before any call, so that the first ones find reports: as many as Prequal keeps.
const FIRST: f64 = 16.0;

/// Probes that may be under way at a time.
const MOST: usize = 64;

impl LoadProbes {
    /// With a function that asks an endpoint.
    pub fn new<F, A>(ask: F) -> Self
    where
        F: Fn(Arc<Endpoint>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<LoadReport, BoxError>> + Send + 'static,
    {
        Self {
            ask: Arc::new(move |endpoint| ask(endpoint).boxed()),
            per_call: 3.0,
            timeout: Duration::from_secs(1),
        }
    }

    /// Asks by a GET of that path over a client of HTTP, at the endpoints' addresses; the report is
    /// in the head of the answer, as [`ReportLoad`](crate::server::ReportLoad) puts it there.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is no path, such as `/load`.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn http<S, B, A>(client: S, path: &str) -> Result<Self, Error>
    where
        S: tower_service::Service<::http::Request<B>, Response = ::http::Response<A>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Default + Send + 'static,
        A: Send,
    {
        let reason = "it is no path that begins with `/`, such as `/load`";
        let refuse = || Error::invalid("probes.path", path, reason);
        if !path.starts_with('/') {
            return Err(refuse());
        }
        let path: ::http::uri::PathAndQuery = path.parse().map_err(|_| refuse())?;
        Ok(Self::new(move |endpoint| {
            let (mut client, path) = (client.clone(), path.clone());
            async move {
                let uri = ::http::Uri::builder()
                    .scheme("http")
                    .authority(super::service::authority_of(&endpoint)?)
                    .path_and_query(path)
                    .build()?;
                let request = ::http::Request::get(uri).body(B::default())?;
                std::future::poll_fn(|cx| client.poll_ready(cx))
                    .await
                    .map_err(Into::into)?;
                let answer = client.call(request).await.map_err(Into::into)?;
                let report = LoadReport::of(answer.headers())?;
                report.ok_or_else(|| "its answer holds no load report".into())
            }
        }))
    }

    /// How many endpoints are asked for each call; three by default.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] unless it is above 0 and at most 100.
    pub fn per_call(mut self, probes: f64) -> Result<Self, Error> {
        if !(probes > 0.0 && probes <= 100.0) {
            let reason = "it is above 0 and at most 100";
            return Err(Error::invalid("probes.per_call", probes, reason));
        }
        self.per_call = probes;
        Ok(self)
    }

    /// How long an answer is waited for; 1 s by default, after which it would be too old to be of
    /// use.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Begins to probe the balancer's endpoints.
    ///
    /// # Errors
    ///
    /// One that says so when there is no Tokio runtime.
    pub fn start(self, balancer: &Balancer) -> Result<Probing, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime("probing"))?;
        let counts = Arc::<Counts>::default();
        let task = runtime.spawn(probe(self, balancer.clone(), Arc::clone(&counts)));
        Ok(Probing {
            task: task.abort_handle(),
            counts,
        })
    }
}

impl fmt::Debug for LoadProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadProbes")
            .field("per_call", &self.per_call)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Probing {
    /// Probes that were answered by a report.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Probes that were not, or not in time.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn probe(probes: LoadProbes, balancer: Balancer, counts: Arc<Counts>) {
    let mut snapshots = balancer.subscribe();
    let mut deck = Deck::of(balancer.nodes());
    let mut calls = deck.calls();
    let mut owed = FIRST;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = FuturesUnordered::new();
    loop {
        tokio::select! {
            // It does not end before the balancer, which is kept.
            Some(_) = snapshots.next() => {
                deck = Deck::of(balancer.nodes());
                calls = deck.calls();
            }
            Some((node, report)) = asked.next() => match report {
                Ok(Ok(report)) => {
                    Node::stats(&node).hear_apart(&report);
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(_)) | Err(_) => {
                    counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            },
            _ = ticks.tick() => {
                let before = std::mem::replace(&mut calls, deck.calls());
                owed += calls.saturating_sub(before) as f64 * probes.per_call;
                owed += TICK.as_secs_f64() / IDLE.as_secs_f64();
                while owed >= 1.0 && asked.len() < MOST
                    && let Some(node) = deck.draw()
                {
                    owed -= 1.0;
                    let answer = timeout(probes.timeout, (probes.ask)(Arc::clone(node.endpoint())));
                    asked.push(answer.map(|report| (node, report)));
                }
                owed = owed.min(1.0);
            }
        }
    }
}

/// The endpoints that take calls, in a random order that is dealt to its end.
struct Deck {
    nodes: Vec<Node>,
    dealt: usize,
    rng: Rng,
}

impl Deck {
    fn of(mut nodes: Vec<Node>) -> Self {
        nodes.retain(|node| node.endpoint().takes_calls());
        Self {
            dealt: nodes.len(),
            nodes,
            rng: Rng::from_entropy(),
        }
    }

    fn draw(&mut self) -> Option<Node> {
        if self.dealt >= self.nodes.len() {
            self.dealt = 0;
        }
        let left = self.nodes.len().checked_sub(self.dealt)?;
        let other = self.dealt + self.rng.below(left as u32) as usize;
        if other >= self.nodes.len() {
            return None;
        }
        self.nodes.swap(self.dealt, other);
        self.dealt += 1;
        self.nodes.get(self.dealt - 1).cloned()
    }

    /// Made so far.
    fn calls(&self) -> u64 {
        let stats = self.nodes.iter().map(Node::stats);
        stats
            .map(|stats| stats.totals().ended() + u64::from(stats.in_flight()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndpointSet;

    #[test]
    fn every_endpoint_comes_once_before_any_comes_twice() {
        let (users, mut updater) = Balancer::builder("users").manual().expect("it is a name");
        let endpoints = (0..7).map(|i| Endpoint::at(format!("10.0.0.{i}:80").as_str()).unwrap());
        updater.apply(EndpointSet::new(endpoints).expect("ids differ"));
        let mut deck = Deck::of(users.nodes());
        for _ in 0..5 {
            let mut round: Vec<_> = (0..7).map(|_| deck.draw().unwrap().key().0).collect();
            round.sort_unstable();
            round.dedup();
            assert_eq!(round.len(), 7);
        }
        assert!(Deck::of(Vec::new()).draw().is_none());
    }
}
