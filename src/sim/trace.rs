//! Calls as they were, and as they would have been.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::queue::Queue;
use super::{Report, Rule};
use crate::endpoint::{Endpoint, EndpointId, ServiceName};
use crate::error::Error;
use crate::event::{CallEvent, Observer};
use crate::rng::Rng;
use crate::stats::Outcome;
use crate::strategy::{PickContext, PickOptions};
use crate::sync::Lease;
use crate::time::Timestamp;
use crate::view::View;

/// An attempt as it was: a line of a trace.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct TracedCall {
    /// When it began, in milliseconds from the beginning of the trace.
    pub at_ms: f64,
    /// The endpoint that was picked.
    pub endpoint: EndpointId,
    /// How long it took, to the head of its answer.
    pub took_ms: f64,
    /// Whether it failed.
    pub failed: bool,
}

/// Writes attempts down as they end, a line of JSON for each: an [`Observer`] for
/// [`CallSettings`](crate::client::CallSettings).
///
/// A thread writes; no call waits for it. Where it falls behind by ten thousand attempts, further ones
/// are [counted](Self::missed) and not written.
///
/// ```
/// use std::sync::Arc;
/// use waypost::sim::Recorder;
///
/// let recorder = Arc::new(Recorder::new(Vec::new()));
/// // BalanceLayer::new(users).observe(Arc::clone(&recorder)) …
/// let written: Vec<u8> = recorder.finish().expect("it was written");
/// assert!(written.is_empty());
/// ```
pub struct Recorder<W> {
    lines: Mutex<Option<SyncSender<TracedCall>>>,
    writing: Mutex<Option<JoinHandle<io::Result<W>>>>,
    beginning: Instant,
    missed: AtomicU64,
}

/// As many as a burst of a second may bring.
const BEHIND: usize = 10_000;

