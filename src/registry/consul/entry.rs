//! One entry at an agent, and the check that keeps it.
//!
//! An agent takes whatever is registered under an id, so two registrations of
//! one id would pass each other's checks and take out each other's entries. So
//! each writes a number of its own into the entry's metadata and its check's
//! id: a check that the agent does not know means that the agent forgot, or
//! that another has come, and the number tells which.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::Shared;
use super::builder::Kind;
use crate::endpoint::{Endpoint, ServiceName, Status};
use crate::error::Error;
use crate::registry::announce::{Announcer, Beat};
use crate::registry::http::{Ask, Reply, encoded, path_safe};
use crate::rng::Rng;

/// What the metadata that is ours begins with.
pub(super) const PREFIX: &str = "waypost-";
pub(super) const ENTRY: &str = "waypost-entry";
pub(super) const ID: &str = "waypost-id";
pub(super) const WEIGHT: &str = "waypost-weight";
pub(super) const STATUS: &str = "waypost-status";
pub(super) const PRIORITY: &str = "waypost-priority";
pub(super) const REGION: &str = "waypost-region";
pub(super) const ZONE: &str = "waypost-zone";
pub(super) const SUB_ZONE: &str = "waypost-sub-zone";
pub(super) const ADDRESS_TLS: &str = "waypost-tls-name";
pub(super) const AUTHORITY: &str = "waypost-authority";

/// Keeps one endpoint of one service registered.
pub(super) struct Entry {
    shared: Arc<Shared>,
    service: ServiceName,
    /// Consul's id of it.
    id: String,
    /// This registration's own number.
    number: String,
    status: Status,
    /// The agents that it was entered at, the last one last.
    entered: Vec<usize>,
}

impl Entry {
    pub(super) fn new(
        shared: Arc<Shared>,
        service: &ServiceName,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        let entry = Self {
            id: format!("{service}:{}", path_safe(endpoint.id().as_str())),
            shared,
            service: service.clone(),
            number: format!("{:016x}", Rng::from_entropy().bits()),
            status: endpoint.status(),
            entered: Vec::new(),
        };
        // What Consul would refuse, or change, is told before it is asked.
        entry.meta(endpoint)?;
        host_and_port(endpoint)?;
        Ok(entry)
    }

    fn check_id(&self) -> String {
        format!("waypost:{}:{}", self.id, self.number)
    }

