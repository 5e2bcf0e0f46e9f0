//! Events for `tracing`.

use futures::StreamExt as _;
use tracing::{debug, info, trace, warn};

use crate::balancer::Balancer;
use crate::endpoint::ServiceName;
use crate::event::{CallEvent, Discovery, Observer};

/// Tells `tracing` of each call: every attempt and its end at trace level,
/// retries and hedges at debug, calls that were refused at warn. The target is
/// `waypost::call`.
///
/// Headers, bodies and metadata are never part of an event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traced;

impl Observer for Traced {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        match event {
            CallEvent::Picked { endpoint, attempt } => {
                trace!(target: "waypost::call", %service, endpoint = %endpoint.id(), attempt, "picked");
            }
            CallEvent::Ended {
                endpoint,
                outcome,
                took,
            } => {
                trace!(target: "waypost::call", %service, endpoint = %endpoint.id(), ?outcome, ?took, "ended");
            }
            CallEvent::Retried { attempt, pause } => {
                debug!(target: "waypost::call", %service, attempt, ?pause, "retried");
            }
            CallEvent::RetryRefused => {
                debug!(target: "waypost::call", %service, "not retried: the budget is spent");
            }
            CallEvent::Hedged { after } => {
                debug!(target: "waypost::call", %service, ?after, "hedged");
            }
            CallEvent::Refused { error } => {
                warn!(target: "waypost::call", %service, %error, "refused");
            }
        }
    }
}

/// Tells `tracing` of each change of the set and of its freshness, at info
/// level and with the target `waypost::set`, until the balancer is gone. To be
/// spawned.
pub async fn trace_changes(balancer: &Balancer) {
    let service = balancer.service().clone();
    let mut snapshots = balancer.subscribe();
    while let Some(snapshot) = snapshots.next().await {
        let (endpoints, eligible) = (snapshot.set.len(), snapshot.eligible);
        match snapshot.discovery {
            Discovery::Fresh => {
                info!(target: "waypost::set", %service, endpoints, eligible, "the set is fresh");
            }
            Discovery::Stale { error, .. } => {
                warn!(target: "waypost::set", %service, endpoints, eligible, %error, "the set is stale");
            }
            Discovery::Unknown { error: Some(error) } => {
                warn!(target: "waypost::set", %service, %error, "nothing is known yet");
            }
            Discovery::Unknown { error: None } => {
                info!(target: "waypost::set", %service, "nothing is known yet");
            }
        }
    }
}
