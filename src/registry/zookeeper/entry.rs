//! An entry: a node that ends with the session.
//!
//! Two registrations of one id are told apart by the transaction that made the
//! node: whoever finds one that is newer than its own has been replaced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::layout::{node_name, service_path, write};
use super::session::{Connected, Failure, Session};
use super::wire::{
    CREATE, CREATE_CONTAINER, CREATE_ONLY, DELETE, GET_DATA, MULTI, NO_NODE, NODE_EXISTS, Reader,
    SET_DATA, Stat, Writer,
};
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::registry::announce::{Announcer, Beat};

const EPHEMERAL: i32 = 1;
const CONTAINER: i32 = 4;
const READ: i32 = 1;
const MAKE: i32 = 4;
const ALL: i32 = 31;

/// How often entering goes on when somebody else does the same at the same
/// time, or a service's node is taken away since it was empty.
const TRIES: usize = 4;

pub(super) struct Entry {
    service: ServiceName,
    parent: String,
    node: Node,
}

/// The node, and what is known of it.
#[derive(Clone)]
struct Node {
    shared: Arc<Shared>,
    path: String,
    /// The transaction that made it, once that is known.
    created: Option<i64>,
    /// What was written to it, if no answer came to that.
    unsure: Option<Vec<u8>>,
}

impl Node {
    /// The node as it is; none when there is none.
    async fn get(&self, on: Connected) -> Result<Option<(Bytes, Stat)>, Failure> {
        let question = Writer::default().text(&self.path).flag(false).0;
        let session = &self.shared.session;
        let answer = match session.ask(on, GET_DATA, question).await {
            Ok(answer) => answer,
            Err(failure) if failure.code == Some(NO_NODE) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let mut read = Reader(&answer);
        let found = read.bytes().zip(read.stat());
        let (data, stat) = found.ok_or_else(|| session.unreadable(on, GET_DATA))?;
        Ok(Some((answer.slice_ref(data), stat)))
    }

    /// Takes it out, unless it is another registration's.
    async fn remove(&self) -> Result<(), Error> {
        let session = &self.shared.session;
        let on = session.connected().await?;
        let is_ours = match self.get(on).await? {
            Some((data, stat)) => {
                self.created == Some(stat.created) || self.unsure.as_deref() == Some(&*data)
            }
            None => false,
        };
        if !is_ours {
            return Ok(());
        }
        let question = Writer::default().text(&self.path).int(-1).0;
        match session.ask(on, DELETE, question).await {
            Err(failure) if failure.code != Some(NO_NODE) => Err(failure.error),
            _ => Ok(()),
        }
    }
}

impl Entry {
    pub(super) fn new(
        shared: Arc<Shared>,
        service: &ServiceName,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        // What cannot be written is refused before anything is sent.
        write(service, endpoint)?;
        let parent = service_path(&shared.base, service);
        let path = format!("{parent}/{}", node_name(endpoint.id().as_str()));
        Ok(Self {
            service: service.clone(),
            parent,
            node: Node {
                shared,
                path,
                created: None,
                unsure: None,
            },
        })
    }

    fn session(&self) -> &Session {
        &self.node.shared.session
    }

    /// Whether a node is this registration's, in the session that there is.
    fn is_ours(&self, stat: Stat, on: Connected) -> bool {
        self.node.created == Some(stat.created) && stat.owner == on.session
    }

    /// Creates the node, writes to it, or puts it in another's place, as what
    /// is there asks for.
    async fn put(&self, on: Connected, there: Option<Stat>, value: &[u8]) -> Result<Stat, Failure> {
        match there {
            None => self.create(on, value).await,
            Some(stat) if self.is_ours(stat, on) => {
                let question = Writer::default().text(&self.node.path);
                let question = question.bytes(value).int(-1).0;
                self.session().ask(on, SET_DATA, question).await?;
                Ok(stat)
            }
            Some(_) => self.replace(on, value).await,
        }
    }

    async fn create(&self, on: Connected, value: &[u8]) -> Result<Stat, Failure> {
        let session = self.session();
        let question = self.arguments(&self.node.path, value, EPHEMERAL, READ).0;
        let answer = session.ask(on, CREATE, question).await?;
        let mut read = Reader(&answer);
        let stat = read.text().and_then(|_| read.stat());
        stat.ok_or_else(|| session.unreadable(on, CREATE))
    }

