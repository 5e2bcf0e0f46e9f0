//! What can be set.

use std::sync::Arc;
use std::time::Duration;

use super::servers::{Servers, User};
use super::{Etcd, Layout, Shared};
use crate::error::Error;
use crate::registry::tls::Tls;

/// Collects the settings of an [`Etcd`]; [`build`](Self::build) checks them.
#[derive(Clone)]
#[must_use = "a registry is made by `build`"]
pub struct EtcdBuilder {
    urls: Vec<String>,
    user: Option<User>,
    tls: Tls,
    layout: Layout,
    prefix: Option<String>,
    ttl: Duration,
    within: Duration,
    max_message: usize,
}

impl EtcdBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            user: None,
            tls: Tls::default(),
            layout: Layout::default(),
            prefix: None,
            ttl: Duration::from_secs(15),
            within: Duration::from_secs(3),
            // 10,000 instances have about 2 MB.
            max_message: 64 * 1024 * 1024,
        }
    }

    /// Another member of the cluster, to turn to when those before it fail.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Who asks, where authentication is on; the password shows up in no
    /// message.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some(User::new(name.into(), password.into()));
        self
    }

    /// The authorities to trust for `https`, as PEM; the machine's own where
    /// none are given.
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.authorities = Some(pem.into());
        self
    }

    /// This client's certificate chain and its key, as PEM.
    pub fn client_certificate(
        mut self,
        chain_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.tls.identity = Some((chain_pem.into(), key_pem.into()));
        self
    }

    /// What entries look like; [`Layout::Grpc`] by default.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// What stands before the service in every key: nothing by default in
    /// [`Layout::Grpc`], `waypost/` in [`Layout::Plain`]. It is taken as it is,
    /// so that it usually ends with `/`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// How long an entry stays when this process is gone; 15 s by default, in
    /// whole seconds, 2 s to a day. etcd makes it one and a half election
    /// timeouts at least.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long one call may take; 3 s by default, less with more than three
    /// members.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.within = timeout;
        self
    }

    /// The most bytes that are read of one answer, and kept of one service's
    /// entries; 64 MiB by default.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Checks the settings. Nothing is sent, and no connection made.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`], with the setting and the reason: a URL that is
    /// none or holds a password, a time to live that etcd does not take, a
    /// certificate or a key that cannot be read; and when this is not called
    /// within a tokio runtime.
    pub fn build(self) -> Result<Etcd, Error> {
        let (least, most) = (Duration::from_secs(2), Duration::from_hours(24));
        if !(least..=most).contains(&self.ttl) || self.ttl.subsec_nanos() != 0 {
            let reason = "etcd takes whole seconds; give 2 s to a day";
            return Err(Error::invalid(
                "lease_ttl",
                format!("{:?}", self.ttl),
                reason,
            ));
        }
        if self.within.is_zero() {
            return Err(Error::invalid(
                "request_timeout",
                "0s",
                "no call would be answered",
            ));
        }
        if self.max_message == 0 {
            return Err(Error::invalid("max_message", 0, "no answer would fit"));
        }
        if let Some(prefix) = &self.prefix
            && (prefix.len() > 512 || prefix.chars().any(char::is_control))
        {
            let reason = "it has a control character or more than 512 bytes";
            return Err(Error::invalid("prefix", prefix.escape_debug(), reason));
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::no_runtime("an etcd registry"));
        }
        let prefix = self.prefix;
        let prefix = prefix.unwrap_or_else(|| self.layout.prefix().to_owned());
        let max = self.max_message;
        let servers = Servers::new(&self.urls, &self.tls, self.user, self.within, max)?;
        Ok(Etcd {
            shared: Arc::new(Shared {
                servers,
                layout: self.layout,
                prefix,
                ttl: self.ttl,
                max_bytes: max,
            }),
        })
    }
}

impl std::fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdBuilder")
            .field("members", &self.urls.len())
            .field("user", &self.user.as_ref().map(|_| "(hidden)"))
            .field("layout", &self.layout)
            .field("prefix", &self.prefix)
            .field("lease_ttl", &self.ttl)
            .field("request_timeout", &self.within)
            .field("max_message", &self.max_message)
            .finish_non_exhaustive()
    }
}
