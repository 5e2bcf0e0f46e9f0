//! What the servers of a service hold these days.

use crate::sync::atomic::{AtomicU32, Ordering};

/// The mean of what the last servers that reported said they hold: what a report
/// is to be compared with. Compared with the reports of another time, a server
/// that reported before a burst of calls seems to be idle during it, and clients
/// rush there.
#[derive(Debug)]
pub(super) struct Level(AtomicU32);

/// Of the last five reports: a burst may begin within a few calls' time.
const GAIN: f32 = 1.0 / 5.0;

/// What is far above the level, which is held against it no more than this and as many times the
/// level: a server that is stuck, or takes something else for its calls, would set the level alone,
/// and beside it all others were alike.
const FAR: (f32, f32) = (16.0, 4.0);

impl Level {
    /// Takes in what one server says that it holds: as much of it as is to be believed, and by how
    /// much that is more than the level. Threads that do so at once may lose one of the two.
    pub(super) fn take(&self, said: f32) -> (f32, f32) {
        let before = f32::from_bits(self.0.load(Ordering::Relaxed));
        // The first is all there is.
        let before = if before.is_nan() {
            said.min(FAR.0)
        } else {
            before
        };
        let held = said.min(FAR.0 + FAR.1 * before);
        let level = before + (held - before) * GAIN;
        self.0.store(level.to_bits(), Ordering::Relaxed);
        (held, held - level)
    }
}

impl Default for Level {
    /// Not known.
    fn default() -> Self {
        Self(AtomicU32::new(f32::NAN.to_bits()))
    }
}

#[cfg(all(test, not(waypost_loom)))]
#[expect(clippy::float_cmp, reason = "these are exact")]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_compared_with_those_of_its_time() {
        let level = Level::default();
        assert_eq!(level.take(10.0), (10.0, 0.0));
        assert_eq!(level.take(20.0), (20.0, 8.0));
        for _ in 0..30 {
            level.take(100.0);
        }
        assert!(level.take(100.0).1 < 0.2);
        assert!(level.take(50.0).1 < -35.0);
    }

    #[test]
    fn one_that_says_what_cannot_be_does_not_set_the_level() {
        for said in [1e9, f32::MAX, f32::INFINITY] {
            let level = Level::default();
            level.take(said);
            for round in 0..200 {
                let (held, _) = level.take(said);
                assert!(held < 150.0, "{round}: {held}");
                let honest = (0..9).map(|_| level.take(5.0).1);
                let least = honest.fold(0.0, f32::min);
                assert!(least > -50.0, "{round}: {least}");
            }
            // What is in truth as high comes to be believed.
            let believed = (0..100).find(|_| level.take(1_000.0).0 == 1_000.0);
            assert!(believed.is_some());
        }
    }
}
