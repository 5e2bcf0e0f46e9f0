//! The contract suites: what every registry and every strategy must do, ours
//! and yours.
//!
//! A suite is a function that is given a way to make the thing under test, and
//! panics, naming the law, where it breaks one.
//!
//! ```
//! use std::time::Duration;
//! use waypost::{InMemory, testing};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! testing::registry(InMemory::new(), Duration::from_secs(1)).await;
//! # }
//! ```

mod chaos;
mod registries;
mod strategies;

pub use chaos::{Fault, Faults, chaos};
pub use registries::{discover, registry};
pub use strategies::{preference, strategy};
