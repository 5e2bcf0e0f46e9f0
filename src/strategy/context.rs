//! What a picker knows of the call, and of the thread that makes it.

use super::Tried;
use crate::endpoint::EndpointId;
use crate::rng::Rng;
use crate::time::Timestamp;
use crate::topology::Selector;
use crate::view::{NodeIndex, View};

/// What a pick is asked for beyond "any".
///
/// ```
/// use waypost::strategy::Tried;
/// use waypost::{Balancer, Endpoint, EndpointSet, PickOptions};
///
/// # fn main() -> Result<(), waypost::Error> {
/// let (users, mut updater) = Balancer::builder("users").manual()?;
/// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?);
///
/// let mut tried = Tried::new();
/// let first = users.pick()?;
/// tried.insert(first.key());
/// let second = users.pick_with(&PickOptions::new().tried(&tried))?;
/// assert_ne!(first.id(), second.id());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PickOptions<'a> {
    tried: &'a Tried,
    hash: Option<u64>,
    subset: Option<&'a Selector>,
    preferred: &'a [EndpointId],
}

static NOTHING_TRIED: Tried = Tried::new();

impl PickOptions<'static> {
    /// Any endpoint.
    pub const ANY: Self = Self {
        tried: &NOTHING_TRIED,
        hash: None,
        subset: None,
        preferred: &[],
    };
}

impl<'a> PickOptions<'a> {
    /// Any endpoint.
    pub const fn new() -> Self {
        PickOptions::ANY
    }

    /// None of those that the call has tried.
    pub const fn tried(mut self, tried: &'a Tried) -> Self {
        self.tried = tried;
        self
    }

    /// With the hash of the call's key, for strategies that keep equal keys
    /// together.
    pub const fn hash(mut self, hash: u64) -> Self {
        self.hash = Some(hash);
        self
    }

    /// One of those endpoints: a part of the balancer's
    /// [split](crate::topology::Topology::split), by its selector. Where none of
    /// them is well, the split's
    /// [fallback](crate::topology::Topology::fallback) decides; a selector that
    /// is no part of it falls back, too.
    ///
    /// ```
    /// use waypost::topology::{Fallback, Selector, Topology};
    /// use waypost::{Balancer, Endpoint, EndpointSet, PickOptions};
    ///
    /// # fn main() -> Result<(), waypost::Error> {
    /// let (stable, canary) = (Selector::new("version", "v1"), Selector::new("version", "v2"));
    /// let split = Topology::new().split([(stable, 1), (canary.clone(), 0)]).fallback(Fallback::None);
    /// let (users, mut updater) = Balancer::builder("users").topology(split).manual()?;
    /// updater.apply(EndpointSet::new([
    ///     Endpoint::builder("10.0.0.1:80").metadata("version", "v1").build()?,
    ///     Endpoint::builder("10.0.0.2:80").metadata("version", "v2").build()?,
    /// ])?);
    ///
    /// assert_eq!(users.pick()?.address().as_str(), "10.0.0.1:80");
    /// let pick = users.pick_with(&PickOptions::new().subset(&canary))?;
    /// assert_eq!(pick.address().as_str(), "10.0.0.2:80");
    /// # Ok(()) }
    /// ```
    pub const fn subset(mut self, subset: &'a Selector) -> Self {
        self.subset = Some(subset);
        self
    }

    /// The first of these that is up or draining and was not tried, whatever the strategy says: the
    /// one that a session has, and its spares. One that is gone, ejected or fails its checks is
    /// passed over; where none is left, the call is picked for as any other. O(log n) for each.
    ///
    /// Envoy's override host. [`Sticky`](crate::client::http::Sticky) does it for sessions over
    /// HTTP.
    ///
    /// ```
    /// use waypost::{Balancer, Endpoint, EndpointSet, PickOptions};
    ///
    /// # fn main() -> Result<(), waypost::Error> {
    /// let (carts, mut updater) = Balancer::builder("carts").manual()?;
    /// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?);
    ///
    /// let session = [carts.pick()?.id().clone()];
    /// for _ in 0..10 {
    ///     assert_eq!(*carts.pick_with(&PickOptions::new().prefer(&session))?.id(), session[0]);
    /// }
    /// # Ok(()) }
    /// ```
    pub const fn prefer(mut self, endpoints: &'a [EndpointId]) -> Self {
        self.preferred = endpoints;
        self
    }

