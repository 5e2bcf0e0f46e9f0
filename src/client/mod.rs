//! Around the client an application already has: pick, send, classify, record.
//!
//! - [`Directory`] serves any service name with one registry.
//! - `client::http` (feature `http`) is a tower layer over any
//!   `Service<http::Request<B>>`, such as hyper-util's client.
//! - `client::reqwest` (feature `reqwest`) is a middleware, with which
//!   `client.get("http://users/v1/me")` goes to a picked endpoint.
//!
//! # Which calls are sent again
//!
//! A call that could not be delivered goes to another endpoint, up to the
//! number of [attempts](Attempts) in all: always when it was provably not sent
//! (no connection could be made), and after a connection broke off only when
//! its method is idempotent (RFC 9110, 9.2.2). A call that was answered is never
//! sent again, whatever the answer. A body that cannot be sent twice is not.

mod directory;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;

#[cfg(feature = "http")]
mod call;

pub use crate::resilience::Attempts;
pub use directory::{Directory, DirectoryBuilder};
