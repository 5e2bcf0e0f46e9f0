//! The subset that a call names, from its request.

use std::sync::Arc;

use http::header::HeaderName;

use super::RequestHead;
use crate::error::Error;
use crate::topology::Selector;

/// Which endpoints a call names: metadata values, taken from headers of its
/// request. They are a part of the balancer's
/// [split](crate::topology::Topology::split), such as a version or a stage.
///
/// A request that has none of the headers names nothing. Cheap to clone.
///
/// ```
/// use waypost::client::http::{BalanceLayer, RequestSubset};
/// use waypost::topology::{Selector, Topology};
/// use waypost::{Balancer, Fixed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost::Error> {
/// // Testers say `x-version: v2`; nobody else sees it.
/// let versions = Topology::new()
///     .split([(Selector::new("version", "v1"), 1), (Selector::new("version", "v2"), 0)]);
/// let users = Balancer::builder("users")
///     .topology(versions)
///     .build(Fixed::addresses(["10.0.0.1:80"])?)
///     .await?;
/// let layer = BalanceLayer::new(users).subset(RequestSubset::header("x-version", "version")?);
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RequestSubset {
    keys: Arc<[(HeaderName, Arc<str>)]>,
}

impl RequestSubset {
    /// The endpoints whose metadata has, for `key`, the value of that header.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when no header can have that name.
    pub fn header(name: &str, key: &str) -> Result<Self, Error> {
        let reason = "a header's name is letters, digits and hyphens, such as `x-version`";
        let name = HeaderName::try_from(name)
            .map_err(|_| Error::invalid("header", name.escape_debug(), reason))?;
        Ok(Self {
            keys: Arc::new([(name, key.into())]),
        })
    }

    /// These and those: of a request that has both headers, the endpoints that
    /// agree with both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let keys = self.keys.iter().chain(&*other.keys);
        Self {
            keys: keys.cloned().collect(),
        }
    }

    pub(in crate::client) fn of(&self, head: &RequestHead<'_>) -> Option<Selector> {
        let named = self.keys.iter().filter_map(|(header, key)| {
            let value = head.headers.get(header)?.to_str().ok()?;
            Some((&**key, value))
        });
        named.fold(None, |selector: Option<Selector>, (key, value)| {
            Some(match selector {
                None => Selector::new(key, value),
                Some(selector) => selector.and(key, value),
            })
        })
    }
}
