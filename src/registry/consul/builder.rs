//! What can be set.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::http::{Servers, encoded};
use super::super::tls::Tls;
use super::{Consul, Shared};
use crate::error::Error;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// What the leader knows, as long as it holds its lease; a leader that was
    /// cut off may answer from the past for a moment.
    #[default]
    Default,
    /// What any server knows. Goes on while there is no leader, and spreads the
    /// load; usually 50 ms behind.
    Stale,
    /// What the leader knows after asking a majority.
    Consistent,
}

/// How Consul finds out that an instance is well.
#[derive(Clone, Debug)]
pub struct Check {
    pub(super) kind: Kind,
    pub(super) every: Duration,
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Ttl,
    Http(String),
    Tcp,
    Grpc(String),
}

impl Check {
    /// This process says so, three times in each `ttl`; at least 1 s.
    #[must_use]
    pub fn ttl(ttl: Duration) -> Self {
        Self::new(Kind::Ttl, ttl)
    }

    /// The agent GETs `path` at the endpoint's address every so often: 2xx
    /// passes, 429 warns, all else is critical.
    #[must_use]
    pub fn http(path: impl Into<String>, every: Duration) -> Self {
        Self::new(Kind::Http(path.into()), every)
    }

    /// The agent connects to the endpoint's address.
    #[must_use]
    pub fn tcp(every: Duration) -> Self {
        Self::new(Kind::Tcp, every)
    }

    /// The agent calls `grpc.health.v1` at the endpoint's address for
    /// `service`; the empty name is the server as a whole.
    #[must_use]
    pub fn grpc(service: impl Into<String>, every: Duration) -> Self {
        Self::new(Kind::Grpc(service.into()), every)
    }

    /// How long the agent waits for an answer; Consul's default is 10 s. A TTL
    /// check has none.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn new(kind: Kind, every: Duration) -> Self {
        Self {
            kind,
            every,
            timeout: None,
        }
    }
}

/// Collects the settings of a [`Consul`]; [`build`](Self::build) checks them.
#[derive(Clone)]
#[must_use = "a registry is made by `build`"]
pub struct ConsulBuilder {
    urls: Vec<String>,
    token: Option<String>,
    tls: Tls,
    max_body: usize,
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) namespace: Option<String>,
    datacenter: Option<String>,
    near: Option<String>,
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    filter: Option<String>,
    passing: bool,
    consistency: Consistency,
    pub(super) wait: Duration,
    pub(super) timeout: Duration,
    pub(super) check: Check,
    pub(super) deregister_after: Option<Duration>,
    pub(super) announce_tags: Vec<String>,
    pub(super) warning_weight: u16,
}

