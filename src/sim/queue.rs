//! What happens next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Events by time; of those at one moment, the first entered comes first, so
/// that a run does not depend on how a heap breaks ties.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, E)>>,
    entered: u64,
    now: u64,
    /// Events of this moment, which follow those of it that are in the heap: half
    /// of all where calls take no time on their way.
    at_once: VecDeque<E>,
}

impl<E: Ord> Queue<E> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            entered: 0,
            now: 0,
            at_once: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        if at == self.now {
            self.at_once.push_back(event);
            return;
        }
        self.heap.push(Reverse((at, self.entered, event)));
        self.entered += 1;
    }

    /// When the next one is, of those that are not of this very moment.
    fn next_in_heap(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        if self.at_once.is_empty() {
            return self.next_in_heap();
        }
        Some(self.now)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        if self.next_in_heap() != Some(self.now)
            && let Some(event) = self.at_once.pop_front()
        {
            return Some((self.now, event));
        }
        let Reverse((at, _, event)) = self.heap.pop()?;
        self.now = at;
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_entered() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'd'), (0, 'a'), (5, 'e'), (0, 'b'), (3, 'c')] {
            queue.push(at, event);
        }
        let mut order = String::new();
        while let Some(at) = queue.next_at() {
            let (came, event) = queue.pop().expect("there is a next one");
            assert_eq!(came, at);
            order.push(event);
            match event {
                // For the moment at which it comes, behind `e`, and for one between.
                'd' => queue.push(5, 'f'),
                'c' => queue.push(4, '!'),
                _ => {}
            }
        }
        assert_eq!(order, "abc!def");
        assert!(queue.pop().is_none());
    }
}
