//! Rocksteadier: deterministic subsets that are even and change little (Ward,
//! Wankadia and Kavita, "Reinventing Backend Subsetting at Google", ACM Queue
//! 20(5), 2022).

use crate::rng::Rng;

/// Clients and endpoints are dealt with in lots of ten, the paper's choice: the
/// ten clients of a lot take one endpoint each of every lot they walk past, so
/// that ten consecutive restarts hit ten different clients' subsets alike.
const LOT: usize = 10;

/// The positions of the endpoints, of `n`, that a client uses. Clients are
/// numbered from 0 without gaps. O(n).
#[must_use]
pub fn rocksteadier(client: u64, n: usize, size: usize) -> Vec<usize> {
    let size = size.min(n);
    let (client_lot, column) = (client / LOT as u64, (client % LOT as u64) as usize);
    let lots = ring(n.div_ceil(LOT));
    let start = position(client_lot);
    let first = lots.partition_point(|&lot| position(lot as u64) < start);
    let walk: Vec<usize> = lots[first..]
        .iter()
        .chain(&lots[..first])
        .copied()
        .collect();
    let mut chosen = Vec::with_capacity(size);
    // Another round, one column on, only where most lots were walked past and
    // the last of them is not full.
    for round in 0..LOT {
        for &lot in &walk {
            if chosen.len() == size {
                return chosen;
            }
            let at = lot * LOT + shuffled(client_lot, lot)[(column + round) % LOT];
            if at < n {
                chosen.push(at);
            }
        }
    }
    chosen
}

/// The lots in the order of their places on the ring.
fn ring(lots: usize) -> Vec<usize> {
    let mut ring: Vec<usize> = (0..lots).collect();
    ring.sort_by_key(|&lot| position(lot as u64));
    ring
}

/// The place of the n-th on a ring of 2^64: van der Corput's sequence in base
/// 2, which halves the widest gap each time. A new one moves nobody.
fn position(n: u64) -> u64 {
    n.reverse_bits()
}

/// The order of a lot of endpoints for a lot of clients.
fn shuffled(client_lot: u64, lot: usize) -> [usize; LOT] {
    let mut order: [usize; LOT] = std::array::from_fn(|at| at);
    let mut rng = Rng::seeded(client_lot.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ lot as u64);
    // The first draws of neighbouring seeds are alike.
    rng.bits();
    for at in (1..LOT).rev() {
        order.swap(at, rng.below(at as u32 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_subset_is_of_its_size_and_holds_nothing_twice() {
        for n in [1, 7, 10, 11, 95, 1_000] {
            for size in [1, 5, 20, 2_000] {
                for client in 0..50 {
                    let subset = rocksteadier(client, n, size);
                    let distinct: BTreeSet<_> = subset.iter().collect();
                    assert_eq!(subset.len(), size.min(n), "{client} {n} {size}");
                    assert_eq!(distinct.len(), subset.len());
                }
            }
        }
    }

    #[test]
    fn every_endpoint_has_about_as_many_clients() {
        for (clients, n, size) in [
            (100, 300, 30),
            (64, 640, 20),
            (200, 1_000, 20),
            (37, 93, 12),
        ] {
            let mut load = vec![0_usize; n];
            for client in 0..clients {
                for at in rocksteadier(client, n, size) {
                    load[at] += 1;
                }
            }
            let mean = clients as usize * size / n;
            let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
            assert!(
                most - least <= mean / 2 + 3,
                "{clients} {n} {size}: {least} to {most}"
            );
        }
    }

    #[test]
    fn a_new_endpoint_changes_few_of_a_subset() {
        let mut changed = 0;
        for client in 0..100 {
            for n in 200..300 {
                let before: BTreeSet<_> = rocksteadier(client, n, 20).into_iter().collect();
                let after: BTreeSet<_> = rocksteadier(client, n + 1, 20).into_iter().collect();
                changed += before.difference(&after).count();
            }
        }
        // 10,000 changes of a set, each of which must add 20/n of an endpoint,
        // 0.08, to a subset at the least.
        assert!(changed < 2_000, "{changed}");
    }

    #[test]
    fn ten_neighbours_that_restart_are_not_one_clients() {
        for client in 0..100 {
            let subset = rocksteadier(client, 300, 20);
            for first in 0..290 {
                let hit = subset
                    .iter()
                    .filter(|&&at| (first..first + 10).contains(&at));
                assert!(hit.count() <= 2, "client {client} from {first}");
            }
        }
    }
}
