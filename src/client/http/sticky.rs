//! Sessions that keep to their endpoint by name.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, SET_COOKIE};

use super::key::cookie;
use crate::endpoint::EndpointId;
use crate::error::Error;
use crate::load::base64;

/// Names a call's endpoint in its answer, and sends the calls there that name it again: Envoy's
/// stateful sessions, gRPC's A55.
///
/// While the endpoint is up, or draining, it gets the session's calls, whatever the strategy would
/// say. One that has left, is ejected or fails its checks does not: the call goes where any call goes, and its answer
/// names the new one.
///
/// Beside consistent hashing ([`RequestKey`](super::RequestKey)), which needs nothing in the
/// answer: this keeps a session where it is also when endpoints are added, at the price of shares
/// that follow the sessions and not the weights. The name is the endpoint's id in base64, which is no secret: whoever can
/// send it can choose an endpoint.
///
/// ```
/// use std::time::Duration;
/// use waypost::client::http::{BalanceLayer, Sticky};
/// use waypost::{Balancer, Fixed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost::Error> {
/// let carts = Balancer::builder("carts").build(Fixed::addresses(["10.0.0.1:80"])?).await?;
/// let session = Sticky::cookie("cart-server")?.path("/")?.lasts(Duration::from_hours(1));
/// let layer = BalanceLayer::new(carts).sticky(session);
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Header(HeaderName),
    Cookie {
        name: Arc<str>,
        path: Option<Arc<str>>,
        lasts: Option<Duration>,
    },
}

/// As many endpoints as a header may name: one for each attempt.
const MOST: usize = 16;

impl Sticky {
    /// By a cookie, which the answer sets for the session and whoever keeps cookies sends again.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when no cookie can have that name.
    pub fn cookie(name: &str) -> Result<Self, Error> {
        if HeaderName::try_from(name).is_err() {
            let reason = "a cookie's name is letters, digits and hyphens, such as `server`";
            return Err(Error::invalid("sticky.cookie", name.escape_debug(), reason));
        }
        Ok(Self(Place::Cookie {
            name: name.into(),
            path: None,
            lasts: None,
        }))
    }

    /// By a header of that name, in the answer and in the requests that follow; these may name
    /// several, between commas, for the attempts in their order.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when no header can have that name.
    pub fn header(name: &str) -> Result<Self, Error> {
        let reason = "a header's name is letters, digits and hyphens, such as `x-server`";
        let header = HeaderName::try_from(name)
            .map_err(|_| Error::invalid("sticky.header", name.escape_debug(), reason))?;
        Ok(Self(Place::Header(header)))
    }

    /// Of a cookie: the paths that it is for. Without, it is for those below the request's own.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it does not begin with `/`, or cannot be in a cookie.
    pub fn path(mut self, path: &str) -> Result<Self, Error> {
        let fits = |byte: u8| (b' '..0x7F).contains(&byte) && byte != b';';
        if !path.starts_with('/') || !path.bytes().all(fits) {
            let reason = "it is no path that begins with `/`, without `;`";
            return Err(Error::invalid("sticky.path", path.escape_debug(), reason));
        }
        if let Place::Cookie {
            path: of_cookie, ..
        } = &mut self.0
        {
            *of_cookie = Some(path.into());
        }
        Ok(self)
    }

    /// Of a cookie: how long it is kept, in whole seconds. Without, as long as its keeper's session.
    #[must_use]
    pub fn lasts(mut self, time: Duration) -> Self {
        if let Place::Cookie { lasts, .. } = &mut self.0 {
            *lasts = Some(time);
        }
        self
    }

    /// The endpoints that a request names; none where it names nothing that could be one.
    pub(in crate::client) fn named(&self, headers: &HeaderMap) -> Box<[EndpointId]> {
        let text = match &self.0 {
            Place::Header(name) => headers.get(name).and_then(|value| value.to_str().ok()),
            Place::Cookie { name, .. } => {
                cookie(headers, name).and_then(|value| str::from_utf8(value).ok())
            }
        };
        let names = text.into_iter().flat_map(|text| text.split(','));
        let ids = names.take(MOST).filter_map(|name| {
            let bytes = base64::decode(name.trim())?;
            EndpointId::new(String::from_utf8(bytes).ok()?).ok()
        });
        ids.collect()
    }

    /// Names the endpoint in an answer, unless the request named it first.
    pub(in crate::client) fn name(
        &self,
        id: &EndpointId,
        named: Option<&EndpointId>,
        headers: &mut HeaderMap,
    ) {
        if named == Some(id) {
            return;
        }
        let mut text = base64::encode(id.as_str().as_bytes());
        let header = match &self.0 {
            Place::Header(name) => name.clone(),
            Place::Cookie { name, path, lasts } => {
                text = format!("{name}={text}; HttpOnly");
                if let Some(path) = path {
                    text.extend(["; Path=", path]);
                }
                if let Some(lasts) = lasts {
                    let _ = write!(text, "; Max-Age={}", lasts.as_secs());
                }
                SET_COOKIE
            }
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(header, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn what_an_answer_names_a_request_names_again() {
        let id = EndpointId::new("10.0.0.1:80/ü").unwrap();
        let mut answer = HeaderMap::new();
        let by_header = Sticky::header("x-server").unwrap();
        by_header.name(&id, None, &mut answer);
        let name = answer["x-server"].to_str().unwrap();
        assert_eq!(
            by_header.named(&headers("x-server", name)).first(),
            Some(&id)
        );
        let two = format!("{name}, nonsense!, {name}");
        let named = by_header.named(&headers("x-server", &two));
        assert_eq!(*named, [id.clone(), id.clone()]);

        let cookie = Sticky::cookie("server").unwrap().path("/carts").unwrap();
        let cookie = cookie.lasts(Duration::from_mins(1));
        let mut answer = HeaderMap::new();
        cookie.name(&id, None, &mut answer);
        let made = answer["set-cookie"].to_str().unwrap();
        let (pair, attributes) = made.split_once(';').unwrap();
        assert_eq!(attributes, " HttpOnly; Path=/carts; Max-Age=60");
        let sent = format!("a=b; {pair}");
        assert_eq!(cookie.named(&headers("cookie", &sent)).first(), Some(&id));

        let mut silent = HeaderMap::new();
        cookie.name(&id, Some(&id), &mut silent);
        assert!(silent.is_empty(), "it is known already");
    }

    #[test]
    fn what_can_be_no_name_or_path_is_refused_and_what_is_no_id_is_passed_over() {
        assert!(Sticky::cookie("a=b").unwrap_err().is_invalid());
        assert!(Sticky::header("a b").unwrap_err().is_invalid());
        for path in ["", "carts", "/a;b", "/a\nb"] {
            assert!(Sticky::cookie("a").unwrap().path(path).is_err(), "{path:?}");
        }
        let header = Sticky::header("x-server").unwrap();
        for value in ["", "%", "====", "AAAA", ",,,"] {
            assert!(
                header.named(&headers("x-server", value)).is_empty(),
                "{value:?}"
            );
        }
    }
}
