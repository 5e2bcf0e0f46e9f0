//! A ramp for endpoints that are new or back.
//!
//! A server that has just started is slow: its caches are empty, its code is not
//! compiled yet, its connections are not made. Its weight grows over a window,
//! by Envoy's formula:
//!
//! `weight · max(min_weight, (t / window)^(1 / aggression))`
//!
//! ```
//! use std::time::Duration;
//! use waypost::health::slow_start::SlowStart;
//!
//! let ramp = SlowStart::new(Duration::from_secs(10));
//! assert_eq!(ramp.factor(Duration::ZERO), 0.1);
//! assert_eq!(ramp.factor(Duration::from_secs(5)), 0.5);
//! assert_eq!(ramp.factor(Duration::from_secs(10)), 1.0);
//! ```

use std::time::Duration;

use crate::error::Error;

/// How the weight of an endpoint that is new or back grows.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SlowStart {
    window: Duration,
    aggression: f64,
    min_weight: f64,
}

impl SlowStart {
    /// A linear ramp over `window`, from 10 % (Envoy's figures).
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            aggression: 1.0,
            min_weight: 0.1,
        }
    }

    /// Above 1, the weight grows fast at first; below, slowly. 1 by default.
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression;
        self
    }

    /// The share of its weight that an endpoint begins with, 0.1 by default.
    pub fn min_weight(mut self, share: f64) -> Self {
        self.min_weight = share;
        self
    }

    /// How long the ramp is.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The share of its weight that an endpoint has that has been admitted for
    /// so long: from the minimum to 1, never falling.
    #[must_use]
    pub fn factor(&self, admitted: Duration) -> f64 {
        if admitted >= self.window {
            return 1.0;
        }
        // At least 1 ms, as Envoy has it: with an aggression that is large,
        // the power of 0 would be a step.
        let time = admitted.max(Duration::from_millis(1)).as_secs_f64();
        let grown = (time / self.window.as_secs_f64()).powf(1.0 / self.aggression);
        grown.clamp(self.min_weight, 1.0)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(self.aggression.is_finite() && self.aggression > 0.0) {
            let reason = "must be a number above 0; 1 is linear";
            return Err(Error::invalid(
                "slow_start.aggression",
                self.aggression,
                reason,
            ));
        }
        if !(self.min_weight > 0.0 && self.min_weight <= 1.0) {
            let reason = "must be a share above 0 and at most 1, such as 0.1";
            return Err(Error::invalid(
                "slow_start.min_weight",
                self.min_weight,
                reason,
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_the_formula_and_never_falls() {
        for aggression in [0.5, 1.0, 2.0] {
            let ramp = SlowStart::new(Duration::from_mins(1)).aggression(aggression);
            let mut last = 0.0;
            for millis in (0..=61_000).step_by(100) {
                let factor = ramp.factor(Duration::from_millis(millis));
                assert!(factor >= last && (0.1..=1.0).contains(&factor));
                last = factor;
            }
            assert!((last - 1.0).abs() < f64::EPSILON);
            let half = ramp.factor(Duration::from_secs(30));
            let formula = 0.5_f64.powf(1.0 / aggression);
            assert!((half - formula).abs() < 1e-9, "{half} {formula}");
        }
    }

    #[test]
    fn settings_that_make_no_ramp_are_refused() {
        let ramp = || SlowStart::new(Duration::from_secs(1));
        for (refused, field) in [
            (ramp().aggression(0.0), "aggression"),
            (ramp().aggression(f64::NAN), "aggression"),
            (ramp().min_weight(0.0), "min_weight"),
            (ramp().min_weight(1.5), "min_weight"),
        ] {
            let error = refused.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        assert!(ramp().validate().is_ok());
    }
}
