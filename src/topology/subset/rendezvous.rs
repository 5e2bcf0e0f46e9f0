//! Random subsets that change as little as can be.

use crate::hash::key_hash;
use crate::rng::Rng;

/// The positions of the `size` endpoints whose ids, hashed with the client's own
/// seed, rank highest (gRPC's `random_subsetting`, proposal A68): an endpoint
/// that comes or goes changes at most one. O(n log n).
#[must_use]
pub fn rendezvous(seed: u64, ids: &[&str], size: usize) -> Vec<usize> {
    let mut ranked: Vec<(u64, usize)> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| (rank(seed, id), at))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, at)| at).take(size).collect()
}

fn rank(seed: u64, id: &str) -> u64 {
    let mut mixed = Rng::seeded(key_hash(id.as_bytes()) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed.bits();
    mixed.bits()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_endpoint_that_leaves_changes_at_most_one() {
        let names: Vec<String> = (0..50).map(|i| format!("10.0.0.{i}:80")).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        for seed in 0..200 {
            let chosen = |ids: &[&str]| -> BTreeSet<String> {
                let subset = rendezvous(seed, ids, 10);
                subset.into_iter().map(|at| ids[at].to_owned()).collect()
            };
            let before = chosen(&ids);
            for gone in 0..ids.len() {
                let mut rest = ids.clone();
                let id = rest.remove(gone);
                let after = chosen(&rest);
                let lost = before.difference(&after).count();
                assert_eq!(lost, usize::from(before.contains(id)));
            }
        }
    }

    #[test]
    fn seeds_spread_clients_over_all() {
        let names: Vec<String> = (0..50).map(|i| format!("e{i}")).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut load = vec![0; 50];
        for seed in 0..5_000 {
            for at in rendezvous(seed, &ids, 10) {
                load[at] += 1;
            }
        }
        // 1,000 each; five standard deviations of a binomial are 141.
        assert!(
            load.iter().all(|load| (859..1_141).contains(load)),
            "{load:?}"
        );
    }
}
