//! Where an endpoint can be called.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::name::checked;
use crate::error::{Error, excerpt};

/// An address: an IP address and port, a host name and port, or the path of a
/// Unix socket.
///
/// It keeps its text, so that nothing formats it on a hot path.
///
/// ```
/// use waypost::Address;
///
/// let ip: Address = "[::1]:8080".parse()?;
/// assert_eq!(ip.socket_addr().unwrap().port(), 8080);
///
/// let name: Address = "users.internal:8080".parse()?;
/// assert_eq!((name.host(), name.port()), (Some("users.internal"), Some(8080)));
///
/// let socket: Address = "unix:/run/users.sock".parse()?;
/// assert!(socket.path().is_some());
///
/// assert!("users.internal".parse::<Address>().unwrap_err().to_string().contains("port"));
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    text: Arc<str>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Socket(SocketAddr),
    /// The host's bytes are the text up to the last colon.
    Host {
        port: u16,
    },
    Unix(Arc<Path>),
}

const FIELD: &str = "endpoint.address";
const UNIX: &str = "unix:";

impl Address {
    /// The longest path of a Unix socket that Linux takes.
    const MAX_PATH: usize = 107;

    /// The address of a Unix socket.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the path is empty, longer than Linux takes,
    /// or not Unicode.
    pub fn unix(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let Some(text) = path.to_str() else {
            let shown = path.to_string_lossy();
            return Err(Error::invalid(
                FIELD,
                shown,
                "the path is not valid Unicode",
            ));
        };
        let text = checked(FIELD, text, Self::MAX_PATH)?;
        Ok(Self {
            text: Arc::from(format!("{UNIX}{text}")),
            kind: Kind::Unix(Arc::from(path)),
        })
    }

    /// The address of a host by name.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when the host is no host name or the port is 0.
    pub fn host_port(host: &str, port: u16) -> Result<Self, Error> {
        format!("{host}:{port}").parse()
    }

    /// The address as text: `ip:port`, `host:port` or `unix:/path`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The IP address and port, when it is one.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.kind {
            Kind::Socket(addr) => Some(addr),
            _ => None,
        }
    }

    /// The host, as a URL writes it (an IPv6 address in brackets); none for a
    /// Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self.kind {
            Kind::Unix(_) => None,
            _ => self.text.rsplit_once(':').map(|(host, _)| host),
        }
    }

    /// The port; none for a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.kind {
            Kind::Socket(addr) => Some(addr.port()),
            Kind::Host { port } => Some(port),
            Kind::Unix(_) => None,
        }
    }

    /// The path of the Unix socket, when it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// The text, shared.
    pub(super) fn shared(&self) -> &Arc<str> {
        &self.text
    }
}

impl TryFrom<SocketAddr> for Address {
    type Error = Error;

    fn try_from(addr: SocketAddr) -> Result<Self, Error> {
        if addr.port() == 0 {
            let reason = "port 0 cannot be called; give the port it listens on";
            return Err(Error::invalid(FIELD, addr, reason));
        }
        Ok(Self {
            text: Arc::from(addr.to_string()),
            kind: Kind::Socket(addr),
        })
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Self::unix(path);
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Self::try_from(addr);
        }
        let refused = |reason: &str| Err(Error::invalid(FIELD, excerpt(text, 64), reason));
        if text.contains("://") {
            return refused("it is a URL; write its host and port alone, as `host:port`");
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return refused("it has no port; write `host:port`, `ip:port` or `unix:/path`");
        };
        // The standard library's parser takes a sign, which no URL may have.
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = match port.parse::<u16>() {
            _ if !digits => return refused("its port is not a number from 1 to 65535"),
            Ok(0) => return refused("port 0 cannot be called; give the port it listens on"),
            Ok(port) => port,
            Err(_) => return refused("its port is not a number from 1 to 65535"),
        };
        if host.is_empty() || host.len() > 253 {
            return refused("its host must have 1 to 253 characters");
        }
        if host.contains(':') || host.starts_with('[') {
            return refused("an IPv6 address is written in brackets, as in `[::1]:80`");
        }
        if !host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return refused("its host has a character that no host name has; use punycode");
        }
        if reads_as_ipv4(host) {
            return refused("it is neither a name nor an IP address; write that as `10.0.0.1`");
        }
        // The canonical text, so that `a:080` and `a:80` are one address.
        Ok(Self {
            text: Arc::from(format!("{host}:{port}")),
            kind: Kind::Host { port },
        })
    }
}

/// Whether resolvers take the host for an IPv4 address, however it is written:
/// `2130706433`, `0x7f.1` and `127.0.0.01` are all this host (`inet_aton`), where
/// an [`AddressPolicy`](super::AddressPolicy) would see a name.
fn reads_as_ipv4(host: &str) -> bool {
    let is_number = |part: &str| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.split('.').all(is_number)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_apart() {
        let parse = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(parse("10.0.0.1:80").host(), Some("10.0.0.1"));
        assert_eq!(parse("[2001:db8::1]:80").host(), Some("[2001:db8::1]"));
        assert_eq!(parse("a-b.c:0080").as_str(), "a-b.c:80");
        assert_eq!(parse("web.1:80").host(), Some("web.1"));
        assert_eq!(parse("unix:/x").path(), Some(Path::new("/x")));
        assert_eq!(parse("unix:/x").port(), None);
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "no port"),
            ("host", "no port"),
            (":80", "host"),
            ("host:", "port"),
            ("host:0", "port 0"),
            ("10.0.0.1:0", "port 0"),
            ("host:65536", "65535"),
            ("host:-1", "65535"),
            ("host:+80", "65535"),
            ("10.0.0.1:+80", "65535"),
            ("2852039166:80", "neither"),
            ("0xa9fea9fe:80", "neither"),
            ("169.254.43518:80", "neither"),
            ("0251.0376.0xa9.0XFE:80", "neither"),
            ("169.254.169.254.:80", "neither"),
            ("10.0.0.256:80", "neither"),
            ("::1:80", "brackets"),
            ("[::1:80", "brackets"),
            ("ho st:80", "character"),
            ("http://a:80", "it is a URL"),
            ("a/b:80", "character"),
            ("unix:", "empty"),
        ] {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.is_invalid());
            let text = error.to_string();
            assert!(
                text.starts_with(FIELD) && text.contains(why),
                "{bad}: {text}"
            );
        }
        let long = format!("{}:80", "x".repeat(100_000));
        assert!(long.parse::<Address>().unwrap_err().to_string().len() < 400);
    }
}
