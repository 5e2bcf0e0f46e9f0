//! How calls are spread over priority levels, and when health is no longer
//! believed.
//!
//! A level takes all calls until so many of its endpoints are ill that the rest
//! would be overloaded: with an overprovisioning factor of 1.4, as long as 72 %
//! are well. Below that, what is missing spills to the next level, in
//! proportion. These are Envoy's rules, to the integer.
//!
//! When less than a threshold of a level (50 %) is well, and the levels together
//! cannot carry all calls, the figures are no longer believed: **panic**. It is
//! likelier that the client, or its network, is ill, and to crowd all calls onto
//! the few that are left would take them down too.
//!
//! ```
//! use waypost::topology::priority::{Level, spread};
//!
//! // Half of the first level is well: 0.5 · 1.4 = 70 %.
//! let spread = spread(&[Level::new(5, 10), Level::new(10, 10)], 140, Some(50));
//! assert_eq!(spread.loads, [70, 30]);
//! assert_eq!(spread.panic, [false, false]);
//! ```

/// How well a level is, in endpoints or in weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Level {
    /// What is well of it.
    pub healthy: u64,
    /// What it can carry now: what is well, less what endpoints that have just
    /// come back do not carry yet.
    pub ready: u64,
    /// All of it.
    pub total: u64,
}

impl Level {
    /// A level of which so much is well, and ready.
    #[must_use]
    pub const fn new(healthy: u64, total: u64) -> Self {
        Self {
            healthy,
            ready: healthy,
            total,
        }
    }

    /// Of what is well, so much is ready.
    #[must_use]
    pub const fn ready(mut self, ready: u64) -> Self {
        self.ready = ready;
        self
    }
}

/// What each level gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Percent of all calls; 100 in sum, unless there is no level.
    pub loads: Vec<u32>,
    /// Whether its health is not believed.
    pub panic: Vec<bool>,
}

/// Spreads calls over levels, the most preferred first; `overprovisioning` in
/// percent, the panic threshold too. O(levels).
#[must_use]
pub fn spread(levels: &[Level], overprovisioning: u32, threshold: Option<u32>) -> Spread {
    let capacity: Vec<u32> = levels
        .iter()
        .map(|l| capacity(*l, overprovisioning))
        .collect();
    let norm = capacity.iter().sum::<u32>().min(100);
    let panics = |level: &Level| {
        threshold.is_some_and(|threshold| {
            norm < 100 && level.healthy * 100 < u64::from(threshold) * level.total
        })
    };
    let panic: Vec<bool> = levels.iter().map(panics).collect();
    let occupied = |level: &Level| level.total > 0;
    let all_panic = levels
        .iter()
        .zip(&panic)
        .all(|(level, panic)| *panic || !occupied(level));
    let loads = if all_panic && levels.iter().any(occupied) {
        // Nothing is believed of any: by what there is of each.
        let all: u64 = levels.iter().map(|level| level.total).sum();
        let parts = levels.iter().map(|l| (l.total * 100 / all) as u32);
        fill(parts.collect(), |at| occupied(&levels[at]))
    } else if norm == 0 {
        // Nothing is well, and panic is off: the first level refuses.
        let parts = levels.iter().map(|_| 0).collect();
        fill(parts, |at| occupied(&levels[at]))
    } else {
        let mut left = 100;
        let parts = capacity.iter().map(|&capacity| {
            let load = (capacity * 100 / norm).min(left);
            left -= load;
            load
        });
        fill(parts.collect(), |at| capacity[at] > 0)
    };
    Spread { loads, panic }
}

/// The percent of all calls that a level could take.
fn capacity(level: Level, overprovisioning: u32) -> u32 {
    if level.total == 0 {
        return 0;
    }
    let capacity = u64::from(overprovisioning) * level.ready / level.total;
    capacity.min(100) as u32
}

