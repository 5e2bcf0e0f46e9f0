//! The report among headers or trailers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{LoadReport, base64, bounded, wrong};
use crate::error::Error;

impl LoadReport {
    /// The header of `TEXT …`, `JSON …` and `BIN …`.
    pub const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");

    /// The header, and gRPC's trailer, of the protobuf in base64.
    pub const HEADER_BIN: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

    /// The report in headers or trailers, if there is one.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use waypost::load::LoadReport;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert(LoadReport::HEADER, r#"JSON {"cpu_utilization": 0.3}"#.parse()?);
    /// let report = LoadReport::of(&headers)?.expect("there is one");
    /// assert_eq!(report.cpu_utilization, 0.3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Error> {
        // Most answers have neither, which takes less to see than to hash two names.
        let begins = |name: &HeaderName| name.as_str().starts_with("endpoint-load-metrics");
        if !headers.keys().any(begins) {
            return Ok(None);
        }
        if let Some(value) = headers.get(Self::HEADER_BIN) {
            return from_base64(text(value)?).map(Some);
        }
        let Some(value) = headers.get(Self::HEADER) else {
            return Ok(None);
        };
        let value = text(value)?;
        let (format, rest) = value.split_once(' ').unwrap_or((value, ""));
        match format {
            "TEXT" => Self::from_text(rest),
            "JSON" => Self::from_json(rest),
            "BIN" => from_base64(rest),
            // Before there were formats.
            _ if format.contains(['=', ':']) => Self::from_text(value),
            _ => Err(wrong("format", format, "is none of TEXT, JSON and BIN")),
        }
        .map(Some)
    }

    /// Reads JSON by the names of the protobuf, of either case; fields that are not known are
    /// passed over.
    ///
    /// # Errors
    ///
    /// When it is no JSON of this kind, a number is no share or amount, or there is too much of
    /// it.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        bounded(text.as_bytes())?;
        let report: Self = serde_json::from_str(text)
            .map_err(|error| Error::invalid("load report", "JSON", error))?;
        report.checked()
    }

    /// As the value of [`HEADER`](Self::HEADER), in text; none where a metric's name is none that
    /// a header can hold.
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("TEXT {}", self.to_text())).ok()
    }

    /// As the value of [`HEADER_BIN`](Self::HEADER_BIN).
    #[must_use]
    pub fn to_header_bin(&self) -> HeaderValue {
        // Base64 is nothing but letters, digits, + and /.
        HeaderValue::try_from(base64::encode(&self.to_protobuf()))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn text(value: &HeaderValue) -> Result<&str, Error> {
    value
        .to_str()
        .map_err(|_| wrong("header", "", "has other than visible ASCII"))
}

fn from_base64(text: &str) -> Result<LoadReport, Error> {
    bounded(text.as_bytes())?;
    match base64::decode(text.trim()) {
        Some(bytes) => LoadReport::from_protobuf(&bytes),
        None => Err(wrong("protobuf", "", "is no base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: HeaderName, value: &str) -> Result<Option<LoadReport>, Error> {
        LoadReport::of(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn every_format_is_read_from_its_header() {
        let report = LoadReport {
            cpu_utilization: 0.5,
            ..LoadReport::default()
        };
        let bin = report.to_header_bin();
        let bin = bin.to_str().unwrap();
        for (name, value) in [
            (LoadReport::HEADER, "TEXT cpu_utilization=0.5"),
            (LoadReport::HEADER, "cpu_utilization:0.5"),
            (
                LoadReport::HEADER,
                r#"JSON {"cpuUtilization": 0.5, "new": [1]}"#,
            ),
            (LoadReport::HEADER, &format!("BIN {bin}")),
            (LoadReport::HEADER_BIN, bin),
            (LoadReport::HEADER_BIN, &format!("{bin}==")),
        ] {
            assert_eq!(of(name, value).unwrap().as_ref(), Some(&report), "{value}");
        }
        assert_eq!(LoadReport::of(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for value in [
            "BAD x",
            "",
            "JSON",
            "JSON 1",
            r#"JSON {"eps": -1}"#,
            "BIN !",
            "BIN A",
        ] {
            assert!(of(LoadReport::HEADER, value).is_err(), "{value}");
        }
        assert!(of(LoadReport::HEADER_BIN, "////").is_err());
    }
}
