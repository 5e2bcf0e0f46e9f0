//! The laws of resilience, with the machines put together in virtual time: what
//! fails is never amplified beyond the budget, and an overload ends when its
//! cause does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use waypost::Outcome;
use waypost::resilience::{
    AdaptiveLimit, Aimd, Attempts, Ended, Gradient2, Hedge, LimitSample, Pushback, Retry,
    RetryBudget, RetryTokens,
};
use waypost::rng::Rng;
use waypost::time::Timestamp;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_nanos(micros * 1_000)
}

fn ended(outcome: Outcome, attempts: u32) -> Ended {
    Ended {
        outcome,
        status: (outcome == Outcome::ServerError).then_some(503),
        grpc: None,
        pushback: Pushback::None,
        idempotent: true,
        attempts,
    }
}

// ---- amplification ----------------------------------------------------------

/// Calls sent are at most `1 + budget` times the calls asked for, whatever
/// fails and however often a call may be sent.
#[test]
fn calls_sent_never_exceed_the_budget() {
    for seed in 0..1_500 {
        let mut rng = Rng::seeded(seed);
        let (percent, hedges) = (rng.below(60), rng.below(10));
        let retry = Retry::default()
            .attempts(Attempts::at_most(1 + rng.below(8)))
            .any_method();
        let share = |percent| RetryBudget::share(percent).unwrap().min_per_second(0);
        let (tokens, hedge) = (share(percent).start(), share(hedges));
        let hedging = Hedge::after(Duration::ZERO).budget(hedge).start();
        let failing = rng.below(101);
        let (mut micros, mut asked, mut sent) = (0_u64, 0_u64, 0_u64);
        for _ in 0..300 {
            micros += u64::from(rng.below(200_000));
            asked += 1;
            sent += 1;
            tokens.asked(at(micros));
            let late = hedging.asked(at(micros)).is_some();
            if late && rng.below(2) == 0 && hedging.try_hedge(at(micros)) {
                sent += 1;
            }
            for attempt in 1.. {
                let outcome = match rng.below(3) {
                    _ if rng.below(100) >= failing => Outcome::Success,
                    0 => Outcome::Interrupted,
                    1 => Outcome::TimedOut,
                    _ => Outcome::ServerError,
                };
                let ended = ended(outcome, attempt);
                let Some(pause) = retry.decide(&ended, &mut rng) else {
                    break;
                };
                micros += pause.as_micros() as u64;
                if Retry::is_charged(&ended) && !tokens.try_retry(at(micros)) {
                    break;
                }
                sent += 1;
            }
            let allowed = asked * u64::from(100 + percent + hedges);
            assert!(sent * 100 <= allowed, "seed {seed}: {sent} of {asked}");
        }
    }
}

/// Layers multiply: three of them with 20 per cent each are 1.73, where three
/// blind retries would be 64.
#[test]
fn layers_of_budgets_multiply_to_little() {
    let retry = Retry::default();
    let layers: Vec<RetryTokens> = (0..3)
        .map(|_| RetryBudget::share(20).unwrap().min_per_second(0).start())
        .collect();
    let mut rng = Rng::seeded(3);
    let mut reached = 0_u64;
    for call in 0..2_000_u64 {
        let now = at(call * 1_000);
        descend(&layers, &retry, now, &mut rng, &mut reached);
    }
    let amplification = reached as f64 / 2_000.0;
    assert!((1.5..=1.73).contains(&amplification), "{amplification}");
}

/// Everything fails at the bottom.
fn descend(
    layers: &[RetryTokens],
    retry: &Retry,
    now: Timestamp,
    rng: &mut Rng,
    reached: &mut u64,
) {
    let Some((tokens, below)) = layers.split_first() else {
        *reached += 1;
        return;
    };
    tokens.asked(now);
    for attempt in 1.. {
        descend(below, retry, now, rng, reached);
        let again = retry.decide(&ended(Outcome::ServerError, attempt), rng);
        if again.is_none() || !tokens.try_retry(now) {
            return;
        }
    }
}

// ---- overload ---------------------------------------------------------------

const SECOND: u64 = 1_000_000;
/// Of the service: 20 workers, 20 ms a call.
const CAPACITY: u64 = 1_000;
const WORKERS: usize = 20;
const SERVICE: u64 = WORKERS as u64 * SECOND / CAPACITY;
const PER_TRY: u64 = SECOND;
const OVERLOAD: std::ops::Range<u64> = 10 * SECOND..20 * SECOND;

/// A service with one queue, which works off what its callers have long given
/// up, as real ones do.
struct Service {
    queue: VecDeque<usize>,
    longest: usize,
    busy: usize,
}

struct Client {
    retry: Retry,
    tokens: RetryTokens,
    adaptive: Option<AdaptiveLimit>,
    in_flight: u32,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Send(usize),
    Served(usize),
    TimedOut(usize),
}

struct Attempt {
    number: u32,
    sent: u64,
    over: bool,
}

struct Simulation {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    rng: Rng,
    service: Service,
    client: Client,
    attempts: Vec<Attempt>,
    /// Calls answered, by second.
    good: Vec<u64>,
}

