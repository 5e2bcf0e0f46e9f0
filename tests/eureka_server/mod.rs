//! A Eureka server in this process, by the rules of Netflix' REST API: what the
//! real one refuses, it refuses. No package holds a real one; two clients that
//! others wrote prove this one in `tests/eureka.rs`.
//!
//! Left out: replication between servers, and the response cache, which only
//! delays.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How long a change is told by `/apps/delta`.
const RETENTION: Duration = Duration::from_mins(3);

struct Lease {
    instance: Value,
    /// What an operator put over its own status.
    over: Option<String>,
    renewed: Instant,
    duration: Duration,
}

#[derive(Default)]
struct State {
    apps: BTreeMap<String, BTreeMap<String, Lease>>,
    changes: Vec<(Instant, &'static str, Value)>,
    /// Every request, as `GET /apps`.
    log: Vec<String>,
    /// Answers this in place of everything.
    broken: Option<u16>,
    /// Deltas lack what they should tell.
    lossy: bool,
}

/// It ends when it is dropped.
pub(crate) struct EurekaServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl EurekaServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| respond(Arc::clone(&state), request));
                open.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            address,
            state,
            serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/eureka", self.address)
    }

    /// Forgets everything, as a server that was restarted.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock().expect("no test panics in here");
        state.apps.clear();
        state.changes.clear();
    }

    /// Answers every request with this status from now on.
    pub(crate) fn broken(&self, status: Option<u16>) {
        self.state.lock().expect("no test panics in here").broken = status;
    }

    /// Leaves changes out of the deltas from now on, or no more.
    pub(crate) fn lossy(&self, is_lossy: bool) {
        self.state.lock().expect("no test panics in here").lossy = is_lossy;
    }

    /// Knows only the first instance of each application, as at some time before.
    pub(crate) fn older(&self) {
        let mut state = self.state.lock().expect("no test panics in here");
        for leases in state.apps.values_mut() {
            while leases.len() > 1 {
                leases.pop_last();
            }
        }
        state.changes.clear();
    }

    /// Has every instance registered an hour from now, by a clock that was ahead.
    pub(crate) fn ahead(&self) {
        let mut state = self.state.lock().expect("no test panics in here");
        for lease in state.apps.values_mut().flat_map(BTreeMap::values_mut) {
            lease.instance["lastDirtyTimestamp"] = (now_ms() + 3_600_000).to_string().into();
        }
    }

    /// Takes out what was not renewed for its duration.
    pub(crate) fn evict(&self) {
        let mut state = self.state.lock().expect("no test panics in here");
        let mut lapsed = Vec::new();
        for (app, leases) in &state.apps {
            for (id, lease) in leases {
                if lease.renewed.elapsed() > lease.duration {
                    lapsed.push((app.clone(), id.clone()));
                }
            }
        }
        for (app, id) in lapsed {
            state.cancel(&app, &id);
        }
    }

    /// How many requests there were that begin like this, in any case: an
    /// application's name has none.
    pub(crate) fn asked(&self, beginning: &str) -> usize {
        let beginning = beginning.to_ascii_lowercase();
        let state = self.state.lock().expect("no test panics in here");
        state
            .log
            .iter()
            .filter(|line| line.to_ascii_lowercase().starts_with(&beginning))
            .count()
    }

    /// One instance as the server has it.
    pub(crate) fn instance(&self, app: &str, id: &str) -> Option<Value> {
        let state = self.state.lock().expect("no test panics in here");
        Some(state.apps.get(app)?.get(id)?.told())
    }
}

impl Drop for EurekaServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Lease {
    fn told(&self) -> Value {
        let mut told = self.instance.clone();
        let unknown = || "UNKNOWN".to_owned();
        told["overriddenStatus"] = self.over.clone().unwrap_or_else(unknown).into();
        if let Some(over) = &self.over {
            told["status"] = over.as_str().into();
        }
        told
    }
}

type Answer = (StatusCode, Option<Value>);

impl State {
    fn changed(&mut self, action: &'static str, mut instance: Value) {
        instance["actionType"] = action.into();
        self.changes.retain(|(when, ..)| when.elapsed() < RETENTION);
        if !self.lossy {
            self.changes.push((Instant::now(), action, instance));
        }
    }

    fn lease(&mut self, app: &str, id: &str) -> Option<&mut Lease> {
        self.apps.get_mut(app)?.get_mut(id)
    }

