//! How endpoints are written and read: as a flat record whose defaults are left
//! out, and through the builder, so that nothing unchecked gets in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Address, Endpoint, EndpointId, EndpointSet, Locality, Status};

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LocalityRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_zone: Option<Arc<str>>,
}

impl Serialize for Locality {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let part = |text: Option<&str>| text.map(Arc::from);
        LocalityRecord {
            region: part(self.region()),
            zone: part(self.zone()),
            sub_zone: part(self.sub_zone()),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Locality {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let read = LocalityRecord::deserialize(from)?;
        Self::new(
            read.region.as_deref(),
            read.zone.as_deref(),
            read.sub_zone.as_deref(),
        )
        .map_err(de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<EndpointId>,
    address: Address,
    #[serde(default = "default_weight", skip_serializing_if = "is_default_weight")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Locality::is_unknown")]
    locality: Locality,
    #[serde(default, skip_serializing_if = "is_first")]
    priority: u32,
    #[serde(default, skip_serializing_if = "is_up")]
    status: Status,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
}

fn default_weight() -> u32 {
    Endpoint::DEFAULT_WEIGHT
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_default_weight(weight: &u32) -> bool {
    *weight == Endpoint::DEFAULT_WEIGHT
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_first(priority: &u32) -> bool {
    *priority == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_up(status: &Status) -> bool {
    *status == Status::Up
}

/// Metadata as a map that keeps what it read in order, so that a key given
/// twice reaches the builder, which refuses it.
#[derive(Default)]
struct Metadata(Vec<(String, String)>);

impl Metadata {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Metadata(pairs))
            }
        }

        from.deserialize_map(Pairs)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let pairs = |map: &BTreeMap<Arc<str>, Arc<str>>| {
            map.iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect()
        };
        EndpointRecord {
            id: Some(self.id.clone()),
            address: self.address.clone(),
            weight: self.weight,
            locality: self.locality.clone(),
            priority: self.priority,
            status: self.status,
            metadata: Metadata(pairs(&self.metadata)),
            tls_name: text(self.tls_name()),
            authority: text(self.authority()),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let read = EndpointRecord::deserialize(from)?;
        let mut builder = Endpoint::builder(read.address)
            .weight(read.weight)
            .priority(read.priority)
            .status(read.status);
        if let Some(id) = read.id {
            builder = builder.id(id.as_str());
        }
        for (key, value) in read.metadata.0 {
            builder = builder.metadata(key, value);
        }
        if let Some(name) = read.tls_name {
            builder = builder.tls_name(name);
        }
        if let Some(authority) = read.authority {
            builder = builder.authority(authority);
        }
        let mut endpoint = builder.build().map_err(de::Error::custom)?;
        endpoint.locality = read.locality;
        Ok(endpoint)
    }
}

impl Serialize for EndpointSet {
    /// As `{"version": 3, "endpoints": […]}`.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut record = to.serialize_struct("EndpointSet", 2)?;
        record.serialize_field("version", &self.version())?;
        record.serialize_field("endpoints", self.endpoints())?;
        record.end()
    }
}

impl<'de> Deserialize<'de> for EndpointSet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct SetRecord {
            #[serde(default)]
            version: u64,
            endpoints: Vec<Endpoint>,
        }
        let read = SetRecord::deserialize(from)?;
        EndpointSet::with_version(read.version, read.endpoints).map_err(de::Error::custom)
    }
}
