//! The heart: follows a registry in the background and answers, many million
//! times a second, which endpoint gets this call.
//!
//! Sets come in on one side, from a [`Discover`](crate::Discover) source; each
//! becomes a state (set, eligible nodes, prepared strategy) that is published
//! in one atomic swap. Picks go out on the other side: [`Balancer::pick`] is
//! synchronous, takes no lock, allocates nothing, and returns a [`Pick`] guard
//! that counts the call while it lives.
//!
//! # What threads share, and what it costs
//!
//! A pick reads one version number that changes only when the set does, and
//! writes only to lines of its own thread: its place in the turn, its random
//! source, its stripe of the endpoint's counters. So two threads on one
//! balancer do not slow each other down, with two exceptions:
//!
//! - [`P2c`](crate::strategy::P2c) and
//!   [`LeastConn`](crate::strategy::LeastConn) *read* the other threads'
//!   stripes of the endpoints they compare, a line transfer for each that was
//!   written since;
//! - beyond eight threads that pick, the later ones share stripes, and count
//!   with atomic additions.
//!
//! The first pick of a thread, and its first after each change of the set,
//! fetches the state (some 20 ns; the very first allocates the thread's place).
//! A pick that ends on another thread than it began on costs two locked
//! instructions more.

mod alarm;
mod builder;
mod core;
mod draft;
mod driver;
mod explain;
mod group;
mod layout;
mod local;
mod monitor;
mod parts;
mod pick;
mod seat;
mod shortcut;
mod state;
mod updater;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
#[cfg(feature = "tonic")]
use futures::StreamExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

pub use builder::BalancerBuilder;
pub use explain::{Explanation, Verdict, Why};
pub use pick::{DetachedPick, Pick};
pub use updater::Updater;

use self::core::Core;
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;
use crate::event::{Discovery, Event, Snapshot};
use crate::strategy::PickOptions;
use crate::view::Node;
use driver::Driver;

/// Picks an endpoint of one service for each call.
///
/// Cloning is cheap, and clones share everything; when the last is dropped, the
/// background driver ends.
///
/// ```
/// use waypost::strategy::RoundRobin;
/// use waypost::{Balancer, Endpoint, Fixed, Outcome};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost::Error> {
/// let users = Balancer::builder("users")
///     .strategy(RoundRobin::new())
///     .build(Fixed::addresses(["10.0.0.1:80", "10.0.0.2:80"])?)
///     .await?;
///
/// let pick = users.pick()?;
/// println!("calling {}", pick.address());
/// pick.finish(Outcome::Success);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Balancer {
    core: Arc<Core>,
    _driver: Option<Arc<Driver>>,
}

impl Balancer {
    /// Starts a balancer for the service of that name.
    pub fn builder(service: impl Into<String>) -> BalancerBuilder {
        BalancerBuilder::new(service.into())
    }

    /// The service whose endpoints it picks.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.core.service
    }

    /// Picks the endpoint for a call.
    ///
    /// Never blocks and, once the thread has picked from this balancer before,
    /// never allocates; O(1) in the number of endpoints unless the strategy
    /// says otherwise.
    ///
    /// # Errors
    ///
    /// When there is no endpoint to pick; the error's predicates tell why: not
    /// known yet, discovery failed, empty, or none eligible.
    #[inline]
    pub fn pick(&self) -> Result<Pick, Error> {
        local::pick_any(&self.core)
    }

    /// Picks with a hash key, of a subset, or around the endpoints a call has
    /// tried.
    ///
    /// # Errors
    ///
    /// As [`Balancer::pick`], and [`Error::is_all_tried`].
    #[inline]
    pub fn pick_with(&self, options: &PickOptions<'_>) -> Result<Pick, Error> {
        if options.is_any() {
            return self.pick();
        }
        local::pick(&self.core, options)
    }

    /// Waits until an endpoint may be picked.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_ready`] when that takes longer than `within`; the other
    /// predicates tell what was missing.
    pub async fn ready(&self, within: Duration) -> Result<(), Error> {
        let mut snapshots = self.core.snapshots.subscribe();
        let eligible = snapshots.wait_for(|snapshot| snapshot.eligible > 0);
        match tokio::time::timeout(within, eligible).await {
            // The sender is in the core, which `self` keeps.
            Ok(_) => Ok(()),
            Err(_) => {
                let state = self.core.published.load();
                if state.counts.eligible > 0 {
                    return Ok(());
                }
                let service = self.core.service.shared();
                let reason = state.refusal(service, &PickOptions::ANY);
                Err(Error::not_ready(service, within, reason))
            }
        }
    }

    /// The set that picks are made from now; empty while nothing is known.
    #[must_use]
    pub fn current(&self) -> EndpointSet {
        self.core.snapshots.borrow().set.clone()
    }

    /// The endpoints of the current set with their live stats: first those that
    /// are picked from, in the order of their ids within each priority, then
    /// those that take no calls. For display and for tests.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.core.published.load().nodes()
    }

    /// The endpoints that take calls, now and after each change, if the strategy asks for what they
    /// say of their load; else none. It does not keep the balancer, and ends with it.
    #[cfg(feature = "tonic")]
    pub(crate) fn reporters(&self) -> impl Stream<Item = Vec<Node>> + Send + Unpin + use<> {
        let core = Arc::downgrade(&self.core);
        let nodes = move || {
            let mut nodes = core.upgrade()?.published.load().nodes();
            let asks = |node: &Node| node.stats().accounting().by_reports;
            nodes.retain(|node| asks(node) && node.endpoint().takes_calls());
            Some(nodes)
        };
        self.subscribe()
            .scan((), move |(), _| std::future::ready(nodes()))
    }

    /// Says for each endpoint whether it may be picked now, for which share of
    /// the calls, and why. O(n), for display.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        explain::explain(&self.core)
    }

    /// Follows what happens to endpoints and to the spread of calls. A reader
    /// that falls behind by more than a thousand loses the oldest.
    pub fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + use<> {
        let events = self.core.events.subscribe();
        Box::pin(futures::stream::unfold(events, |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }))
    }

    /// How much is known of the service, and how fresh it is.
    #[must_use]
    pub fn discovery(&self) -> Discovery {
        self.core.snapshots.borrow().discovery.clone()
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshots.borrow().clone()
    }

    /// Follows the set and its freshness: a stream of what is known now and
    /// after each change. A slow reader gets the latest, not every one between.
    /// It ends when the balancer is gone.
    pub fn subscribe(&self) -> impl Stream<Item = Snapshot> + Send + Unpin + use<> {
        let snapshots = self.core.snapshots.subscribe();
        Box::pin(futures::stream::unfold(
            (snapshots, false),
            |(mut snapshots, begun): (watch::Receiver<Snapshot>, bool)| async move {
                if begun {
                    snapshots.changed().await.ok()?;
                }
                let snapshot = snapshots.borrow_and_update().clone();
                Some((snapshot, (snapshots, true)))
            },
        ))
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.core.snapshots.borrow();
        f.debug_struct("Balancer")
            .field("service", &self.core.service.as_str())
            .field("endpoints", &snapshot.set.len())
            .field("eligible", &snapshot.eligible)
            .field("discovery", &snapshot.discovery)
            .finish_non_exhaustive()
    }
}
