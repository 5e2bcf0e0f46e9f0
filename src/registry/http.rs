//! HTTP to a registry's servers: JSON that is bounded in size and time, TLS,
//! and one to turn to when another fails.
//!
//! On hyper-util and not on reqwest: reqwest's `rustls-no-provider`, the way to
//! TLS without cmake, makes every `reqwest::Client::new()` of the program panic
//! where no provider is installed, and features add up over a whole build.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::difference::{Difference, Received};
use super::tls::Tls;
use super::transport::{causes, checked_urls, tcp};
use crate::error::{Error, excerpt};

/// The servers of one registry, the first preferred.
pub(super) struct Servers {
    system: &'static str,
    urls: Vec<String>,
    /// The one that answered last, as far as anybody knows.
    current: AtomicUsize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: HeaderMap,
    max_body: usize,
}

/// The most connections to a server that are kept while nobody uses them: a
/// watch has one of its own, and beats come one after the other.
const IDLE: usize = 3;

/// What a server said.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// By what is new in it against what it was to be [`like`](Ask::like).
    pub(super) body: Received,
    /// Which of the servers it was.
    pub(super) server: usize,
}

/// What is asked of a server.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// An answer that this one may be like; empty where there is none.
    pub(super) like: Arc<Vec<u8>>,
    /// For the whole of it, to the last byte of the answer.
    pub(super) within: Duration,
}

impl Servers {
    pub(super) fn new(
        system: &'static str,
        urls: &[String],
        headers: HeaderMap,
        tls: &Tls,
        max_body: usize,
    ) -> Result<Arc<Self>, Error> {
        let urls = checked_urls(urls)?;
        let secure = urls.iter().any(|url| url.starts_with("https:"));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config(secure)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(IDLE)
            .build(connector);
        Ok(Arc::new(Self {
            system,
            urls,
            current: AtomicUsize::new(0),
            client,
            headers,
            max_body,
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }

    /// The server to ask first.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Turns to the server after `failed`, unless somebody has done so already.
    pub(super) fn turn_from(&self, failed: usize) {
        let next = (failed + 1) % self.len();
        let relaxed = Ordering::Relaxed;
        // Another's turn is as good as ours: either outcome will do.
        let (Ok(_) | Err(_)) = self
            .current
            .compare_exchange(failed, next, relaxed, relaxed);
    }

    /// For messages: which registry, and where.
    pub(super) fn origin(&self, server: usize) -> String {
        format!("{} {}", self.system, self.urls[server])
    }

    /// Asks one server. An answer with any status is an answer.
    pub(super) async fn ask(&self, server: usize, ask: &Ask) -> Result<Reply, Error> {
        let what = || format!("{} {}", ask.method, without_query(&ask.path));
        let origin = || self.origin(server);
        match timeout(ask.within, self.exchange(server, ask)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(trouble)) => {
                let reason = format!("{} failed: {trouble}", what());
                Err(Error::registry_because(origin(), reason, trouble))
            }
            Err(_) => {
                let reason = format!("{} was not answered within {:?}", what(), ask.within);
                Err(Error::registry(origin(), reason))
            }
        }
    }

    /// Asks the server that answered last, and each of the others when it
    /// fails; a server that failed is in quarantine until the others have
    /// failed in their turn. The reply's status is one that `takes` takes.
    pub(super) async fn ask_any(
        &self,
        ask: &Ask,
        takes: impl Fn(StatusCode) -> bool,
    ) -> Result<Reply, Error> {
        let mut last = None;
        for _ in 0..self.len() {
            let server = self.current();
            let error = match self.ask(server, ask).await {
                Ok(reply) if takes(reply.status) => return Ok(reply),
                Ok(reply) => {
                    let error = self.refused(ask, &reply);
                    // Every server would refuse what is the caller's fault.
                    if reply.status.is_client_error()
                        && reply.status != StatusCode::TOO_MANY_REQUESTS
                    {
                        return Err(error);
                    }
                    error
                }
                Err(error) => error,
            };
            self.turn_from(server);
            last = Some(error);
        }
        Err(last.expect("there is a server"))
    }

    /// An answer with a status that is none of those it may have.
    pub(super) fn refused(&self, ask: &Ask, reply: &Reply) -> Error {
        let advice = match reply.status.as_u16() {
            401 | 403 => "; check that the token is right and may do this",
            429 => "; the server has too much to do",
            500 | 503 => "; it is tried again",
            404 => "; check that the URL is that of the registry's API",
            _ => "",
        };
        let path = without_query(&ask.path);
        let said = reply.excerpt();
        let reason = format!(
            "{} {path} was answered {}: {said}{advice}",
            ask.method, reply.status
        );
        Error::registry(self.origin(reply.server), reason)
    }

    /// Asks again when the connection was closed before it was answered, and at
    /// last on a new one: a server closes those that were idle just as they are
    /// used again, and whatever is asked here may be asked twice.
    async fn exchange(&self, server: usize, ask: &Ask) -> Result<Reply, Trouble> {
        for _ in 0..IDLE {
            match self.exchange_once(server, ask).await {
                Err(trouble) if was_cut(&*trouble.0) => {}
                other => return other,
            }
        }
        self.exchange_once(server, ask).await
    }

    async fn exchange_once(&self, server: usize, ask: &Ask) -> Result<Reply, Trouble> {
        let url = format!("{}{}", self.urls[server], ask.path);
        let mut request = http::Request::builder()
            .method(ask.method.clone())
            .uri(url)
            .body(Full::new(ask.body.clone()))
            .map_err(|error| Trouble(Box::new(error)))?;
        *request.headers_mut() = self.headers.clone();
        if !ask.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, json);
        }
        let answer = self.client.request(request).await;
        let (head, body) = answer
            .map_err(|error| Trouble(Box::new(error)))?
            .into_parts();
        let mut body = Limited::new(body, self.max_body);
        // Each frame is let go of, so that the connection's buffer is used again.
        let mut difference = Difference::from(Arc::clone(&ask.like));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let limit = format!("its answer has more than {} bytes", self.max_body);
                    return Trouble(limit.into());
                }
                Trouble(error)
            })?;
            if let Some(data) = frame.data_ref() {
                difference.push(data);
            }
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: difference.finish(),
            server,
        })
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the headers: a token is among them.
        f.debug_tuple(self.system).field(&self.urls).finish()
    }
}

