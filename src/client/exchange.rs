//! What a call hands to the client that it is made with, and gets back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::Classify;
use super::door::Permit;
use super::service::Service;
use crate::balancer::DetachedPick;
use crate::error::Error;
use crate::stats::Outcome;

/// A client, as far as a call has to know it.
pub(super) trait Transport<X>: Sync {
    type Request: Send;
    type Answer: Send;
    type Error: Send;

    /// Takes the request, sends it to the picked endpoint, and leaves the answer.
    /// An error that is ours says that nothing was sent.
    fn send(
        &self,
        exchange: &mut Exchange<Self::Request, Self::Answer>,
        service: &Service<'_, X>,
        pick: &DetachedPick,
    ) -> impl Future<Output = Result<(), SendError<Self::Error>>> + Send;

    /// Whether the request may be sent again.
    fn may_repeat(&self) -> bool;

    /// The request once more, if it can be sent again; `left` of what its caller lets the
    /// whole call take, if the request says that.
    fn again(&self, left: Option<Duration>) -> Option<Self::Request>;

    /// The head of an answer.
    fn head(answer: &Self::Answer) -> (StatusCode, &HeaderMap);

    /// How a call ended, from the client's own error.
    fn outcome(&self, error: &Self::Error, classify: &dyn Classify) -> Outcome;

    /// An error of ours in the client's terms.
    fn ours(error: Error) -> Self::Error;
}

/// A request until it is sent, and its answer until it is handed on. Each is some
/// hundred bytes large, and so both are handed about by reference: each hand that
/// took one would have room for it in the call's future, and copy it there.
pub(super) struct Exchange<R, A>(Stage<R, A>);

/// Both in one place. Each is taken from an option, which copies it once; to
/// replace a stage by another would copy the whole stage first.
enum Stage<R, A> {
    /// None once it is sent.
    Asking(Option<R>),
    /// None once it is handed on.
    Answered {
        answer: Option<A>,
        held: Option<Held>,
    },
}

impl<R, A> Exchange<R, A> {
    pub(super) const fn of(request: R) -> Self {
        Self(Stage::Asking(Some(request)))
    }

    pub(super) fn request(&mut self) -> &mut R {
        match &mut self.0 {
            Stage::Asking(Some(request)) => request,
            _ => unreachable!("a request is looked at before it is sent"),
        }
    }

    pub(super) fn take_request(&mut self) -> R {
        let request = match &mut self.0 {
            Stage::Asking(request) => request.take(),
            Stage::Answered { .. } => None,
        };
        match request {
            Some(request) => request,
            None => unreachable!("a request is sent once"),
        }
    }

    /// The next request, in the place of what there was.
    pub(super) fn put_request(&mut self, request: R) {
        self.0 = Stage::Asking(Some(request));
    }

    pub(super) fn put_answer(&mut self, answer: A) {
        self.0 = Stage::Answered {
            answer: Some(answer),
            held: None,
        };
    }

    /// The answer, and what its body shall hold, if that is known yet.
    pub(super) fn answered(&mut self) -> (&mut A, Option<&Held>) {
        match &mut self.0 {
            Stage::Answered {
                answer: Some(answer),
                held,
            } => (answer, held.as_ref()),
            _ => unreachable!("what went well was answered"),
        }
    }

    /// Leaves what the answer's body shall hold along with the answer.
    pub(super) fn hold(&mut self, hold: Held) {
        match &mut self.0 {
            Stage::Answered { held, .. } => *held = Some(hold),
            Stage::Asking(_) => unreachable!("what went well was answered"),
        }
    }

    /// The answer, and what its body shall hold, if it was balanced.
    pub(super) fn take_answer(&mut self) -> (A, Option<Held>) {
        match &mut self.0 {
            Stage::Answered { answer, held } => match answer.take() {
                Some(answer) => (answer, held.take()),
                None => unreachable!("an answer is handed on once"),
            },
            Stage::Asking(_) => unreachable!("what went well was answered"),
        }
    }
}

pub(super) enum SendError<E> {
    /// The endpoint cannot be called by this client.
    Unroutable(Error),
    /// The client did not take the request.
    NotReady(E),
    Client(E),
}

/// What an answer's body holds until it ends.
pub(super) struct Held {
    /// None when it ended before, for a retry that came to nothing.
    pub(super) pick: Option<DetachedPick>,
    /// If the body ends, and no trailers tell another.
    pub(super) outcome: Outcome,
    /// None for HTTP's, which reads no trailers.
    pub(super) classify: Option<Arc<dyn Classify>>,
    pub(super) overdue: Option<Pin<Box<Overdue>>>,
    #[expect(dead_code, reason = "it is held")]
    pub(super) permit: Permit,
}

pin_project! {
    /// The end of a call that has one.
    pub(super) struct Overdue {
        #[pin]
        pub(super) sleep: Sleep,
        pub(super) error: Error,
    }
}
