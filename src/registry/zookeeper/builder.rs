//! What can be set.

use std::sync::Arc;
use std::time::Duration;

use super::session::{Session, Settings};
use super::{Shared, ZooKeeper};
use crate::endpoint::Address;
use crate::error::Error;
use crate::registry::tls::Tls;

/// Collects the settings of a [`ZooKeeper`]; [`build`](Self::build) checks
/// them.
#[derive(Clone)]
#[must_use = "a registry is made by `build`"]
pub struct ZooKeeperBuilder {
    servers: Vec<String>,
    base: String,
    digest: Option<(String, String)>,
    /// None: as plain text.
    tls: Option<Tls>,
    timeout: Duration,
    within: Duration,
    max_message: usize,
}

impl ZooKeeperBuilder {
    pub(super) fn new(server: String) -> Self {
        Self {
            servers: vec![server],
            base: "/services".to_owned(),
            digest: None,
            tls: None,
            timeout: Duration::from_secs(15),
            within: Duration::from_secs(3),
            max_message: 64 * 1024 * 1024,
        }
    }

    /// Another server of the ensemble, `host:port`. A client begins at one of
    /// them at random, and turns to the next when that one fails.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// The node that all services are under, Curator's `basePath`; `/services`
    /// by default, which is Spring Cloud's.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.base = path.into();
        self
    }

    /// Who asks, by the scheme `digest`; the password shows up in no message.
    /// What is registered may then be read by everybody and changed by this
    /// user alone.
    pub fn digest(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.digest = Some((user.into(), password.into()));
        self
    }

    /// Speaks TLS with the servers, on their `secureClientPort`. Their
    /// certificates are checked for the host that was named here.
    pub fn tls(mut self) -> Self {
        self.tls.get_or_insert_default();
        self
    }

    /// [`tls`](Self::tls) with these authorities to trust, as PEM; else they are
    /// the machine's own.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.get_or_insert_default().authorities = Some(pem.into());
        self
    }

    /// [`tls`](Self::tls) with this client's certificate chain and its key, as
    /// PEM, which ZooKeeper asks for unless it is told not to
    /// (`ssl.clientAuth`).
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        let identity = (chain_pem.into(), key_pem.into());
        self.tls.get_or_insert_default().identity = Some(identity);
        self
    }

    /// How long an entry stays when this process is gone; 15 s by default, 1 s
    /// to an hour. The server takes 2 to 20 of its ticks (4 to 40 s with its
    /// own defaults).
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long one request, and one server's connection, may take; 3 s by
    /// default, less with more than three servers.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.within = timeout;
        self
    }

    /// The most bytes that are read of one answer, and kept of one service's
    /// nodes; 64 MiB by default.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Checks the settings. Nothing is sent, and no connection made.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`], with the setting and the reason: a server that is
    /// no `host:port`, a path that ZooKeeper does not take, a time that is too
    /// short, certificates that are none; and when this is not called within a tokio runtime.
    pub fn build(self) -> Result<ZooKeeper, Error> {
        for server in &self.servers {
            let address: Result<Address, Error> = server.parse();
            if !address.is_ok_and(|address| address.port().is_some()) {
                let reason = "write `host:port` of one server; `server` adds others";
                return Err(Error::invalid("server", server.escape_debug(), reason));
            }
        }
        let base = checked_base(&self.base)?;
        let (least, most) = (Duration::from_secs(1), Duration::from_hours(1));
        if !(least..=most).contains(&self.timeout) {
            let shown = format!("{:?}", self.timeout);
            return Err(Error::invalid(
                "session_timeout",
                shown,
                "give 1 s to an hour",
            ));
        }
        if self.within.is_zero() {
            let reason = "no request would be answered";
            return Err(Error::invalid("request_timeout", "0s", reason));
        }
        if self.max_message == 0 {
            return Err(Error::invalid("max_message", 0, "no answer would fit"));
        }
        if let Some((user, _)) = &self.digest
            && (user.is_empty() || user.contains(':'))
        {
            let reason = "ZooKeeper takes `user:password`: no `:` in the user, which is a name";
            return Err(Error::invalid("digest", user.escape_debug(), reason));
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::no_runtime("a ZooKeeper registry"));
        }
        let digest = self.digest;
        // All of them in turn shall fit into what a registration waits for one
        // call.
        let each = Duration::from_secs(9) / self.servers.len() as u32;
        let settings = Settings {
            servers: self.servers.into(),
            timeout: self.timeout,
            within: self.within.min(each),
            digest: digest.map(|(user, password)| format!("{user}:{password}").into()),
            max_message: self.max_message,
            tls: self
                .tls
                .map(|tls| tls.config(true))
                .transpose()?
                .map(Arc::new),
        };
        Ok(ZooKeeper {
            shared: Arc::new(Shared {
                session: Session::new(settings),
                base,
            }),
        })
    }
}

/// A path without the slash at its end: nothing for the root.
fn checked_base(path: &str) -> Result<String, Error> {
    let refused = |reason: &str| Err(Error::invalid("base_path", path.escape_debug(), reason));
    if path == "/" {
        return Ok(String::new());
    }
    let Some(names) = path.strip_prefix('/') else {
        return refused("it begins with `/`, as `/services` does");
    };
    let is_odd = |c: char| c.is_control() || !(c.is_ascii() || c.is_alphanumeric());
    if path.len() > 512 || path.chars().any(is_odd) {
        return refused("it has more than 512 bytes, or a character that ZooKeeper does not take");
    }
    if names.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return refused("it has an empty name, `.` or `..` in it");
    }
    Ok(path.to_owned())
}

impl std::fmt::Debug for ZooKeeperBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperBuilder")
            .field("servers", &self.servers)
            .field("base_path", &self.base)
            .field("digest", &self.digest.as_ref().map(|_| "(hidden)"))
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
