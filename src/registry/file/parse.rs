//! From text to endpoints, and where the text is wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::endpoint::{Endpoint, ServiceName};
use crate::format::Format;

/// The endpoints of each service, in the order they were written.
pub(super) type Services = BTreeMap<ServiceName, Vec<Endpoint>>;

/// Reads a whole document; the `Err` says what is wrong, and where.
pub(super) fn parse(format: Format, text: &str) -> Result<Services, String> {
    let document: Document = format.read(text)?;
    let services = document.services.0;
    for (service, endpoints) in &services {
        let mut ids: Vec<_> = endpoints.iter().map(Endpoint::id).collect();
        ids.sort();
        if let Some([id, _]) = ids.array_windows().find(|[a, b]| a == b) {
            return Err(format!(
                "services.{service}: two endpoints have the id `{id}`; give each its own"
            ));
        }
    }
    Ok(services)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: ServicesRecord,
}

/// A map in which no service is named twice, which JSON would let pass.
struct ServicesRecord(Services);

impl<'de> Deserialize<'de> for ServicesRecord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = ServicesRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from services to lists of endpoints")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut services = Services::new();
                while let Some((service, endpoints)) = map.next_entry::<ServiceName, _>()? {
                    let name = service.clone();
                    if services.insert(service, endpoints).is_some() {
                        let twice = format!("service `{name}` is there twice");
                        return Err(A::Error::custom(twice));
                    }
                }
                Ok(ServicesRecord(services))
            }
        }

        from.deserialize_map(Pairs)
    }
}