    /// Puts ours in the place of another session's, or of another
    /// registration's, at once: no reader sees a gap.
    async fn replace(&self, on: Connected, value: &[u8]) -> Result<Stat, Failure> {
        let session = self.session();
        let head = |writer: Writer, op: i32| writer.int(op).flag(op == -1).int(-1);
        let mut question = head(Writer::default(), DELETE.code);
        question = head(question.text(&self.node.path).int(-1), CREATE_ONLY.code);
        let arguments = self.arguments(&self.node.path, value, EPHEMERAL, READ);
        question.0.extend(arguments.0);
        question = head(question, -1);
        let answer = session.ask(on, MULTI, question.0).await?;
        match Reader(&answer).replaced() {
            Some(Ok(())) => {}
            Some(Err(code)) => {
                let origin = session.settings().origin(on.server);
                return Err(Failure::refused(&origin, MULTI, code));
            }
            None => return Err(session.unreadable(on, MULTI)),
        }
        // ZooKeeper does not tell what it made within a transaction.
        Ok(match self.node.get(on).await? {
            Some((data, stat)) if data == value && stat.owner == on.session => stat,
            // It is another's already: any is newer than this.
            _ => Stat {
                created: 0,
                owner: on.session,
            },
        })
    }

    /// The arguments of `create`; what others than the user may do.
    fn arguments(&self, path: &str, value: &[u8], flags: i32, others: i32) -> Writer {
        let writer = Writer::default().text(path).bytes(value);
        let writer = if self.session().settings().digest.is_some() {
            let ours = writer.int(2).int(ALL).text("auth").text("");
            ours.int(others).text("world").text("anyone")
        } else {
            writer.int(1).int(ALL).text("world").text("anyone")
        };
        writer.int(flags)
    }

    /// Makes the service's node, and those above it where they are missing, as
    /// containers: ZooKeeper takes them away some time after they became empty.
    async fn make_parents(&self, on: Connected) -> Result<(), Failure> {
        let path = &self.parent;
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).collect();
        ends.push(path.len());
        let last = ends.len() - 1;
        let mut at = last;
        // Up to what is there and down again; twice where others take away what
        // was empty.
        for _ in 0..4 * ends.len() {
            // Beside this service, others may have theirs.
            let others = if at == last { READ } else { READ | MAKE };
            let question = self.arguments(&path[..ends[at]], b"", CONTAINER, others).0;
            let made = self.session().ask(on, CREATE_CONTAINER, question).await;
            match made {
                Err(failure) if failure.code == Some(NO_NODE) && at > 0 => at -= 1,
                Err(failure) if failure.code != Some(NODE_EXISTS) => return Err(failure),
                _ if at == last => break,
                _ => at += 1,
            }
        }
        Ok(())
    }
}

impl Announcer for Entry {
    fn origin(&self) -> String {
        self.session().origin()
    }

    async fn enter(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let value = write(&self.service, endpoint)?;
        let on = self.session().connected().await?;
        let mut tries = 0..TRIES;
        loop {
            let there = self.node.get(on).await?.map(|(_, stat)| stat);
            // It may be there from now on, answer or not.
            self.node.unsure = Some(value.clone());
            let failure = match self.put(on, there, &value).await {
                Ok(stat) => {
                    self.node.created = Some(stat.created);
                    self.node.unsure = None;
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let is_last = tries.next().is_none();
            match failure.code {
                None => return Err(failure.error),
                Some(NO_NODE) if there.is_none() && !is_last => self.make_parents(on).await?,
                // Somebody else was faster; so it is looked at again.
                Some(NO_NODE | NODE_EXISTS) if !is_last => {}
                Some(_) => {
                    self.node.unsure = None;
                    return Err(failure.error);
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<Beat, Error> {
        let on = self.session().connected().await?;
        let ours = self.node.created;
        Ok(match self.node.get(on).await? {
            Some((_, stat)) if self.is_ours(stat, on) => Beat::Alive,
            Some((_, stat)) if ours.is_some_and(|ours| stat.created > ours) => {
                self.node.created = None;
                Beat::Replaced
            }
            // An older session's, which is about to end, or an older state.
            _ => Beat::Forgotten,
        })
    }

    async fn leave(&mut self) -> Result<(), Error> {
        self.node.remove().await?;
        self.node.created = None;
        self.node.unsure = None;
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.session().settings().timeout / 3
    }
}

impl Drop for Entry {
    /// The session goes on for others, and what could not be taken out would
    /// stay with it: so this goes on, too, for as long as the session might.
    fn drop(&mut self) {
        let node = self.node.clone();
        let is_out = node.created.is_none() && node.unsure.is_none();
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if is_out {
            return;
        }
        runtime.spawn(async move {
            let session = node.shared.session.settings().timeout;
            let until = Instant::now() + 2 * session;
            while node.remove().await.is_err() && Instant::now() < until {
                sleep(session / 10).await;
            }
        });
    }
}
