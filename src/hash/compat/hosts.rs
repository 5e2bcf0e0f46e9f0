//! The hosts of a table, checked once for all systems.

use super::super::TableError;

/// The most points a table takes: 2²⁶, which are 0.5 GiB of 32-bit places and nodes, and as much
/// again while they are sorted. None of the systems has such a limit but Envoy (2²³ points); the
/// others run out of memory instead.
pub(super) const MAX_POINTS: u64 = 1 << 26;

/// Hosts in the order in which they were given, at least one of them with a weight above zero.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    names: Box<[Box<str>]>,
    weights: Box<[u32]>,
}

impl Hosts {
    pub(super) fn collect<S: AsRef<str>>(
        hosts: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Self, TableError> {
        let (names, weights): (Vec<Box<str>>, Vec<u32>) = hosts
            .into_iter()
            .map(|(name, weight)| (name.as_ref().into(), weight))
            .unzip();
        if names.is_empty() {
            return Err(TableError::NoNodes);
        }
        let (nodes, limit) = (names.len() as u64, u64::from(u32::MAX));
        if nodes > limit {
            return Err(TableError::TooManyNodes { nodes, limit });
        }
        if weights.iter().all(|&weight| weight == 0) {
            return Err(TableError::AllWeightsZero);
        }
        Ok(Self {
            names: names.into(),
            weights: weights.into(),
        })
    }

    /// Refuses two hosts of the same name, unless one of them weighs nothing.
    pub(super) fn refuse_duplicates(&self) -> Result<(), TableError> {
        let mut names: Vec<&str> = self.placed().map(|(_, name, _)| name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => Err(TableError::DuplicateNode {
                name: pair[0].to_owned(),
            }),
        }
    }

    /// Index, name and weight of each host that weighs something.
    pub(super) fn placed(&self) -> impl Iterator<Item = (u32, &str, u32)> {
        (0..)
            .zip(&self.names)
            .zip(&self.weights)
            .filter(|&(_, &weight)| weight > 0)
            .map(|((node, name), &weight)| (node, &**name, weight))
    }

    /// The sum of all weights; it fits, as neither the number of hosts nor a weight exceeds 32 bits.
    pub(super) fn total_weight(&self) -> u64 {
        self.weights.iter().map(|&weight| u64::from(weight)).sum()
    }

    /// The weights by index.
    pub(super) fn weights(&self) -> &[u32] {
        &self.weights
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, node: u32) -> Option<&str> {
        self.names.get(node as usize).map(|name| &**name)
    }

    pub(super) fn weight(&self, node: u32) -> Option<u32> {
        self.weights.get(node as usize).copied()
    }
}

/// Refuses more points than [`MAX_POINTS`].
pub(super) fn points_within_limit(points: u64) -> Result<usize, TableError> {
    if points > MAX_POINTS {
        return Err(TableError::TooManyPoints {
            points,
            limit: MAX_POINTS,
        });
    }
    Ok(points as usize)
}
