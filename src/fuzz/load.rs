//! Reports of servers' load.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::Error;
use crate::load::LoadReport;
use crate::registry::fuzz::is_short;

/// One header; what comes before the first line break says which, where it is
/// `bin`.
pub(super) fn header(data: &[u8]) -> bool {
    let (name, value): (HeaderName, _) = match data.strip_prefix(b"bin\n") {
        Some(value) => (LoadReport::HEADER_BIN, value),
        None => (LoadReport::HEADER, data),
    };
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return false;
    };
    let read = LoadReport::of(&HeaderMap::from_iter([(name, value)]));
    checked(read.map(|report| report.expect("there is a header")))
}

pub(super) fn protobuf(data: &[u8]) -> bool {
    checked(LoadReport::from_protobuf(data))
}

fn checked(read: Result<LoadReport, Error>) -> bool {
    let report = match read {
        Ok(report) => report,
        Err(error) => {
            is_short(&error);
            return false;
        }
    };
    for map in [
        &report.utilization,
        &report.request_cost,
        &report.named_metrics,
    ] {
        assert!(map.len() <= LoadReport::MOST_METRICS);
    }
    assert!(report.cpu_utilization >= 0.0 && report.eps.is_finite());
    comes_back(
        "protobuf",
        &report,
        LoadReport::from_protobuf(&report.to_protobuf()),
    );
    let bin = HeaderMap::from_iter([(LoadReport::HEADER_BIN, report.to_header_bin())]);
    let bin = LoadReport::of(&bin).map(|read| read.expect("there is a header"));
    comes_back("header", &report, bin);
    let json = serde_json::to_string(&report).expect("all numbers are finite");
    // The last bit of a number is not serde_json's to keep, without its feature
    // `float_roundtrip`.
    match LoadReport::from_json(&json) {
        Ok(again) => assert!(names(&again).eq(names(&report)), "{json}"),
        Err(error) => assert!(error.to_string().contains("bytes"), "{error}: {json}"),
    }
    // A name of other than plain words is none that text could hold.
    let plain = |name: &String| {
        !name.is_empty()
            && name
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
    };
    if names(&report).all(plain) {
        comes_back("text", &report, LoadReport::from_text(&report.to_text()));
    }
    true
}

fn names(report: &LoadReport) -> impl Iterator<Item = &String> {
    (report.utilization.keys())
        .chain(report.request_cost.keys())
        .chain(report.named_metrics.keys())
}

/// Written again, a report is the same; it may have become too long.
fn comes_back(format: &str, report: &LoadReport, again: Result<LoadReport, Error>) {
    match again {
        Ok(again) => assert_eq!(&again, report, "{format}"),
        Err(error) => assert!(error.to_string().contains("bytes"), "{format}: {error}"),
    }
}
