//! The task that holds a session's connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::session::{Connected, Failure, Order, Settings, State};
use super::socket::{self, Socket};
use super::watchers::Watchers;
use super::wire::{
    AUTH, CLOSE, Head, Hello, NoMessage, Op, PING, Reader, Writer, XID_AUTH, XID_EVENT, XID_PING,
    message, reason,
};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::registry::follow::FIRST_WAIT;
use crate::rng::Rng;

/// The longest wait between two rounds over the servers: a session of 15 s is
/// saved when they are back within 10.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

type Orders = mpsc::UnboundedReceiver<Order>;

pub(super) struct Runner {
    settings: Settings,
    watchers: Arc<Watchers>,
    state: watch::Sender<State>,
    backoff: Backoff,
    session: Known,
    /// Where it was heard from the ensemble last.
    heard_at: Instant,
    server: usize,
    epochs: u64,
}

/// A session, as the ensemble told of it; all zero before there is one.
#[derive(Default)]
struct Known {
    id: i64,
    password: Vec<u8>,
    timeout: Duration,
    /// The newest transaction that was heard of: no server that knows less
    /// takes the session.
    zxid: i64,
}

/// What the first answer has at most: 16 bytes of a password, and some.
const MAX_HELLO: usize = 1_024;

impl Runner {
    pub(super) fn new(
        settings: Settings,
        watchers: Arc<Watchers>,
        state: watch::Sender<State>,
    ) -> Self {
        let mut rng = Rng::from_entropy();
        Self {
            // Each client begins at another server, so that all have as many.
            server: rng.below(settings.servers.len() as u32) as usize,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT, rng),
            settings,
            watchers,
            state,
            session: Known::default(),
            heard_at: Instant::now(),
            epochs: 0,
        }
    }

    /// Until nobody is there who could ask.
    pub(super) async fn run(mut self, mut orders: Orders) {
        loop {
            let connecting = tokio::select! {
                socket = self.connect() => Some(socket),
                () = gone(&mut orders) => None,
            };
            let Some(link) = connecting else { return };
            let connected = self.announce();
            let since = Instant::now();
            let Err(error) = self.serve(link, connected, &mut orders).await else {
                return;
            };
            self.server = (self.server + 1) % self.settings.servers.len();
            self.tell_lost(error);
            let wait = self.backoff.after(since.elapsed());
            tokio::select! {
                () = sleep(wait) => {}
                () = gone(&mut orders) => return,
            }
        }
    }

    fn announce(&mut self) -> Connected {
        self.epochs += 1;
        let connected = Connected {
            epoch: self.epochs,
            session: self.session.id,
            server: self.server,
        };
        self.state.send_modify(|state| {
            state.connected = Some(connected);
            state.error = None;
        });
        connected
    }

    fn tell_lost(&self, error: Error) {
        self.state.send_modify(|state| {
            state.connected = None;
            state.error = Some(error);
        });
    }

    /// Goes round the servers until one takes the session.
    async fn connect(&mut self) -> Link {
        loop {
            let mut last = None;
            for _ in 0..self.settings.servers.len() {
                match self.try_server().await {
                    Ok(link) => return link,
                    Err(error) => last = Some(error),
                }
                self.server = (self.server + 1) % self.settings.servers.len();
            }
            self.state.send_modify(|state| {
                state.rounds += 1;
                state.error = last;
            });
            sleep(self.backoff.after(Duration::ZERO)).await;
        }
    }

    async fn try_server(&mut self) -> Result<Link, Error> {
        let origin = self.settings.origin(self.server);
        let within = self.settings.within;
        // It is over, whatever the ensemble says. One that was restored from a
        // backup never says so: it refuses who has seen what it does not know.
        if self.session.id != 0 && self.heard_at.elapsed() > self.session.timeout {
            self.session = Known::default();
        }
        let shaking = async {
            if let Some(link) = self.shake_hands(&origin).await? {
                return Ok(link);
            }
            self.session = Known::default();
            let link = self.shake_hands(&origin).await?;
            link.ok_or_else(|| Error::registry(&origin, "it gives no session"))
        };
        timeout(within, shaking).await.unwrap_or_else(|_| {
            let reason = format!("no session within {within:?}");
            Err(Error::registry(&origin, reason))
        })
    }

    /// Goes on with the session, or begins one; none when it has expired.
    async fn shake_hands(&mut self, origin: &str) -> Result<Option<Link>, Error> {
        let broken = |error: io::Error| {
            let reason = format!("connecting failed: {error}");
            Error::registry(origin, reason)
        };
        let server = &self.settings.servers[self.server];
        let socket = socket::connect(server, self.settings.tls.as_ref());
        let socket = socket.await.map_err(broken)?;
        let mut link = Link::new(socket, origin.to_owned(), MAX_HELLO);
        let asked = i32::try_from(self.settings.timeout.as_millis()).unwrap_or(i32::MAX);
        let hello = Writer::default()
            .int(0)
            .long(self.session.zxid)
            .int(asked)
            .long(self.session.id)
            .bytes(&self.session.password)
            .flag(false);
        link.send(&hello.0);
        let answer = link.next().await?;
        let Some(told) = Hello::read(&answer) else {
            return Err(link.error("its first answer cannot be read; is it ZooKeeper's port?"));
        };
        if told.timeout <= 0 || told.session == 0 {
            return Ok(None);
        }
        link.max_message = self.settings.max_message;
        self.session.id = told.session;
        self.session.password = told.password.to_vec();
        self.session.timeout = Duration::from_millis(told.timeout.unsigned_abs().into());
        self.heard_at = Instant::now();
        if let Some(digest) = &self.settings.digest {
            let auth = Writer::default().int(0).text("digest").text(digest);
            link.request(XID_AUTH, AUTH, &auth.0);
            let answer = link.next().await?;
            match Reader(&answer).head() {
                Some(Head {
                    xid: XID_AUTH,
                    code: 0,
                    ..
                }) => {}
                Some(Head {
                    xid: XID_AUTH,
                    code,
                    ..
                }) => {
                    let (name, advice) = reason(code);
                    return Err(link.error(format!("auth was answered {name} ({code}){advice}")));
                }
                _ => return Err(link.error("its answer to auth cannot be read")),
            }
        }
        Ok(Some(link))
    }

    /// Answers requests until the connection breaks off, which is an error, or
    /// until nobody is there who could ask.
    async fn serve(
        &mut self,
        mut link: Link,
        connected: Connected,
        orders: &mut Orders,
    ) -> Result<(), Error> {
        let timeout = self.session.timeout;
        let mut asked = VecDeque::new();
        let mut xid = 0_i32;
        loop {
            while let Some(frame) = link.frame()? {
                self.take(&link, &frame, &mut asked)?;
            }
            // Two thirds of the session's time without a word, and there is
            // time for another server in the rest of it.
            let deaf = link.heard_at + timeout / 3 * 2;
            let ping = link.sent_at + timeout / 3;
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return link.close(timeout).await };
                    if order.epoch == connected.epoch {
                        xid = xid.checked_add(1).unwrap_or(1);
                        link.request(xid, order.op, &order.body);
                        asked.push_back(Asked { xid, op: order.op, answer: order.answer });
                    }
                }
                moved = link.move_bytes() => {
                    moved?;
                    self.heard_at = link.heard_at;
                }
                () = sleep_until(ping) => link.request(XID_PING, PING, &[]),
                () = sleep_until(deaf) => {
                    let reason = format!("nothing was heard for {:?}", timeout / 3 * 2);
                    return Err(link.error(reason));
                }
            }
        }
    }

    /// Takes an answer or an event.
    fn take(
        &mut self,
        link: &Link,
        frame: &Bytes,
        asked: &mut VecDeque<Asked>,
    ) -> Result<(), Error> {
        let mut read = Reader(frame);
        let Some(Head { xid, zxid, code }) = read.head() else {
            return Err(link.error("it sent less than an answer"));
        };
        self.session.zxid = self.session.zxid.max(zxid);
        match xid {
            XID_PING => {}
            XID_EVENT => {
                let Some(path) = read.event() else {
                    return Err(link.error("it sent an event that cannot be read"));
                };
                self.watchers.tell(path);
            }
            _ => {
                let Some(next) = asked.pop_front().filter(|next| next.xid == xid) else {
                    return Err(link.error("it answered what was not asked"));
                };
                let answer = match code {
                    0 => Ok(frame.slice(frame.len() - read.0.len()..)),
                    code => Err(Failure::refused(&link.origin, next.op, code)),
                };
                // Who asked may have stopped to wait.
                drop(next.answer.send(answer));
            }
        }
        Ok(())
    }
}

