//! What the strategies that go by the call's key have in common.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use super::{PickContext, Picker};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::hash::{BoundedLoad, Table};
use crate::view::{NodeIndex, View};

/// What becomes of a call without a key, at a strategy that goes by keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingKey {
    /// It goes as a call with a random key would: anywhere, in the shares that the keys have. What
    /// Envoy and gRPC do, so that one client that forgot a header is served.
    #[default]
    Random,
    /// It gets no endpoint, and [`Error::is_declined`]: for shards, of which only one has the data.
    Refuse,
}

/// What can be set at every strategy that goes by keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) missing: MissingKey,
    pub(super) bound: Option<BoundedLoad>,
}

impl Settings {
    pub(super) const NONE: Self = Self {
        missing: MissingKey::Random,
        bound: None,
    };

    pub(super) fn bound(factor: f64) -> Result<BoundedLoad, Error> {
        // NaN is in no range.
        if (1.0..=1000.0).contains(&factor) {
            return Ok(BoundedLoad::new(factor - 1.0));
        }
        let reason =
            "it is the load of an endpoint to its fair share: from 1 to 1000, 1.25 is usual";
        Err(Error::invalid("bounded", factor, reason))
    }
}

/// The settings as methods of a strategy with a field `settings`.
macro_rules! settings {
    ($strategy:ident) => {
        impl $strategy {
            /// What becomes of calls without a key; they go anywhere if not set.
            #[must_use]
            pub const fn missing_key(mut self, missing: MissingKey) -> Self {
                self.settings.missing = missing;
                self
            }

            /// Keeps a hot key from overloading its owner: an endpoint of weight w, of W in all,
            /// gets no call that would leave it with more than ⌈factor · w/W · m⌉, where m are the
            /// calls in flight, this one included. What overflows jumps to a random endpoint with
            /// room, the same for the key each time, and not to the neighbour, which would then
            /// overflow as well ([Chen, Coleman and Shrivastava, 2021]). 1.25 is usual.
            ///
            /// m counts this balancer's calls to all its endpoints, also those of other levels and
            /// those that left while calls to them go on. Threads that pick at the same moment may
            /// together go beyond the bound by their number. While all endpoints left to a call
            /// are full, it goes where it would without a bound.
            ///
            /// O(1) expected. It costs each call two more writes to a line of its own thread, for
            /// the total, and each pick whose owner is not idle the reading of all threads' totals.
            ///
            /// [Chen, Coleman and Shrivastava, 2021]: https://arxiv.org/abs/1908.08762
            ///
            /// # Errors
            ///
            /// [`Error::is_invalid`] when the factor is below 1, above 1000, or not a number.
            pub fn bounded(mut self, factor: f64) -> Result<Self, Error> {
                self.settings.bound = Some(Settings::bound(factor)?);
                Ok(self)
            }
        }
    };
}
pub(super) use settings;

/// The metadata by which an endpoint goes in place of its id.
const HASH_KEY: &str = "hash_key";

/// The name that an endpoint has in the tables, unless another has it.
pub(super) fn name(endpoint: &Endpoint) -> &str {
    match endpoint.metadata().get(HASH_KEY) {
        Some(key) if !key.is_empty() => key,
        _ => endpoint.id().as_str(),
    }
}

/// The names of endpoints that are ordered by id, each of them once: where two want one name, the
/// first has it, and the others add their ids.
pub(super) fn names(endpoints: &[Arc<Endpoint>]) -> Vec<Cow<'_, str>> {
    let mut names: Vec<Cow<'_, str>> = endpoints.iter().map(|e| name(e).into()).collect();
    let mut taken = HashSet::with_capacity(names.len());
    let twins: Vec<usize> = (0..names.len())
        .filter(|&at| !taken.insert(names[at].to_string()))
        .collect();
    for at in twins {
        let mut own = format!("{}\n{}", names[at], endpoints[at].id());
        while !taken.insert(own.clone()) {
            own.push('\n');
        }
        names[at] = own.into();
    }
    names
}

/// Picks by a table of the view's nodes.
pub(super) struct KeyedPicker<T> {
    pub(super) view: View,
    /// None while there is no node.
    pub(super) table: Option<T>,
    /// Which node of the view each of the table's is, where the two are not counted alike.
    pub(super) places: Option<Arc<Places>>,
    /// Whether a node has another name than its own, since two wanted the same.
    pub(super) twins: bool,
    settings: Settings,
    total_weight: u64,
}

