//! What a server takes its own latency for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::load::LatencyByLoad;
use crate::time::Timestamp;

/// What a server says a call takes that comes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Estimate {
    /// [`LatencyByLoad`]: the median of those that came to about as many.
    #[default]
    ByLoad,
    /// The mean of the last 32 that ended, whatever they came to. It is late, and makes clients
    /// oscillate that go by it.
    OfLast,
}

pub(super) enum Estimator {
    ByLoad(Box<LatencyByLoad>),
    OfLast(VecDeque<Duration>),
}

const LAST: usize = 32;

impl Estimator {
    pub(super) fn new(estimate: Estimate) -> Self {
        match estimate {
            Estimate::ByLoad => Self::ByLoad(Box::default()),
            Estimate::OfLast => Self::OfLast(VecDeque::new()),
        }
    }

    /// A call ended that came beside so many.
    pub(super) fn record(&mut self, beside: u32, took: Duration, now: Timestamp) {
        match self {
            Self::ByLoad(latencies) => latencies.record(beside, took, now),
            Self::OfLast(last) => {
                last.truncate(LAST - 1);
                last.push_front(took);
            }
        }
    }

    pub(super) fn estimate(&self, held: u32, now: Timestamp) -> Option<Duration> {
        match self {
            Self::ByLoad(latencies) => latencies.estimate(held, now),
            Self::OfLast(last) => {
                let sum: Duration = last.iter().sum();
                sum.checked_div(last.len() as u32)
            }
        }
    }
}
