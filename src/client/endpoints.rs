//! Something for each endpoint, kept for as long as the endpoint is there.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::balancer::{Balancer, DetachedPick};
use crate::endpoint::Endpoint;
use crate::stats::NodeKey;

/// A value for each endpoint of a balancer: made at its first call, looked up
/// without a lock after that, and dropped when the endpoint has left the set or
/// is called in another way than before.
pub(super) struct PerEndpoint<V> {
    shared: Arc<Shared<V>>,
    following: Mutex<Option<Following>>,
}

struct Shared<V> {
    values: ArcSwap<Values<V>>,
    writing: Mutex<()>,
}

type Values<V> = HashMap<NodeKey, Entry<V>, BuildHasherDefault<OfKey>>;

/// Keys are counted up by this process, so nobody can make them collide: one
/// multiplication spreads them, by 2^64 over the golden ratio.
#[derive(Default)]
struct OfKey(u64);

impl Hasher for OfKey {
    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Entry<V> {
    endpoint: Arc<Endpoint>,
    value: V,
}

impl<V: Clone> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            endpoint: Arc::clone(&self.endpoint),
            value: self.value.clone(),
        }
    }
}

/// The task that drops the values of endpoints that left.
struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<V: Clone + Send + Sync + 'static> PerEndpoint<V> {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                values: ArcSwap::default(),
                writing: Mutex::new(()),
            }),
            following: Mutex::default(),
        }
    }

    /// Looks at the endpoint's value, made by `make` if there is none: in its place, as a
    /// copy would cost more than to find it.
    #[inline]
    pub(super) fn with<T, E>(
        &self,
        balancer: &Balancer,
        pick: &DetachedPick,
        make: impl FnOnce(&Endpoint) -> Result<V, E>,
        look: impl FnOnce(&V) -> T,
    ) -> Result<T, E> {
        let (key, endpoint) = (pick.key(), pick.endpoint());
        if let Some(entry) = self.shared.values.load().get(&key)
            && entry.serves(endpoint)
        {
            return Ok(look(&entry.value));
        }
        self.follow(balancer);
        let value = self.shared.insert(key, endpoint, make)?;
        Ok(look(&value))
    }

    /// Drops an endpoint's value, which has come to its end; the next call makes another.
    pub(super) fn forget(&self, pick: &DetachedPick) {
        let key = pick.key();
        self.shared.retain(|of, _| *of != key);
    }

    fn follow(&self, balancer: &Balancer) {
        // Without a runtime there is no call either.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // It ends with its runtime, and with its balancer, which a directory may have made anew.
        if following.as_ref().is_none_or(|task| task.0.is_finished()) {
            let shared = Arc::downgrade(&self.shared);
            let task = runtime.spawn(drop_the_gone(shared, balancer.subscribe()));
            *following = Some(Following(task.abort_handle()));
        }
    }
}

impl<V: Clone> Shared<V> {
    fn insert<E>(
        &self,
        key: NodeKey,
        endpoint: &Arc<Endpoint>,
        make: impl FnOnce(&Endpoint) -> Result<V, E>,
    ) -> Result<V, E> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = HashMap::clone(&self.values.load());
        if let Some(entry) = values.get(&key)
            && entry.serves(endpoint)
        {
            // Another thread was first.
            return Ok(entry.value.clone());
        }
        let entry = Entry {
            endpoint: Arc::clone(endpoint),
            value: make(endpoint)?,
        };
        let value = entry.value.clone();
        // It may have left and come back, with another key.
        values.retain(|_, other| other.endpoint.id() != endpoint.id());
        values.insert(key, entry);
        self.values.store(Arc::new(values));
        Ok(value)
    }

    fn retain(&self, mut stays: impl FnMut(&NodeKey, &Endpoint) -> bool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.values.load_full();
        if !before
            .iter()
            .all(|(key, entry)| stays(key, &entry.endpoint))
        {
            let mut values = HashMap::clone(&before);
            values.retain(|key, entry| stays(key, &entry.endpoint));
            self.values.store(Arc::new(values));
        }
    }
}

impl<V> Entry<V> {
    /// Whether the endpoint is still called in the same way.
    fn serves(&self, endpoint: &Arc<Endpoint>) -> bool {
        are_called_alike(&self.endpoint, endpoint)
    }
}

/// Whether both are called in the same way; their weight, say, does not matter.
pub(super) fn are_called_alike(one: &Arc<Endpoint>, other: &Arc<Endpoint>) -> bool {
    Arc::ptr_eq(one, other)
        || (one.address() == other.address()
            && one.tls_name() == other.tls_name()
            && one.authority() == other.authority()
            && one.metadata() == other.metadata())
}

async fn drop_the_gone<V: Clone>(
    shared: Weak<Shared<V>>,
    mut snapshots: impl futures::Stream<Item = crate::event::Snapshot> + Unpin,
) {
    while let Some(snapshot) = snapshots.next().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.retain(|_, endpoint| snapshot.set.get(endpoint.id()).is_some());
    }
}

impl<V> fmt::Debug for PerEndpoint<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.shared.values.load();
        let ids = values.values().map(|entry| entry.endpoint.id());
        f.debug_set().entries(ids).finish()
    }
}
