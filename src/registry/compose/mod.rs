//! Sources made of sources.
//!
//! - [`Merge`]: several registries as one, for the time of a move from one to
//!   another, or for services that live in both. The first that knows an id
//!   says how it is.
//! - [`Fallback`]: the next registry while the first does not answer.
//! - [`Map`]: endpoints changed, or left out, by what they say of themselves.
//!
//! All are [`Discover`](super::Discover) again.
//!
//! ```
//! use std::time::Duration;
//! use waypost::registry::{Fallback, Map, Merge};
//! use waypost::{Balancer, Endpoint, Fixed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let old = Fixed::addresses(["10.0.0.1:80"])?;
//! let new = Fixed::new([Endpoint::builder("10.0.0.2:80").metadata("track", "stable").build()?])?;
//! let backup = Fixed::addresses(["10.9.0.1:80"])?;
//!
//! let both = Merge::new().source("new", Map::metadata(new, "track", "stable")).source("old", old);
//! let source = Fallback::new(both, backup, Duration::from_secs(10));
//! let users = Balancer::builder("users").build(source).await?;
//! assert_eq!(users.current().len(), 2);
//! # Ok(()) }
//! ```

mod fallback;
mod map;
mod merge;

pub use fallback::Fallback;
pub use map::Map;
pub use merge::Merge;
