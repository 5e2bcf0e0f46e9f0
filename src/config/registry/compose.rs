//! Registries made of registries.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::time;
use super::{Opened, RegistryConfig};
use crate::error::Error;
use crate::registry::{Discover, Fallback, Map, Merge};

/// A registry that another is made of.
type Inner = Option<Box<RegistryConfig>>;

fn open(inner: &Inner, at: &str, key: &str) -> Result<Arc<dyn Discover>, Error> {
    let path = format!("{at}.{key}");
    match inner {
        Some(registry) => registry.open_at(&path).map(Opened::discover),
        None => Err(Error::config(path, "there is no registry; set one")),
    }
}

/// A [`Merge`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MergeConfig {
    /// The registries. Of endpoints with one id, the first one's is taken.
    pub sources: Vec<SourceConfig>,
}

/// One of the registries of a [`Merge`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name in messages.
    pub name: String,
    /// The registry.
    pub of: Inner,
}

impl MergeConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        if self.sources.is_empty() {
            let path = format!("{at}.sources");
            return Err(Error::config(path, "there is none; name the registries"));
        }
        let mut merge = Merge::new();
        for (index, source) in self.sources.iter().enumerate() {
            let at = format!("{at}.sources.{index}");
            if source.name.is_empty() {
                let reason = "it has none, by which messages can tell it from the others";
                return Err(Error::config(format!("{at}.name"), reason));
            }
            merge = merge.source(source.name.as_str(), open(&source.of, &at, "of")?);
        }
        Ok(Opened::source(merge))
    }
}

/// A [`Fallback`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackRegistryConfig {
    /// The registry that is asked.
    pub first: Inner,
    /// The one that is while the first is silent or fails.
    pub second: Inner,
    /// After how long it is.
    #[serde(with = "time")]
    pub after: Duration,
}

impl Default for FallbackRegistryConfig {
    fn default() -> Self {
        Self {
            first: None,
            second: None,
            after: Duration::from_secs(10),
        }
    }
}

impl FallbackRegistryConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        let first = open(&self.first, at, "first")?;
        let second = open(&self.second, at, "second")?;
        Ok(Opened::source(Fallback::new(first, second, self.after)))
    }
}

/// A [`Map`] that leaves endpoints out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// The registry.
    pub of: Inner,
    /// Only endpoints of this zone.
    pub zone: Option<String>,
    /// Only endpoints whose metadata says so.
    pub metadata: BTreeMap<String, String>,
}

impl FilterConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        let mut source = open(&self.of, at, "of")?;
        if self.zone.is_none() && self.metadata.is_empty() {
            let reason = "it leaves nothing out; set `zone` or `metadata`";
            return Err(Error::config(at, reason));
        }
        if let Some(zone) = &self.zone {
            source = Arc::new(Map::zone(source, zone));
        }
        for (key, value) in &self.metadata {
            source = Arc::new(Map::metadata(source, key, value));
        }
        Ok(Opened::Source(source))
    }
}

/// A `registry::Snapshotted`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// The registry whose sets are kept.
    pub of: Inner,
    /// The folder that they are kept in.
    pub folder: PathBuf,
}

#[cfg(feature = "snapshot")]
impl SnapshotConfig {
    pub(super) fn open(&self, at: &str) -> Result<Opened, Error> {
        use crate::registry::Snapshotted;

        let place = format!("{at}.of");
        let Some(of) = &self.of else {
            return Err(Error::config(place, "there is no registry; set one"));
        };
        if self.folder.as_os_str().is_empty() {
            let reason = "it is empty; name a folder of this process's own";
            return Err(Error::config(format!("{at}.folder"), reason));
        }
        Ok(match of.open_at(&place)? {
            Opened::Source(source) => Opened::source(Snapshotted::new(source, &self.folder)?),
            Opened::Registry(registry) => {
                Opened::Registry(Arc::new(Snapshotted::new(registry, &self.folder)?))
            }
        })
    }
}
