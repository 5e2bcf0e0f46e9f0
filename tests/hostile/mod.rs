//! A server that answers as it is told: right, wrong, or never done.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What comes back for every request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes, and the connection is closed.
    Raw(Vec<u8>),
    /// These bytes; and when the connection is used again, it is closed.
    Once(Vec<u8>),
    /// What this makes of how many were asked before.
    Each(fn(u64) -> Self),
    /// A head that promises chunks, and then zeros without end.
    Endless,
    /// Nothing, and the connection stays open.
    Silence,
}

impl Answer {
    /// A whole answer with these header lines.
    pub(crate) fn new(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
        Self::Raw((head + body).into_bytes())
    }

    /// The same, broken off in the middle of the body.
    pub(crate) fn truncated(headers: &str, body: &str) -> Self {
        match Self::new("200 OK", headers, body) {
            Self::Raw(mut bytes) => {
                bytes.truncate(bytes.len() - body.len() / 2);
                Self::Raw(bytes)
            }
            other => other,
        }
    }
}

/// It ends when it is dropped.
pub(crate) struct Hostile {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicU64>,
    /// Bytes that an endless answer got rid of.
    sent: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Hostile {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let answer = Arc::new(Mutex::new(answer));
        let (asked, sent): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (told, count, bytes) = (answer.clone(), asked.clone(), sent.clone());
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (told, count, bytes) = (told.clone(), count.clone(), bytes.clone());
                open.spawn(serve(stream, told, count, bytes));
            }
        });
        Self {
            address,
            answer,
            asked,
            sent,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What comes back from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().expect("no test panics in here") = answer;
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Bytes of endless answers that were taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let before = asked.fetch_add(1, Ordering::Relaxed);
    let mut told = answer.lock().expect("no test panics in here").clone();
    if let Answer::Each(make) = told {
        told = make(before);
    }
    match told {
        Answer::Each(_) => unreachable!("an answer is made of bytes"),
        Answer::Raw(bytes) => {
            // Whoever asked may be gone.
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
            // A close with unread bytes would take the answer back.
            while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        }
        Answer::Once(bytes) => {
            drop(stream.write_all(&bytes).await);
            drop(stream.read(&mut buffer).await);
        }
        Answer::Endless => {
            let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut chunk = b"4000\r\n".to_vec();
            chunk.resize(chunk.len() + 0x4000, b' ');
            chunk.extend_from_slice(b"\r\n");
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            while stream.write_all(&chunk).await.is_ok() {
                sent.fetch_add(0x4000, Ordering::Relaxed);
            }
        }
        Answer::Silence => while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {},
    }
}
