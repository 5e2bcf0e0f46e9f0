//! Fields of protobuf, and `orca_load_report.proto` of them, by hand: four kinds of fields do not make up for a
//! dependency.

use std::collections::BTreeMap;

use super::{LoadReport, wrong};
use crate::error::Error;

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

pub(super) fn read(bytes: &[u8]) -> Result<LoadReport, Error> {
    let broken = || wrong("protobuf", "", "ends within a field, or has one of no kind");
    let mut report = LoadReport::default();
    let mut left = Reader(bytes);
    while let Some(field) = left.field().ok_or_else(broken)? {
        match field {
            (1, Value::Double(value)) => report.cpu_utilization = value,
            (2, Value::Double(value)) => report.mem_utilization = value,
            (4, Value::Bytes(entry)) => insert(&mut report.request_cost, entry)?,
            (5, Value::Bytes(entry)) => insert(&mut report.utilization, entry)?,
            (6, Value::Double(value)) => report.rps_fractional = value,
            (7, Value::Double(value)) => report.eps = value,
            (8, Value::Bytes(entry)) => insert(&mut report.named_metrics, entry)?,
            (9, Value::Double(value)) => report.application_utilization = value,
            (1 | 2 | 4..=9, _) => {
                return Err(wrong("protobuf", field.0, "is a field of another kind"));
            }
            _ => {}
        }
    }
    Ok(report)
}

/// A map is a list of messages: 1 is the key, 2 the value.
fn insert(map: &mut BTreeMap<String, f64>, entry: &[u8]) -> Result<(), Error> {
    let broken = || wrong("metric", "", "is no entry of a map");
    let (mut key, mut amount) = ("", 0.0);
    let mut left = Reader(entry);
    while let Some(field) = left.field().ok_or_else(broken)? {
        match field {
            (1, Value::Bytes(name)) => key = std::str::from_utf8(name).map_err(|_| broken())?,
            (2, Value::Double(value)) => amount = value,
            _ => {}
        }
    }
    map.insert(key.to_owned(), amount);
    Ok(())
}

pub(crate) enum Value<'a> {
    #[cfg_attr(
        not(feature = "tonic"),
        expect(dead_code, reason = "only gRPC's own messages have one")
    )]
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Other,
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// None where it is broken, within: none at the end.
    #[expect(clippy::option_option, reason = "broken and at the end differ")]
    pub(crate) fn field(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            VARINT => Value::Varint(self.varint()?),
            EIGHT_BYTES => Value::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            BYTES => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            FOUR_BYTES => {
                self.take(4)?;
                Value::Other
            }
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(len)?;
        self.0 = left;
        Some(taken)
    }

    /// At most ten bytes of seven bits each.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

pub(super) fn write(report: &LoadReport) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, value) in [
        (1, report.cpu_utilization),
        (2, report.mem_utilization),
        (6, report.rps_fractional),
        (7, report.eps),
        (9, report.application_utilization),
    ] {
        if value != 0.0 {
            double(&mut bytes, number, value);
        }
    }
    for (number, map) in [
        (4, &report.request_cost),
        (5, &report.utilization),
        (8, &report.named_metrics),
    ] {
        for (name, &value) in map {
            let mut entry = Vec::new();
            prefixed(&mut entry, 1, name.as_bytes());
            double(&mut entry, 2, value);
            prefixed(&mut bytes, number, &entry);
        }
    }
    bytes
}

fn double(bytes: &mut Vec<u8>, number: u64, value: f64) {
    varint(bytes, number << 3 | EIGHT_BYTES);
    bytes.extend(value.to_le_bytes());
}

pub(crate) fn prefixed(bytes: &mut Vec<u8>, number: u64, value: &[u8]) {
    varint(bytes, number << 3 | BYTES);
    varint(bytes, value.len() as u64);
    bytes.extend(value);
}

pub(super) fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_never_runs_over() {
        let all: Vec<u8> = std::iter::repeat_n(0xff, 32).collect();
        for len in 0..32 {
            assert_eq!(Reader(&all[..len]).varint(), None);
        }
        assert_eq!(Reader(&[0xac, 0x02]).varint(), Some(300));
        let mut pushed = Vec::new();
        varint(&mut pushed, 300);
        assert_eq!(pushed, [0xac, 0x02]);
    }
}
