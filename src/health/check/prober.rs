//! The probes of a process: one series for each endpoint and way to ask,
//! however many balancers want to know.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::machine::{Health, Schedule};
use super::traffic::Traffic;
use super::{HealthCheck, Probe, probe};
use crate::endpoint::Endpoint;
use crate::rng::Rng;

/// So many probes of a process are under way at once. A stuck one holds its
/// place until its timeout and no longer; at a second each, 256 are as many
/// probes a second as 2,560 endpoints need that are *all* stuck.
const AT_ONCE: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

static SERIES: Mutex<Option<HashMap<String, Weak<Series>>>> = Mutex::new(None);

/// Who is woken when an endpoint's health becomes another.
pub(crate) type Wake = dyn Fn() + Send + Sync;

/// The probes of one endpoint; they end when nobody holds it.
pub(super) struct Series {
    told: Arc<Told>,
    task: AbortHandle,
}

struct Told {
    health: AtomicU8,
    passes: AtomicU64,
    /// Somebody waits for a pass, not only for a change.
    awaited: AtomicBool,
    wakes: Mutex<Vec<Weak<Wake>>>,
    /// The calls of those who want to know.
    traffic: Mutex<Vec<Weak<Traffic>>>,
    /// Why the last answer was no pass.
    reason: Mutex<Arc<str>>,
}

impl Series {
    /// Joins the probes of that endpoint, or begins them.
    pub(super) fn join(
        check: &HealthCheck,
        endpoint: &Arc<Endpoint>,
        runtime: &Handle,
        wake: &Arc<Wake>,
        traffic: &Arc<Traffic>,
    ) -> Arc<Self> {
        let mut all = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_with(HashMap::new);
        let name = name(check, endpoint, runtime);
        let series = all.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            all.retain(|_, series| series.strong_count() > 0);
            let series = Arc::new(Self::begin(check.clone(), Arc::clone(endpoint), runtime));
            all.insert(name, Arc::downgrade(&series));
            series
        });
        add(&series.told.wakes, wake);
        add(&series.told.traffic, traffic);
        series
    }

    fn begin(check: HealthCheck, endpoint: Arc<Endpoint>, runtime: &Handle) -> Self {
        let told = Arc::new(Told {
            health: AtomicU8::new(Health::Unknown as u8),
            passes: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
            wakes: Mutex::default(),
            traffic: Mutex::default(),
            reason: Mutex::new("".into()),
        });
        let task = runtime.spawn(run(check, endpoint, Arc::clone(&told)));
        Self {
            told,
            task: task.abort_handle(),
        }
    }

    pub(super) fn health(&self) -> Health {
        let health = self.told.health.load(Ordering::Acquire);
        let all = [Health::Passing, Health::Failing];
        let known = all.into_iter().find(|&known| known as u8 == health);
        known.unwrap_or(Health::Unknown)
    }

    /// Why the last probe that did not pass did not.
    pub(super) fn reason(&self) -> Arc<str> {
        Arc::clone(
            &self
                .told
                .reason
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(super) fn passes(&self) -> u64 {
        self.told.passes.load(Ordering::Acquire)
    }

    /// Wakes all at the next pass, too.
    pub(super) fn await_pass(&self) {
        self.told.awaited.store(true, Ordering::Release);
    }
}

/// Adds who wants to be told, or to be asked, and forgets those that are gone.
fn add<T: ?Sized>(all: &Mutex<Vec<Weak<T>>>, one: &Arc<T>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|one| one.strong_count() > 0);
    all.push(Arc::downgrade(one));
}

impl Told {
    /// Whether anybody ever called a service that the endpoint is of.
    fn is_called(&self) -> bool {
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut traffic = traffic.iter().filter_map(Weak::upgrade);
        traffic.any(|traffic| traffic.is_seen())
    }

    /// Waits so long; what is longer than the usual interval ends with the
    /// interval in which the first call comes.
    async fn pause(&self, pause: Duration, interval: Duration) {
        let due = Instant::now() + pause;
        let mut step = Instant::now() + interval;
        let was_called = self.is_called();
        while !was_called && step < due {
            tokio::time::sleep_until(step).await;
            if self.is_called() {
                return;
            }
            step += interval;
        }
        tokio::time::sleep_until(due).await;
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is asked, of whom, by whose threads. A header's value is part of it, and
/// so the name is never shown.
fn name(check: &HealthCheck, endpoint: &Endpoint, runtime: &Handle) -> String {
    let asked = match &check.probe {
        Probe::Http(http) => format!("{http:?} {:?}", endpoint.authority()),
        Probe::Tcp => "tcp".into(),
        #[cfg(feature = "tonic")]
        Probe::Grpc { service, authority } => {
            format!("grpc {service:?} {authority:?} {:?}", endpoint.authority())
        }
        // A closure sees the whole endpoint.
        Probe::Custom(number, _) => format!("{number} {endpoint:?}"),
    };
    let HealthCheck {
        timeout,
        pace,
        port,
        ..
    } = check;
    let (address, runtime) = (endpoint.address(), runtime.id());
    #[cfg(feature = "tls")]
    let asked = format!("{asked} {:?} {:?}", check.tls, endpoint.tls_name());
    format!("{runtime} {address} {port:?} {asked} {timeout:?} {pace:?}")
}

async fn run(check: HealthCheck, endpoint: Arc<Endpoint>, told: Arc<Told>) {
    let mut rng = Rng::from_entropy();
    let mut schedule = Schedule::new(&check);
    tokio::time::sleep(schedule.first(&mut rng)).await;
    loop {
        let (answer, reason) = {
            // It is never closed.
            let _place = PLACES.acquire().await;
            probe::ask(&check, &endpoint).await
        };
        let before = schedule.health();
        schedule.set_called(told.is_called());
        let pause = schedule.take(answer, &mut rng);
        told.health
            .store(schedule.health() as u8, Ordering::Release);
        let passed = answer == super::Answer::Pass;
        if !passed {
            *told.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
        }
        if passed {
            told.passes.fetch_add(1, Ordering::Release);
        }
        let awaited = passed && told.awaited.swap(false, Ordering::AcqRel);
        if awaited || schedule.health() != before {
            let wakes = told.wakes.lock().unwrap_or_else(PoisonError::into_inner);
            wakes
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|wake| wake());
        }
        told.pause(pause, check.pace.interval).await;
    }
}
