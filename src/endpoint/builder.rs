//! How an endpoint is put together and checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::name::checked;
use super::{Address, Endpoint, EndpointId, Locality, Status};
use crate::error::Error;

/// Collects the parts of an [`Endpoint`]; [`build`](Self::build) checks them
/// all and names the first that is refused.
#[derive(Clone, Debug)]
#[must_use = "an endpoint is made by `build`"]
pub struct EndpointBuilder {
    address: Result<Address, Error>,
    id: Option<String>,
    weight: u32,
    region: Option<String>,
    zone: Option<String>,
    sub_zone: Option<String>,
    priority: u32,
    status: Status,
    metadata: Vec<(String, String)>,
    tls_name: Option<String>,
    authority: Option<String>,
}

const MAX_TEXT: usize = 255;
/// Generous for labels, small enough that a set of 10,000 endpoints with one
/// such value each stays below 100 MB.
const MAX_METADATA_VALUE: usize = 8 * 1024;

impl EndpointBuilder {
    fn new(address: Result<Address, Error>) -> Self {
        Self {
            address,
            id: None,
            weight: Endpoint::DEFAULT_WEIGHT,
            region: None,
            zone: None,
            sub_zone: None,
            priority: 0,
            status: Status::Up,
            metadata: Vec::new(),
            tls_name: None,
            authority: None,
        }
    }

    /// The identity; the address' text when it is not set.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The share of the calls, relative to the neighbours'; 1 by default, 0
    /// drains.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The region it runs in.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The zone it runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The part of the zone it runs in.
    pub fn sub_zone(mut self, sub_zone: impl Into<String>) -> Self {
        self.sub_zone = Some(sub_zone.into());
        self
    }

    /// The priority level; 0, the first, by default.
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// The status; up by default.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// One fact about it; a key that is given twice is refused.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// The name that its TLS certificate is checked against.
    pub fn tls_name(mut self, name: impl Into<String>) -> Self {
        self.tls_name = Some(name.into());
        self
    }

    /// The authority that calls to it carry, in place of the caller's.
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Checks the parts and puts them together.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`], with the field and the reason: an address that
    /// cannot be called, an empty, overlong or unprintable text, a metadata
    /// key given twice, a TLS name that is no host name, or an authority that
    /// is no `host` or `host:port`.
    pub fn build(self) -> Result<Endpoint, Error> {
        let address = self.address?;
        let id = match self.id {
            Some(id) => EndpointId::new(id)?,
            None => EndpointId::new(address.shared())?,
        };
        let locality = Locality::new(
            self.region.as_deref(),
            self.zone.as_deref(),
            self.sub_zone.as_deref(),
        )?;
        let mut metadata = BTreeMap::new();
        for (key, value) in self.metadata {
            let name = checked("endpoint.metadata key", &key, MAX_TEXT)?;
            if value.len() > MAX_METADATA_VALUE {
                let reason = format!(
                    "its value has {} bytes; at most {MAX_METADATA_VALUE} are taken",
                    value.len()
                );
                return Err(Error::invalid("endpoint.metadata", key, reason));
            }
            if metadata.insert(name, Arc::from(value)).is_some() {
                let reason = "the key is given twice; keep one";
                return Err(Error::invalid("endpoint.metadata key", key, reason));
            }
        }
        Ok(Endpoint {
            id,
            address,
            weight: self.weight,
            locality,
            priority: self.priority,
            status: self.status,
            metadata,
            tls_name: self.tls_name.as_deref().map(tls_name).transpose()?,
            authority: self.authority.as_deref().map(authority).transpose()?,
        })
    }
}

fn is_host(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn tls_name(name: &str) -> Result<Arc<str>, Error> {
    const FIELD: &str = "endpoint.tls_name";
    let text = checked(FIELD, name, MAX_TEXT)?;
    if !is_host(name) && name.parse::<std::net::IpAddr>().is_err() {
        let reason = "it is neither a host name nor an IP address";
        return Err(Error::invalid(FIELD, name, reason));
    }
    Ok(text)
}

fn authority(authority: &str) -> Result<Arc<str>, Error> {
    const FIELD: &str = "endpoint.authority";
    let text = checked(FIELD, authority, MAX_TEXT)?;
    let is_name = is_host(authority);
    if !is_name && !matches!(authority.parse::<Address>(), Ok(address) if address.host().is_some())
    {
        let reason = "it is neither `host` nor `host:port`";
        return Err(Error::invalid(FIELD, authority, reason));
    }
    Ok(text)
}

impl From<&str> for EndpointBuilder {
    fn from(address: &str) -> Self {
        Self::new(address.parse())
    }
}

impl From<String> for EndpointBuilder {
    fn from(address: String) -> Self {
        Self::from(address.as_str())
    }
}

impl From<SocketAddr> for EndpointBuilder {
    fn from(address: SocketAddr) -> Self {
        Self::new(Address::try_from(address))
    }
}

impl From<Address> for EndpointBuilder {
    fn from(address: Address) -> Self {
        Self::new(Ok(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_arrives() {
        let endpoint = Endpoint::builder("10.0.0.1:80")
            .id("a")
            .weight(0)
            .region("r")
            .zone("z")
            .sub_zone("s")
            .priority(2)
            .status(Status::Starting)
            .metadata("k", "v")
            .tls_name("users.internal")
            .authority("users:80")
            .build()
            .unwrap();
        assert_eq!(endpoint.id().as_str(), "a");
        assert_eq!(endpoint.weight(), 0);
        assert_eq!(endpoint.locality().to_string(), "r/z/s");
        assert_eq!(endpoint.priority(), 2);
        assert_eq!(endpoint.status(), Status::Starting);
        assert_eq!(endpoint.metadata()["k"].as_ref(), "v");
        assert_eq!(endpoint.tls_name(), Some("users.internal"));
        assert_eq!(endpoint.authority(), Some("users:80"));
        assert!(!endpoint.takes_calls());
    }

    #[test]
    fn the_refused_field_is_named() {
        let at = || Endpoint::builder("10.0.0.1:80");
        for (builder, field) in [
            (Endpoint::builder("10.0.0.1"), "endpoint.address"),
            (at().id(""), "endpoint.id"),
            (at().zone(""), "endpoint.locality.zone"),
            (at().region("a\u{0}"), "endpoint.locality.region"),
            (at().metadata("", "v"), "endpoint.metadata key"),
            (
                at().metadata("k", "v").metadata("k", "w"),
                "endpoint.metadata key",
            ),
            (at().metadata("k", "v".repeat(9_000)), "endpoint.metadata"),
            (at().tls_name("https://a"), "endpoint.tls_name"),
            (at().authority("a b"), "endpoint.authority"),
            (at().authority("unix:/x"), "endpoint.authority"),
        ] {
            let error = builder.build().unwrap_err();
            assert!(error.is_invalid());
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn the_identity_is_the_address_unless_given() {
        let a = Endpoint::at("10.0.0.1:80").unwrap();
        assert_eq!(a.id().as_str(), "10.0.0.1:80");
        let heavier = a.clone().with_weight(7);
        assert_eq!(a.id(), heavier.id());
        assert_ne!(a, heavier);
    }
}
