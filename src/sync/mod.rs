//! The one place that atomics and the swap of state come from, so that loom
//! can take their place (`RUSTFLAGS="--cfg waypost_loom"`).

mod published;
mod slot;

pub(crate) use published::{Published, Stamped, next_stamp};
pub(crate) use slot::{Lease, Slot};

pub(crate) mod atomic {
    #[cfg(waypost_loom)]
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    #[cfg(not(waypost_loom))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}
