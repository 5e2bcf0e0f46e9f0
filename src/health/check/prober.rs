//! The probes of a process: one series for each endpoint and way to ask,
//! however many balancers want to know.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::machine::{Health, Schedule};
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
}

impl Series {
    /// Joins the probes of that endpoint, or begins them.
    pub(super) fn join(
        check: &HealthCheck,
        endpoint: &Arc<Endpoint>,
        runtime: &Handle,
        wake: &Arc<Wake>,
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
        let mut wakes = series
            .told
            .wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        wakes.retain(|wake| wake.strong_count() > 0);
        wakes.push(Arc::downgrade(wake));
        drop(wakes);
        series
    }

    fn begin(check: HealthCheck, endpoint: Arc<Endpoint>, runtime: &Handle) -> Self {
        let told = Arc::new(Told {
            health: AtomicU8::new(Health::Unknown as u8),
            passes: AtomicU64::new(0),
            awaited: AtomicBool::new(false),
            wakes: Mutex::default(),
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

    pub(super) fn passes(&self) -> u64 {
        self.told.passes.load(Ordering::Acquire)
    }

    /// Wakes all at the next pass, too.
    pub(super) fn await_pass(&self) {
        self.told.awaited.store(true, Ordering::Release);
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
    format!("{runtime} {address} {port:?} {asked} {timeout:?} {pace:?}")
}

async fn run(check: HealthCheck, endpoint: Arc<Endpoint>, told: Arc<Told>) {
    let mut rng = Rng::from_entropy();
    let mut schedule = Schedule::new(&check);
    tokio::time::sleep(schedule.first(&mut rng)).await;
    loop {
        let answer = {
            // It is never closed.
            let _place = PLACES.acquire().await;
            probe::ask(&check, &endpoint).await
        };
        let before = schedule.health();
        let pause = schedule.take(answer, &mut rng);
        told.health
            .store(schedule.health() as u8, Ordering::Release);
        let passed = answer == super::Answer::Pass;
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
        tokio::time::sleep(pause).await;
    }
}
