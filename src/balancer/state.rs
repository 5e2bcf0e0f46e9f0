//! Everything a pick reads, computed off the hot path and published in one
//! swap.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use super::pick::Mark;
use crate::endpoint::{EndpointSet, Status};
use crate::error::{Counts, Error};
use crate::strategy::{BoxPicker, PickContext, RoundRobin, Strategy};
use crate::sync::{Stamped, next_stamp};
use crate::time::Clock;
use crate::view::{Node, View};

/// One moment of a balancer: the set, its nodes, and a picker for each level.
pub(super) struct State {
    pub(super) stamp: u64,
    /// The balancer's place in the threads' tables.
    pub(super) place: u32,
    pub(super) knowledge: Knowledge,
    pub(super) set: EndpointSet,
    /// The nodes of all endpoints: first those of the first level, then of the
    /// next, and those that may not be picked at the end.
    pub(super) nodes: Arc<[Arc<Node>]>,
    /// Where in `nodes` each endpoint of `set` is; none when the two orders
    /// are the same, as they are while every endpoint may be picked.
    positions: Option<Box<[u32]>>,
    /// The level that is used first; one without nodes where there is none.
    pub(super) first: Level,
    /// Those that are used when the call has tried all of the ones before.
    pub(super) below: Box<[Level]>,
    pub(super) counts: Counts,
    /// The clock that latency is taken with, where it is taken.
    pub(super) stopwatch: Option<Clock>,
}

/// What is known of a service's endpoints.
pub(super) enum Knowledge {
    NotYet,
    Failed(Error),
    Known,
}

/// The endpoints of one priority, and the choice among them.
pub(super) struct Level {
    view: View,
    picker: BoxPicker,
}

impl Level {
    fn new(view: View, strategy: &dyn Strategy) -> Self {
        Self {
            picker: strategy.build(&view),
            view,
        }
    }

    fn none() -> Self {
        let nodes: Arc<[Arc<Node>]> = Arc::from([]);
        Self::new(View::new(nodes, 0..0), &RoundRobin::new())
    }

    /// The position, among the state's nodes, of the one that gets the call.
    #[inline]
    pub(super) fn pick(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let index = self.picker.pick(context)?;
        (index < self.view.len()).then(|| self.view.start() + index)
    }
}

