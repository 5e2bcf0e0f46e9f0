//! How an endpoint is written as a key and a value.

use serde_json::{Map, Value, json};

use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;
use crate::registry::record::{self, OURS};

/// What the values look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// That of etcd's Go client (`naming/endpoints`), which gRPC clients in Go
    /// resolve: `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{…}}` under
    /// `service/id`.
    #[default]
    Grpc,
    /// A [record](Endpoint#impl-Deserialize-for-Endpoint) of ours:
    /// `{"address":"10.0.0.1:80","weight":2}` under `waypost/service/id`.
    Plain,
}

impl Layout {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Grpc => "",
            Self::Plain => "waypost/",
        }
    }

    /// The value of an entry.
    pub(super) fn write(self, endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
        let mut record = record::of(endpoint)?;
        let value = match self {
            Self::Plain => Value::Object(record),
            Self::Grpc => {
                let address = record.remove("address");
                let mut metadata = record::metadata_of(&mut record);
                if metadata.contains_key(OURS) {
                    let reason = "the layout keeps this key for itself; take another";
                    return Err(Error::invalid("endpoint.metadata key", OURS, reason));
                }
                if !record.is_empty() {
                    metadata.insert(OURS.to_owned(), Value::Object(record));
                }
                let metadata = (!metadata.is_empty()).then_some(Value::Object(metadata));
                json!({ "Op": 0, "Addr": address, "Metadata": metadata })
            }
        };
        Ok(value.to_string().into_bytes())
    }

    /// The endpoint of an entry; its id is what follows the service in the key.
    pub(super) fn read(self, id: &str, value: &[u8]) -> Result<Endpoint, Error> {
        let refused = |reason: String| Error::registry(format!("etcd entry `{id}`"), reason);
        let read: Value = serde_json::from_slice(value)
            .map_err(|error| refused(format!("its value is no JSON: {error}")))?;
        let Value::Object(mut fields) = read else {
            return Err(refused("its value is no JSON object".to_owned()));
        };
        let address;
        let mut record = Map::new();
        match self {
            Self::Plain => {
                address = fields.remove("address").unwrap_or_default();
                record = fields;
            }
            Self::Grpc => {
                address = fields.remove("Addr").unwrap_or_default();
                if let Some(Value::Object(mut metadata)) = fields.remove("Metadata") {
                    if let Some(Value::Object(ours)) = metadata.remove(OURS) {
                        record = ours;
                    }
                    record.insert("metadata".to_owned(), record::texts(metadata));
                }
            }
        }
        if !address.is_string() {
            let field = if self == Self::Plain {
                "address"
            } else {
                "Addr"
            };
            return Err(refused(format!("its value has no text `{field}`")));
        }
        // The key names it: two entries of one service never have one id.
        record::endpoint(record, id, address).map_err(|error| refused(error.to_string()))
    }
}

/// What every key of a service begins with.
pub(super) fn prefix_of(prefix: &str, service: &ServiceName) -> String {
    format!("{prefix}{service}/")
}

/// The end of the range of all keys with this prefix: etcd's own rule, the
/// prefix with one added to its last byte.
pub(super) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // It ends with `/`, which is not 0xff.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
