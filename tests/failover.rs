//! No endpoint that is ill gets a call while a healthy one exists: the promises
//! of health and topology, each over many seeds, in virtual time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use waypost::balancer::Why;
use waypost::event::Event;
use waypost::health::outlier::OutlierEjection;
use waypost::health::slow_start::SlowStart;
use waypost::rng::Rng;
use waypost::strategy::{BlockHrw, Random, Rendezvous, RingHash, RoundRobin, Strategy, Tried};
use waypost::time::{Clock, Hands};
use waypost::topology::{Selector, Topology};
use waypost::{
    Balancer, BalancerBuilder, Endpoint, EndpointId, EndpointSet, Error, Outcome, Pick,
    PickOptions, Status, Updater,
};

const SEEDS: u64 = 1_000;

/// One client in virtual time, and the servers it calls.
struct World {
    balancer: Balancer,
    updater: Updater,
    hands: Hands,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Servers that refuse connections.
    ill: HashSet<String>,
    /// Calls by server, and those of them that failed.
    calls: BTreeMap<String, u64>,
    failed: u64,
}

impl World {
    fn new(set: EndpointSet, set_up: impl FnOnce(BalancerBuilder) -> BalancerBuilder) -> Self {
        let (clock, hands) = Clock::manual();
        let builder = Balancer::builder("users")
            .strategy(Random::new())
            .clock(clock);
        let (balancer, mut updater) = set_up(builder).manual().expect("the settings are right");
        updater.apply(set);
        Self {
            events: Box::pin(balancer.events()),
            balancer,
            updater,
            hands,
            ill: HashSet::new(),
            calls: BTreeMap::new(),
            failed: 0,
        }
    }

    /// Lets time pass, and the driver do what is due.
    fn pass(&mut self, time: Duration) {
        self.hands.advance(time);
        self.updater.look();
    }

    fn end(&mut self, pick: Pick) -> bool {
        let id = pick.id().as_str().to_owned();
        let ill = self.ill.contains(&id);
        *self.calls.entry(id).or_default() += 1;
        pick.finish(if ill {
            Outcome::NotSent
        } else {
            Outcome::Success
        });
        self.failed += u64::from(ill);
        // What a driver is woken for; a success of a trial call is one too.
        self.updater.look();
        !ill
    }

    fn call(&mut self) -> Result<bool, Error> {
        let pick = self.balancer.pick()?;
        Ok(self.end(pick))
    }

    fn happened(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.next().now_or_never().flatten()).collect()
    }

    fn why(&self, id: &str) -> Why {
        let endpoints = self.balancer.explain().endpoints;
        let verdict = endpoints.into_iter().find(|verdict| verdict.id == id);
        verdict.expect("it is in the set").why
    }

    fn is_out(&self, id: &str) -> bool {
        matches!(self.why(id), Why::Ejected { .. } | Why::OnTrial)
    }
}

fn id(i: usize) -> String {
    format!("10.0.{}.{}:80", i / 250, i % 250)
}

fn endpoint(i: usize) -> Endpoint {
    Endpoint::at(id(i)).unwrap()
}

