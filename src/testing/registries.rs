//! What a source of endpoints promises.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use crate::balancer::Balancer;
use crate::endpoint::{Endpoint, EndpointSet, ServiceName, Status};
use crate::error::Error;
use crate::registry::{Discover, Registration, RegistrationState, Registry};

/// The laws of [`Discover`], run on a source that knows `service` with exactly
/// `expected`.
///
/// `patience` is how long a change may take to show: some round trips of the
/// system behind it.
///
/// # Panics
///
/// When the source breaks a law; the message names it.
pub async fn discover(
    source: impl Discover,
    service: &ServiceName,
    expected: &EndpointSet,
    patience: Duration,
) {
    let source: Arc<dyn Discover> = Arc::new(source);

    // A stream that nobody reads on is nobody else's concern, whatever it was
    // about to do: here, to ask for its first set.
    let mut idle = Watch::new(&*source, service, patience);
    drop(idle.sets.next().now_or_never());

    let mut first = Watch::new(&*source, service, patience);
    let set = first
        .next("the first set comes as soon as the state is known")
        .await;
    assert_eq!(&set, expected, "the first set is what the source holds");
    assert!(
        set.endpoints().is_sorted_by(|a, b| a.id() < b.id()),
        "a set is ordered by id, each id once"
    );

    let mut second = Watch::new(&*source, service, patience);
    let set = second.next("a second watcher gets the state, too").await;
    assert_eq!(&set, expected, "all watchers see the same state");

    drop((second, idle));
    first
        .quiet("nothing comes while nothing changes, and the stream does not end")
        .await;

    let balancer = Balancer::builder(service.as_str())
        .build(Arc::clone(&source))
        .await
        .expect("a balancer runs on any source");
    let mut snapshots = balancer.subscribe();
    let fresh = async {
        // An error may come before the first answer.
        while let Some(snapshot) = snapshots.next().await {
            if snapshot.discovery.is_fresh() {
                break;
            }
        }
    };
    timeout(patience, fresh)
        .await
        .expect("in time: a balancer reads the source");
    assert_eq!(&balancer.current(), expected, "a balancer reads the source");
}

/// The laws of [`Registry`], run on a registry that can be written. It is left
/// as it was found; the services it is tried with are called
/// `waypost-contract-…`.
///
/// `patience` is how long a change may take to show.
///
/// # Panics
///
/// When the registry breaks a law; the message names it.
pub async fn registry(registry: impl Registry, patience: Duration) {
    let registry: Arc<dyn Registry> = Arc::new(registry);
    let suite = Suite { registry, patience };
    suite.empty_is_an_answer().await;
    suite.entries_come_and_go().await;
    suite.a_changed_entry_keeps_its_identity().await;
    suite.a_dropped_registration_leaves().await;
    suite.the_later_of_two_registrations_stands().await;
    suite.services_are_kept_apart().await;
    suite.a_late_watcher_sees_what_is_there().await;
    suite.many_entries_arrive_whole().await;
    suite.the_source_laws_hold().await;
}

struct Suite {
    registry: Arc<dyn Registry>,
    patience: Duration,
}

impl Suite {
    async fn empty_is_an_answer(&self) {
        let mut watch = self.watch("empty");
        let set = watch
            .until(
                "a service without entries is an empty set, not silence",
                EndpointSet::is_empty,
            )
            .await;
        assert!(set.is_empty());
    }

