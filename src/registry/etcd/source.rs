//! Reading a service: everything once, and from there on what changes.
//!
//! The rules that the official clients' users suffer from when they are broken:
//! a watch that is cancelled or compacted away begins anew with everything; one
//! that broke off goes on where it stopped, if the cluster is the one it was,
//! and is checked against everything a little later, since a cluster that was
//! restored from a backup looks the same and knows other things.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::layout::{prefix_of, range_end};
use super::servers::{Failure, RANGE, WATCH};
use super::table::Table;
use super::wire::{
    Event, Header, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    WatchUnion,
};
use crate::endpoint::ServiceName;
use crate::error::Error;
use crate::registry::follow::{Answer, Source};
use crate::rng::Rng;

/// After a watch went on where it stopped, everything is read again within this
/// time: at random, so that the clients of a cluster which was away for a
/// moment do not all read at once.
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// A watch that has to begin anew twice within this time is a failure, and
/// waits as failures do.
const SETTLED: Duration = Duration::from_secs(1);

/// The most answers that are taken before the endpoints are told.
const AT_ONCE: usize = 1_000;

pub(super) struct Reader {
    shared: Arc<Shared>,
    prefix: String,
    table: Table,
    /// Up to where `table` knows; none when everything has to be read.
    known: Option<Known>,
    watch: Option<Watch>,
    /// When everything is read again.
    check_at: Option<Instant>,
    /// When everything was read anew since the watch could not go on.
    anew_at: Option<Instant>,
    /// Whether there is something to tell: a change, or that an error is over.
    is_due: bool,
    /// Whether the watch before this one broke off.
    has_failed: bool,
    rng: Rng,
}

/// A place in a cluster's history.
#[derive(Clone, Copy)]
struct Known {
    cluster: u64,
    term: u64,
    revision: i64,
}

