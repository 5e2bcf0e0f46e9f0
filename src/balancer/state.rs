//! Everything a pick reads, computed off the hot path and published in one
//! swap.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use super::pick::Mark;
use crate::endpoint::{Endpoint, EndpointSet, Status};
use crate::error::{Counts, Error};
use crate::stats::{EndpointStats, Ledger};
use crate::strategy::{BoxPicker, Common, PickContext, RoundRobin, Strategy};
use crate::sync::{Stamped, next_stamp};
use crate::time::Clock;
use crate::view::{Roster, View};

/// One moment of a balancer: the set, its nodes, and a picker for each level.
pub(super) struct State {
    pub(super) stamp: u64,
    /// The balancer's place in the threads' tables.
    pub(super) place: u32,
    pub(super) knowledge: Knowledge,
    pub(super) set: EndpointSet,
    /// All endpoints: first those of the first level, then of the next, and
    /// those that may not be picked at the end.
    pub(super) roster: Roster,
    /// Where in the roster each endpoint of `set` is; none when the two orders
    /// are the same, as they are while every endpoint may be picked, on one
    /// level.
    positions: Option<Box<[u32]>>,
    /// The level that is used first, with which the roster begins; one without
    /// nodes where there is none.
    pub(super) first: Level,
    /// How that level picks, where the choice is a common one and no total is
    /// counted.
    pub(super) in_place: Option<Common>,
    /// Those that are used when the call has tried all of the ones before.
    pub(super) below: Box<[Level]>,
    pub(super) counts: Counts,
    /// The clock that latency is taken with, where it is taken.
    pub(super) stopwatch: Option<Clock>,
    /// Whether the end of a call is timed, or counted in a total.
    pub(super) ends_with_more: bool,
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
        Self::new(View::none(), &RoundRobin::new())
    }

    pub(super) fn len(&self) -> u32 {
        self.view.len()
    }

    /// The position, among the state's endpoints, of the one that gets the call.
    fn pick(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let index = self.picker.pick(context)?;
        (index < self.view.len()).then(|| self.view.start() + index)
    }
}

