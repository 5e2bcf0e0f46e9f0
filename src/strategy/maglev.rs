//! Equal keys to equal endpoints, by a Maglev table.

use super::keyed::{KeyedPicker, Settings, names, settings};
use super::{BoxPicker, MissingKey, Strategy};
use crate::error::Error;
use crate::hash;
use crate::view::View;

/// Calls of one key go to one endpoint, the same from every client, by the table of
/// [`hash::Maglev`]: the shares are even to a per cent, and a pick is one array index.
///
/// For endpoints that seldom change, since a change moves some keys needlessly: 0.6 % when one of a
/// hundred leaves. Every new set builds the table afresh, in about a millisecond.
///
/// Keys, names, retries and calls without a key are as with [`RingHash`](super::RingHash).
///
/// The table has 65,537 slots if not [set](Self::table_size); with more endpoints than slots it
/// grows to 655,373 and then to 5,000,011. With even more no call gets an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Maglev {
    size: u64,
    settings: Settings,
}

settings!(Maglev);

impl Maglev {
    /// The sizes that a table takes by itself.
    const SIZES: [u64; 3] = [hash::Maglev::DEFAULT_SIZE, 655_373, hash::Maglev::MAX_SIZE];

    /// A table of 65,537 slots, enough for 655 endpoints whose shares are within 1 %.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: hash::Maglev::DEFAULT_SIZE,
            settings: Settings::NONE,
        }
    }

    /// Another number of slots, a prime; at least 100 for each endpoint keep the shares within 1 %
    /// of each other. All clients must agree on it.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is not a prime from 3 to 5,000,011.
    pub fn table_size(mut self, size: u64) -> Result<Self, Error> {
        // The table is the judge of what sizes there are.
        hash::Maglev::with_size(size, [("any", 1)])
            .map_err(|error| Error::invalid("table_size", size, error))?;
        self.size = size;
        Ok(self)
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for Maglev {
    fn build(&self, view: &View) -> BoxPicker {
        let names = names(view.endpoints());
        let nodes = || names.iter().zip(view.weights().iter().copied());
        let table = std::iter::once(self.size)
            .chain(Self::SIZES)
            .find(|&size| size >= names.len() as u64)
            .and_then(|size| hash::Maglev::with_size(size, nodes()).ok());
        Box::new(KeyedPicker::new(view, table, None, self.settings))
    }

    fn reads_total(&self) -> bool {
        self.settings.bound.is_some()
    }
}