struct Watch {
    member: usize,
    answers: Pin<Box<Streaming<WatchResponse>>>,
    /// The parts that came of an answer which was broken up. The next part may
    /// tell more of the same revision, so that no revision is known before the
    /// last part is there.
    parts: Vec<Event>,
    /// Of the keys and values in `parts`.
    bytes: usize,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, service: &ServiceName) -> Self {
        let prefix = prefix_of(&shared.prefix, service);
        Self {
            table: Table::new(shared.layout, prefix.len()),
            shared,
            prefix,
            known: None,
            watch: None,
            check_at: None,
            anew_at: None,
            is_due: false,
            has_failed: false,
            rng: Rng::from_entropy(),
        }
    }

    async fn read(&mut self) -> Result<Answer, Error> {
        loop {
            let Some(known) = self.known else {
                self.watch = None;
                self.load().await?;
                break;
            };
            let Some(watch) = &mut self.watch else {
                self.open(known).await?;
                if self.watch.is_some() && self.is_due {
                    break;
                }
                continue;
            };
            let check = async {
                match self.check_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = watch.answers.next() => Some(message),
                () = check => None,
            };
            match message {
                Some(message) => self.take_all(message)?,
                None => self.load().await?,
            }
            if self.is_due {
                break;
            }
        }
        self.is_due = false;
        Ok(self.table.answer())
    }

    /// Reads everything.
    ///
    /// The leader is asked. Where there is none, a member may say what it has:
    /// the only way to go on until the cluster has elected one. Then what is
    /// older than what is known already is not taken.
    async fn load(&mut self) -> Result<(), Error> {
        let mut question = RangeRequest {
            key: self.prefix.clone().into_bytes(),
            range_end: range_end(&self.prefix),
            ..RangeRequest::default()
        };
        let servers = &self.shared.servers;
        let all: Result<RangeResponse, Failure> = servers.ask(RANGE, &question).await;
        let all = match all {
            Ok(all) => all,
            Err(failure) if failure.code == Code::PermissionDenied => return Err(failure.error),
            Err(failure) => {
                question.serializable = true;
                let Ok(all) = servers.ask::<_, RangeResponse>(RANGE, &question).await else {
                    return Err(failure.error);
                };
                if revision(all.header.as_ref()) < self.known.map_or(0, |known| known.revision) {
                    return Err(failure.error);
                }
                all
            }
        };
        let Some(header) = all.header else {
            let reason = "its answer to Range has no header; is this etcd?";
            return Err(Error::registry(servers.origin(servers.current()), reason));
        };
        self.check_at = None;
        self.known = Some(Known::at(&header));
        self.is_due |= self.table.replace(all.kvs);
        Ok(())
    }

    /// Begins to watch after what is known, unless everything has to be read
    /// first.
    async fn open(&mut self, known: Known) -> Result<(), Error> {
        let create = WatchCreateRequest {
            range_end: range_end(&self.prefix),
            key: self.prefix.clone().into_bytes(),
            start_revision: known.revision + 1,
            progress_notify: true,
            fragment: true,
        };
        let question = WatchRequest {
            union: Some(WatchUnion::Create(create)),
        };
        let servers = &self.shared.servers;
        let opened = servers.stream::<_, WatchResponse>(WATCH, &question, true);
        let (member, answers) = opened.await?;
        let mut answers = Box::pin(answers);
        let created = servers.in_time(member, WATCH, next(&mut answers)).await;
        let created = created.inspect_err(|_| servers.turn_from(member))?;
        if created.compact_revision != 0 {
            return self.begin_anew(member);
        }
        if created.canceled {
            return Err(self.canceled(member, &created));
        }
        let now = created.header.as_ref().map(Known::at);
        let Some(now) = now.filter(|_| created.created) else {
            let reason = "its first answer to Watch is none; is this etcd?";
            return Err(Error::registry(servers.origin(member), reason));
        };
        if !now.goes_on_from(known) {
            // Another cluster, or this one with an older state.
            return self.begin_anew(member);
        }
        if self.has_failed {
            self.check_at = Some(Instant::now() + self.rng.part_of(CHECK_WITHIN));
        }
        self.watch = Some(Watch {
            member,
            answers,
            parts: Vec::new(),
            bytes: 0,
        });
        Ok(())
    }

    /// Takes an answer of the watch and those that are there already.
    fn take_all(&mut self, first: Option<Result<WatchResponse, Status>>) -> Result<(), Error> {
        let mut next_one = Some(first);
        let mut taken = 0;
        while let (Some(message), Some(watch)) = (next_one.take(), &mut self.watch) {
            taken += 1;
            let member = watch.member;
            let ended = || Status::unavailable("the watch ended");
            let message = match message.unwrap_or_else(|| Err(ended())) {
                Ok(message) => message,
                Err(status) => {
                    self.shared.servers.turn_from(member);
                    return Err(self.shared.servers.failure(member, WATCH, &status).error);
                }
            };
            if message.compact_revision != 0 {
                return self.begin_anew(member);
            }
            if message.canceled {
                return Err(self.canceled(member, &message));
            }
            self.take(message)?;
            next_one = match &mut self.watch {
                Some(watch) if taken < AT_ONCE => watch.answers.next().now_or_never(),
                _ => None,
            };
        }
        Ok(())
    }

    fn take(&mut self, message: WatchResponse) -> Result<(), Error> {
        let (Some(known), Some(watch)) = (&mut self.known, &mut self.watch) else {
            return Ok(());
        };
        watch.bytes += message.events.iter().map(Event::bytes).sum::<usize>();
        watch.parts.extend(message.events);
        if !message.fragment {
            let events = std::mem::take(&mut watch.parts);
            watch.bytes = 0;
            let from = known.revision;
            let told = events.iter().filter_map(|event| event.kv.as_ref());
            let newest = told.map(|kv| kv.mod_revision).max();
            // Without events it is a progress notification: nothing up to there.
            let newest = newest.unwrap_or_else(|| revision(message.header.as_ref()));
            known.revision = from.max(newest);
            for Event { kind, kv } in events {
                let Some(kv) = kv else { continue };
                // What a check has read already may come again.
                if kv.mod_revision > from {
                    self.is_due |= match kind {
                        0 => self.table.put(kv),
                        _ => self.table.delete(&kv.key),
                    };
                }
            }
        }
        let (member, held) = (watch.member, watch.bytes);
        self.bounded(member, held)
    }

    /// That a server which never stops to add entries does not fill the memory.
    fn bounded(&mut self, member: usize, held: usize) -> Result<(), Error> {
        let most = self.shared.max_bytes;
        if self.table.bytes().saturating_add(held) <= most {
            return Ok(());
        }
        // What is kept is over the bound: the next try reads everything, which
        // has a bound of its own.
        self.known = None;
        let reason = format!(
            "the service's entries have more than {most} bytes; `max_message` sets the bound"
        );
        Err(Error::registry(self.shared.servers.origin(member), reason))
    }

    /// Has everything read again, at once; but not over and over.
    fn begin_anew(&mut self, member: usize) -> Result<(), Error> {
        self.known = None;
        let now = Instant::now();
        let last = self.anew_at.replace(now);
        if last.is_none_or(|last| now - last > SETTLED) {
            return Ok(());
        }
        let reason = "what it just told is gone from its history already";
        Err(Error::registry(self.shared.servers.origin(member), reason))
    }

    fn canceled(&self, member: usize, answer: &WatchResponse) -> Error {
        let servers = &self.shared.servers;
        servers.turn_from(member);
        let code = if answer.cancel_reason.contains("ermission denied") {
            Code::PermissionDenied
        } else {
            Code::Cancelled
        };
        let status = Status::new(code, &answer.cancel_reason);
        servers.failure(member, WATCH, &status).error
    }
}

impl Source for Reader {
    async fn next(&mut self) -> Result<Answer, Error> {
        let read = self.read().await;
        self.has_failed = read.is_err();
        if self.has_failed {
            self.watch = None;
            self.is_due = true;
        }
        read
    }
}

impl Known {
    fn at(header: &Header) -> Self {
        Self {
            cluster: header.cluster_id,
            term: header.raft_term,
            revision: header.revision,
        }
    }

    fn goes_on_from(self, before: Self) -> bool {
        self.cluster == before.cluster
            && self.term >= before.term
            && self.revision >= before.revision
    }
}

async fn next(answers: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let ended = Status::unavailable("the stream ended before its answer");
    answers.next().await.unwrap_or(Err(ended))
}

fn revision(header: Option<&Header>) -> i64 {
    header.map_or(0, |header| header.revision)
}
