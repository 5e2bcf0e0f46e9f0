//! The chaos suite, run on a registry in this process behind a link that can be
//! broken; and that the suite finds what it is there to find.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use waypost::testing::{self, Fault, Faults};
use waypost::{
    Discover, Endpoint, EndpointSet, Error, InMemory, Registration, Registry, ServiceName,
};

/// A registry whose reading goes through a link that can be broken.
#[derive(Clone)]
struct Linked {
    behind: InMemory,
    broken: Arc<watch::Sender<Option<Fault>>>,
    /// Whether an outage is taken for an empty service.
    forgets: bool,
}

impl Linked {
    fn new() -> Self {
        Self {
            behind: InMemory::new(),
            broken: Arc::new(watch::Sender::new(None)),
            forgets: false,
        }
    }

    /// What comes through the link as it is now; none while nothing does.
    fn seen(&self, service: &ServiceName) -> Option<Result<EndpointSet, Error>> {
        let now = self.behind.endpoints(service);
        match *self.broken.borrow() {
            None => Some(Ok(now)),
            Some(_) if self.forgets => Some(Ok(EndpointSet::empty())),
            Some(Fault::HalfOpen) => None,
            Some(Fault::BackEmpty) => Some(Ok(EndpointSet::empty())),
            Some(Fault::BackOlder) => {
                let first = now.iter().take(1).map(|one| (**one).clone());
                Some(EndpointSet::new(first))
            }
            Some(_) => Some(Err(Error::registry("link", "broken"))),
        }
    }
}

impl Discover for Linked {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let changes = self.behind.watch(service).map(|_| ());
        let mut broken = self.broken.subscribe();
        broken.mark_changed();
        let link = stream::unfold(broken, |mut broken| async {
            broken.changed().await.ok()?;
            Some(((), broken))
        });
        let (this, service) = (self.clone(), service.clone());
        stream::select(changes, link)
            .filter_map(move |()| {
                let seen = this.seen(&service);
                async { seen }
            })
            .boxed()
    }

    fn is_authoritative(&self) -> bool {
        self.forgets
    }
}

impl Registry for Linked {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        self.behind.register(service, endpoint)
    }
}

struct Breaks(Linked);

impl Faults for Breaks {
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool> {
        let has = !matches!(fault, Fault::IndexReset | Fault::SessionLost);
        if has {
            self.0.broken.send_replace(Some(fault));
        }
        async move { has }.boxed()
    }

    fn heal(&mut self, _fault: Fault) -> BoxFuture<'_, ()> {
        self.0.broken.send_replace(None);
        async {}.boxed()
    }

    fn lasting(&self, _fault: Fault) -> Duration {
        Duration::from_millis(100)
    }
}

#[tokio::test]
async fn a_link_that_breaks_in_every_way_loses_nothing() {
    let linked = Linked::new();
    let tried = testing::chaos(linked.clone(), Breaks(linked), Duration::from_secs(20)).await;
    assert_eq!(tried.len(), Fault::ALL.len() - 2, "{tried:?}");
}

#[tokio::test]
#[should_panic(expected = "takes no endpoint from a balancer")]
async fn a_registry_that_takes_an_outage_for_emptiness_is_found_out() {
    let mut linked = Linked::new();
    linked.forgets = true;
    testing::chaos(linked.clone(), Breaks(linked), Duration::from_secs(20)).await;
}
