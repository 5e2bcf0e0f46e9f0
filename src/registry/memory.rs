//! A registry in this process: the embedded default.
//!
//! ```
//! use std::time::Duration;
//! use waypost::{Balancer, Endpoint, InMemory, Registry, ServiceName};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::Error> {
//! let registry = InMemory::new();
//! let users: ServiceName = "users".parse()?;
//! let registration = registry.register(&users, Endpoint::at("10.0.0.1:80")?).await?;
//!
//! let balancer = Balancer::builder("users").build(registry.clone()).await?;
//! balancer.ready(Duration::from_secs(1)).await?;
//! assert_eq!(balancer.pick()?.address().as_str(), "10.0.0.1:80");
//!
//! registration.deregister().await?;
//! # Ok(()) }
//! ```

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Discover, FOR_EVER, Keeper, Registration, RegistrationState, Registry};
use crate::endpoint::{Endpoint, EndpointId, EndpointSet, ServiceName};
use crate::error::Error;

/// A registry in this process, shared by all clones of the handle.
///
/// It always knows: a service that nobody registered is empty at once. A
/// registration that replaces another of the same id wins, and the older one is
/// [lost](RegistrationState::Lost).
///
/// Entries can be made to lapse: [`InMemory::with_ttl`] gives every
/// [`Registration`] a heartbeat of its own, so that entries vanish when the
/// runtime that kept them hangs or dies; with [`InMemory::lease`] the caller
/// sends the heartbeats.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ttl: Option<Duration>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    services: HashMap<ServiceName, Service>,
}

#[derive(Debug)]
struct Service {
    set: watch::Sender<EndpointSet>,
    tenants: HashMap<EndpointId, Tenant>,
}

/// Whose entry it is, and until when.
#[derive(Debug)]
struct Tenant {
    lease: Arc<Fate>,
    lapses: Option<Instant>,
}

/// Whether a lease may still write its entry. Changed under the table's lock,
/// and never back.
#[derive(Debug, Default)]
struct Fate(AtomicBool);

impl Fate {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl InMemory {
    /// An empty registry whose entries stay until they are taken out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty registry whose entries lapse `ttl` after their last heartbeat.
    /// Registrations send theirs every third of it.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when `ttl` is below 3 ms, the finest heartbeat a
    /// timer keeps.
    pub fn with_ttl(ttl: Duration) -> Result<Self, Error> {
        let shared = Shared {
            ttl: Some(checked(ttl)?),
            table: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Enters an endpoint that lapses `ttl` after the caller's last
    /// [`Lease::heartbeat`].
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when `ttl` is below 3 ms.
    pub fn lease(
        &self,
        service: &ServiceName,
        endpoint: Endpoint,
        ttl: Duration,
    ) -> Result<Lease, Error> {
        let ttl = checked(ttl)?;
        Ok(self.shared.enter(service, endpoint, Some(ttl)))
    }

    /// What is registered under that name now.
    #[must_use]
    pub fn endpoints(&self, service: &ServiceName) -> EndpointSet {
        let mut table = self.shared.table();
        table.sweep(service);
        table
            .services
            .get(service)
            .map_or_else(EndpointSet::empty, |service| service.set.borrow().clone())
    }
}

fn checked(ttl: Duration) -> Result<Duration, Error> {
    if ttl < Duration::from_millis(3) {
        let reason = "a time to live below 3 ms cannot be kept by a timer";
        return Err(Error::invalid("ttl", format!("{ttl:?}"), reason));
    }
    Ok(ttl.min(FOR_EVER))
}

impl Discover for InMemory {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let mut set = self.shared.table().service(service).set.subscribe();
        set.mark_changed();
        let follower = Follower {
            shared: Arc::clone(&self.shared),
            service: service.clone(),
            set,
            told: None,
        };
        stream::unfold(follower, |mut follower| async {
            let set = follower.next().await?;
            Some((Ok(set), follower))
        })
        .boxed()
    }

    fn is_authoritative(&self) -> bool {
        true
    }
}

impl Registry for InMemory {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        async move {
            let runtime = Handle::try_current();
            let ttl = self.shared.ttl;
            if ttl.is_some() && runtime.is_err() {
                return Err(Error::no_runtime("a registration with heartbeats"));
            }
            let lease = Arc::new(self.shared.enter(service, endpoint.clone(), ttl));
            let heartbeats = runtime.ok().zip(ttl).map(|(runtime, ttl)| {
                let beats = send_heartbeats(Arc::clone(&lease), ttl / 3);
                runtime.spawn(beats).abort_handle()
            });
            let keeper = LeaseKeeper { lease, heartbeats };
            Ok(Registration::new(service.clone(), endpoint, keeper))
        }
        .boxed()
    }
}

/// One reader of one service.
struct Follower {
    shared: Arc<Shared>,
    service: ServiceName,
    set: watch::Receiver<EndpointSet>,
    /// The version that was yielded last.
    told: Option<u64>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        // Let go of under the lock, so that the last reader sees that it is.
        self.set = watch::channel(EndpointSet::empty()).1;
        table.forget_unused(&self.service);
    }
}

