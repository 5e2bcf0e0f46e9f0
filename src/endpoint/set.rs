//! All endpoints of a service at one moment.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Endpoint, EndpointId};
use crate::error::Error;

/// The endpoints of a service at one moment: whole, immutable, ordered by id,
/// and versioned.
///
/// A set that follows another ([`EndpointSet::next`]) shares the endpoints that
/// did not change, so that comparing two sets costs a pointer comparison an
/// endpoint, and a new set of 10,000 with one change allocates one endpoint.
///
/// Cloning bumps a reference count.
///
/// ```
/// use waypost::{Endpoint, EndpointSet};
///
/// # fn main() -> Result<(), waypost::Error> {
/// let one = EndpointSet::new([Endpoint::at("10.0.0.1:80")?])?;
/// let two = one.next([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?;
///
/// assert!(two.version() > one.version());
/// let diff = one.diff(&two);
/// assert_eq!((diff.added.len(), diff.removed.len(), diff.changed.len()), (1, 0, 0));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EndpointSet {
    version: u64,
    endpoints: Arc<[Arc<Endpoint>]>,
    skipped: Option<Arc<Skipped>>,
}

/// What a source left out of a set because it could not be used: malformed
/// entries, and all but the first of those with the same id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// Why one of them was.
    pub example: Error,
}

impl Skipped {
    /// One entry that was left out.
    #[must_use]
    pub fn one(example: Error) -> Self {
        Self { count: 1, example }
    }

    /// Counts one entry more in `skipped`, whose first example stays.
    pub fn count(skipped: &mut Option<Self>, example: Error) {
        match skipped {
            Some(skipped) => skipped.count += 1,
            None => *skipped = Some(Self::one(example)),
        }
    }
}

