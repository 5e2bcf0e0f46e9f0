//! A tower layer that sends each request to a picked endpoint.
//!
//! It wraps any `Service<http::Request<B>>` that connects to where the URI says,
//! such as hyper-util's legacy client: per request, it picks an endpoint, puts
//! the endpoint's address into the URI, and keeps the logical `Host`. The pick
//! lives until the response's body ends, so that in-flight counts are true for
//! streams, too.
//!
//! ```
//! use http_body_util::Empty;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{Layer, ServiceExt};
//! use waypost::client::http::BalanceLayer;
//! use waypost::{Balancer, Fixed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let users = Balancer::builder("users")
//!     .build(Fixed::addresses(["127.0.0.1:9"])?)
//!     .await?;
//! let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
//! let client = BalanceLayer::new(users).layer(client);
//!
//! let request = http::Request::get("http://users/v1/me").body(Empty::new())?;
//! let answer = client.oneshot(request).await; // goes to 127.0.0.1:9
//! # assert!(answer.is_err(), "nobody listens on the discard port");
//! # Ok(()) }
//! ```
//!
//! What cannot be reached by rewriting a URI, such as https, gets a client for
//! each endpoint: [`BalanceLayer::per_endpoint`].
//!
//! A layer made from a [`Balancer`](crate::Balancer) takes the requests whose
//! host is its service's name and passes all others through as they are; one
//! made from a [`Directory`](crate::Directory) takes every host that is a name.

mod body;
mod key;
mod pinned;
mod replay;
mod route;
mod service;
mod sticky;
mod subset;

pub use body::Tracked;
pub use key::{RequestHead, RequestKey, SourceAddr};
pub use pinned::Pinned;
pub use replay::{
    CloneBody, Copied, Kept, Nothing, RecordBody, Recorded, Replay, ReplayBody, SendOnce,
};
#[cfg(feature = "tonic")]
pub(in crate::client) use route::Caller;
pub use route::{Address, Factory, Rewrite, Route};
pub use service::{Balance, BalanceLayer, Balanced};
pub use sticky::Sticky;
pub use subset::RequestSubset;

/// What a balanced service fails with: a [`crate::Error`] when no endpoint
/// could be picked, else the wrapped client's own error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
