//! `name=value` pairs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{LoadReport, wrong};
use crate::error::Error;

pub(super) fn read(text: &str) -> Result<LoadReport, Error> {
    let mut report = LoadReport::default();
    let mut seen = Vec::new();
    let pairs = text.split(',').map(str::trim);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once(['=', ':']) else {
            return Err(wrong(pair, "", "has no value"));
        };
        let (name, value) = (name.trim(), value.trim());
        let Ok(number) = value.parse::<f64>() else {
            return Err(wrong(name, value, "is no number"));
        };
        if seen.contains(&name) {
            return Err(wrong(name, value, "is there twice"));
        }
        if seen.len() >= 4 * LoadReport::MOST_METRICS {
            return Err(wrong("metrics", seen.len(), "are more than 64 of a kind"));
        }
        seen.push(name);
        set(&mut report, name, number)?;
    }
    Ok(report)
}

fn set(report: &mut LoadReport, name: &str, value: f64) -> Result<(), Error> {
    match name {
        "cpu_utilization" => report.cpu_utilization = value,
        "mem_utilization" => report.mem_utilization = value,
        "application_utilization" => report.application_utilization = value,
        "rps_fractional" => report.rps_fractional = value,
        "eps" => report.eps = value,
        _ => {
            let (map, key) = match name.split_once('.') {
                Some(("utilization", key)) => (&mut report.utilization, key),
                Some(("request_cost", key)) => (&mut report.request_cost, key),
                Some(("named_metrics", key)) => (&mut report.named_metrics, key),
                _ => return Err(wrong(name, value, "is not known")),
            };
            if key.is_empty() {
                return Err(wrong(name, value, "has no name"));
            }
            map.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

pub(super) fn write(report: &LoadReport) -> String {
    let mut text = String::new();
    let mut pair = |kind: &str, name: &str, value: f64| {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{kind}{name}={value}");
    };
    for (name, value) in [
        ("cpu_utilization", report.cpu_utilization),
        ("mem_utilization", report.mem_utilization),
        ("application_utilization", report.application_utilization),
        ("rps_fractional", report.rps_fractional),
        ("eps", report.eps),
    ] {
        if value != 0.0 {
            pair("", name, value);
        }
    }
    let mut map = |kind: &str, map: &BTreeMap<String, f64>| {
        for (name, &value) in map {
            pair(kind, name, value);
        }
    };
    map("utilization.", &report.utilization);
    map("request_cost.", &report.request_cost);
    map("named_metrics.", &report.named_metrics);
    text
}
