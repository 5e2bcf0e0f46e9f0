//! A server that speaks gRPC as etcd does, as far as it is told to: what it
//! answers to `Range` and to `Watch` is right, wrong, or never done.

#![allow(dead_code, reason = "each test file uses its part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::http::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// What comes back for a call.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A page, with 200.
    Html,
    /// No gRPC, with this status.
    Http(u16),
    /// These bytes as the body, and a status of 0; a watch stays open.
    Raw(Vec<u8>),
    /// These bytes as the body, and an end with the status 14.
    Ends(Vec<u8>),
    /// No message, and this status.
    Status(u16, &'static str),
    /// A message that never ends.
    Endless,
    /// Ever more keys.
    Events,
    /// Nothing, and the call stays open.
    Silent,
}

impl Reply {
    pub(crate) fn status(code: u16, message: &'static str) -> Self {
        Self::Status(code, message)
    }

    /// One message.
    pub(crate) fn message(message: &[u8]) -> Self {
        Self::Raw(framed(message))
    }

    /// What is in the store at a revision.
    pub(crate) fn range(revision: u64, entries: &[(&str, &str)]) -> Self {
        let mut message = field(1, &header(revision));
        for (key, value) in entries {
            message.extend(field(2, &key_value(key, value, revision)));
        }
        Self::message(&message)
    }

    /// A watch that began at a revision.
    pub(crate) fn created(revision: u64) -> Self {
        let mut message = field(1, &header(revision));
        message.extend(number(3, 1));
        Self::message(&message)
    }

    /// A watch that began at a revision and tells what was put at the next
    /// one, in parts.
    pub(crate) fn parts(revision: u64, parts: &[&[(&str, &str)]]) -> Self {
        let Self::Raw(mut messages) = Self::created(revision) else {
            unreachable!("it is a message");
        };
        for (i, part) in parts.iter().enumerate() {
            let mut message = field(1, &header(revision + 1));
            if i + 1 < parts.len() {
                message.extend(number(7, 1));
            }
            for (key, value) in *part {
                let event = field(2, &key_value(key, value, revision + 1));
                message.extend(field(11, &event));
            }
            messages.extend(framed(&message));
        }
        Self::Raw(messages)
    }

    pub(crate) fn canceled(reason: &str) -> Self {
        let mut message = field(1, &header(7));
        message.extend(number(3, 1));
        message.extend(number(4, 1));
        message.extend(field(6, reason.as_bytes()));
        Self::message(&message)
    }

    pub(crate) fn compacted(revision: u64) -> Self {
        let mut message = field(1, &header(revision));
        message.extend(number(3, 1));
        message.extend(number(4, 1));
        message.extend(number(5, revision));
        Self::message(&message)
    }
}

/// It ends when it is dropped.
pub(crate) struct Grpc {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<(Reply, Reply)>>,
    asked: Arc<AtomicU64>,
    /// Bytes of endless messages that were taken.
    sent: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Grpc {
    pub(crate) async fn start(range: Reply, watch: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new((range, watch)));
        let (asked, sent): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (replies, count, bytes) = (told.clone(), asked.clone(), sent.clone());
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (replies, count, bytes) = (replies.clone(), count.clone(), bytes.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    count.fetch_add(1, Ordering::Relaxed);
                    let is_watch = request.uri().path().ends_with("/Watch");
                    let (range, watch) = replies.lock().unwrap().clone();
                    let reply = if is_watch { watch } else { range };
                    let answer = answer(reply, is_watch, request, &bytes);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                open.spawn(http2.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            told,
            asked,
            sent,
            serving,
        }
    }

    /// What comes back from now on.
    pub(crate) fn answer(&self, range: Reply, watch: Reply) {
        *self.told.lock().unwrap() = (range, watch);
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Frames = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

fn answer(
    reply: Reply,
    is_watch: bool,
    request: Request<Incoming>,
    sent: &Arc<AtomicU64>,
) -> Response<StreamBody<Frames>> {
    let grpc = |frames: Frames| {
        Response::builder()
            .header("content-type", "application/grpc")
            .body(StreamBody::new(frames))
            .unwrap()
    };
    let data = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
    // The request is held, so that the call stays open.
    let held = stream::once(async move {
        drop(request);
        std::future::pending().await
    });
    match reply {
        Reply::Html => Response::builder()
            .header("content-type", "text/html")
            .body(StreamBody::new(
                stream::iter([data(b"<html>".to_vec())]).boxed(),
            ))
            .unwrap(),
        Reply::Http(status) => Response::builder()
            .status(status)
            .body(StreamBody::new(stream::empty().boxed()))
            .unwrap(),
        Reply::Raw(bytes) if is_watch => grpc(stream::iter([data(bytes)]).chain(held).boxed()),
        Reply::Raw(bytes) => grpc(stream::iter([data(bytes), Ok(end(0, ""))]).boxed()),
        Reply::Ends(bytes) => {
            let end = end(14, "it ends here");
            grpc(stream::iter([data(bytes), Ok(end)]).boxed())
        }
        Reply::Status(code, message) => grpc(stream::iter([Ok(end(code, message))]).boxed()),
        Reply::Endless => {
            let sent = sent.clone();
            let begin = b"\0\x7f\xff\xff\xff".to_vec();
            let rest = stream::repeat_with(move || {
                sent.fetch_add(1 << 14, Ordering::Relaxed);
                Ok(Frame::data(Bytes::from(vec![0; 1 << 14])))
            });
            grpc(stream::iter([data(begin)]).chain(rest).boxed())
        }
        Reply::Events => {
            let Reply::Raw(created) = Reply::created(7) else {
                unreachable!("it is a message");
            };
            let events = stream::iter(8..).map(|revision: u64| {
                let mut message = field(1, &header(revision));
                for i in 0..100 {
                    let key = format!("users/{revision}-{i}");
                    let value = r#"{"Op":0,"Addr":"10.0.0.1:80"}"#;
                    let event = field(2, &key_value(&key, value, revision));
                    message.extend(field(11, &event));
                }
                Ok(Frame::data(Bytes::from(framed(&message))))
            });
            grpc(stream::iter([data(created)]).chain(events).boxed())
        }
        Reply::Silent => grpc(held.boxed()),
    }
}

fn end(code: u16, message: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", message.parse().unwrap());
    Frame::trailers(trailers)
}

/// gRPC's frame: not compressed, the length, the message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.to_vec()
}

fn header(revision: u64) -> Vec<u8> {
    [number(1, 1), number(3, revision), number(4, 2)].concat()
}

fn key_value(key: &str, value: &str, revision: u64) -> Vec<u8> {
    let parts = [
        field(1, key.as_bytes()),
        number(3, revision),
        field(5, value.as_bytes()),
    ];
    parts.concat()
}

/// A field of bytes in protobuf's encoding.
fn field(tag: u64, value: &[u8]) -> Vec<u8> {
    [
        varint(tag << 3 | 2),
        varint(value.len() as u64),
        value.to_vec(),
    ]
    .concat()
}

/// A field that is a number.
fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