impl Reply {
    /// What is new in the body as text for a message: short, and on one line.
    pub(super) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body.new[..self.body.new.len().min(400)]);
        let mut short = excerpt(text.trim(), 200);
        if short.is_empty() {
            short.push_str("(nothing)");
        }
        short
    }

    /// The value of a header, where it is one number.
    #[cfg_attr(not(feature = "consul"), expect(dead_code, reason = "Consul's"))]
    pub(super) fn number(&self, name: &HeaderName) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.trim().parse().ok()
    }
}

/// Why there was no answer: the whole chain of causes in one line.
#[derive(Debug)]
struct Trouble(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&causes(&*self.0))
    }
}

impl StdError for Trouble {}

/// Whether a connection ended without a word of an answer.
fn was_cut(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let hyper = error.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(|error| error.is_incomplete_message() || error.is_canceled()) {
            return true;
        }
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
        }) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path)
}

/// `text` as a part of a URL: every byte that is not unreserved (RFC 3986
/// section 2.3) is written `%XX`.
pub(super) fn encoded(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte.into());
        } else {
            write!(out, "%{byte:02X}").expect("a string can be written");
        }
    }
    out
}

/// An id as part of a path: without what paths are made of, which servers
/// clean up or refuse even where it is encoded.
pub(super) fn path_safe(id: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(id.len());
    for c in id.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@') {
            out.push(c);
        } else {
            write!(out, "%{:X}", u32::from(c)).expect("a string can be written");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_part_of_a_url() {
        assert_eq!(encoded("a b/ä?~"), "a%20b%2F%C3%A4%3F~");
    }
}