    fn register(&mut self, app: &str, body: &[u8]) -> Result<(), String> {
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut instance = body.get("instance").cloned().ok_or("Missing instance")?;
        for field in ["instanceId", "hostName", "ipAddr", "app"] {
            if instance[field].as_str().is_none_or(str::is_empty) {
                return Err(format!("Missing {field}"));
            }
        }
        if !instance["dataCenterInfo"]["name"].is_string() {
            return Err("Missing dataCenterInfo Name".into());
        }
        if !instance["dataCenterInfo"]["@class"].is_string() {
            return Err("dataCenterInfo has no @class, which its type is read from".into());
        }
        let named = instance["app"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_uppercase();
        if named != app {
            return Err(format!(
                "Mismatched appName, expecting {app} but was {named}"
            ));
        }
        let statuses = ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"];
        let status = instance["status"].as_str().unwrap_or("UP").to_owned();
        if !statuses.contains(&status.as_str()) {
            return Err(format!("no status {status}"));
        }
        instance["app"] = named.into();
        instance["status"] = status.into();
        instance["lastUpdatedTimestamp"] = now_ms().to_string().into();
        if instance
            .get("lastDirtyTimestamp")
            .is_none_or(Value::is_null)
        {
            instance["lastDirtyTimestamp"] = now_ms().to_string().into();
        }
        if instance["metadata"].as_object().is_none_or(Map::is_empty) {
            instance["metadata"] = json!({"@class": "java.util.Collections$EmptyMap"});
        }
        let seconds = number(&instance["leaseInfo"]["durationInSecs"]).unwrap_or(90);
        let id = instance["instanceId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let leases = self.apps.entry(app.to_owned()).or_default();
        let before = leases.remove(&id);
        // `AbstractInstanceRegistry.register`: what was registered by a later clock
        // stays, and who registers is not told.
        let dirty = |instance: &Value| number(&instance["lastDirtyTimestamp"]);
        if let Some(before) = &before
            && dirty(&before.instance) > dirty(&instance)
        {
            instance = before.instance.clone();
        }
        let over = before.and_then(|before| before.over);
        let lease = Lease {
            instance,
            over,
            renewed: Instant::now(),
            duration: Duration::from_secs(seconds),
        };
        let told = lease.told();
        leases.insert(id, lease);
        self.changed("ADDED", told);
        Ok(())
    }

    fn renew(&mut self, app: &str, id: &str, query: &BTreeMap<String, String>) -> StatusCode {
        let dirty = query
            .get("lastDirtyTimestamp")
            .and_then(|text| text.parse().ok());
        let Some(lease) = self.lease(app, id) else {
            return StatusCode::NOT_FOUND;
        };
        // The client knows something newer: it must register again.
        if dirty > number(&lease.instance["lastDirtyTimestamp"]) {
            return StatusCode::NOT_FOUND;
        }
        lease.renewed = Instant::now();
        StatusCode::OK
    }

    fn cancel(&mut self, app: &str, id: &str) -> StatusCode {
        let Some(leases) = self.apps.get_mut(app) else {
            return StatusCode::NOT_FOUND;
        };
        let Some(lease) = leases.remove(id) else {
            return StatusCode::NOT_FOUND;
        };
        if leases.is_empty() {
            self.apps.remove(app);
        }
        self.changed("DELETED", lease.told());
        StatusCode::OK
    }

    fn put_over(&mut self, app: &str, id: &str, status: Option<String>) -> StatusCode {
        let Some(lease) = self.lease(app, id) else {
            return StatusCode::NOT_FOUND;
        };
        lease.over = status;
        let told = lease.told();
        self.changed("MODIFIED", told);
        StatusCode::OK
    }

    fn hash_code(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for lease in self.apps.values().flat_map(BTreeMap::values) {
            let told = lease.told();
            let status = told["status"].as_str().unwrap_or_default();
            *counts.entry(status.to_owned()).or_default() += 1;
        }
        let parts = counts.iter().map(|(status, n)| format!("{status}_{n}_"));
        parts.collect()
    }

    fn applications<'a>(&self, instances: impl Iterator<Item = (&'a str, Value)>) -> Value {
        let mut apps: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (app, instance) in instances {
            apps.entry(app).or_default().push(instance);
        }
        let apps: Vec<Value> = apps
            .into_iter()
            .map(|(name, instance)| json!({"name": name, "instance": instance}))
            .collect();
        json!({"applications": {
            "versions__delta": "1", "apps__hashcode": self.hash_code(), "application": apps,
        }})
    }

