//! Who is well enough to get a call, by what calls and probes tell of it.
//!
//! A registry tells who *should* be there. Whether an endpoint answers is known
//! best by those who call it, so its state is decided here, in the client:
//!
//! - [`outlier`]: an endpoint whose calls fail is ejected for a while;
//! - [`check`]: probes ask it whether it is well, and whether it is back;
//! - [`slow_start`]: one that is back gets its share again little by little.
//!
//! # One way back
//!
//! Whatever kept an endpoint out, it comes back the same way: **one trial call**
//! where the reason was failing calls (half-open: no flood), then a **ramp**
//! where slow start is on, then its **full weight**. Where reasons overlap, the
//! strongest decides: what the registry says (draining, down, starting, weight
//! 0) before a failed check, a failed check before an ejection, an ejection
//! before a trial, a trial before a ramp. A ramp begins when the last of the
//! reasons ends. A panic ([`topology`](crate::topology)) overrules checks,
//! ejections and trials, and never the registry.
//!
//! Everything here is arithmetic on times and counts that are handed in; the
//! balancer's driver owns the timers, the prober its sockets.
//!
//! ```
//! use std::time::Duration;
//! use waypost::Balancer;
//! use waypost::health::outlier::OutlierEjection;
//! use waypost::health::slow_start::SlowStart;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let (users, _updater) = Balancer::builder("users")
//!     .outlier_ejection(OutlierEjection::new().base_time(Duration::from_secs(10)))
//!     .slow_start(SlowStart::new(Duration::from_secs(30)))
//!     .manual()?;
//! # let _ = users; Ok(()) }
//! ```

pub mod check;
pub mod outlier;
pub mod slow_start;
