//! Any service by name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, time};
use crate::balancer::Balancer;
use crate::client::{CallSettings, Directory};
use crate::error::Error;

/// A [`Directory`]: what idle balancers and how many may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectoryConfig {
    /// How long a balancer that nobody asks for is kept.
    #[serde(with = "time")]
    pub idle: Duration,
    /// How many services are served at once.
    pub max_services: usize,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(10),
            max_services: 1_024,
        }
    }
}

impl Config {
    /// A directory in the place of one balancer: every service has the registry and the settings of
    /// this configuration, whose own `service` stays unset. And the settings of calls.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), without the registry's own first answer.
    pub fn directory(&self) -> Result<(Directory, CallSettings), Error> {
        if !self.service.is_empty() {
            let reason = "a directory serves any service, by the name in a URL; leave it out, or \
                          build a balancer";
            return Err(Error::config("service", reason));
        }
        let calls = self.settings()?;
        let builder = Directory::builder(self.opened()?)
            .clock(self.clock()?)
            .idle(self.directory.idle)
            .max_services(self.directory.max_services);
        let config = self.clone();
        let balancers = move |builder| config.set_up(builder);
        // What cannot be is told now, and not at the first call.
        drop(balancers(Balancer::builder("any"))?);
        Ok((builder.balancers(balancers).build(), calls))
    }
}
