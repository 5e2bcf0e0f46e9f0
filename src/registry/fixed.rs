//! A list that never changes.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use super::Discover;
use crate::endpoint::{Endpoint, EndpointBuilder, EndpointSet, ServiceName};
use crate::error::Error;

/// The same endpoints for every service that is asked for: for a service whose
/// replicas stand in the configuration, and for tests.
///
/// ```
/// use waypost::Fixed;
///
/// let replicas = Fixed::addresses(["10.0.0.1:80", "10.0.0.2:80"])?;
/// assert!(Fixed::addresses(["10.0.0.1"]).is_err());
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fixed {
    set: EndpointSet,
}

impl Fixed {
    /// These endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when two have the same id.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, Error> {
        let set = EndpointSet::new(endpoints)?;
        Ok(Self { set })
    }

    /// Endpoints at these addresses.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when an address cannot be parsed or comes twice.
    pub fn addresses<A: Into<EndpointBuilder>>(
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let endpoints: Result<Vec<_>, _> = addresses.into_iter().map(Endpoint::at).collect();
        Self::new(endpoints?)
    }
}

impl Discover for Fixed {
    fn watch(&self, _service: &ServiceName) -> BoxStream<'static, Result<EndpointSet, Error>> {
        let set = self.set.clone();
        stream::once(async { Ok(set) })
            .chain(stream::pending())
            .boxed()
    }

    fn is_authoritative(&self) -> bool {
        true
    }
}
