//! From text to endpoints, and where the text is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::endpoint::{Endpoint, ServiceName};
use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
    Yaml,
}

/// The endpoints of each service, in the order they were written.
pub(super) type Services = BTreeMap<ServiceName, Vec<Endpoint>>;

impl Format {
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_ascii_lowercase().as_str() {
            "toml" => Ok(Self::Toml),
            "json" => Ok(Self::Json),
            "yaml" | "yml" => Ok(Self::Yaml),
            _ => {
                let reason = "its ending tells no format; `.toml`, `.json`, `.yaml` and `.yml` do";
                Err(Error::invalid("file.path", path.display(), reason))
            }
        }
    }

    /// Reads a whole document; the `Err` says what is wrong, and in which line
    /// and column.
    pub(super) fn parse(self, text: &str) -> Result<Services, String> {
        let document: Result<Document, String> = match self {
            Self::Toml => toml::from_str(text).map_err(|error| {
                let place = error.span().map(|span| place_of(text, span.start));
                format!("{}{}", error.message(), place.unwrap_or_default())
            }),
            // These say where, too.
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Yaml => serde_yaml_ng::from_str(text).map_err(|error| error.to_string()),
        };
        let services = document?.services.0;
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
}

fn place_of(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!(" at line {line} column {column}")
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
