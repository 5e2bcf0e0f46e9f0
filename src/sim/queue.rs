//! What happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time; of those at one moment, the first entered comes first, so
/// that a run does not depend on how a heap breaks ties.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, E)>>,
    entered: u64,
}

impl<E: Ord> Queue<E> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            entered: 0,
        }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.heap.push(Reverse((at, self.entered, event)));
        self.entered += 1;
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, event)) = self.heap.pop()?;
        Some((at, event))
    }
}
