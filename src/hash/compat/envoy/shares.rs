//! Weights as Envoy shares them out: over the localities, then over the hosts of each.

use super::super::super::TableError;
use super::super::hosts::Hosts;

/// Hosts with their shares of 1. The order of Envoy's operations on floats is kept.
#[derive(Debug)]
pub(super) struct Shares {
    /// By host; 0 where it has none.
    by_host: Vec<f64>,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

impl Shares {
    /// Without localities.
    pub(super) fn of(hosts: &Hosts) -> Result<Self, TableError> {
        Self::by_locality(hosts, &[(1, hosts.len())])
    }

    /// With a weight for each locality, whose hosts come one after another: so many of them.
    ///
    /// A locality without weight has no share. One whose hosts have none keeps its share from the
    /// others, so that shares add up to less than 1 then; Envoy does not know of one that lists no
    /// hosts.
    pub(super) fn by_locality(
        hosts: &Hosts,
        localities: &[(u32, usize)],
    ) -> Result<Self, TableError> {
        within_limit(localities.iter().map(|&(weight, _)| weight))?;
        let known = localities.iter().filter(|&&(_, count)| count > 0);
        let all: u64 = known.map(|&(weight, _)| u64::from(weight)).sum();
        if all == 0 {
            return Err(TableError::AllWeightsZero);
        }
        let mut made = Self {
            by_host: Vec::with_capacity(hosts.len()),
            least: 1.0,
            greatest: 0.0,
        };
        let mut weights = hosts.weights();
        for &(locality, count) in localities {
            let (own, rest) = weights.split_at(count);
            weights = rest;
            let total = within_limit(own.iter().copied())?;
            let part = f64::from(locality) / all as f64;
            for &weight in own {
                if weight == 0 || locality == 0 {
                    made.by_host.push(0.0);
                    continue;
                }
                let share = f64::from(weight) * part / total as f64;
                made.by_host.push(share);
                made.least = made.least.min(share);
                made.greatest = made.greatest.max(share);
            }
        }
        if made.greatest == 0.0 {
            return Err(TableError::AllWeightsZero);
        }
        Ok(made)
    }

    /// Index, name and share of each host that has one.
    pub(super) fn placed<'a>(
        &'a self,
        hosts: &'a Hosts,
    ) -> impl Iterator<Item = (u32, &'a str, f64)> {
        hosts.placed().filter_map(|(node, name, _)| {
            let share = self.by_host[node as usize];
            (share > 0.0).then_some((node, name, share))
        })
    }
}

/// A sum that Envoy refuses where it does not fit 32 bits.
fn within_limit(weights: impl Iterator<Item = u32>) -> Result<u64, TableError> {
    let (weight, limit) = (weights.map(u64::from).sum(), u64::from(u32::MAX));
    if weight > limit {
        return Err(TableError::TooMuchWeight { weight, limit });
    }
    Ok(weight)
}

/// Hosts of localities, one after another, and each locality's weight and number of hosts.
pub(super) fn flatten<S: AsRef<str>, H: IntoIterator<Item = (S, u32)>>(
    localities: impl IntoIterator<Item = (u32, H)>,
) -> Result<(Hosts, Vec<(u32, usize)>), TableError> {
    let (mut hosts, mut sizes) = (Vec::new(), Vec::new());
    for (weight, own) in localities {
        let before = hosts.len();
        hosts.extend(own);
        sizes.push((weight, hosts.len() - before));
    }
    Ok((Hosts::collect(hosts)?, sizes))
}

#[cfg(test)]
mod tests {
    use super::super::{EnvoyMaglev, EnvoyRing};
    use super::*;

    #[test]
    fn localities_without_weight_or_hosts() {
        let (a, b) = (vec![("a", 1), ("b", 3)], vec![("c", 7), ("d", 0)]);
        let shares = |localities: [(u32, Vec<(&'static str, u32)>); 3]| {
            let (hosts, sizes) = flatten(localities)?;
            Shares::by_locality(&hosts, &sizes).map(|made| made.by_host)
        };
        let none = Vec::new();
        assert_eq!(
            shares([(1, a.clone()), (2, none.clone()), (1, b.clone())]),
            Ok(vec![0.125, 0.375, 0.5, 0.0])
        );
        assert_eq!(
            shares([(1, a.clone()), (2, vec![("x", 0)]), (1, b.clone())]),
            Ok(vec![0.0625, 0.1875, 0.0, 0.25, 0.0])
        );
        assert_eq!(
            shares([(1, a.clone()), (0, b.clone()), (0, none.clone())]),
            Ok(vec![0.25, 0.75, 0.0, 0.0])
        );
        assert_eq!(
            shares([(0, a.clone()), (0, b), (0, none.clone())]),
            Err(TableError::AllWeightsZero)
        );
        // All weight is where nobody is.
        assert_eq!(
            shares([(0, a.clone()), (9, vec![("c", 0)]), (9, none.clone())]),
            Err(TableError::AllWeightsZero)
        );
        assert!(matches!(
            shares([(u32::MAX, a), (1, none.clone()), (0, none)]),
            Err(TableError::TooMuchWeight { .. })
        ));
    }

    #[test]
    fn one_locality_is_as_none() {
        let hosts = [("a", 1), ("b", 5), ("c", 2)];
        for weight in [1, 3, u32::MAX] {
            let ring = EnvoyRing::builder().build_by_locality([(weight, hosts)]);
            let maglev = EnvoyMaglev::by_locality(251, [(weight, hosts)]).unwrap();
            let flat = EnvoyMaglev::with_table_size(251, hosts).unwrap();
            assert_eq!(maglev.slots(), flat.slots());
            let (ring, flat) = (ring.unwrap(), EnvoyRing::new(hosts).unwrap());
            assert_eq!(ring.points(), flat.points());
            for hash in (0..200).map(|i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
                assert_eq!(ring.attempt(hash, 0), flat.attempt(hash, 0));
            }
        }
    }
}
