//! A client that talks to some of many endpoints instead of to all.
//!
//! A thousand clients with connections to a thousand servers are a million
//! connections. Each client can do with a few dozen, if together they spread
//! evenly, and change little when endpoints or clients come and go.
//!
//! | | needs | evenness | when one endpoint changes |
//! | --- | --- | --- | --- |
//! | [`rocksteadier`] | the client's index | within one client or two an endpoint | few change |
//! | [`rendezvous`] | nothing but a seed | random | at most one changes |
//! | [`aperture`] | index and number of clients | exact, by fractions | the arc shifts a little |
//!
//! ```
//! use waypost::topology::subset::rocksteadier;
//!
//! // 100 clients of 30 endpoints each, of 300: each endpoint has 10 clients.
//! let mut clients = vec![0; 300];
//! for client in 0..100 {
//!     for at in rocksteadier(client, 300, 30) {
//!         clients[at] += 1;
//!     }
//! }
//! assert!(clients.iter().all(|&n| n == 10));
//! ```

mod aperture;
mod rendezvous;
mod rocksteadier;

pub use aperture::aperture;
pub use rendezvous::rendezvous;
pub use rocksteadier::rocksteadier;

/// How a client chooses the endpoints that it talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subsetting {
    /// [`rocksteadier`]: even and steady, for clients that are numbered from 0.
    Rocksteadier {
        /// The client's number.
        client: u64,
        /// How many endpoints.
        size: usize,
    },
    /// [`rendezvous`]: for clients without a number.
    Rendezvous {
        /// Drawn at random once, and kept.
        seed: u64,
        /// How many endpoints.
        size: usize,
    },
    /// [`aperture`]: Finagle's deterministic aperture.
    Aperture {
        /// The client's number.
        client: u64,
        /// How many clients there are.
        clients: u64,
        /// At least so many endpoints; Finagle has 12.
        least: usize,
    },
}

impl Subsetting {
    /// The share of each of the endpoints with these ids that the client uses:
    /// 0 for those that it does not, and a fraction at the edges of an aperture.
    #[must_use]
    pub fn shares(&self, ids: &[&str]) -> Vec<f64> {
        let whole = |chosen: Vec<usize>| {
            let mut shares = vec![0.0; ids.len()];
            for at in chosen {
                shares[at] = 1.0;
            }
            shares
        };
        match *self {
            Self::Rocksteadier { client, size } => whole(rocksteadier(client, ids.len(), size)),
            Self::Rendezvous { seed, size } => whole(rendezvous(seed, ids, size)),
            Self::Aperture {
                client,
                clients,
                least,
            } => aperture(client, clients, ids.len(), least),
        }
    }
}
