//! Endpoints changed or left out on the way.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::super::Discover;
use crate::endpoint::{AddressPolicy, Endpoint, EndpointSet, ServiceName, Skipped};
use crate::error::Error;

type Change = dyn Fn(&Endpoint) -> Option<Endpoint> + Send + Sync;

/// A source whose endpoints are changed, or left out, one by one.
#[derive(Clone)]
pub struct Map<D> {
    inner: D,
    change: Arc<Change>,
    policy: Option<AddressPolicy>,
}

impl<D: Discover> Map<D> {
    /// What `change` makes of each endpoint; none leaves it out. It is called
    /// once for each endpoint that is new or has changed. An endpoint that comes
    /// back with another id is left out: ids are unique, and tell what stayed.
    pub fn new(
        inner: D,
        change: impl Fn(&Endpoint) -> Option<Endpoint> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            change: Arc::new(change),
            policy: None,
        }
    }

    /// The endpoints that `keep` keeps.
    pub fn filter(inner: D, keep: impl Fn(&Endpoint) -> bool + Send + Sync + 'static) -> Self {
        Self::new(inner, move |one| keep(one).then(|| one.clone()))
    }

    /// The endpoints whose addresses the policy allows. Those that it refuses are
    /// counted as [skipped](EndpointSet::skipped), and nothing is ever sent there:
    /// no call, and no health check, probe or stream of reports either.
    ///
    /// ```
    /// use waypost::endpoint::AddressPolicy;
    /// use waypost::registry::Map;
    /// use waypost::{Balancer, Fixed};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), waypost::Error> {
    /// let told = Fixed::addresses(["10.0.0.1:80", "169.254.169.254:80"])?;
    /// let users = Balancer::builder("users")
    ///     .build(Map::allowed(told, AddressPolicy::default()))
    ///     .await?;
    /// let set = users.current();
    /// assert_eq!((set.len(), set.skipped().map(|skipped| skipped.count)), (1, Some(1)));
    /// # Ok(()) }
    /// ```
    pub fn allowed(inner: D, policy: AddressPolicy) -> Self {
        Self {
            policy: Some(policy),
            ..Self::new(inner, |one| Some(one.clone()))
        }
    }

    /// The endpoints of a zone.
    pub fn zone(inner: D, zone: impl Into<String>) -> Self {
        let zone = zone.into();
        Self::filter(inner, move |one| one.locality().zone() == Some(&*zone))
    }

    /// The endpoints whose metadata has that value under that key.
    pub fn metadata(inner: D, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self::filter(inner, move |one| {
            one.metadata()
                .get(&*key)
                .is_some_and(|held| **held == *value)
        })
    }
}

impl<D: Discover> Discover for Map<D> {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let mut mapped = Mapped::new(Arc::clone(&self.change), self.policy);
        self.inner
            .watch(service)
            .filter_map(move |item| {
                let item = match item {
                    Ok(set) => mapped.take(&set).map(Ok),
                    Err(error) => {
                        mapped.failed_since = true;
                        Some(Err(error))
                    }
                };
                async { item }
            })
            .boxed()
    }

    fn is_authoritative(&self) -> bool {
        self.inner.is_authoritative()
    }

    fn look_again(&self, service: &ServiceName) {
        self.inner.look_again(service);
    }
}

impl<D: fmt::Debug> fmt::Debug for Map<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

struct Mapped {
    change: Arc<Change>,
    policy: Option<AddressPolicy>,
    before: EndpointSet,
    told: Option<EndpointSet>,
    failed_since: bool,
}

impl Mapped {
    fn new(change: Arc<Change>, policy: Option<AddressPolicy>) -> Self {
        Self {
            change,
            policy,
            before: EndpointSet::empty(),
            told: None,
            failed_since: false,
        }
    }

    /// The set to tell; none when it was told already.
    fn take(&mut self, set: &EndpointSet) -> Option<EndpointSet> {
        let told = self.told.clone().unwrap_or_else(EndpointSet::empty);
        let mut skipped = set.skipped().cloned();
        let next = set.iter().filter_map(|one| {
            if let Some(refusal) = self.policy.and_then(|policy| policy.refusal(one)) {
                Skipped::count(&mut skipped, refusal);
                return None;
            }
            let before = self.before.get(one.id());
            if before.is_some_and(|before| Arc::ptr_eq(before, one)) {
                return told.get(one.id()).map(Arc::clone);
            }
            let changed = (self.change)(one)?;
            // Two ids made one would be a set with one id twice.
            if changed.id() != one.id() {
                return None;
            }
            // Equal is as good as the same, and shared.
            let held = told.get(one.id()).filter(|held| ***held == changed);
            Some(held.map_or_else(|| Arc::new(changed), Arc::clone))
        });
        let next = told.next_shared(next).with_skipped(skipped);
        self.before = set.clone();
        let count = |set: &EndpointSet| set.skipped().map_or(0, |skipped| skipped.count);
        let is_other = next.version() != told.version() || count(&next) != count(&told);
        let is_news = self.told.is_none() || self.failed_since || is_other;
        self.failed_since = false;
        self.told = Some(next.clone());
        is_news.then_some(next)
    }
}
