//! A session with an ensemble: one connection at a time, made again at another
//! server when it breaks off, and a new session when the old one has expired.
//!
//! A task owns the connection. Requests go to it through a channel and are
//! answered in order, as ZooKeeper does; what else comes are events of watches,
//! which go to [`Watchers`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::connection::Runner;
use super::watchers::Watchers;
use super::wire::{Op, reason};
use crate::error::Error;

/// What a session is made of.
#[derive(Clone)]
pub(super) struct Settings {
    /// `host:port` of each server.
    pub(super) servers: Arc<[String]>,
    /// How long the session outlives its connection, as it is asked for.
    pub(super) timeout: Duration,
    /// For one request, and for a connection.
    pub(super) within: Duration,
    /// `user:password`, for the scheme `digest`.
    pub(super) digest: Option<Arc<str>>,
    pub(super) max_message: usize,
    /// None: as plain text.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// The way to the session; the task lives as long as this does.
pub(super) struct Session {
    settings: Settings,
    pub(super) watchers: Arc<Watchers>,
    link: Mutex<Option<Link>>,
}

#[derive(Clone)]
struct Link {
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<State>,
}

/// A request on its way to the task.
pub(super) struct Order {
    /// The connection that it is meant for.
    pub(super) epoch: u64,
    pub(super) op: Op,
    pub(super) body: Vec<u8>,
    pub(super) answer: oneshot::Sender<Result<Bytes, Failure>>,
}

/// What the task tells.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) connected: Option<Connected>,
    /// How often no server could be reached.
    pub(super) rounds: u64,
    /// Why there is no connection.
    pub(super) error: Option<Error>,
}

/// A connection: what was watched or asked on another one is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// Each connection's own number.
    pub(super) epoch: u64,
    pub(super) session: i64,
    /// Which of the servers.
    pub(super) server: usize,
}

/// What came back in place of an answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// ZooKeeper's code, where it was a server that refused.
    pub(super) code: Option<i32>,
    pub(super) error: Error,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: None, error }
    }
}

impl Failure {
    pub(super) fn refused(origin: &str, op: Op, code: i32) -> Self {
        let (name, advice) = reason(code);
        let reason = format!("{} was answered {name} ({code}){advice}", op.name);
        Self {
            code: Some(code),
            error: Error::registry(origin, reason),
        }
    }
}

impl Settings {
    pub(super) fn origin(&self, server: usize) -> String {
        format!("zookeeper {}", self.servers[server])
    }
}

impl Session {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            watchers: Arc::default(),
            link: Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The server in use, or the first; for errors.
    pub(super) fn origin(&self) -> String {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = link.as_ref().and_then(|link| link.state.borrow().connected);
        self.settings
            .origin(connected.map_or(0, |connected| connected.server))
    }

    /// The task's, which is begun where there is none: at first, and when the
    /// runtime that it was begun in has ended.
    fn link(&self) -> Link {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = &*link
            && !link.orders.is_closed()
        {
            return link.clone();
        }
        let (to_task, orders) = mpsc::unbounded_channel();
        let (told, state) = watch::channel(State::default());
        let runner = Runner::new(self.settings.clone(), Arc::clone(&self.watchers), told);
        tokio::spawn(runner.run(orders));
        let new = Link {
            orders: to_task,
            state,
        };
        *link = Some(new.clone());
        new
    }

    /// Waits for a connection, until all servers have failed.
    pub(super) async fn connected(&self) -> Result<Connected, Error> {
        let mut link = self.link();
        let before = link.state.borrow().rounds;
        let is_settled = |state: &State| state.connected.is_some() || state.rounds > before;
        let settled = timeout(self.patience(), link.state.wait_for(is_settled)).await;
        if matches!(settled, Ok(Err(_))) {
            return Err(Error::registry(self.settings.origin(0), ENDED));
        }
        drop(settled);
        // Where nothing settled: a server that hangs up on each session has told
        // why, and is no round that failed.
        let state = link.state.borrow().clone();
        state.connected.ok_or_else(|| {
            state.error.unwrap_or_else(|| {
                let reason = format!("no connection within {:?}", self.patience());
                Error::registry(self.settings.origin(0), reason)
            })
        })
    }

    /// Each server may take its time, and some is left to tell of it.
    fn patience(&self) -> Duration {
        let within = self.settings.within;
        within * self.settings.servers.len() as u32 + within / 4
    }

    /// Waits until a connection is no more, and tells why.
    pub(super) async fn lost(&self, on: Connected) -> Error {
        let mut link = self.link();
        let is_lost = |state: &State| state.connected != Some(on);
        let error = match link.state.wait_for(is_lost).await {
            Ok(state) => state.error.clone(),
            Err(_) => None,
        };
        error.unwrap_or_else(|| {
            Error::registry(
                self.settings.origin(on.server),
                "the connection was made anew",
            )
        })
    }

    /// Asks on a connection.
    pub(super) async fn ask(&self, on: Connected, op: Op, body: Vec<u8>) -> Result<Bytes, Failure> {
        let (answer, answered) = oneshot::channel();
        let order = Order {
            epoch: on.epoch,
            op,
            body,
            answer,
        };
        let lost = |reason: &str| Error::registry(self.settings.origin(on.server), reason);
        if self.link().orders.send(order).is_err() {
            return Err(lost(ENDED).into());
        }
        match timeout(self.settings.within, answered).await {
            Ok(Ok(answer)) => answer,
            // The task lets go of what is asked, and then tells why.
            Ok(Err(_)) => Err(self.lost(on).await.into()),
            Err(_) => {
                let reason = format!(
                    "{} was not answered within {:?}",
                    op.name, self.settings.within
                );
                Err(lost(&reason).into())
            }
        }
    }

    /// An answer that does not read as one.
    pub(super) fn unreadable(&self, on: Connected, op: Op) -> Failure {
        let reason = format!("its answer to {} cannot be read", op.name);
        Error::registry(self.settings.origin(on.server), reason).into()
    }
}

const ENDED: &str = "the task that holds the session went with its runtime; use the registry in \
                     the runtime that goes on";