/// A request that was sent.
struct Asked {
    xid: i32,
    op: Op,
    answer: oneshot::Sender<Result<Bytes, Failure>>,
}

/// Lets go of what is asked meanwhile; over when nobody is there any more.
async fn gone(orders: &mut Orders) {
    while orders.recv().await.is_some() {}
}

/// A connection: frames in and out.
struct Link {
    reading: ReadHalf<Socket>,
    writing: WriteHalf<Socket>,
    origin: String,
    max_message: usize,
    input: BytesMut,
    output: BytesMut,
    /// Whether something was written that TLS may still hold.
    is_unflushed: bool,
    heard_at: Instant,
    sent_at: Instant,
}

impl Link {
    fn new(socket: Socket, origin: String, max_message: usize) -> Self {
        let (reading, writing) = tokio::io::split(socket);
        Self {
            reading,
            writing,
            origin,
            max_message,
            input: BytesMut::new(),
            output: BytesMut::new(),
            is_unflushed: false,
            heard_at: Instant::now(),
            sent_at: Instant::now(),
        }
    }

    fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::registry(&self.origin, reason)
    }

    fn send(&mut self, message: &[u8]) {
        let length = i32::try_from(message.len()).expect("no request has 2 GiB");
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
        self.sent_at = Instant::now();
    }

    fn request(&mut self, xid: i32, op: Op, body: &[u8]) {
        let mut message = Writer::default().int(xid).int(op.code);
        message.0.extend(body);
        self.send(&message.0);
    }

    /// Reads what is there and writes what can be. Dropped half done, nothing
    /// is lost.
    async fn move_bytes(&mut self) -> Result<(), Error> {
        self.input.reserve(1 << 14);
        let has_output = !self.output.is_empty();
        let (writing, output) = (&mut self.writing, &mut self.output);
        let write = async {
            if has_output {
                writing.write_buf(output).await.map(drop)
            } else {
                writing.flush().await
            }
        };
        let moved = tokio::select! {
            read = self.reading.read_buf(&mut self.input) => {
                self.heard_at = Instant::now();
                read.and_then(|n| match n {
                    0 => Err(io::Error::other("the server hung up")),
                    _ => Ok(()),
                })
            }
            written = write, if has_output || self.is_unflushed => {
                self.is_unflushed = has_output;
                written
            }
        };
        moved.map_err(|error| self.error(format!("the connection broke off: {error}")))
    }

    /// A whole message, if one has arrived.
    fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        message(&mut self.input, self.max_message).map_err(|why| match why {
            NoMessage::Nonsense => {
                self.error("what it sent is no message; is it ZooKeeper's port?")
            }
            NoMessage::TooLong(length) => self.error(format_args!(
                "it sends a message of {length} bytes; if this is ZooKeeper's port, \
                 `max_message` sets the bound"
            )),
        })
    }

    async fn next(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
            self.move_bytes().await?;
        }
    }

    /// Ends the session, and with it what it holds.
    async fn close(&mut self, within: Duration) -> Result<(), Error> {
        self.request(0, CLOSE, &[]);
        let closing = async {
            // The server hangs up when it has done so.
            while self.move_bytes().await.is_ok() {
                self.input.clear();
            }
        };
        // Whatever comes of it, the session ends with its time.
        drop(timeout(within, closing).await);
        Ok(())
    }
}
