//! Calls to the members of a cluster: one channel each, one to turn to when
//! another fails, the token of a user, and errors that say what and where.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::connect::Connector;
use super::wire::{AuthenticateRequest, AuthenticateResponse};
use crate::error::{Error, excerpt};
use crate::registry::tls::Tls;
use crate::registry::transport::{causes, checked_urls};

/// The members of one cluster, the first preferred.
pub(super) struct Servers {
    members: Vec<Member>,
    connector: Connector,
    /// The one that answered last, as far as anybody knows.
    current: AtomicUsize,
    user: Option<User>,
    /// Whether members may miss a certificate of ours.
    is_anonymous: bool,
    /// For each call, to its answer.
    within: Duration,
    max_message: usize,
}

struct Member {
    url: String,
    open: Mutex<Open>,
}

/// A channel, and a task that ends with the runtime that serves it.
struct Open {
    channel: Channel,
    runtime: AbortHandle,
}

impl Open {
    fn new(connector: &Connector, url: &str) -> Result<Self, Error> {
        Ok(Self {
            channel: connector.channel(url)?,
            runtime: tokio::spawn(std::future::pending::<()>()).abort_handle(),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.runtime.abort();
    }
}

/// Who asks, where etcd's authentication is on.
#[derive(Clone)]
pub(super) struct User {
    name: String,
    password: String,
    /// What etcd gave for the password.
    token: Arc<Mutex<Option<AsciiMetadataValue>>>,
    /// Of many that need a token one asks: a password costs etcd some 100 ms.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A call of etcd's API.
#[derive(Clone, Copy)]
pub(super) struct Method {
    path: &'static str,
    /// Whether a member that has lost its leader shall say so at once.
    needs_leader: bool,
}

pub(super) const RANGE: Method = method("/etcdserverpb.KV/Range", false);
pub(super) const PUT: Method = method("/etcdserverpb.KV/Put", false);
pub(super) const GRANT: Method = method("/etcdserverpb.Lease/LeaseGrant", false);
pub(super) const REVOKE: Method = method("/etcdserverpb.Lease/LeaseRevoke", false);
pub(super) const KEEP_ALIVE: Method = method("/etcdserverpb.Lease/LeaseKeepAlive", true);
pub(super) const WATCH: Method = method("/etcdserverpb.Watch/Watch", true);
const AUTHENTICATE: Method = method("/etcdserverpb.Auth/Authenticate", false);

/// Where etcd looks for a user's token.
const TOKEN: &str = "token";

const fn method(path: &'static str, needs_leader: bool) -> Method {
    Method { path, needs_leader }
}

/// What came back in place of an answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) error: Error,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Servers {
    pub(super) fn new(
        urls: &[String],
        tls: &Tls,
        user: Option<User>,
        within: Duration,
        max_message: usize,
    ) -> Result<Self, Error> {
        let urls = checked_urls(urls)?;
        let secure = urls.iter().any(|url| url.starts_with("https:"));
        let connector = Connector::new(tls, secure)?;
        let members = urls.into_iter().map(|url| {
            let open = Mutex::new(Open::new(&connector, &url)?);
            Ok(Member { url, open })
        });
        let members: Vec<Member> = members.collect::<Result<_, Error>>()?;
        // All of them in turn shall fit into what a registration waits for one
        // call.
        let each = Duration::from_secs(9) / members.len() as u32;
        Ok(Self {
            members,
            connector,
            current: AtomicUsize::new(0),
            user,
            is_anonymous: secure && tls.identity.is_none(),
            within: within.min(each),
            max_message,
        })
    }

    /// The member to ask first.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Turns to the member after `failed`, unless somebody has done so already.
    pub(super) fn turn_from(&self, failed: usize) {
        let next = (failed + 1) % self.members.len();
        let relaxed = Ordering::Relaxed;
        // Another's turn is as good as ours: either outcome will do.
        let (Ok(_) | Err(_)) = self
            .current
            .compare_exchange(failed, next, relaxed, relaxed);
    }

    /// For messages: which registry, and where.
    pub(super) fn origin(&self, member: usize) -> String {
        format!("etcd {}", self.members[member].url)
    }

    /// Asks the member that answered last, and each of the others when it
    /// fails.
    pub(super) async fn ask<Q, A>(&self, method: Method, question: &Q) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut last = None;
        for _ in 0..self.members.len() {
            let member = self.current();
            match self.ask_member(member, method, question).await {
                Err(failure) if is_the_members_fault(failure.code) => {
                    self.turn_from(member);
                    last = Some(failure);
                }
                answer => return answer,
            }
        }
        Err(last.expect("there is a member"))
    }

    async fn ask_member<Q, A>(
        &self,
        member: usize,
        method: Method,
        question: &Q,
    ) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut is_new = false;
        loop {
            let request = self.request(member, method, question, &mut is_new).await?;
            let token = request.metadata().get(TOKEN).cloned();
            let call = async {
                let mut grpc = self.grpc(member).await?;
                let path = PathAndQuery::from_static(method.path);
                grpc.unary(request, path, ProstCodec::default()).await
            };
            match self.in_time(member, method, call).await {
                Err(failure) if !is_new && self.drops_token(&failure, token.as_ref()) => {}
                answer => return answer.map(Response::into_inner),
            }
        }
    }

