//! Any service by name, with one registry.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::BoxStream;
use tokio::runtime::Handle;

use crate::balancer::{Balancer, BalancerBuilder};
use crate::endpoint::{EndpointSet, ServiceName};
use crate::error::Error;
use crate::registry::Discover;
use crate::strategy::{Adaptive, Strategy};
use crate::time::{Clock, Timestamp};

/// A balancer for every service that is asked for: made on first use, shared
/// from then on, and dropped when it has been idle.
///
/// ```
/// use std::time::Duration;
/// use waypost::{Directory, Endpoint, InMemory, Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost::Error> {
/// let registry = InMemory::new();
/// let _here = registry.register(&"users".parse()?, Endpoint::at("10.0.0.1:80")?).await?;
///
/// let directory = Directory::new(registry);
/// let users = directory.balancer(&"users".parse()?)?;
/// users.ready(Duration::from_secs(1)).await?;
/// assert_eq!(users.pick()?.address().as_str(), "10.0.0.1:80");
/// # Ok(()) }
/// ```
///
/// Looking a service up takes no lock once it is known: one atomic load and one
/// look into a hash map.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

struct Shared {
    discover: Arc<dyn Discover>,
    strategy: Arc<dyn Strategy>,
    clock: Clock,
    balancers: Option<Arc<SetUp>>,
    idle: Duration,
    max_services: usize,
    services: ArcSwap<HashMap<ServiceName, Arc<Entry>>>,
    /// Held while `services` is being replaced.
    writing: Mutex<Sweeper>,
}

type SetUp = dyn Fn(BalancerBuilder) -> Result<BalancerBuilder, Error> + Send + Sync;

struct Entry {
    balancer: Balancer,
    /// When it was asked for last, to about a tenth of the idle time.
    used: AtomicU64,
}

/// Whether the task that drops idle balancers runs.
#[derive(PartialEq)]
enum Sweeper {
    Asleep,
    Running,
}

impl Directory {
    /// A directory over a registry, with the defaults of its
    /// [builder](Self::builder).
    pub fn new(discover: impl Discover) -> Self {
        Self::builder(discover).build()
    }

    /// Sets up a directory.
    pub fn builder(discover: impl Discover) -> DirectoryBuilder {
        DirectoryBuilder {
            discover: Arc::new(discover),
            strategy: Arc::new(Adaptive::new()),
            clock: Clock::system(),
            balancers: None,
            idle: Duration::from_mins(10),
            max_services: 1024,
        }
    }

    /// The balancer of a service. When it is asked for the first time, its
    /// registry may not have answered yet: wait with [`Balancer::ready`].
    ///
    /// # Errors
    ///
    /// When it is new and there is no Tokio runtime, or the directory serves as
    /// many services as it may.
    pub fn balancer(&self, service: &ServiceName) -> Result<Balancer, Error> {
        let now = self.shared.clock.now();
        if let Some(entry) = self.shared.services.load().get(service) {
            entry.touch(now, self.shared.idle);
            return Ok(entry.balancer.clone());
        }
        self.admit(service, now)
    }

    /// The services that have a balancer now, in no order.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        self.shared.services.load().keys().cloned().collect()
    }

    fn admit(&self, service: &ServiceName, now: Timestamp) -> Result<Balancer, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime("a directory"))?;
        let shared = &self.shared;
        let mut sweeper = shared
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut services = HashMap::clone(&shared.services.load());
        if let Some(entry) = services.get(service) {
            // Another thread was first.
            return Ok(entry.balancer.clone());
        }
        if services.len() >= shared.max_services {
            services.retain(|_, entry| !entry.is_idle(now, shared.idle));
        }
        if services.len() >= shared.max_services {
            let advice = "drop what is not needed, or raise `DirectoryBuilder::max_services`";
            return Err(Error::limit(
                "services of a directory",
                shared.max_services,
                advice,
            ));
        }
        let mut builder = Balancer::builder(service.as_str())
            .strategy(Arc::clone(&shared.strategy))
            .clock(shared.clock.clone());
        if let Some(set_up) = &shared.balancers {
            builder = set_up(builder)?;
        }
        let balancer = builder.spawn(Arc::clone(&shared.discover))?;
        let entry = Entry {
            balancer: balancer.clone(),
            used: AtomicU64::new(now.as_nanos()),
        };
        services.insert(service.clone(), Arc::new(entry));
        shared.services.store(Arc::new(services));
        if *sweeper == Sweeper::Asleep {
            *sweeper = Sweeper::Running;
            runtime.spawn(sweep(Arc::downgrade(shared), shared.idle));
        }
        Ok(balancer)
    }
}

