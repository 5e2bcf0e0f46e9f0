//! The one reader that all services share.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::apps::Apps;
use crate::endpoint::ServiceName;
use crate::error::Error;
use crate::registry::follow::{Answer, Source, apart};
use crate::rng::Rng;

/// What was fetched last, for every service.
#[derive(Default)]
pub(super) struct Fetcher {
    /// None until everything was fetched once, and after a doubt.
    apps: Option<Apps>,
    /// Counts the fetches that worked.
    round: u64,
    last: Option<Instant>,
    failed: Option<(Instant, Error)>,
}

/// A hint is not followed sooner after a fetch.
const HINT_GAP: Duration = Duration::from_secs(1);

/// For this long, the failure of one reader is that of all.
const SHARED_FAILURE: Duration = Duration::from_millis(500);

impl Fetcher {
    async fn fetch(&mut self, shared: &Shared) -> Result<(), Error> {
        if let Some((when, error)) = &self.failed
            && when.elapsed() < SHARED_FAILURE
        {
            return Err(error.clone());
        }
        match self.read(shared).await {
            Ok(()) => {
                self.round += 1;
                self.last = Some(Instant::now());
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                // A delta that was missed is not told again for long.
                self.apps = None;
                self.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn read(&mut self, shared: &Shared) -> Result<(), Error> {
        if let Some(apps) = &mut self.apps {
            // 403 and 404: this server has no deltas, or none yet.
            let delta = get(shared, "/apps/delta", |status| {
                matches!(status.as_u16(), 200 | 403 | 404)
            });
            if let Some(delta) = delta.await?
                && apps.apply(&delta).is_some()
            {
                return Ok(());
            }
        }
        let all = get(shared, "/apps", |status| status == StatusCode::OK).await?;
        let apps = all.as_ref().and_then(Apps::read).ok_or_else(|| {
            let origin = shared.servers.origin(shared.servers.current());
            Error::registry(origin, "its answer to GET /apps has no applications in it")
        })?;
        self.apps = Some(apps);
        Ok(())
    }
}

/// The JSON of an answer; none of one that is not 200 and was taken.
async fn get(
    shared: &Shared,
    path: &str,
    takes: impl Fn(StatusCode) -> bool,
) -> Result<Option<Value>, Error> {
    let ask = shared.ask(Method::GET, path.to_owned());
    let reply = shared.servers.ask_any(&ask, takes).await?;
    if reply.status != StatusCode::OK {
        return Ok(None);
    }
    let value = serde_json::from_slice(&reply.body.new).map_err(|error| {
        let reason = format!(
            "its answer to GET {path} is no JSON ({error}): {}",
            reply.excerpt()
        );
        Error::registry_because(shared.servers.origin(reply.server), reason, error)
    })?;
    Ok(Some(value))
}

/// One service's view of it.
pub(super) struct Polled {
    shared: Arc<Shared>,
    app: String,
    /// The round that was answered last.
    round: u64,
    rng: Rng,
}

impl Polled {
    pub(super) fn new(shared: Arc<Shared>, service: &ServiceName) -> Self {
        Self {
            shared,
            app: Shared::app(service),
            round: 0,
            rng: Rng::from_entropy(),
        }
    }
}

impl Source for Polled {
    async fn next(&mut self) -> Result<Answer, Error> {
        let every = self.shared.fetch;
        let last = self.shared.fetcher.lock().await.last;
        if let Some(last) = last.filter(|_| self.round > 0) {
            // Clients that were started together drift apart.
            let due = last + every - self.rng.part_of(every / 10);
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.shared.hint.notified() => sleep_until(due.min(last + HINT_GAP)).await,
            }
        }
        let (shared, app, seen) = (Arc::clone(&self.shared), self.app.clone(), self.round);
        let (answer, round) = apart(async move {
            let mut fetcher = shared.fetcher.lock().await;
            let fresh = fetcher.last.is_some_and(|last| last.elapsed() < every / 2);
            if fetcher.apps.is_none() || fetcher.round == seen || !fresh {
                fetcher.fetch(&shared).await?;
            }
            let apps = fetcher.apps.as_ref();
            let answer = apps.map(|apps| apps.answer(&app)).unwrap_or_default();
            Ok::<_, Error>((answer, fetcher.round))
        })
        .await?;
        self.round = round;
        Ok(answer)
    }
}
