//! Who wants to know of which nodes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// The readers of each service's node.
#[derive(Default)]
pub(super) struct Watchers {
    of: Mutex<HashMap<String, Vec<Weak<Interest>>>>,
}

/// What one reader has yet to look at.
#[derive(Default)]
pub(super) struct Interest {
    due: Mutex<Due>,
    notify: Notify,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Everything.
    pub(super) all: bool,
    /// The list of the service's nodes.
    pub(super) list: bool,
    /// Nodes of it, by name.
    pub(super) nodes: HashSet<String>,
}

/// A reader that nobody reads on has all of it to look at when there is more
/// than this.
const MOST: usize = 10_000;

impl Watchers {
    pub(super) fn add(&self, path: &str) -> Arc<Interest> {
        let interest = Arc::<Interest>::default();
        let mut of = self.lock();
        of.retain(|_, readers| {
            readers.retain(|reader| reader.strong_count() > 0);
            !readers.is_empty()
        });
        let readers = of.entry(path.to_owned()).or_default();
        readers.push(Arc::downgrade(&interest));
        interest
    }

    /// Takes the event of a watch: something happened to the node at `path`.
    pub(super) fn tell(&self, path: &str) {
        let of = self.lock();
        for reader in of.get(path).into_iter().flatten() {
            if let Some(reader) = reader.upgrade() {
                reader.add(|due| due.list = true);
            }
        }
        let Some((service, node)) = path.rsplit_once('/') else {
            return;
        };
        for reader in of.get(service).into_iter().flatten() {
            if let Some(reader) = reader.upgrade() {
                reader.add(|due| due.add_node(node));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Weak<Interest>>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interest {
    fn add(&self, add: impl FnOnce(&mut Due)) {
        add(&mut self.due.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    /// Waits for what there is to look at, and takes it.
    pub(super) async fn due(&self) -> Due {
        loop {
            let due = self.take();
            if due != Due::default() {
                return due;
            }
            self.notify.notified().await;
        }
    }

    /// Takes what there is to look at.
    pub(super) fn take(&self) -> Due {
        std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Due {
    fn add_node(&mut self, node: &str) {
        if self.nodes.len() < MOST {
            self.nodes.insert(node.to_owned());
        } else {
            self.nodes.clear();
            self.all = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn events_go_to_the_readers_of_the_service_and_are_kept_once() {
        let watchers = Watchers::default();
        let (users, orders) = (watchers.add("/a/users"), watchers.add("/a/orders"));
        for path in ["/a/users/1", "/a/users/1", "/a/users", "/a", "/a/users/1/2"] {
            watchers.tell(path);
        }
        let due = users.due().now_or_never().expect("there is something");
        assert!(due.list && !due.all && due.nodes.len() == 1, "{due:?}");
        assert!(due.nodes.contains("1"));
        assert!(users.due().now_or_never().is_none(), "taken is taken");
        assert!(orders.due().now_or_never().is_none());
    }

    #[test]
    fn a_reader_that_looks_away_costs_bounded_memory() {
        let watchers = Watchers::default();
        let users = watchers.add("/users");
        for node in 0..=MOST {
            watchers.tell(&format!("/users/{node}"));
        }
        let due = users.take();
        assert!(due.all && due.nodes.is_empty());
    }

    #[test]
    fn readers_that_left_are_forgotten() {
        let watchers = Watchers::default();
        drop(watchers.add("/users"));
        let _orders = watchers.add("/orders");
        assert_eq!(watchers.lock().len(), 1);
    }
}