fn set(n: usize) -> EndpointSet {
    EndpointSet::new((0..n).map(endpoint)).unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Without jitter, so that times are known.
fn connections() -> OutlierEjection {
    OutlierEjection::connections().jitter(Duration::ZERO)
}

#[test]
fn five_calls_without_an_answer_eject_and_a_trial_call_lets_back() {
    let mut world = World::new(set(3), |b| b.outlier_ejection(connections()));
    world.ill.insert(id(1));
    while !world.is_out(&id(1)) {
        world.call().unwrap();
    }
    assert_eq!(world.failed, 5);
    let text = world.balancer.explain().to_string();
    assert!(
        text.contains("5 calls in a row without an answer"),
        "{text}"
    );

    // Out for 30 s, and then it gets one call, which fails: out for 60 s.
    for _ in 0..29 {
        world.pass(secs(1));
        (0..20).for_each(|_| assert!(world.call().unwrap()));
    }
    world.pass(secs(1));
    assert_eq!(world.why(&id(1)), Why::OnTrial);
    assert!(!world.call().unwrap(), "the trial call is the next");
    for _ in 0..59 {
        world.pass(secs(1));
        (0..20).for_each(|_| assert!(world.call().unwrap()));
    }
    assert_eq!(world.failed, 6);

    world.ill.clear();
    world.pass(secs(1));
    assert_eq!(world.why(&id(1)), Why::OnTrial);
    world.call().unwrap();
    assert_eq!(world.why(&id(1)), Why::Picked);
    let told = world.happened();
    assert!(matches!(&told[0], Event::Ejected { endpoint, .. } if endpoint.as_str() == id(1)));
    assert!(
        matches!(told.last(), Some(Event::Admitted { .. })),
        "{told:?}"
    );
}

#[test]
fn a_trial_is_one_call_and_a_cancelled_one_is_none() {
    let mut world = World::new(set(3), |b| b.outlier_ejection(connections()));
    world.ill.insert(id(0));
    while !world.is_out(&id(0)) {
        world.call().unwrap();
    }
    world.pass(secs(30));
    let trial = world.balancer.pick().unwrap();
    assert_eq!(trial.id().as_str(), id(0));
    for _ in 0..200 {
        let other = world.balancer.pick().unwrap();
        assert_ne!(other.id().as_str(), id(0), "one call, not a flood");
    }
    drop(trial);
    world.updater.look();
    let again = world.balancer.pick().unwrap();
    assert_eq!(again.id().as_str(), id(0), "the next call takes it");
    again.detach().finish(Outcome::Success);
    world.updater.look();
    assert_eq!(world.why(&id(0)), Why::Picked, "by a detached pick too");
}

#[test]
fn the_state_outlives_changes_of_the_set() {
    let mut world = World::new(set(4), |b| b.outlier_ejection(connections()));
    world.ill.insert(id(2));
    while !world.is_out(&id(2)) {
        world.call().unwrap();
    }
    let heavier = set(4).with(endpoint(2).with_weight(7));
    world.updater.apply(heavier.clone());
    assert!(world.is_out(&id(2)), "a new weight");
    world.updater.apply(heavier.without(endpoint(2).id()));
    world.pass(secs(5));
    world.updater.apply(heavier);
    assert!(world.is_out(&id(2)), "a short absence");
    world.pass(secs(25));
    assert_eq!(world.why(&id(2)), Why::OnTrial, "its time went on");
}

#[test]
fn one_endpoint_alone_is_never_ejected() {
    let mut world = World::new(set(1), |b| b);
    world.ill.insert(id(0));
    for _ in 0..100 {
        assert!(!world.call().unwrap());
    }
    assert!(world.happened().is_empty());
}

#[test]
fn answers_that_are_errors_eject_only_when_asked_to() {
    let by_gateway = || connections().consecutive_gateway_errors(5);
    for (ejection, error, ejects) in [
        (connections(), Outcome::ServerError, false),
        (OutlierEjection::new(), Outcome::ServerError, true),
        (
            connections().consecutive_errors(5),
            Outcome::ServerError,
            true,
        ),
        (
            connections().consecutive_errors(5),
            Outcome::GatewayError,
            true,
        ),
        (by_gateway(), Outcome::GatewayError, true),
        (by_gateway(), Outcome::ServerError, false),
    ] {
        let mut world = World::new(set(2), |b| b.outlier_ejection(ejection));
        for _ in 0..100 {
            let pick = world.balancer.pick().unwrap();
            let bad = pick.id().as_str() == id(0);
            pick.finish(if bad { error } else { Outcome::Success });
            world.updater.look();
        }
        assert_eq!(world.is_out(&id(0)), ejects, "{error:?}");
    }
}

/// One call in three fails: never five in a row by rule, but far below the mean.
#[test]
fn a_low_success_rate_and_a_high_latency_eject_at_the_sweep() {
    let by_rate = || connections().success_rate(Some(1.9));
    let by_percent = || connections().failure_percentage(Some(30));
    let by_latency = || connections().latency_factor(Some(10.0));
    for (ejection, latency) in [(by_rate(), 1), (by_percent(), 1), (by_latency(), 50)] {
        let slow = latency > 1;
        let mut world = World::new(set(6), |b| {
            b.outlier_ejection(ejection).strategy(RoundRobin::new())
        });
        for call in 0..6 * 150_u64 {
            let pick = world.balancer.pick().unwrap();
            let bad = pick.id().as_str() == id(3);
            let outcome = if bad && !slow && call % 18 < 6 {
                Outcome::ServerError
            } else {
                Outcome::Success
            };
            world
                .hands
                .advance(Duration::from_millis(if bad { latency } else { 1 }));
            pick.finish(outcome);
        }
        assert!(!world.is_out(&id(3)));
        world.pass(secs(10));
        world.updater.look();
        for i in 0..6 {
            assert_eq!(
                world.is_out(&id(i)),
                i == 3,
                "{i}\n{}",
                world.balancer.explain()
            );
        }
    }
}

/// G4: never more are ejected than allowed, and never all.
#[test]
fn never_more_are_ejected_than_allowed() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 1 + rng.below(20) as usize;
        let percent = rng.below(101);
        let ejection = connections().max_percent(percent);
        let mut world = World::new(set(n), |b| {
            let topology = Topology::new().panic_threshold(None);
            b.outlier_ejection(ejection.clone()).topology(topology)
        });
        let mut known = n;
        for step in 0..60 {
            if rng.below(4) == 0 {
                let i = rng.below(n as u32) as usize;
                if !world.ill.remove(&id(i)) {
                    world.ill.insert(id(i));
                }
            }
            if rng.below(15) == 0 {
                known = 1 + rng.below(n as u32) as usize;
                world.updater.apply(set(known));
            }
            for _ in 0..10 {
                world.call().unwrap();
            }
            world.pass(Duration::from_millis(u64::from(rng.below(8_000))));
            let out = (0..known).filter(|&i| world.is_out(&id(i))).count();
            let allowed = (known * percent as usize / 100).max(1).min(known - 1);
            assert!(out <= allowed, "seed {seed}, step {step}: {out} of {known}");
        }
    }
}

