//! Around the client an application already has: pick, send, classify, record.
//!
//! - [`Directory`] serves any service name with one registry.
//! - [`LoadProbes`] ask endpoints how busy they are, for strategies that go by it.
//! - `client::http` (feature `http`) is a tower layer over any
//!   `Service<http::Request<B>>`, such as hyper-util's client.
//! - `client::reqwest` (feature `reqwest`) is a middleware, with which
//!   `client.get("http://users/v1/me")` goes to a picked endpoint.
//! - `client::tls` (feature `tls`) says who endpoints have to be, by name or by
//!   SPIFFE ID, and who we are.
//! - `client::tonic` (feature `tonic`) is a channel for generated gRPC clients.
//!
//! # Which calls are sent again
//!
//! A call that failed goes to another endpoint when that is harmless, and when
//! there is budget for it: [`Retry`](crate::resilience::Retry) has the rules,
//! [`resilience`](crate::resilience) what else bounds what a failure may cost.
//! A body that cannot be sent twice is not.

mod directory;
mod probes;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;

#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub mod tls;

#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;

#[cfg(feature = "http")]
mod asked;
#[cfg(feature = "http")]
mod classify;
#[cfg(feature = "http")]
mod door;
#[cfg(feature = "http")]
mod endpoints;
#[cfg(feature = "http")]
mod exchange;
#[cfg(feature = "http")]
mod run;
#[cfg(feature = "http")]
mod service;
#[cfg(feature = "http")]
mod settings;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use classify::{Answered, Classify, GrpcStatus, HttpStatus, outcome_of_error};
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use settings::{Adaptive, CallSettings};

pub use directory::{Directory, DirectoryBuilder};
pub use probes::{LoadProbes, Probing};
