//! What a server says of its own load, along with an answer.
//!
//! A client sees its own calls alone. With many clients that is next to nothing, and only the
//! server knows how busy it is. ORCA (Open Request Cost Aggregation, as Envoy, gRPC and vLLM speak it) puts
//! that into the answer: the header `endpoint-load-metrics` with `TEXT …`, `JSON …` or `BIN …`, or
//! `endpoint-load-metrics-bin` with a protobuf in base64, which gRPC sends as a trailer.
//!
//! Between gRPC's clients and servers there is a stream of them, too, which comes without calls (feature
//! `tonic`): [`OpenRcaService`](crate::server) writes it, and `GrpcBuilder::load_streams` reads it.
//!
//! Reading is pure and bounded: a report has at most [`LoadReport::MOST_METRICS`] metrics and
//! [`LoadReport::LONGEST`] bytes, and what is no report is an error that says why.
//!
//! ```
//! use waypost::load::LoadReport;
//!
//! let report = LoadReport::from_text("cpu_utilization=0.3, rps_fractional=120, named_metrics.in_flight=4")?;
//! assert_eq!(report.cpu_utilization, 0.3);
//! assert_eq!(report.in_flight(), Some(4.0));
//! assert!(LoadReport::from_text("cpu_utilization=much").is_err());
//! # Ok::<(), waypost::Error>(())
//! ```

#[cfg(any(test, feature = "http"))]
pub(crate) mod base64;
mod busy;
#[cfg(feature = "http")]
mod header;
mod latency;
pub(crate) mod protobuf;
#[cfg(feature = "tonic")]
pub(crate) mod stream;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use busy::BusyTime;
pub use latency::LatencyByLoad;

use crate::error::Error;

/// One report of a server; what it leaves out is 0.
///
/// `xds.data.orca.v3.OrcaLoadReport`, but for `rps`, which is deprecated.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct LoadReport {
    /// Share of the processors in use; above 1 where there is a soft limit.
    #[serde(alias = "cpuUtilization")]
    pub cpu_utilization: f64,
    /// Share of the memory in use, in 0..=1.
    #[serde(alias = "memUtilization")]
    pub mem_utilization: f64,
    /// Share in use of whatever the application runs out of first; above 1 where there is a soft
    /// limit.
    #[serde(alias = "applicationUtilization")]
    pub application_utilization: f64,
    /// Calls that are answered a second.
    #[serde(alias = "rpsFractional")]
    pub rps_fractional: f64,
    /// Calls that fail a second.
    pub eps: f64,
    /// Shares of further resources, in 0..=1.
    pub utilization: BTreeMap<String, f64>,
    /// What this one call cost.
    #[serde(alias = "requestCost")]
    pub request_cost: BTreeMap<String, f64>,
    /// Whatever else the application counts.
    #[serde(alias = "namedMetrics")]
    pub named_metrics: BTreeMap<String, f64>,
}

impl LoadReport {
    /// How many metrics of each kind a report may have: Envoy's reporters have some ten.
    pub const MOST_METRICS: usize = 64;

    /// The longest report that is read, in bytes: what HTTP servers allow a header.
    pub const LONGEST: usize = 8 << 10;

    /// The named metric for calls that the server holds, waiting ones too.
    pub const IN_FLIGHT: &'static str = "in_flight";

    /// The named metric for the time that calls wait before they are worked at, in milliseconds.
    pub const QUEUE_MS: &'static str = "queue_ms";

    /// The named metric for what a call takes that comes now, in milliseconds, as those took that
    /// came when the server held about as many.
    pub const LATENCY_MS: &'static str = "latency_ms";

    /// The calls that the server holds, if it says so.
    #[must_use]
    pub fn in_flight(&self) -> Option<f64> {
        self.named_metrics.get(Self::IN_FLIGHT).copied()
    }

    /// What a call takes that comes now, if the server says so.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        let seconds = self.named_metrics.get(Self::LATENCY_MS)? / 1e3;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What is to be balanced by: the application's own utilization where there is one, else the
    /// processor's (gRPC A58).
    #[must_use]
    pub fn utilization_to_balance(&self) -> f64 {
        if self.application_utilization > 0.0 {
            self.application_utilization
        } else {
            self.cpu_utilization
        }
    }

