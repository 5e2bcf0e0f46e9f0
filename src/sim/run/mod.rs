//! The simulation itself.

mod deploy;

use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::load::LoadReport;
use crate::rng::Rng;
use crate::sim::client::Client;
use crate::sim::queue::Queue;
use crate::sim::server::{Said, Server};
use crate::sim::service::{exponential, unit};
use crate::sim::{Fleet, MILLISECOND, Report, SECOND};
use crate::stats::Outcome;
use crate::strategy::Strategy;
use crate::sync::Lease;
use crate::time::Timestamp;
use crate::view::View;

/// Who chooses the server of a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rule {
    /// A strategy, which knows what its client knows.
    Of(Box<dyn Strategy>),
    /// The shortest true queue of so many servers, drawn without replacement.
    Oracle(u32),
    /// The shortest true queue of all; of equals, the first from a random
    /// position on.
    Shortest,
}

impl Rule {
    /// A strategy.
    pub fn of(strategy: impl Strategy) -> Self {
        Self::Of(Box::new(strategy))
    }
}

/// Simulates the fleet under the rule; the same seed gives the same report.
///
/// O(log n) an event, of which a call has four or five, with n the calls under way.
///
/// # Errors
///
/// When a field of the fleet holds what cannot be; the error names it.
pub fn run(fleet: &Fleet, rule: &Rule, seed: u64) -> Result<Report, Error> {
    fleet.check()?;
    let mut simulation = Simulation::new(fleet, rule, seed)?;
    simulation.go();
    Ok(simulation.report)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Received {
        call: u32,
    },
    Done {
        call: u32,
    },
    Answered {
        call: u32,
    },
    Asked {
        client: u32,
        server: u32,
    },
    Told {
        client: u32,
        server: u32,
        said: Said,
    },
    Timeout {
        call: u32,
        number: u64,
    },
    Flip {
        server: u32,
    },
    Leaves {
        server: u32,
    },
    Back {
        server: u32,
    },
    Hears {
        client: u32,
    },
    Ramp,
    Sample,
}

struct Call {
    number: u64,
    client: u32,
    server: u32,
    sent: u64,
    settled: bool,
    refused: bool,
    /// When it came to its server, and what that held then.
    came: (u64, u32),
    /// What its server said when it had done with it.
    said: Said,
}

struct Simulation<'a> {
    fleet: &'a Fleet,
    rule: &'a Rule,
    rng: Rng,
    lease: Lease,
    now: u64,
    events: Queue<Event>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    /// Those that are up, ascending.
    up: Arc<[u32]>,
    calls: Vec<Call>,
    free: Vec<u32>,
    made: u64,
    report: Report,
    /// Whether the rule goes by reports, and the servers send them.
    reports: bool,
    by_latency: bool,
    /// Probes that are owed, of those that calls bring.
    owed: f64,
    /// The report under way, used again for each.
    report_read: LoadReport,
}

/// Moments at which the servers' load is taken down: as many as a picture shows.
const SAMPLES: u32 = 200;

impl<'a> Simulation<'a> {
    fn new(fleet: &'a Fleet, rule: &'a Rule, seed: u64) -> Result<Self, Error> {
        let mut rng = Rng::seeded(seed);
        let mut clients = Vec::new();
        let up: Arc<[u32]> = (0..fleet.servers).collect();
        let strategy = match rule {
            Rule::Of(strategy) => Some(strategy),
            Rule::Oracle(_) | Rule::Shortest => None,
        };
        if let Some(strategy) = strategy {
            let endpoints: Vec<Endpoint> = (0..fleet.servers)
                .map(|server| Endpoint::at(format!("server-{server:07}:80").as_str()))
                .collect::<Result<_, _>>()?;
            clients.extend((0..fleet.clients).map(|_| {
                let all = View::standalone(endpoints.iter().cloned());
                Client::new(all, Arc::clone(&up), strategy, &mut rng)
            }));
        }
        let reports = fleet.reports && strategy.is_some_and(Strategy::reads_reports);
        let servers = (0..fleet.servers).map(|_| Server::new(fleet, reports));
        Ok(Self {
            fleet,
            rule,
            rng,
            lease: Lease::take(),
            now: 0,
            events: Queue::new(),
            clients,
            servers: servers.collect(),
            up,
            calls: Vec::new(),
            free: Vec::new(),
            made: 0,
            report: Report::new(fleet.servers),
            reports,
            by_latency: strategy.is_some_and(Strategy::reads_latency),
            owed: 0.0,
            report_read: LoadReport::default(),
        })
    }

