//! The blocking query that follows one service.
//!
//! The rules are those of Consul's "Blocking Queries" page: an index that goes
//! back means that the server's state was replaced, and begins anew at 0; an
//! index of 0 would not block, and counts as 1; an answer without an index
//! comes from something else than Consul. The client waits longer than the
//! server may, a sixteenth of the wait.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::Shared;
use super::health::Rows;
use crate::endpoint::ServiceName;
use crate::error::Error;
use crate::registry::follow::{Answer, Source};
use crate::registry::http::{Ask, Reply, encoded};

/// Reads `/v1/health/service/…`.
pub(super) struct Health {
    shared: Arc<Shared>,
    path: String,
    /// The index of the last answer; 0 asks for an answer at once.
    index: u64,
    /// Whose index it is.
    server: usize,
    rows: Rows,
    pace: Pace,
}

impl Health {
    pub(super) fn new(shared: Arc<Shared>, service: &ServiceName) -> Self {
        let name = encoded(service.as_str());
        let path = format!("/v1/health/service/{name}{}", shared.settings.query());
        Self {
            server: shared.servers.current(),
            shared,
            path,
            index: 0,
            rows: Rows::default(),
            pace: Pace::new(),
        }
    }

    async fn ask(&mut self) -> Result<Reply, Error> {
        if self.shared.servers.current() != self.server {
            self.index = 0;
        }
        let settings = &self.shared.settings;
        let held = if self.index == 0 {
            Duration::ZERO
        } else {
            settings.wait + settings.wait / 16
        };
        let path = format!("{}&index={}", self.path, self.index);
        let mut ask: Ask = self.shared.ask(Method::GET, path, held + settings.timeout);
        ask.like = self.rows.text();
        self.shared
            .servers
            .ask_any(&ask, |status| status == StatusCode::OK)
            .await
    }

    /// Takes an answer, and tells whether anything in it is new.
    fn take(&mut self, reply: Reply) -> Result<bool, Error> {
        const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
        const FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");
        let origin = || self.shared.servers.origin(reply.server);
        let Some(index) = reply.number(&INDEX) else {
            let reason = format!(
                "its answer has no X-Consul-Index ({}); check that the URL is that of a Consul agent",
                reply.excerpt()
            );
            return Err(Error::registry(origin(), reason));
        };
        let filtered = reply.headers.get(FILTERED).is_some_and(|it| it == "true");
        let changed = self.rows.read(reply.body).map_err(|error| {
            let reason = format!("its answer is no list of instances: {error}");
            Error::registry_because(origin(), reason, error)
        })?;
        if filtered && self.rows.is_empty() {
            let reason = "the token may not read this service; give one that has `service:read` \
                          and `node:read`";
            return Err(Error::registry(origin(), reason));
        }
        self.index = next_index(self.index, index);
        self.server = reply.server;
        Ok(changed)
    }
}

/// The index to ask with after an answer that has `told`.
fn next_index(asked: u64, told: u64) -> u64 {
    if told < asked { 0 } else { told.max(1) }
}

impl Source for Health {
    async fn next(&mut self) -> Result<Answer, Error> {
        sleep(self.pace.wait(Instant::now())).await;
        let answer = match self.ask().await {
            Ok(reply) => self.take(reply),
            Err(error) => Err(error),
        };
        let changed = answer.inspect_err(|_| {
            // What the next answer holds is not known: all of it.
            self.index = 0;
        })?;
        self.pace.count(changed);
        Ok(self.rows.answer())
    }
}

/// How often may be asked when answers come at once: a bucket of tokens.
///
/// Each answer is the whole list, and in a rollout there is one for each
/// instance that comes or goes. An answer costs a token, five come back each
/// second: what changes now and then is followed at once, and a storm five times
/// a second, each time with all that came of it.
///
/// Any check whose *output* changes wakes every reader of the service, too, and
/// nothing came of that. One such answer is no news (Consul tells of an entry
/// and of its check one after the other); each further one in a row costs a
/// token more, up to five: a service whose checks chatter is read once a second.
struct Pace {
    tokens: f64,
    since: Instant,
    /// Answers in a row that brought nothing.
    useless: u8,
}

impl Pace {
    const BURST: f64 = 20.0;
    const PER_SECOND: f64 = 5.0;
    const DEAREST: u8 = 5;

    fn new() -> Self {
        Self {
            tokens: Self::BURST,
            since: Instant::now(),
            useless: 0,
        }
    }

    /// How long until there is a token.
    fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.tokens = (self.tokens + passed * Self::PER_SECOND).min(Self::BURST);
        let lacking = (1.0 - self.tokens).max(0.0);
        Duration::from_secs_f64(lacking / Self::PER_SECOND)
    }

    fn count(&mut self, changed: bool) {
        self.useless = if changed {
            0
        } else {
            Self::DEAREST.min(self.useless + 1)
        };
        self.tokens -= f64::from(self.useless.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_begins_anew_and_zero_never_blocks_not() {
        assert_eq!(next_index(0, 7), 7);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(9, 7), 0);
        assert_eq!(next_index(0, 0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_read_five_times_a_second_and_chatter_once() {
        for (changed, expected) in [(true, 500), (false, 100)] {
            let mut pace = Pace::new();
            let end = Instant::now() + Duration::from_secs(100);
            let mut asked: u32 = 0;
            while Instant::now() < end {
                sleep(pace.wait(Instant::now())).await;
                pace.count(changed);
                asked += 1;
            }
            assert!(asked.abs_diff(expected) <= 25, "{changed}: {asked}");
        }
    }

    /// Guards: a change was told up to a second late when the news of its check
    /// came apart.
    #[tokio::test(start_paused = true)]
    async fn what_changes_now_and_then_is_followed_at_once() {
        let mut pace = Pace::new();
        for changed in [true, false].repeat(100) {
            assert_eq!(pace.wait(Instant::now()), Duration::ZERO);
            pace.count(changed);
            sleep(Duration::from_millis(200)).await;
        }
    }
}
