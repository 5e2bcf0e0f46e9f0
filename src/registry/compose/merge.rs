//! Several registries as one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::super::Discover;
use crate::endpoint::{EndpointId, EndpointSet, ServiceName, Skipped};
use crate::error::Error;

/// Several registries as one: the endpoints of all of them; of those with one
/// id, that of the source that was named first.
///
/// The first set comes when each source has answered or failed, so that a slow
/// one is not taken for an empty one; or after 3 s, so that one that hangs does
/// not keep the others from serving. A source that fails later keeps the part
/// it told last, and its error is told; one that failed at the start adds what
/// it knows when it does.
///
/// [`origin`](Self::origin) tells which source an endpoint is from.
#[derive(Clone, Default)]
pub struct Merge {
    sources: Vec<(Arc<str>, Arc<dyn Discover>)>,
    origins: Arc<Mutex<Origins>>,
}

/// How long all sources are waited for: a healthy one answers in milliseconds,
/// and [`first_answer`](crate::BalancerBuilder::first_answer) is 5 s.
const TOGETHER: Duration = Duration::from_secs(3);

type Item = Result<EndpointSet, Error>;

/// What a watcher hears: a source by its position, or that the wait is over.
enum Said {
    Source(usize, Item),
    Late,
}

type Origins = BTreeMap<ServiceName, Watched>;

/// What is known of a service, for as long as it is watched: names may come
/// from outside.
#[derive(Default)]
struct Watched {
    watchers: usize,
    from: BTreeMap<EndpointId, Arc<str>>,
}

impl Merge {
    /// Of no source yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source behind those that are there, under a name for
    /// [`origin`](Self::origin) and errors.
    #[must_use]
    pub fn source(mut self, name: impl Into<Arc<str>>, source: impl Discover) -> Self {
        self.sources.push((name.into(), Arc::new(source)));
        self
    }

    /// The source that an endpoint is from, as of the last set that any watcher
    /// of the service got; none when nobody watches it any more.
    #[must_use]
    pub fn origin(&self, service: &ServiceName, id: &EndpointId) -> Option<Arc<str>> {
        origins(&self.origins).get(service)?.from.get(id).cloned()
    }
}

fn origins(origins: &Mutex<Origins>) -> MutexGuard<'_, Origins> {
    // Entries are put in whole.
    origins.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Discover for Merge {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let streams = self.sources.iter().enumerate().map(|(at, (_, source))| {
            let sets = source.watch(service);
            sets.map(move |item| Said::Source(at, item)).boxed()
        });
        let late = stream::once(async {
            tokio::time::sleep(TOGETHER).await;
            Said::Late
        });
        let known = || origins(&self.origins);
        known().entry(service.clone()).or_default().watchers += 1;
        let mut merged = Merged {
            service: service.clone(),
            parts: self
                .sources
                .iter()
                .map(|(name, _)| Part::new(name))
                .collect(),
            told: None,
            late: false,
            origins: Arc::clone(&self.origins),
        };
        let none_to_wait_for = self.sources.is_empty().then(|| Ok(EndpointSet::empty()));
        stream::iter(none_to_wait_for)
            .chain(
                stream::select_all(streams.chain([late.boxed()]))
                    .flat_map(move |said| stream::iter(merged.hear(said))),
            )
            .chain(stream::pending())
            .boxed()
    }

    fn is_authoritative(&self) -> bool {
        self.sources
            .iter()
            .all(|(_, source)| source.is_authoritative())
    }

    fn look_again(&self, service: &ServiceName) {
        for (_, source) in &self.sources {
            source.look_again(service);
        }
    }
}

impl fmt::Debug for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.sources.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

struct Part {
    name: Arc<str>,
    set: Option<EndpointSet>,
    error: Option<Error>,
}

impl Part {
    fn new(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            set: None,
            error: None,
        }
    }
}

struct Merged {
    service: ServiceName,
    parts: Vec<Part>,
    told: Option<EndpointSet>,
    /// Whether sources that have said nothing are waited for no more.
    late: bool,
    origins: Arc<Mutex<Origins>>,
}

impl Drop for Merged {
    fn drop(&mut self) {
        let mut origins = origins(&self.origins);
        if let Some(watched) = origins.get_mut(&self.service) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                origins.remove(&self.service);
            }
        }
    }
}

impl Merged {
    /// What is to be told: the set where it changed or is well again, and an
    /// error where one came, or a set came while one stands.
    fn hear(&mut self, said: Said) -> Vec<Item> {
        let mut is_news = self.told.is_none();
        let mut failed = false;
        match said {
            Said::Late if self.late || self.told.is_some() => return Vec::new(),
            Said::Late => self.late = true,
            Said::Source(at, Ok(set)) => {
                let part = &mut self.parts[at];
                is_news |= part.error.take().is_some();
                part.set = Some(set);
            }
            Said::Source(at, Err(error)) => {
                self.parts[at].error = Some(error);
                failed = true;
            }
        }
        let silent = |part: &Part| part.set.is_none() && part.error.is_none();
        let is_known = self.parts.iter().any(|part| part.set.is_some())
            && (self.late || !self.parts.iter().any(silent));
        let mut items = Vec::new();
        if is_known {
            let before = self.told.clone().unwrap_or_else(EndpointSet::empty);
            let next = self.merge(&before);
            self.told = Some(next.clone());
            if is_news || next.version() != before.version() {
                items.push(Ok(next));
            }
        }
        // Behind the set, so that the last word is that a part of it is old.
        if failed || !items.is_empty() {
            items.extend(self.error().map(Err));
        }
        items
    }

    fn merge(&self, before: &EndpointSet) -> EndpointSet {
        let mut by_id = BTreeMap::new();
        let mut skipped: Option<Skipped> = None;
        for part in &self.parts {
            let Some(set) = &part.set else {
                continue;
            };
            for one in set {
                by_id.entry(one.id()).or_insert((one, &part.name));
            }
            if let Some(more) = set.skipped() {
                let count = skipped.as_ref().map_or(0, |skipped| skipped.count) + more.count;
                let sum = skipped.get_or_insert_with(|| more.clone());
                sum.count = count;
            }
        }
        let from = by_id
            .iter()
            .map(|(id, (_, name))| ((*id).clone(), Arc::clone(name)));
        let mut origins = origins(&self.origins);
        origins.entry(self.service.clone()).or_default().from = from.collect();
        drop(origins);
        let both = by_id.into_values().map(|(one, _)| Arc::clone(one));
        before.next_shared(both).with_skipped(skipped)
    }

    /// The error of the first source that fails.
    fn error(&self) -> Option<Error> {
        let mut failing = self.parts.iter().filter(|part| part.error.is_some());
        let part = failing.next()?;
        let error = part.error.clone()?;
        let reason = match failing.count() {
            0 => format!("source `{}` fails: {error}", part.name),
            more => format!("source `{}` and {more} more fail: {error}", part.name),
        };
        Some(Error::registry_because("merge", reason, error))
    }
}