impl Stamped for State {
    fn stamp(&self) -> u64 {
        self.stamp
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("stamp", &self.stamp)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Before anything is known.
    pub(super) fn unknown(place: u32, stopwatch: Option<Clock>) -> Self {
        Self {
            stamp: next_stamp(),
            place,
            knowledge: Knowledge::NotYet,
            set: EndpointSet::empty(),
            nodes: Arc::from([]),
            positions: None,
            first: Level::none(),
            below: Box::from([]),
            counts: Counts::default(),
            stopwatch,
        }
    }

    /// After a failure while nothing was known.
    pub(super) fn failed(before: &Self, error: Error) -> Self {
        Self {
            knowledge: Knowledge::Failed(error),
            ..Self::unknown(before.place, before.stopwatch.clone())
        }
    }

    /// The state of `set`, whose nodes come in the set's order.
    pub(super) fn known(
        before: &Self,
        set: EndpointSet,
        roster: Roster,
        strategy: &dyn Strategy,
    ) -> Self {
        let Roster {
            nodes,
            counts,
            one_priority,
            one_weight,
        } = roster;
        // A pick can name this many: more than any service has, and 20 GB of
        // endpoints. What is beyond is known but not picked.
        let pickable = counts.eligible.min(Mark::NODES);
        let all_alike = counts.eligible == nodes.len() && one_priority;
        let (nodes, positions) = if all_alike {
            (nodes, None)
        } else {
            by_level(&nodes)
        };
        let nodes: Arc<[Arc<Node>]> = nodes.into();
        let levels: Vec<View> = if all_alike && pickable > 0 {
            vec![View::of_known_weights(
                Arc::clone(&nodes),
                0..pickable,
                one_weight,
            )]
        } else {
            levels(&nodes, pickable).collect()
        };
        let mut levels = levels.into_iter().map(|view| Level::new(view, strategy));
        let first = levels.next().unwrap_or_else(Level::none);
        let below = levels.collect();
        Self {
            stamp: next_stamp(),
            place: before.place,
            knowledge: Knowledge::Known,
            set,
            nodes,
            positions,
            first,
            below,
            counts,
            stopwatch: before.stopwatch.clone(),
        }
    }

    /// The node of the endpoint at that position of the set.
    pub(super) fn node_of(&self, position: usize) -> &Arc<Node> {
        match &self.positions {
            None => &self.nodes[position],
            Some(positions) => &self.nodes[positions[position] as usize],
        }
    }

    /// The nodes, in the order of the set, if all may be picked on one level;
    /// and whether they have one weight.
    pub(super) fn alike(&self) -> Option<(&[Arc<Node>], bool)> {
        let all = matches!(self.knowledge, Knowledge::Known) && self.positions.is_none();
        all.then(|| (&*self.nodes, self.first.view.is_uniform()))
    }

    /// Why there is no pick.
    pub(super) fn refusal(&self, service: &Arc<str>, nothing_tried: bool) -> Error {
        match &self.knowledge {
            Knowledge::NotYet => Error::not_known_yet(service),
            Knowledge::Failed(error) => Error::discovery_failed(service, error.clone()),
            Knowledge::Known if self.set.is_empty() => Error::empty(service),
            Knowledge::Known if self.counts.eligible == 0 => {
                Error::none_eligible(service, self.counts)
            }
            Knowledge::Known if nothing_tried => Error::declined(service, self.counts),
            Knowledge::Known => Error::all_tried(service, self.counts),
        }
    }
}

/// The nodes of a set, in its order, and what they have in common: summed up as
/// they are put in, when their lines are at hand. A second look at 10,000 nodes
/// would be as many cache misses.
pub(super) struct Roster {
    nodes: Vec<Arc<Node>>,
    counts: Counts,
    one_priority: bool,
    one_weight: bool,
}

impl Roster {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity),
            counts: Counts::default(),
            one_priority: true,
            one_weight: true,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, node: Arc<Node>) {
        let first = self.nodes.first().unwrap_or(&node);
        self.one_priority &= first.priority() == node.priority();
        self.one_weight &= first.weight() == node.weight();
        let column = match node.status() {
            Status::Up if node.weight() > 0 => &mut self.counts.eligible,
            Status::Up => &mut self.counts.weightless,
            Status::Draining => &mut self.counts.draining,
            Status::Down => &mut self.counts.down,
            Status::Starting => &mut self.counts.starting,
        };
        *column += 1;
        self.counts.known += 1;
        self.nodes.push(node);
    }

    /// Puts in nodes that may all be picked and are of one priority, without a
    /// look at each: what most of a set is when one endpoint changes.
    pub(super) fn extend_alike(&mut self, nodes: &[Arc<Node>], one_weight: bool) {
        let Some(node) = nodes.first() else { return };
        let first = self.nodes.first().unwrap_or(node);
        self.one_priority &= first.priority() == node.priority();
        self.one_weight &= one_weight && first.weight() == node.weight();
        self.counts.eligible += nodes.len();
        self.counts.known += nodes.len();
        self.nodes.extend_from_slice(nodes);
    }
}

/// Orders the nodes by level, those that may not be picked last, and tells
/// where each one went.
fn by_level(nodes: &[Arc<Node>]) -> (Vec<Arc<Node>>, Option<Box<[u32]>>) {
    let mut order: Vec<u32> = (0..nodes.len() as u32).collect();
    order.sort_by_key(|&i| {
        let node = &nodes[i as usize];
        (Reverse(node.endpoint().takes_calls()), node.priority())
    });
    let mut positions = vec![0; nodes.len()];
    for (to, &from) in (0..).zip(&order) {
        positions[from as usize] = to;
    }
    let ordered = order
        .iter()
        .map(|&from| Arc::clone(&nodes[from as usize]))
        .collect();
    (ordered, Some(positions.into()))
}

/// A view of each level among the first `pickable` nodes.
fn levels(nodes: &Arc<[Arc<Node>]>, pickable: usize) -> impl Iterator<Item = View> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &nodes[start..pickable];
        let priority = rest.first()?.priority();
        let len = rest.partition_point(|node| node.priority() == priority);
        let range = start..start + len;
        start = range.end;
        Some(View::new(Arc::clone(nodes), range))
    })
}
