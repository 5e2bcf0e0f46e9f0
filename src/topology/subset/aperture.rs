//! Finagle's deterministic aperture: every client takes an arc of the ring, and
//! the arcs cover it evenly.

/// The share of each of `n` endpoints that a client uses: clients and endpoints
/// lie on the same ring, and the client takes an arc that begins at its own
/// place and is long enough for `least` endpoints; one that the arc covers in
/// part counts for that part. Arcs are whole multiples of the clients'
/// distance, so that they cover the ring exactly. O(n).
///
/// ```
/// use waypost::topology::subset::aperture;
///
/// // Ten clients of a hundred endpoints: an arc of 20 each, as in Finagle.
/// let shares = aperture(3, 10, 100, 12);
/// assert_eq!(shares.iter().filter(|&&share| share > 0.0).count(), 20);
/// ```
#[must_use]
pub fn aperture(client: u64, clients: u64, n: usize, least: usize) -> Vec<f64> {
    if n == 0 {
        return Vec::new();
    }
    let unit = 1.0 / clients.max(1) as f64;
    let arc = 1.0 / n as f64;
    // Rounding must not widen the arc by a client's distance: 0.12 / 0.02 is a
    // little above 6.
    let units = (least.min(n) as f64 * arc / unit - 1e-9).ceil();
    let width = (units * unit).min(1.0);
    let begin = (client % clients.max(1)) as f64 * unit;
    let overlap = |from: f64, to: f64| {
        let within = |begin: f64| (to.min(begin + width) - from.max(begin)).max(0.0);
        // An arc that passes the ring's end goes on at its beginning.
        within(begin) + within(begin - 1.0)
    };
    let share = |at: usize| {
        let share = overlap(at as f64 * arc, (at + 1) as f64 * arc) / arc;
        // What rounding made of nothing and of all.
        match share {
            share if share < 1e-6 => 0.0,
            share if share > 1.0 - 1e-6 => 1.0,
            share => share,
        }
    };
    (0..n).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples in the comments of Finagle's `DeterministicAperture`.
    #[test]
    fn finagles_examples() {
        for (clients, n, used) in [(10, 100, 20), (50, 1_000, 20), (7, 1_000, 143)] {
            let shares = aperture(0, clients, n, 12);
            let count = shares.iter().filter(|&&share| share > 0.0).count();
            assert_eq!(count, used, "{clients} clients, {n} endpoints");
        }
    }

    #[test]
    fn the_clients_together_cover_every_endpoint_alike() {
        for (clients, n) in [(10, 100), (7, 23), (50, 13), (3, 1_000)] {
            let mut covered = vec![0.0; n];
            for client in 0..clients {
                let shares = aperture(client, clients, n, 12);
                for (covered, share) in covered.iter_mut().zip(shares) {
                    *covered += share;
                }
            }
            let mean = covered.iter().sum::<f64>() / n as f64;
            let even = covered.iter().all(|covered| (covered - mean).abs() < 1e-4);
            assert!(even, "{clients} {n}: {covered:?}");
        }
    }
}
