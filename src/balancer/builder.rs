//! How a balancer is set up.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::core::{self, Core};
use super::driver::{self, Driver};
use super::state::State;
use super::{Balancer, Updater};
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;
use crate::event::{Discovery, Snapshot};
use crate::registry::{Discover, Guard, RemovalGuard};
use crate::strategy::{P2c, Strategy};
use crate::sync::Published;
use crate::time::Clock;

/// Sets up a [`Balancer`].
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`strategy`](Self::strategy) | [`P2c`] | right without knowing anything about the service |
/// | [`latency`](Self::latency) | recorded | two clock reads (about 50 ns) against a call of many µs |
/// | [`first_answer`](Self::first_answer) | 5 s | a healthy registry answers in milliseconds; one that does not must not keep the application from starting |
/// | [`removal_guard`](Self::removal_guard) | below half, 5 min | a registry that forgot must not empty the client; see [`RemovalGuard`] |
#[derive(Clone, Debug)]
#[must_use = "a balancer is made by `build`, `spawn` or `manual`"]
pub struct BalancerBuilder {
    service: String,
    strategy: Arc<dyn Strategy>,
    clock: Clock,
    latency: bool,
    first_answer: Duration,
    removal_guard: Option<RemovalGuard>,
}

impl BalancerBuilder {
    pub(super) fn new(service: String) -> Self {
        Self {
            service,
            strategy: Arc::new(P2c::new()),
            clock: Clock::system(),
            latency: true,
            first_answer: Duration::from_secs(5),
            removal_guard: Some(RemovalGuard::default()),
        }
    }

    /// Which of the endpoints that may be picked gets a call.
    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// The clock to take latency with: the system's, or `Clock::tsc`, which is
    /// read in less than half the time where the feature `quanta` is on.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Whether calls are timed. Turn it off where picks are counted in tens of
    /// millions a second and nothing looks at latency.
    pub fn latency(mut self, recorded: bool) -> Self {
        self.latency = recorded;
        self
    }

    /// How long [`build`](Self::build) waits for the registry's first answer.
    pub fn first_answer(mut self, within: Duration) -> Self {
        self.first_answer = within;
        self
    }

    /// What is made of an answer that suddenly misses most of the service;
    /// `None` takes every answer at its word. Sources that are
    /// [authoritative](Discover::is_authoritative), and sets that are
    /// [fed by hand](Self::manual), are never doubted.
    pub fn removal_guard(mut self, guard: impl Into<Option<RemovalGuard>>) -> Self {
        self.removal_guard = guard.into();
        self
    }

    /// Starts the balancer and waits for the registry's first answer, so that
    /// the first pick finds endpoints.
    ///
    /// A registry that does not answer in time, or fails, is no error here: the
    /// balancer goes on asking, and its picks say what is missing.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub async fn build(self, discover: impl Discover) -> Result<Balancer, Error> {
        let within = self.first_answer;
        let balancer = self.spawn(discover)?;
        let mut snapshots = balancer.core.snapshots.subscribe();
        let answered = snapshots
            .wait_for(|snapshot| !matches!(snapshot.discovery, Discovery::Unknown { error: None }));
        // Late is as good as answered: see above.
        drop(tokio::time::timeout(within, answered).await);
        Ok(balancer)
    }

    /// Starts the balancer without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the service's name is none, and an error that
    /// says so when there is no Tokio runtime to run the driver.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a source is handed over; `Arc` and clonable handles are sources too"
    )]
    pub fn spawn(self, discover: impl Discover) -> Result<Balancer, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime("a balancer"))?;
        let guard = self.removal_guard.filter(|_| !discover.is_authoritative());
        let (balancer, updater) = self.manual()?;
        let answers = discover.watch(balancer.service());
        let task = runtime.spawn(driver::run(updater, answers, guard.map(Guard::new)));
        Ok(Balancer {
            _driver: Some(Arc::new(Driver(task.abort_handle()))),
            ..balancer
        })
    }

    /// The balancer without a driver, and the [`Updater`] to feed it with.
    /// Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the service's name is none.
    pub fn manual(self) -> Result<(Balancer, Updater), Error> {
        let service = ServiceName::new(&self.service)?;
        let stopwatch = self.latency.then(|| self.clock.clone());
        let place = core::take_place();
        let state = Arc::new(State::unknown(place, stopwatch));
        let core = Arc::new(Core {
            service,
            published: Published::new(Arc::clone(&state)),
            snapshots: watch::Sender::new(Snapshot {
                set: EndpointSet::empty(),
                eligible: 0,
                unconfirmed: 0,
                discovery: Discovery::Unknown { error: None },
            }),
            place,
        });
        let updater = Updater::new(Arc::clone(&core), state, self.strategy, self.clock);
        let balancer = Balancer {
            core,
            _driver: None,
        };
        Ok((balancer, updater))
    }
}
