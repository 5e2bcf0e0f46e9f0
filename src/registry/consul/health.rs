//! What `/v1/health/service` answers, and what of it is new.
//!
//! Consul answers every change with the whole list, 1 kB an instance. So the
//! list is kept as text: what begins and what ends like the answer before was
//! read before, and only the instances between are read again. For one change
//! among 10,000 that is one instance, and a comparison of 10 MB as they come.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::entry::{
    ADDRESS_TLS, AUTHORITY, ENTRY, ID, PREFIX, PRIORITY, REGION, STATUS, SUB_ZONE, WEIGHT, ZONE,
};
use crate::endpoint::{Endpoint, Skipped, Status};
use crate::error::Error;
use crate::registry::difference::Received;
use crate::registry::follow::Answer;

/// The last answer, as text and as endpoints.
#[derive(Default)]
pub(super) struct Rows {
    text: Arc<Vec<u8>>,
    rows: Vec<Row>,
}

struct Row {
    at: Range<usize>,
    /// None when a check is critical.
    endpoint: Result<Option<Arc<Endpoint>>, Error>,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The last answer, which the next one may be like.
    pub(super) fn text(&self) -> Arc<Vec<u8>> {
        Arc::clone(&self.text)
    }

    /// Takes the next answer over, by what is new in it against the one before,
    /// and tells whether an endpoint in it is another. An answer that cannot be
    /// read leaves everything as it was.
    ///
    /// O(what is new), and in the number of rows for their places; where the
    /// length changed, the text behind it moves.
    pub(super) fn read(&mut self, answer: Received) -> Result<bool, serde_json::Error> {
        let replaced = answer.front..self.text.len() - answer.back;
        let kept_front = self
            .rows
            .iter()
            .take_while(|row| row.at.end <= replaced.start && self.text[row.at.end - 1] == b'}')
            .count();
        let kept_back = self.rows[kept_front..]
            .iter()
            .rev()
            .take_while(|row| row.at.start >= replaced.end && self.text[row.at.start] == b'{')
            .count();
        let Some(new) = self.between(&answer, kept_front, kept_back) else {
            let text = match answer {
                Received {
                    front: 0,
                    new,
                    back: 0,
                } => new,
                parts => parts.whole(&self.text),
            };
            let rows = list(&text, 0, false, false)?;
            let changed = self.text.is_empty()
                || rows.len() != self.rows.len()
                || rows.iter().zip(&self.rows).any(|(a, b)| !same(a, b));
            (self.text, self.rows) = (Arc::new(text), rows);
            return Ok(changed);
        };
        let back_from = self.rows.len() - kept_back;
        let old = &self.rows[kept_front..back_from];
        let changed = new.len() != old.len() || new.iter().zip(old).any(|(a, b)| !same(a, b));
        // Those at the end move with what was put in or taken out before them.
        let (was, is) = (replaced.len(), answer.new.len());
        if was != is {
            for row in &mut self.rows[back_from..] {
                row.at = row.at.start + is - was..row.at.end + is - was;
            }
        }
        self.rows.splice(kept_front..back_from, new);
        Arc::make_mut(&mut self.text).splice(replaced, answer.new);
        Ok(changed)
    }

    /// The rows of the next text that are not kept; none when it has to be read
    /// as a whole.
    fn between(&self, next: &Received, kept_front: usize, kept_back: usize) -> Option<Vec<Row>> {
        if kept_front + kept_back == 0 {
            return None;
        }
        let from = match kept_front {
            0 => 0,
            n => self.rows[n - 1].at.end,
        };
        let to = match kept_back {
            0 => self.text.len(),
            n => self.rows[self.rows.len() - n].at.start,
        };
        let (front, back) = (
            &self.text[from..next.front],
            &self.text[self.text.len() - next.back..to],
        );
        let part = [front, &next.new, back].concat();
        list(&part, from, kept_front > 0, kept_back > 0).ok()
    }

    /// The endpoints.
    pub(super) fn answer(&self) -> Answer {
        let mut answer = Answer::default();
        for row in &self.rows {
            match &row.endpoint {
                Ok(endpoint) => answer.endpoints.extend(endpoint.clone()),
                Err(error) => Skipped::count(&mut answer.skipped, error.clone()),
            }
        }
        answer
    }
}

