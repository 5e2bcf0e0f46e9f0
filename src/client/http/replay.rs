//! How a request's body is kept, so that it can be sent again.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A way to send bodies of this type more than once.
pub trait Replay<B>: Clone + Send + Sync + 'static {
    /// What is kept of a body.
    type Kept: Kept<B>;

    /// The body to be sent first, and what is kept of it: no more than `limit`
    /// bytes.
    fn keep(&self, body: B, limit: u64) -> (B, Self::Kept);

    /// What is kept of a body that is sent as it is; none where it has to be
    /// made another, by [`keep`](Self::keep). A request that stays where it is
    /// costs less than one that is taken apart.
    fn keep_beside(&self, body: &B, limit: u64) -> Option<Self::Kept> {
        let _ = (body, limit);
        None
    }
}

/// A body that can be sent again.
pub trait Kept<B>: Send + 'static {
    /// It once more; none when that cannot be.
    fn again(&mut self) -> Option<B>;
}

/// No body is sent twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOnce;

impl<B> Replay<B> for SendOnce {
    type Kept = Nothing;

    fn keep(&self, body: B, _: u64) -> (B, Nothing) {
        (body, Nothing)
    }
}

/// Nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl<B> Kept<B> for Nothing {
    fn again(&mut self) -> Option<B> {
        None
    }
}

/// Bodies are cloned: right for those that hold their bytes, such as
/// `Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

/// A clone of a body, unless it is too large.
#[derive(Clone, Copy, Debug)]
pub struct Copied<B>(Option<B>);

impl<B: Body + Clone> Copied<B> {
    fn of(body: &B, limit: u64) -> Self {
        let fits = body.size_hint().lower() <= limit;
        Self(fits.then(|| body.clone()))
    }
}

impl<B: Body + Clone + Send + 'static> Replay<B> for CloneBody {
    type Kept = Copied<B>;

    fn keep(&self, body: B, limit: u64) -> (B, Copied<B>) {
        let kept = Copied::of(&body, limit);
        (body, kept)
    }

    fn keep_beside(&self, body: &B, limit: u64) -> Option<Copied<B>> {
        Some(Copied::of(body, limit))
    }
}

impl<B: Clone + Send + 'static> Kept<B> for Copied<B> {
    fn again(&mut self) -> Option<B> {
        self.0.clone()
    }
}

/// Bodies that stream are recorded while they are sent, as long as they fit:
/// right for boxed ones, which are made of a recorded one by a function such as
/// `tonic::body::Body::new` or `axum::body::Body::new`.
///
/// ```
/// use waypost::client::http::{RecordBody, ReplayBody};
///
/// type Boxed = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::io::Error>;
/// let record = RecordBody::new(|body: ReplayBody<Boxed>| Boxed::new(body));
/// # let _ = record;
/// ```
#[derive(Clone, Copy)]
pub struct RecordBody<W>(W);

impl<W> RecordBody<W> {
    /// With the function that makes a body of a recorded one.
    pub const fn new(wrap: W) -> Self {
        Self(wrap)
    }
}

impl<W> fmt::Debug for RecordBody<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBody").finish_non_exhaustive()
    }
}

impl<B, W> Replay<B> for RecordBody<W>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    W: Fn(ReplayBody<B>) -> B + Clone + Send + Sync + 'static,
{
    type Kept = Recorded<B, W>;

    fn keep(&self, body: B, limit: u64) -> (B, Self::Kept) {
        let record = Arc::new(Mutex::new(Record {
            body,
            frames: VecDeque::new(),
            first: 0,
            trailers: None,
            ended: false,
            kept: 0,
            limit,
            readers: 0,
            waiting: Vec::new(),
        }));
        let body = (self.0)(ReplayBody::new(&record));
        let wrap = self.0.clone();
        (body, Recorded { record, wrap })
    }
}

/// The record of a body.
pub struct Recorded<B, W> {
    record: Arc<Mutex<Record<B>>>,
    wrap: W,
}

