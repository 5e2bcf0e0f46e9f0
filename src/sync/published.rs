//! One value that many threads read all the time and one replaces now and then.
//!
//! A reader that has a copy from before asks [`Published::version`], which is
//! one load from a line that stays in its cache until the next publication, and
//! fetches the value only when the version is newer than its copy's. That is
//! how a pick reads the whole state for about a nanosecond and touches no
//! counter that another thread writes.

use std::sync::Arc;

use super::atomic::{AtomicU64, Ordering};

/// A value whose age can be compared: every publication carries a higher
/// version than the one before.
pub(crate) trait Versioned {
    fn version(&self) -> u64;
}

pub(crate) struct Published<T> {
    /// Never ahead of `value`: it is raised after the swap. A reader that sees
    /// version v therefore loads a value of version v or later, and what a
    /// thread reads never goes back in time.
    version: AtomicU64,
    value: Swap<T>,
}

impl<T: Versioned> Published<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self {
            version: AtomicU64::new(value.version()),
            value: Swap::new(value),
        }
    }

    /// The version of the value that can be loaded now, or of one before it.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn load(&self) -> Arc<T> {
        self.value.load()
    }

    /// Publishes `next` in one swap and returns what was there. There is one
    /// publisher at a time.
    pub(crate) fn publish(&self, next: Arc<T>) -> Arc<T> {
        let version = next.version();
        let previous = self.value.swap(next);
        debug_assert!(previous.version() < version);
        self.version.store(version, Ordering::Release);
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
        version: u64,
        content: u64,
    }

    impl Versioned for State {
        fn version(&self) -> u64 {
            self.version
        }
    }

    fn state(version: u64) -> Arc<State> {
        Arc::new(State {
            version,
            content: version * 10,
        })
    }

    /// A reader that refreshes its copy by version never sees a torn state,
    /// never goes back, and sees a publication that happened before it looked.
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
                let version = published.version();
                if copy.version < version {
                    let next = published.load();
                    assert!(next.version >= version);
                    assert!(next.version > copy.version);
                    copy = next;
                }
                assert_eq!(copy.content, copy.version * 10);
            }
            writer.join().unwrap();
            assert_eq!(published.version(), 3);
            assert_eq!(published.load().version, 3);
        });
    }
}
