//! A view into it all: what is decided, what becomes of it, and how the
//! endpoints are.
//!
//! Nothing in here is needed to balance calls, and nothing imports it: clients
//! tell an [`Observer`](crate::event::Observer), and a balancer can be looked
//! at.
//!
//! - `Traced` (feature `tracing`): one span a call, in it one event a decision at
//!   trace level; changes at info.
//! - `Metered` (feature `metrics`): counters and histograms by service.
//! - [`Report`]: everything about a balancer at one moment, to be serialized;
//!   `dashboard` (feature `axum`) serves it as JSON and as a page.
//!
//! ```
//! use waypost::observe::Report;
//! use waypost::{Balancer, Endpoint, EndpointSet};
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let (users, mut updater) = Balancer::builder("users").manual()?;
//! updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?])?);
//! let report = Report::of(&users);
//! assert_eq!(report.endpoints[0].address, "10.0.0.1:80");
//! assert_eq!(report.endpoints[0].why, "100.0 % of the calls");
//! # Ok(()) }
//! ```

mod report;

#[cfg(any(feature = "metrics", feature = "tracing"))]
use crate::stats::Outcome;

#[cfg(feature = "metrics")]
mod metered;
#[cfg(feature = "tracing")]
mod traced;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
mod dashboard;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use dashboard::dashboard;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metered::Metered;
pub use report::{EndpointReport, EndpointState, Freshness, Report};
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use traced::{Traced, trace_changes};

/// As labels and fields have it.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::ServerError => "server_error",
        Outcome::GatewayError => "gateway_error",
        Outcome::NotSent => "not_sent",
        Outcome::Interrupted => "interrupted",
        Outcome::TimedOut => "timed_out",
        Outcome::Cancelled => "cancelled",
    }
}
