//! Everything about a balancer at one moment.

use serde::Serialize;

use crate::balancer::Balancer;
use crate::endpoint::{Endpoint, Status};
use crate::event::Discovery;
use crate::view::Node;

/// A balancer at one moment. O(endpoints).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The service.
    pub service: String,
    /// How fresh the set is: `fresh`, `stale`, or `unknown`.
    pub discovery: &'static str,
    /// The registry's last error, if its last word was one.
    pub error: Option<String>,
    /// Endpoints that take calls.
    pub eligible: usize,
    /// Calls in flight at all of them.
    pub in_flight: u32,
    /// The endpoints: first those that are picked from.
    pub endpoints: Vec<EndpointReport>,
}

/// An endpoint at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointReport {
    /// What it is known by.
    pub id: String,
    /// Where it is called.
    pub address: String,
    /// Its zone, if it has told one.
    pub zone: Option<String>,
    /// What it says of itself.
    pub status: Status,
    /// Its share.
    pub weight: u32,
    /// Its priority.
    pub priority: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// The mean latency of the last ten seconds, in milliseconds.
    pub latency_ms: Option<f64>,
    /// Calls answered well so far.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that were given up.
    pub cancelled: u64,
    /// Whether it takes calls.
    pub takes_calls: bool,
    /// Why it does, or does not.
    pub why: &'static str,
}

impl Report {
    /// Of this balancer, now.
    #[must_use]
    pub fn of(balancer: &Balancer) -> Self {
        let discovery = balancer.discovery();
        let endpoints: Vec<_> = balancer.nodes().iter().map(EndpointReport::of).collect();
        Self {
            service: balancer.service().to_string(),
            discovery: match &discovery {
                Discovery::Unknown { .. } => "unknown",
                Discovery::Fresh => "fresh",
                Discovery::Stale { .. } => "stale",
            },
            error: discovery.error().map(ToString::to_string),
            eligible: endpoints.iter().filter(|one| one.takes_calls).count(),
            in_flight: endpoints.iter().map(|one| one.in_flight).sum(),
            endpoints,
        }
    }
}

impl EndpointReport {
    fn of(node: &Node) -> Self {
        let (endpoint, stats) = (node.endpoint(), node.stats());
        let totals = stats.totals();
        Self {
            id: endpoint.id().to_string(),
            address: endpoint.address().to_string(),
            zone: endpoint.locality().zone().map(ToOwned::to_owned),
            status: endpoint.status(),
            weight: endpoint.weight(),
            priority: endpoint.priority(),
            in_flight: stats.in_flight(),
            latency_ms: stats.latency().map(|mean| mean.as_secs_f64() * 1_000.0),
            succeeded: totals.succeeded,
            failed: totals.failed,
            cancelled: totals.cancelled,
            takes_calls: endpoint.takes_calls(),
            why: why(endpoint),
        }
    }
}

fn why(endpoint: &Endpoint) -> &'static str {
    match endpoint.status() {
        Status::Draining => "is draining: finishes what it has",
        Status::Down => "is down",
        Status::Starting => "is starting: not ready yet",
        Status::Up if endpoint.weight() == 0 => "has weight 0",
        Status::Up => "takes calls",
    }
}
