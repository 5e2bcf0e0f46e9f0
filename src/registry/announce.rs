//! What every backend that registers has in common: beats that never give up,
//! and entering again what the registry forgot.
//!
//! A backend says how an entry is entered, kept and taken out ([`Announcer`]);
//! [`announce`] makes the [`Registration`] of it, with a task that lives as long
//! as the registration does.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::follow::{FIRST_WAIT, LONGEST_WAIT};
use super::{Keeper, Registration, RegistrationState};
use crate::backoff::Backoff;
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::rng::Rng;

/// One backend's way of keeping one entry. Each call may be dropped half done
/// (a server that hangs, an update during a beat), and be made again.
pub(crate) trait Announcer: Send + 'static {
    /// Where it announces, for errors: `consul http://127.0.0.1:8500`.
    fn origin(&self) -> String;

    /// Enters or replaces the entry. Doing so twice is as good as once.
    fn enter(&mut self, endpoint: &Endpoint) -> impl Future<Output = Result<(), Error>> + Send;

    /// Keeps the entry alive. An `Err` says that it is not known how the entry
    /// stands.
    fn beat(&mut self) -> impl Future<Output = Result<Beat, Error>> + Send;

    /// Takes the entry out, unless it is another registration's by now. Taking
    /// out what is not there is no error.
    fn leave(&mut self) -> impl Future<Output = Result<(), Error>> + Send;

    /// The time between two beats, at most a third of the time to live, so
    /// that two may be lost.
    fn interval(&self) -> Duration;
}

/// What a beat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The entry is there, and lives on.
    Alive,
    /// The registry does not know it any more; it is entered again at once.
    Forgotten,
    /// Another registration has taken the id; this one is over.
    Replaced,
}

/// How long the registry may take for one call before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often leaving is tried before the entry is left to lapse.
const LEAVING: usize = 3;

/// Enters `endpoint` and keeps it there.
///
/// The first try's error is returned, and nothing is left running then.
pub(crate) async fn announce<A: Announcer>(
    mut announcer: A,
    service: &ServiceName,
    endpoint: Endpoint,
) -> Result<Registration, Error> {
    let runtime = Handle::try_current().map_err(|_| Error::no_runtime("a registration"))?;
    let what = format!("`{}` of service `{service}`", endpoint.id());
    let origin = announcer.origin();
    in_time(&origin, announcer.enter(&endpoint)).await?;

    let (to_runner, orders) = mpsc::unbounded_channel();
    let (state, state_told) = watch::channel(RegistrationState::Registered);
    let interval = announcer.interval();
    let mut runner = Runner {
        backoff: Backoff::new(
            FIRST_WAIT.min(interval),
            LONGEST_WAIT.min(interval),
            Rng::from_entropy(),
        ),
        rng: Rng::from_entropy(),
        good_since: Instant::now(),
        entered: true,
        due: Instant::now(),
        announcer,
        endpoint: endpoint.clone(),
        origin: origin.clone(),
        state,
    };
    runner.due = runner.next_beat();
    runtime.spawn(runner.run(orders));
    let keeper = AnnouncedKeeper {
        what,
        origin,
        orders: to_runner,
        state: state_told,
    };
    Ok(Registration::new(service.clone(), endpoint, keeper))
}

async fn in_time<T>(
    origin: &str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {PATIENCE:?}");
        Err(Error::registry(origin, reason))
    })
}

enum Order {
    Update(Endpoint, oneshot::Sender<Result<(), Error>>),
    Leave(Option<oneshot::Sender<Result<(), Error>>>),
}

struct Runner<A> {
    announcer: A,
    endpoint: Endpoint,
    origin: String,
    state: watch::Sender<RegistrationState>,
    backoff: Backoff,
    rng: Rng,
    /// Since when every call was answered.
    good_since: Instant,
    /// Whether the entry is as `endpoint` says, as far as is known.
    entered: bool,
    /// When the next beat is.
    due: Instant,
}