/// What the registry and the events say, kept beside the balancer; a pick that
/// contradicts them is found without asking the balancer about itself.
#[test]
fn no_pick_lands_on_an_ejected_draining_or_down_endpoint() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 2 + rng.below(10) as usize;
        let mut world = World::new(set(n), |b| b.outlier_ejection(connections()));
        let mut statuses: HashMap<String, Status> = HashMap::new();
        let (mut ejected, mut on_trial) = (HashSet::new(), HashSet::new());
        let mut panic = false;
        for step in 0..50 {
            let what = format!("seed {seed}, step {step}");
            if rng.below(3) == 0 {
                let i = rng.below(n as u32) as usize;
                let all = [Status::Up, Status::Draining, Status::Down, Status::Starting];
                statuses.insert(id(i), all[rng.below(4) as usize]);
                let status = |i: &String| statuses.get(i).copied().unwrap_or_default();
                let next = (0..n).map(|i| endpoint(i).with_status(status(&id(i))));
                world.updater.apply(EndpointSet::new(next).unwrap());
            }
            if rng.below(3) == 0 {
                let i = rng.below(n as u32) as usize;
                if !world.ill.remove(&id(i)) {
                    world.ill.insert(id(i));
                }
            }
            for _ in 0..15 {
                for event in world.happened() {
                    match event {
                        Event::Ejected { endpoint, .. } => {
                            on_trial.remove(&endpoint);
                            ejected.insert(endpoint);
                        }
                        Event::OnTrial { endpoint } => {
                            ejected.remove(&endpoint);
                            on_trial.insert(endpoint);
                        }
                        Event::Admitted { endpoint } => {
                            ejected.remove(&endpoint);
                            on_trial.remove(&endpoint);
                        }
                        Event::PanicEntered { .. } => panic = true,
                        Event::PanicLeft { .. } => panic = false,
                        _ => {}
                    }
                }
                let status = |i: &String| statuses.get(i).copied().unwrap_or_default();
                let some_up = (0..n).any(|i| status(&id(i)) == Status::Up);
                match world.balancer.pick() {
                    Err(error) => assert!(!some_up, "{what}: {error}"),
                    Ok(pick) => {
                        let picked = pick.id().clone();
                        let up = status(&picked.as_str().to_owned()) == Status::Up;
                        assert!(up, "{what}: {picked} is not up");
                        assert!(panic || !ejected.contains(&picked), "{what}: {picked}");
                        // The next call takes the trial; until then nobody
                        // else gets one.
                        let waiting =
                            |id: &EndpointId| status(&id.as_str().to_owned()) == Status::Up;
                        let taken = on_trial.remove(&picked);
                        assert!(panic || taken || !on_trial.iter().any(waiting), "{what}");
                        world.end(pick);
                    }
                }
            }
            world.pass(Duration::from_millis(u64::from(rng.below(20_000))));
        }
    }
}