impl Simulation {
    fn new(seed: u64, queue: usize, client: Client) -> Self {
        Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            rng: Rng::seeded(seed),
            service: Service {
                queue: VecDeque::new(),
                longest: queue,
                busy: 0,
            },
            client,
            attempts: Vec::new(),
            good: vec![0; 40],
        }
    }

    fn at(&mut self, when: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((when, self.order, event)));
    }

    /// Half of what the service bears, and twice what it bears for ten seconds.
    fn next_arrival(&mut self) {
        let rate = if OVERLOAD.contains(&self.now) {
            2 * CAPACITY
        } else {
            CAPACITY / 2
        };
        let uniform = (f64::from(self.rng.below(1 << 24)) + 1.0) / f64::from(1 << 24);
        let gap = -uniform.ln() * SECOND as f64 / rate as f64;
        self.at(self.now + gap as u64, Event::Arrival);
    }

    fn run(mut self) -> Vec<u64> {
        self.next_arrival();
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            self.now = now;
            if now >= 40 * SECOND {
                break;
            }
            match event {
                Event::Arrival => {
                    self.next_arrival();
                    self.client.tokens.asked(at(now));
                    self.attempts.push(Attempt {
                        number: 1,
                        sent: now,
                        over: false,
                    });
                    self.send(self.attempts.len() - 1);
                }
                Event::Send(attempt) => self.send(attempt),
                Event::Served(attempt) => {
                    self.service.busy -= 1;
                    self.work();
                    self.end(attempt, Outcome::Success);
                }
                Event::TimedOut(attempt) => self.end(attempt, Outcome::TimedOut),
            }
        }
        self.good
    }

    fn send(&mut self, attempt: usize) {
        let client = &mut self.client;
        let full = client
            .adaptive
            .as_ref()
            .is_some_and(|limit| client.in_flight >= limit.get());
        if full {
            return;
        }
        client.in_flight += 1;
        self.attempts[attempt].sent = self.now;
        if self.service.queue.len() >= self.service.longest {
            self.end(attempt, Outcome::ServerError);
            return;
        }
        self.service.queue.push_back(attempt);
        self.work();
        self.at(self.now + PER_TRY, Event::TimedOut(attempt));
    }

    fn work(&mut self) {
        while self.service.busy < WORKERS
            && let Some(attempt) = self.service.queue.pop_front()
        {
            self.service.busy += 1;
            self.at(self.now + SERVICE, Event::Served(attempt));
        }
    }

    fn end(&mut self, attempt: usize, outcome: Outcome) {
        let over = &mut self.attempts[attempt];
        if std::mem::replace(&mut over.over, true) {
            return;
        }
        let (number, sent) = (over.number, over.sent);
        let (client, now) = (&mut self.client, at(self.now));
        if let Some(limit) = &client.adaptive {
            limit.sample(LimitSample {
                latency: Duration::from_micros(self.now - sent),
                in_flight: client.in_flight,
                dropped: outcome.is_failure(),
            });
        }
        client.in_flight -= 1;
        client.tokens.ended(outcome == Outcome::Success);
        if outcome == Outcome::Success {
            self.good[(self.now / SECOND) as usize] += 1;
            return;
        }
        let pause = client.retry.decide(&ended(outcome, number), &mut self.rng);
        if let Some(pause) = pause
            && client.tokens.try_retry(now)
        {
            self.attempts.push(Attempt {
                number: number + 1,
                sent: self.now,
                over: false,
            });
            let next = self.attempts.len() - 1;
            self.at(self.now + pause.as_micros() as u64, Event::Send(next));
        }
    }
}

fn client(budget: RetryBudget) -> Client {
    let retry = Retry::default().budget(budget);
    Client {
        tokens: retry.start_budget(),
        retry,
        adaptive: None,
        in_flight: 0,
    }
}

/// Calls answered in a second before the overload, and from its end plus five
/// seconds on; means.
fn before_and_after(good: &[u64]) -> (f64, f64) {
    let mean = |seconds: &[u64]| seconds.iter().sum::<u64>() as f64 / seconds.len() as f64;
    (mean(&good[1..10]), mean(&good[25..35]))
}

/// A queue of 1.5 s is longer than the callers wait: what makes an overload
/// feed itself.
const QUEUE: usize = CAPACITY as usize * 3 / 2;

#[test]
fn blind_retries_keep_an_overload_going() {
    let (before, after) =
        before_and_after(&Simulation::new(1, QUEUE, client(RetryBudget::unlimited())).run());
    assert!(before > 450.0, "{before}");
    assert!(
        after < before / 2.0,
        "{before} {after}: this model cannot fail"
    );
}

#[test]
fn with_the_budget_goodput_is_back_within_five_seconds() {
    for seed in 0..20 {
        for budget in [
            RetryBudget::default(),
            RetryBudget::throttle(100, 0.1).unwrap(),
        ] {
            let simulation = Simulation::new(seed, QUEUE, client(budget));
            let (before, after) = before_and_after(&simulation.run());
            assert!(after >= 0.95 * before, "seed {seed}: {before} {after}");
        }
    }
}

/// A queue without end is worked off in time only if the client holds back.
#[test]
fn an_adaptive_limit_bounds_a_queue_that_has_no_end() {
    for seed in 0..10 {
        let with = |adaptive: Option<AdaptiveLimit>| {
            let client = Client {
                adaptive,
                ..client(RetryBudget::default())
            };
            before_and_after(&Simulation::new(seed, usize::MAX, client).run())
        };
        let (before, after) = with(None);
        assert!(after < 0.95 * before, "the queue alone lasts longer");
        let aimd = Aimd::within(10, 500, Duration::from_millis(200));
        for limit in [aimd.into(), Gradient2::within(10, 500).into()] {
            let (before, after) = with(Some(limit));
            assert!(
                before > 450.0 && after >= 0.95 * before,
                "seed {seed}: {before} {after}"
            );
        }
    }
}
