//! A tower layer that tells callers how busy the server is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::load::{BusyTime, LatencyByLoad, LoadReport};
use crate::time::{Clock, Timestamp};

/// Adds to each answer what the server knows of its load: the calls that it holds, those that it
/// answers and fails a second, what a call takes that comes now ([`LatencyByLoad`]), and with a
/// [`limit`](Self::limit) the share of that which was at work in the last second or two.
///
/// A call is held from when it comes until its answer's body has ended; the call that the report
/// goes with is not counted. The report is in the head (`endpoint-load-metrics`, text), and once
/// more in the trailers where there are any (`endpoint-load-metrics-bin`, which gRPC's clients read).
///
/// ```
/// use waypost::server::ReportLoad;
///
/// let layer = ReportLoad::new()
///     .limit(200)?
///     .metrics(|report| { report.named_metrics.insert("jobs_waiting".into(), 3.0); });
/// // axum: Router::new().route(…).layer(layer)
/// assert_eq!(layer.report().in_flight(), Some(0.0));
/// # Ok::<(), waypost::Error>(())
/// ```
///
/// [Probes](crate::client::LoadProbes) had better be answered beside the layer, so that they are not
/// counted among the calls: by a handler that returns [`report`](Self::report) in the header.
///
/// Clones count together. A call costs four clock reads, some atomic additions and the text.
#[derive(Clone)]
pub struct ReportLoad {
    meter: Arc<Meter>,
    busy: Option<Arc<BusyTime>>,
    metrics: Option<Arc<Add>>,
}

type Add = dyn Fn(&mut LoadReport) + Send + Sync;

impl ReportLoad {
    /// The layer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            meter: Arc::default(),
            busy: None,
            metrics: None,
        }
    }

    /// How many calls the server can work at at a time, workers or connections of a database: the
    /// share of them that was at work ([`BusyTime`]) is its `application_utilization`, by which
    /// [`LoadWeighted`](crate::strategy::LoadWeighted) goes. To be set before the layer is cloned.
    ///
    /// # Errors
    ///
    /// When it is 0.
    pub fn limit(mut self, calls: u32) -> Result<Self, Error> {
        if calls == 0 {
            return Err(Error::invalid(
                "limit",
                calls,
                "there must be one call at least",
            ));
        }
        let now = self.meter.clock.now();
        self.busy = Some(Arc::new(BusyTime::new(calls, now)));
        Ok(self)
    }

    /// Changes each report before it is sent: with metrics of the application's own, the
    /// processors' use, or [the time in a queue](LoadReport::QUEUE_MS). It is called for every
    /// call, so it had better read figures that are there already.
    #[must_use]
    pub fn metrics(mut self, add: impl Fn(&mut LoadReport) + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(add));
        self
    }

    /// What the server would say now.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        self.report_beside(0)
    }

    fn report_beside(&self, own: u32) -> LoadReport {
        let now = self.meter.clock.now();
        let held = self.meter.held.load(Ordering::Relaxed);
        let held = held.saturating_sub(own);
        let latency = self.meter.latencies.estimate(held, now);
        let held = f64::from(held);
        let mut report = LoadReport {
            rps_fractional: self.meter.answered.per_second(now),
            eps: self.meter.failed.per_second(now),
            ..LoadReport::default()
        };
        if let Some(busy) = &self.busy {
            report.application_utilization = busy.share(now);
        }
        let in_flight = LoadReport::IN_FLIGHT.to_owned();
        report.named_metrics.insert(in_flight, held);
        if let Some(latency) = latency {
            let ms = latency.as_secs_f64() * 1e3;
            report
                .named_metrics
                .insert(LoadReport::LATENCY_MS.to_owned(), ms);
        }
        if let Some(add) = &self.metrics {
            add(&mut report);
        }
        report
    }
}

impl Default for ReportLoad {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ReportLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLoad")
            .field("report", &self.report())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Meter {
    clock: Clock,
    held: AtomicU32,
    answered: Rate,
    failed: Rate,
    latencies: LatencyByLoad,
}

/// What an answer holds among its extensions that is none of a call: it is not counted, however long
/// it lasts.
#[derive(Clone)]
pub(super) struct Aside;

impl Meter {
    fn count(&self, failed: bool) {
        let now = self.clock.now();
        self.answered.count(now);
        if failed {
            self.failed.count(now);
        }
    }
}

/// Counts by seconds.
#[derive(Debug, Default)]
struct Rate {
    /// The second that is counted, and how many in it.
    window: AtomicU64,
    /// The second before, and how many in it.
    last: AtomicU64,
}

impl Rate {
    fn count(&self, now: Timestamp) {
        let second = second_of(now);
        let mut window = self.window.load(Ordering::Relaxed);
        loop {
            let same = (window >> 32) as u32 == second;
            let next = if same {
                window + 1
            } else {
                u64::from(second) << 32 | 1
            };
            match self.window.compare_exchange_weak(
                window,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) if same => return,
                Ok(_) => return self.last.store(window, Ordering::Relaxed),
                Err(current) => window = current,
            }
        }
    }