/// Nobody will ask for it again: a stream that lasts need not keep what it began with.
impl<B, W> Drop for Recorded<B, W> {
    fn drop(&mut self) {
        lock(&self.record).limit = 0;
    }
}

impl<B, W> fmt::Debug for Recorded<B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

impl<B, W> Kept<B> for Recorded<B, W>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    W: Fn(ReplayBody<B>) -> B + Send + 'static,
{
    fn again(&mut self) -> Option<B> {
        let whole = lock(&self.record).is_whole();
        whole.then(|| (self.wrap)(ReplayBody::new(&self.record)))
    }
}

/// A body, what has been read of it, and who reads it: two at once when a call
/// is hedged.
struct Record<B> {
    body: B,
    frames: VecDeque<Bytes>,
    /// The number of the first frame that is kept: above 0 once the body has
    /// grown too large to be kept whole.
    first: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    kept: u64,
    limit: u64,
    readers: usize,
    /// Those who wait for the body. It wakes only who polled it last.
    waiting: Vec<Waker>,
}

impl<B> Record<B> {
    fn is_whole(&self) -> bool {
        self.first == 0
    }

    fn wake_all(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept = self.kept.saturating_add(data.len() as u64);
        self.frames.push_back(data.clone());
        // Two readers are within the limit of each other.
        if self.kept > self.limit && self.readers == 1 {
            self.first += self.frames.len();
            self.frames.clear();
        }
    }
}

/// A body that is recorded while it is read, or read from the record.
pub struct ReplayBody<B> {
    record: Arc<Mutex<Record<B>>>,
    /// The number of the frame that comes next.
    next: usize,
    over: bool,
}

