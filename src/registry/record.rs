//! Endpoints as JSON, for layouts that are others': what theirs lack is kept as
//! a record of ours within what they leave to everybody.

use serde_json::{Map, Value};

use crate::endpoint::Endpoint;
use crate::error::Error;

/// The key under which others' metadata or payload holds what is ours.
pub(super) const OURS: &str = "waypost";

/// The fields of an endpoint without its id, which is in the key.
pub(super) fn of(endpoint: &Endpoint) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(endpoint) {
        Ok(Value::Object(mut record)) => {
            record.remove("id");
            Ok(record)
        }
        Ok(_) => Err(Error::invalid("endpoint", endpoint, "it is no record")),
        Err(error) => Err(Error::invalid("endpoint", endpoint, error)),
    }
}

/// Takes the metadata out of a record.
pub(super) fn metadata_of(record: &mut Map<String, Value>) -> Map<String, Value> {
    match record.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    }
}

/// Metadata may be any JSON to others; to us it is texts, so that what is none
/// is written as JSON.
pub(super) fn texts(metadata: Map<String, Value>) -> Value {
    let texts = metadata.into_iter().map(|(key, value)| match value {
        Value::String(_) => (key, value),
        other => (key, Value::String(other.to_string())),
    });
    Value::Object(texts.collect())
}

/// The endpoint that a record is, with the id and the address that stand
/// elsewhere.
pub(super) fn endpoint(
    mut record: Map<String, Value>,
    id: &str,
    address: Value,
) -> serde_json::Result<Endpoint> {
    record.insert("id".to_owned(), id.into());
    record.insert("address".to_owned(), address);
    serde_json::from_value(Value::Object(record))
}
