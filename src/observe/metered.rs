//! Counters and histograms for the `metrics` facade.

use metrics::{counter, gauge, histogram};

use crate::balancer::Balancer;
use crate::endpoint::{Endpoint, ServiceName};
use crate::event::{CallEvent, Observer};
use crate::stats::Outcome;

/// Counts each call, by service and, when asked, by endpoint.
///
/// | name | kind | labels | counts |
/// | --- | --- | --- | --- |
/// | `waypost_attempts_total` | counter | service, (endpoint) | attempts sent |
/// | `waypost_attempt_seconds` | histogram | service, outcome, (endpoint) | their time to the head of the answer |
/// | `waypost_retries_total` | counter | service | retries |
/// | `waypost_retries_refused_total` | counter | service | retries for which there was no budget |
/// | `waypost_hedges_total` | counter | service | hedges |
/// | `waypost_refused_total` | counter | service | calls that were not sent at all |
/// | `waypost_endpoints` | gauge | service, state (`known`, `eligible`) | endpoints, by [`Metered::gauges`] |
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
        let nodes = balancer.nodes();
        let eligible = nodes.iter().filter(|node| node.endpoint().takes_calls());
        let eligible = eligible.count() as f64;
        let in_flight: u32 = nodes.iter().map(|node| node.stats().in_flight()).sum();
        let stale = f64::from(u8::from(!balancer.discovery().is_fresh()));
        let known = nodes.len() as f64;
        gauge!("waypost_endpoints", "service" => service.clone(), "state" => "known").set(known);
        gauge!("waypost_endpoints", "service" => service.clone(), "state" => "eligible")
            .set(eligible);
        gauge!("waypost_in_flight", "service" => service.clone()).set(in_flight);
        gauge!("waypost_stale", "service" => service).set(stale);
    }

    fn labels(self, service: &ServiceName, endpoint: &Endpoint) -> Vec<metrics::Label> {
        let mut labels = vec![metrics::Label::new("service", service.to_string())];
        if self.endpoints {
            labels.push(metrics::Label::new("endpoint", endpoint.id().to_string()));
        }
        labels
    }
}

impl Observer for Metered {
    fn call(&self, service: &ServiceName, event: CallEvent<'_>) {
        let count = |name| counter!(name, "service" => service.to_string()).increment(1);
        match event {
            CallEvent::Picked { endpoint, .. } => {
                let labels = self.labels(service, endpoint);
                counter!("waypost_attempts_total", labels).increment(1);
            }
            CallEvent::Ended {
                endpoint,
                outcome,
                took,
            } => {
                let mut labels = self.labels(service, endpoint);
                labels.push(metrics::Label::from_static_parts("outcome", name(outcome)));
                histogram!("waypost_attempt_seconds", labels).record(took);
            }
            CallEvent::Retried { .. } => count("waypost_retries_total"),
            CallEvent::RetryRefused => count("waypost_retries_refused_total"),
            CallEvent::Hedged { .. } => count("waypost_hedges_total"),
            CallEvent::Refused { .. } => count("waypost_refused_total"),
        }
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ServerError => "server_error",
        Outcome::GatewayError => "gateway_error",
        Outcome::NotSent => "not_sent",
        Outcome::Interrupted => "interrupted",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
    }
}
