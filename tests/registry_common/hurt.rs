//! A real server behind a proxy, and what can be done to both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;
use waypost::testing::{Fault, Faults};

use super::{Mode, Proxy};
use crate::server_common::Server;

/// When a server's way to have its index go back is called: it is hurt, and it is healed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Hurt,
    Heal,
}

/// What it can do depends on the server only in the index that its clients wait on.
pub(crate) struct Hurt {
    pub(crate) server: Server,
    pub(crate) proxy: Proxy,
    /// Its data as it was before anything was registered.
    older: TempDir,
    /// How long an entry lives that nobody keeps.
    session: Duration,
    index: Option<fn(&Hurt, Moment)>,
}

impl Hurt {
    /// The server keeps its data in `data` in its folder.
    pub(crate) async fn new(
        mut server: Server,
        session: Duration,
        index: Option<fn(&Hurt, Moment)>,
    ) -> Self {
        let older = tempfile::tempdir().unwrap();
        server.kill();
        copy(&server.dir().join("data"), older.path());
        server.restart().await;
        let proxy = Proxy::start(server.address()).await;
        Self {
            server,
            proxy,
            older,
            session,
            index,
        }
    }
}

/// Puts what is in `from` in the place of what is in `to`.
fn copy(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

impl Faults for Hurt {
    fn hurt(&mut self, fault: Fault) -> BoxFuture<'_, bool> {
        async move {
            match fault {
                Fault::Cut => self.proxy.set(Mode::Cut),
                Fault::Garbage => self.proxy.set(Mode::Garbage),
                Fault::HalfOpen | Fault::SessionLost => self.server.pause().await,
                Fault::Restart => self.server.kill(),
                Fault::BackEmpty => self.server.forget(),
                Fault::BackOlder => {
                    self.server.kill();
                    copy(self.older.path(), &self.server.dir().join("data"));
                }
                Fault::IndexReset => match self.index {
                    Some(index) => index(self, Moment::Hurt),
                    None => return false,
                },
                _ => return false,
            }
            true
        }
        .boxed()
    }

    fn heal(&mut self, fault: Fault) -> BoxFuture<'_, ()> {
        async move {
            match fault {
                Fault::HalfOpen | Fault::SessionLost => self.server.resume(),
                Fault::Restart | Fault::BackEmpty | Fault::BackOlder => {
                    self.server.restart().await;
                }
                _ => self.proxy.set(Mode::Open),
            }
            if let (Fault::IndexReset, Some(index)) = (fault, self.index) {
                index(self, Moment::Heal);
            }
        }
        .boxed()
    }

    fn lasting(&self, fault: Fault) -> Duration {
        match fault {
            Fault::SessionLost => self.session + Duration::from_secs(2),
            _ => Duration::from_secs(2),
        }
    }
}
