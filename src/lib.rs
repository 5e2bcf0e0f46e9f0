//! Service discovery and client-side load balancing, linked into the client.
//!
//! An application calls services that run as many replicas. `waypost` finds the
//! replicas, decides which may be used, picks one for each call in nanoseconds,
//! and sits around the HTTP client the application already has: what a sidecar
//! does, without the extra hop.
//!
//! ```text
//!  registry ──sets──▶ eligibility ──view──▶ strategy ──pick──▶ your client
//!                                              ▲                   │
//!                                              └──── live stats ◀──┘
//! ```
//!
//! ```
//! use waypost::{Balancer, Endpoint, InMemory, Outcome, Registry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let registry = InMemory::new();
//! let _here = registry.register(&"users".parse()?, Endpoint::at("10.0.0.1:8080")?).await?;
//!
//! let users = Balancer::builder("users").build(registry).await?;
//! let pick = users.pick()?; // counted as in flight from here on
//! assert_eq!(pick.address().as_str(), "10.0.0.1:8080");
//! pick.finish(Outcome::Success);
//! # Ok(()) }
//! ```
//!
//! # Where to go
//!
//! | you want to | look at |
//! | --- | --- |
//! | balance calls to one service | [`Balancer`] |
//! | call any service by the host of its URL | [`client::Directory`] |
//! | put it around an HTTP client | `client::http` (tower, hyper), `client::reqwest` |
//! | retry, hedge, limit, throttle | [`resilience`] |
//! | set it all up in a file | `config` |
//! | see what goes on | [`observe`] |
//! | choose how endpoints are picked | [`strategy`] |
//! | go by what servers say of their load | [`load`] |
//! | shard by consistent hashing, or choose as nginx, Envoy or HAProxy do | [`hash`] |
//! | read or write a registry, or bring your own | [`registry`] |
//! | check your own registry or strategy | `testing` |
//! | eject what fails, probe, and ramp up | [`health`] |
//! | use zones, priorities, canaries, subsets | [`topology`] |
//! | restart servers without a lost call | [`server`] |
//! | know what it promises, and what not | [`docs`] |
//!
//! # Features
//!
//! | feature | gives |
//! | --- | --- |
//! | (none) | in-memory and fixed registries, every strategy, the balancer, the directory |
//! | `axum` | a router that shows balancers as JSON and as a page |
//! | `http` | a tower layer over any `Service<http::Request<B>>` |
//! | `hyper-util` | `http`, knowing the errors of hyper-util's legacy client |
//! | `metrics` | counters and histograms of calls, for the `metrics` facade |
//! | `reqwest` | a middleware for reqwest-middleware |
//! | `tls` | rustls configurations for endpoints: mTLS that reloads, SPIFFE IDs |
//! | `tonic` | a gRPC channel of one tonic `Channel` an endpoint, and streams of load reports |
//! | `tracing` | a span a call, events of decisions and of changes |
//! | `quanta` | a clock that reads the processor's time stamp counter |
//! | `file` | endpoints from a TOML, JSON or YAML file, read again when it changes |
//! | `dns` | endpoints from A, AAAA and SRV records |
//! | `snapshot` | the last known sets on disk, for a start while the registry is down |
//! | `config` | a whole balancer from TOML, YAML, JSON or environment variables |
//! | `consul` | the registry in Consul |
//! | `etcd` | the registry in etcd |
//! | `zookeeper` | the registry in ZooKeeper, as Curator lays it out |
//! | `eureka` | the registry in Eureka |
//! | `sim` | a simulator that runs the strategies on a fleet that you describe |
//! | `testing` | the contract suites for registries and strategies |

#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(
    test,
    feature = "consul",
    feature = "dns",
    feature = "etcd",
    feature = "eureka",
    feature = "tonic",
    feature = "zookeeper"
))]
mod backoff;
pub mod error;
#[cfg(any(feature = "config", feature = "file"))]
mod format;
pub mod rng;
mod sync;
pub mod time;

pub mod endpoint;
pub mod event;
pub mod load;
pub mod stats;

pub mod hash;

pub mod registry;

pub mod health;

pub mod topology;

pub mod view;

pub mod strategy;

pub mod balancer;

pub mod resilience;

pub mod client;

pub mod observe;

pub mod server;

#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "config")]
pub mod config;

/// Only with everything that is parsed: a program that is fuzzed itself may
/// have less of this crate.
#[cfg(all(
    any(test, fuzzing),
    feature = "config",
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    feature = "file",
    feature = "snapshot",
    feature = "tls",
    feature = "zookeeper"
))]
#[doc(hidden)]
pub mod fuzz;

pub use balancer::{Balancer, BalancerBuilder, DetachedPick, Pick, Updater};
pub use client::Directory;
pub use endpoint::{
    Address, Diff, Endpoint, EndpointBuilder, EndpointId, EndpointSet, Locality, ServiceName,
    Skipped, Status,
};
pub use error::Error;
pub use event::{Discovery, Snapshot};
pub use registry::{Discover, Fixed, InMemory, Registration, RegistrationState, Registry};
pub use stats::{EndpointStats, Outcome};
pub use strategy::PickOptions;

/// The chapters of `docs/`, compiled like everything else.
pub mod docs {
    #[cfg(all(
        feature = "axum",
        feature = "config",
        feature = "consul",
        feature = "reqwest",
        feature = "snapshot",
        feature = "tls"
    ))]
    #[doc = include_str!("../docs/guide.md")]
    pub mod guide {}

    #[doc = include_str!("../docs/defaults.md")]
    pub mod defaults {}

    #[doc = include_str!("../docs/limits.md")]
    pub mod limits {}

    #[doc = include_str!("../docs/hashing.md")]
    pub mod hashing {}

    #[doc = include_str!("../docs/hashing-table.md")]
    pub mod hashing_table {}

    #[doc = include_str!("../docs/benchmarks.md")]
    pub mod benchmarks {}

    #[doc = include_str!("../docs/comparison.md")]
    pub mod comparison {}

    #[cfg(all(
        feature = "consul",
        feature = "etcd",
        feature = "eureka",
        feature = "zookeeper"
    ))]
    #[doc = include_str!("../docs/registries.md")]
    pub mod registries {}
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
