//! What keeps a client from making an outage worse.
//!
//! A client that sends again what failed turns a short overload into a long
//! one: each layer of three blind retries multiplies the load by four, and the
//! load of the retries keeps the servers from recovering ("Metastable Failures
//! in Distributed Systems", `HotOS` 2021). Here are the machines that prevent it,
//! each one alone in its file and free of I/O: time and randomness are handed
//! in, so that a simulation runs them as they are. [`client`](crate::client)
//! puts them together around real calls.
//!
//! | machine | answers | follows |
//! | --- | --- | --- |
//! | [`Retry`] | may this call be sent again, and when | RFC 9110, gRPC A6, Envoy |
//! | [`RetryBudget`] | is there anything left for another retry | Finagle, gRPC A6 |
//! | [`Pushback`] | what the server asks for | RFC 9110 `Retry-After`, gRPC A6 |
//! | [`Deadline`] | how long may this attempt take | Envoy, gRPC |
//! | [`Hedge`], [`Percentile`] | when is a call late enough to be sent twice | "The Tail at Scale", 2013 |
//! | [`Limits`], [`Gate`] | may one more call be in flight, or wait | Envoy's circuit breakers |
//! | [`AdaptiveLimit`] | how many calls the service bears | Netflix's Gradient2, TCP's AIMD |
//! | [`Throttle`] | should this call be refused here | "Site Reliability Engineering", ch. 21 |
//!
//! ```
//! use waypost::resilience::RetryBudget;
//! use waypost::time::Timestamp;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let tokens = RetryBudget::share(20)?.min_per_second(0).start();
//! let now = Timestamp::default();
//! (0..100).for_each(|_| tokens.asked(now));
//! let granted = (0..100).filter(|_| tokens.try_retry(now)).count();
//! assert_eq!(granted, 20, "one retry for five calls");
//! # Ok(()) }
//! ```

mod adaptive;
mod budget;
mod deadline;
mod gate;
mod hedge;
mod percentile;
mod pushback;
mod retry;
mod throttle;
mod window;

pub use adaptive::{AdaptiveLimit, Aimd, Gradient2, LimitSample};
pub use budget::{RetryBudget, RetryTokens};
pub use deadline::Deadline;
pub use gate::{Entry, Gate, Limits};
pub use hedge::{Hedge, Hedging};
pub use percentile::Percentile;
pub use pushback::Pushback;
pub use retry::{Attempts, Ended, Retry};
pub use throttle::{Throttle, ThrottleState};