fn same(a: &Row, b: &Row) -> bool {
    match (&a.endpoint, &b.endpoint) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

/// The rows in a part of a text that begins at `at` in it: after a row, and its
/// comma, or from the opening bracket on; until the comma before a row, or the
/// closing bracket.
fn list(
    part: &[u8],
    at: usize,
    after_row: bool,
    before_row: bool,
) -> Result<Vec<Row>, serde_json::Error> {
    let broken = || serde::de::Error::custom("two instances have no comma between them");
    if after_row && before_row && part.trim_ascii() == b"," {
        // That between the two that were kept, where there was `,{…},`.
        return Ok(Vec::new());
    }
    let mut inner = part;
    let mut wrapped = Vec::new();
    if after_row {
        inner = inner.trim_ascii_start();
        match inner.first() {
            Some(b',') => inner = &inner[1..],
            Some(b']') if inner.trim_ascii() == b"]" && !before_row => return Ok(Vec::new()),
            _ => return Err(broken()),
        }
        wrapped.push(b'[');
    }
    let start = at + (part.len() - inner.len());
    if before_row {
        inner = inner.trim_ascii_end();
        match inner.last() {
            Some(b',') => inner = &inner[..inner.len() - 1],
            Some(b'[') if !after_row && inner.trim_ascii() == b"[" => return Ok(Vec::new()),
            _ => return Err(broken()),
        }
    }
    let shift = wrapped.len();
    wrapped.extend_from_slice(inner);
    if before_row {
        wrapped.push(b']');
    }
    let raw: Vec<&RawValue> = serde_json::from_slice(&wrapped)?;
    if raw.is_empty() && (after_row || before_row) {
        // The comma was one too many.
        return Err(broken());
    }
    let base = wrapped.as_ptr().addr() + shift;
    Ok(raw
        .into_iter()
        .map(|raw| {
            let from = start + raw.get().as_ptr().addr() - base;
            Row {
                at: from..from + raw.get().len(),
                endpoint: endpoint(raw.get()).map(|found| found.map(Arc::new)),
            }
        })
        .collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<HealthCheck>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    node: String,
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    socket_path: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    locality: Option<Place>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Place {
    region: String,
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthCheck {
    #[serde(rename = "CheckID", default)]
    id: String,
    status: String,
}

/// What all checks of an instance say together: the worst of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

fn verdict(checks: &[HealthCheck]) -> Verdict {
    let one = |check: &HealthCheck| match check.status.as_str() {
        _ if check.id.starts_with("_service_maintenance:") || check.id == "_node_maintenance" => {
            Verdict::Maintenance
        }
        "passing" => Verdict::Passing,
        "warning" => Verdict::Warning,
        // Consul knows no other word; a new one is no sign of health.
        _ => Verdict::Critical,
    };
    checks.iter().map(one).max().unwrap_or(Verdict::Passing)
}

/// The endpoint that one element of an answer describes; none when one of its
/// checks is critical.
fn endpoint(text: &str) -> Result<Option<Endpoint>, Error> {
    let instance: Instance = serde_json::from_str(text).map_err(|error| {
        Error::registry_because("consul", format!("an instance: {error}"), error)
    })?;
    let Instance {
        node,
        service,
        checks,
    } = instance;
    let verdict = verdict(&checks.unwrap_or_default());
    if verdict == Verdict::Critical {
        return Ok(None);
    }
    let mut meta = service.meta.unwrap_or_default();
    let ours = meta.remove(ENTRY).is_some();
    let mut take = |key: &str| meta.remove(key);

    let host = if service.address.is_empty() {
        &node.address
    } else {
        &service.address
    };
    let address = if !service.socket_path.is_empty() {
        format!("unix:{}", service.socket_path)
    } else if host.contains(':') {
        format!("[{host}]:{}", service.port)
    } else {
        format!("{host}:{}", service.port)
    };
    let id = take(ID).unwrap_or_else(|| format!("{}/{}", node.node, service.id));
    let mut builder = Endpoint::builder(address).id(id);

    let announced = take(STATUS).map(|status| status_of(&status)).transpose()?;
    let status = match verdict {
        Verdict::Maintenance => Status::Draining,
        _ => announced.unwrap_or(Status::Up),
    };
    builder = builder.status(status);

    let weights = service.weights.unwrap_or(Weights {
        passing: 1,
        warning: 1,
    });
    let own = take(WEIGHT).map(|text| number(WEIGHT, &text)).transpose()?;
    let weight = if verdict == Verdict::Warning && announced.is_none() {
        weights.warning
    } else {
        own.unwrap_or(weights.passing)
    };
    let weight = u32::try_from(weight).map_err(|_| {
        Error::invalid(
            "Weights",
            weight,
            "a weight is a number from 0 to 4294967295",
        )
    })?;
    builder = builder.weight(weight);

    if let Some(priority) = take(PRIORITY) {
        let priority = number(PRIORITY, &priority)?;
        let priority = u32::try_from(priority)
            .map_err(|_| Error::invalid("priority", priority, "it must be from 0 to 4294967295"))?;
        builder = builder.priority(priority);
    }
    let place = service.locality.unwrap_or_default();
    let known = |text: String| (!text.is_empty()).then_some(text);
    if let Some(region) = take(REGION).or(known(place.region)) {
        builder = builder.region(region);
    }
    if let Some(zone) = take(ZONE).or(known(place.zone)) {
        builder = builder.zone(zone);
    }
    if let Some(sub_zone) = take(SUB_ZONE) {
        builder = builder.sub_zone(sub_zone);
    }
    if let Some(name) = take(ADDRESS_TLS) {
        builder = builder.tls_name(name);
    }
    if let Some(authority) = take(AUTHORITY) {
        builder = builder.authority(authority);
    }
    let tags = service.tags.unwrap_or_default();
    if !tags.is_empty() {
        builder = builder.metadata("consul.tags", tags.join(","));
    }
    for (key, value) in meta {
        // What a newer version of this crate wrote is nobody's metadata.
        if !(ours && key.starts_with(PREFIX)) {
            builder = builder.metadata(key, value);
        }
    }
    builder.build().map(Some)
}

fn number(field: &'static str, text: &str) -> Result<i64, Error> {
    text.parse()
        .map_err(|_| Error::invalid(field, text, "it is no whole number"))
}

fn status_of(text: &str) -> Result<Status, Error> {
    [Status::Up, Status::Draining, Status::Down, Status::Starting]
        .into_iter()
        .find(|status| status.to_string() == text)
        .ok_or_else(|| Error::invalid(STATUS, text, "no status has this name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn element(i: u32, output: &str) -> String {
        format!(
            r#"{{"Node":{{"Node":"n{}","Address":"10.0.0.9","Meta":null}},"Service":{{"ID":"a-{i}","Service":"a","Tags":["x","y\u00fc"],"Address":"10.0.0.1","Port":{},"Meta":{{"k":"v, [}}]"}},"Weights":{{"Passing":{},"Warning":1}}}},"Checks":[{{"CheckID":"serfHealth","Status":"passing","Output":"{output}"}}]}}"#,
            i % 3,
            1 + i,
            1 + i % 5
        )
    }

    fn whole(text: &str) -> Result<Answer, serde_json::Error> {
        let mut rows = Rows::default();
        rows.read(Received::of(text.as_bytes(), rows.text()))?;
        Ok(rows.answer())
    }

    fn assert_same(a: &Answer, b: &Answer) {
        assert_eq!(a.endpoints, b.endpoints);
        let count = |answer: &Answer| answer.skipped.as_ref().map_or(0, |skipped| skipped.count);
        assert_eq!(count(a), count(b));
    }

    /// The naive twin reads every answer as a whole.
    #[test]
    fn what_is_read_by_its_differences_is_what_is_there() {
        let mut rng = Rng::seeded(1);
        let mut rows = Rows::default();
        let mut present: Vec<u32> = Vec::new();
        let mut before = Vec::new();
        for _ in 0..2_000 {
            match rng.below(4) {
                0 => present.insert(rng.below(present.len() as u32 + 1) as usize, rng.below(50)),
                1 if !present.is_empty() => {
                    present.remove(rng.below(present.len() as u32) as usize);
                }
                2 if rng.below(20) == 0 => present.clear(),
                _ => {}
            }
            let chatter = ["", "ok", "a longer output, with } and ]"][rng.below(3) as usize];
            let space = ["", " ", "\n"][rng.below(3) as usize];
            let parts = present.iter().map(|&i| match i {
                // No port: known as malformed.
                49 => element(i, chatter).replace("\"Port\":50", "\"Port\":0"),
                _ => element(i, chatter),
            });
            let text = format!(
                "[{space}{}{space}]",
                parts.collect::<Vec<_>>().join(&format!("{space},{space}"))
            );
            let next = Received::of(text.as_bytes(), rows.text());
            let changed = rows.read(next).unwrap();
            let answer = rows.answer();
            assert_same(&answer, &whole(&text).unwrap());
            let rows_now: Vec<_> = rows
                .rows
                .iter()
                .map(|row| row.endpoint.clone().ok())
                .collect();
            if !before.is_empty() {
                assert_eq!(changed, rows_now != before, "{text}");
            }
            before = rows_now;
        }
    }

    #[test]
    fn one_malformed_instance_costs_none_of_the_others() {
        let good = element(1, "");
        for bad in [
            "null",
            "7",
            "{}",
            "[]",
            "\"\"",
            &good.replace("\"a-1\"", "null"),
            &good.replace("\"Port\":2", "\"Port\":\"x\""),
            &good.replace("\"Port\":2", "\"Port\":65536"),
            &good.replace("\"Port\":2", "\"Port\":-1"),
            &good.replace("10.0.0.1", "not a host"),
            &good.replace("\"Passing\":2", "\"Passing\":-2"),
            &good.replace("\"k\":", "\"waypost-status\":"),
        ] {
            assert_ne!(bad, good);
            let answer = whole(&format!("[{},{bad},{}]", element(2, ""), element(3, ""))).unwrap();
            assert_eq!(answer.endpoints.len(), 2, "{bad}");
            assert_eq!(answer.skipped.unwrap().count, 1, "{bad}");
        }
    }

    #[test]
    fn checks_decide_by_the_worst() {
        let with = |status: &str| {
            let text = element(1, "").replace("\"passing\"", &format!("\"{status}\""));
            endpoint(&text).unwrap()
        };
        let told = |status: &str| with(status).map(|it| (it.status(), it.weight()));
        assert_eq!(told("passing"), Some((Status::Up, 2)));
        assert_eq!(told("warning"), Some((Status::Up, 1)));
        assert_eq!(told("critical"), None);
        assert_eq!(told("no such word"), None);
        let maintained = element(1, "").replace("serfHealth", "_node_maintenance");
        assert_eq!(
            endpoint(&maintained).unwrap().unwrap().status(),
            Status::Draining
        );
    }
}
