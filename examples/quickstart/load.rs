//! Callers that go on for as long as they are let, and what became of their
//! calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest_middleware::ClientWithMiddleware;
use tokio::task::JoinSet;

const CALLERS: usize = 32;

pub(crate) struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tally: Mutex<Tally>,
    /// All calls, those between the phases too.
    calls: AtomicUsize,
    failed: AtomicUsize,
}

/// What became of all calls, from the first to the last.
pub(crate) struct Totals {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
}

/// What happened since the last phase ended.
#[derive(Default)]
struct Tally {
    served: BTreeMap<String, usize>,
    latencies: Vec<Duration>,
    failed: usize,
}

/// What happened in a phase.
pub(crate) struct Phase {
    pub(crate) what: &'static str,
    pub(crate) took: Duration,
    pub(crate) failed: usize,
    served: BTreeMap<String, usize>,
    /// In ascending order.
    latencies: Vec<Duration>,
}

impl Load {
    pub(crate) fn start(client: &ClientWithMiddleware) -> Self {
        let shared = Arc::new(Shared::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call_on(client.clone(), Arc::clone(&shared)));
        }
        Self { shared, callers }
    }

    /// Lets the callers go on for a while, and tells what they did in it.
    pub(crate) async fn phase(&self, what: &'static str, lasts: Duration) -> Phase {
        self.take();
        let began = Instant::now();
        tokio::time::sleep(lasts).await;
        let mut tally = self.take();
        tally.latencies.sort_unstable();
        Phase {
            what,
            took: began.elapsed(),
            failed: tally.failed,
            served: tally.served,
            latencies: tally.latencies,
        }
    }

    fn take(&self) -> Tally {
        std::mem::take(&mut *self.shared.tally())
    }

    pub(crate) async fn stop(mut self) -> Totals {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        Totals {
            calls: self.shared.calls.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn call_on(client: ClientWithMiddleware, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = call(&client).await;
        let took = began.elapsed();
        shared.calls.fetch_add(1, Ordering::Relaxed);
        let mut tally = shared.tally();
        match answer {
            Ok(name) => {
                *tally.served.entry(name).or_default() += 1;
                tally.latencies.push(took);
            }
            Err(error) => {
                tally.failed += 1;
                shared.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("a call failed: {error:#}");
            }
        }
    }
}

async fn call(client: &ClientWithMiddleware) -> crate::Result<String> {
    let answer = client.get("http://users/v1/me").send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

impl Phase {
    pub(crate) fn calls(&self) -> usize {
        self.latencies.len() + self.failed
    }

    pub(crate) fn served(&self, name: &str) -> usize {
        self.served.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &str> {
        self.served.keys().map(String::as_str)
    }

    /// The latency that this share of the answered calls stayed below.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}
