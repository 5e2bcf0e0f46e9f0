//! What nothing on this machine can go below.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use waypost::time::Clock;

use crate::timing::{Helper, Row};

pub const FETCH_ADD: &str = "relaxed fetch_add";
pub const INSTANT: &str = "Instant::now";
pub const TSC: &str = "waypost Clock::tsc, now";

pub fn rows() -> Vec<Row> {
    let counter = AtomicU64::new(0);
    let swap = ArcSwap::from_pointee(7_u64);
    let mut cache = Cache::new(Arc::new(ArcSwap::from_pointee(7_u64)));
    let arc = Arc::new(7_u64);
    let tsc = Clock::tsc();
    vec![
        Row::repeated(FETCH_ADD, move || {
            black_box(black_box(&counter).fetch_add(1, Ordering::Relaxed));
        }),
        Row::repeated("arc-swap load", move || {
            black_box(**black_box(&swap).load());
        }),
        Row::repeated("arc-swap Cache load", move || {
            black_box(**black_box(&mut cache).load());
        }),
        Row::repeated("Arc clone + drop", move || {
            drop(black_box(Arc::clone(black_box(&arc))));
        }),
        Row::repeated(INSTANT, || {
            black_box(Instant::now());
        }),
        Row::repeated(TSC, move || {
            black_box(tsc.now());
        }),
    ]
}

/// One counter that two threads add to.
pub fn contended(helper: &Helper) -> [Row; 2] {
    let counter = Arc::new(AtomicU64::new(0));
    let add = move || {
        black_box(counter.fetch_add(1, Ordering::Relaxed));
    };
    Row::pair(FETCH_ADD, add, helper)
}