    /// Sends one message and reads what comes, from the current member, which
    /// is told, too. The side that sends stays open while `open` says so.
    pub(super) async fn stream<Q, A>(
        &self,
        method: Method,
        question: &Q,
        open: bool,
    ) -> Result<(usize, Streaming<A>), Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let member = self.current();
        let answer = self.stream_of(member, method, question, open).await;
        if let Err(failure) = &answer
            && is_the_members_fault(failure.code)
        {
            self.turn_from(member);
        }
        Ok((member, answer?))
    }

    async fn stream_of<Q, A>(
        &self,
        member: usize,
        method: Method,
        question: &Q,
        open: bool,
    ) -> Result<Streaming<A>, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut is_new = false;
        loop {
            let request = self.request(member, method, question, &mut is_new).await?;
            let token = request.metadata().get(TOKEN).cloned();
            let call = async {
                let mut grpc = self.grpc(member).await?;
                let path = PathAndQuery::from_static(method.path);
                let request = request.map(|one| {
                    let rest = if open {
                        stream::pending().left_stream()
                    } else {
                        stream::empty().right_stream()
                    };
                    stream::iter([one]).chain(rest)
                });
                grpc.streaming(request, path, ProstCodec::default()).await
            };
            match self.in_time(member, method, call).await {
                Err(failure) if !is_new && self.drops_token(&failure, token.as_ref()) => {}
                answer => return answer.map(Response::into_inner),
            }
        }
    }

    /// A request with what etcd wants to know of who asks; `is_new` when the
    /// token in it is.
    async fn request<Q: Clone>(
        &self,
        member: usize,
        method: Method,
        question: &Q,
        is_new: &mut bool,
    ) -> Result<Request<Q>, Failure> {
        let mut request = Request::new(question.clone());
        let metadata = request.metadata_mut();
        if method.needs_leader {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(user) = &self.user {
            if user.token().is_none() {
                *is_new = self.log_in(member, user).await?;
            }
            if let Some(token) = user.token() {
                metadata.insert(TOKEN, token);
            }
        }
        Ok(request)
    }

    /// Whether the call failed since its token is not taken any more, which is
    /// dropped then, so that the next request gets a new one; or takes the one
    /// that another has got meanwhile.
    fn drops_token(&self, failure: &Failure, sent: Option<&AsciiMetadataValue>) -> bool {
        match &self.user {
            Some(user) if failure.is_old_token() => {
                let mut token = user.lock();
                if token.as_ref() == sent {
                    *token = None;
                }
                true
            }
            _ => false,
        }
    }

    /// Gets a token, unless another did meanwhile: whether it is new.
    async fn log_in(&self, member: usize, user: &User) -> Result<bool, Failure> {
        let question = AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.clone(),
        };
        let turn = self.in_time(member, AUTHENTICATE, async { Ok(user.turn.lock().await) });
        let _turn = turn.await?;
        if user.token().is_some() {
            return Ok(false);
        }
        let call = async {
            let mut grpc = self.grpc(member).await?;
            let path = PathAndQuery::from_static(AUTHENTICATE.path);
            let codec = ProstCodec::<_, AuthenticateResponse>::default();
            grpc.unary(Request::new(question), path, codec).await
        };
        let answer = match self.in_time(member, AUTHENTICATE, call).await {
            Ok(answer) => answer.into_inner(),
            // A cluster without authentication takes everybody.
            Err(failure) if failure.code == Code::FailedPrecondition => return Ok(true),
            Err(failure) => return Err(failure),
        };
        let mut token: AsciiMetadataValue = answer.token.parse().map_err(|_| Failure {
            code: Code::Internal,
            error: Error::registry(self.origin(member), "its token cannot be sent in a header"),
        })?;
        token.set_sensitive(true);
        *user.lock() = Some(token);
        Ok(true)
    }

    /// The channel to a member; another one when the runtime of the one before
    /// has ended, which would never answer again.
    fn channel(&self, member: usize) -> Result<Channel, Error> {
        let Member { url, open } = &self.members[member];
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.runtime.is_finished() {
            *open = Open::new(&self.connector, url)?;
        }
        Ok(open.channel.clone())
    }

    async fn grpc(&self, member: usize) -> Result<Grpc<Channel>, Status> {
        let channel = self.channel(member);
        let channel = channel.map_err(|error| Status::from_error(error.into()))?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(self.max_message);
        match grpc.ready().await {
            Ok(()) => Ok(grpc),
            Err(error) => Err(Status::from_error(error.into())),
        }
    }

    /// An answer within the time for one, or why there is none.
    pub(super) async fn in_time<A>(
        &self,
        member: usize,
        method: Method,
        call: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Failure> {
        match timeout(self.within, call).await {
            Ok(answer) => answer.map_err(|status| self.failure(member, method, &status)),
            Err(_) => {
                let reason = format!(
                    "{} was not answered within {:?}",
                    method.name(),
                    self.within
                );
                Err(Failure {
                    code: Code::DeadlineExceeded,
                    error: Error::registry(self.origin(member), reason),
                })
            }
        }
    }

    pub(super) fn failure(&self, member: usize, method: Method, status: &Status) -> Failure {
        let code = status.code();
        let message = excerpt(status.message(), 300);
        let advice = match code {
            Code::Unauthenticated | Code::PermissionDenied => {
                "; check the user, its password and its roles"
            }
            Code::InvalidArgument if message.contains("user name is empty") => {
                "; authentication is on: give a user and a password"
            }
            Code::InvalidArgument if message.contains("authentication failed") => {
                "; check the user and the password"
            }
            Code::Unimplemented => "; check that this is the client port of etcd 3.4 or later",
            Code::OutOfRange => "; `max_message` sets how much is read of one answer",
            _ => "",
        };
        let name = method.name();
        let reason = match std::error::Error::source(status) {
            // What tonic calls "transport error"; the causes say more.
            Some(cause) => {
                // A server may hang up without saying so.
                let advice = if self.is_anonymous {
                    "; if it asks clients for a certificate, give one"
                } else {
                    advice
                };
                format!("{name} failed: {}{advice}", excerpt(&causes(cause), 300))
            }
            None => format!("{name} was answered `{message}` ({code:?}){advice}"),
        };
        let error = Error::registry(self.origin(member), reason);
        Failure { code, error }
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the user: a password is with it.
        let urls: Vec<&str> = self.members.iter().map(|it| it.url.as_str()).collect();
        f.debug_tuple("etcd").field(&urls).finish()
    }
}

impl Method {
    fn name(self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

impl User {
    pub(super) fn new(name: String, password: String) -> Self {
        Self {
            name,
            password,
            token: Arc::default(),
            turn: Arc::default(),
        }
    }

    fn token(&self) -> Option<AsciiMetadataValue> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<AsciiMetadataValue>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    /// Tokens end with the member that gave them, after five minutes without
    /// use, and whenever users or roles change.
    fn is_old_token(&self) -> bool {
        let text = self.error.to_string();
        self.code == Code::Unauthenticated
            || text.contains("invalid auth token")
            || text.contains("revision of auth store is old")
    }
}

/// Whether another member may well answer what this one did not. What the
/// caller did wrong, every member refuses.
fn is_the_members_fault(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
    )
}