fn priority(view: &View) -> Option<u32> {
    view.endpoints().first().map(|first| first.priority())
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
            roster: Roster::none(),
            positions: None,
            first: Level::none(),
            in_place: None,
            below: Box::from([]),
            counts: Counts::default(),
            ends_with_more: stopwatch.is_some(),
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

    /// The state of `set`, whose roster comes in the set's order.
    pub(super) fn known(before: &Self, draft: Draft, strategy: &dyn Strategy) -> Self {
        let Draft {
            set,
            roster,
            counts,
            one_level,
        } = draft;
        // A pick can name this many: more than any service has, and 20 GB of
        // endpoints. What is beyond is known but not picked.
        let pickable = counts.eligible.min(Mark::NODES);
        let (roster, positions) = if one_level {
            (roster, None)
        } else {
            by_level(&roster)
        };
        let levels = levels(&roster, pickable, one_level);
        let mut levels = levels.into_iter().map(|view| before.next(view, strategy));
        let first = levels.next().unwrap_or_else(Level::none);
        let below = levels.collect();
        let has_total = roster.counters.has_total();
        Self {
            stamp: next_stamp(),
            place: before.place,
            knowledge: Knowledge::Known,
            set,
            roster,
            positions,
            in_place: if has_total {
                None
            } else {
                Common::of(&*first.picker)
            },
            first,
            below,
            counts,
            ends_with_more: before.stopwatch.is_some() || has_total,
            stopwatch: before.stopwatch.clone(),
        }
    }

    /// The level of that view, which follows the one of the same priority in this state.
    fn next(&self, view: View, strategy: &dyn Strategy) -> Level {
        let mut levels = std::iter::once(&self.first).chain(&self.below);
        let priority = priority(&view);
        match levels.find(|level| priority.is_some() && priority == self::priority(&level.view)) {
            None => Level::new(view, strategy),
            Some(before) => Level {
                picker: strategy.rebuild(&view, &*before.picker),
                view,
            },
        }
    }

    /// The stats of the endpoint at that position of the set.
    pub(super) fn stats_of(&self, position: usize) -> &EndpointStats {
        match &self.positions {
            None => &self.roster.stats[position],
            Some(positions) => &self.roster.stats[positions[position] as usize],
        }
    }

    /// The roster, if it is in the order of the set because all endpoints may
    /// be picked on one level.
    pub(super) fn one_level(&self) -> Option<&Roster> {
        let all = matches!(self.knowledge, Knowledge::Known) && self.positions.is_none();
        all.then_some(&self.roster)
    }

    /// The position, in the roster, of the endpoint that gets the call: from the
    /// first level that has one left.
    #[inline]
    pub(super) fn pick(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let first = self.first.pick(context);
        first.or_else(|| self.below.iter().find_map(|level| level.pick(context)))
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

/// What a state is made from: a set, what is known of its endpoints in the
/// set's order, and what they have in common.
pub(super) struct Draft {
    set: EndpointSet,
    roster: Roster,
    counts: Counts,
    /// Whether all may be picked, and are of one priority.
    one_level: bool,
}

impl Draft {
    /// Endpoints whose ids are those of the roster, on one level, with these
    /// weights.
    pub(super) fn same_ids(set: EndpointSet, roster: &Roster, weights: Arc<[u32]>) -> Self {
        let roster = Roster {
            endpoints: Arc::clone(set.shared()),
            stats: Arc::clone(&roster.stats),
            counters: roster.counters.clone(),
            weights,
        };
        let counts = Counts {
            known: set.len(),
            eligible: set.len(),
            ..Counts::default()
        };
        Self {
            set,
            roster,
            counts,
            one_level: true,
        }
    }

    /// Any endpoints, with the stats that go with each.
    pub(super) fn new(set: EndpointSet, stats: Vec<EndpointStats>, ledger: &mut Ledger) -> Self {
        let endpoints = Arc::clone(set.shared());
        let mut counts = Counts {
            known: endpoints.len(),
            ..Counts::default()
        };
        let first_priority = endpoints.first().map(|first| first.priority());
        let mut one_level = true;
        let weights = endpoints.iter().map(|endpoint| {
            let column = match endpoint.status() {
                Status::Up if endpoint.weight() > 0 => &mut counts.eligible,
                Status::Up => &mut counts.weightless,
                Status::Draining => &mut counts.draining,
                Status::Down => &mut counts.down,
                Status::Starting => &mut counts.starting,
            };
            *column += 1;
            one_level &= Some(endpoint.priority()) == first_priority;
            endpoint.weight()
        });
        let weights = weights.collect();
        one_level &= counts.eligible == counts.known;
        let rows = stats.iter().map(EndpointStats::row).collect();
        let roster = Roster {
            endpoints,
            stats: stats.into(),
            counters: ledger.counters(rows),
            weights,
        };
        Self {
            set,
            roster,
            counts,
            one_level,
        }
    }
}

/// Orders a roster by level, those that may not be picked last, and tells where
/// each one went.
fn by_level(roster: &Roster) -> (Roster, Option<Box<[u32]>>) {
    let level = |endpoint: &Endpoint| (Reverse(endpoint.takes_calls()), endpoint.priority());
    let mut order: Vec<u32> = (0..roster.endpoints.len() as u32).collect();
    order.sort_by_key(|&at| level(&roster.endpoints[at as usize]));
    let mut positions = vec![0; order.len()];
    for (to, &from) in (0..).zip(&order) {
        positions[from as usize] = to;
    }
    (roster.reordered(&order), Some(positions.into()))
}

/// A view of each level among the first `pickable` endpoints.
fn levels(roster: &Roster, pickable: usize, one_level: bool) -> Vec<View> {
    let mut views = Vec::new();
    let mut start = 0;
    while start < pickable {
        let rest = &roster.endpoints[start..pickable];
        let len = if one_level {
            rest.len()
        } else {
            rest.partition_point(|endpoint| endpoint.priority() == rest[0].priority())
        };
        views.push(View::new(roster.clone(), start..start + len));
        start += len;
    }
    views
}
