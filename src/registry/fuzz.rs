//! What is parsed here, for the module `fuzz`, and what all targets ask.

use std::fmt::Display;

pub(crate) use super::consul::fuzz::answers as consul;
pub(crate) use super::etcd::fuzz::{answer as etcd_answer, value as etcd_value};
pub(crate) use super::eureka::fuzz::answers as eureka;
pub(crate) use super::file::fuzz::document as file;
pub(crate) use super::snapshot::fuzz::content as snapshot;
pub(crate) use super::zookeeper::fuzz::{messages as zookeeper_wire, node as curator};

/// The longest text of a refusal: what it quotes is cut.
const LONGEST: usize = 1_000;

/// A refusal says something, and not everything that was refused.
pub(crate) fn is_short(refusal: &impl Display) {
    let text = refusal.to_string();
    let shown: String = text.chars().take(200).collect();
    assert!(!text.is_empty(), "a refusal gives a reason");
    assert!(
        text.len() <= LONGEST,
        "{} bytes of refusal: {shown}",
        text.len()
    );
}
