//! Functions that are fed whatever a network or a file may hold.
//!
//! **Problem.** What registries and servers send is parsed by code that is
//! private, and a server may be old, broken or hostile.
//!
//! **Idea.** One function for each thing that is parsed. It takes bytes, and
//! checks a law beyond "no panic": what is accepted is written and read again
//! to the same value, what is skipped and what is kept are together what is
//! there, a refusal is short. libFuzzer feeds them from the package in `fuzz/`;
//! `cargo test` feeds the same functions mutants, with a seed, of the answers
//! of real servers in `fuzz/seeds`.
//!
//! The module is there in these two builds only: cargo-fuzz sets `cfg(fuzzing)`
//! by itself, so that no feature, and nothing that a user could come to rely
//! on, is needed for it.
//!
//! ```text
//! cargo fuzz run consul fuzz/corpus/consul fuzz/seeds/consul
//! ```

mod config;
mod load;
#[cfg(test)]
mod mutate;
mod names;
#[cfg(test)]
mod tests;

use crate::registry::fuzz as registry;

/// Feeds bytes to the target of that name, and tells whether they were accepted.
///
/// # Panics
///
/// When a law does not hold, and when there is no such target.
pub fn run(name: &str, data: &[u8]) -> bool {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target `{name}`"));
    target(data)
}

type Target = fn(&[u8]) -> bool;

/// All of them, by the names of their seeds' folders.
const TARGETS: &[(&str, Target)] = &[
    ("address", names::address),
    ("config", config::document),
    ("consul", registry::consul),
    ("curator", registry::curator),
    ("etcd_answer", registry::etcd_answer),
    ("etcd_value", registry::etcd_value),
    ("eureka", registry::eureka),
    ("file", registry::file),
    ("load_header", load::header),
    ("load_protobuf", load::protobuf),
    ("snapshot", registry::snapshot),
    ("spiffe", names::spiffe),
    ("zookeeper_wire", registry::zookeeper_wire),
];
