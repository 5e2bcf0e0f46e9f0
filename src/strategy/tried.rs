//! What a call has tried already.

use crate::view::NodeKey;

/// The endpoints that a call has tried, so that its next attempt goes
/// elsewhere.
///
/// The first [`Tried::INLINE`] are kept without an allocation; few calls try
/// more.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    inline: [Option<NodeKey>; Tried::INLINE],
    more: Vec<NodeKey>,
}

impl Tried {
    /// How many endpoints fit without an allocation.
    pub const INLINE: usize = 4;

    /// Nothing tried yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inline: [None; Self::INLINE],
            more: Vec::new(),
        }
    }

    /// Remembers an endpoint.
    pub fn insert(&mut self, key: NodeKey) {
        if self.contains(key) {
            return;
        }
        match self.inline.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(key),
            None => self.more.push(key),
        }
    }

    /// Whether it was tried. O(number tried).
    #[must_use]
    #[inline]
    pub fn contains(&self, key: NodeKey) -> bool {
        !self.is_empty() && (self.inline.contains(&Some(key)) || self.more.contains(&key))
    }

    /// Whether nothing was tried.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.inline[0].is_none()
    }

    /// How many were tried.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inline.iter().flatten().count() + self.more.len()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn each_key_is_kept_once_however_many() {
        let key = |n| NodeKey(NonZeroU64::new(n).expect("they begin with 1"));
        let mut tried = Tried::new();
        assert!(tried.is_empty() && !tried.contains(key(1)));
        for round in 0..2 {
            for n in 1..=10 {
                assert_eq!(tried.contains(key(n)), round == 1);
                tried.insert(key(n));
            }
        }
        assert_eq!(tried.len(), 10);
        assert!(!tried.contains(key(11)));
    }
}
