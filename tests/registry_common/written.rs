//! A registry out of a source that can only be read, and of what writes it: a
//! file and its editor, a zone and its keeper.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use waypost::registry::{Keeper, RegistrationState};
use waypost::{Discover, Endpoint, EndpointSet, Error, Registration, Registry, ServiceName};

/// What is written, by service and id.
pub(crate) type Entries = BTreeMap<ServiceName, BTreeMap<String, Endpoint>>;

/// Writes what stands after an entry of this service has gone (the first), come
/// (the second), or been replaced (both).
type Write = dyn Fn(&Entries, &ServiceName, Option<&Endpoint>, Option<&Endpoint>) + Send + Sync;

#[derive(Clone)]
pub(crate) struct Written<D> {
    reads: D,
    pen: Arc<Pen>,
}

struct Pen {
    entries: Mutex<Entries>,
    write: Box<Write>,
}

impl<D> Written<D> {
    pub(crate) fn new(
        reads: D,
        write: impl Fn(&Entries, &ServiceName, Option<&Endpoint>, Option<&Endpoint>)
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            reads,
            pen: Arc::new(Pen {
                entries: Mutex::default(),
                write: Box::new(write),
            }),
        }
    }

    pub(crate) fn entries(&self) -> Entries {
        self.pen.entries.lock().unwrap().clone()
    }
}

impl Pen {
    fn put(&self, service: &ServiceName, id: &str, to: Option<&Endpoint>) {
        let mut entries = self.entries.lock().unwrap();
        let of_service = entries.entry(service.clone()).or_default();
        let was = match to {
            Some(to) => of_service.insert(id.to_owned(), to.clone()),
            None => of_service.remove(id),
        };
        (self.write)(&entries, service, was.as_ref(), to);
    }
}

impl<D: Discover> Discover for Written<D> {
    fn watch(&self, service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        self.reads.watch(service)
    }
}

impl<D: Discover> Registry for Written<D> {
    fn register<'a>(
        &'a self,
        service: &'a ServiceName,
        endpoint: Endpoint,
    ) -> BoxFuture<'a, Result<Registration, Error>> {
        let entry = Entry {
            pen: Arc::clone(&self.pen),
            service: service.clone(),
            id: endpoint.id().to_string(),
        };
        entry.put(Some(&endpoint));
        let registration = Registration::new(service.clone(), endpoint, entry);
        async { Ok(registration) }.boxed()
    }
}

struct Entry {
    pen: Arc<Pen>,
    service: ServiceName,
    id: String,
}

impl Entry {
    fn put(&self, to: Option<&Endpoint>) {
        self.pen.put(&self.service, &self.id, to);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.service)
    }
}

impl Keeper for Entry {
    fn state(&self) -> RegistrationState {
        RegistrationState::Registered
    }

    fn update(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<(), Error>> {
        self.put(Some(&endpoint));
        async { Ok(()) }.boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.put(None);
        async { Ok(()) }.boxed()
    }

    fn release(&self) {}
}
