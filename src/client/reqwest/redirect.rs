//! Where a redirect leads, as a request.

use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName,
    LOCATION, PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use reqwest::{Request, Response, Url};

/// What is told to nobody but the host that it was meant for.
const OF_THE_HOST: [HeaderName; 4] = [AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION];

/// What is said of a body.
const OF_THE_BODY: [HeaderName; 4] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
];

/// The most of a redirect's own body that is read, so that its connection can be
/// used again.
const DRAINED: u64 = 64 * 1_024;

/// For how long: another connection would hardly take longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// A request that may be redirected.
pub(super) struct Redirectable {
    request: Request,
    /// Its body is in it.
    is_whole: bool,
}

impl Redirectable {
    pub(super) fn new(request: &Request) -> Self {
        if let Some(request) = request.try_clone() {
            return Self {
                request,
                is_whole: true,
            };
        }
        let mut head = Request::new(request.method().clone(), request.url().clone());
        *head.headers_mut() = request.headers().clone();
        *head.timeout_mut() = request.timeout().copied();
        Self {
            request: head,
            is_whole: false,
        }
    }

    /// The request that an answer asks for; none when it asks for none, or for
    /// one that cannot be made.
    pub(super) fn follow(self, answer: &Response) -> Option<Request> {
        let mut request = self.request;
        let (status, url) = (answer.status(), request.url());
        let becomes_get = match status {
            StatusCode::SEE_OTHER => *request.method() != Method::HEAD,
            // As all clients have it, though only 303 says so (RFC 9110, 15.4).
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *request.method() == Method::POST,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let location = answer.headers().get(LOCATION)?.to_str().ok()?;
        let next = url.join(location).ok()?;
        // Never from a connection that nobody reads to one that anybody may.
        let is_http = next.scheme() == "http" && url.scheme() == "http";
        if !(is_http || next.scheme() == "https") || !(becomes_get || self.is_whole) {
            return None;
        }
        if becomes_get {
            *request.method_mut() = Method::GET;
            *request.body_mut() = None;
            remove(&mut request, &OF_THE_BODY);
        }
        if origin(&next) != origin(request.url()) {
            remove(&mut request, &OF_THE_HOST);
        }
        *request.url_mut() = next;
        Some(request)
    }
}

fn remove(request: &mut Request, headers: &[HeaderName]) {
    for header in headers {
        request.headers_mut().remove(header);
    }
}

fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

/// Ends an answer that nobody reads: at its end where that is near.
pub(super) async fn finish(mut answer: Response) {
    let is_short = answer
        .content_length()
        .is_some_and(|bytes| bytes <= DRAINED);
    if is_short {
        let draining = async { while let Ok(Some(_)) = answer.chunk().await {} };
        // The answer is done with either way.
        let _in_time = tokio::time::timeout(PATIENCE, draining).await;
    }
}
