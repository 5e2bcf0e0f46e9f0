//! Eureka's JSON: instances as they are told, and all of them as one knows
//! them.
//!
//! Servers of different makes write numbers as text, one element without its
//! list, and ports as objects with `$` and `@enabled`; all of these are read.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::entry::{AUTHORITY, ID, PREFIX, PRIORITY, REGION, SUB_ZONE, TLS_NAME, WEIGHT, ZONE};
use crate::endpoint::{Endpoint, Skipped, Status};
use crate::error::Error;
use crate::registry::follow::Answer;

/// Every instance of every application.
#[derive(Debug, Default)]
pub(super) struct Apps {
    apps: BTreeMap<String, BTreeMap<String, Instance>>,
}

#[derive(Debug)]
struct Instance {
    /// As it was written, which is what the hash code counts.
    status: String,
    endpoint: Result<Arc<Endpoint>, Error>,
}

impl Apps {
    /// All of an answer to `/apps`; none when it is none.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let mut apps = Self::default();
        let root = answer.get("applications")?.as_object()?;
        for (app, value) in instances(root.get("application")) {
            apps.put(app, value);
        }
        Some(apps)
    }

    /// Applies an answer to `/apps/delta`; none when what comes of it is not
    /// what the server has, and everything must be read again.
    pub(super) fn apply(&mut self, delta: &Value) -> Option<()> {
        let root = delta.get("applications")?.as_object()?;
        for (app, value) in instances(root.get("application")) {
            match text(value.get("actionType")).as_deref() {
                Some("DELETED") => {
                    let id = id_of(value)?;
                    if let Some(instances) = self.apps.get_mut(&app.to_ascii_uppercase()) {
                        instances.remove(&id);
                    }
                }
                Some("ADDED" | "MODIFIED") => self.put(app, value),
                _ => return None,
            }
        }
        let told = text(root.get("apps__hashcode"))?;
        (told == self.hash_code()).then_some(())
    }

    fn put(&mut self, app: &str, value: &Value) {
        let app = app.to_ascii_uppercase();
        let instances = self.apps.entry(app).or_default();
        // Without an id it is malformed, and still one more.
        let id = id_of(value).unwrap_or_else(|| format!("\u{0}{}", instances.len()));
        let status = text(value.get("status")).unwrap_or_else(|| "UP".to_owned());
        let endpoint = endpoint(value, &status).map(Arc::new);
        instances.insert(id, Instance { status, endpoint });
    }

    /// `DOWN_1_UP_5_`: how many there are in each status.
    fn hash_code(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in self.apps.values().flat_map(BTreeMap::values) {
            *counts.entry(&instance.status).or_default() += 1;
        }
        let parts = counts.iter().map(|(status, n)| format!("{status}_{n}_"));
        parts.collect()
    }

    /// The endpoints of one application; an unknown one has none.
    pub(super) fn answer(&self, app: &str) -> Answer {
        let mut answer = Answer::default();
        for instance in self.apps.get(app).into_iter().flat_map(BTreeMap::values) {
            match &instance.endpoint {
                Ok(endpoint) => answer.endpoints.push(Arc::clone(endpoint)),
                Err(error) => Skipped::count(&mut answer.skipped, error.clone()),
            }
        }
        answer
    }
}

/// Each instance with the name of its application.
fn instances(applications: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    listed(applications).flat_map(|application| {
        let name = application.get("name").and_then(Value::as_str);
        listed(application.get("instance")).filter_map(move |instance| {
            let app = instance.get("app").and_then(Value::as_str);
            Some((name.or(app)?, instance))
        })
    })
}

/// A list, or one element without it.
fn listed(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let (list, one) = match value {
        Some(Value::Array(list)) => (list.as_slice(), None),
        Some(Value::Null) | None => (&[][..], None),
        Some(one) => (&[][..], Some(one)),
    };
    list.iter().chain(one)
}

/// Text, or a number that was not written as one.
pub(super) fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

fn id_of(value: &Value) -> Option<String> {
    // Servers before 1.4 had no ids but the host's name.
    text(value.get("instanceId")).or_else(|| text(value.get("hostName")))
}

/// A port that is enabled: `{"$": 8080, "@enabled": "true"}`.
fn port(value: Option<&Value>) -> Option<String> {
    let port = value?;
    let on = text(port.get("@enabled")).is_none_or(|on| on == "true");
    text(port.get("$"))
        .or_else(|| text(Some(port)))
        .filter(|_| on)
}

