//! Calls, as fast as they go or at a rate, and how they ended.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::subject::Caller;

/// Callers that each wait for an answer before they call again.
const CALLERS: usize = 64;
/// Calls a second, a tenth of what a machine of two cores bears.
const RATE: u32 = 1_000;

#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    took: Vec<Duration>,
}

impl Calls {
    fn add(&mut self, answered: bool, took: Duration) {
        if answered {
            self.answered += 1;
            self.took.push(took);
        } else {
            self.failed += 1;
        }
    }

    /// The latency that this share of the answers stayed within.
    pub(crate) fn at(&mut self, share: f64) -> Duration {
        self.took.sort_unstable();
        let last = self.took.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        self.took.get(at).copied().unwrap_or_default()
    }
}

impl AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.took.extend(other.took);
    }
}

/// As fast as the callers go.
pub(crate) async fn flat_out(caller: &Arc<Caller>, method: &'static str, lasts: Duration) -> Calls {
    let end = Instant::now() + lasts;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let caller = Arc::clone(caller);
        callers.spawn(async move {
            let mut calls = Calls::default();
            while Instant::now() < end {
                let began = Instant::now();
                let answered = caller.call(method).await;
                calls.add(answered, began.elapsed());
            }
            calls
        });
    }
    let mut all = Calls::default();
    while let Some(calls) = callers.join_next().await {
        all += calls.unwrap_or_default();
    }
    all
}

/// At a rate, whoever is late; a call that should have begun before it did took
/// so much longer.
pub(crate) async fn at_a_rate(caller: &Arc<Caller>, lasts: Duration) -> Calls {
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = (lasts.as_secs_f64() * f64::from(RATE)) as u32;
    for _ in 0..count {
        let due = ticks.tick().await;
        let (caller, tell) = (Arc::clone(caller), tell.clone());
        tokio::spawn(async move {
            let answered = caller.call("GET").await;
            let took = due.elapsed();
            tell.send((answered, took))
                .expect("the receiver is there until the last has told");
        });
    }
    drop(tell);
    let mut all = Calls::default();
    while let Some((answered, took)) = told.recv().await {
        all.add(answered, took);
    }
    all
}