/// Where the nodes of a table are in the view, and back.
pub(super) struct Places {
    /// By the table's index; [`Places::NOWHERE`] for one that may not be picked.
    pub(super) in_view: Box<[NodeIndex]>,
    pub(super) in_table: Box<[u32]>,
}

impl Places {
    pub(super) const NOWHERE: NodeIndex = NodeIndex::MAX;

    /// From the index in a table of `len` of each node of the view.
    pub(super) fn new(in_table: Vec<u32>, len: usize) -> Self {
        let mut in_view = vec![Self::NOWHERE; len];
        for (position, &index) in (0..).zip(&in_table) {
            in_view[index as usize] = position;
        }
        Self {
            in_view: in_view.into(),
            in_table: in_table.into(),
        }
    }
}

impl<T: Table> KeyedPicker<T> {
    pub(super) fn new(
        view: &View,
        table: Option<T>,
        places: Option<Arc<Places>>,
        settings: Settings,
    ) -> Self {
        Self {
            total_weight: view.weights().iter().copied().map(u64::from).sum(),
            view: view.clone(),
            table,
            places,
            twins: false,
            settings,
        }
    }

    #[inline]
    fn place(&self, node: u32) -> NodeIndex {
        match &self.places {
            None => node,
            Some(places) => places
                .in_view
                .get(node as usize)
                .copied()
                .unwrap_or(Places::NOWHERE),
        }
    }

    /// The first node in the key's order that may be picked.
    #[cold]
    fn pick_around(&self, table: &T, hash: u64, context: &PickContext<'_>) -> Option<NodeIndex> {
        let view = &self.view;
        // A table looks through all it has before it finds nothing.
        let all_tried = context.tried().len() >= view.len() as usize
            && !(0..view.len()).any(|index| context.may_pick(view, index));
        if all_tried {
            return None;
        }
        let mut free = |node| self.may_pick(node, context);
        let found = table.find(hash, &mut free).map(|node| self.place(node));
        // Who weighs next to nothing beside the others may have no place in the table.
        found.or_else(|| context.first_untried(view, (hash % u64::from(view.len())) as NodeIndex))
    }

    fn may_pick(&self, node: u32, context: &PickContext<'_>) -> bool {
        let place = self.place(node);
        place < self.view.len() && context.may_pick(&self.view, place)
    }

    fn pick_bounded(
        &self,
        bound: BoundedLoad,
        table: &T,
        hash: u64,
        context: &PickContext<'_>,
    ) -> Option<NodeIndex> {
        let view = &self.view;
        let first = self.pick_unbounded(table, hash, context)?;
        // Every capacity is at least 1, so that an idle node needs no further look.
        if view.in_flight(first) == 0 {
            return Some(first);
        }
        let load = view.total_in_flight() + 1;
        let has_room = |place| {
            let (held, weight) = (view.in_flight(place), view.weight(place));
            bound.has_room(held.into(), weight, self.total_weight, load)
        };
        if has_room(first) {
            return Some(first);
        }
        let other = bound.pick(table, hash, |node| {
            self.may_pick(node, context) && has_room(self.place(node))
        });
        other.map_or(Some(first), |node| Some(self.place(node)))
    }

    #[inline]
    fn pick_unbounded(&self, table: &T, hash: u64, context: &PickContext<'_>) -> Option<NodeIndex> {
        if context.tried().is_empty() {
            let place = self.place(table.lookup(hash)?);
            if place < self.view.len() {
                return Some(place);
            }
        }
        self.pick_around(table, hash, context)
    }
}

impl<T: Table + Send + Sync + 'static> Picker for KeyedPicker<T> {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let table = self.table.as_ref()?;
        let hash = match (context.hash(), self.settings.missing) {
            (Some(hash), _) => hash,
            (None, MissingKey::Random) => context.rng().bits(),
            (None, MissingKey::Refuse) => return None,
        };
        match self.settings.bound {
            None => self.pick_unbounded(table, hash, context),
            Some(bound) => self.pick_bounded(bound, table, hash, context),
        }
    }
}