/// G6: a server that fails fast costs one call in ten thousand.
#[test]
fn a_fast_failing_server_of_a_hundred_costs_one_call_in_ten_thousand() {
    // 80,000 calls for each seed: on two threads.
    std::thread::scope(|scope| {
        for half in [0..SEEDS / 2, SEEDS / 2..SEEDS] {
            scope.spawn(|| fail_fast(half));
        }
    });
}

fn fail_fast(seeds: Range<u64>) {
    for seed in seeds {
        let (clock, hands) = Clock::manual();
        let (balancer, mut updater) = Balancer::builder("users")
            .strategy(Random::new())
            .latency(false)
            .clock(clock)
            .manual()
            .unwrap();
        updater.apply(set(100));
        let bad = Rng::seeded(seed).below(100) as usize;
        let bad = balancer.nodes()[bad].stats().key();
        let (mut failed, mut calls) = (0_u64, 0_u64);
        // 2,000 calls a second for 40 s.
        for _ in 0..400 {
            for _ in 0..200 {
                let pick = balancer.pick().unwrap();
                calls += 1;
                if pick.key() == bad {
                    pick.finish(Outcome::NotSent);
                    failed += 1;
                    // What a driver is woken for.
                    updater.look();
                } else {
                    pick.finish(Outcome::Success);
                }
            }
            hands.advance(Duration::from_millis(100));
            updater.look();
        }
        assert!(failed * 10_000 <= calls, "seed {seed}: {failed} of {calls}");
    }
}

/// G10: of the strategies that promise it, the loss of an endpoint moves its keys
/// alone, however it is lost; when it is back, so are they.
#[test]
fn the_loss_of_an_endpoint_moves_only_its_keys() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 3 + rng.below(10) as usize;
        let lost = rng.below(n as u32) as usize;
        let keys: Vec<u64> = (0..40).map(|_| rng.bits()).collect();
        let strategy: Box<dyn Strategy> = match seed % 3 {
            0 => Box::new(RingHash::new()),
            1 => Box::new(Rendezvous::new()),
            _ => Box::new(BlockHrw::new()),
        };
        let topology = Topology::new().panic_threshold(None);
        let mut world = World::new(set(n), |b| {
            b.strategy(strategy)
                .topology(topology)
                .outlier_ejection(connections())
        });
        let owners = |world: &World| -> Vec<String> {
            let owner = |&key| {
                let pick = world.balancer.pick_with(&PickOptions::new().hash(key));
                pick.expect("the others are well").id().to_string()
            };
            keys.iter().map(owner).collect()
        };
        let before = owners(&world);
        let with = |status| {
            let all = (0..n)
                .map(|i| endpoint(i).with_status(if i == lost { status } else { Status::Up }));
            EndpointSet::new(all).unwrap()
        };
        match seed % 4 {
            0 => world.updater.apply(set(n).without(endpoint(lost).id())),
            1 => world.updater.apply(with(Status::Down)),
            2 => world.updater.apply(with(Status::Draining)),
            _ => {
                // Its calls fail until it is ejected.
                let key = keys
                    .iter()
                    .zip(&before)
                    .find(|(_, owner)| **owner == id(lost));
                let Some((&key, _)) = key else { continue };
                for _ in 0..5 {
                    let pick = world.balancer.pick_with(&PickOptions::new().hash(key));
                    pick.unwrap().finish(Outcome::NotSent);
                }
                world.updater.look();
                assert!(world.is_out(&id(lost)), "seed {seed}");
            }
        }
        let during = owners(&world);
        for (was, is) in before.iter().zip(&during) {
            let moved = was != is;
            assert_eq!(moved, *was == id(lost), "seed {seed}: from {was} to {is}");
        }
        world.updater.apply(set(n));
        if seed % 4 == 3 {
            world.pass(secs(31));
            let trial = world.balancer.pick().unwrap();
            assert_eq!(trial.id().as_str(), id(lost), "seed {seed}: its trial call");
            trial.finish(Outcome::Success);
            world.updater.look();
        }
        assert_eq!(owners(&world), before, "seed {seed}");
    }
}

