//! The endpoints that reported last.

use std::time::Duration;

use super::latency::{of_ticks, tick_of};
use super::level::Level;
use super::peak::elapsed;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// The last reports that came to one balancer, whichever endpoints they are of: Prequal's pool of
/// probes, with the paper's sixteen (NSDI'24).
///
/// A slot is one word, the endpoint's row, how often it was used, and when the report came; what the
/// report said is in the endpoint's stats. Threads that change a slot at once may lose one of the
/// changes, which costs a report its place or gives it one use more.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    slots: [AtomicU64; Self::SLOTS],
    pub(super) level: Level,
}

/// A report in its slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    slot: usize,
    word: u64,
}

const EMPTY: u64 = 0;
const USE: u64 = 1 << 32;
const ROW_SHIFT: u32 = 40;

impl Recent {
    pub(crate) const SLOTS: usize = 16;

    /// In the place of the same endpoint's last, else where nothing is, else of the oldest.
    pub(super) fn add(&self, row: u32, now: Timestamp) {
        // Never 0, which is no entry.
        let tick = tick_of(now).max(1);
        let worth = |word: u64| match word {
            word if word != EMPTY && row_of(word) == row => u32::MAX,
            EMPTY => u32::MAX - 1,
            word => elapsed(word as u32, tick).min(u32::MAX - 2),
        };
        let replaced = self
            .slots
            .iter()
            .max_by_key(|slot| worth(slot.load(Ordering::Relaxed)));
        if let Some(slot) = replaced {
            let word = u64::from(row) << ROW_SHIFT | u64::from(tick);
            slot.store(word, Ordering::Relaxed);
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        let entries = words.enumerate().map(|(slot, word)| Entry { slot, word });
        entries.filter(|entry| entry.word != EMPTY)
    }

    /// Counts a use, of which there may be so many.
    pub(crate) fn use_up(&self, entry: Entry, most: u32) {
        let next = if entry.uses() + 1 < most {
            entry.word + USE
        } else {
            EMPTY
        };
        self.replace(entry, next);
    }

    pub(crate) fn remove(&self, entry: Entry) {
        self.replace(entry, EMPTY);
    }

    /// Unless it has become another meanwhile.
    fn replace(&self, entry: Entry, next: u64) {
        let (relaxed, slot) = (Ordering::Relaxed, &self.slots[entry.slot]);
        let _ = slot.compare_exchange(entry.word, next, relaxed, relaxed);
    }
}

impl Entry {
    /// Whose it is, as [`EndpointStats::row`](super::EndpointStats::row) has it.
    pub(crate) fn row(self) -> u32 {
        row_of(self.word)
    }

    pub(crate) fn age(self, now: Timestamp) -> Duration {
        of_ticks(elapsed(self.word as u32, tick_of(now)))
    }

    fn uses(self) -> u32 {
        (self.word >> 32) as u32 & 0xFF
    }
}

fn row_of(word: u64) -> u32 {
    (word >> ROW_SHIFT) as u32
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    fn rows(recent: &Recent) -> Vec<u32> {
        let mut rows: Vec<u32> = recent.entries().map(Entry::row).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn the_newest_of_each_endpoint_is_kept_and_the_oldest_makes_room() {
        let recent = Recent::default();
        for row in 0..16 {
            recent.add(row, at(u64::from(row)));
        }
        recent.add(3, at(100));
        assert_eq!(rows(&recent), (0..16).collect::<Vec<_>>());
        let third = recent.entries().find(|entry| entry.row() == 3).unwrap();
        assert!(third.age(at(101)) < Duration::from_millis(2));
        recent.add(20, at(101));
        recent.add(21, at(102));
        assert_eq!(rows(&recent)[..2], [2, 3], "0 and 1 were the oldest");
        assert_eq!(rows(&recent)[14..], [20, 21]);
    }

    #[test]
    fn one_that_is_used_up_or_removed_makes_room_first() {
        let recent = Recent::default();
        for row in 0..16 {
            recent.add(row, at(1));
        }
        let of = |row| recent.entries().find(|entry| entry.row() == row);
        recent.use_up(of(5).unwrap(), 2);
        let used_once = of(5).unwrap();
        recent.use_up(used_once, 2);
        assert!(of(5).is_none());
        // By who has seen it before that.
        recent.remove(used_once);
        recent.add(40, at(2));
        recent.use_up(used_once, 2);
        assert_eq!(rows(&recent)[15], 40);
        recent.remove(of(40).unwrap());
        assert_eq!(rows(&recent).len(), 15);
    }
}
