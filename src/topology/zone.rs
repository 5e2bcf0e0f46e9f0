//! Calls stay in the caller's zone as far as its capacity goes.
//!
//! A call to another zone costs a millisecond and money. But to keep all of them
//! at home would overload a zone with many clients and few servers. Envoy's
//! rule: compare the share of clients in a zone with its share of the servers.
//! Where servers are plenty, all calls stay; where they are not, only as many as
//! the servers' share allows, and the rest goes where servers are plenty, in
//! proportion to what is left there. In sum every server gets its fair share.
//!
//! The shares depend on capacity alone and never on the load, so that there is
//! nothing to swing back and forth.
//!
//! ```
//! use waypost::topology::zone::shares;
//!
//! // Clients in three zones alike; of the servers, one in six is at home.
//! let home = shares(0, &[1.0, 1.0, 1.0], &[1.0, 3.0, 2.0]);
//! assert!((home[0] - 0.5).abs() < 1e-9); // (1/6) / (1/3)
//! assert!((home[1] - 0.5).abs() < 1e-9); // the one zone with room: 1/2 > 1/3
//! assert!(home[2].abs() < 1e-9);         // 1/3 = 1/3, just enough for its own
//! ```

/// The share of the calls of a client in zone `own` that goes to each zone,
/// from the number of clients and the capacity of servers in each. O(zones).
///
/// # Panics
///
/// When the lists differ in length, or `own` is not in them.
#[must_use]
pub fn shares(own: usize, clients: &[f64], servers: &[f64]) -> Vec<f64> {
    assert_eq!(clients.len(), servers.len(), "one figure for each zone");
    let (clients, servers) = (fractions(clients), fractions(servers));
    let mut shares = vec![0.0; clients.len()];
    // A third is a third, however it was summed up.
    if servers[own] + 1e-9 >= clients[own] {
        shares[own] = 1.0;
        return shares;
    }
    shares[own] = servers[own] / clients[own];
    let left = 1.0 - shares[own];
    let room: Vec<f64> = servers
        .iter()
        .zip(&clients)
        .map(|(servers, clients)| (servers - clients).max(0.0))
        .collect();
    let all: f64 = room.iter().sum();
    for (share, room) in shares.iter_mut().zip(&room) {
        *share += left * room / all;
    }
    shares
}

fn fractions(counts: &[f64]) -> Vec<f64> {
    let all: f64 = counts.iter().sum();
    let of = |count: &f64| if all > 0.0 { count / all } else { 0.0 };
    counts.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The point of it: whatever the zones, each server gets the same.
    #[test]
    fn in_sum_every_server_gets_its_fair_share() {
        let mut rng = Rng::seeded(3);
        for _ in 0..2_000 {
            let zones = 2 + rng.below(4) as usize;
            let mut draw = |least: u32| -> Vec<f64> {
                (0..zones)
                    .map(|_| f64::from(least + rng.below(20)))
                    .collect()
            };
            let (clients, servers) = (draw(1), draw(1));
            let mut got = vec![0.0; zones];
            let all: f64 = clients.iter().sum();
            for own in 0..zones {
                let shares = shares(own, &clients, &servers);
                assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                for (got, share) in got.iter_mut().zip(&shares) {
                    *got += share * clients[own] / all;
                }
            }
            for (got, server) in got.iter().zip(fractions(&servers)) {
                assert!((got - server).abs() < 1e-9, "{clients:?} {servers:?}");
            }
        }
    }

    #[test]
    fn a_zone_without_servers_sends_everything_away() {
        let shares = shares(0, &[1.0, 1.0, 1.0], &[0.0, 2.0, 2.0]);
        assert!((shares[1] - 0.5).abs() < 1e-9 && (shares[2] - 0.5).abs() < 1e-9);
    }
}
