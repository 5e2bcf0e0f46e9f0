//! The key of a call, from its request.
//!
//! Strategies such as [`RingHash`](crate::strategy::RingHash) keep calls of equal keys together. What a
//! call's key is, the request tells: a [`RequestKey`] names the places to look at, in order, as Envoy's
//! `hash_policy` does.
//!
//! ```
//! use waypost::client::http::RequestKey;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! // The user if there is one, else the session, else who calls.
//! let key = RequestKey::header("x-user")?.terminal()
//!     .and(RequestKey::cookie("session")?.terminal())
//!     .and(RequestKey::source());
//!
//! let request = http::Request::get("http://carts/").header("x-user", "42").body(()).unwrap();
//! assert_eq!(key.hash(&request), Some(waypost::hash::key_hash(b"42")));
//! # Ok(()) }
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Uri};

use crate::error::Error;
use crate::hash::key_hash;

/// Where the key of a call is found in its request.
///
/// One source or several, asked in order. The hashes of all that have a key are combined, so that
/// calls are kept together which agree in all of them; after a source that is
/// [`terminal`](Self::terminal) no other is asked once there is a key. A key that is empty is none: an
/// empty header would send all who have it to one endpoint.
///
/// A request without any key is picked for without one; see
/// [`MissingKey`](crate::strategy::MissingKey).
///
/// Keys are hashed as bytes by [`key_hash`], which never changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestKey {
    sources: Arc<[(Source, Terminal)]>,
}

#[derive(Clone, Debug)]
enum Source {
    Header(HeaderName),
    Cookie(Arc<str>),
    Query(Arc<str>),
    Path,
    Address,
    Function(Function),
}

type Terminal = bool;

#[derive(Clone)]
struct Function(Arc<HashFn>);

