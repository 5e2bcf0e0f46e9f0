//! One value that many threads read all the time and one replaces now and then.
//!
//! A reader that has a copy from before asks [`Published::stamp`], which is one
//! load from a line that stays in its cache until the next publication, and
//! fetches the value only when its copy carries another stamp. That is how a
//! pick reads the whole state for about a nanosecond and touches no counter
//! that another thread writes.

use std::sync::Arc;

use super::atomic::{AtomicU64, Ordering};

/// A value that carries a stamp of its own: no other value of the process has
/// it, and every publication's is higher than that of the one before.
pub(crate) trait Stamped {
    fn stamp(&self) -> u64;
}

/// The next stamp. Never 0, so that 0 can stand for "none".
pub(crate) fn next_stamp() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) struct Published<T> {
    /// Never ahead of `value`: it is raised after the swap. A reader that sees
    /// a stamp therefore loads the value of that stamp or a later one, and what
    /// a thread reads never goes back in time.
    stamp: AtomicU64,
    value: Swap<T>,
}

impl<T: Stamped> Published<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self {
            stamp: AtomicU64::new(value.stamp()),
            value: Swap::new(value),
        }
    }

    /// The stamp of the value that can be loaded now, or of one before it.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.value.load()
    }

    /// Publishes `next` in one swap and returns what was there. There is one
    /// publisher at a time.
    pub(crate) fn publish(&self, next: Arc<T>) -> Arc<T> {
        let stamp = next.stamp();
        let previous = self.value.swap(next);
        debug_assert!(previous.stamp() < stamp);
        self.stamp.store(stamp, Ordering::Release);
        previous
    }
}

#[cfg(not(waypost_loom))]
struct Swap<T>(arc_swap::ArcSwap<T>);

#[cfg(not(waypost_loom))]
impl<T> Swap<T> {
    fn new(value: Arc<T>) -> Self {
        Self(arc_swap::ArcSwap::new(value))
    }

    fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    fn swap(&self, next: Arc<T>) -> Arc<T> {
        self.0.swap(next)
    }
}

/// Loom cannot look into arc-swap; a mutex has the same outcomes.
#[cfg(waypost_loom)]
struct Swap<T>(loom::sync::Mutex<Arc<T>>);

#[cfg(waypost_loom)]
impl<T> Swap<T> {
    fn new(value: Arc<T>) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().unwrap())
    }

    fn swap(&self, next: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *self.0.lock().unwrap(), next)
    }
}

#[cfg(all(test, waypost_loom))]
mod loom_tests {
    use super::*;

    struct State {
        stamp: u64,
        content: u64,
    }

    impl Stamped for State {
        fn stamp(&self) -> u64 {
            self.stamp
        }
    }

    fn state(stamp: u64) -> Arc<State> {
        Arc::new(State {
            stamp,
            content: stamp * 10,
        })
    }

    /// A reader that refreshes its copy by stamp never sees a torn state, never
    /// goes back, and sees a publication that happened before it looked.
    #[test]
    fn readers_move_forward_only() {
        loom::model(|| {
            let published = Arc::new(Published::new(state(1)));
            let writer = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || {
                    published.publish(state(2));
                    published.publish(state(3));
                })
            };
            let mut copy = published.load();
            for _ in 0..2 {
                let stamp = published.stamp();
                if copy.stamp != stamp {
                    let next = published.load();
                    assert!(next.stamp >= stamp);
                    assert!(next.stamp >= copy.stamp);
                    copy = next;
                }
                assert_eq!(copy.content, copy.stamp * 10);
            }
            writer.join().unwrap();
            assert_eq!(published.stamp(), 3);
            assert_eq!(published.load().stamp, 3);
        });
    }
}