impl<B> ReplayBody<B> {
    fn new(record: &Arc<Mutex<Record<B>>>) -> Self {
        lock(record).readers += 1;
        Self {
            record: Arc::clone(record),
            next: 0,
            over: false,
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let mut record = lock(&self.record);
        record.readers -= 1;
        record.wake_all();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let mut record = lock(&this.record);
        let record = &mut *record;
        loop {
            if let Some(frame) = this.next.checked_sub(record.first)
                && let Some(data) = record.frames.get(frame)
            {
                this.next += 1;
                return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
            }
            if record.ended {
                let last = !std::mem::replace(&mut this.over, true);
                let trailers = record.trailers.clone().filter(|_| last);
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let Poll::Ready(frame) = Pin::new(&mut record.body).poll_frame(cx) else {
                if !record
                    .waiting
                    .iter()
                    .any(|waker| waker.will_wake(cx.waker()))
                {
                    record.waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            };
            record.wake_all();
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    record.keep(&data);
                    this.next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Ok(Err(other))) => {
                    record.trailers = other.into_trailers().ok();
                    record.ended = true;
                }
                None => record.ended = true,
                Some(Err(error)) => {
                    // It cannot be told twice, so it is not sent again.
                    record.first = usize::MAX;
                    record.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let record = lock(&self.record);
        let read = self.next >= record.first.saturating_add(record.frames.len());
        let trailers = record.trailers.is_some() && !self.over;
        read && !trailers && (record.ended || record.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let record = lock(&self.record);
        let read = self.next.saturating_sub(record.first);
        let buffered = record.frames.iter().skip(read).map(Bytes::len);
        let buffered = buffered.sum::<usize>() as u64;
        let rest = if record.ended {
            SizeHint::with_exact(0)
        } else {
            record.body.size_hint()
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(buffered));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(buffered)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn lock<B>(record: &Mutex<Record<B>>) -> MutexGuard<'_, Record<B>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::channel::mpsc;
    use futures::{FutureExt as _, StreamExt as _};
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    type Boxed = UnsyncBoxBody<Bytes, Infallible>;
    type Sender = mpsc::UnboundedSender<Frame<Bytes>>;

    fn recorded(limit: u64) -> (Sender, Boxed, impl Kept<Boxed>) {
        let (sender, frames) = mpsc::unbounded();
        let body = Boxed::new(StreamBody::new(frames.map(Ok::<_, Infallible>)));
        let (first, kept) = RecordBody::new(Boxed::new).keep(body, limit);
        (sender, first, kept)
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    fn text(body: Boxed) -> (Bytes, Option<HeaderMap>) {
        let collected = body.collect().now_or_never().expect("it has ended");
        let collected = collected.unwrap_or_else(|never| match never {});
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    #[test]
    fn a_body_that_fits_is_sent_again_whole_with_its_trailers() {
        let (sender, first, mut kept) = recorded(5);
        let trailers = HeaderMap::from_iter([(http::header::TE, "x".parse().unwrap())]);
        for frame in [data("he"), data("llo"), Frame::trailers(trailers.clone())] {
            sender.unbounded_send(frame).unwrap();
        }
        drop(sender);
        for body in [Some(first), kept.again(), kept.again()] {
            let (text, told) = text(body.expect("it fits"));
            assert_eq!(text, "hello");
            assert_eq!(told.as_ref(), Some(&trailers));
        }
    }

    #[test]
    fn one_that_is_too_large_goes_out_whole_but_once() {
        let (sender, first, mut kept) = recorded(4);
        sender.unbounded_send(data("he")).unwrap();
        sender.unbounded_send(data("llo")).unwrap();
        drop(sender);
        assert_eq!(text(first).0, "hello");
        assert!(kept.again().is_none());
    }

    #[test]
    fn an_attempt_that_read_half_leaves_the_rest_to_the_next() {
        let (sender, mut first, mut kept) = recorded(100);
        sender.unbounded_send(data("he")).unwrap();
        assert!(first.frame().now_or_never().is_some());
        assert!(first.frame().now_or_never().is_none());
        let second = kept.again().expect("it fits so far");
        drop(first);
        sender.unbounded_send(data("llo")).unwrap();
        drop(sender);
        assert_eq!(text(second).0, "hello");
    }

    /// The body wakes only who polled it last.
    #[tokio::test]
    async fn two_readers_wake_each_other_and_both_read_it_all() {
        let (sender, first, mut kept) = recorded(100);
        let second = kept.again().expect("nothing was read");
        let third = kept.again().expect("nothing was read");
        let read = |body: Boxed| tokio::spawn(async move { body.collect().await });
        let (first, second, third) = (read(first), read(second), read(third));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        third.abort();
        for part in ["he", "llo"] {
            tokio::task::yield_now().await;
            sender.unbounded_send(data(part)).unwrap();
        }
        drop(sender);
        for reader in [first, second] {
            let collected = tokio::time::timeout(std::time::Duration::from_secs(5), reader);
            let collected = collected.await.expect("nobody is forgotten").unwrap();
            let collected = collected.unwrap_or_else(|never| match never {});
            assert_eq!(collected.to_bytes(), "hello");
        }
    }

    #[test]
    fn what_is_not_sent_again_is_not_kept() {
        let (sender, mut first, kept) = recorded(100);
        let mut part = |text: &[u8]| {
            let held = Frame::data(Bytes::copy_from_slice(text));
            sender.unbounded_send(held).unwrap();
            let frame = first.frame().now_or_never().flatten();
            frame.unwrap().unwrap().into_data().unwrap()
        };
        let before = part(b"he");
        assert!(!before.is_unique(), "it may be sent again");
        drop(kept);
        let after = part(b"llo");
        assert!(before.is_unique() && after.is_unique());
    }

    #[test]
    fn sizes_and_ends_are_told_as_the_body_tells_them() {
        use http_body_util::Full;
        let full = Boxed::new(Full::new(Bytes::from_static(b"hello")));
        let (first, mut kept) = RecordBody::new(Boxed::new).keep(full, 100);
        assert_eq!(first.size_hint().exact(), Some(5));
        assert!(!first.is_end_stream());
        assert_eq!(text(first).0, "hello");
        let again = kept.again().expect("it fits");
        assert_eq!(again.size_hint().exact(), Some(5));
        assert!(!again.is_end_stream());
        let empty = Boxed::new(Full::new(Bytes::new()));
        let (first, _) = RecordBody::new(Boxed::new).keep(empty, 100);
        assert!(first.is_end_stream());
    }
}
