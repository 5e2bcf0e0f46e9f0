//! What every HTTP integration does around a call: where it goes, whether it
//! may be sent again, how it ended.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Method, StatusCode, Uri};

use super::http::{RequestHead, RequestKey};
use super::{Attempts, Directory};
use crate::balancer::{Balancer, DetachedPick};
use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::stats::Outcome;
use crate::strategy::{PickOptions, Tried};

/// Whose endpoints calls go to: one service's, or those of the service that the
/// URL's host names.
#[derive(Clone, Debug)]
pub(super) enum Target {
    One(Balancer),
    Any(Directory),
}

impl From<Balancer> for Target {
    fn from(balancer: Balancer) -> Self {
        Self::One(balancer)
    }
}

impl From<Directory> for Target {
    fn from(directory: Directory) -> Self {
        Self::Any(directory)
    }
}

/// How calls are made, in every integration.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) target: Target,
    pub(super) attempts: Attempts,
    pub(super) wait: Duration,
    pub(super) key: Option<RequestKey>,
}

/// A service's registry usually answers within milliseconds; a caller would
/// rather wait a little for the first answer than see its first call fail.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(5);

impl Policy {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            attempts: Attempts::default(),
            wait: DEFAULT_WAIT,
            key: None,
        }
    }

    /// The balancer of the service that the URI names; none when it names no
    /// service of ours and the call passes as it is.
    pub(super) fn balancer(&self, uri: &Uri) -> Result<Option<Balancer>, Error> {
        let Some(host) = uri.host() else {
            let reason = "its URI has no host to name the service, such as `http://users/`";
            return Err(Error::unroutable(uri, reason));
        };
        let balancer = match &self.target {
            Target::One(balancer) => {
                if !balancer.service().as_str().eq_ignore_ascii_case(host) {
                    return Ok(None);
                }
                balancer.clone()
            }
            Target::Any(_) if is_ip(host) => return Ok(None),
            Target::Any(directory) => directory.balancer(&ServiceName::new(host)?)?,
        };
        if uri.scheme() == Some(&Scheme::HTTPS) {
            let reason = "it is https: rewritten to an endpoint's address, the certificate would \
                          be checked against that address; use http";
            return Err(Error::unroutable(uri, reason));
        }
        Ok(Some(balancer))
    }
}

/// One call on its way: which endpoints it has tried, and how often it may
/// still be sent.
pub(super) struct Call<'a> {
    policy: &'a Policy,
    balancer: &'a Balancer,
    method: &'a Method,
    tried: Tried,
    left: u32,
    hash: Option<u64>,
}

impl<'a> Call<'a> {
    pub(super) fn new(policy: &'a Policy, balancer: &'a Balancer, method: &'a Method) -> Self {
        Self {
            policy,
            balancer,
            method,
            tried: Tried::new(),
            left: policy.attempts.get(),
            hash: None,
        }
    }

    /// With the key that the policy finds in the request.
    pub(super) fn keyed(mut self, head: &RequestHead<'_>) -> Self {
        let key = self.policy.key.as_ref();
        self.hash = key.and_then(|key| key.hash_of(head));
        self
    }

    /// The endpoint of the next attempt, one that was not tried. The guard is
    /// detached: a call lasts, and shall not hold on to a whole set.
    pub(super) async fn pick(&mut self) -> Result<DetachedPick, Error> {
        let pick = match self.balancer.pick_with(&self.options()) {
            Err(error) if error.is_not_known_yet() => {
                self.balancer.ready(self.policy.wait).await?;
                self.balancer.pick_with(&self.options())?
            }
            picked => picked?,
        };
        self.left -= 1;
        self.tried.insert(pick.key());
        Ok(pick.detach())
    }

    fn options(&self) -> PickOptions<'_> {
        let options = PickOptions::new().tried(&self.tried);
        match self.hash {
            Some(hash) => options.hash(hash),
            None => options,
        }
    }

    /// Whether there can be another attempt after this, for which the request
    /// has to be kept.
    pub(super) fn has_more_attempts(&self) -> bool {
        self.left > 0
    }

    /// Ends an attempt without an answer; tells whether there may be another.
    ///
    /// RFC 9110, 9.2.2: a client may repeat an idempotent request on its own
    /// when the connection broke before the answer; what was not sent can be
    /// sent.
    pub(super) fn failed(&mut self, pick: DetachedPick, outcome: Outcome) -> bool {
        pick.finish(outcome);
        let harmless = match outcome {
            Outcome::NotSent => true,
            Outcome::Interrupted => self.method.is_idempotent(),
            _ => false,
        };
        harmless && self.has_more_attempts()
    }
}

fn is_ip(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
}

/// How a call that was answered with this status ended.
pub(super) fn outcome_of(status: StatusCode) -> Outcome {
    if status.is_server_error() {
        Outcome::ServerError
    } else {
        Outcome::Success
    }
}

/// How a call ended that has no answer, from the errors below the client's own.
/// The client's own knowledge of what was sent goes before this.
pub(super) fn outcome_of_error(error: &(dyn StdError + 'static)) -> Outcome {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                // Only making a connection ends so.
                io::ErrorKind::ConnectionRefused => return Outcome::NotSent,
                io::ErrorKind::TimedOut => return Outcome::TimedOut,
                _ => {}
            }
        }
        next = error.source();
    }
    Outcome::Interrupted
}

/// The authority to call an endpoint at.
pub(super) fn authority_of(endpoint: &Endpoint) -> Result<Authority, Error> {
    let address = endpoint.address();
    if address.host().is_none() {
        let reason = "it is a Unix socket, which a URI cannot name";
        return Err(Error::unroutable(endpoint, reason));
    }
    Authority::try_from(address.as_str()).map_err(|error| Error::unroutable(endpoint, error))
}

/// The `Host` that a call carries: the one its endpoint asks for, else what the
/// caller wrote in the URI.
pub(super) fn logical_host<'a>(endpoint: &'a Endpoint, uri: &'a Uri) -> Option<&'a str> {
    let written = uri.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, host)| host)
    });
    endpoint.authority().or(written)
}
