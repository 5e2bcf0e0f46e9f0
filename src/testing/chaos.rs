//! What a registry promises while its server is being hurt.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::registries::{Watch, endpoint, service};
use crate::balancer::Balancer;
use crate::endpoint::EndpointSet;
use crate::registry::{Registration, Registry};
use crate::stats::Outcome;

/// One way to hurt a registry's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Connections are cut and refused: the process is killed, the port closed.
    Cut,
    /// Connections stay open and nothing comes: `SIGSTOP`, a dropped cable.
    HalfOpen,
    /// Gone, and back with all that it knew.
    Restart,
    /// Gone, and back with nothing.
    BackEmpty,
    /// Gone, and back with an older state.
    BackOlder,
    /// The index, revision or version that clients wait on goes back, or what
    /// lies after theirs is compacted away.
    IndexReset,
    /// Sessions, leases or time-to-live checks end, and the entries with them.
    SessionLost,
    /// It answers what cannot be read.
    Garbage,
}

impl Fault {
    /// All of them, mildest first.
    pub const ALL: [Self; 8] = [
        Self::Cut,
        Self::HalfOpen,
        Self::Restart,
        Self::IndexReset,
        Self::SessionLost,
        Self::Garbage,
        Self::BackOlder,
        Self::BackEmpty,
    ];
}

/// The ways to hurt the server behind a registry under test.
///
/// A test of a registry of your own implements it on whatever runs the server:
/// a child process, a proxy in between, a container.
pub trait Faults: Send {
    /// Hurts the server, and returns when it is hurt; `false` when it has no
    /// such fault, which leaves it as it was. It stays hurt until
    /// [`heal`](Self::heal), as far as the fault has a duration.
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool>;

    /// Undoes the fault, and returns when the server takes requests again.
    fn heal(&mut self, fault: Fault) -> BoxFuture<'_, ()>;

    /// How long the server is left hurt: longer than it takes the registry to
    /// notice. 2 s unless told.
    fn lasting(&self, _fault: Fault) -> Duration {
        Duration::from_secs(2)
    }
}

/// The laws of a registry whose server fails, run with every fault that there
/// is; gives the faults that there were.
///
/// While the server is hurt, a balancer loses no endpoint (and at most half of
/// them to an older state). Once it is healed,
/// within `patience` (the longest backoff, 10 s, and what the system needs):
/// what was registered is registered again without anybody's doing, a watcher
/// that was there before sees changes again, and what is deregistered goes.
///
/// ```
/// use std::time::Duration;
///
/// use futures::FutureExt as _;
/// use futures::future::BoxFuture;
/// use waypost::InMemory;
/// use waypost::testing::{self, Fault, Faults};
///
/// /// A registry in this process has no server that could be hurt.
/// struct Unbreakable;
///
/// impl Faults for Unbreakable {
///     fn hurt(&mut self, _: Fault) -> BoxFuture<'_, bool> {
///         async { false }.boxed()
///     }
///
///     fn heal(&mut self, _: Fault) -> BoxFuture<'_, ()> {
///         async {}.boxed()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tried = testing::chaos(InMemory::new(), Unbreakable, Duration::from_secs(1)).await;
/// assert!(tried.is_empty());
/// # }
/// ```
///
/// # Panics
///
/// When the registry breaks a law; the message names the fault and the law.
pub async fn chaos(
    registry: impl Registry,
    mut faults: impl Faults,
    patience: Duration,
) -> Vec<Fault> {
    let registry: Arc<dyn Registry> = Arc::new(registry);
    let mut tried = Vec::new();
    for fault in Fault::ALL {
        let mut scene = Scene::set(&registry, fault, patience).await;
        if faults.hurt(fault).await {
            scene.nothing_is_lost(faults.lasting(fault)).await;
            faults.heal(fault).await;
            scene.all_is_well_again().await;
            if fault == Fault::Cut {
                for _ in 0..5 {
                    assert!(
                        faults.hurt(fault).await,
                        "what could be done can be done again"
                    );
                    scene.nothing_is_lost(Duration::from_millis(50)).await;
                    faults.heal(fault).await;
                }
                scene.all_is_well_again().await;
            }
            tried.push(fault);
        }
        scene.clear().await;
    }
    tried
}

/// Some instances, a watcher and a balancer, before anything happens.
struct Scene {
    registry: Arc<dyn Registry>,
    fault: Fault,
    patience: Duration,
    name: String,
    held: Vec<Registration>,
    /// The set that the watcher saw last.
    seen: EndpointSet,
    watch: Watch,
    balancer: Balancer,
    entered: usize,
}

