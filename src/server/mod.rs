//! The serving side: how a server comes and goes without a lost call.
//!
//! A server that simply stops loses the calls that are under way, and those that
//! clients still send until they have heard. [`Lifecycle`] does it in order:
//! register when ready; to leave, fail the readiness check, take the entry out,
//! wait until every client has heard, stop accepting, finish what is under way.
//!
//! It knows no HTTP server. It gives what each of them asks for: a future that
//! ends when it is time to stop accepting, a flag for the readiness page, and
//! guards that count calls.
//!
//! ```
//! use std::time::Duration;
//! use waypost::server::Lifecycle;
//! use waypost::{Endpoint, InMemory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let registry = InMemory::new();
//! let lifecycle = Lifecycle::new()
//!     .convergence(Duration::from_millis(50))
//!     .register(&registry, &"users".parse()?, Endpoint::at("10.0.0.1:8080")?)
//!     .await?;
//!
//! let (ready, stopping) = (lifecycle.readiness(), lifecycle.stopping());
//! // GET /healthz: 200 while ready.is_ready(), else 503.
//! // axum::serve(listener, app).with_graceful_shutdown(stopping)
//! # drop(stopping);
//! assert!(ready.is_ready());
//!
//! // On SIGTERM:
//! let goodbye = lifecycle.shutdown().await;
//! assert!(!ready.is_ready() && goodbye.is_clean());
//! # Ok(()) }
//! ```
//!
//! `ReportLoad` (feature `http`) adds to answers how busy the server is, for clients that balance by it;
//! `OpenRcaService` (feature `tonic`) streams it to those that ask.

mod lifecycle;
#[cfg(feature = "tonic")]
mod open_rca;
#[cfg(feature = "http")]
mod report_load;

pub use lifecycle::{Busy, Goodbye, Lifecycle, Readiness, Serving};
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub use open_rca::OpenRcaService;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use report_load::{ReportLoad, Reporting, ReportingBody, ReportingFuture};
