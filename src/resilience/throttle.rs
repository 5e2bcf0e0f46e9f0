//! Refusing here what the service would refuse there.

use std::time::Duration;

use super::window::Window;
use crate::error::Error;
use crate::rng::Rng;
use crate::time::Timestamp;

/// Client-side throttling: when a service rejects more than it accepts, most
/// calls are refused before they are sent.
///
/// "Site Reliability Engineering" (2016), chapter 21: over two minutes, a call
/// is refused with a probability of `max(0, (requests − K × accepts) /
/// (requests + 1))`. With K = 2 as many calls as are accepted go out in vain,
/// which is how the client notices that the service has recovered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    k: f64,
    window: Duration,
}

impl Throttle {
    /// With another K: how many calls may be sent for each that is accepted.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] unless K is in 1 to 100.
    pub fn at(k: f64) -> Result<Self, Error> {
        if !(1.0..=100.0).contains(&k) {
            let reason = "1 to 100 calls sent for each that is accepted";
            return Err(Error::invalid("throttle.k", k, reason));
        }
        Ok(Self {
            k,
            ..Self::default()
        })
    }

    /// Over how long it counts; 2 min by default, at least 1 s.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window.max(Duration::from_secs(1));
        self
    }

    /// A throttle that has seen nothing.
    #[must_use]
    pub fn start(self) -> ThrottleState {
        ThrottleState {
            k: self.k,
            requests: Window::new(self.window),
            accepts: Window::new(self.window),
        }
    }
}

impl Default for Throttle {
    /// K = 2 over 2 minutes.
    fn default() -> Self {
        Self {
            k: 2.0,
            window: Duration::from_mins(2),
        }
    }
}

/// The counts of a [`Throttle`]. Every operation is wait-free but for the first
/// of each tenth of the window.
#[derive(Debug)]
pub struct ThrottleState {
    k: f64,
    requests: Window,
    accepts: Window,
}

impl ThrottleState {
    /// Counts a call, and tells whether it may be sent.
    #[must_use]
    pub fn admit(&self, now: Timestamp, rng: &mut Rng) -> bool {
        let refusal = self.refusal(now);
        self.requests.add(now);
        // 24 bits, as many as an f32 holds; more would be below any effect.
        refusal == 0.0 || f64::from(rng.below(1 << 24)) >= refusal * f64::from(1 << 24)
    }

    /// The service answered a call, and did not reject it.
    pub fn accepted(&self, now: Timestamp) {
        self.accepts.add(now);
    }

    /// The probability with which a call is refused now.
    #[must_use]
    pub fn refusal(&self, now: Timestamp) -> f64 {
        let (requests, accepts) = (self.requests.sum(now), self.accepts.sum(now));
        ((requests as f64 - self.k * accepts as f64) / (requests as f64 + 1.0)).max(0.0)
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// A service that takes `accepts` calls in every 100 that are asked for;
    /// how many are sent in the last of ten minutes, in per cent.
    fn sent(accepts: u64) -> u64 {
        let (throttle, mut rng) = (Throttle::default().start(), Rng::seeded(accepts));
        let (mut sent, mut taken) = (0, 0);
        for second in 0..600_u64 {
            taken = if second % 10 == 0 { 0 } else { taken };
            for call in 0..100 {
                let now = at(second * 1_000 + call * 10);
                if throttle.admit(now, &mut rng) {
                    sent += u64::from(second >= 540);
                    // Its share of ten seconds, first come, first served.
                    if taken < accepts * 10 {
                        taken += 1;
                        throttle.accepted(now);
                    }
                }
            }
        }
        sent / 60
    }

    #[test]
    fn it_sends_all_of_what_is_accepted_and_k_times_that_otherwise() {
        assert_eq!(sent(100), 100);
        assert_eq!(
            sent(60),
            100,
            "half and more are accepted: nothing is refused"
        );
        for accepts in [10, 20, 30] {
            let sent = sent(accepts);
            assert!(sent.abs_diff(2 * accepts) <= 3, "{sent} for {accepts}");
        }
        assert!(sent(0) <= 2, "a service that takes nothing is hardly asked");
    }

    #[test]
    fn it_forgets_and_refuses_nonsense() {
        let (throttle, mut rng) = (Throttle::default().start(), Rng::seeded(1));
        for _ in 0..100 {
            let _counted = throttle.admit(at(0), &mut rng);
        }
        assert!(throttle.refusal(at(0)) > 0.9);
        assert!(throttle.refusal(at(120_000)) == 0.0);
        assert!(Throttle::at(0.5).unwrap_err().is_invalid());
    }
}
