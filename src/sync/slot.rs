//! Which stripe of a striped counter a thread writes.
//!
//! A counter that every thread adds to is the slowest thing in a balancer: its
//! cache line travels between cores at about 45 ns a step. Here each counter is
//! a row of cache lines, and a thread that picks leases a [`Slot`]: the first
//! few threads get a stripe each that nobody else writes, so that counting is a
//! plain load and store without a locked instruction; all later ones share the
//! remaining stripes with atomic additions. A reader adds the stripes up.
//!
//! Slots come back when their thread ends. How many of each kind there are
//! follows the machine, because a reader pays for every stripe in use, and a
//! counter for the memory of all of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The stripe that a thread writes, and whether it is its only writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) stripe: u16,
    pub(crate) exclusive: bool,
}

struct Layout {
    exclusive: usize,
    shared: usize,
}

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(4, usize::from);
    Layout {
        // Two a core: workers of a runtime, and the threads beside it.
        exclusive: (2 * cores).clamp(4, 8),
        // One for every four cores: more threads than exclusive stripes means
        // a large machine, and a reader should still touch few lines.
        shared: (cores / 4).clamp(2, 8),
    }
});

/// Stripes that were ever handed out: those a reader has to look at.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

static FREE: Mutex<Free> = Mutex::new(Free {
    returned: BinaryHeap::new(),
    next: 0,
});

struct Free {
    returned: BinaryHeap<Reverse<usize>>,
    next: usize,
}

impl Slot {
    /// As many stripes as there are on the largest machine.
    pub(crate) const MOST: usize = 16;

    /// How many of them may hold something.
    #[inline]
    pub(crate) fn in_use() -> usize {
        IN_USE.load(Ordering::Relaxed)
    }

    /// A slot for a thread that has no lease: one whose thread-local storage
    /// is gone already, or that cannot wait.
    pub(crate) fn shared() -> Self {
        Self::numbered(LAYOUT.exclusive)
    }

    fn numbered(number: usize) -> Self {
        let exclusive = number < LAYOUT.exclusive;
        let stripe = if exclusive {
            number
        } else {
            LAYOUT.exclusive + (number - LAYOUT.exclusive) % LAYOUT.shared
        };
        if IN_USE.load(Ordering::Relaxed) <= stripe {
            IN_USE.fetch_max(stripe + 1, Ordering::Relaxed);
        }
        Self {
            stripe: stripe as u16,
            exclusive,
        }
    }
}

/// A thread's claim to a slot, given back when dropped.
///
/// The mutex orders the last write of one tenant before the first of the next.
#[derive(Debug)]
pub(crate) struct Lease {
    number: usize,
    slot: Slot,
}

impl Lease {
    pub(crate) fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free.returned.pop().map_or_else(
            || {
                free.next += 1;
                free.next - 1
            },
            |Reverse(number)| number,
        );
        Self {
            number,
            slot: Slot::numbered(number),
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push(Reverse(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Slot {
        fn stripes() -> usize {
            LAYOUT.exclusive + LAYOUT.shared
        }
    }

    #[test]
    fn an_exclusive_stripe_has_one_tenant_at_a_time() {
        let leases: Vec<Lease> = (0..3 * Slot::stripes()).map(|_| Lease::take()).collect();
        let mut tenants = vec![0; Slot::stripes()];
        for slot in leases.iter().map(Lease::slot) {
            tenants[usize::from(slot.stripe)] += 1;
            assert_eq!(slot.exclusive, usize::from(slot.stripe) < LAYOUT.exclusive);
        }
        assert!(tenants[..LAYOUT.exclusive].iter().all(|&count| count <= 1));
        assert!(tenants[LAYOUT.exclusive..].iter().all(|&count| count >= 1));
        assert_eq!(Slot::in_use(), Slot::stripes());
        assert!(!Slot::shared().exclusive);
    }

    #[test]
    fn slots_come_back() {
        let number = std::thread::spawn(|| Lease::take().number).join().unwrap();
        // Other tests lease too, so the very number may be taken; but the
        // numbers in circulation stay bounded by those held at once.
        for _ in 0..10_000 {
            drop(Lease::take());
        }
        let highest = FREE.lock().unwrap_or_else(PoisonError::into_inner).next;
        assert!(highest < 1_000, "{number} {highest}");
    }
}
