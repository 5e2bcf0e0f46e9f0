//! Endpoints by what they say of themselves.

use std::collections::BTreeMap;
use std::fmt;

use crate::endpoint::Endpoint;

/// Endpoints whose metadata has all of these values: a version, a stage, a
/// canary.
///
/// ```
/// use waypost::Endpoint;
/// use waypost::topology::Selector;
///
/// # fn main() -> Result<(), waypost::Error> {
/// let canary = Selector::new("version", "v2").and("stage", "canary");
/// let v2 = Endpoint::builder("10.0.0.1:80").metadata("version", "v2");
/// assert!(!canary.matches(&v2.clone().build()?));
/// assert!(canary.matches(&v2.metadata("stage", "canary").build()?));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Selector(BTreeMap<String, String>);

impl Selector {
    /// Those with this value of this key.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self(BTreeMap::new()).and(key, value)
    }

    /// And with this one too.
    pub fn and(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Whether the endpoint is one of them.
    #[must_use]
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        let metadata = endpoint.metadata();
        self.0
            .iter()
            .all(|(key, value)| metadata.get(key.as_str()).is_some_and(|v| **v == **value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        self.0.iter().try_for_each(|(key, value)| {
            write!(f, "{separator}{key}={value}")?;
            separator = ",";
            Ok(())
        })
    }
}