/// G1: a registry that is gone for a day fails no call.
#[test]
fn a_registry_that_is_gone_for_a_day_fails_no_call() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 3 + rng.below(10) as usize;
        let mut world = World::new(set(n), |b| b);
        for _ in 0..24 * 4 {
            world
                .updater
                .fail(Error::registry("consul", "connection refused"));
            // A server restarts somewhere meanwhile; its calls fail until it is
            // ejected, which is not the registry's doing.
            if rng.below(20) == 0 {
                world.ill = HashSet::from([id(rng.below(n as u32) as usize)]);
            } else {
                world.ill.clear();
            }
            for _ in 0..10 {
                let picked = world.call();
                assert!(picked.is_ok(), "seed {seed}: {picked:?}");
            }
            world.pass(Duration::from_mins(15));
        }
        assert!(world.balancer.discovery().is_stale());
        assert_eq!(world.balancer.current().len(), n);
        let before = world
            .balancer
            .nodes()
            .iter()
            .map(waypost::view::Node::key)
            .collect::<HashSet<_>>();
        world.updater.apply(set(n));
        let after = world
            .balancer
            .nodes()
            .iter()
            .map(waypost::view::Node::key)
            .collect::<HashSet<_>>();
        assert_eq!(before, after, "nobody is taken for new when it is back");
    }
}

/// G2 in virtual time: each server drains, goes, starts and is back, one after
/// the other; calls in flight when it drains are waited for.
#[test]
fn a_rolling_restart_fails_no_call() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 2 + rng.below(8) as usize;
        let mut world = World::new(set(n), |b| b.slow_start(SlowStart::new(secs(5))));
        let mut current = set(n);
        for i in 0..n {
            let mut held: Vec<Pick> = Vec::new();
            for status in [Status::Draining, Status::Down, Status::Starting, Status::Up] {
                current = current.with(endpoint(i).with_status(status));
                world.updater.apply(current.clone());
                if status == Status::Down {
                    // In-flight calls ended before it went.
                    for pick in held.drain(..) {
                        assert!(world.end(pick));
                    }
                    world.ill.insert(id(i));
                }
                if status == Status::Up {
                    world.ill.remove(&id(i));
                }
                for _ in 0..rng.below(30) {
                    world.pass(Duration::from_millis(u64::from(rng.below(100))));
                    if rng.below(4) == 0 && status == Status::Draining {
                        held.push(world.balancer.pick().unwrap());
                    }
                    assert!(world.call().unwrap(), "seed {seed}, server {i}, {status}");
                }
            }
        }
    }
}

