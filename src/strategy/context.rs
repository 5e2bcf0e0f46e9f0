//! What a picker knows of the call, and of the thread that makes it.

use super::Tried;
use crate::rng::Rng;
use crate::view::{NodeIndex, View};

/// What a pick is made with: randomness, the thread's place in the turn, the
/// call's hash key, and what the call has tried.
#[derive(Debug)]
pub struct PickContext<'a> {
    rng: &'a mut Rng,
    cursor: &'a mut u64,
    tried: &'a Tried,
    hash: Option<u64>,
}

impl<'a> PickContext<'a> {
    /// A context for one pick. `cursor` is whatever the picker left in it
    /// after the thread's last pick; begin with a random number, so that many
    /// clients do not walk in step.
    #[inline]
    pub fn new(rng: &'a mut Rng, cursor: &'a mut u64, tried: &'a Tried) -> Self {
        Self {
            rng,
            cursor,
            tried,
            hash: None,
        }
    }

    /// The same with the hash of the call's key, for strategies that keep
    /// equal keys together.
    #[must_use]
    #[inline]
    pub fn with_hash(mut self, hash: Option<u64>) -> Self {
        self.hash = hash;
        self
    }

    /// The random source.
    #[inline]
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// A number that the thread keeps from pick to pick of this balancer, also
    /// across changes of the set. Its meaning is the strategy's.
    #[inline]
    pub fn cursor(&mut self) -> &mut u64 {
        self.cursor
    }

    /// What the call has tried.
    #[must_use]
    #[inline]
    pub fn tried(&self) -> &Tried {
        self.tried
    }

    /// The hash of the call's key, if it has one.
    #[must_use]
    #[inline]
    pub fn hash(&self) -> Option<u64> {
        self.hash
    }

    /// Whether the call may go to that node: it exists, and was not tried.
    #[must_use]
    #[inline]
    pub fn may_pick(&self, view: &View, index: NodeIndex) -> bool {
        self.tried.is_empty() || !self.tried.contains(view.node(index).key())
    }

    /// `index` if the call may go there, else the next node after it, in turn,
    /// that it may go to. O(nodes tried).
    #[must_use]
    #[inline]
    pub fn first_untried(&self, view: &View, index: NodeIndex) -> Option<NodeIndex> {
        if index < view.len() && self.may_pick(view, index) {
            return Some(index);
        }
        self.next_untried(view, index)
    }

    /// Kept apart: few calls come here, and it would bloat every pick.
    #[cold]
    fn next_untried(&self, view: &View, index: NodeIndex) -> Option<NodeIndex> {
        let start = index.min(view.len());
        (start..view.len())
            .chain(0..start)
            .find(|&index| self.may_pick(view, index))
    }
}