const INSTANCES: usize = 5;
const LOOK: Duration = Duration::from_millis(5);

impl Scene {
    async fn set(registry: &Arc<dyn Registry>, fault: Fault, patience: Duration) -> Self {
        let name = format!("chaos-{fault:?}").to_lowercase();
        let balancer = Balancer::builder(service(&name).as_str());
        let mut scene = Self {
            fault,
            patience,
            held: Vec::new(),
            seen: EndpointSet::empty(),
            watch: Watch::new(&**registry, &service(&name), patience),
            balancer: balancer
                .build(Arc::clone(registry))
                .await
                .expect("a balancer runs on any registry"),
            registry: Arc::clone(registry),
            name,
            entered: 0,
        };
        for _ in 0..INSTANCES {
            scene.enter().await;
        }
        scene.sees(INSTANCES, "what is registered shows").await;
        scene
    }

    async fn enter(&mut self) {
        let entry = endpoint(self.entered);
        self.entered += 1;
        let service = service(&self.name);
        let deadline = Instant::now() + self.patience;
        // One that a busy machine was too slow for is made again, as a user would.
        let registration = loop {
            let registering = self.registry.register(&service, entry.clone());
            let registration = tokio::time::timeout_at(deadline, registering).await;
            let registration = registration.unwrap_or_else(|_| {
                panic!("{:?}: a registration is confirmed in time", self.fault)
            });
            match registration {
                Ok(registration) => break registration,
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "{:?}: a registration is taken in time: {error}",
                    self.fault
                ),
            }
            sleep(LOOK).await;
        };
        self.held.push(registration);
    }

    /// The watcher and the balancer see so many endpoints, in time.
    async fn sees(&mut self, count: usize, law: &str) {
        let deadline = Instant::now() + self.patience;
        while self.seen.len() != count || self.confirmed() != count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{:?}: in time: {law}: the watcher has {:?}, the balancer {:?}",
                self.fault,
                self.seen,
                self.balancer.snapshot(),
            );
            self.read(LOOK.min(left)).await;
        }
    }

    /// What the balancer has by the registry's word.
    fn confirmed(&self) -> usize {
        let snapshot = self.balancer.snapshot();
        snapshot.set.len() - snapshot.unconfirmed
    }

    /// Reads what comes within a while. Errors are what a hurt server makes.
    async fn read(&mut self, within: Duration) {
        if let Some(set) = self.watch.within(within).await {
            self.seen = set;
        }
    }

    async fn nothing_is_lost(&mut self, lasting: Duration) {
        let until = Instant::now() + lasting;
        while Instant::now() < until {
            let fault = self.fault;
            // An older state that misses a few is no sign of a fault.
            let least = match fault {
                Fault::BackOlder => INSTANCES.div_ceil(2),
                _ => INSTANCES,
            };
            assert!(
                self.balancer.current().len() >= least,
                "{fault:?}: a server that fails takes no endpoint from a balancer: {:?}",
                self.balancer.snapshot(),
            );
            match self.balancer.pick() {
                Ok(pick) => pick.finish(Outcome::Success),
                Err(error) => panic!("{fault:?}: picks go on: {error}"),
            }
            self.read(LOOK).await;
        }
    }

    async fn all_is_well_again(&mut self) {
        let fault = self.fault;
        let law = "what was registered is there again without anybody's doing";
        self.sees(INSTANCES, law).await;
        let deadline = Instant::now() + self.patience;
        while !self.held.iter().all(|held| held.state().is_registered())
            || !self.balancer.discovery().is_fresh()
        {
            assert!(
                Instant::now() < deadline,
                "{fault:?}: in time: registrations and knowledge are good again: {:?}, {:?}",
                self.held
                    .iter()
                    .map(Registration::state)
                    .collect::<Vec<_>>(),
                self.balancer.discovery(),
            );
            sleep(LOOK).await;
        }
        self.enter().await;
        let law = "a watcher from before sees changes again";
        self.sees(INSTANCES + 1, law).await;
        self.leave().await;
        self.sees(INSTANCES, "what is deregistered goes").await;
    }

    async fn leave(&mut self) {
        if let Some(registration) = self.held.pop() {
            // An error says that it was not confirmed in time; that it goes is
            // looked at.
            drop(registration.deregister().await);
        }
    }

    async fn clear(&mut self) {
        while !self.held.is_empty() {
            self.leave().await;
        }
    }
}
