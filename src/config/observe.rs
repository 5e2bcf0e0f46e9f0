//! Who is told.

use serde::{Deserialize, Serialize};

#[cfg(not(all(feature = "metrics", feature = "tracing")))]
use super::registry::without;
#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::balancer::Balancer;
use crate::client::CallSettings;
use crate::error::Error;
#[cfg(feature = "metrics")]
use crate::observe::Metered;
#[cfg(feature = "tracing")]
use crate::observe::{Traced, trace_changes};

/// Who is told of calls, and of what becomes of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserveConfig {
    /// `observe::Traced` (feature `tracing`).
    pub tracing: bool,
    /// `observe::Metered` (feature `metrics`).
    pub metrics: bool,
    /// Metrics by endpoint, too.
    pub by_endpoint: bool,
}

impl ObserveConfig {
    #[cfg_attr(
        not(any(feature = "metrics", feature = "tracing")),
        expect(unused_mut, reason = "there is nobody to tell")
    )]
    pub(super) fn add_to(&self, mut calls: CallSettings) -> Result<CallSettings, Error> {
        if self.by_endpoint && !self.metrics {
            let reason = "it is about metrics, which are off; set `metrics = true`";
            return Err(Error::config("calls.observe.by_endpoint", reason));
        }
        if self.tracing {
            #[cfg(feature = "tracing")]
            {
                calls = calls.observe(Traced);
            }
            #[cfg(not(feature = "tracing"))]
            return Err(without("calls.observe.tracing", "tracing"));
        }
        if self.metrics {
            #[cfg(feature = "metrics")]
            {
                calls = calls.observe(self.metered());
            }
            #[cfg(not(feature = "metrics"))]
            return Err(without("calls.observe.metrics", "metrics"));
        }
        Ok(calls)
    }

    /// Tells of the balancer's changes until it is gone, in tasks.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(super) fn follow(&self, balancer: &Balancer) {
        #[cfg(feature = "tracing")]
        if self.tracing {
            tokio::spawn(trace_changes(balancer));
        }
        #[cfg(feature = "metrics")]
        if self.metrics {
            tokio::spawn(self.metered().follow(balancer));
        }
    }

    #[cfg(feature = "metrics")]
    fn metered(&self) -> Metered {
        let metered = Metered::default();
        if self.by_endpoint {
            metered.by_endpoint()
        } else {
            metered
        }
    }
}