impl EndpointSet {
    /// The set without endpoints, version 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: 0,
            endpoints: Arc::from([]),
            skipped: None,
        }
    }

    /// A first set, version 1.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when two endpoints have the same id.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, Error> {
        Self::with_version(1, endpoints)
    }

    pub(super) fn with_version(
        version: u64,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<Self, Error> {
        let empty = Self {
            version: version.saturating_sub(1),
            ..Self::empty()
        };
        let mut set = empty.next(endpoints)?;
        set.version = version;
        Ok(set)
    }

    /// The set that follows this one. Endpoints that are equal to this set's
    /// are shared with it. When nothing differs, it is this very set with this
    /// very version; otherwise the version is one higher.
    ///
    /// O(n log n) in the number of endpoints, O(n) when they come ordered.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when two endpoints have the same id.
    pub fn next(&self, endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, Error> {
        let mut next: Vec<Endpoint> = endpoints.into_iter().collect();
        next.sort_by(|a, b| a.id().cmp(b.id()));
        if let Some(pair) = next.windows(2).find(|pair| pair[0].id() == pair[1].id()) {
            let reason = "two endpoints of the set have this id; ids are unique in a service";
            return Err(Error::invalid("endpoint.id", pair[0].id(), reason));
        }
        let mut old = self.endpoints.iter().peekable();
        let shared: Vec<Arc<Endpoint>> = next
            .into_iter()
            .map(|endpoint| {
                while old.next_if(|old| old.id() < endpoint.id()).is_some() {}
                match old.next_if(|old| old.id() == endpoint.id()) {
                    Some(old) if **old == endpoint => Arc::clone(old),
                    _ => Arc::new(endpoint),
                }
            })
            .collect();
        Ok(self.followed_by(shared))
    }

    /// The set that follows this one with these endpoints, the first of each
    /// id, of which it shares those that are equal to its own; and those that
    /// were left out. O(n log n), and O(n) where they are ordered by id.
    #[cfg(any(
        test,
        feature = "consul",
        feature = "dns",
        feature = "etcd",
        feature = "eureka",
        feature = "zookeeper"
    ))]
    pub(crate) fn next_of_firsts(
        &self,
        mut endpoints: Vec<Arc<Endpoint>>,
    ) -> (Self, Vec<Arc<Endpoint>>) {
        // Stable: the first of an id stays the first.
        endpoints.sort_by(|a, b| a.id().cmp(b.id()));
        let mut left_out = Vec::new();
        endpoints.dedup_by(|later, first| {
            let is_same = later.id() == first.id();
            if is_same {
                left_out.push(Arc::clone(later));
            }
            is_same
        });
        let mut old = self.endpoints.iter().peekable();
        for endpoint in &mut endpoints {
            // Most were told before, and stand where they stood.
            if old.next_if(|old| Arc::ptr_eq(old, endpoint)).is_some() {
                continue;
            }
            while old.next_if(|old| old.id() < endpoint.id()).is_some() {}
            if let Some(old) = old.next_if(|old| old.id() == endpoint.id())
                && old == endpoint
            {
                *endpoint = Arc::clone(old);
            }
        }
        (self.followed_by(endpoints), left_out)
    }

    /// The set that follows this one with `endpoint` in it, in the place of
    /// the one with the same id if there was one. O(n).
    #[must_use]
    pub fn with(&self, endpoint: Endpoint) -> Self {
        let mut next = self.endpoints.to_vec();
        match self.position(endpoint.id()) {
            Ok(at) if *next[at] == endpoint => return self.clone(),
            Ok(at) => next[at] = Arc::new(endpoint),
            Err(at) => next.insert(at, Arc::new(endpoint)),
        }
        self.followed_by(next)
    }

    /// The set that follows this one without the endpoint of that id. O(n).
    #[must_use]
    pub fn without(&self, id: &EndpointId) -> Self {
        let Ok(at) = self.position(id) else {
            return self.clone();
        };
        let mut next = self.endpoints.to_vec();
        next.remove(at);
        self.followed_by(next)
    }

    /// The set that follows this one with these endpoints, whose ids differ.
    /// O(n log n), O(n) when they come ordered.
    pub(crate) fn next_shared(&self, endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        let mut next: Vec<_> = endpoints.into_iter().collect();
        next.sort_by(|a, b| a.id().cmp(b.id()));
        debug_assert!(next.windows(2).all(|pair| pair[0].id() < pair[1].id()));
        self.followed_by(next)
    }

    fn followed_by(&self, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let same = endpoints.len() == self.len()
            && endpoints
                .iter()
                .zip(self.endpoints.iter())
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if same {
            return self.clone();
        }
        Self {
            // A registry that counts from 0 never gets there; a set that was
            // read from a file may claim anything.
            version: self.version.wrapping_add(1),
            endpoints: endpoints.into(),
            skipped: None,
        }
    }

    /// The same set, which says what its source left out.
    #[must_use]
    pub fn with_skipped(mut self, skipped: Option<Skipped>) -> Self {
        self.skipped = skipped.map(Arc::new);
        self
    }

    /// What its source left out of it, where that is something.
    #[must_use]
    pub fn skipped(&self) -> Option<&Skipped> {
        self.skipped.as_deref()
    }

    /// Rises with every change that its source saw. Versions of different
    /// sources do not compare.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints, ordered by id.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoints, to be shared as a whole.
    pub(crate) fn shared(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// The endpoints, ordered by id.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Endpoint>> {
        self.endpoints.iter()
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint of that id. O(log n).
    #[must_use]
    pub fn get(&self, id: &EndpointId) -> Option<&Arc<Endpoint>> {
        self.position(id).ok().map(|at| &self.endpoints[at])
    }

    pub(crate) fn position(&self, id: &EndpointId) -> Result<usize, usize> {
        self.endpoints
            .binary_search_by(|endpoint| endpoint.id().cmp(id))
    }

    /// What became different from this set to `next`. O(n), and a pointer
    /// comparison for each endpoint that the two share.
    #[must_use]
    pub fn diff(&self, next: &EndpointSet) -> Diff {
        let mut diff = Diff::default();
        merge(&self.endpoints, &next.endpoints, |before, after| {
            match (before, after) {
                (Some((_, before)), Some((_, after))) => {
                    if !Arc::ptr_eq(before, after) && before != after {
                        diff.changed.push(Changed {
                            before: Arc::clone(before),
                            after: Arc::clone(after),
                        });
                    }
                }
                (Some((_, before)), None) => diff.removed.push(Arc::clone(before)),
                (None, Some((_, after))) => diff.added.push(Arc::clone(after)),
                (None, None) => {}
            }
        });
        diff
    }
}

/// Walks two lists in the order of ids and shows each id once, with its position
/// and endpoint in either list.
pub(crate) fn merge<'a>(
    old: &'a [Arc<Endpoint>],
    new: &'a [Arc<Endpoint>],
    mut show: impl FnMut(Option<(usize, &'a Arc<Endpoint>)>, Option<(usize, &'a Arc<Endpoint>)>),
) {
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Some(a), Some(b)) => a.id().cmp(b.id()),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let before = (order != Ordering::Greater).then(|| (i, &old[i]));
        let after = (order != Ordering::Less).then(|| (j, &new[j]));
        i += usize::from(before.is_some());
        j += usize::from(after.is_some());
        show(before, after);
    }
}

/// Two sets are equal when their endpoints are; versions tell their history,
/// not their content.
impl PartialEq for EndpointSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoints, &other.endpoints) || self.endpoints == other.endpoints
    }
}

impl Eq for EndpointSet {}

impl<'a> IntoIterator for &'a EndpointSet {
    type Item = &'a Arc<Endpoint>;
    type IntoIter = std::slice::Iter<'a, Arc<Endpoint>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What became different between two sets, each part ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diff {
    /// Endpoints whose id is new.
    pub added: Vec<Arc<Endpoint>>,
    /// Endpoints whose id is gone.
    pub removed: Vec<Arc<Endpoint>>,
    /// Endpoints that kept their id and changed otherwise.
    pub changed: Vec<Changed>,
}

impl Diff {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// One endpoint before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// As it was.
    pub before: Arc<Endpoint>,
    /// As it is.
    pub after: Arc<Endpoint>,
}
