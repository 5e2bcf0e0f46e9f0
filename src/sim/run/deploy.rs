//! A rolling deploy: servers leave and are back, and clients hear of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Event, Rule, Simulation};
use crate::health::slow_start::SlowStart;
use crate::sim::SECOND;
use crate::sim::service::unit;

impl Simulation<'_> {
    pub(super) fn leaves(&mut self, server: u32) {
        let Some(deploy) = self.fleet.deploy else {
            return;
        };
        // The last one stays, whatever the plan: somebody has to answer.
        if self.up.len() > 1 {
            self.up = self.up.iter().copied().filter(|&up| up != server).collect();
            self.servers[server as usize].leave(self.now);
            self.tell_clients();
            let at = self.after(deploy.away_seconds * SECOND);
            self.events.push(at, Event::Back { server });
        }
    }

    pub(super) fn back(&mut self, server: u32) {
        let deploy = self.fleet.deploy.unwrap_or_default();
        let cold_until = self.after(deploy.cold_seconds * SECOND);
        self.servers[server as usize].come_back(cold_until, self.now);
        let at = self.up.partition_point(|&up| up < server);
        let (before, behind) = self.up.split_at(at);
        self.up = before
            .iter()
            .chain(&[server])
            .chain(behind)
            .copied()
            .collect();
        self.tell_clients();
        for second in 1..=deploy.slow_start_seconds.ceil() as u32 {
            let at = self.after(f64::from(second) * SECOND);
            if at >= self.end() {
                break;
            }
            self.events.push(at, Event::Ramp);
        }
    }

    /// Whether a server is away and takes no calls that are sent then.
    pub(super) fn refuses(&self, server: u32, sent: u64) -> bool {
        let grace = self.fleet.deploy.map_or(0.0, |deploy| deploy.grace_seconds);
        self.servers[server as usize].refuses(sent, grace)
    }

    /// That the set has changed, now or later.
    fn tell_clients(&mut self) {
        let heard = self.fleet.deploy.map_or(0.0, |deploy| deploy.heard_seconds);
        for client in 0..self.clients.len() as u32 {
            if heard > 0.0 {
                let late = unit(&mut self.rng) * heard * SECOND;
                let at = self.after(late);
                self.events.push(at, Event::Hears { client });
            } else {
                self.hears(client);
            }
        }
    }

    pub(super) fn hears(&mut self, client: u32) {
        self.clients[client as usize].hear(&self.up);
        self.build(client as usize);
    }

    /// Weights have grown.
    pub(super) fn ramp(&mut self) {
        for client in 0..self.clients.len() {
            self.build(client);
        }
    }

    fn build(&mut self, client: usize) {
        if let Rule::Of(strategy) = self.rule {
            let weights = self.weights(self.clients[client].up());
            self.clients[client].build(weights, strategy);
        }
    }

    /// In thousandths, where one of these servers has less than its whole weight.
    fn weights(&self, servers: &[u32]) -> Option<Arc<[u32]>> {
        let window = self.fleet.deploy?.slow_start_seconds;
        if window <= 0.0 {
            return None;
        }
        let ramp = SlowStart::new(Duration::from_secs_f64(window));
        let weight = |&server: &u32| self.servers[server as usize].weight(&ramp, self.now);
        let weights: Arc<[u32]> = servers.iter().map(weight).collect();
        weights
            .iter()
            .any(|&weight| weight < 1_000)
            .then_some(weights)
    }
}
