//! The simulation itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::estimate::Estimator;
use super::queue::Queue;
use super::service::{exponential, unit};
use super::{Fleet, Report};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::health::slow_start::SlowStart;
use crate::load::{BusyTime, LoadReport};
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::strategy::{BoxPicker, PickContext, PickOptions, Strategy};
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

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    /// Calls that it holds.
    held: u32,
    /// What one takes that comes now, in microseconds; 0 where it does not know.
    micros: u32,
    /// Calls that it answered in the last whole second, and those of them that failed.
    rate: u32,
    failures: u32,
    /// The share of its workers that was at work, in millionths.
    busy: u32,
}

struct Client {
    /// Of every server, those too that are away.
    all: View,
    /// Of those that are up, as far as it has heard.
    up: Arc<[u32]>,
    view: View,
    picker: BoxPicker,
    context: PickContext<'static>,
}

#[derive(Default)]
struct Server {
    waiting: VecDeque<u32>,
    busy: u32,
    disturbed: bool,
    /// Since when it is away, and when it was back.
    left: Option<u64>,
    back: Option<u64>,
    /// Until when it is slow after it was away.
    cold_until: u64,
    /// Where reports are read.
    estimator: Option<Estimator>,
    /// The second that is counted, calls answered and failed in it, and in the one before.
    second: u64,
    at_work: Option<BusyTime>,
    answered: [(u32, u32); 2],
    /// What it said last, and when it looked.
    said: Option<(u64, Said)>,
}

impl Server {
    fn count(&mut self, now: u64, failed: bool) {
        self.turn(now);
        self.answered[0].0 += 1;
        self.answered[0].1 += u32::from(failed);
    }

    fn turn(&mut self, now: u64) {
        let second = now / SECOND as u64;
        if second != self.second {
            let before = if second == self.second + 1 {
                self.answered[0]
            } else {
                (0, 0)
            };
            (self.second, self.answered) = (second, [(0, 0), before]);
        }
    }

