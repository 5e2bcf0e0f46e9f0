//! From a call that fails to the one who decides what follows.

use tokio::sync::Notify;

use crate::health::outlier::OutlierEjection;
use crate::stats::{Bell, EndpointStats, Outcome, Trial};
use crate::sync::atomic::{AtomicBool, Ordering};

/// Told of failed calls and of trial calls; wakes the balancer's driver when
/// there is something to decide.
///
/// It counts with atomics and decides nothing, so that the call which fails is
/// not the one that waits.
#[derive(Debug)]
pub(super) struct Alarm {
    ejection: Option<OutlierEjection>,
    /// Whether it was rung since calls fail.
    failing: AtomicBool,
    wake: Notify,
}

impl Alarm {
    pub(super) fn new(ejection: Option<OutlierEjection>) -> Self {
        Self {
            ejection,
            failing: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Whether it was rung since calls fail, since this was asked last.
    pub(super) fn take_failing(&self) -> bool {
        self.failing.swap(false, Ordering::Relaxed)
    }

    pub(super) fn ring(&self) {
        self.wake.notify_one();
    }

    /// Waits until somebody rings, or has rung since the last wait.
    pub(super) async fn rung(&self) {
        self.wake.notified().await;
    }
}

impl Bell for Alarm {
    fn ended(&self, stats: &EndpointStats, outcome: Outcome) {
        let on_trial = stats.accrual().trial() == Trial::Taken;
        let told = on_trial && stats.accrual().end_trial(outcome);
        let Some(ejection) = &self.ejection else {
            return;
        };
        let rings = outcome.is_failure() && ejection.rings(stats.failed(outcome));
        if told || rings {
            if outcome.is_failure() {
                self.failing.store(true, Ordering::Relaxed);
            }
            self.ring();
        }
    }
}
