//! Equal keys to equal endpoints, by a hash ring.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use super::keyed::{KeyedPicker, Places, Settings, name, names, settings};
use super::{BoxPicker, MissingKey, Picker, Strategy};
use crate::endpoint::merge;
use crate::error::Error;
use crate::hash::{HashRing, HashRingBuilder, Table as _};
use crate::view::View;

/// Calls of one key go to one endpoint, the same from every client, and when an endpoint comes,
/// goes or changes its weight, only keys that it gains or loses move: a [`HashRing`]. So they do
/// while its weight grows in a [slow start](crate::health::slow_start).
///
/// For caches and sessions on endpoints that come and go. The greatest share is some 1.3 of the
/// mean; [`Maglev`](super::Maglev)'s are even, and move a few keys more. A pick reads one cache line
/// of the ring.
///
/// The key is [`PickOptions::hash`](crate::PickOptions::hash), which the HTTP integrations take from
/// the request; see [`MissingKey`] for calls without one. An endpoint is placed on the ring by its id,
/// or by its metadata `hash_key`, for those that shall take over the keys of another. Should two
/// have the same, the first by id has it.
///
/// A call whose owner was tried, or may not be picked, goes to the next endpoint on the ring.
///
/// An endpoint has 160 points for each unit of weight. Where that would be more than 4 million
/// points in all (40 MB), and more than 160 an endpoint, the unit is doubled until it is not; the
/// set that crosses that line moves up to half of the keys. Say what the usual weight is, by
/// [`unit_weight`](Self::unit_weight), where weights are large.
///
/// A new set with a few changes costs O(points changed + points / 192), and any other O(points).
///
/// ```
/// use waypost::hash::key_hash;
/// use waypost::strategy::RingHash;
/// use waypost::{Balancer, Endpoint, EndpointSet, PickOptions};
///
/// # fn main() -> Result<(), waypost::Error> {
/// let (carts, mut updater) = Balancer::builder("carts")
///     .strategy(RingHash::new().bounded(1.25)?)
///     .manual()?;
/// updater.apply(EndpointSet::new([Endpoint::at("10.0.0.1:80")?, Endpoint::at("10.0.0.2:80")?])?);
///
/// let key = PickOptions::new().hash(key_hash(b"user:42"));
/// let first = carts.pick_with(&key)?.id().clone();
/// assert_eq!(carts.pick_with(&key)?.id(), &first);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RingHash {
    vnodes: u32,
    unit_weight: u32,
    settings: Settings,
}

settings!(RingHash);