fn endpoint(value: &Value, status: &str) -> Result<Endpoint, Error> {
    let refused = |field, reason: &str| Err(Error::invalid(field, "(instance)", reason));
    let Some(id) = id_of(value) else {
        return refused("instanceId", "an instance needs an id");
    };
    let mut meta: BTreeMap<String, String> = value
        .get("metadata")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with('@'))
        .filter_map(|(key, value)| {
            Some((
                key.clone(),
                text(Some(value)).or_else(|| value.as_str().map(str::to_owned))?,
            ))
        })
        .collect();
    let Some(host) = text(value.get("ipAddr")).or_else(|| text(value.get("hostName"))) else {
        return refused("ipAddr", "an instance needs an address");
    };
    let secure = port(value.get("securePort"));
    let is_secure = port(value.get("port")).is_none() && secure.is_some();
    let Some(port) = port(value.get("port")).or(secure) else {
        return refused("port", "neither of its ports is enabled");
    };
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let mut builder = Endpoint::builder(address)
        .id(meta.remove(ID).unwrap_or(id))
        .status(match status {
            "UP" => Status::Up,
            "STARTING" => Status::Starting,
            "OUT_OF_SERVICE" => Status::Draining,
            _ => Status::Down,
        });
    let number = |field, text: String| {
        text.parse::<u32>()
            .map_err(|_| Error::invalid(field, text, "it is no whole number"))
    };
    if let Some(weight) = meta.remove(WEIGHT) {
        builder = builder.weight(number(WEIGHT, weight)?);
    }
    if let Some(priority) = meta.remove(PRIORITY) {
        builder = builder.priority(number(PRIORITY, priority)?);
    }
    if let Some(region) = meta.remove(REGION) {
        builder = builder.region(region);
    }
    let amazon = || {
        text(
            value
                .get("dataCenterInfo")?
                .get("metadata")?
                .get("availability-zone"),
        )
    };
    if let Some(zone) = meta.remove(ZONE).or_else(amazon) {
        builder = builder.zone(zone);
    }
    if let Some(sub_zone) = meta.remove(SUB_ZONE) {
        builder = builder.sub_zone(sub_zone);
    }
    if let Some(name) = meta.remove(TLS_NAME) {
        builder = builder.tls_name(name);
    }
    if let Some(authority) = meta.remove(AUTHORITY) {
        builder = builder.authority(authority);
    }
    if is_secure {
        builder = builder.metadata("eureka.secure", "true");
    }
    for (key, value) in meta {
        if !key.starts_with(PREFIX) {
            builder = builder.metadata(key, value);
        }
    }
    builder.build()
}

/// Eureka's word for a status.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Up => "UP",
        Status::Draining => "OUT_OF_SERVICE",
        Status::Down => "DOWN",
        Status::Starting => "STARTING",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(id: &str) -> Value {
        json!({
            "instanceId": id, "app": "USERS", "ipAddr": "10.0.0.1", "hostName": "h", "status": "UP",
            "port": {"$": 80, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
            "metadata": {"@class": "java.util.Collections$EmptyMap"}, "actionType": "ADDED",
        })
    }

    fn all(application: &Value) -> Value {
        json!({"applications": {"versions__delta": "1", "apps__hashcode": "UP_2_", "application": application}})
    }

    #[test]
    fn every_shape_of_json_is_read() {
        let mut text_port = instance("b");
        text_port["port"] = json!({"$": "81", "@enabled": true});
        let mut secure = instance("c");
        secure["port"]["@enabled"] = "false".into();
        secure["securePort"]["@enabled"] = "true".into();
        for application in [
            json!([{"name": "USERS", "instance": [instance("a"), text_port, secure]}]),
            json!({"name": "users", "instance": [instance("a"), text_port, secure]}),
            json!([{"name": "USERS", "instance": instance("a")}, {"instance": [text_port, secure]}]),
        ] {
            let answer = Apps::read(&all(&application)).unwrap().answer("USERS");
            assert!(answer.skipped.is_none(), "{:?}", answer.skipped);
            let at: Vec<&str> = answer
                .endpoints
                .iter()
                .map(|it| it.address().as_str())
                .collect();
            assert_eq!(at, ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:443"]);
        }
        assert!(Apps::read(&json!({"a": 1})).is_none());
    }

    #[test]
    fn a_delta_is_applied_and_refused_when_the_counts_differ() {
        let mut apps =
            Apps::read(&all(&json!([{"name": "USERS", "instance": instance("a")}]))).unwrap();
        assert_eq!(apps.hash_code(), "UP_1_");
        let delta = all(&json!([{"name": "USERS", "instance": instance("b")}]));
        assert!(apps.apply(&delta).is_some());
        assert_eq!(apps.answer("USERS").endpoints.len(), 2);
        let mut gone = instance("a");
        gone["actionType"] = "DELETED".into();
        let delta = all(&json!([{"name": "USERS", "instance": gone}]));
        assert!(
            apps.apply(&delta).is_none(),
            "one is left, and the server says two"
        );
    }

    #[test]
    fn one_malformed_instance_costs_none_of_the_others() {
        for (field, value) in [
            ("port", json!(null)),
            ("port", json!({"$": 0, "@enabled": "true"})),
            ("port", json!({"$": 70_000, "@enabled": "true"})),
            ("ipAddr", json!("not a host")),
            ("metadata", json!({"waypost-weight": "x"})),
        ] {
            let mut bad = instance("b");
            bad[field] = value;
            let apps = Apps::read(&all(
                &json!([{"name": "USERS", "instance": [instance("a"), bad]}]),
            ));
            let answer = apps.unwrap().answer("USERS");
            assert_eq!(answer.endpoints.len(), 1, "{bad}");
            assert_eq!(answer.skipped.unwrap().count, 1, "{bad}");
        }
    }
}
