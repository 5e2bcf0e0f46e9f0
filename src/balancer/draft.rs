//! From what is known of a set to the state that picks read.

use std::sync::Arc;

use super::group::{Draw, Group};
use super::layout::{Fact, Layout};
use super::parts::Parts;
use super::pick::Mark;
use super::shortcut::{Shares, Shortcut};
use super::state::{Ending, Knowledge, State};
use crate::endpoint::{EndpointSet, Status};
use crate::error::Counts;
use crate::stats::{EndpointStats, Ledger};
use crate::strategy::Strategy;
use crate::view::{Roster, View};

/// What a state is made from: a set, what is known of its endpoints in the
/// set's order, and what they have in common.
pub(super) struct Draft {
    pub(super) set: EndpointSet,
    pub(super) roster: Roster,
    pub(super) counts: Counts,
    /// Whether all may be picked, and are of one priority.
    pub(super) one_level: bool,
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

impl State {
    /// The state of a draft, whose roster comes in the set's order.
    pub(super) fn known(before: &Self, draft: Draft, strategy: &dyn Strategy) -> Self {
        let Draft {
            set,
            roster,
            counts,
            ..
        } = draft;
        // A pick can name this many: more than any service has, and 20 GB of
        // endpoints. What is beyond is known but not picked.
        let pickable = counts.eligible.min(Mark::NODES);
        let all = View::new(roster.clone(), 0..pickable);
        let first = Group::new(all, None, before.groups(), strategy);
        let stopwatch = before.stopwatch.as_ref();
        let has_total = roster.counters.has_total();
        let shortcut = Shortcut::of_first(&first, stopwatch);
        Self {
            knowledge: Knowledge::Known,
            set,
            roster,
            shortcut: shortcut.filter(|_| !has_total),
            by_latency: strategy.reads_latency(),
            first,
            counts,
            ending: Ending::of(stopwatch, has_total),
            ..Self::unknown(before.place, before.stopwatch.clone(), before.alarm.clone())
        }
    }

    /// The state of a draft whose endpoints are in groups.
    pub(super) fn grouped(
        before: &Self,
        draft: Draft,
        facts: Option<Box<[Fact]>>,
        layout: Layout,
        strategy: &dyn Strategy,
    ) -> Self {
        let Layout {
            order,
            positions,
            weights,
            ranks,
            parts,
            trials,
            counts,
        } = layout;
        let mut roster = draft.roster.reordered(&order);
        roster.weights = weights;
        let mut start = 0;
        let hides_first = Parts::hides_first(ranks.iter().map(|(rank, _)| rank.only_named));
        let groups: Vec<Group> = ranks
            .into_iter()
            .map(|(rank, len)| {
                let view = View::new(roster.clone(), start..start + len);
                start += len;
                Group::new(view, Some(rank), before.groups(), strategy)
            })
            .collect();
        let shares = groups
            .iter()
            .filter_map(|group| Some(group.rank.as_ref()?.share));
        let draw = Draw::new(&shares.collect::<Vec<_>>());
        let has_more = roster.counters.has_total() || !trials.is_empty();
        let shares = draw.as_ref().filter(|_| !has_more);
        let shares = shares.and_then(|draw| Shares::of(draw, &groups));
        let hidden = hides_first.then(Group::none);
        let mut groups = hidden.into_iter().chain(groups);
        let first = groups.next().unwrap_or_else(Group::none);
        let stopwatch = before.stopwatch.as_ref();
        let shortcut = match draw {
            _ if has_more => None,
            None => Shortcut::of_first(&first, stopwatch),
            Some(_) => shares.map(Shortcut::Shares),
        };
        Self {
            knowledge: Knowledge::Known,
            set: draft.set,
            positions: Some(positions),
            shortcut,
            ending: Ending::of(stopwatch, has_more),
            by_latency: strategy.reads_latency(),
            first,
            below: groups.collect(),
            draw,
            parts,
            trials,
            counts,
            facts,
            roster,
            ..Self::unknown(before.place, before.stopwatch.clone(), before.alarm.clone())
        }
    }
}