    fn meta(&self, endpoint: &Endpoint) -> Result<Map<String, Value>, Error> {
        let mut meta = Map::new();
        let mut put = |key: &str, value: &str| {
            // Consul's `validateMetaPair`: 64 pairs, 128 and 512 bytes.
            if value.len() > 512 {
                let reason = format!("its value has {} bytes; Consul takes 512", value.len());
                return Err(Error::invalid("endpoint.metadata", key, reason));
            }
            if meta.insert(key.to_owned(), value.into()).is_some() {
                let reason = "the key is one that this crate uses itself";
                return Err(Error::invalid("endpoint.metadata key", key, reason));
            }
            Ok(())
        };
        put(ENTRY, &self.number)?;
        put(ID, endpoint.id().as_str())?;
        if u32::from(passing_weight(endpoint)) != endpoint.weight() {
            put(WEIGHT, &endpoint.weight().to_string())?;
        }
        if endpoint.status() != Status::Up {
            put(STATUS, &endpoint.status().to_string())?;
        }
        if endpoint.priority() != 0 {
            put(PRIORITY, &endpoint.priority().to_string())?;
        }
        let place = endpoint.locality();
        for (key, value) in [
            (REGION, place.region()),
            (ZONE, place.zone()),
            (SUB_ZONE, place.sub_zone()),
            (ADDRESS_TLS, endpoint.tls_name()),
            (AUTHORITY, endpoint.authority()),
        ] {
            if let Some(value) = value {
                put(key, value)?;
            }
        }
        for (key, value) in endpoint.metadata() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if key.len() > 128 || !key.chars().all(plain) || key.starts_with(PREFIX) {
                let reason = "Consul takes keys of up to 128 letters, digits, `-` and `_`, and \
                              those that begin with `waypost-` are this crate's";
                return Err(Error::invalid("endpoint.metadata key", key, reason));
            }
            put(key, value)?;
        }
        if meta.len() > 64 {
            let reason = "Consul takes 64 keys, those of this crate among them";
            return Err(Error::invalid("endpoint.metadata", meta.len(), reason));
        }
        Ok(meta)
    }

    pub(super) fn body(&self, endpoint: &Endpoint) -> Result<Bytes, Error> {
        let settings = &self.shared.settings;
        let (address, port) = host_and_port(endpoint)?;
        let up = endpoint.status() == Status::Up;
        let mut check = json!({ "CheckID": self.check_id(), "Name": "waypost" });
        let mut put = |key: &str, value: Value| check[key] = value;
        let every = millis(settings.check.every);
        let at = endpoint.address();
        match &settings.check.kind {
            Kind::Ttl => {
                put("TTL", every.into());
                put("Status", if up { "passing" } else { "warning" }.into());
            }
            Kind::Http(path) => put("HTTP", format!("http://{at}{path}").into()),
            Kind::Tcp => put("TCP", at.as_str().into()),
            Kind::Grpc(service) if service.is_empty() => put("GRPC", at.as_str().into()),
            Kind::Grpc(service) => put("GRPC", format!("{at}/{service}").into()),
        }
        if !self.is_ttl() {
            put("Interval", millis(settings.check.every).into());
            if let Some(timeout) = settings.check.timeout {
                put("Timeout", millis(timeout).into());
            }
        }
        if let Some(after) = settings.deregister_after {
            put("DeregisterCriticalServiceAfter", millis(after).into());
        }
        let warning = if up { settings.warning_weight } else { 0 };
        let body = json!({
            "ID": self.id,
            "Name": self.service.as_str(),
            "Address": address,
            "Port": port,
            "Tags": settings.announce_tags,
            "Meta": self.meta(endpoint)?,
            "Weights": { "Passing": passing_weight(endpoint), "Warning": warning },
            "Check": check,
        });
        Ok(body.to_string().into())
    }

    fn is_ttl(&self) -> bool {
        matches!(self.shared.settings.check.kind, Kind::Ttl)
    }

    fn ask(&self, method: Method, path: String) -> Ask {
        // Every agent in turn must fit into what a call may take.
        let each = Duration::from_secs(9) / self.shared.servers.len() as u32;
        let within = self.shared.settings.timeout.min(each);
        self.shared.ask(method, path, within)
    }

    /// The agent that it was entered at last.
    fn agent(&self) -> usize {
        let last = self.entered.last().copied();
        last.unwrap_or_else(|| self.shared.servers.current())
    }

    async fn at_agent(&self, agent: usize, method: Method, path: String) -> Result<Reply, Error> {
        let ask = self.ask(method, path);
        let reply = self.shared.servers.ask(agent, &ask).await?;
        match reply.status {
            // 500 is what agents before 1.12 say of a check they do not know.
            StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => Ok(reply),
            _ => Err(self.shared.servers.refused(&ask, &reply)),
        }
    }

    /// Whose entry is at that agent; none when there is none.
    async fn whose(&self, agent: usize) -> Result<Option<String>, Error> {
        let path = format!("/v1/agent/service/{}", encoded(&self.id));
        let ask = self.ask(Method::GET, path);
        let reply = self.shared.servers.ask(agent, &ask).await?;
        match reply.status {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            _ => return Err(self.shared.servers.refused(&ask, &reply)),
        }
        let entry: Value = serde_json::from_slice(&reply.body.new).map_err(|error| {
            let reason = format!("its answer about an entry is no JSON: {error}");
            Error::registry_because(self.shared.servers.origin(agent), reason, error)
        })?;
        let number = entry["Meta"][ENTRY].as_str().unwrap_or_default();
        Ok(Some(number.to_owned()))
    }

    async fn found(&self, agent: usize) -> Result<Beat, Error> {
        Ok(match self.whose(agent).await? {
            Some(number) if number == self.number => Beat::Alive,
            Some(_) => Beat::Replaced,
            None => Beat::Forgotten,
        })
    }

    async fn beat_at(&self, agent: usize) -> Result<Beat, Error> {
        if !self.is_ttl() {
            return self.found(agent).await;
        }
        let word = if self.status == Status::Up {
            "pass"
        } else {
            "warn"
        };
        let path = format!("/v1/agent/check/{word}/{}", encoded(&self.check_id()));
        let reply = self.at_agent(agent, Method::PUT, path).await?;
        if reply.status == StatusCode::OK {
            return Ok(Beat::Alive);
        }
        Ok(match self.found(agent).await? {
            // The entry without its check.
            Beat::Alive => Beat::Forgotten,
            other => other,
        })
    }

    async fn leave_at(&self, agent: usize) -> Result<(), Error> {
        // There is no call that takes an entry out only if it is ours; between
        // the two, another would have to register.
        if self.whose(agent).await?.as_deref() != Some(&self.number) {
            return Ok(());
        }
        let path = format!("/v1/agent/service/deregister/{}", encoded(&self.id));
        let ask = self.ask(Method::PUT, path);
        let reply = self.shared.servers.ask(agent, &ask).await?;
        match reply.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.shared.servers.refused(&ask, &reply)),
        }
    }
}