impl<W: Write + Send + 'static> Recorder<W> {
    /// Into a file, say; it is buffered here.
    pub fn new(mut to: W) -> Self {
        let (lines, calls) = mpsc::sync_channel::<TracedCall>(BEHIND);
        let writing = std::thread::spawn(move || {
            let mut buffered = io::BufWriter::new(&mut to);
            for call in calls {
                serde_json::to_writer(&mut buffered, &call)?;
                buffered.write_all(b"\n")?;
            }
            buffered.flush()?;
            drop(buffered);
            Ok(to)
        });
        Self {
            lines: Mutex::new(Some(lines)),
            writing: Mutex::new(Some(writing)),
            beginning: Instant::now(),
            missed: AtomicU64::new(0),
        }
    }

    /// Writes what is left, and gives back what was written to. What ends after that is not
    /// written.
    ///
    /// # Errors
    ///
    /// When it could not be written, or was finished before.
    pub fn finish(&self) -> io::Result<W> {
        drop(lock(&self.lines).take());
        let writing = lock(&self.writing).take();
        let writing = writing.ok_or_else(|| io::Error::other("it was finished before"))?;
        let written = writing.join();
        written.map_err(|_| io::Error::other("the thread that writes has ended"))?
    }

    /// Attempts that were not written, since the thread that writes was too far behind, or could not
    /// write.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl<W: Send + 'static> Observer for Recorder<W> {
    fn call(&self, _: &ServiceName, event: CallEvent<'_>) {
        let CallEvent::Ended {
            endpoint,
            outcome,
            took,
        } = event
        else {
            return;
        };
        let began = self.beginning.elapsed().saturating_sub(took);
        let call = TracedCall {
            at_ms: began.as_secs_f64() * 1e3,
            endpoint: endpoint.id().clone(),
            took_ms: took.as_secs_f64() * 1e3,
            failed: outcome.is_failure(),
        };
        if let Some(lines) = &*lock(&self.lines)
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(call)
        {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<W> fmt::Debug for Recorder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls of one client, as a [`Recorder`] wrote them.
#[derive(Clone, Debug)]
pub struct Trace {
    /// By when they began.
    calls: Vec<TracedCall>,
    endpoints: Vec<Endpoint>,
    /// The calls of each endpoint, in their order.
    by_endpoint: Vec<Vec<usize>>,
    /// The endpoint of each call.
    of_call: Vec<usize>,
}

impl Trace {
    /// Reads lines of JSON; empty ones are passed over.
    ///
    /// # Errors
    ///
    /// When it cannot be read, a line is no call, or there is none; the error says which line.
    pub fn read(lines: impl BufRead) -> Result<Self, Error> {
        let mut calls = Vec::new();
        for (number, line) in (1..).zip(lines.lines()) {
            let wrong = |reason: &dyn fmt::Display| {
                Error::invalid("trace", format_args!("line {number}"), reason)
            };
            let line = line.map_err(|error| wrong(&error))?;
            if line.trim().is_empty() {
                continue;
            }
            let call: TracedCall = serde_json::from_str(&line).map_err(|error| wrong(&error))?;
            let times = [call.at_ms, call.took_ms];
            // A year; what is beyond is no time of a call.
            if !times.iter().all(|ms| (0.0..=3.2e10).contains(ms)) {
                return Err(wrong(&"its times are not from 0 to a year"));
            }
            calls.push(call);
        }
        if calls.is_empty() {
            return Err(Error::invalid("trace", "no lines", "there must be a call"));
        }
        calls.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let mut ids: BTreeMap<EndpointId, Vec<usize>> = BTreeMap::new();
        for (at, call) in calls.iter().enumerate() {
            ids.entry(call.endpoint.clone()).or_default().push(at);
        }
        let endpoint = |(at, id): (usize, &EndpointId)| {
            let address = format!("replayed-{at}:80");
            Endpoint::builder(address.as_str()).id(id.as_str()).build()
        };
        let endpoints = ids
            .keys()
            .enumerate()
            .map(endpoint)
            .collect::<Result<_, _>>()?;
        let mut of_call = vec![0; calls.len()];
        for (endpoint, own) in ids.values().enumerate() {
            for &at in own {
                of_call[at] = endpoint;
            }
        }
        Ok(Self {
            calls,
            endpoints,
            by_endpoint: ids.into_values().collect(),
            of_call,
        })
    }

    /// The endpoints' ids, in the order of [`Report::by_server`].
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &EndpointId> {
        self.endpoints.iter().map(Endpoint::id)
    }

    /// What was: the calls as they were written.
    #[must_use]
    pub fn recorded(&self) -> Report {
        let mut report = Report::new(self.endpoints.len() as u32);
        for (call, &endpoint) in self.calls.iter().zip(&self.of_call) {
            report.add(endpoint as u32, nanos(call.took_ms), call.outcome());
        }
        report.close();
        report
    }

    /// What would have been under another strategy: calls begin when they did, and one at an endpoint
    /// takes as long, and fails or not, as the recorded one there that began nearest to it.
    ///
    /// So it knows that an endpoint was slow or failed for a time. It does not know how much slower a
    /// server would have been under more calls, nor what other clients would have done, retries, or
    /// reports of load: it flatters a strategy that sends more to an endpoint than it got.
    ///
    /// # Errors
    ///
    /// For [`Rule::Oracle`] and [`Rule::Shortest`], as queues are not recorded.
    pub fn replay(&self, rule: &Rule, seed: u64) -> Result<Report, Error> {
        let Rule::Of(strategy) = rule else {
            let reason = "queues are not recorded, by which it goes";
            return Err(Error::invalid("rule", format!("{rule:?}"), reason));
        };
        let view = View::standalone(self.endpoints.iter().cloned());
        let picker = strategy.build(&view);
        let mut rng = Rng::seeded(seed);
        let cursor = rng.bits() >> 1;
        let mut context = PickContext::new(rng, cursor, &PickOptions::ANY);
        let lease = Lease::take();
        let mut report = Report::new(view.len());
        let mut ends: Queue<(u32, usize)> = Queue::new();
        let end = |(at, (server, like)): (u64, (u32, usize))| {
            let (like, now) = (&self.calls[like], Timestamp::from_nanos(at));
            let (took, outcome) = (nanos(like.took_ms), like.outcome());
            let stats = view.node(server).stats();
            stats.end(lease.slot(), outcome);
            let gauges = stats.gauges();
            gauges.ended(took, outcome, strategy.reads_latency(), now);
        };
        for call in &self.calls {
            let at = nanos(call.at_ms);
            while ends.next_at().is_some_and(|next| next <= at) {
                ends.pop().into_iter().for_each(end);
            }
            context.set_now(Timestamp::from_nanos(at));
            let Some(server) = picker.pick(&mut context).filter(|&it| it < view.len()) else {
                continue;
            };
            view.begin(server, lease.slot());
            let like = self.nearest(server as usize, call.at_ms);
            let (took, outcome) = (nanos(self.calls[like].took_ms), self.calls[like].outcome());
            report.add(server, took, outcome);
            ends.push(at.saturating_add(took), (server, like));
        }
        report.close();
        Ok(report)
    }

    /// The call of that endpoint that began nearest to then.
    fn nearest(&self, endpoint: usize, at_ms: f64) -> usize {
        let own = &self.by_endpoint[endpoint];
        let after = own.partition_point(|&call| self.calls[call].at_ms < at_ms);
        let away = |&&call: &&usize| (self.calls[call].at_ms - at_ms).abs();
        let around = &own[after.saturating_sub(1)..(after + 1).min(own.len())];
        let nearest = around.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
        *nearest.expect("an endpoint of a trace has a call")
    }
}

impl TracedCall {
    fn outcome(&self) -> Outcome {
        if self.failed {
            Outcome::ServerError
        } else {
            Outcome::Success
        }
    }
}

fn nanos(ms: f64) -> u64 {
    (ms * 1e6) as u64
}
