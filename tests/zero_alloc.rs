//! A pick allocates nothing and frees nothing, whatever the strategy.
//!
//! There is one test in this file, and the counters are the thread's own, so
//! that nothing else that happens meanwhile is counted.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use common::{endpoint, weighted};
use waypost::strategy::{
    Adaptive, BlockHrw, LeastConn, LoadWeighted, Maglev, P2c, PickFirst, PickOptions, Prequal,
    Random, Rendezvous, RingHash, RoundRobin, SmoothWeighted, Strategy, Tried,
};
use waypost::{Balancer, EndpointSet, Outcome, Pick};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static DEALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count(counter: &'static std::thread::LocalKey<Cell<u64>>) {
    // A const cell without a destructor is there as long as its thread.
    counter.with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator as it is; counting
// touches a plain cell and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&ALLOCATIONS);
        count(&DEALLOCATIONS);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(&DEALLOCATIONS);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations and deallocations of this thread while `work` runs.
fn counted(work: impl FnOnce()) -> (u64, u64) {
    let now = || (ALLOCATIONS.get(), DEALLOCATIONS.get());
    let before = now();
    work();
    let after = now();
    (after.0 - before.0, after.1 - before.1)
}

const ROUNDS: usize = 500;
/// As many guards as a thread keeps handles for.
const HELD: usize = 32;

fn no_pick_allocates(balancer: &Balancer, what: &str) {
    let zero = |kind: &str, work: &mut dyn FnMut()| {
        // One pick fetches the set, with room for all the handles to come.
        drop(balancer.pick().expect("there are endpoints"));
        let (allocations, deallocations) = counted(work);
        assert_eq!((allocations, deallocations), (0, 0), "{what}: {kind}");
    };

    zero("pick and drop", &mut || {
        for _ in 0..ROUNDS {
            drop(balancer.pick().expect("there are endpoints"));
        }
    });

    zero("pick and finish", &mut || {
        for outcome in [Outcome::Success, Outcome::ServerError, Outcome::NotSent] {
            for _ in 0..ROUNDS {
                balancer
                    .pick()
                    .expect("there are endpoints")
                    .finish(outcome);
            }
        }
    });

    zero("pick around what was tried", &mut || {
        for round in 0..ROUNDS {
            let mut tried = Tried::new();
            for _ in 0..=Tried::INLINE {
                let options = PickOptions::new().tried(&tried).hash(round as u64);
                let pick = balancer.pick_with(&options).expect("one is left");
                if tried.len() < Tried::INLINE {
                    tried.insert(pick.key());
                }
            }
        }
    });

    let mut held: Vec<Pick> = Vec::with_capacity(HELD);
    for many in [2, HELD] {
        zero("many held at once", &mut || {
            for _ in 0..ROUNDS / HELD {
                held.extend((0..many).map(|_| balancer.pick().expect("there are endpoints")));
                // The first in is the first out, as calls end in any order.
                held.drain(..)
                    .for_each(|pick| pick.finish(Outcome::Success));
            }
        });
    }

    zero("detached", &mut || {
        for _ in 0..ROUNDS {
            let pick = balancer.pick().expect("there are endpoints").detach();
            pick.finish(Outcome::Success);
        }
    });
}

fn with_strategy(strategy: impl Strategy + Copy) {
    let equal = weighted(&[3; 16]);
    let mixed = weighted(&[1, 2, 5, 1, 9, 1, 1, 4, 100, 3]);
    let levels = |set: &EndpointSet| {
        // Two levels, and one that takes no calls: the nodes are reordered.
        let more = waypost::Endpoint::builder("10.9.0.1:80")
            .priority(1)
            .build();
        set.with(more.expect("it is an endpoint"))
            .with(endpoint(99).with_weight(0))
    };
    for latency in [true, false] {
        let (balancer, mut updater) = Balancer::builder("users")
            .strategy(strategy)
            .latency(latency)
            .manual()
            .expect("it is a name");
        for set in [&equal, &mixed, &levels(&equal), &levels(&mixed)] {
            updater.apply(set.clone());
            let what = format!("{strategy:?}, {} endpoints, latency {latency}", set.len());
            no_pick_allocates(&balancer, &what);
        }
    }
}

#[test]
fn a_pick_neither_allocates_nor_frees() {
    // First, that the counters count.
    let (allocations, deallocations) = counted(|| {
        let mut list = black_box(Vec::new());
        list.push(1_u8);
        drop(black_box(list));
    });
    assert_eq!((allocations, deallocations), (1, 1), "the allocator counts");
    let on_the_stack = || {
        black_box([0_u8; 64]);
    };
    assert_eq!(counted(on_the_stack), (0, 0));

    with_strategy(RoundRobin::new());
    with_strategy(SmoothWeighted::new());
    with_strategy(Random::new());
    with_strategy(P2c::new());
    with_strategy(P2c::peak_ewma());
    with_strategy(Adaptive::new());
    with_strategy(Prequal::new());
    with_strategy(LoadWeighted::new());
    with_strategy(LeastConn::new());
    with_strategy(
        LeastConn::new()
            .active_request_bias(1.5)
            .expect("it is above"),
    );
    with_strategy(LeastConn::new().choices(3).expect("it is within"));
    with_strategy(PickFirst::new());
    with_strategy(PickFirst::shuffled());
    with_strategy(RingHash::new());
    with_strategy(Maglev::new());
    with_strategy(BlockHrw::new());
    with_strategy(Rendezvous::new());
    with_strategy(RingHash::new().bounded(1.0).expect("it is a bound"));
}