type HashFn = dyn Fn(&RequestHead<'_>) -> Option<u64> + Send + Sync;

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The address of whom a request comes from, put into its extensions by who knows it, for
/// [`RequestKey::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAddr(pub IpAddr);

/// A request without its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The URI, as the caller wrote it.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The extensions; with reqwest, those of the middleware.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    pub(super) fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl RequestKey {
    /// The value of a header; of one that comes several times, all values, joined by commas.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when no header can have that name.
    pub fn header(name: &str) -> Result<Self, Error> {
        let reason = "a header's name is letters, digits and hyphens, such as `x-user-id`";
        let name = HeaderName::try_from(name)
            .map_err(|_| Error::invalid("header", name.escape_debug(), reason))?;
        Ok(Self::of(Source::Header(name)))
    }

    /// The value of a cookie, without the quotes around it; of several of that name, the first.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when no cookie can have that name.
    pub fn cookie(name: &str) -> Result<Self, Error> {
        // RFC 6265, 4.1.1: a token, as a header's name is.
        if HeaderName::try_from(name).is_err() {
            let reason = "a cookie's name is letters, digits and hyphens, such as `session`";
            return Err(Error::invalid("cookie", name.escape_debug(), reason));
        }
        Ok(Self::of(Source::Cookie(name.into())))
    }

    /// The value of a query parameter, of several of that name the first. Both are taken as they are
    /// written in the URI: `%61` and `a` differ.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the name is empty, or has a character that ends it in a query.
    pub fn query(name: &str) -> Result<Self, Error> {
        let ends = |c: char| "&=#".contains(c) || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.contains(ends) {
            let reason = "give the parameter's name as it is written in the URI, such as `user`, \
                          without `=`, `&`, `#` and blanks";
            return Err(Error::invalid("query", name.escape_debug(), reason));
        }
        Ok(Self::of(Source::Query(name.into())))
    }

    /// The path, without the query.
    #[must_use]
    pub fn path() -> Self {
        Self::of(Source::Path)
    }

    /// The address of whom the request comes from, without the port: the [`SourceAddr`], else the
    /// [`SocketAddr`], in the request's extensions. For a proxy that is its peer's; a client of its
    /// own can put its own address there, so that each process keeps to one endpoint.
    #[must_use]
    pub fn source() -> Self {
        Self::of(Source::Address)
    }

    /// The hash that a function gives, best by [`key_hash`]; it must depend on the request alone.
    ///
    /// ```
    /// use waypost::client::http::RequestKey;
    /// use waypost::hash::key_hash;
    ///
    /// // `/tenants/7/orders` goes by the tenant.
    /// let tenant = RequestKey::from_fn(|head| {
    ///     let tenant = head.uri.path().strip_prefix("/tenants/")?.split('/').next()?;
    ///     Some(key_hash(tenant.as_bytes()))
    /// });
    /// # let request = http::Request::get("http://a/tenants/7/orders").body(()).unwrap();
    /// # assert_eq!(tenant.hash(&request), Some(key_hash(b"7")));
    /// ```
    #[must_use]
    pub fn from_fn(hash: impl Fn(&RequestHead<'_>) -> Option<u64> + Send + Sync + 'static) -> Self {
        Self::of(Source::Function(Function(Arc::new(hash))))
    }

    /// No source after these is asked if there is a key by now.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        let mut sources = self.sources.to_vec();
        if let Some((_, terminal)) = sources.last_mut() {
            *terminal = true;
        }
        self.sources = sources.into();
        self
    }

    /// These sources, and then those.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "keys are put together from parts, as `a.and(b)`"
    )]
    pub fn and(self, then: Self) -> Self {
        let sources = self.sources.iter().chain(&*then.sources).cloned();
        Self {
            sources: sources.collect(),
        }
    }

    fn of(source: Source) -> Self {
        Self {
            sources: Arc::from([(source, false)]),
        }
    }

    /// The hash of a request's key; none if it has no key. Takes time in the length of what is
    /// looked at.
    #[must_use]
    pub fn hash<B>(&self, request: &Request<B>) -> Option<u64> {
        self.hash_of(&RequestHead::of(request))
    }

    pub(in crate::client) fn hash_of(&self, head: &RequestHead<'_>) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for (source, terminal) in &*self.sources {
            if let Some(next) = source.hash(head) {
                // Rotated as Envoy does: equal keys of two sources do not cancel out.
                hash = Some(hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
            }
            if *terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

impl Source {
    fn hash(&self, head: &RequestHead<'_>) -> Option<u64> {
        match self {
            Self::Header(name) => header(head.headers, name),
            Self::Cookie(name) => cookie(head.headers, name).and_then(unless_empty),
            Self::Query(name) => query(head.uri, name).and_then(unless_empty),
            Self::Path => unless_empty(head.uri.path().as_bytes()),
            Self::Address => address(head.extensions),
            Self::Function(function) => (function.0)(head),
        }
    }
}

fn unless_empty(key: &[u8]) -> Option<u64> {
    (!key.is_empty()).then(|| key_hash(key))
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    match values.next() {
        None => unless_empty(first),
        Some(second) => {
            let values = [first, second.as_bytes()].into_iter();
            let more = headers
                .get_all(name)
                .iter()
                .skip(2)
                .map(HeaderValue::as_bytes);
            let all: Vec<&[u8]> = values.chain(more).collect();
            unless_empty(&all.join(&b','))
        }
    }
}

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let value = pairs.find_map(|pair| value_of(pair.trim_ascii(), name))?;
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a [u8]> {
    let mut pairs = uri.query()?.split('&');
    pairs.find_map(|pair| value_of(pair.as_bytes(), name))
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn address(extensions: &Extensions) -> Option<u64> {
    let given = extensions.get().map(|&SourceAddr(address)| address);
    let address = given.or_else(|| extensions.get().map(SocketAddr::ip))?;
    // The same peer may come as either.
    Some(match address.to_canonical() {
        IpAddr::V4(address) => key_hash(&address.octets()),
        IpAddr::V6(address) => key_hash(&address.octets()),
    })
}