/// Three zones of four servers, a client in each. One zone goes dark and comes
/// back; every call of the other zones' servers is counted over all clients.
#[test]
fn a_dark_zone_is_left_and_refilled_without_overload() {
    const ZONES: [&str; 3] = ["a", "b", "c"];
    for seed in 0..SEEDS {
        let servers = (0..12).map(|i| Endpoint::builder(id(i)).zone(ZONES[i / 4]).build().unwrap());
        let set = EndpointSet::new(servers).unwrap();
        let mut rng = Rng::seeded(seed);
        let dark = rng.below(3) as usize;
        let mut clients: Vec<World> = ZONES
            .iter()
            .map(|zone| {
                World::new(set.clone(), |b| {
                    b.outlier_ejection(connections().base_time(secs(5)))
                        .slow_start(SlowStart::new(secs(10)))
                        .strategy(RoundRobin::new())
                        .topology(Topology::new().zone(*zone))
                })
            })
            .collect();
        let round = |clients: &mut Vec<World>, calls: usize| -> BTreeMap<String, u64> {
            let mut sum = BTreeMap::new();
            for client in clients {
                client.calls.clear();
                for _ in 0..calls {
                    client.call().unwrap();
                }
                client.pass(secs(1));
                for (server, calls) in &client.calls {
                    *sum.entry(server.clone()).or_default() += calls;
                }
            }
            sum
        };
        // All is well: a client stays at home.
        let calls = round(&mut clients, 40);
        assert!(
            calls.values().all(|&calls| calls == 10),
            "seed {seed}: {calls:?}"
        );

        for client in &mut clients {
            client.ill.extend((0..4).map(|i| id(dark * 4 + i)));
        }
        // Detection: five calls for each of four servers.
        round(&mut clients, 40);
        let is_dark = |server: &str| (0..4).any(|i| server == id(dark * 4 + i));
        let calls = round(&mut clients, 160);
        let to_dark: u64 = calls
            .iter()
            .filter(|(s, _)| is_dark(s))
            .map(|(_, n)| n)
            .sum();
        assert!(to_dark <= 12, "seed {seed}: {to_dark} calls to a dark zone");
        // 480 calls on eight servers; 1.4 times is 84.
        for (server, &calls) in &calls {
            assert!(calls <= 84, "seed {seed}, {server}: {calls}");
        }

        for client in &mut clients {
            client.ill.clear();
        }
        // Refill: nobody above 1.4 times the share of what is there, which is
        // eight servers and more.
        for second in 0..45 {
            for (server, calls) in round(&mut clients, 24) {
                assert!(
                    calls <= 72 * 14 / 80 + 4,
                    "seed {seed}, {second} s, {server}: {calls}"
                );
            }
        }
        let calls = round(&mut clients, 100);
        for (server, &calls) in &calls {
            assert!(
                (24..=26).contains(&calls),
                "seed {seed}, {server}: {calls} of 25"
            );
        }
    }
}

/// After it is well again, an endpoint has its share within the ejection, one
/// interval and slow start; whatever made it ill.
#[test]
fn every_endpoint_gets_its_share_back() {
    for seed in 0..SEEDS {
        let mut rng = Rng::seeded(seed);
        let n = 3 + rng.below(6) as usize;
        let mut world = World::new(set(n), |b| {
            b.outlier_ejection(connections().base_time(secs(5)))
                .slow_start(SlowStart::new(secs(10)))
                .strategy(RoundRobin::new())
        });
        let bad = id(rng.below(n as u32) as usize);
        world.ill.insert(bad.clone());
        while !world.is_out(&bad) {
            world.call().unwrap();
        }
        world.ill.clear();
        world.pass(secs(5));
        world.call().unwrap();
        // The ramp: its share grows and never falls.
        let mut last = 0;
        for second in 0..10 {
            world.calls.clear();
            (0..n * 50).for_each(|_| assert!(world.call().unwrap()));
            let now = world.calls.get(&bad).copied().unwrap_or_default();
            assert!(
                now + 3 >= last,
                "seed {seed}, {second} s: {last}, then {now}"
            );
            assert!(now <= 53, "seed {seed}, {second} s: {now}");
            last = now;
            world.pass(secs(1));
        }
        world.pass(secs(1));
        world.calls.clear();
        (0..n * 50).for_each(|_| assert!(world.call().unwrap()));
        let share = world.calls[&bad];
        assert!((48..=52).contains(&share), "seed {seed}: {share} of 50");
    }
}

#[test]
fn levels_spill_over_as_far_as_is_missing_and_take_back() {
    let levels = |i: usize| {
        Endpoint::builder(id(i))
            .priority((i / 10) as u32)
            .build()
            .unwrap()
    };
    let all = EndpointSet::new((0..20).map(levels)).unwrap();
    let mut world = World::new(all, |b| b.outlier_ejection(connections()));
    (0..500).for_each(|_| assert!(world.call().unwrap()));
    assert!(
        world
            .calls
            .keys()
            .all(|server| (0..10).any(|i| *server == id(i)))
    );

    world.ill.extend((0..5).map(id));
    while (0..5).any(|i| !world.is_out(&id(i))) {
        world.call().unwrap();
    }
    world.calls.clear();
    (0..10_000).for_each(|_| assert!(world.call().unwrap()));
    let below: u64 = (10..20).filter_map(|i| world.calls.get(&id(i))).sum();
    // 50 % healthy: 70 % stay. Five standard deviations are 229.
    assert!(below.abs_diff(3_000) < 229, "{below}");
    let loads = world
        .happened()
        .into_iter()
        .filter_map(|event| match event {
            Event::Loads { loads } => Some(loads),
            _ => None,
        });
    let last = loads.last().expect("it was told");
    assert!(
        (last[0].1 - 0.7).abs() < 1e-9 && (last[1].1 - 0.3).abs() < 1e-9,
        "{last:?}"
    );
}

