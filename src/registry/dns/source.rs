//! When DNS is asked, and what is made of its silence.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until};

use super::lookup::{Found, Lookup, Miss};
use crate::error::Error;
use crate::registry::follow::{Answer, Source, apart};
use crate::rng::Rng;

/// A name that is asked for, shared by those who watch it: of many that want
/// an answer at the same time, one asks.
pub(super) struct Name {
    asked: rr::Name,
    last: Mutex<Option<Round>>,
    hint: Notify,
}

/// The last round of questions.
#[derive(Clone)]
struct Round {
    found: Result<Arc<Found>, Miss>,
    answered: Instant,
    /// When to ask again.
    due: Instant,
}

/// A hint is not followed sooner after an answer.
const HINT_GAP: Duration = Duration::from_secs(1);

impl Name {
    pub(super) fn new(written: &str) -> Result<Self, Error> {
        let refused = |reason| Err(Error::invalid("dns.pattern", written, reason));
        if written.is_empty() || written == "." {
            return refused("it names nothing".to_owned());
        }
        let name = rr::Name::from_ascii(written).map(|mut name| {
            name.set_fqdn(true);
            name
        });
        match name {
            Ok(asked) => Ok(Self {
                asked,
                last: Mutex::default(),
                hint: Notify::new(),
            }),
            Err(error) => refused(format!("it makes no DNS name: {error}")),
        }
    }

    pub(super) fn hint(&self) {
        self.hint.notify_waiters();
    }

    /// An answer that came after `wish`, or that holds still unless a hint
    /// says that it does not.
    async fn round(&self, lookup: &Lookup, wish: Instant, hinted: bool) -> Round {
        let mut last = self.last.lock().await;
        if let Some(round) = &*last
            && (round.answered >= wish || (!hinted && Instant::now() < round.due))
        {
            return round.clone();
        }
        let found = lookup.ask(&self.asked).await.map(Arc::new);
        let (floor, ceiling) = lookup.settings.refresh;
        let ttl = match &found {
            Ok(found) => found.ttl.clamp(floor, ceiling),
            Err(Miss::Negative(_, ttl)) => (*ttl).clamp(floor, ceiling),
            // It tells nothing, and is asked again at the pace of failures.
            Err(Miss::Failed(_)) => floor.min(HINT_GAP),
        };
        let answered = Instant::now();
        let round = Round {
            found,
            answered,
            // Clients that asked together ask again apart, always later, since
            // a record must not be asked for before its time is over.
            due: answered + ttl + Rng::from_entropy().part_of(ttl / 10),
        };
        *last = Some(round.clone());
        round
    }
}

/// One watcher of a name.
pub(super) struct DnsSource {
    lookup: Arc<Lookup>,
    name: Arc<Name>,
    /// The answer that was told last.
    last: Option<Round>,
    holds: Holds,
}

impl DnsSource {
    pub(super) fn new(lookup: Arc<Lookup>, name: Arc<Name>) -> Self {
        Self {
            lookup,
            name,
            last: None,
            holds: Holds::default(),
        }
    }

    async fn wait(&self) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        tokio::select! {
            () = sleep_until(last.due) => false,
            () = self.name.hint.notified() => {
                sleep_until(last.answered + HINT_GAP).await;
                true
            }
        }
    }
}

impl Source for DnsSource {
    async fn next(&mut self) -> Result<Answer, Error> {
        let hinted = self.wait().await;
        let wish = Instant::now();
        let (name, lookup) = (Arc::clone(&self.name), Arc::clone(&self.lookup));
        let round = apart(async move { name.round(&lookup, wish, hinted).await }).await;
        let (found, answered) = (round.found.clone(), round.answered);
        self.last = Some(round);
        let settings = &self.lookup.settings;
        let (negative, failed) = (settings.hold_negative, settings.hold_failed);
        match found {
            Ok(found) => {
                self.holds.good(answered);
                Ok(Answer {
                    endpoints: found.answer.endpoints.clone(),
                    skipped: found.answer.skipped.clone(),
                })
            }
            Err(Miss::Negative(error, _)) => self
                .holds
                .negative(answered, negative)
                .then(Answer::default)
                .ok_or(error),
            Err(Miss::Failed(error)) => self
                .holds
                .failed(answered, failed)
                .then(Answer::default)
                .ok_or(error),
        }
    }
}

/// For how long silence is not taken for "nothing".
#[derive(Debug, Default)]
struct Holds {
    good: Option<Instant>,
    negative_since: Option<Instant>,
}

impl Holds {
    fn good(&mut self, now: Instant) {
        self.good = Some(now);
        self.negative_since = None;
    }

    /// Whether "there is none" is believed.
    fn negative(&mut self, now: Instant, hold: Duration) -> bool {
        let since = *self.negative_since.get_or_insert(now);
        self.good.is_none() || now.saturating_duration_since(since) >= hold
    }

    /// Whether what was known is too old to be kept.
    fn failed(&mut self, now: Instant, hold: Duration) -> bool {
        self.negative_since = None;
        self.good
            .is_some_and(|good| now.saturating_duration_since(good) >= hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_good_is_held_and_not_for_ever() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut holds = Holds::default();
        assert!(
            !holds.failed(start, second),
            "an unknown name stays unknown"
        );
        assert!(
            holds.negative(start, second),
            "and one that is not is empty"
        );
        holds.good(start);
        assert!(!holds.negative(start + second, second));
        assert!(holds.negative(start + second * 2, second));
        holds.good(start + second * 3);
        assert!(!holds.failed(start + second * 3, second));
        assert!(holds.failed(start + second * 4, second));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for wrong in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(140)] {
            let refused = Name::new(wrong).err().unwrap();
            assert!(refused.is_invalid(), "{refused}");
        }
        assert!(Name::new("_http._tcp.users.example.org").is_ok());
    }
}
