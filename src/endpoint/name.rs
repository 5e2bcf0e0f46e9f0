//! Names: of services, and of their endpoints.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, excerpt};

/// The name a service is registered and called under.
///
/// 1 to 253 ASCII letters, digits, `-`, `_` and `.`, beginning and ending with
/// a letter or digit: what fits the host of a URL, a DNS name and the key of
/// every registry. Names are compared as they are written; a URL parser lowers
/// the case of a host, so lower-case names serve best.
///
/// ```
/// use waypost::ServiceName;
///
/// let users: ServiceName = "users".parse()?;
/// assert_eq!(users.as_str(), "users");
/// assert!("users/v1".parse::<ServiceName>().is_err());
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The longest name: that of a DNS host.
    pub const MAX_LEN: usize = 253;

    /// Checks and wraps a name.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the reason.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        let refused = |reason: &str| Err(Error::invalid("service name", name, reason));
        let edge_ok = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return refused("it is empty; name the service");
        }
        if bytes.len() > Self::MAX_LEN {
            return refused("it is longer than 253 characters");
        }
        if !edge_ok(bytes.first()) || !edge_ok(bytes.last()) {
            return refused("it must begin and end with an ASCII letter or digit");
        }
        if let Some(odd) = name
            .chars()
            .find(|&c| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        {
            return refused(&format!(
                "`{}` is not an ASCII letter, digit, `-`, `_` or `.`",
                odd.escape_default()
            ));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

/// What a replica is known by: stable across weight, metadata and status
/// changes, and unique within its service.
///
/// 1 to 512 bytes without control characters. Where a registry has no ids
/// of its own, the address serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Checks and wraps an id.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] with the reason.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Error> {
        let id = checked("endpoint.id", id.as_ref(), Self::MAX_LEN)?;
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is neither empty, nor too long, nor hides control characters.
pub(super) fn checked(field: &'static str, text: &str, max: usize) -> Result<Arc<str>, Error> {
    if text.is_empty() {
        return Err(Error::invalid(
            field,
            text,
            "it is empty; leave it out instead",
        ));
    }
    if text.len() > max {
        let reason = format!("it has {} bytes; at most {max} are taken", text.len());
        return Err(Error::invalid(field, excerpt(text, 64), reason));
    }
    if text.chars().any(char::is_control) {
        let reason = "it holds a control character";
        return Err(Error::invalid(field, text.escape_debug(), reason));
    }
    Ok(Arc::from(text))
}

macro_rules! text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text!(ServiceName);
text!(EndpointId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_checked() {
        for good in ["a", "users", "users.eu-1", "9", "A_b.c-d", &"x".repeat(253)] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", "empty"),
            (&"x".repeat(254) as &str, "longer"),
            ("-a", "begin"),
            ("a.", "end"),
            ("a/b", "`/`"),
            ("a b", "` `"),
            ("bücher", "u{fc}"),
            ("a:80", "`:`"),
        ] {
            let error = ServiceName::new(bad).unwrap_err();
            assert!(error.is_invalid() && !error.is_transient());
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn ids_may_be_odd_but_not_hidden() {
        for good in ["10.0.0.1:80", "/users/7", "größe 3", "unix:/a b"] {
            assert_eq!(EndpointId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(513)] {
            assert!(EndpointId::new(bad).unwrap_err().is_invalid());
        }
    }
}
