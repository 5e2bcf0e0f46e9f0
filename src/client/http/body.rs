//! A body that holds on to its call's pick.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::BoxError;
use crate::client::exchange::Held;
use crate::client::run::read_report;
use crate::error::Error;
use crate::stats::Outcome;

pin_project! {
    /// A response body that keeps its call counted as in flight until it ends,
    /// breaks off, or is dropped; and breaks off when the call's time is over.
    pub struct Tracked<B> {
        #[pin]
        body: B,
        call: Option<Held>,
    }
}

impl<B: Body> Tracked<B> {
    /// Of a call that passed through, where nothing is held.
    pub(in crate::client) fn new(body: B, mut call: Option<Held>) -> Self {
        if body.is_end_stream() {
            finish(&mut call, None);
        }
        Self { body, call }
    }
}

fn finish(call: &mut Option<Held>, instead: Option<Outcome>) {
    if let Some(call) = call.take()
        && let Some(pick) = call.pick
    {
        pick.finish(instead.unwrap_or(call.outcome));
    }
}

/// The error of a call whose time is over, which ends so.
fn overdue(call: &mut Option<Held>, cx: &mut Context<'_>, outcome: Outcome) -> Option<Error> {
    let overdue = call.as_mut()?.overdue.as_mut()?.as_mut().project();
    if overdue.sleep.poll(cx).is_pending() {
        return None;
    }
    let error = overdue.error.clone();
    finish(call, Some(outcome));
    Some(error)
}

impl<B: Body<Error: Into<BoxError>>> Body for Tracked<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        if polled.is_pending()
            && let Some(error) = overdue(this.call, cx, Outcome::TimedOut)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = ready!(polled);
        match &frame {
            Some(Err(_)) => finish(this.call, Some(Outcome::Interrupted)),
            Some(Ok(frame)) => {
                if let Some(call) = this.call
                    && let Some(trailers) = frame.trailers_ref()
                {
                    if let Some(pick) = &call.pick {
                        read_report(pick, trailers);
                    }
                    let classify = call.classify.as_ref();
                    if let Some(outcome) = classify.and_then(|by| by.trailers(trailers)) {
                        call.outcome = outcome;
                    }
                }
                // The reader need not ask for the end once it has been
                // announced, and nothing comes behind trailers.
                if frame.is_trailers() || this.body.is_end_stream() {
                    finish(this.call, None);
                } else if let Some(error) = overdue(this.call, cx, Outcome::Cancelled) {
                    // It is the reader who is late, where there is something to read.
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            None => finish(this.call, None),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for Tracked<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pick = self.call.as_ref().and_then(|call| call.pick.as_ref());
        f.debug_struct("Tracked")
            .field("pick", &pick)
            .finish_non_exhaustive()
    }
}
