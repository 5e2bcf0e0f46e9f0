//! HTTP to a registry's servers: JSON that is bounded in size and time, TLS,
//! and one to turn to when another fails.
//!
//! On hyper-util and not on reqwest: reqwest's `rustls-no-provider`, the way to
//! TLS without cmake, makes every `reqwest::Client::new()` of the program panic
//! where no provider is installed, and features add up over a whole build.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::error::Error;

/// The servers of one registry, the first preferred.
pub(super) struct Servers {
    system: &'static str,
    bases: Vec<Base>,
    /// The one that answered last, as far as anybody knows.
    current: AtomicUsize,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    headers: HeaderMap,
    max_body: usize,
}

/// Where one server is: scheme, authority, and a path before every other.
#[derive(Clone)]
struct Base {
    url: String,
}

/// What a server said.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Which of the servers it was.
    pub(super) server: usize,
}

/// What is asked of a server.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// For the whole of it, to the last byte of the answer.
    pub(super) within: Duration,
}

/// What TLS needs, as PEM.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Authorities to trust in place of the machine's own.
    pub(super) authorities: Option<Vec<u8>>,
    /// This client's certificate chain, and its key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Servers {
    pub(super) fn new(
        system: &'static str,
        urls: &[String],
        headers: HeaderMap,
        tls: &Tls,
        max_body: usize,
    ) -> Result<Arc<Self>, Error> {
        let bases = urls.iter().map(|url| Base::new(url));
        let bases: Vec<Base> = bases.collect::<Result<_, _>>()?;
        let secure = bases.iter().any(|base| base.url.starts_with("https:"));
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        // A host that vanished is noticed in the middle of a long wait: after
        // 15 s of silence it is asked three times, every 5 s.
        connector.set_keepalive(Some(Duration::from_secs(15)));
        connector.set_keepalive_interval(Some(Duration::from_secs(5)));
        connector.set_keepalive_retries(Some(3));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config(secure)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Arc::new(Self {
            system,
            bases,
            current: AtomicUsize::new(0),
            client,
            headers,
            max_body,
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.bases.len()
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
        format!("{} {}", self.system, self.bases[server].url)
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

    async fn exchange(&self, server: usize, ask: &Ask) -> Result<Reply, Trouble> {
        let url = format!("{}{}", self.bases[server].url, ask.path);
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
        let body = Limited::new(body, self.max_body).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let limit = format!("its answer has more than {} bytes", self.max_body);
                return Trouble(limit.into());
            }
            Trouble(error)
        })?;
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            server,
        })
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the headers: a token is among them.
        let urls: Vec<&str> = self.bases.iter().map(|base| base.url.as_str()).collect();
        f.debug_tuple(self.system).field(&urls).finish()
    }
}

impl Reply {
    /// The body as text for a message: short, and on one line.
    pub(super) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        let mut short: String = text
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(200)
            .collect();
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

impl Base {
    fn new(url: &str) -> Result<Self, Error> {
        // A URL may hold a password; what is refused is not repeated then.
        let refused = |reason: &str| {
            let shown = if url.contains('@') { "(hidden)" } else { url };
            Err(Error::invalid("url", shown, reason))
        };
        let Ok(uri) = url.parse::<Uri>() else {
            return refused("it is no URL; write `http://host:port`");
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return refused("it must begin with `http://` or `https://`");
        }
        if uri.host().is_none_or(str::is_empty) {
            return refused("it has no host; write `http://host:port`");
        }
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return refused("a user or password in it would end up in logs; give a token instead");
        }
        if uri.query().is_some() {
            return refused("it has a query; give the parts of it as settings");
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
        })
    }
}

impl Tls {
    fn config(&self, secure: bool) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid("tls", "", error))?
            .with_root_certificates(self.roots(secure)?);
        let Some((chain, key)) = &self.identity else {
            return Ok(config.with_no_client_auth());
        };
        let field = "client_certificate";
        let chain = certificates(field, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            Error::invalid(field, "(key)", format!("it is no PEM key: {error}"))
        })?;
        config
            .with_client_auth_cert(chain, key)
            .map_err(|error| Error::invalid(field, "(key)", error))
    }

    fn roots(&self, secure: bool) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                let field = "ca_certificate";
                for certificate in certificates(field, pem)? {
                    roots
                        .add(certificate)
                        .map_err(|error| Error::invalid(field, "(PEM)", error))?;
                }
            }
            // Reading the machine's store takes milliseconds: only where asked.
            None if secure => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
            None => {}
        }
        Ok(roots)
    }
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::invalid(field, "(PEM)", "it holds no certificate")),
        Err(error) => Err(Error::invalid(field, "(PEM)", error)),
    }
}

/// Why there was no answer: the whole chain of causes in one line.
#[derive(Debug)]
struct Trouble(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Trouble {}

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
    fn a_bad_url_is_refused_with_the_reason_and_without_its_password() {
        for (bad, why) in [
            ("127.0.0.1:8500", "http://"),
            ("ftp://a", "http://"),
            ("http://", "URL"),
            ("http://a?b=c", "query"),
            ("http://me:secret@a:80", "password"),
        ] {
            let error = Base::new(bad).err().unwrap();
            assert!(error.is_invalid());
            let text = error.to_string();
            assert!(text.contains(why) && !text.contains("secret"), "{text}");
        }
        assert_eq!(
            Base::new("http://a:1/consul/").ok().unwrap().url,
            "http://a:1/consul"
        );
    }

    #[test]
    fn text_becomes_part_of_a_url() {
        assert_eq!(encoded("a b/ä?~"), "a%20b%2F%C3%A4%3F~");
    }
}
