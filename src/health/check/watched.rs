//! The endpoints of one balancer, as probes see them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::HealthCheck;
use super::machine::Health;
use super::prober::{Series, Wake};
use super::traffic::Traffic;
use crate::endpoint::{Endpoint, EndpointId, EndpointSet};
use crate::error::Error;
use crate::stats::EndpointStats;

/// What probes say of the endpoints of a set.
pub(crate) struct Watched {
    check: HealthCheck,
    runtime: Handle,
    wake: Arc<Wake>,
    traffic: Arc<Traffic>,
    endpoints: HashMap<EndpointId, One>,
}

struct One {
    endpoint: Arc<Endpoint>,
    series: Arc<Series>,
    /// How many probes it had passed when it was found ejected.
    passes: Option<u64>,
}

impl Watched {
    pub(crate) fn new(check: HealthCheck, wake: Arc<Wake>) -> Result<Self, Error> {
        check.validate()?;
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime("a health check"))?;
        Ok(Self {
            check,
            runtime,
            wake,
            traffic: Arc::default(),
            endpoints: HashMap::new(),
        })
    }

    /// Probes the endpoints of that set, whose stats come in any order, and no
    /// others.
    pub(crate) fn follow(&mut self, set: &EndpointSet, stats: &[EndpointStats]) {
        self.traffic.follow(stats);
        let mut before = std::mem::take(&mut self.endpoints);
        for endpoint in set {
            let known = before.remove(endpoint.id());
            let same = |one: &One| {
                one.endpoint.address() == endpoint.address()
                    && one.endpoint.tls_name() == endpoint.tls_name()
                    && one.endpoint.authority() == endpoint.authority()
            };
            let one = known.filter(same).unwrap_or_else(|| One {
                endpoint: Arc::clone(endpoint),
                series: Series::join(
                    &self.check,
                    endpoint,
                    &self.runtime,
                    &self.wake,
                    &self.traffic,
                ),
                passes: None,
            });
            self.endpoints.insert(endpoint.id().clone(), one);
        }
    }

    pub(crate) fn keeps_absent(&self) -> bool {
        self.check.keeps_absent
    }

    pub(crate) fn passes(&self, id: &EndpointId) -> bool {
        self.health(id) == Health::Passing
    }

    /// Why an endpoint fails, if it does.
    pub(crate) fn fails(&self, id: &EndpointId) -> Option<Arc<str>> {
        let one = self.endpoints.get(id)?;
        (one.series.health() == Health::Failing).then(|| one.series.reason())
    }

    fn health(&self, id: &EndpointId) -> Health {
        let one = self.endpoints.get(id);
        one.map_or(Health::Unknown, |one| one.series.health())
    }

    /// Whether an endpoint has passed a probe since it was found ejected.
    pub(crate) fn passed_while_out(&mut self, id: &EndpointId, is_out: bool) -> bool {
        let Some(one) = self
            .endpoints
            .get_mut(id)
            .filter(|_| self.check.ends_ejection)
        else {
            return false;
        };
        if !is_out {
            one.passes = None;
            return false;
        }
        let passes = one.series.passes();
        let before = *one.passes.get_or_insert(passes);
        if passes == before {
            one.series.await_pass();
        }
        passes > before
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("check", &self.check)
            .field("endpoints", &self.endpoints.len())
            .finish_non_exhaustive()
    }
}
