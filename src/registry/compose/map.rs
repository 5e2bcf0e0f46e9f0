//! Endpoints changed or left out on the way.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::super::Discover;
use crate::endpoint::{Endpoint, EndpointSet, ServiceName};
use crate::error::Error;

type Change = dyn Fn(&Endpoint) -> Option<Endpoint> + Send + Sync;

/// A source whose endpoints are changed, or left out, one by one.
#[derive(Clone)]
pub struct Map<D> {
    inner: D,
    change: Arc<Change>,
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
        }
    }

    /// The endpoints that `keep` keeps.
    pub fn filter(inner: D, keep: impl Fn(&Endpoint) -> bool + Send + Sync + 'static) -> Self {
        Self::new(inner, move |one| keep(one).then(|| one.clone()))
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
        let mut mapped = Mapped::new(Arc::clone(&self.change));
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
    before: EndpointSet,
    told: Option<EndpointSet>,
    failed_since: bool,
}

impl Mapped {
    fn new(change: Arc<Change>) -> Self {
        Self {
            change,
            before: EndpointSet::empty(),
            told: None,
            failed_since: false,
        }
    }

    /// The set to tell; none when it was told already.
    fn take(&mut self, set: &EndpointSet) -> Option<EndpointSet> {
        let told = self.told.clone().unwrap_or_else(EndpointSet::empty);
        let next = set.iter().filter_map(|one| {
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
        let next = told.next_shared(next).with_skipped(set.skipped().cloned());
        self.before = set.clone();
        let is_news = self.told.is_none() || self.failed_since || next.version() != told.version();
        self.failed_since = false;
        self.told = Some(next.clone());
        is_news.then_some(next)
    }
}