    /// Reads `name=value` pairs between commas, `name` of a map with its kind before it
    /// (`named_metrics.in_flight`); `:` for `=`, as Envoy's first readers had it.
    ///
    /// # Errors
    ///
    /// When a field is not known or no number, a number is no share or amount, or there is too
    /// much of it.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        bounded(text.as_bytes())?;
        text::read(text)?.checked()
    }

    /// Reads the binary protobuf; fields that are not known are passed over.
    ///
    /// # Errors
    ///
    /// When it is no protobuf of this kind, a number is no share or amount, or there is too much
    /// of it.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, Error> {
        bounded(bytes)?;
        protobuf::read(bytes)?.checked()
    }

    /// As `name=value` pairs, which [`from_text`](Self::from_text) reads; what is 0 is left out.
    #[must_use]
    pub fn to_text(&self) -> String {
        text::write(self)
    }

    /// As the binary protobuf.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        protobuf::write(self)
    }

    fn checked(self) -> Result<Self, Error> {
        let amounts = [
            ("cpu_utilization", self.cpu_utilization),
            ("mem_utilization", self.mem_utilization),
            ("application_utilization", self.application_utilization),
            ("rps_fractional", self.rps_fractional),
            ("eps", self.eps),
        ];
        for (name, amount) in amounts {
            if !(amount.is_finite() && amount >= 0.0) {
                return Err(wrong(name, amount, "is no amount: finite, and 0 or more"));
            }
        }
        for map in [&self.utilization, &self.request_cost, &self.named_metrics] {
            if map.len() > Self::MOST_METRICS {
                return Err(wrong("metrics", map.len(), "are more than 64 of a kind"));
            }
            if let Some((name, value)) = map.iter().find(|(_, value)| !value.is_finite()) {
                return Err(wrong(name, value, "is not finite"));
            }
        }
        Ok(self)
    }
}

fn bounded(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > LoadReport::LONGEST {
        return Err(wrong("bytes", bytes.len(), "are more than 8 KiB"));
    }
    Ok(())
}

fn wrong(field: &str, value: impl fmt::Display, reason: &'static str) -> Error {
    Error::invalid("load report", format_args!("{field} = {value}"), reason)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers come back as they were")]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn full() -> LoadReport {
        let map = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        LoadReport {
            cpu_utilization: 0.7,
            mem_utilization: 0.9,
            application_utilization: 0.8,
            rps_fractional: 1000.0,
            eps: 2.0,
            utilization: map("disk", 0.25),
            request_cost: map("rows", 17.5),
            named_metrics: map("in_flight", 3.0),
        }
    }

    #[test]
    fn text_and_protobuf_come_back_as_they_were() {
        assert_eq!(LoadReport::from_text(&full().to_text()).unwrap(), full());
        let bytes = full().to_protobuf();
        assert_eq!(LoadReport::from_protobuf(&bytes).unwrap(), full());
        let nothing = LoadReport::default();
        assert_eq!(LoadReport::from_text(&nothing.to_text()).unwrap(), nothing);
        assert_eq!(LoadReport::from_protobuf(&[]).unwrap(), nothing);
    }

    /// Made by hand from `orca_load_report.proto`: field 1 is a double, 3 a varint that is
    /// passed over, 8 a map.
    #[test]
    fn the_bytes_are_those_of_the_schema() {
        let mut bytes = vec![0x09];
        bytes.extend(0.5_f64.to_le_bytes());
        bytes.extend([0x18, 0x96, 0x01]);
        bytes.extend([0x42, 12, 0x0a, 1, b'q', 0x11]);
        bytes.extend(2.0_f64.to_le_bytes());
        let report = LoadReport::from_protobuf(&bytes[..bytes.len()]).unwrap();
        assert_eq!(report.cpu_utilization, 0.5);
        assert_eq!(report.named_metrics["q"], 2.0);
    }

    #[test]
    fn envoys_first_text_and_vllms_are_read() {
        let report = LoadReport::from_text("cpu_utilization:0.7,named_metrics.foo:123").unwrap();
        assert_eq!(
            (report.cpu_utilization, report.named_metrics["foo"]),
            (0.7, 123.0)
        );
        let report = LoadReport::from_text(
            "named_metrics.kv_cache_usage_perc=0.98, named_metrics.num_requests_waiting=12",
        );
        assert_eq!(report.unwrap().named_metrics["num_requests_waiting"], 12.0);
    }

    #[test]
    fn what_is_no_report_is_refused_with_the_reason() {
        let many: Vec<String> = (0..65).map(|at| format!("named_metrics.m{at}=1")).collect();
        let many = many.join(",");
        for (text, reason) in [
            ("cpu_utilization=NaN", "no amount"),
            ("cpu_utilization=inf", "no amount"),
            ("eps=-1", "no amount"),
            ("eps=x", "no number"),
            ("eps", "no value"),
            ("speed=1", "not known"),
            ("named_metrics.=1", "no name"),
            ("eps=1,eps=1", "twice"),
            (&many, "more than 64"),
            (&"x".repeat(9_000), "8 KiB"),
        ] {
            let error = LoadReport::from_text(text).unwrap_err();
            assert!(
                error.is_invalid() && error.to_string().contains(reason),
                "{text}: {error}"
            );
        }
        for bytes in [
            &[0x09, 1][..],
            &[0x08, 0x01],
            &[0x42, 0x7f],
            &[0xff; 12],
            &[0x03],
        ] {
            assert!(LoadReport::from_protobuf(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in any::<String>()) {
            if let Ok(report) = LoadReport::from_protobuf(&bytes) {
                prop_assert_eq!(LoadReport::from_protobuf(&report.to_protobuf()).unwrap(), report);
            }
            if let Ok(report) = LoadReport::from_text(&text) {
                prop_assert!(report.eps >= 0.0);
            }
            if let Some(bytes) = base64::decode(&text) {
                prop_assert!(bytes.len() <= text.len());
            }
        }

        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(base64::decode(&base64::encode(&bytes)), Some(bytes));
        }
    }
}
