//! Node indices in an array that is as narrow as their number allows.

/// Indices of 16 bits where all fit, else of 32: half the memory is half the cache misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compact {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Compact {
    /// `len` times the index 0, wide enough for indices below `nodes`.
    pub(super) fn new(len: usize, nodes: usize) -> Self {
        if nodes <= 1 << 16 {
            Self::Narrow(vec![0; len].into())
        } else {
            Self::Wide(vec![0; len].into())
        }
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> u32 {
        match self {
            Self::Narrow(ids) => ids[at].into(),
            Self::Wide(ids) => ids[at],
        }
    }

    pub(super) fn set(&mut self, at: usize, node: u32) {
        match self {
            Self::Narrow(ids) => ids[at] = node as u16,
            Self::Wide(ids) => ids[at] = node,
        }
    }

    pub(super) fn heap(&self) -> usize {
        match self {
            Self::Narrow(ids) => size_of_val(&**ids),
            Self::Wide(ids) => size_of_val(&**ids),
        }
    }
}
