//! Endpoints that are known here: written down, in a file, or registered in this
//! process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::time;
use super::Opened;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::registry::{Fixed, InMemory};

/// A [`Fixed`] list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedConfig {
    /// Addresses, such as `10.0.0.1:80`.
    pub addresses: Vec<String>,
    /// Endpoints with all that there is to say of them, by the fields of
    /// [`Endpoint`]'s serde form.
    pub endpoints: Vec<Endpoint>,
}

impl FixedConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        if self.addresses.is_empty() && self.endpoints.is_empty() {
            let reason = "there is no endpoint; name one in `addresses` or `endpoints`";
            return Err(Error::config(at, reason));
        }
        let mut endpoints = self.endpoints.clone();
        for (index, address) in self.addresses.iter().enumerate() {
            let endpoint = Endpoint::at(address.as_str());
            let place = || format!("{at}.addresses.{index}");
            endpoints.push(endpoint.map_err(|error| Error::config(place(), error))?);
        }
        let fixed = Fixed::new(endpoints).map_err(|error| Error::config(at, error))?;
        Ok(Opened::source(fixed))
    }
}

/// An [`InMemory`] registry of its own, each time that it is opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InMemoryConfig {
    /// After how long without a heartbeat an entry lapses; never if not set.
    #[serde(with = "time::option")]
    pub ttl: Option<Duration>,
}

impl InMemoryConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        let registry = match self.ttl {
            Some(ttl) => InMemory::with_ttl(ttl).map_err(|error| error.within(at))?,
            None => InMemory::new(),
        };
        Ok(Opened::Registry(Arc::new(registry)))
    }
}

/// A `registry::File`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    /// Where it is; its ending tells its format.
    pub path: PathBuf,
}

#[cfg(feature = "file")]
impl FileConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        let file = crate::registry::File::open(&self.path);
        file.map(Opened::source).map_err(|error| error.within(at))
    }
}