impl ConsulBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            token: None,
            tls: Tls::default(),
            // 10,000 instances have about 10 MB.
            max_body: 128 * 1024 * 1024,
            settings: Settings {
                namespace: None,
                datacenter: None,
                near: None,
                tags: Vec::new(),
                node_meta: Vec::new(),
                filter: None,
                passing: false,
                consistency: Consistency::default(),
                wait: Duration::from_mins(1),
                timeout: Duration::from_secs(10),
                check: Check::ttl(Duration::from_secs(15)),
                deregister_after: Some(MIN_DEREGISTER),
                announce_tags: Vec::new(),
                warning_weight: 1,
            },
        }
    }

    /// Another agent, to turn to when those before it fail.
    pub fn agent(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// The ACL token; it shows up in no message.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
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

    /// Reads from that datacenter; the agent's own by default.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.settings.datacenter = Some(name.into());
        self
    }

    /// Reads and registers in that namespace (Consul Enterprise).
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.settings.namespace = Some(name.into());
        self
    }

    /// Sorts by the round trip from that node, `_agent` for the agent's own;
    /// this tells in which order equal ids are met, nothing else.
    pub fn near(mut self, node: impl Into<String>) -> Self {
        self.settings.near = Some(node.into());
        self
    }

    /// Reads only instances with that tag; each call adds one.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.tags.push(tag.into());
        self
    }

    /// Reads only instances on nodes with that metadata; each call adds one.
    pub fn node_meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.node_meta.push((key.into(), value.into()));
        self
    }

    /// Reads only what Consul's filter expression selects, such as
    /// `Service.Meta.version == "v2"`.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.settings.filter = Some(expression.into());
        self
    }

    /// Reads only instances whose checks all pass. Without it, which is the
    /// default, those with a check that warns are there, with their warning
    /// weight, and so are ours that drain.
    pub fn passing(mut self, only: bool) -> Self {
        self.settings.passing = only;
        self
    }

    /// How fresh reads are; Consul's default mode by default.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.settings.consistency = consistency;
        self
    }

    /// How long the server holds a read while nothing changes: 1 s to 10 min,
    /// 1 min by default. The client waits a sixteenth longer, as the server
    /// may, and the request timeout on top.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    /// How long any other request may take; 10 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// The most bytes that are read of one answer; 128 MiB by default.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// How Consul checks what is registered; a TTL of 15 s by default.
    pub fn check(mut self, check: Check) -> Self {
        self.settings.check = check;
        self
    }

    /// After how long at critical Consul takes an entry out by itself: at least
    /// 1 min, which is the default; `None` for never.
    pub fn deregister_critical_after(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.settings.deregister_after = after.into();
        self
    }

    /// A tag of what is registered; each call adds one.
    pub fn announce_tag(mut self, tag: impl Into<String>) -> Self {
        self.settings.announce_tags.push(tag.into());
        self
    }

    /// The weight that what is registered has while its check warns; 1 by
    /// default.
    pub fn warning_weight(mut self, weight: u16) -> Self {
        self.settings.warning_weight = weight;
        self
    }

    /// Checks the settings. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`], with the setting and the reason: a URL that is
    /// none or holds a password, a wait or a TTL that Consul does not take, a
    /// certificate or a key that cannot be read, a token that no header takes.
    pub fn build(self) -> Result<Consul, Error> {
        self.settings.check()?;
        if self.max_body == 0 {
            return Err(Error::invalid("max_body", 0, "no answer would fit"));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(token);
            let mut value = value.map_err(|_| {
                let reason = "a character in it cannot be sent in a header";
                Error::invalid("token", "(hidden)", reason)
            })?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-consul-token"), value);
        }
        let servers = Servers::new("consul", &self.urls, headers, &self.tls, self.max_body)?;
        let settings = self.settings;
        Ok(Consul {
            shared: Arc::new(Shared { servers, settings }),
        })
    }
}

impl std::fmt::Debug for ConsulBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsulBuilder")
            .field("agents", &self.urls.len())
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("max_body", &self.max_body)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What Consul rounds every shorter time up to.
const MIN_DEREGISTER: Duration = Duration::from_mins(1);

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let between = |field, value: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("it must be from {least:?} to {most:?}");
            Err(Error::invalid(field, format!("{value:?}"), reason))
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        between("wait", self.wait, second, Duration::from_mins(10))?;
        between(
            "request_timeout",
            self.timeout,
            Duration::from_millis(1),
            day,
        )?;
        between("check", self.check.every, second, day)?;
        if let Some(after) = self.deregister_after {
            between(
                "deregister_critical_after",
                after,
                MIN_DEREGISTER,
                365 * day,
            )?;
        }
        match &self.check.kind {
            Kind::Http(path) if !path.starts_with('/') => {
                let reason = "the path must begin with `/`";
                Err(Error::invalid("check", path, reason))
            }
            _ => Ok(()),
        }
    }

    /// The part of a read's query that is always the same.
    pub(super) fn query(&self) -> String {
        let mut query = format!("?wait={}ms", self.wait.as_millis());
        let mut put = |key: &str, value: &str| {
            write!(query, "&{key}={}", encoded(value)).expect("a string can be written");
        };
        for (key, value) in [
            ("dc", &self.datacenter),
            ("near", &self.near),
            ("filter", &self.filter),
        ] {
            if let Some(value) = value {
                put(key, value);
            }
        }
        for tag in &self.tags {
            put("tag", tag);
        }
        for (key, value) in &self.node_meta {
            put("node-meta", &format!("{key}:{value}"));
        }
        if self.passing {
            query.push_str("&passing");
        }
        query.push_str(match self.consistency {
            Consistency::Default => "",
            Consistency::Stale => "&stale",
            Consistency::Consistent => "&consistent",
        });
        query
    }
}