/// Gives what rounding left to the first that can take it.
fn fill(mut loads: Vec<u32>, can_take: impl Fn(usize) -> bool) -> Vec<u32> {
    let missing = 100_u32.saturating_sub(loads.iter().sum());
    if let Some(first) = (0..loads.len()).find(|&at| can_take(at)) {
        loads[first] += missing;
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels<const N: usize>(healthy: [u64; N]) -> [Level; N] {
        healthy.map(|healthy| Level::new(healthy, 100))
    }

    /// The tables of Envoy's documentation, "Priority levels": two levels, and
    /// three.
    #[test]
    fn envoys_tables_of_priority_levels() {
        for (healthy, loads) in [
            ([100, 100], [100, 0]),
            ([72, 100], [100, 0]),
            ([71, 100], [99, 1]),
            ([50, 100], [70, 30]),
            ([25, 100], [35, 65]),
            ([0, 100], [0, 100]),
            ([25, 25], [50, 50]),
        ] {
            let spread = spread(&levels(healthy), 140, None);
            assert_eq!(spread.loads, loads, "{healthy:?}");
        }
        for (healthy, loads) in [
            ([100, 100, 100], [100, 0, 0]),
            ([72, 72, 100], [100, 0, 0]),
            ([71, 71, 100], [99, 1, 0]),
            ([50, 50, 100], [70, 30, 0]),
            ([25, 100, 100], [35, 65, 0]),
            ([25, 25, 100], [35, 35, 30]),
        ] {
            let spread = spread(&levels(healthy), 140, None);
            assert_eq!(spread.loads, loads, "{healthy:?}");
        }
    }

    /// The table of Envoy's documentation, "Panic threshold", with the default
    /// of 50 %; with the loads that Envoy's code computes, which in two rows are
    /// not those of the table (50/50 for 50 and 60 %, 7/93 for 5 and 65 %).
    #[test]
    fn envoys_table_of_panic() {
        for (healthy, loads, panic) in [
            ([72, 72], [100, 0], [false, false]),
            ([71, 71], [99, 1], [false, false]),
            ([50, 60], [70, 30], [false, false]),
            ([25, 100], [35, 65], [false, false]),
            ([25, 25], [50, 50], [true, true]),
            ([5, 65], [8, 92], [true, false]),
        ] {
            let spread = spread(&levels(healthy), 140, Some(50));
            assert_eq!(
                (&spread.loads[..], &spread.panic[..]),
                (&loads[..], &panic[..])
            );
        }
    }

    #[test]
    fn in_total_panic_load_follows_what_there_is() {
        let (small, large) = (Level::new(0, 25), Level::new(1, 75));
        let spread = spread(&[small, large], 140, Some(50));
        assert_eq!(
            (&spread.loads[..], &spread.panic[..]),
            (&[25, 75][..], &[true, true][..])
        );
    }

    /// A level that comes back takes its calls back as fast as it is ready.
    #[test]
    fn a_level_that_is_well_but_not_ready_spills_and_is_not_in_panic() {
        let cold = Level::new(100, 100).ready(10);
        let spread = spread(&[cold, Level::new(100, 100)], 140, Some(50));
        assert_eq!(
            (&spread.loads[..], &spread.panic[..]),
            (&[14, 86][..], &[false, false][..])
        );
    }

    #[test]
    fn loads_make_up_a_hundred_whatever_is_ill() {
        let mut rng = crate::rng::Rng::seeded(1);
        for _ in 0..10_000 {
            let n = 1 + rng.below(5) as usize;
            let levels: Vec<Level> = (0..n)
                .map(|_| {
                    let total = u64::from(rng.below(20));
                    let healthy = u64::from(rng.below(total as u32 + 1));
                    Level::new(healthy, total)
                })
                .collect();
            let threshold = [None, Some(50)][rng.below(2) as usize];
            let spread = spread(&levels, 140, threshold);
            let occupied = levels.iter().any(|level| level.total > 0);
            let sum: u32 = spread.loads.iter().sum();
            assert_eq!(sum, if occupied { 100 } else { 0 }, "{levels:?}");
            for (level, (&load, &panic)) in
                levels.iter().zip(spread.loads.iter().zip(&spread.panic))
            {
                let carries = level.healthy > 0 || panic;
                let any = levels.iter().any(|level| level.healthy > 0);
                assert!(load == 0 || carries || !any, "{levels:?} {spread:?}");
            }
        }
    }
}
