//! How often something happened lately.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// Counts the events of the last ten slots, the one being filled among them.
///
/// A slot is one word, its number in the upper half and its count in the lower:
/// adding to the current slot is one atomic addition, and only the first event
/// of a slot swaps the word. An event that races with the turn of its slot may
/// be counted in the next one; none is lost or counted twice.
#[derive(Debug)]
pub(super) struct Window {
    slots: [AtomicU64; SLOTS as usize],
    slot_nanos: u64,
}

/// Finagle's windowed adder has ten.
const SLOTS: u32 = 10;

impl Window {
    pub(super) fn new(span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
            slot_nanos: (nanos / u64::from(SLOTS)).max(1),
        }
    }

    /// Numbers begin at 1, so that an untouched word is of no current slot.
    fn number(&self, now: Timestamp) -> u32 {
        (now.as_nanos() / self.slot_nanos).wrapping_add(u64::from(SLOTS)) as u32
    }

    pub(super) fn add(&self, now: Timestamp) {
        self.add_many(now, 1);
    }

    /// What was written before is seen by who sees these in [`Window::sum`].
    pub(super) fn add_many(&self, now: Timestamp, events: u32) {
        let number = self.number(now);
        let slot = &self.slots[(number % SLOTS) as usize];
        let mut word = slot.load(Ordering::Relaxed);
        loop {
            let (held, count) = unpack(word);
            if held == number && count < u32::MAX - events {
                slot.fetch_add(u64::from(events), Ordering::Release);
                return;
            }
            if held.wrapping_sub(number) < u32::MAX / 2 {
                // The slot is full, or this thread's reading of the clock is
                // older than another's.
                return;
            }
            let fresh = pack(number, events);
            match slot.compare_exchange(word, fresh, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Takes back an event that was added at `now`.
    pub(super) fn undo(&self, now: Timestamp) {
        let number = self.number(now);
        let slot = &self.slots[(number % SLOTS) as usize];
        let mut word = slot.load(Ordering::Relaxed);
        while let (held, 1..) = unpack(word)
            && held == number
        {
            match slot.compare_exchange(word, word - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    pub(super) fn sum(&self, now: Timestamp) -> u64 {
        let number = self.number(now);
        self.slots
            .iter()
            .map(|slot| unpack(slot.load(Ordering::Acquire)))
            .filter(|(held, _)| number.wrapping_sub(*held) < SLOTS)
            .map(|(_, count)| u64::from(count))
            .sum()
    }
}

fn pack(number: u32, count: u32) -> u64 {
    u64::from(number) << 32 | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The naive twin: a list of all events.
    #[test]
    fn it_counts_as_a_list_does() {
        for seed in 0..200 {
            let mut rng = Rng::seeded(seed);
            let window = Window::new(Duration::from_secs(10));
            let (mut events, mut millis) = (Vec::new(), 0_u64);
            for _ in 0..500 {
                let most = if rng.below(50) == 0 { 30_000 } else { 400 };
                millis += u64::from(rng.below(most));
                let now = Timestamp::from_nanos(millis * 1_000_000);
                let second = millis / 1_000;
                match rng.below(4) {
                    0 if events.last() == Some(&second) => {
                        events.pop();
                        window.undo(now);
                    }
                    _ => {
                        events.push(second);
                        window.add(now);
                    }
                }
                let expected = events.iter().filter(|&&then| then + 10 > second).count();
                assert_eq!(window.sum(now), expected as u64, "seed {seed}, {millis} ms");
            }
        }
    }

    #[test]
    fn an_undo_without_an_event_takes_nothing() {
        let window = Window::new(Duration::from_secs(10));
        window.undo(Timestamp::default());
        assert_eq!(window.sum(Timestamp::default()), 0);
    }
}