impl Follower {
    /// The set after its next change. Entries lapse here: whoever watches
    /// wakes up for the next one that is due.
    async fn next(&mut self) -> Option<EndpointSet> {
        loop {
            let due = self.shared.table().sweep(&self.service);
            let lapse = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                changed = self.set.changed() => {
                    changed.ok()?;
                    let set = self.set.borrow_and_update().clone();
                    if self.told.replace(set.version()) != Some(set.version()) {
                        return Some(set);
                    }
                }
                () = lapse => {}
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is complete before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(
        self: &Arc<Self>,
        service: &ServiceName,
        endpoint: Endpoint,
        ttl: Option<Duration>,
    ) -> Lease {
        let fate = Arc::default();
        self.table().put(service, endpoint.clone(), &fate, ttl);
        Lease {
            shared: Arc::clone(self),
            service: service.clone(),
            endpoint: Mutex::new(endpoint),
            fate,
            ttl,
        }
    }
}

impl Table {
    fn service(&mut self, name: &ServiceName) -> &mut Service {
        self.services
            .entry(name.clone())
            .or_insert_with(|| Service {
                set: watch::Sender::new(EndpointSet::empty()),
                tenants: HashMap::new(),
            })
    }

    fn put(
        &mut self,
        service: &ServiceName,
        endpoint: Endpoint,
        lease: &Arc<Fate>,
        ttl: Option<Duration>,
    ) {
        let service = self.service(service);
        let tenant = Tenant {
            lease: Arc::clone(lease),
            lapses: ttl.map(|ttl| Instant::now() + ttl),
        };
        let due_before = service.due();
        let replaced = service.tenants.insert(endpoint.id().clone(), tenant);
        if let Some(other) = replaced.filter(|other| !Arc::ptr_eq(&other.lease, lease)) {
            other.lease.end();
        }
        service.change(|set| set.with(endpoint));
        // Readers sleep until the next entry is due; when that comes forward,
        // they have to look again.
        if service
            .due()
            .is_some_and(|due| due_before.is_none_or(|before| due < before))
        {
            service.set.send_modify(|_| {});
        }
    }

    fn remove(&mut self, name: &ServiceName, id: &EndpointId) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        service.tenants.remove(id);
        service.change(|set| set.without(id));
        self.forget_unused(name);
    }

    /// Forgets a service that nobody is registered under and nobody watches:
    /// names may come from outside.
    fn forget_unused(&mut self, name: &ServiceName) {
        let unused =
            |service: &Service| service.tenants.is_empty() && service.set.receiver_count() == 0;
        if self.services.get(name).is_some_and(unused) {
            self.services.remove(name);
        }
    }

    /// Takes out what has lapsed, and tells when the next entry is due.
    fn sweep(&mut self, name: &ServiceName) -> Option<Instant> {
        let now = Instant::now();
        let lapsed: Vec<EndpointId> = self
            .services
            .get(name)?
            .tenants
            .iter()
            .filter(|(_, tenant)| tenant.lapses.is_some_and(|due| due <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lapsed {
            self.remove(name, &id);
        }
        self.services.get(name)?.due()
    }

    /// The lease of an entry that has not lapsed.
    fn tenant(&mut self, service: &ServiceName, id: &EndpointId) -> Option<&Arc<Fate>> {
        self.sweep(service);
        let tenants = &self.services.get(service)?.tenants;
        tenants.get(id).map(|tenant| &tenant.lease)
    }
}

impl Service {
    /// When the next entry lapses.
    fn due(&self) -> Option<Instant> {
        self.tenants
            .values()
            .filter_map(|tenant| tenant.lapses)
            .min()
    }

    /// Readers are woken only when the set really became another.
    fn change(&self, next: impl FnOnce(&EndpointSet) -> EndpointSet) {
        self.set.send_if_modified(|set| {
            let next = next(set);
            let changed = next.version() != set.version();
            *set = next;
            changed
        });
    }
}

/// An entry that lapses unless its owner sends heartbeats.
///
/// Dropping it sends no more: the entry goes when its time is up, as that of a
/// process that crashed. [`Lease::release`] takes it out at once.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    service: ServiceName,
    endpoint: Mutex<Endpoint>,
    fate: Arc<Fate>,
    ttl: Option<Duration>,
}

/// What a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The entry was there and lives on.
    Renewed,
    /// The entry had lapsed and was entered again.
    Restored,
}

impl Lease {
    /// Keeps the entry for another time to live, and enters it again if it had
    /// lapsed.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the entry was released, or another
    /// registration has taken the id: it is out, and stays out.
    pub fn heartbeat(&self) -> Result<Heartbeat, Error> {
        self.write(|_| {})
    }