impl RingHash {
    /// 160 points for each unit of weight.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            vnodes: 160,
            unit_weight: 1,
            settings: Settings::NONE,
        }
    }

    /// Another number of points for each unit of weight: the shares' standard deviation is the
    /// root of its inverse. All clients must agree on it.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is not from 1 to 4096.
    pub fn vnodes(mut self, vnodes: u32) -> Result<Self, Error> {
        if !(1..=4096).contains(&vnodes) {
            let reason = "an endpoint has from 1 to 4096 points for each unit of weight";
            return Err(Error::invalid("vnodes", vnodes, reason));
        }
        self.vnodes = vnodes;
        Ok(self)
    }

    /// The weight that the points of [`vnodes`](Self::vnodes) stand for: 100 where endpoints
    /// usually weigh 100. All clients must agree on it.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] when it is 0.
    pub fn unit_weight(mut self, weight: u32) -> Result<Self, Error> {
        if weight == 0 {
            let reason = "it is the weight of a usual endpoint; give at least 1";
            return Err(Error::invalid("unit_weight", weight, reason));
        }
        self.unit_weight = weight;
        Ok(self)
    }

    /// The points of so many endpoints at most: 4 million, or 160 for each.
    fn limit(endpoints: u32) -> u64 {
        (1 << 22).max(u64::from(endpoints) * 160)
    }

    /// While a weight grows, a view counts all of them finer. An endpoint that has its whole weight
    /// keeps its points then, and so its keys.
    fn builder(self, view: &View) -> HashRingBuilder {
        let weight: u64 = view.weights().iter().copied().map(u64::from).sum();
        let wanted = u128::from(weight) * u128::from(self.vnodes);
        let limit = u128::from(Self::limit(view.len()));
        let own = view.endpoints().iter().map(|endpoint| endpoint.weight());
        let finer = view.weights().iter().zip(own);
        let finer = finer.map(|(&weight, own)| f64::from(weight) / f64::from(own));
        let unit = f64::from(self.unit_weight) * finer.fold(0.0, f64::max);
        // At least 1, and a float is cut to what fits.
        let mut unit = (unit.round() as u32).max(1);
        while wanted / u128::from(unit) > limit && unit < u32::MAX {
            unit = unit.saturating_mul(2);
        }
        HashRing::builder()
            .vnodes(self.vnodes)
            .unit_weight(unit)
            .max_points(u64::MAX)
    }

    /// The ring of the picker before with what has changed, if that is little.
    fn take_over(self, view: &View, before: &dyn Picker) -> Option<KeyedPicker<HashRing>> {
        let before = (before as &dyn Any).downcast_ref::<KeyedPicker<HashRing>>()?;
        let ring = before.table.as_ref()?;
        // When one of two that want a name leaves, the other takes it.
        if before.twins || ring.settings() != self.builder(view) {
            return None;
        }
        let old = before.view.endpoints();
        let new = view.endpoints();
        let index_of = |at: usize| match &before.places {
            None => at as u32,
            Some(places) => places.in_table[at],
        };
        let mut changes = Vec::new();
        // By the new view's positions; those that are added have none yet.
        let mut in_table = Vec::with_capacity(new.len());
        let (weights_before, weights) = (before.view.weights(), view.weights());
        merge(old, new, |was, is| {
            let index = was.map(|(at, _)| index_of(at));
            in_table.extend(is.map(|_| index.unwrap_or(Places::NOWHERE)));
            match (was, is, index) {
                (Some((before, was)), Some((at, is)), Some(index))
                    if Arc::ptr_eq(was, is) || name(was) == name(is) =>
                {
                    // The view's, since a ramp changes no endpoint.
                    if weights_before[before] != weights[at] {
                        changes.push(Change::Weight(index, weights[at]));
                    }
                }
                (_, is, index) => {
                    changes.extend(index.map(Change::Removed));
                    changes.extend(is.map(|(at, _)| Change::Added(at)));
                }
            }
        });
        if changes.len() > MOST_CHANGES {
            return None;
        }
        let mut ring = ring.clone();
        for change in &changes {
            match *change {
                Change::Weight(index, weight) => {
                    ring = ring.with_node_changed(index, weight).ok()?;
                }
                Change::Removed(index) => ring = ring.with_node_removed(index).ok()?,
                Change::Added(at) => {
                    // A name that another has is refused, and the ring built afresh.
                    let (added, index) = ring.with_node_added(name(&new[at]), weights[at]).ok()?;
                    (ring, in_table[at]) = (added, index);
                }
            }
        }
        let same = changes
            .iter()
            .all(|change| matches!(change, Change::Weight(..)));
        let places = if same {
            before.places.clone()
        } else {
            Some(Arc::new(Places::new(in_table, ring.len())))
        };
        Some(KeyedPicker::new(view, Some(ring), places, self.settings))
    }
}

/// Changes beyond which a ring is built afresh: each costs about a thirtieth of that.
const MOST_CHANGES: usize = 16;

enum Change {
    /// Of the node with this index on the ring.
    Weight(u32, u32),
    Removed(u32),
    /// Of the node at this position of the view.
    Added(usize),
}

impl Default for RingHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for RingHash {
    fn build(&self, view: &View) -> BoxPicker {
        let names = names(view.endpoints());
        let nodes = names.iter().zip(view.weights().iter().copied());
        let ring = self.builder(view).build(nodes).ok();
        let mut picker = KeyedPicker::new(view, ring, None, self.settings);
        picker.twins = names.iter().any(|name| matches!(name, Cow::Owned(_)));
        Box::new(picker)
    }

    fn rebuild(&self, view: &View, before: &dyn Picker) -> BoxPicker {
        match self.take_over(view, before) {
            Some(picker) => Box::new(picker),
            None => self.build(view),
        }
    }

    fn reads_total(&self) -> bool {
        self.settings.bound.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    fn view(range: std::ops::Range<u32>, weight: u32) -> View {
        View::standalone(range.map(|i| {
            let builder = Endpoint::builder(format!("10.0.0.{i}:80")).id(format!("{i:05}"));
            let weight = if i == 3 { weight } else { 1 };
            builder
                .weight(weight)
                .build()
                .expect("the parts are well-formed")
        }))
    }

    #[test]
    fn few_changes_are_taken_over_and_many_are_not() {
        let strategy = RingHash::new();
        let before = strategy.build(&view(0..50, 1));
        for few in [
            view(0..50, 2),
            view(5..55, 1),
            view(0..66, 1),
            view(0..34, 1),
        ] {
            let taken_over = strategy
                .take_over(&few, &*before)
                .expect("few have changed");
            let nodes = few
                .nodes()
                .map(|node| (node.endpoint().id().as_str(), node.weight()));
            assert_eq!(
                taken_over.table,
                Some(HashRing::new(nodes).expect("good nodes"))
            );
        }
        for many in [view(0..67, 1), view(40..60, 1)] {
            assert!(strategy.take_over(&many, &*before).is_none());
        }
        let other = RingHash::new()
            .vnodes(100)
            .expect("it is a number of points");
        assert!(other.take_over(&view(0..50, 1), &*before).is_none());
    }
}
