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

impl Level {
    /// Takes in what one server holds, and tells by how much it is more than the
    /// level. Threads that do so at once may lose one of the two.
    pub(super) fn surplus(&self, held: f32) -> f32 {
        let before = f32::from_bits(self.0.load(Ordering::Relaxed));
        let level = if before.is_nan() {
            held
        } else {
            before + (held - before) * GAIN
        };
        self.0.store(level.to_bits(), Ordering::Relaxed);
        held - level
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
        assert_eq!(level.surplus(10.0), 0.0);
        assert_eq!(level.surplus(20.0), 8.0);
        for _ in 0..30 {
            level.surplus(100.0);
        }
        assert!(level.surplus(100.0) < 0.2);
        assert!(level.surplus(50.0) < -35.0);
    }
}
