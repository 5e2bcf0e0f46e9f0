//! Where an endpoint runs.

use std::fmt;
use std::sync::Arc;

use super::name::checked;
use crate::error::Error;

/// Region, zone and sub-zone, each as far as it is known (Envoy's `Locality`).
///
/// ```
/// use waypost::Locality;
///
/// let here = Locality::new(Some("eu-1"), Some("eu-1a"), None)?;
/// assert_eq!(here.zone(), Some("eu-1a"));
/// assert_eq!(here.to_string(), "eu-1/eu-1a");
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    region: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    sub_zone: Option<Arc<str>>,
}

const MAX_LEN: usize = 255;

impl Locality {
    /// A locality of the parts that are known.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when a part is empty, longer than 255 bytes, or
    /// holds control characters.
    pub fn new(
        region: Option<&str>,
        zone: Option<&str>,
        sub_zone: Option<&str>,
    ) -> Result<Self, Error> {
        let part =
            |field, text: Option<&str>| text.map(|text| checked(field, text, MAX_LEN)).transpose();
        Ok(Self {
            region: part("endpoint.locality.region", region)?,
            zone: part("endpoint.locality.zone", zone)?,
            sub_zone: part("endpoint.locality.sub_zone", sub_zone)?,
        })
    }

    /// The region, such as `eu-1`.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The zone within the region, such as `eu-1a`.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The part of the zone, such as a rack.
    #[must_use]
    pub fn sub_zone(&self) -> Option<&str> {
        self.sub_zone.as_deref()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Locality {
    /// The parts that are known, joined by `/`; `unknown` when none is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = [&self.region, &self.zone, &self.sub_zone]
            .into_iter()
            .flatten();
        let Some(first) = parts.next() else {
            return f.write_str("unknown");
        };
        f.write_str(first)?;
        parts.try_for_each(|part| write!(f, "/{part}"))
    }
}
