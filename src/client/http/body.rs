//! A body that holds on to its call's pick.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::balancer::DetachedPick;
use crate::stats::Outcome;

pin_project! {
    /// A response body that keeps its call counted as in flight until it ends,
    /// breaks off, or is dropped.
    #[derive(Debug)]
    pub struct Tracked<B> {
        #[pin]
        body: B,
        call: Option<Call>,
    }
}

#[derive(Debug)]
struct Call {
    pick: DetachedPick,
    /// What the status told, if the body ends as it should.
    outcome: Outcome,
}

impl<B: Body> Tracked<B> {
    /// Of a call that a pick was made for.
    pub(in crate::client) fn new(body: B, pick: DetachedPick, outcome: Outcome) -> Self {
        let mut tracked = Self {
            body,
            call: Some(Call { pick, outcome }),
        };
        if tracked.body.is_end_stream() {
            finish(&mut tracked.call, None);
        }
        tracked
    }

    /// Of a call that passed through.
    pub(in crate::client) fn untracked(body: B) -> Self {
        Self { body, call: None }
    }
}

fn finish(call: &mut Option<Call>, instead: Option<Outcome>) {
    if let Some(call) = call.take() {
        call.pick.finish(instead.unwrap_or(call.outcome));
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Err(_)) => finish(this.call, Some(Outcome::Interrupted)),
            // The reader need not ask for the end once it has been announced.
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => finish(this.call, None),
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