    /// Takes the entry out.
    pub fn release(&self) {
        let id = self.endpoint().id().clone();
        let mut table = self.shared.table();
        // A heartbeat that is under way on another thread finds it over.
        self.fate.end();
        if self.is_tenant(&mut table, &id) {
            table.remove(&self.service, &id);
        }
    }

    /// Whether the entry of that id is this lease's.
    fn is_tenant(&self, table: &mut Table, id: &EndpointId) -> bool {
        table
            .tenant(&self.service, id)
            .is_some_and(|lease| Arc::ptr_eq(lease, &self.fate))
    }

    fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters the endpoint as `change` leaves it, unless the entry is
    /// another's by now.
    fn write(&self, change: impl FnOnce(&mut Endpoint)) -> Result<Heartbeat, Error> {
        let mut endpoint = self.endpoint();
        let mut table = self.shared.table();
        let found = if self.is_tenant(&mut table, endpoint.id()) {
            Heartbeat::Renewed
        } else {
            if table.tenant(&self.service, endpoint.id()).is_some() {
                // It had lapsed before another took the id.
                self.fate.end();
            }
            Heartbeat::Restored
        };
        if self.fate.is_over() {
            let reason = format!(
                "`{}` of service `{}` was taken out, or registered again by another; \
                 register it anew",
                endpoint.id(),
                self.service
            );
            return Err(Error::registry("in-memory registry", reason));
        }
        change(&mut endpoint);
        table.put(&self.service, endpoint.clone(), &self.fate, self.ttl);
        Ok(found)
    }
}

async fn send_heartbeats(lease: Arc<Lease>, every: Duration) {
    // The first tick of an interval is at once; the entry is fresh then.
    let mut beats = tokio::time::interval_at(Instant::now() + every, every);
    loop {
        beats.tick().await;
        if lease.heartbeat().is_err() {
            // It was taken out, or another has the id, whose own heartbeats
            // keep the entry.
            return;
        }
    }
}

/// Keeps a registration's lease, with or without heartbeats.
#[derive(Debug)]
struct LeaseKeeper {
    lease: Arc<Lease>,
    heartbeats: Option<AbortHandle>,
}

impl Keeper for LeaseKeeper {
    fn state(&self) -> RegistrationState {
        let id = self.lease.endpoint().id().clone();
        let mut table = self.lease.shared.table();
        if self.lease.is_tenant(&mut table, &id) {
            RegistrationState::Registered
        } else if self.lease.fate.is_over() || table.tenant(&self.lease.service, &id).is_some() {
            RegistrationState::Lost
        } else {
            let is_alone = |beats: &AbortHandle| beats.is_finished();
            let reason = if self.heartbeats.as_ref().is_some_and(is_alone) {
                "the entry lapsed, and the runtime that sent its heartbeats has ended; register it \
                 anew in one that goes on"
            } else {
                "the entry lapsed; the next heartbeat enters it again"
            };
            RegistrationState::Retrying(Error::registry("in-memory registry", reason))
        }
    }

    fn update(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<(), Error>> {
        async { self.lease.write(|held| *held = endpoint).map(drop) }.boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>> {
        async {
            self.release();
            Ok(())
        }
        .boxed()
    }

    fn release(&self) {
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.abort();
        }
        self.lease.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: each name that was ever watched was kept for ever.
    #[tokio::test(start_paused = true)]
    async fn a_service_that_nobody_needs_is_forgotten() {
        let registry = InMemory::new();
        let users: ServiceName = "users".parse().unwrap();
        let known = || registry.shared.table().services.len();
        let (one, other) = (registry.watch(&users), registry.watch(&users));
        drop(one);
        assert_eq!(known(), 1, "the other still watches");
        drop(other);
        assert_eq!(known(), 0);
        let endpoint = Endpoint::at("10.0.0.1:80").unwrap();
        let registration = registry.register(&users, endpoint).await.unwrap();
        drop(registry.watch(&users));
        assert_eq!(known(), 1, "somebody is registered");
        let mut watch = registry.watch(&users);
        registration.deregister().await.unwrap();
        assert_eq!(known(), 1, "somebody watches");
        assert!(watch.next().await.unwrap().unwrap().is_empty());
        drop(watch);
        assert_eq!(known(), 0);
    }
}