    fn last_second(&self, now: u64) -> (u32, u32) {
        match now / SECOND as u64 - self.second {
            0 => self.answered[1],
            1 => self.answered[0],
            _ => (0, 0),
        }
    }
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

const SECOND: f64 = 1e9;
const MILLISECOND: f64 = 1e6;

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
                let view = View::standalone(endpoints.iter().cloned());
                let (own, cursor) = (Rng::seeded(rng.bits()), rng.bits() >> 1);
                Client {
                    picker: strategy.build(&view),
                    context: PickContext::new(own, cursor, &PickOptions::ANY),
                    all: view.clone(),
                    up: Arc::clone(&up),
                    view,
                }
            }));
        }
        let reports = fleet.reports && strategy.is_some_and(Strategy::reads_reports);
        let server = |_| Server {
            estimator: reports.then(|| Estimator::new(fleet.estimate)),
            at_work: reports.then(|| BusyTime::new(fleet.workers, Timestamp::default())),
            ..Server::default()
        };
        Ok(Self {
            fleet,
            rule,
            rng,
            lease: Lease::take(),
            now: 0,
            events: Queue::new(),
            clients,
            servers: (0..fleet.servers).map(server).collect(),
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
            let up = &self.clients[client as usize].up;
            let server = up[self.rng.below(up.len() as u32) as usize];
            self.events.push(at, Event::Asked { client, server });
        }
    }

    fn asked(&mut self, client: u32, server: u32) {
        if self.refuses(server, self.now) {
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
        self.write_report(said);
        let stats = self.clients[client as usize].all.node(server).stats();
        stats.told(&self.report_read, Timestamp::from_nanos(self.now));
    }

    /// What the server says now, which it may have found out some time ago.
    fn look(&mut self, server: u32) -> Said {
        let lasts = (self.fleet.report_every_ms * MILLISECOND) as u64;
        match self.servers[server as usize].said {
            Some((at, said)) if self.now < at.saturating_add(lasts) => said,
            _ => {
                let said = self.said(server);
                self.servers[server as usize].said = Some((self.now, said));
                said
            }
        }
    }

    fn said(&self, server: u32) -> Said {
        let at_work = self.servers[server as usize].at_work.as_ref();
        let busy = at_work.map_or(0.0, |it| it.share(Timestamp::from_nanos(self.now)));
        let (rate, failures) = self.servers[server as usize].last_second(self.now);
        let held = self.queue(server) as u32;
        let estimator = self.servers[server as usize].estimator.as_ref();
        let now = Timestamp::from_nanos(self.now);
        let latency = estimator.and_then(|estimator| estimator.estimate(held, now));
        Said {
            held,
            micros: latency.map_or(0, |latency| latency.as_micros() as u32),
            rate,
            failures,
            busy: (busy * 1e6) as u32,
        }
    }

    fn write_report(&mut self, said: Said) {
        let metrics = &mut self.report_read.named_metrics;
        let held = metrics.entry(LoadReport::IN_FLIGHT.to_owned());
        *held.or_default() = f64::from(said.held);
        let latency = metrics.entry(LoadReport::LATENCY_MS.to_owned());
        *latency.or_default() = f64::from(said.micros) / 1e3;
        // As `ReportLoad` has it with its limit.
        self.report_read.application_utilization = f64::from(said.busy) / 1e6;
        self.report_read.rps_fractional = f64::from(said.rate);
        self.report_read.eps = f64::from(said.failures);
    }

    fn pick(&mut self, client: u32) -> Option<u32> {
        let up = &self.up;
        let servers = up.len() as u32;
        match self.rule {
            Rule::Of(_) => {
                let Client {
                    up,
                    view,
                    picker,
                    context,
                    ..
                } = &mut self.clients[client as usize];
                context.set_now(Timestamp::from_nanos(self.now));
                let index = picker.pick(context)?;
                let server = *up.get(index as usize)?;
                view.begin(index, self.lease.slot());
                Some(server)
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
        let server = &self.servers[server as usize];
        server.waiting.len() + server.busy as usize
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
        let now = Timestamp::from_nanos(self.now);
        let state = &mut self.servers[server as usize];
        if let Some(at_work) = &state.at_work {
            at_work.begin(now);
        }
        if state.busy == self.fleet.workers {
            state.waiting.push_back(call);
        } else {
            state.busy += 1;
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
        let antagonist = self.fleet.antagonist;
        let antagonist = antagonist.filter(|_| self.servers[server as usize].disturbed);
        let cold = self.fleet.deploy;
        let cold = cold.filter(|_| self.now < self.servers[server as usize].cold_until);
        slow.map_or(1.0, |slow| slow.factor)
            * antagonist.map_or(1.0, |other| other.factor)
            * cold.map_or(1.0, |deploy| deploy.cold_factor)
    }

    fn done(&mut self, call: u32) {
        let server = self.calls[call as usize].server;
        let state = &mut self.servers[server as usize];
        match state.waiting.pop_front() {
            Some(next) => self.work(next),
            None => state.busy -= 1,
        }
        let (came, beside) = self.calls[call as usize].came;
        let (fails, now) = (self.fails(server), Timestamp::from_nanos(self.now));
        if let Some(at_work) = &self.servers[server as usize].at_work {
            at_work.end(now);
        }
        if let Some(estimator) = &mut self.servers[server as usize].estimator
            && !fails
        {
            estimator.record(beside, Duration::from_nanos(self.now - came), now);
        }
        if self.reports {
            self.servers[server as usize].count(self.now, fails);
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
        if self.reports {
            self.write_report(said);
        }
        if let Some(client) = self.clients.get(client as usize) {
            let stats = client.all.node(server).stats();
            let now = Timestamp::from_nanos(self.now);
            if self.reports && outcome.is_answer() {
                stats.reported(&self.report_read, now);
            }
            stats.end(self.lease.slot(), outcome);
            let gauges = stats.gauges();
            gauges.ended(took, outcome, self.by_latency, now);
        }
        if sent as f64 >= self.fleet.warm_up_seconds * SECOND {
            self.report.add(server, took, outcome);
        }
    }

    fn leaves(&mut self, server: u32) {
        let Some(deploy) = self.fleet.deploy else {
            return;
        };
        // The last one stays, whatever the plan: somebody has to answer.
        if self.up.len() > 1 {
            self.up = self.up.iter().copied().filter(|&up| up != server).collect();
            self.servers[server as usize].left = Some(self.now);
            self.tell_clients();
            let at = self.after(deploy.away_seconds * SECOND);
            self.events.push(at, Event::Back { server });
        }
    }

    fn back(&mut self, server: u32) {
        let deploy = self.fleet.deploy.unwrap_or_default();
        let cold_until = self.after(deploy.cold_seconds * SECOND);
        let state = &mut self.servers[server as usize];
        (state.left, state.back) = (None, Some(self.now));
        state.cold_until = cold_until;
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
            self.events.push(at, Event::Ramp);
        }
    }

    /// Whether a server is away and takes no calls that are sent then.
    fn refuses(&self, server: u32, sent: u64) -> bool {
        let grace = self.fleet.deploy.map_or(0.0, |deploy| deploy.grace_seconds);
        let left = self.servers[server as usize].left;
        left.is_some_and(|left| sent > left.saturating_add((grace * SECOND) as u64))
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

    /// As a balancer would: a view of those that are up, and the picker for it.
    fn hears(&mut self, client: u32) {
        self.clients[client as usize].up = Arc::clone(&self.up);
        self.build(client as usize);
    }

    /// Weights have grown.
    fn ramp(&mut self) {
        for client in 0..self.clients.len() {
            self.build(client);
        }
    }

    fn build(&mut self, client: usize) {
        let Rule::Of(strategy) = self.rule else {
            return;
        };
        let weights = self.weights(&self.clients[client].up);
        let client = &mut self.clients[client];
        client.view = client.all.of_some(&client.up);
        if let Some(weights) = weights {
            client.view = client.view.with_weights(weights);
        }
        client.picker = strategy.rebuild(&client.view, &*client.picker);
    }

    /// In thousandths, where one of these servers has less than its whole weight.
    fn weights(&self, servers: &[u32]) -> Option<Arc<[u32]>> {
        let window = self.fleet.deploy?.slow_start_seconds;
        if window <= 0.0 {
            return None;
        }
        let ramp = SlowStart::new(Duration::from_secs_f64(window));
        let weight = |&server: &u32| {
            let back = self.servers[server as usize].back;
            let factor = back.map_or(1.0, |back| {
                ramp.factor(Duration::from_nanos(self.now.saturating_sub(back)))
            });
            (1_000.0 * factor) as u32
        };
        let weights: Arc<[u32]> = servers.iter().map(weight).collect();
        weights
            .iter()
            .any(|&weight| weight < 1_000)
            .then_some(weights)
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
        let disturbed = &mut self.servers[server as usize].disturbed;
        *disturbed = !*disturbed;
        let mean = if *disturbed {
            antagonist.slow_seconds
        } else {
            antagonist.quiet_seconds
        };
        let lasts = exponential(&mut self.rng) * mean * SECOND;
        let at = self.after(lasts);
        self.events.push(at, Event::Flip { server });
    }
}