#[test]
fn panic_uses_all_or_none_and_is_told() {
    for threshold in [Some(50), None] {
        let ejection = connections().max_percent(100);
        let mut world = World::new(set(10), |b| {
            b.outlier_ejection(ejection)
                .topology(Topology::new().panic_threshold(threshold))
        });
        world.ill.extend((0..8).map(id));
        for _ in 0..2_000 {
            world.call().unwrap();
        }
        let told = world.happened();
        let panicked = told.contains(&Event::PanicEntered { priority: 0 });
        assert_eq!(panicked, threshold.is_some(), "{told:?}");
        world.calls.clear();
        for _ in 0..500 {
            world.call().unwrap();
        }
        assert_eq!(
            world.calls.len() == 10,
            threshold.is_some(),
            "{:?}",
            world.calls
        );
    }
}

#[test]
fn a_call_that_has_tried_its_zone_goes_to_another() {
    let server = |i: usize| {
        Endpoint::builder(id(i))
            .zone(["a", "b"][i % 2])
            .build()
            .unwrap()
    };
    let all = EndpointSet::new((0..8).map(server)).unwrap();
    let world = World::new(all, |b| b.topology(Topology::new().zone("a")));
    let mut tried = Tried::new();
    let mut zones = Vec::new();
    while let Ok(pick) = world.balancer.pick_with(&PickOptions::new().tried(&tried)) {
        tried.insert(pick.key());
        zones.extend(pick.locality().zone().map(str::to_owned));
    }
    assert_eq!(zones, ["a", "a", "a", "a", "b", "b", "b", "b"]);
}

#[test]
fn a_split_shares_by_weight_and_falls_back() {
    let version = |i: usize, version: &str, status: Status| {
        let builder = Endpoint::builder(id(i))
            .metadata("version", version)
            .status(status);
        builder.build().unwrap()
    };
    let canary = Topology::new().split([
        (Selector::new("version", "v1"), 90),
        (Selector::new("version", "v2"), 10),
    ]);
    let all = |status| {
        let mut all: Vec<_> = (0..3).map(|i| version(i, "v1", Status::Up)).collect();
        all.push(version(3, "v2", status));
        all.push(version(4, "v3", Status::Up));
        EndpointSet::new(all).unwrap()
    };
    let mut world = World::new(all(Status::Up), |b| b.topology(canary));
    (0..10_000).for_each(|_| assert!(world.call().unwrap()));
    let v2 = world.calls[&id(3)];
    // Not drawn at random: true to within a few calls.
    assert!(v2.abs_diff(1_000) <= 3, "{v2}");
    assert_eq!(world.calls.get(&id(4)), None, "it is in no part");
    assert_eq!(world.why(&id(4)), Why::NotInSubset);
    world.updater.apply(all(Status::Down));
    world.calls.clear();
    (0..1_000).for_each(|_| assert!(world.call().unwrap()));
    assert_eq!(world.calls.len(), 3, "the others take its share");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |set_up: fn(BalancerBuilder) -> BalancerBuilder, field: &str| {
        let error = set_up(Balancer::builder("users")).manual().unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains(field),
            "{error}"
        );
    };
    refused(
        |b| b.outlier_ejection(connections().max_percent(101)),
        "max_percent",
    );
    refused(
        |b| b.outlier_ejection(connections().base_time(secs(0))),
        "base_time",
    );
    refused(
        |b| b.slow_start(SlowStart::new(secs(1)).min_weight(2.0)),
        "min_weight",
    );
    refused(
        |b| b.topology(Topology::new().overprovisioning(90)),
        "overprovisioning",
    );
    refused(
        |b| b.topology(Topology::new().panic_threshold(Some(0))),
        "panic_threshold",
    );
}