    async fn entries_come_and_go(&self) {
        let mut watch = self.watch("come-and-go");
        let (a, b) = (endpoint(1), endpoint(2));
        let first = self.register("come-and-go", &a).await;
        assert!(
            matches!(first.state(), RegistrationState::Registered),
            "a registration that was confirmed says so: {:?}",
            first.state()
        );
        let one = watch.until("an entry shows", |set| set.len() == 1).await;
        assert_eq!(*one.endpoints()[0], a, "an entry shows as it was announced");

        let second = self.register("come-and-go", &b).await;
        let two = watch
            .until("a second entry shows beside the first", |set| {
                set.len() == 2
            })
            .await;
        assert!(
            two.version() > one.version(),
            "versions rise with each change"
        );
        assert!(
            two.get(a.id())
                .is_some_and(|kept| Arc::ptr_eq(kept, &one.endpoints()[0])),
            "an endpoint that did not change is shared with the set before"
        );

        first.deregister().await.expect("an entry can be taken out");
        let left = watch
            .until("an entry that was taken out is gone", |set| {
                set.get(a.id()).is_none()
            })
            .await;
        assert!(left.get(b.id()).is_some(), "its neighbour stays");
        second
            .deregister()
            .await
            .expect("an entry can be taken out");
        watch
            .until(
                "the last entry that was taken out leaves an empty set",
                EndpointSet::is_empty,
            )
            .await;
    }

    async fn a_changed_entry_keeps_its_identity(&self) {
        let mut watch = self.watch("change");
        let neighbour = self.register("change", &endpoint(1)).await;
        let mut registration = self.register("change", &endpoint(2)).await;
        let before = watch.until("both show", |set| set.len() == 2).await;

        registration
            .set_weight(7)
            .await
            .expect("a weight can be announced");
        let id = endpoint(2).id().clone();
        let after = watch
            .until("a new weight shows", |set| {
                set.get(&id).is_some_and(|e| e.weight() == 7)
            })
            .await;
        let diff = before.diff(&after);
        assert!(
            diff.added.is_empty() && diff.removed.is_empty() && diff.changed.len() == 1,
            "a new weight changes one endpoint and replaces none: {diff:?}"
        );

        registration
            .set_status(Status::Draining)
            .await
            .expect("a status can be announced");
        let drained = watch
            .until("a new status shows", |set| {
                set.get(&id).is_some_and(|e| e.status() == Status::Draining)
            })
            .await;
        assert_eq!(drained.len(), 2, "an endpoint that drains is still known");
        assert!(!drained.get(&id).expect("it is known").takes_calls());

        registration
            .deregister()
            .await
            .expect("an entry can be taken out");
        neighbour
            .deregister()
            .await
            .expect("an entry can be taken out");
    }

    async fn a_dropped_registration_leaves(&self) {
        let mut watch = self.watch("drop");
        let registration = self.register("drop", &endpoint(1)).await;
        watch.until("it shows", |set| set.len() == 1).await;
        drop(registration);
        watch
            .until(
                "a registration that is dropped takes its entry out",
                EndpointSet::is_empty,
            )
            .await;
    }

    async fn the_later_of_two_registrations_stands(&self) {
        let mut watch = self.watch("twice");
        let older = self.register("twice", &endpoint(1)).await;
        watch.until("it shows", |set| set.len() == 1).await;
        let newer = self.register("twice", &endpoint(1).with_weight(5)).await;
        watch
            .until(
                "the later registration of an id replaces the entry",
                |set| set.len() == 1 && set.endpoints()[0].weight() == 5,
            )
            .await;
        drop(older);
        watch
            .quiet("the end of the earlier registration does not take the later one's entry out")
            .await;
        newer.deregister().await.expect("an entry can be taken out");
        watch
            .until("the later one can", EndpointSet::is_empty)
            .await;
    }

    async fn services_are_kept_apart(&self) {
        let mut left = self.watch("left");
        let mut right = self.watch("right");
        left.until("empty", EndpointSet::is_empty).await;
        right.until("empty", EndpointSet::is_empty).await;
        let registration = self.register("left", &endpoint(1)).await;
        left.until("it shows where it was registered", |set| set.len() == 1)
            .await;
        right.quiet("an entry shows in its own service only").await;
        registration
            .deregister()
            .await
            .expect("an entry can be taken out");
    }

    async fn a_late_watcher_sees_what_is_there(&self) {
        let registration = self.register("late", &endpoint(1)).await;
        let mut watch = self.watch("late");
        watch
            .until("a watcher that comes later sees what is there", |set| {
                set.len() == 1
            })
            .await;
        registration
            .deregister()
            .await
            .expect("an entry can be taken out");
    }