    fn read(&self, path: &[&str]) -> Answer {
        let found = |value: Option<Value>| match value {
            Some(value) => (StatusCode::OK, Some(value)),
            None => (StatusCode::NOT_FOUND, None),
        };
        let upper = |name: &str| name.to_ascii_uppercase();
        match path {
            ["apps"] => {
                let all = self.apps.iter().flat_map(|(app, leases)| {
                    leases.values().map(|lease| (app.as_str(), lease.told()))
                });
                found(Some(self.applications(all)))
            }
            ["apps", "delta"] => {
                let changes = self.changes.iter().map(|(_, _, instance)| {
                    (
                        instance["app"].as_str().unwrap_or_default(),
                        instance.clone(),
                    )
                });
                found(Some(self.applications(changes)))
            }
            ["apps", app] => found(self.apps.get(&upper(app)).map(|leases| {
                let told: Vec<Value> = leases.values().map(Lease::told).collect();
                json!({"application": {"name": upper(app), "instance": told}})
            })),
            ["apps", app, id] => {
                let lease = self
                    .apps
                    .get(&upper(app))
                    .and_then(|leases| leases.get(*id));
                found(lease.map(|lease| json!({"instance": lease.told()})))
            }
            ["instances", id] => {
                let lease = self.apps.values().find_map(|leases| leases.get(*id));
                found(lease.map(|lease| json!({"instance": lease.told()})))
            }
            _ => (StatusCode::NOT_FOUND, None),
        }
    }
}

async fn respond(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let query = head.uri.query().unwrap_or_default().split('&');
    let query: BTreeMap<String, String> = query
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect();
    let path = head.uri.path().trim_start_matches("/eureka");
    let mut state = state.lock().expect("no test panics in here");
    state.log.push(format!("{} {path}", head.method));
    let json_asked = head.headers.get("accept").is_some_and(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("application/json"))
    });
    let json_sent = head.headers.get("content-type").is_some_and(|sent| {
        sent.to_str()
            .is_ok_and(|sent| sent.starts_with("application/json"))
    });
    let plain = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if let Some(status) = state.broken {
        return Ok(plain(
            StatusCode::from_u16(status).expect("a status"),
            "broken".into(),
        ));
    }
    // Tomcat's own rule, which the real one stands behind.
    if path.to_ascii_lowercase().contains("%2f") {
        return Ok(plain(StatusCode::BAD_REQUEST, "encoded slash".into()));
    }
    let parts: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decoded)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let app = parts
        .get(1)
        .copied()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let (status, value) = match (&head.method, parts.as_slice()) {
        (&Method::POST, ["apps", _]) if !json_sent => (StatusCode::UNSUPPORTED_MEDIA_TYPE, None),
        (&Method::POST, ["apps", _]) => match state.register(&app, &body) {
            Ok(()) => (StatusCode::NO_CONTENT, None),
            Err(why) => return Ok(plain(StatusCode::BAD_REQUEST, why)),
        },
        (&Method::PUT, ["apps", _, id]) => (state.renew(&app, id, &query), None),
        (&Method::DELETE, ["apps", _, id]) => (state.cancel(&app, id), None),
        (&Method::PUT, ["apps", _, id, "status"]) => match query.get("value") {
            Some(value) => (state.put_over(&app, id, Some(value.clone())), None),
            None => (StatusCode::INTERNAL_SERVER_ERROR, None),
        },
        (&Method::DELETE, ["apps", _, id, "status"]) => (state.put_over(&app, id, None), None),
        (&Method::GET, path) => state.read(path),
        _ => (StatusCode::METHOD_NOT_ALLOWED, None),
    };
    let (kind, text) = match &value {
        None => ("text/plain", String::new()),
        Some(value) if json_asked => ("application/json", value.to_string()),
        // What it answers whoever does not ask for JSON.
        Some(value) => ("application/xml", xml(value)),
    };
    let mut response = plain(status, text);
    let kind = kind.parse().expect("it is a header");
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}

/// As `XStream` writes it: elements, `@class` as an attribute, `$` as the text.
fn xml(value: &Value) -> String {
    fn element(out: &mut String, name: &str, value: &Value) {
        let escaped = |text: &str| {
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('"', "&quot;")
        };
        match value {
            Value::Array(list) => list.iter().for_each(|one| element(out, name, one)),
            Value::Object(map) => {
                write!(out, "<{name}").expect("a string can be written");
                for (key, value) in map {
                    if let Some(key) = key.strip_prefix('@') {
                        let text = value.as_str().map_or_else(|| value.to_string(), escaped);
                        write!(out, " {key}=\"{text}\"").expect("a string can be written");
                    }
                }
                out.push('>');
                for (key, value) in map {
                    match key.as_str() {
                        "$" => {
                            out.push_str(
                                &value.as_str().map_or_else(|| value.to_string(), escaped),
                            );
                        }
                        key if !key.starts_with('@') => element(out, key, value),
                        _ => {}
                    }
                }
                write!(out, "</{name}>").expect("a string can be written");
            }
            one => {
                let text = one.as_str().map_or_else(|| one.to_string(), escaped);
                write!(out, "<{name}>{text}</{name}>").expect("a string can be written");
            }
        }
    }
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        element(&mut out, name, value);
    }
    out
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("the clock is right").as_millis()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: String = rest.by_ref().take(2).map(char::from).collect();
            bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