impl Entry {
    /// Writes only when it makes a difference, so that threads that call the
    /// same service do not write to one line with each call.
    fn touch(&self, now: Timestamp, idle: Duration) {
        if self.unused_for(now) > idle / 10 {
            self.used.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    fn unused_for(&self, now: Timestamp) -> Duration {
        now.since(Timestamp::from_nanos(self.used.load(Ordering::Relaxed)))
    }

    fn is_idle(&self, now: Timestamp, idle: Duration) -> bool {
        self.unused_for(now) > idle
    }
}

/// Drops idle balancers until the directory is gone, or empty.
async fn sweep(shared: Weak<Shared>, idle: Duration) {
    loop {
        tokio::time::sleep(idle / 2).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut sweeper = shared
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = shared.clock.now();
        let before = shared.services.load_full();
        if before.values().any(|entry| entry.is_idle(now, idle)) {
            let mut services = HashMap::clone(&before);
            services.retain(|_, entry| !entry.is_idle(now, idle));
            shared.services.store(Arc::new(services));
        }
        if shared.services.load().is_empty() {
            *sweeper = Sweeper::Asleep;
            return;
        }
    }
}

impl Discover for Directory {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        self.shared.discover.watch(service)
    }

    fn is_authoritative(&self) -> bool {
        self.shared.discover.is_authoritative()
    }

    fn look_again(&self, service: &ServiceName) {
        self.shared.discover.look_again(service);
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("services", &self.services())
            .finish_non_exhaustive()
    }
}

/// Sets up a [`Directory`].
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`strategy`](Self::strategy) | [`Adaptive`] | as for a single balancer |
/// | [`balancers`](Self::balancers) | as they are | all other settings, health checks and topology among them |
/// | [`idle`](Self::idle) | 10 min | longer than most pauses between calls, short enough to forget a renamed service within the hour |
/// | [`max_services`](Self::max_services) | 1,024 | host names may come from outside; each costs a watch at the registry |
#[must_use = "a directory is made by `build`"]
pub struct DirectoryBuilder {
    discover: Arc<dyn Discover>,
    strategy: Arc<dyn Strategy>,
    clock: Clock,
    balancers: Option<Arc<SetUp>>,
    idle: Duration,
    max_services: usize,
}

impl DirectoryBuilder {
    /// Which of the endpoints that may be picked gets a call.
    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// The clock that tells idleness and latency.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets up each balancer as it is made; what fails is told to who asked for the service.
    ///
    /// ```
    /// use waypost::health::check::HealthCheck;
    /// use waypost::{Directory, InMemory};
    ///
    /// # fn main() -> Result<(), waypost::Error> {
    /// let check = HealthCheck::tcp();
    /// let directory = Directory::builder(InMemory::new())
    ///     .balancers(move |builder| Ok(builder.health_check(check.clone())))
    ///     .build();
    /// # let _ = directory; Ok(()) }
    /// ```
    pub fn balancers(
        mut self,
        set_up: impl Fn(BalancerBuilder) -> Result<BalancerBuilder, Error> + Send + Sync + 'static,
    ) -> Self {
        self.balancers = Some(Arc::new(set_up));
        self
    }

    /// How long a balancer that nobody asks for is kept; at least 1 ms.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle.max(Duration::from_millis(1));
        self
    }

    /// How many services are served at once. When there are as many, the idle
    /// ones go first; then new ones are refused.
    pub fn max_services(mut self, max: usize) -> Self {
        self.max_services = max;
        self
    }

    /// The directory.
    #[must_use]
    pub fn build(self) -> Directory {
        Directory {
            shared: Arc::new(Shared {
                discover: self.discover,
                strategy: self.strategy,
                clock: self.clock,
                balancers: self.balancers,
                idle: self.idle,
                max_services: self.max_services,
                services: ArcSwap::default(),
                writing: Mutex::new(Sweeper::Asleep),
            }),
        }
    }
}

impl fmt::Debug for DirectoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryBuilder")
            .field("strategy", &self.strategy)
            .field("idle", &self.idle)
            .field("max_services", &self.max_services)
            .finish_non_exhaustive()
    }
}
