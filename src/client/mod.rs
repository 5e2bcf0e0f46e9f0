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

pub use directory::{Directory, DirectoryBuilder};

/// How often a call is sent in all, counting the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(std::num::NonZeroU32);

impl Attempts {
    /// Once: nothing is sent again.
    pub const ONCE: Self = Self(std::num::NonZeroU32::MIN);

    /// `count` times in all; 0 is taken for once.
    #[must_use]
    pub const fn at_most(count: u32) -> Self {
        match std::num::NonZeroU32::new(count) {
            Some(count) => Self(count),
            None => Self::ONCE,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Attempts {
    /// Three: with one endpoint in ten dead, one call in a thousand meets three
    /// dead ones.
    fn default() -> Self {
        Self::at_most(3)
    }
}
