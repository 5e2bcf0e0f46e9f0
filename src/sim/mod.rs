//! How would this strategy do on a fleet like that one?
//!
//! Balancing goes wrong between many clients that each know a little, which no
//! unit test shows and no production fleet is lent for. This is a
//! discrete-event simulation in virtual time that runs the pickers of
//! [`strategy`](crate::strategy) as they are, one view with stats of its own for
//! each client, against servers with worker pools and queues. The same seed
//! gives the same result.
//!
//! Two baselines know what no client can: [`Rule::Oracle`] compares the true
//! queues of `d` servers at the moment of the pick, [`Rule::Shortest`] all.
//!
//! ```
//! use waypost::sim::{Fleet, Rule, run};
//! use waypost::strategy::P2c;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let fleet =
//!     Fleet { clients: 3, servers: 5, seconds: 2.0, warm_up_seconds: 0.5, ..Fleet::default() };
//! let p2c = run(&fleet, &Rule::of(P2c::new()), 1)?;
//! assert!(p2c.p99_ms > p2c.mean_ms);
//! # Ok(()) }
//! ```
//!
//! What it does not model is told at [`Fleet`].
//!
//! A [`Recorder`] writes down the calls of a real client, and a [`Trace`] of them tells what another
//! strategy would have made of them.

mod client;
mod estimate;
mod fleet;
mod picture;
mod queue;
mod report;
mod run;
mod server;
mod service;
mod trace;

pub use estimate::Estimate;
pub use fleet::{Antagonist, Burst, Deploy, Fleet, Slow};
pub use picture::{latency_picture, load_picture};
pub use report::{LoadSample, Report, csv, table};
pub use run::{Rule, run};
pub use service::Service;
pub use trace::{Recorder, Trace, TracedCall};

/// In nanoseconds, which events are timed in.
const SECOND: f64 = 1e9;
const MILLISECOND: f64 = 1e6;
