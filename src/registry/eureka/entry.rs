//! One instance, and the lease that keeps it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Shared, apps};
use crate::endpoint::{Endpoint, ServiceName, Status};
use crate::error::Error;
use crate::registry::announce::{Announcer, Beat};
use crate::registry::http::path_safe;
use crate::rng::Rng;

/// What the metadata that is ours begins with.
pub(super) const PREFIX: &str = "waypost-";
const ENTRY: &str = "waypost-entry";
pub(super) const ID: &str = "waypost-id";
pub(super) const WEIGHT: &str = "waypost-weight";
pub(super) const PRIORITY: &str = "waypost-priority";
pub(super) const REGION: &str = "waypost-region";
/// Spring Cloud's key.
pub(super) const ZONE: &str = "zone";
pub(super) const SUB_ZONE: &str = "waypost-sub-zone";
pub(super) const TLS_NAME: &str = "waypost-tls-name";
pub(super) const AUTHORITY: &str = "waypost-authority";

/// Keeps one endpoint of one service registered.
pub(super) struct Entry {
    shared: Arc<Shared>,
    service: ServiceName,
    /// The path of the instance.
    path: String,
    /// This registration's own number, in the metadata: a server takes
    /// whatever is registered under an id.
    number: String,
    status: Status,
    /// When it was entered last, as the server is told it.
    dirty: u128,
}

impl Entry {
    pub(super) fn new(
        shared: Arc<Shared>,
        service: &ServiceName,
        endpoint: &Endpoint,
    ) -> Result<Self, Error> {
        let entry = Self {
            path: Shared::instance(service, endpoint.id()),
            shared,
            service: service.clone(),
            number: format!("{:016x}", Rng::from_entropy().bits()),
            status: endpoint.status(),
            dirty: 0,
        };
        entry.body(endpoint)?;
        Ok(entry)
    }

    fn meta(&self, endpoint: &Endpoint) -> Result<Map<String, Value>, Error> {
        let mut meta = Map::new();
        meta.insert(ENTRY.into(), self.number.as_str().into());
        let place = endpoint.locality();
        let id = endpoint.id().as_str();
        let text = |number: u32| number.to_string();
        for (key, value) in [
            (ID, (path_safe(id) != id).then(|| id.to_owned())),
            (
                WEIGHT,
                (endpoint.weight() != Endpoint::DEFAULT_WEIGHT).then(|| text(endpoint.weight())),
            ),
            (
                PRIORITY,
                (endpoint.priority() != 0).then(|| text(endpoint.priority())),
            ),
            (REGION, place.region().map(str::to_owned)),
            (ZONE, place.zone().map(str::to_owned)),
            (SUB_ZONE, place.sub_zone().map(str::to_owned)),
            (TLS_NAME, endpoint.tls_name().map(str::to_owned)),
            (AUTHORITY, endpoint.authority().map(str::to_owned)),
        ] {
            if let Some(value) = value {
                meta.insert(key.into(), value.into());
            }
        }
        for (key, value) in endpoint.metadata() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let first = key.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
            if !first || !key.chars().all(plain) || key.starts_with(PREFIX) || &**key == ZONE {
                let reason = "keys are names of XML elements to Eureka's other clients: a letter, \
                              then letters, digits, `-`, `_` and `.`; `zone` and those that begin \
                              with `waypost-` are this crate's";
                return Err(Error::invalid("endpoint.metadata key", key, reason));
            }
            meta.insert(key.to_string(), value.as_ref().into());
        }
        Ok(meta)
    }

    pub(super) fn body(&self, endpoint: &Endpoint) -> Result<Bytes, Error> {
        let address = endpoint.address();
        let (Some(host), Some(port)) = (address.host(), address.port()) else {
            let reason = "Eureka registers hosts and ports, no Unix sockets";
            return Err(Error::invalid("endpoint.address", address, reason));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let dirty = self.dirty.to_string();
        let body = json!({"instance": {
            "instanceId": path_safe(endpoint.id().as_str()),
            "app": Shared::app(&self.service),
            "hostName": host,
            "ipAddr": host,
            "vipAddress": self.service.as_str(),
            "secureVipAddress": self.service.as_str(),
            "status": apps::word(endpoint.status()),
            "port": {"$": port, "@enabled": "true"},
            "securePort": {"$": 443, "@enabled": "false"},
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
                "name": "MyOwn",
            },
            "leaseInfo": {
                "renewalIntervalInSecs": self.shared.renew.as_secs(),
                "durationInSecs": self.shared.lease.as_secs(),
            },
            "metadata": self.meta(endpoint)?,
            "lastUpdatedTimestamp": dirty,
            "lastDirtyTimestamp": dirty,
        }});
        Ok(body.to_string().into())
    }

    /// The instance that is there; none when there is none.
    async fn found(&self) -> Result<Option<Found>, Error> {
        let ask = self.shared.ask(Method::GET, self.path.clone());
        let reply = self.shared.servers.ask_any(&ask, found_or_not).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(&reply.body.new).map_err(|error| {
            let reason = format!("its answer about an instance is no JSON: {error}");
            Error::registry_because(self.shared.servers.origin(reply.server), reason, error)
        })?;
        let instance = &value["instance"];
        let number = instance["metadata"][ENTRY].as_str().unwrap_or_default();
        Ok(Some(Found {
            is_ours: number == self.number,
            dirty: apps::text(instance.get("lastDirtyTimestamp"))
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        }))
    }
}

/// An instance as the server has it.
struct Found {
    is_ours: bool,
    dirty: u128,
}

fn found_or_not(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::NOT_FOUND)
}

impl Announcer for Entry {
    fn origin(&self) -> String {
        self.shared.servers.origin(self.shared.servers.current())
    }

    async fn enter(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A server keeps what is newer, whoever wrote it, and says nothing; a
        // clock that went back, or another's that was ahead, must not win.
        let before = self.found().await?.map_or(0, |found| found.dirty);
        let after = before.max(self.dirty).saturating_add(1);
        self.dirty = now.unwrap_or_default().as_millis().max(after);
        let path = format!(
            "/apps/{}",
            crate::registry::http::encoded(&Shared::app(&self.service))
        );
        let mut ask = self.shared.ask(Method::POST, path);
        ask.body = self.body(endpoint)?;
        let taken = |status| matches!(status, StatusCode::NO_CONTENT | StatusCode::OK);
        self.shared.servers.ask_any(&ask, taken).await?;
        self.status = endpoint.status();
        Ok(())
    }

    async fn beat(&mut self) -> Result<Beat, Error> {
        let path = format!(
            "{}?status={}&lastDirtyTimestamp={}",
            self.path,
            apps::word(self.status),
            self.dirty
        );
        let ask = self.shared.ask(Method::PUT, path);
        let reply = self.shared.servers.ask_any(&ask, found_or_not).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(Beat::Forgotten);
        }
        // A renewal keeps whatever has the id, another registration's, too.
        Ok(match self.found().await? {
            Some(found) if found.is_ours => Beat::Alive,
            Some(_) => Beat::Replaced,
            None => Beat::Forgotten,
        })
    }

    async fn leave(&mut self) -> Result<(), Error> {
        if !self.found().await?.is_some_and(|found| found.is_ours) {
            return Ok(());
        }
        let ask = self.shared.ask(Method::DELETE, self.path.clone());
        self.shared.servers.ask_any(&ask, found_or_not).await?;
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.shared.renew
    }
}
