//! The entries of a service as they are known.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::Layout;
use super::wire::KeyValue;
use crate::endpoint::{Endpoint, Skipped};
use crate::error::Error;
use crate::registry::follow::Answer;

pub(super) struct Table {
    layout: Layout,
    /// How much of each key is the service's prefix.
    prefix: usize,
    rows: BTreeMap<Vec<u8>, Row>,
    /// Of keys and values.
    bytes: usize,
}

struct Row {
    bytes: usize,
    endpoint: Result<Arc<Endpoint>, Error>,
}

impl Table {
    pub(super) fn new(layout: Layout, prefix: usize) -> Self {
        Self {
            layout,
            prefix,
            rows: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes everything over, and tells whether it is something else.
    pub(super) fn replace(&mut self, all: Vec<KeyValue>) -> bool {
        let mut new = Self::new(self.layout, self.prefix);
        for kv in all {
            new.put(kv);
        }
        let is_same = new.rows.len() == self.rows.len()
            && new
                .rows
                .iter()
                .zip(&self.rows)
                .all(|((key, row), (other_key, other))| key == other_key && row.is_same(other));
        *self = new;
        !is_same
    }

    /// Takes one entry over, and tells whether it is something else. O(log n)
    pub(super) fn put(&mut self, kv: KeyValue) -> bool {
        let row = Row {
            bytes: kv.bytes(),
            endpoint: self.read(&kv).map(Arc::new),
        };
        self.bytes += row.bytes;
        match self.rows.entry(kv.key) {
            Entry::Vacant(place) => {
                place.insert(row);
                true
            }
            Entry::Occupied(mut place) => {
                let before = place.insert(row);
                self.bytes -= before.bytes;
                !before.is_same(place.get())
            }
        }
    }

    /// Takes one entry out, and tells whether it was there. O(log n)
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let gone = self.rows.remove(key);
        self.bytes -= gone.as_ref().map_or(0, |row| row.bytes);
        gone.is_some()
    }

    /// Of all keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// O(n)
    pub(super) fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        answer.endpoints.reserve(self.rows.len());
        for row in self.rows.values() {
            match &row.endpoint {
                Ok(endpoint) => answer.endpoints.push(Arc::clone(endpoint)),
                Err(error) => Skipped::count(&mut answer.skipped, error.clone()),
            }
        }
        answer
    }

    fn read(&self, kv: &KeyValue) -> Result<Endpoint, Error> {
        let id = kv.key.get(self.prefix..).unwrap_or_default();
        match std::str::from_utf8(id) {
            Ok(id) => self.layout.read(id, &kv.value),
            Err(error) => {
                let shown = String::from_utf8_lossy(id);
                let origin = format!("etcd entry `{}`", shown.escape_debug());
                Err(Error::registry(
                    origin,
                    format!("its key is no UTF-8: {error}"),
                ))
            }
        }
    }
}

impl Row {
    fn is_same(&self, other: &Self) -> bool {
        match (&self.endpoint, &other.endpoint) {
            (Ok(one), Ok(other)) => one == other,
            (Err(_), Err(_)) => true,
            _ => false,
        }
    }
}
