//! Equal keys to equal endpoints, by the highest of their draws.

use super::keyed::{KeyedPicker, Settings, names, settings};
use super::{BoxPicker, MissingKey, Strategy};
use crate::error::Error;
use crate::hash;
use crate::view::View;

/// Calls of one key go to one endpoint, the same from every client: the one that draws the highest
/// number for the key ([`hash::Rendezvous`]).
///
/// The shares are even but for chance, weights are exact, a change moves no key needlessly, and the
/// keys of an endpoint that leaves spread over all others. But a pick asks every endpoint: O(n), two
/// nanoseconds each where all weigh the same, and fifteen otherwise. For up to some dozens.
///
/// Keys, names, retries and calls without a key are as with [`RingHash`](super::RingHash).
#[derive(Clone, Copy, Debug)]
pub struct Rendezvous {
    settings: Settings,
}

settings!(Rendezvous);

impl Rendezvous {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            settings: Settings::NONE,
        }
    }
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for Rendezvous {
    fn build(&self, view: &View) -> BoxPicker {
        let names = names(view.endpoints());
        let nodes = names.iter().zip(view.weights().iter().copied());
        let table = hash::Rendezvous::new(nodes).ok();
        Box::new(KeyedPicker::new(view, table, None, self.settings))
    }

    fn reads_total(&self) -> bool {
        self.settings.bound.is_some()
    }
}