impl Announcer for Entry {
    fn origin(&self) -> String {
        self.shared.servers.origin(self.agent())
    }

    async fn enter(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let path = "/v1/agent/service/register?replace-existing-checks=true".to_owned();
        let mut ask = self.ask(Method::PUT, path);
        ask.body = self.body(endpoint)?;
        let agent = self
            .shared
            .servers
            .ask_any(&ask, |status| status == StatusCode::OK)
            .await?
            .server;
        self.entered.retain(|&before| before != agent);
        self.entered.push(agent);
        self.status = endpoint.status();
        Ok(())
    }

    async fn beat(&mut self) -> Result<Beat, Error> {
        let agent = self.agent();
        let found = self.beat_at(agent).await;
        if found.is_err() && self.shared.servers.len() > 1 {
            // It is entered at the next one.
            self.shared.servers.turn_from(agent);
            return Ok(Beat::Forgotten);
        }
        found
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some((&last, earlier)) = self.entered.split_last() else {
            return Ok(());
        };
        let left = self.leave_at(last).await;
        // Agents that failed: if they are back, the entry goes now, and if not,
        // when its check has been critical for long enough.
        for &agent in earlier {
            drop(self.leave_at(agent).await);
        }
        left
    }

    fn interval(&self) -> Duration {
        let every = self.shared.settings.check.every;
        if self.is_ttl() {
            every / 3
        } else {
            // Only whether the agent still knows the entry.
            every.clamp(Duration::from_secs(1), Duration::from_secs(10))
        }
    }
}

/// As Consul takes it: without brackets.
fn host_and_port(endpoint: &Endpoint) -> Result<(String, u16), Error> {
    let address = endpoint.address();
    match (address.host(), address.port()) {
        (Some(host), Some(port)) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            Ok((bare.to_owned(), port))
        }
        _ => {
            let reason = "Consul registers hosts and ports, no Unix sockets";
            Err(Error::invalid("endpoint.address", address, reason))
        }
    }
}

/// As Consul takes it: 1 to 65,535.
fn passing_weight(endpoint: &Endpoint) -> u16 {
    u16::try_from(endpoint.weight().max(1)).unwrap_or(u16::MAX)
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