    fn go(&mut self) {
        self.events.push(0, Event::Arrival);
        if let Some(antagonist) = &self.fleet.antagonist {
            for server in 0..self.fleet.servers {
                let first = exponential(&mut self.rng) * antagonist.quiet_seconds * SECOND;
                self.events.push(first as u64, Event::Flip { server });
            }
        }
        if let Some(deploy) = &self.fleet.deploy {
            for server in 0..self.fleet.servers {
                let after = deploy.every_seconds * f64::from(server);
                let at = (deploy.from_seconds + after) * SECOND;
                self.events.push(at as u64, Event::Leaves { server });
            }
        }
        // What comes after the last arrival and answer is of no interest.
        let end = self.end();
        for sample in 0..=SAMPLES {
            let at = end as f64 / f64::from(SAMPLES) * f64::from(sample);
            self.events.push(at as u64, Event::Sample);
        }
        while let Some((at, event)) = self.events.pop() {
            self.now = at;
            self.report.events += 1;
            match event {
                Event::Arrival => self.arrival(),
                Event::Received { call } => self.received(call),
                Event::Done { call } => self.done(call),
                Event::Answered { call } => self.answered(call),
                Event::Asked { client, server } => self.asked(client, server),
                Event::Told {
                    client,
                    server,
                    said,
                } => self.told(client, server, said),
                Event::Timeout { call, number } => self.timeout(call, number),
                Event::Flip { server } if at < end => self.flip(server),
                Event::Leaves { server } if at < end => self.leaves(server),
                Event::Flip { .. } | Event::Leaves { .. } => {}
                Event::Back { server } => self.back(server),
                Event::Hears { client } => self.hears(client),
                Event::Ramp => self.ramp(),
                Event::Sample => self.sample(),
            }
        }
        self.report.close();
    }

    fn end(&self) -> u64 {
        (self.fleet.seconds * SECOND) as u64
    }

    /// Poisson at the rate of a burst, of which a share is taken outside one.
    fn arrival(&mut self) {
        let fleet = self.fleet;
        let capacity =
            f64::from(fleet.servers) * f64::from(fleet.workers) / (fleet.service_ms * MILLISECOND);
        let peak = fleet.burst.map_or(1.0, |burst| burst.factor);
        let gap = exponential(&mut self.rng) / (fleet.load * capacity * peak);
        let at = self.after(gap);
        if at >= self.end() {
            return;
        }
        self.events.push(at, Event::Arrival);
        let quiet = fleet.burst.is_some_and(|burst| {
            (self.now as f64 / SECOND) % burst.period_seconds >= burst.seconds
        });
        if !quiet || unit(&mut self.rng) <= 1.0 / peak {
            self.send();
        }
    }

    fn send(&mut self) {
        let client = self.rng.below(self.fleet.clients);
        let Some(server) = self.pick(client) else {
            return;
        };
        self.made += 1;
        let made = Call {
            number: self.made,
            client,
            server,
            sent: self.now,
            settled: false,
            refused: false,
            came: (0, 0),
            said: Said::default(),
        };
        let call = match self.free.pop() {
            Some(call) => {
                self.calls[call as usize] = made;
                call
            }
            None => {
                self.calls.push(made);
                (self.calls.len() - 1) as u32
            }
        };
        if let Some(ms) = self.fleet.timeout_ms {
            let number = self.made;
            let at = self.after(ms * MILLISECOND);
            self.events.push(at, Event::Timeout { call, number });
        }
        let at = self.after(self.one_way());
        self.events.push(at, Event::Received { call });
        if self.reports {
            self.probe(client, at);
        }
    }

