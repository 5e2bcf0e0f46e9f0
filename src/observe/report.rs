//! Everything about a balancer at one moment.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::balancer::{Balancer, Verdict, Why};
use crate::endpoint::Status;
use crate::event::Discovery;
use crate::view::Node;

/// A balancer at one moment. O(endpoints).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The service.
    pub service: String,
    /// How fresh the set is.
    pub discovery: Freshness,
    /// The registry's last error, if its last word was one.
    pub error: Option<String>,
    /// Endpoints that may be picked.
    pub eligible: usize,
    /// Endpoints that serve on though the registry does not name them.
    pub unconfirmed: usize,
    /// Calls in flight at all of them.
    pub in_flight: u32,
    /// The endpoints, in the order of their ids.
    pub endpoints: Vec<EndpointReport>,
}

/// How fresh a set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Freshness {
    /// The registry's last word was this set.
    Fresh,
    /// The registry has failed since.
    Stale,
    /// Nothing is known yet.
    Unknown,
}

/// An endpoint at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Its weight by the registry.
    pub weight: u32,
    /// Its priority.
    pub priority: u32,
    /// The share of all calls that it gets, of 1, as far as weights decide.
    pub share: f64,
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
    /// Whether calls go to it, or would if those that go first had been tried.
    pub is_picked: bool,
    /// What is made of it, in one word.
    pub state: EndpointState,
    /// Why, as [`Balancer::explain`] has it.
    pub why: String,
}

/// What a balancer makes of an endpoint: [`Why`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// It takes its share.
    Up,
    /// It takes a share that grows.
    Ramping,
    /// It is ill, and not believed to be.
    Panic,
    /// It takes calls that the others have failed.
    Spare,
    /// It takes calls that name its part of a split.
    Named,
    /// It gets one call, which decides.
    OnTrial,
    /// It is ejected.
    Ejected,
    /// It fails its health check.
    CheckFailed,
    /// It is leaving.
    Draining,
    /// It says that it is down.
    Down,
    /// It is not ready yet.
    Starting,
    /// Its weight is 0.
    Weightless,
    /// It is not this client's to call.
    NotInSubset,
}

impl Report {
    /// Of this balancer, now.
    #[must_use]
    pub fn of(balancer: &Balancer) -> Self {
        let (snapshot, nodes) = (balancer.snapshot(), balancer.nodes());
        let nodes: HashMap<_, _> = nodes
            .iter()
            .map(|node| (node.endpoint().id().as_str(), node))
            .collect();
        let verdicts = balancer.explain().endpoints;
        // What came or went between the two looks is left for the next report.
        let endpoints: Vec<_> = verdicts
            .into_iter()
            .filter_map(|verdict| Some(EndpointReport::of(nodes.get(&*verdict.id)?, verdict)))
            .collect();
        Self {
            service: balancer.service().to_string(),
            discovery: match &snapshot.discovery {
                Discovery::Unknown { .. } => Freshness::Unknown,
                Discovery::Fresh => Freshness::Fresh,
                Discovery::Stale { .. } => Freshness::Stale,
            },
            error: snapshot.discovery.error().map(ToString::to_string),
            eligible: endpoints.iter().filter(|one| one.is_picked).count(),
            unconfirmed: snapshot.unconfirmed,
            in_flight: endpoints.iter().map(|one| one.in_flight).sum(),
            endpoints,
        }
    }
}

impl EndpointReport {
    fn of(node: &Node, verdict: Verdict) -> Self {
        let seen = node.stats();
        let totals = seen.totals();
        let why = verdict.reason().to_string();
        Self {
            is_picked: verdict.is_picked(),
            state: EndpointState::of(&verdict),
            why,
            id: verdict.id,
            address: verdict.address,
            zone: verdict.zone,
            status: verdict.status,
            weight: verdict.weight,
            priority: verdict.priority,
            share: verdict.share,
            in_flight: seen.in_flight(),
            latency_ms: seen.latency().map(|mean| mean.as_secs_f64() * 1_000.0),
            succeeded: totals.succeeded,
            failed: totals.failed,
            cancelled: totals.cancelled,
        }
    }
}

impl EndpointState {
    fn of(verdict: &Verdict) -> Self {
        match &verdict.why {
            Why::Picked => Self::Up,
            Why::Ramping => Self::Ramping,
            Why::Panic { .. } => Self::Panic,
            Why::Spare => Self::Spare,
            Why::Named => Self::Named,
            Why::OnTrial => Self::OnTrial,
            Why::Ejected { .. } => Self::Ejected,
            Why::CheckFailed { .. } => Self::CheckFailed,
            Why::Weightless => Self::Weightless,
            Why::NotInSubset => Self::NotInSubset,
            Why::Status => match verdict.status {
                Status::Draining => Self::Draining,
                Status::Starting => Self::Starting,
                Status::Down | Status::Up => Self::Down,
            },
        }
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Ramping => "ramping",
            Self::Panic => "panic",
            Self::Spare => "spare",
            Self::Named => "named",
            Self::OnTrial => "on trial",
            Self::Ejected => "ejected",
            Self::CheckFailed => "check failed",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Weightless => "weight 0",
            Self::NotInSubset => "not in subset",
        })
    }
}