    async fn many_entries_arrive_whole(&self) {
        const MANY: usize = 50;
        let mut watch = self.watch("many");
        let mut held = Vec::new();
        for i in 0..MANY {
            held.push(self.register("many", &endpoint(i)).await);
        }
        let set = watch
            .until("all of many entries show", |set| set.len() == MANY)
            .await;
        for i in 0..MANY {
            let expected = endpoint(i);
            let found = set.get(expected.id()).expect("each of them is there");
            assert_eq!(**found, expected, "each shows as it was announced");
        }
        for registration in held {
            registration
                .deregister()
                .await
                .expect("an entry can be taken out");
        }
        watch.until("all of them go", EndpointSet::is_empty).await;
    }

    async fn the_source_laws_hold(&self) {
        let expected = EndpointSet::new([endpoint(1), endpoint(2)]).expect("ids differ");
        let mut held = Vec::new();
        for i in [1, 2] {
            held.push(self.register("source", &endpoint(i)).await);
        }
        let mut watch = self.watch("source");
        watch.until("both show", |set| *set == expected).await;
        let registry = Arc::clone(&self.registry);
        let source = AsDiscover(registry);
        discover(source, &service("source"), &expected, self.patience).await;
        for registration in held {
            registration
                .deregister()
                .await
                .expect("an entry can be taken out");
        }
    }

    fn watch(&self, name: &str) -> Watch {
        Watch::new(&*self.registry, &service(name), self.patience)
    }

    async fn register(&self, name: &str, endpoint: &Endpoint) -> Registration {
        let service = service(name);
        let registering = self.registry.register(&service, endpoint.clone());
        timeout(self.patience, registering)
            .await
            .expect("a registration is confirmed in time")
            .expect("a healthy registry takes an entry")
    }
}

/// A registry, read only.
struct AsDiscover(Arc<dyn Registry>);

impl Discover for AsDiscover {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        self.0.watch(service)
    }
}

/// A stream of sets that is read with a law in hand.
pub(super) struct Watch {
    sets: BoxStream<'static, Result<EndpointSet, Error>>,
    patience: Duration,
}

impl Watch {
    pub(super) fn new<D: Discover + ?Sized>(
        source: &D,
        service: &ServiceName,
        patience: Duration,
    ) -> Self {
        Self {
            sets: source.watch(service),
            patience,
        }
    }

    pub(super) async fn next(&mut self, law: &str) -> EndpointSet {
        timeout(self.patience, self.sets.next())
            .await
            .unwrap_or_else(|_| panic!("in time: {law}"))
            .unwrap_or_else(|| panic!("the stream ended: {law}"))
            .unwrap_or_else(|error| panic!("{error}: {law}"))
    }

    /// The next set, where one comes within that time; errors are passed over.
    pub(super) async fn within(&mut self, time: Duration) -> Option<EndpointSet> {
        let set = async {
            loop {
                match self.sets.next().await {
                    Some(Ok(set)) => return set,
                    Some(Err(_)) => {}
                    None => panic!("the stream ended, which no error may do"),
                }
            }
        };
        timeout(time, set).await.ok()
    }

    /// The first set that is as it should be.
    async fn until(
        &mut self,
        law: &str,
        mut test: impl FnMut(&EndpointSet) -> bool,
    ) -> EndpointSet {
        loop {
            let set = self.next(law).await;
            if test(&set) {
                return set;
            }
        }
    }

    /// Nothing changes for a while.
    async fn quiet(&mut self, law: &str) {
        let while_ = self.patience.min(Duration::from_millis(100));
        match timeout(while_, self.sets.next()).await {
            Err(_) => {}
            Ok(None) => panic!("the stream ended: {law}"),
            Ok(Some(item)) => panic!("{item:?} came: {law}"),
        }
    }
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(format!("waypost-contract-{name}")).expect("it is a name")
}

pub(super) fn endpoint(i: usize) -> Endpoint {
    Endpoint::builder(format!("127.0.0.1:{}", 10_000 + i))
        .id(format!("contract-{i:03}"))
        .build()
        .expect("it is an endpoint")
}
