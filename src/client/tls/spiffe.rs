//! The names of workloads.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A SPIFFE ID: `spiffe://trust-domain/path`, checked as the SPIFFE standard
/// has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(String);

const FIELD: &str = "tls.spiffe_id";
const SCHEME: &str = "spiffe://";
/// Of the standard.
const MAX_LEN: usize = 2_048;

impl SpiffeId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => {
                let shown: String = text.chars().take(100).collect();
                Err(Error::invalid(FIELD, shown, reason))
            }
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.len() > MAX_LEN {
        return Some("a SPIFFE ID has at most 2048 bytes");
    }
    let Some(rest) = text.strip_prefix(SCHEME) else {
        return Some("a SPIFFE ID begins with `spiffe://`");
    };
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let in_domain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(in_domain) {
        return Some("its trust domain has lower-case letters, digits, `.`, `-` and `_`");
    }
    let in_path = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path);
    if path.is_some_and(|path| !path.split('/').all(good)) {
        return Some("a segment of its path is empty, `.`, `..`, or has another character");
    }
    None
}

/// Which SPIFFE IDs are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeMatch(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Exact(SpiffeId),
    Below(String),
}

impl SpiffeMatch {
    /// This one.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is no SPIFFE ID.
    pub fn exact(id: &str) -> Result<Self, Error> {
        Ok(Self(Kind::Exact(id.parse()?)))
    }

    /// All below this one: whole segments, so that `…/ns/prod` does not allow
    /// `…/ns/production`.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is no SPIFFE ID.
    pub fn below(id: &str) -> Result<Self, Error> {
        let id: SpiffeId = id.trim_end_matches('/').parse()?;
        Ok(Self(Kind::Below(format!("{id}/"))))
    }

    /// Whether that one is allowed.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match &self.0 {
            Kind::Exact(allowed) => allowed == id,
            Kind::Below(prefix) => id.as_str().starts_with(prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standard_refuses_is_refused() {
        for good in [
            "spiffe://example.org",
            "spiffe://example.org/ns/prod/sa/users",
            "spiffe://a_b-1.c/X.y_Z-0",
        ] {
            assert!(good.parse::<SpiffeId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://example.org/users",
            "spiffe://",
            "spiffe:///users",
            "spiffe://Example.org/users",
            "spiffe://example.org:443/users",
            "spiffe://user@example.org/users",
            "spiffe://example.org/",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/ä",
        ] {
            assert!(bad.parse::<SpiffeId>().unwrap_err().is_invalid(), "{bad}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2_048));
        assert!(long.parse::<SpiffeId>().is_err());
    }

    #[test]
    fn below_is_by_whole_segments() {
        let below = SpiffeMatch::below("spiffe://example.org/ns/prod/").unwrap();
        let matches = |id: &str| below.matches(&id.parse().unwrap());
        assert!(matches("spiffe://example.org/ns/prod/sa/users"));
        assert!(!matches("spiffe://example.org/ns/production/sa/users"));
        assert!(!matches("spiffe://example.org/ns/prod"));
        assert!(!matches("spiffe://example.org.evil/ns/prod/sa"));
    }
}