    /// Whether any endpoint will do.
    pub(crate) fn is_any(&self) -> bool {
        let asks = self.hash.is_some() || self.subset.is_some() || !self.preferred.is_empty();
        self.tried.is_empty() && !asks
    }

    /// The endpoints that the call names, if it does.
    #[must_use]
    pub const fn named_subset(&self) -> Option<&'a Selector> {
        self.subset
    }

    /// Whether the call has tried nothing yet.
    #[must_use]
    pub fn is_first_try(&self) -> bool {
        self.tried.is_empty()
    }
}

impl Default for PickOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a pick is made with: the thread's randomness and place in the turn, and
/// what the call asks for.
///
/// The order of the fields keeps the two that are written from being copied as
/// one word, which a processor cannot forward.
#[derive(Debug)]
#[repr(C)]
pub struct PickContext<'a> {
    rng: Rng,
    options: &'a PickOptions<'a>,
    cursor: u64,
    now: Timestamp,
}

impl<'a> PickContext<'a> {
    /// A context for the picks of one thread, which begin at `cursor`: a random
    /// number, so that many clients do not walk in step.
    #[inline]
    #[must_use]
    pub fn new(rng: Rng, cursor: u64, options: &'a PickOptions<'a>) -> Self {
        Self {
            rng,
            options,
            cursor,
            now: Timestamp::default(),
        }
    }

    /// Sets the time, for who runs a strategy that [asks](super::Strategy::reads_latency) without a
    /// balancer.
    #[inline]
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The time of the pick, if the strategy [says that it
    /// asks](super::Strategy::reads_latency); else the beginning of time.
    #[must_use]
    #[inline]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The random source.
    #[inline]
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A number that the thread keeps from pick to pick of this balancer, also
    /// across changes of the set. Its meaning is the strategy's.
    #[inline]
    pub fn cursor(&mut self) -> &mut u64 {
        &mut self.cursor
    }

    /// What the call has tried.
    #[must_use]
    #[inline]
    pub fn tried(&self) -> &Tried {
        self.options.tried
    }

    /// The hash of the call's key, if it has one.
    #[must_use]
    #[inline]
    pub fn hash(&self) -> Option<u64> {
        self.options.hash
    }

    /// The endpoints that the call names, if it does: the balancer heeds it, and
    /// hands a strategy only those.
    #[must_use]
    #[inline]
    pub fn subset(&self) -> Option<&'a Selector> {
        self.options.subset
    }

    /// The endpoints that the call shall go to before any other: the balancer heeds it.
    pub(crate) fn preferred(&self) -> &'a [EndpointId] {
        self.options.preferred
    }

    /// Whether the call may go to that node: it exists, and was not tried.
    #[must_use]
    #[inline]
    pub fn may_pick(&self, view: &View, index: NodeIndex) -> bool {
        self.tried().is_empty() || !self.tried().contains(view.node(index).key())
    }

    /// `index` if the call may go there, else the next node after it, in turn,
    /// that it may go to. O(nodes tried).
    #[must_use]
    #[inline]
    pub fn first_untried(&self, view: &View, index: NodeIndex) -> Option<NodeIndex> {
        if index < view.len() && self.may_pick(view, index) {
            return Some(index);
        }
        self.next_untried(view, index)
    }

    /// Kept apart: few calls come here, and it would bloat every pick.
    #[cold]
    #[inline(never)]
    fn next_untried(&self, view: &View, index: NodeIndex) -> Option<NodeIndex> {
        let start = index.min(view.len());
        (start..view.len())
            .chain(0..start)
            .find(|&index| self.may_pick(view, index))
    }
}