    fn probe(&mut self, client: u32, at: u64) {
        self.owed += self.fleet.probes;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let up = self.clients[client as usize].up();
            let server = up[self.rng.below(up.len() as u32) as usize];
            self.events.push(at, Event::Asked { client, server });
        }
    }

    /// Whether a server says how busy it is.
    fn tells(&self, server: u32) -> bool {
        self.reports && server < self.fleet.servers.saturating_sub(self.fleet.silent)
    }

    fn asked(&mut self, client: u32, server: u32) {
        if self.refuses(server, self.now) || !self.tells(server) {
            return;
        }
        let said = self.look(server);
        let at = self.after(self.one_way());
        let told = Event::Told {
            client,
            server,
            said,
        };
        self.events.push(at, told);
    }

    fn told(&mut self, client: u32, server: u32, said: Said) {
        said.write(&mut self.report_read);
        let stats = self.clients[client as usize].stats(server);
        stats.told(&self.report_read, Timestamp::from_nanos(self.now));
    }

    /// What the server says now, which it may have found out some time ago.
    fn look(&mut self, server: u32) -> Said {
        let lasts = (self.fleet.report_every_ms * MILLISECOND) as u64;
        self.servers[server as usize].look(lasts, self.now)
    }

    fn pick(&mut self, client: u32) -> Option<u32> {
        let up = &self.up;
        let servers = up.len() as u32;
        match self.rule {
            Rule::Of(_) => {
                let client = &mut self.clients[client as usize];
                client.pick(self.lease.slot(), Timestamp::from_nanos(self.now))
            }
            Rule::Oracle(choices) => {
                let mut drawn = Vec::with_capacity(*choices as usize);
                while drawn.len() < (*choices).clamp(1, servers) as usize {
                    let server = up[self.rng.below(servers) as usize];
                    if !drawn.contains(&server) {
                        drawn.push(server);
                    }
                }
                drawn.into_iter().min_by_key(|&server| self.queue(server))
            }
            Rule::Shortest => {
                let (before, from) = up.split_at(self.rng.below(servers) as usize);
                let all = from.iter().chain(before).copied();
                all.min_by_key(|&server| self.queue(server))
            }
        }
    }

    fn queue(&self, server: u32) -> usize {
        self.servers[server as usize].queue()
    }

    fn one_way(&self) -> f64 {
        self.fleet.round_trip_ms / 2.0 * MILLISECOND
    }

    /// So many nanoseconds from now. Slow upon slow may pass what `u64` holds.
    fn after(&self, nanos: f64) -> u64 {
        self.now.saturating_add(nanos as u64)
    }

    fn received(&mut self, call: u32) {
        let server = self.calls[call as usize].server;
        if self.refuses(server, self.calls[call as usize].sent) {
            self.calls[call as usize].refused = true;
            let at = self.after(self.one_way());
            self.events.push(at, Event::Answered { call });
            return;
        }
        self.calls[call as usize].came = (self.now, self.queue(server) as u32);
        let server = &mut self.servers[server as usize];
        if server.take(call, self.fleet.workers, self.now) {
            self.work(call);
        }
    }

    fn work(&mut self, call: u32) {
        let fleet = self.fleet;
        let server = self.calls[call as usize].server;
        let ms = if self.fails(server) {
            fleet.failing_ms.unwrap_or_default()
        } else {
            fleet.service_ms * fleet.service.draw(&mut self.rng) * self.slowness(server)
        };
        if self.is_counted(self.calls[call as usize].sent) {
            self.report.work_ms += ms;
        }
        let at = self.after(ms * MILLISECOND);
        self.events.push(at, Event::Done { call });
    }

    fn fails(&self, server: u32) -> bool {
        server == 0 && self.fleet.failing_ms.is_some()
    }

    fn slowness(&self, server: u32) -> f64 {
        let seconds = self.now as f64 / SECOND;
        let slow = self.fleet.slow.filter(|slow| {
            server < slow.servers && (slow.from_seconds..slow.until_seconds).contains(&seconds)
        });
        let own = self.servers[server as usize].slowness(self.fleet, self.now);
        slow.map_or(1.0, |slow| slow.factor) * own
    }

    fn done(&mut self, call: u32) {
        let Call { server, came, .. } = self.calls[call as usize];
        let failed = self.fails(server);
        let next = self.servers[server as usize].finish(came, failed, self.now);
        if let Some(next) = next {
            self.work(next);
        }
        if self.reports {
            self.calls[call as usize].said = self.look(server);
        }
        let at = self.after(self.one_way());
        self.events.push(at, Event::Answered { call });
    }

    fn answered(&mut self, call: u32) {
        let outcome = if self.calls[call as usize].refused {
            Outcome::NotSent
        } else if self.fails(self.calls[call as usize].server) {
            Outcome::ServerError
        } else {
            Outcome::Success
        };
        self.settle(call, outcome);
        self.free.push(call);
    }

    /// The server works on: it does not know that nobody waits.
    fn timeout(&mut self, call: u32, number: u64) {
        if self.calls[call as usize].number == number {
            self.settle(call, Outcome::TimedOut);
        }
    }

    fn settle(&mut self, call: u32, outcome: Outcome) {
        let call = &mut self.calls[call as usize];
        if std::mem::replace(&mut call.settled, true) {
            return;
        }
        let took = self.now - call.sent;
        let (client, server, sent, said) = (call.client, call.server, call.sent, call.said);
        let tells = self.tells(server) && outcome.is_answer();
        if tells {
            said.write(&mut self.report_read);
        }
        if let Some(client) = self.clients.get(client as usize) {
            let stats = client.stats(server);
            let now = Timestamp::from_nanos(self.now);
            if tells {
                stats.reported(&self.report_read, now);
            }
            stats.end(self.lease.slot(), outcome);
            let gauges = stats.gauges();
            gauges.ended(took, outcome, self.by_latency, now);
        }
        if self.is_counted(sent) {
            self.report.add(server, took, outcome);
        }
    }

    /// Whether a call that was sent then is in the report.
    fn is_counted(&self, sent: u64) -> bool {
        sent as f64 >= self.fleet.warm_up_seconds * SECOND
    }

    fn sample(&mut self) {
        let calls = (0..self.fleet.servers).map(|server| self.queue(server) as u32);
        let calls = calls.collect();
        self.report.sample(self.now as f64 / SECOND, calls);
    }

    fn flip(&mut self, server: u32) {
        let Some(antagonist) = self.fleet.antagonist else {
            return;
        };
        let mean = if self.servers[server as usize].flip() {
            antagonist.slow_seconds
        } else {
            antagonist.quiet_seconds
        };
        let lasts = exponential(&mut self.rng) * mean * SECOND;
        let at = self.after(lasts);
        self.events.push(at, Event::Flip { server });
    }
}