impl<A: Announcer> Runner<A> {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            // An order does not wait for a beat that hangs: the beat is
            // dropped, and made again.
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Update(endpoint, told)) => {
                        // Whoever asked may have gone.
                        drop(told.send(self.update(endpoint).await));
                    }
                    Some(Order::Leave(told)) => return self.leave(told).await,
                    None => return self.leave(None).await,
                },
                found = Self::keep(
                    &mut self.announcer, &self.endpoint, &self.origin, self.entered, self.due,
                ) => {
                    if let Ok(Beat::Replaced) = found {
                        self.state.send_replace(RegistrationState::Lost);
                        return;
                    }
                    self.learn(found);
                }
            }
        }
    }

    /// Waits for the next beat and makes it, or enters what is not there.
    async fn keep(
        announcer: &mut A,
        endpoint: &Endpoint,
        origin: &str,
        entered: bool,
        due: Instant,
    ) -> Result<Beat, Error> {
        sleep_until(due).await;
        if entered {
            in_time(origin, announcer.beat()).await
        } else {
            in_time(origin, announcer.enter(endpoint)).await?;
            Ok(Beat::Alive)
        }
    }

    fn learn(&mut self, found: Result<Beat, Error>) {
        match found {
            Ok(Beat::Alive) => {
                self.entered = true;
                self.due = self.next_beat();
                self.state.send_replace(RegistrationState::Registered);
            }
            Ok(_) => {
                self.entered = false;
                self.due = Instant::now();
                let reason = "the registry forgot the entry; it is entered again";
                let error = Error::registry(&self.origin, reason);
                self.state.send_replace(RegistrationState::Retrying(error));
            }
            Err(error) => {
                self.wait_after_failure();
                self.state.send_replace(RegistrationState::Retrying(error));
            }
        }
    }

    fn wait_after_failure(&mut self) {
        let now = Instant::now();
        self.due = now
            + self
                .backoff
                .after(now.saturating_duration_since(self.good_since));
        // Good again at the next try at the earliest.
        self.good_since = self.due;
    }

    /// The beats of many entries that were entered at once drift apart, always
    /// to the early side.
    fn next_beat(&mut self) -> Instant {
        let interval = self.announcer.interval();
        Instant::now() + interval - self.rng.part_of(interval / 5)
    }

    async fn update(&mut self, endpoint: Endpoint) -> Result<(), Error> {
        let done = in_time(&self.origin, self.announcer.enter(&endpoint)).await;
        match &done {
            Ok(()) => {
                self.endpoint = endpoint;
                self.learn(Ok(Beat::Alive));
            }
            Err(_) => {
                // What the registry has now is not known: what was announced
                // before is entered again.
                self.entered = false;
                self.wait_after_failure();
            }
        }
        done
    }

    async fn leave(mut self, told: Option<oneshot::Sender<Result<(), Error>>>) {
        let mut told = told;
        for _ in 0..LEAVING {
            let done = in_time(&self.origin, self.announcer.leave()).await;
            let is_out = done.is_ok();
            if let Some(told) = told.take() {
                drop(told.send(done));
            }
            if is_out {
                break;
            }
            tokio::time::sleep(self.backoff.after(Duration::ZERO)).await;
        }
        self.state.send_replace(RegistrationState::Lost);
    }
}

/// The registration's end of the runner.
struct AnnouncedKeeper {
    what: String,
    origin: String,
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<RegistrationState>,
}

impl AnnouncedKeeper {
    /// Whether the runner came to its end, and did not go with its runtime.
    fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), RegistrationState::Lost)
    }

    fn abandoned(&self) -> Error {
        let reason = format!(
            "{} went with the runtime that kept it, and lapses by the registry's rules; register \
             it anew in one that goes on",
            self.what
        );
        Error::registry(&self.origin, reason)
    }
}

impl Keeper for AnnouncedKeeper {
    fn state(&self) -> RegistrationState {
        if self.orders.is_closed() {
            // The runner is through, or went with its runtime.
            return RegistrationState::Lost;
        }
        self.state.borrow().clone()
    }

    fn update(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<(), Error>> {
        async {
            let (to_me, told) = oneshot::channel();
            let sent = self.orders.send(Order::Update(endpoint, to_me)).is_ok();
            if sent && let Ok(done) = told.await {
                return done;
            }
            if !self.is_over() {
                return Err(self.abandoned());
            }
            let reason = format!(
                "{} was taken out, or registered again by another; register it anew",
                self.what
            );
            Err(Error::registry(&self.origin, reason))
        }
        .boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>> {
        async {
            let (to_me, told) = oneshot::channel();
            let sent = self.orders.send(Order::Leave(Some(to_me))).is_ok();
            match told.await {
                Ok(done) if sent => done,
                // No word: it is over already.
                _ if self.is_over() => Ok(()),
                _ => Err(self.abandoned()),
            }
        }
        .boxed()
    }

    fn release(&self) {
        // Nobody is there to take it when the entry is over already.
        drop(self.orders.send(Order::Leave(None)));
    }
}

impl fmt::Debug for AnnouncedKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnnouncedKeeper")
            .field("origin", &self.origin)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
