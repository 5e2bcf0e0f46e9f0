use std::ops::Range;

use super::*;
use crate::endpoint::Status;
use crate::rng::Rng;

/// The guard with the hands of a clock, and calls whose outcome is known.
struct Rig {
    guard: Guard,
    now: Timestamp,
    source: EndpointSet,
    served: EndpointSet,
}

impl Rig {
    fn new() -> Self {
        Self {
            guard: Guard::new(RemovalGuard::default()),
            now: Timestamp::default().plus(Duration::from_hours(1)),
            source: EndpointSet::empty(),
            served: EndpointSet::empty(),
        }
    }

    fn answer(&mut self, ids: Range<usize>) -> usize {
        self.answer_with(ids.map(endpoint).collect())
    }

    fn answer_with(&mut self, endpoints: Vec<Endpoint>) -> usize {
        self.source = self.source.next(endpoints).unwrap();
        let before = self.served.version();
        self.served = self.guard.take(self.source.clone(), self.now);
        assert!(self.served.version() >= before, "versions never fall");
        self.review(|_| None);
        self.served.len()
    }

    fn review(&mut self, totals: impl Fn(&EndpointId) -> Option<Totals>) -> usize {
        if let Some(set) = self.guard.review(self.now, totals) {
            assert!(set.version() > self.served.version());
            self.served = set;
        }
        self.served.len()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }
}

fn endpoint(i: usize) -> Endpoint {
    let address = format!("10.0.{}.{}:80", i / 256, i % 256);
    Endpoint::builder(address)
        .id(format!("{i:05}"))
        .build()
        .unwrap()
}

fn totals(succeeded: u64, failed: u64) -> Option<Totals> {
    Some(Totals {
        succeeded,
        failed,
        ..Totals::default()
    })
}

#[test]
fn a_sudden_nothing_serves_on_and_expires() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    assert_eq!(rig.answer(0..0), 10);
    assert_eq!(rig.guard.unconfirmed(), 10);
    rig.pass(Duration::from_secs(299));
    assert_eq!(rig.review(|_| None), 10);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.review(|_| None), 0, "bounded in time");
    assert_eq!(rig.answer(0..3), 3);
    assert_eq!(rig.answer(0..2), 2, "and then the answer is the measure");
}

#[test]
fn repeated_answers_do_not_prolong_the_hold() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    for second in 0..300 {
        assert_eq!(rig.answer(0..second % 2), 10, "at {second} s");
        rig.pass(Duration::from_secs(1));
    }
    assert!(rig.answer(0..0) <= 1);
}

#[test]
fn half_may_leave_at_once_and_less_than_half_left_is_doubted() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    assert_eq!(rig.answer(0..5), 5);
    let mut rig = Rig::new();
    rig.answer(0..10);
    assert_eq!(rig.answer(0..4), 10);
}

#[test]
fn many_small_removals_within_a_minute_are_one_and_over_hours_are_none() {
    let (mut quick, mut slow) = (Rig::new(), Rig::new());
    quick.answer(0..100);
    slow.answer(0..100);
    for left in (0..100).rev() {
        quick.pass(Duration::from_millis(500));
        quick.answer(0..left);
        slow.pass(WINDOW);
        assert!(slow.answer(0..left) == left || left == 0);
    }
    assert_eq!(
        quick.served.len(),
        51,
        "50 are left, and the next is doubted"
    );
}

#[test]
fn what_only_fails_is_dropped_and_what_succeeds_is_kept() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    rig.answer(0..0);
    let gone = endpoint(3).id().clone();
    let mixed = endpoint(4).id().clone();
    rig.review(|_| totals(100, 7));
    let later = |id: &EndpointId| {
        if *id == gone {
            totals(100, 8)
        } else if *id == mixed {
            totals(101, 8)
        } else {
            totals(100, 7)
        }
    };
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.review(later), 9);
    assert!(rig.served.get(&gone).is_none() && rig.served.get(&mixed).is_some());
    assert_eq!(rig.answer(0..0), 9, "and it stays out");
}

#[test]
fn a_service_that_registers_again_one_by_one_is_whole_all_the_while() {
    let mut rig = Rig::new();
    rig.answer(0..100);
    rig.answer(0..0);
    for back in 0..85 {
        assert_eq!(rig.answer(0..back), 100);
    }
    assert_eq!(rig.answer(0..85), 85, "enough are back to believe it");
    assert_eq!(rig.guard.unconfirmed(), 0);
}

#[test]
fn a_rollout_that_replaces_all_is_believed() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    assert_eq!(rig.answer(10..20), 10);
    assert_eq!(rig.guard.unconfirmed(), 0);
}

#[test]
fn what_drained_first_may_leave() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    let draining = |i| {
        let status = [Status::Draining, Status::Up][usize::from(i == 0)];
        endpoint(i).with_status(status)
    };
    rig.answer_with((0..10).map(draining).collect());
    rig.pass(WINDOW);
    rig.answer_with((0..10).map(draining).collect());
    assert_eq!(rig.answer(0..1), 1);
}

#[test]
fn an_endpoint_that_comes_back_is_as_the_registry_says() {
    let mut rig = Rig::new();
    rig.answer(0..10);
    rig.answer(0..0);
    rig.answer_with(vec![endpoint(0).with_weight(9)]);
    assert_eq!(rig.served.len(), 10);
    assert_eq!(rig.served.get(endpoint(0).id()).unwrap().weight(), 9);
    assert_eq!(rig.guard.unconfirmed(), 9);
}

#[test]
fn whatever_a_registry_answers_the_laws_hold() {
    for seed in 0..200 {
        let mut rng = Rng::seeded(seed);
        let mut rig = Rig::new();
        let mut told = Vec::new();
        for _ in 0..50 {
            let from = rng.below(20) as usize;
            let to = from + rng.below(20) as usize;
            rig.answer(from..to);
            told = (from..to).collect();
            for &i in &told {
                assert!(rig.served.get(endpoint(i).id()).is_some(), "seed {seed}");
            }
            let unconfirmed = rig.guard.unconfirmed();
            assert_eq!(rig.served.len(), told.len() + unconfirmed, "seed {seed}");
            rig.pass(Duration::from_secs(rng.below(100).into()));
            rig.review(|_| totals(0, 0));
        }
        rig.pass(RemovalGuard::default().hold);
        assert_eq!(rig.review(|_| None), told.len(), "seed {seed}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let minute = Duration::from_mins(1);
    for (left, hold) in [
        (0, minute),
        (86, minute),
        (50, Duration::ZERO),
        (50, Duration::MAX),
    ] {
        assert!(RemovalGuard::new(left, hold).unwrap_err().is_invalid());
    }
    assert!(RemovalGuard::new(85, minute).is_ok());
}
