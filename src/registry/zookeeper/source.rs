//! Reading a service: its nodes and their data, and again what changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use super::Shared;
use super::layout::{read, service_path};
use super::session::{Connected, Failure};
use super::watchers::{Due, Interest};
use super::wire::{self, EXISTS, GET_CHILDREN, GET_DATA, NO_AUTH, NO_NODE, Writer};
use crate::endpoint::{Endpoint, ServiceName, Skipped};
use crate::error::Error;
use crate::registry::follow::{Answer, Source};

/// How many nodes are asked for at once: a full pipe, and little that is in
/// vain when the connection breaks off.
const AT_ONCE: usize = 256;

/// A watch is good for one event, so that each look at something sets the next
/// one; and for one connection, so that after a break everything is looked at.
pub(super) struct Reader {
    shared: Arc<Shared>,
    path: String,
    interest: Arc<Interest>,
    nodes: BTreeMap<String, Node>,
    /// The connection that the watches are set on; none when everything has to
    /// be looked at.
    on: Option<Connected>,
    /// Whether there is something to tell: a change, or that an error is over.
    is_due: bool,
}

struct Node {
    bytes: usize,
    endpoint: Result<Arc<Endpoint>, Error>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, service: &ServiceName) -> Self {
        let path = service_path(&shared.base, service);
        Self {
            interest: shared.session.watchers.add(&path),
            shared,
            path,
            nodes: BTreeMap::new(),
            on: None,
            is_due: true,
        }
    }

    async fn read(&mut self) -> Result<Answer, Error> {
        loop {
            let session = &self.shared.session;
            let (on, due) = match self.on.take() {
                None => {
                    let on = session.connected().await?;
                    // What happened before is seen by looking.
                    self.interest.take();
                    let all = Due {
                        all: true,
                        ..Due::default()
                    };
                    (on, all)
                }
                Some(on) => tokio::select! {
                    due = self.interest.due() => (on, due),
                    error = session.lost(on) => return Err(error),
                },
            };
            self.look(on, due).await?;
            // Not before: what is dropped half done is done anew.
            self.on = Some(on);
            if self.is_due {
                self.is_due = false;
                return Ok(self.answer());
            }
        }
    }

    /// Looks at what is due, and sets the watches anew.
    async fn look(&mut self, on: Connected, due: Due) -> Result<(), Error> {
        let mut names: HashSet<String> = due.nodes;
        if due.all || due.list {
            let listed = self.list(on).await?;
            let before = self.nodes.len();
            self.nodes.retain(|name, _| listed.contains(name));
            self.is_due |= self.nodes.len() != before;
            names.retain(|name| listed.contains(name));
            let is_new = |name: &String| due.all || !self.nodes.contains_key(name);
            names.extend(listed.into_iter().filter(is_new));
        }
        let shared = Arc::clone(&self.shared);
        let path = self.path.clone();
        let get = |name: String| {
            let (shared, path) = (&shared, format!("{path}/{name}"));
            async move { (name, get(shared, on, &path).await) }
        };
        let mut found = stream::iter(names).map(get).buffer_unordered(AT_ONCE);
        let mut bytes: usize = self.nodes.values().map(|node| node.bytes).sum();
        while let Some((name, data)) = found.next().await {
            let node = match data {
                Ok(data) => Some(Node {
                    bytes: name.len() + data.len(),
                    endpoint: read(&name, &data).map(Arc::new),
                }),
                // It has gone since, of which the list's watch tells.
                Err(failure) if failure.code == Some(NO_NODE) => None,
                Err(failure) if failure.code == Some(NO_AUTH) => Some(Node {
                    bytes: name.len(),
                    endpoint: Err(failure.error),
                }),
                Err(failure) => return Err(failure.error),
            };
            bytes += node.as_ref().map_or(0, |node| node.bytes);
            let before = match node {
                Some(node) => self.nodes.insert(name.clone(), node),
                None => self.nodes.remove(&name),
            };
            bytes -= before.as_ref().map_or(0, |node| node.bytes);
            self.is_due |= !is_same(before.as_ref(), self.nodes.get(&name));
            self.bounded(on, bytes)?;
        }
        Ok(())
    }

    /// The names of the service's nodes; none where there is no such service.
    async fn list(&self, on: Connected) -> Result<HashSet<String>, Failure> {
        let session = &self.shared.session;
        let question = || Writer::default().text(&self.path).flag(true).0;
        loop {
            match session.ask(on, GET_CHILDREN, question()).await {
                Ok(answer) => {
                    let names = wire::Reader(&answer).texts();
                    let names = names.ok_or_else(|| session.unreadable(on, GET_CHILDREN))?;
                    return Ok(names.into_iter().collect());
                }
                Err(failure) if failure.code == Some(NO_NODE) => {}
                Err(failure) => return Err(failure),
            }
            // This one tells when the service comes to be.
            match session.ask(on, EXISTS, question()).await {
                Ok(_) => {}
                Err(failure) if failure.code == Some(NO_NODE) => return Ok(HashSet::new()),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// That a service which never stops to grow does not fill the memory.
    fn bounded(&self, on: Connected, bytes: usize) -> Result<(), Error> {
        let most = self.shared.session.settings().max_message;
        if bytes <= most {
            return Ok(());
        }
        let origin = self.shared.session.settings().origin(on.server);
        let reason = format!(
            "the service's nodes have more than {most} bytes; `max_message` sets the bound"
        );
        Err(Error::registry(origin, reason))
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        answer.endpoints.reserve(self.nodes.len());
        for node in self.nodes.values() {
            match &node.endpoint {
                Ok(endpoint) => answer.endpoints.push(Arc::clone(endpoint)),
                Err(error) => Skipped::count(&mut answer.skipped, error.clone()),
            }
        }
        answer
    }
}

async fn get(shared: &Shared, on: Connected, path: &str) -> Result<Bytes, Failure> {
    let question = Writer::default().text(path).flag(true).0;
    let answer = shared.session.ask(on, GET_DATA, question).await?;
    let data = wire::Reader(&answer).bytes();
    let data = data.ok_or_else(|| shared.session.unreadable(on, GET_DATA))?;
    Ok(answer.slice_ref(data))
}

fn is_same(one: Option<&Node>, other: Option<&Node>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => match (&one.endpoint, &other.endpoint) {
            (Ok(one), Ok(other)) => one == other,
            (one, other) => one.is_err() && other.is_err(),
        },
        _ => false,
    }
}

impl Source for Reader {
    async fn next(&mut self) -> Result<Answer, Error> {
        let read = self.read().await;
        self.is_due |= read.is_err();
        read
    }
}
