//! From ready to gone.

use std::time::Duration;

use tokio::sync::watch;

use crate::endpoint::{Endpoint, ServiceName, Status};
use crate::error::Error;
use crate::registry::{Registration, Registry};

/// How a server comes and goes.
///
/// | setting | default | because |
/// | --- | --- | --- |
/// | [`convergence`](Self::convergence) | 5 s | a watch tells within milliseconds, a poll within its interval: set it to that and a round trip |
/// | [`grace`](Self::grace) | 30 s | what Kubernetes waits between SIGTERM and SIGKILL |
#[derive(Clone, Debug)]
#[must_use]
pub struct Lifecycle {
    convergence: Duration,
    grace: Duration,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// With the defaults.
    pub const fn new() -> Self {
        Self {
            convergence: Duration::from_secs(5),
            grace: Duration::from_secs(30),
        }
    }

    /// How long it takes until every client has heard that an entry is gone.
    pub fn convergence(mut self, time: Duration) -> Self {
        self.convergence = time;
        self
    }

    /// How long calls that are under way may take to end.
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// Enters the endpoint of a server that is ready to be called.
    ///
    /// # Errors
    ///
    /// As [`Registry::register`].
    pub async fn register<R: Registry + ?Sized>(
        self,
        registry: &R,
        service: &ServiceName,
        endpoint: Endpoint,
    ) -> Result<Serving, Error> {
        let registration = registry.register(service, endpoint).await?;
        Ok(Serving {
            settings: self,
            registration,
            phase: watch::Sender::new(Phase::Ready),
            calls: watch::Sender::new(0),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Ready,
    /// Takes calls, and asks for none.
    Leaving,
    /// Accepts nothing any more.
    Stopping,
}

/// A server that is registered.
#[derive(Debug)]
pub struct Serving {
    settings: Lifecycle,
    registration: Registration,
    phase: watch::Sender<Phase>,
    calls: watch::Sender<usize>,
}

impl Serving {
    /// The entry in the registry.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// For the page that is asked whether the server is ready.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(self.phase.subscribe())
    }

    /// Ends when the server is to stop accepting: what `with_graceful_shutdown`
    /// of axum, and the like of hyper-util, ask for.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut phase = self.phase.subscribe();
        async move {
            // When the sender is gone, so is the server's reason to run.
            drop(phase.wait_for(|phase| *phase == Phase::Stopping).await);
        }
    }

    /// Counts calls, for a server that does not do so itself.
    #[must_use]
    pub fn counter(&self) -> Busy {
        Busy(self.calls.clone())
    }

    /// Leaves: fails the readiness check, takes the entry out, waits for
    /// convergence, lets the server stop accepting, and waits for the calls that
    /// are counted.
    ///
    /// A registry that cannot be told, within ten seconds, does not keep it from leaving:
    /// readiness and convergence are waited for all the same, and the report says so.
    pub async fn shutdown(mut self) -> Goodbye {
        self.phase.send_replace(Phase::Leaving);
        let told = async move {
            // Those who look at the status stop sooner than the entry is gone; where it is gone,
            // it matters no more whether they could.
            drop(self.registration.set_status(Status::Draining).await);
            self.registration.deregister().await
        };
        let told = tokio::time::timeout(TELLING, told).await;
        tokio::time::sleep(self.settings.convergence).await;
        self.phase.send_replace(Phase::Stopping);
        let mut calls = self.calls.subscribe();
        let ended = calls.wait_for(|calls| *calls == 0);
        let ended = tokio::time::timeout(self.settings.grace, ended).await;
        drop(ended);
        Goodbye {
            abandoned: *self.calls.borrow(),
            registry: told.map_or_else(|_| Some(untold()), Result::err),
        }
    }
}

/// How long a registry may take to be told: as long as their clients give a request.
const TELLING: Duration = Duration::from_secs(10);

fn untold() -> Error {
    Error::registry("shutdown", format!("it has not answered for {TELLING:?}"))
}

/// Whether a server asks for calls.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Receiver<Phase>);

impl Readiness {
    /// Whether it does; then a readiness page answers 200, else 503.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        // Gone with its sender is not ready.
        *self.0.borrow() == Phase::Ready && self.0.has_changed().is_ok()
    }
}

/// Counts the calls of a server.
#[derive(Clone, Debug)]
pub struct Busy(watch::Sender<usize>);

impl Busy {
    /// Counts a call until the guard is dropped.
    #[must_use = "a guard that is dropped at once counts nothing"]
    pub fn begin(&self) -> impl Drop + Send + 'static + use<> {
        self.0.send_modify(|calls| *calls += 1);
        Call(self.0.clone())
    }
}

struct Call(watch::Sender<usize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

/// How a server left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Goodbye {
    /// Calls that had not ended within the grace.
    pub abandoned: usize,
    /// Why the registry could not be told, if it could not; the entry lapses by
    /// the registry's own rules.
    pub registry: Option<Error>,
}

impl Goodbye {
    /// Whether every call ended, and the registry was told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.abandoned == 0 && self.registry.is_none()
    }
}
