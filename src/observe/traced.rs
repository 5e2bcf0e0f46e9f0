//! Events for `tracing`.

use futures::StreamExt as _;
use futures::stream::select;
use tracing::field::{Empty, display};
use tracing::{Span, debug, info, info_span, trace, warn};

use super::name_of;
use crate::balancer::Balancer;
use crate::endpoint::ServiceName;
use crate::event::{CallEvent, CallScope, Discovery, Event, Observer, Snapshot};

/// Tells `tracing` of each call, with the target `waypost::call`: one span a call
/// at info level, and in it every attempt and its end at trace level, retries and
/// hedges at debug, and calls that were refused at warn.
///
/// The span `call` has the fields `service`, `method`, and, once the head of the
/// answer is there, `endpoint` and `outcome` of the last attempt and the number
/// of `attempts`. What the client below tells of the call is in it, too. A call
/// that was given up has no outcome.
///
/// Headers, bodies, URLs and metadata are never part of any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traced;

struct CallSpan(Span);

impl CallScope for CallSpan {
    fn within(&self, step: &mut dyn FnMut()) {
        self.0.in_scope(step);
    }

    fn told(&self, event: CallEvent<'_>) {
        match event {
            CallEvent::Done {
                endpoint,
                attempts,
                outcome,
                ..
            } => {
                self.0.record("endpoint", display(endpoint.id()));
                self.0.record("attempts", attempts);
                self.0.record("outcome", name_of(outcome));
            }
            CallEvent::Refused { .. } => {
                self.0.record("outcome", "refused");
            }
            _ => {}
        }
    }
}

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
            // The span's.
            CallEvent::Done { .. } => {}
            CallEvent::Refused { error } => {
                warn!(target: "waypost::call", %service, %error, "refused");
            }
        }
    }

    fn scope(&self, service: &ServiceName, method: &str) -> Option<Box<dyn CallScope>> {
        let span = info_span!(
            target: "waypost::call", "call", %service, method,
            endpoint = Empty, attempts = Empty, outcome = Empty,
        );
        let is_on = !span.is_disabled();
        is_on.then(|| -> Box<dyn CallScope> { Box::new(CallSpan(span)) })
    }
}

/// Tells `tracing` of each change, until the balancer is gone, which this does
/// not hold: of the set and its freshness with the target `waypost::set`, of
/// endpoints that are ejected, tried and let back and of how calls are spread
/// with the target `waypost::health`; at info level, or at warn what is worse
/// than before. To be spawned.
pub fn trace_changes(balancer: &Balancer) -> impl Future<Output = ()> + Send + use<> {
    let service = balancer.service().clone();
    let mut changes = select(
        balancer.subscribe().map(Change::Set),
        balancer.events().map(Change::Health),
    );
    async move {
        while let Some(change) = changes.next().await {
            match change {
                Change::Set(snapshot) => trace_set(&service, &snapshot),
                Change::Health(event) => trace_health(&service, &event),
            }
        }
    }
}

enum Change {
    Set(Snapshot),
    Health(Event),
}

fn trace_set(service: &ServiceName, snapshot: &Snapshot) {
    let (endpoints, eligible) = (snapshot.set.len(), snapshot.eligible);
    match &snapshot.discovery {
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

fn trace_health(service: &ServiceName, event: &Event) {
    match event {
        Event::Ejected {
            endpoint, cause, ..
        } => warn!(target: "waypost::health", %service, %endpoint, %cause, "ejected"),
        Event::CheckFailed { endpoint, reason } => {
            warn!(target: "waypost::health", %service, %endpoint, reason, "fails its health check");
        }
        Event::PanicEntered { priority } => {
            warn!(target: "waypost::health", %service, priority, "so much is ill that it is not believed");
        }
        Event::OnTrial { endpoint } => {
            info!(target: "waypost::health", %service, %endpoint, "gets one trial call");
        }
        Event::Admitted { endpoint } => {
            info!(target: "waypost::health", %service, %endpoint, "is ejected no longer");
        }
        Event::CheckPassed { endpoint } => {
            info!(target: "waypost::health", %service, %endpoint, "passes its health check");
        }
        Event::PanicLeft { priority } => {
            info!(target: "waypost::health", %service, priority, "health is believed again");
        }
        Event::Loads { loads } => {
            info!(target: "waypost::health", %service, ?loads, "calls are spread anew");
        }
    }
}