    /// Of the last whole second, with what there is of this one while that one is unknown.
    fn per_second(&self, now: Timestamp) -> f64 {
        let second = second_of(now);
        let of = |word: u64, second: u32| {
            let known = (word >> 32) as u32 == second;
            known.then_some(f64::from(word as u32))
        };
        let window = self.window.load(Ordering::Relaxed);
        let last = self.last.load(Ordering::Relaxed);
        let before = second.wrapping_sub(1);
        let whole = of(window, before).or_else(|| of(last, before));
        whole.or_else(|| of(window, second)).unwrap_or_default()
    }
}

/// From 2 on, so that a word of 0 is of no second, nor of the one before it.
fn second_of(now: Timestamp) -> u32 {
    (now.as_nanos() / Duration::from_secs(1).as_nanos() as u64) as u32 + 2
}

/// Counts a call for as long as it lives.
#[derive(Debug)]
struct Holding {
    meter: Arc<Meter>,
    busy: Option<Arc<BusyTime>>,
    /// Held beside it when it came.
    beside: u32,
    came: Timestamp,
    /// One that failed fast, or that nobody waited for, is no measure.
    went_well: bool,
}

impl Holding {
    fn new(layer: &ReportLoad) -> Self {
        let (meter, busy) = (&layer.meter, layer.busy.clone());
        let came = meter.clock.now();
        if let Some(busy) = &busy {
            busy.begin(came);
        }
        Self {
            busy,
            beside: meter.held.fetch_add(1, Ordering::Relaxed),
            came,
            meter: Arc::clone(meter),
            went_well: false,
        }
    }

    fn end_well(mut self) {
        self.went_well = true;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.meter.held.fetch_sub(1, Ordering::Relaxed);
        let now = self.meter.clock.now();
        if let Some(busy) = &self.busy {
            busy.end(now);
        }
        if self.went_well {
            let took = now.since(self.came);
            self.meter.latencies.record(self.beside, took, now);
        }
    }
}

fn end(holding: &mut Option<Holding>, failed: bool) {
    if let Some(holding) = holding.take()
        && !failed
    {
        holding.end_well();
    }
}

impl<S> Layer<S> for ReportLoad {
    type Service = Reporting<S>;

    fn layer(&self, inner: S) -> Reporting<S> {
        Reporting {
            layer: self.clone(),
            inner,
        }
    }
}

/// The service of [`ReportLoad`].
#[derive(Clone, Debug)]
pub struct Reporting<S> {
    layer: ReportLoad,
    inner: S,
}

impl<S, R, B> Service<R> for Reporting<S>
where
    S: Service<R, Response = Response<B>>,
    B: Body,
{
    type Response = Response<ReportingBody<B>>;
    type Error = S::Error;
    type Future = ReportingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let holding = Holding::new(&self.layer);
        ReportingFuture {
            answer: self.inner.call(request),
            layer: self.layer.clone(),
            holding: Some(holding),
        }
    }
}

pin_project! {
    /// The answer of [`Reporting`].
    #[derive(Debug)]
    pub struct ReportingFuture<F> {
        #[pin]
        answer: F,
        layer: ReportLoad,
        holding: Option<Holding>,
    }
}

impl<F, B, E> Future for ReportingFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ReportingBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let mut holding = this.holding.take();
        let is_aside = answer
            .as_ref()
            .is_ok_and(|answer| answer.extensions().get::<Aside>().is_some());
        let failed = answer
            .as_ref()
            .map_or(true, |answer| answer.status().is_server_error());
        if is_aside {
            holding = None;
        } else {
            this.layer.meter.count(failed);
        }
        Poll::Ready(answer.map(|mut answer| {
            let own = u32::from(holding.is_some());
            if let Some(value) = this.layer.report_beside(own).to_header() {
                answer.headers_mut().insert(LoadReport::HEADER, value);
            }
            let layer = this.layer.clone();
            answer.map(|body| {
                let mut body = ReportingBody {
                    body,
                    layer,
                    holding,
                    failed,
                };
                // Nobody need ask for what is announced to be nothing.
                if body.body.is_end_stream() {
                    end(&mut body.holding, failed);
                }
                body
            })
        }))
    }
}

pin_project! {
    /// A body that keeps its call counted until it ends.
    #[derive(Debug)]
    pub struct ReportingBody<B> {
        #[pin]
        body: B,
        layer: ReportLoad,
        holding: Option<Holding>,
        failed: bool,
    }
}

impl<B: Body> Body for ReportingBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let mut frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            let own = u32::from(this.holding.is_some());
            let value = this.layer.report_beside(own).to_header_bin();
            trailers.insert(LoadReport::HEADER_BIN, value);
        }
        let broken = frame.as_ref().is_some_and(Result::is_err);
        if broken || frame.is_none() || this.body.is_end_stream() {
            end(this.holding, broken || *this.failed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "they are counts")]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_whole_second() {
        let rate = Rate::default();
        let at = |millis: u64| Timestamp::default().plus(Duration::from_millis(millis));
        assert_eq!(rate.per_second(at(0)), 0.0);
        for call in 0..10 {
            rate.count(at(call * 100));
        }
        assert_eq!(rate.per_second(at(950)), 10.0);
        assert_eq!(rate.per_second(at(1_500)), 10.0);
        rate.count(at(1_500));
        assert_eq!(rate.per_second(at(1_600)), 10.0);
        assert_eq!(rate.per_second(at(2_500)), 1.0);
        assert_eq!(rate.per_second(at(9_000)), 0.0);
    }
}
