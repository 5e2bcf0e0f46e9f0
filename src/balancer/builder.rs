//! How a balancer is set up.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};

use super::alarm::Alarm;
use super::core::{self, Core};
use super::driver::{self, Driver};
use super::monitor::Monitor;
use super::state::State;
use super::{Balancer, Updater};
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;
use crate::event::{Discovery, Snapshot};
use crate::health::check::{HealthCheck, Watched};
use crate::health::outlier::OutlierEjection;
use crate::health::slow_start::SlowStart;
use crate::registry::{Discover, Guard, RemovalGuard};
use crate::strategy::{Adaptive, Strategy};
use crate::sync::Published;
use crate::time::Clock;
use crate::topology::Topology;

/// Sets up a [`Balancer`].
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`strategy`](Self::strategy) | [`Adaptive`] | right without knowing anything about the service |
/// | [`latency`](Self::latency) | recorded | two clock reads (about 50 ns) against a call of many µs |
/// | [`outlier_ejection`](Self::outlier_ejection) | 5 calls in a row without an answer | no answer is never the caller's own doing |
/// | [`health_check`](Self::health_check), [`slow_start`](Self::slow_start) | none | they cost, and need to know the service |
/// | [`topology`](Self::topology) | priorities; no zones until the client's is given | right without knowing anything |
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
    ejection: Option<OutlierEjection>,
    check: Option<HealthCheck>,
    slow_start: Option<SlowStart>,
    topology: Topology,
}

/// How many events wait for a slow reader.
const EVENTS: usize = 1_024;

impl BalancerBuilder {
    pub(super) fn new(service: String) -> Self {
        Self {
            service,
            strategy: Arc::new(Adaptive::new()),
            clock: Clock::system(),
            latency: true,
            first_answer: Duration::from_secs(5),
            removal_guard: Some(RemovalGuard::default()),
            ejection: Some(OutlierEjection::connections()),
            check: None,
            slow_start: None,
            topology: Topology::new(),
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
    /// millions a second and nothing looks at latency; a strategy that goes by it, as
    /// the default does, is served all the same.
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

    /// When endpoints are ejected because calls to them fail.
    pub fn outlier_ejection(mut self, ejection: OutlierEjection) -> Self {
        self.ejection = Some(ejection);
        self
    }

    /// Never ejects an endpoint, whatever its calls come to.
    pub fn no_outlier_ejection(mut self) -> Self {
        self.ejection = None;
        self
    }

    /// Probes the endpoints; those that fail get no calls.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.check = Some(check);
        self
    }

    /// Lets the weight of endpoints grow that are new or back.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// How calls are spread over priorities, zones and subsets.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
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

    /// Starts the balancer without waiting. What follows the registry is a task of the runtime that
    /// this is called on: where that ends before the balancer does, the last set goes on serving, and
    /// [`Balancer::discovery`] is stale and says why.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the service's name is none, and an error that
    /// says so when there is no Tokio runtime to run the driver.
    pub fn spawn(self, discover: impl Discover) -> Result<Balancer, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime("a balancer"))?;
        let guard = self.removal_guard.filter(|_| !discover.is_authoritative());
        let (balancer, updater) = self.manual()?;
        let answers = discover.watch(balancer.service());
        let service = balancer.service().clone();
        let look_again = move || discover.look_again(&service);
        let task = runtime.spawn(driver::run(
            updater,
            answers,
            guard.map(Guard::new),
            look_again,
        ));
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
        self.topology.validate()?;
        if let Some(ejection) = &self.ejection {
            ejection.validate()?;
        }
        if let Some(slow_start) = &self.slow_start {
            slow_start.validate()?;
        }
        let listens = self.ejection.is_some() || self.check.is_some() || self.slow_start.is_some();
        let alarm = listens.then(|| Arc::new(Alarm::new(self.ejection.clone())));
        let checks = self.check.zip(alarm.clone()).map(|(check, alarm)| {
            let wake = move || alarm.ring();
            Watched::new(check, Arc::new(wake))
        });
        let checks = checks.transpose()?;
        let timed = self.latency || self.strategy.reads_latency() || self.strategy.reads_reports();
        let stopwatch = timed.then(|| self.clock.clone());
        let place = core::take_place();
        let state = Arc::new(State::unknown(place, stopwatch, alarm.clone()));
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
            events: broadcast::Sender::new(EVENTS),
            alarm,
            clock: self.clock.clone(),
        });
        let monitor = Monitor::new(self.ejection, self.slow_start, checks, self.clock.now());
        let updater = Updater::new(
            Arc::clone(&core),
            state,
            self.strategy,
            self.clock,
            self.topology,
            monitor,
        );
        let balancer = Balancer {
            core,
            _driver: None,
        };
        Ok((balancer, updater))
    }
}
