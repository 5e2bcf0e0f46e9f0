//! Counters and histograms for the `metrics` facade.

use futures::StreamExt as _;
use metrics::{counter, gauge, histogram};

use super::{EndpointState, Freshness, Report, name_of};
use crate::balancer::Balancer;
use crate::endpoint::{EndpointId, ServiceName};
use crate::event::{CallEvent, Event, Observer};

/// Counts each call, by service and, when asked, by endpoint.
///
/// | name | kind | labels | counts |
/// | --- | --- | --- | --- |
/// | `waypost_attempts_total` | counter | service, (endpoint) | attempts sent |
/// | `waypost_attempt_seconds` | histogram | service, outcome, (endpoint) | their time to the head of the answer |
/// | `waypost_call_seconds` | histogram | service, outcome | calls, to the head of the answer, with all attempts and pauses |
/// | `waypost_retries_total` | counter | service | retries |
/// | `waypost_retries_refused_total` | counter | service | retries for which there was no budget |
/// | `waypost_hedges_total` | counter | service | hedges |
/// | `waypost_refused_total` | counter | service | calls that were not sent at all |
/// | `waypost_ejections_total` | counter | service, (endpoint) | ejections, by [`Metered::follow`] |
/// | `waypost_endpoints` | gauge | service, state (`known`, `eligible`, `ejected`, `check_failed`) | endpoints, by [`Metered::gauges`] |
/// | `waypost_in_flight` | gauge | service | calls in flight, by [`Metered::gauges`] |
/// | `waypost_stale` | gauge | service | 1 while the set is stale or unknown, by [`Metered::gauges`] |
#[derive(Clone, Copy, Debug, Default)]
pub struct Metered {
    endpoints: bool,
}

impl Metered {
    /// By endpoint too: as many series as there are endpoints.
    #[must_use]
    pub const fn by_endpoint(mut self) -> Self {
        self.endpoints = true;
        self
    }

    /// Sets the gauges of a balancer, as often as it is called: before each
    /// scrape, say.
    pub fn gauges(balancer: &Balancer) {
        let service = balancer.service().to_string();
        let report = Report::of(balancer);
        let in_state = |state| {
            let endpoints = report.endpoints.iter();
            endpoints.filter(|one| one.state == state).count()
        };
        for (state, count) in [
            ("known", report.endpoints.len()),
            ("eligible", report.eligible),
            ("ejected", in_state(EndpointState::Ejected)),
            ("check_failed", in_state(EndpointState::CheckFailed)),
        ] {
            gauge!("waypost_endpoints", "service" => service.clone(), "state" => state)
                .set(count as f64);
        }
        let stale = f64::from(u8::from(report.discovery != Freshness::Fresh));
        gauge!("waypost_in_flight", "service" => service.clone()).set(report.in_flight);
        gauge!("waypost_stale", "service" => service).set(stale);
    }

    /// Counts the ejections of a balancer until it is gone, which this does not
    /// hold. To be spawned.
    pub fn follow(self, balancer: &Balancer) -> impl Future<Output = ()> + Send + use<> {
        let service = balancer.service().clone();
        let mut events = balancer.events();
        async move {
            while let Some(event) = events.next().await {
                if let Event::Ejected { endpoint, .. } = event {
                    let labels = self.labels(&service, &endpoint);
                    counter!("waypost_ejections_total", labels).increment(1);
                }
            }
        }
    }

    fn labels(self, service: &ServiceName, endpoint: &EndpointId) -> Vec<metrics::Label> {
        let mut labels = vec![metrics::Label::new("service", service.to_string())];
        if self.endpoints {
            labels.push(metrics::Label::new("endpoint", endpoint.to_string()));
        }
        labels
    }
}

impl Observer for Metered {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        let count = |name| counter!(name, "service" => service.to_string()).increment(1);
        match event {
            CallEvent::Picked { endpoint, .. } => {
                let labels = self.labels(service, endpoint.id());
                counter!("waypost_attempts_total", labels).increment(1);
            }
            CallEvent::Ended {
                endpoint,
                outcome,
                took,
            } => {
                let mut labels = self.labels(service, endpoint.id());
                labels.push(metrics::Label::from_static_parts(
                    "outcome",
                    name_of(outcome),
                ));
                histogram!("waypost_attempt_seconds", labels).record(took);
            }
            CallEvent::Done { outcome, took, .. } => {
                let (service, outcome) = (service.to_string(), name_of(outcome));
                histogram!("waypost_call_seconds", "service" => service, "outcome" => outcome)
                    .record(took);
            }
            CallEvent::Retried { .. } => count("waypost_retries_total"),
            CallEvent::RetryRefused => count("waypost_retries_refused_total"),
            CallEvent::Hedged { .. } => count("waypost_hedges_total"),
            CallEvent::Refused { .. } => count("waypost_refused_total"),
        }
    }
}
