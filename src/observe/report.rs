//! Everything about a balancer at one moment.

use std::collections::HashMap;

use serde::Serialize;

use crate::balancer::{Balancer, Verdict};
use crate::endpoint::Status;
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
    /// Endpoints that may be picked.
    pub eligible: usize,
    /// Calls in flight at all of them.
    pub in_flight: u32,
    /// The endpoints, in the order of their ids.
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
    /// Its share of the calls, of 1, as far as weights decide.
    pub share: f64,
    /// Whether calls go to it, or would if those that go first had been tried.
    pub is_picked: bool,
    /// Why they do, or do not, as [`Balancer::explain`] has it.
    pub why: String,
}

impl Report {
    /// Of this balancer, now.
    #[must_use]
    pub fn of(balancer: &Balancer) -> Self {
        let discovery = balancer.discovery();
        let nodes = balancer.nodes();
        let nodes: HashMap<&str, &Node> = nodes
            .iter()
            .map(|node| (node.endpoint().id().as_str(), node))
            .collect();
        let verdicts = balancer.explain().endpoints;
        // The set may have changed between the two.
        let endpoints = verdicts.iter().filter_map(|verdict| {
            let node = nodes.get(verdict.id.as_str())?;
            Some(EndpointReport::of(node, verdict))
        });
        let endpoints: Vec<_> = endpoints.collect();
        Self {
            service: balancer.service().to_string(),
            discovery: match &discovery {
                Discovery::Unknown { .. } => "unknown",
                Discovery::Fresh => "fresh",
                Discovery::Stale { .. } => "stale",
            },
            error: discovery.error().map(ToString::to_string),
            eligible: endpoints.iter().filter(|one| one.is_picked).count(),
            in_flight: endpoints.iter().map(|one| one.in_flight).sum(),
            endpoints,
        }
    }
}

impl EndpointReport {
    fn of(node: &Node, verdict: &Verdict) -> Self {
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
            share: verdict.share,
            is_picked: verdict.is_picked(),
            why: verdict.reason().to_string(),
        }
    }
}
