//! Everything a pick reads, computed off the hot path and published in one
//! swap.

use std::fmt;
use std::sync::Arc;

use super::alarm::Alarm;
use super::layout::{Fact, Layout, Trial};
use super::parts::Parts;
use super::pick::Mark;
use crate::endpoint::{EndpointId, EndpointSet, Status};
use crate::error::{Counts, Error};
use crate::rng::Rng;
use crate::stats::{EndpointStats, Ledger};
use crate::strategy::{
    BoxPicker, Common, CommonByWeight, PickContext, PickOptions, RoundRobin, Strategy, Turns,
    is_peak_ewma,
};
use crate::sync::{Stamped, next_stamp};
use crate::time::{Clock, Timestamp};
use crate::topology::Selector;
use crate::view::{Roster, View};

/// One moment of a balancer: the set, its nodes, and a picker for each group.
pub(super) struct State {
    pub(super) stamp: u64,
    /// The balancer's place in the threads' tables.
    pub(super) place: u32,
    pub(super) knowledge: Knowledge,
    pub(super) set: EndpointSet,
    /// All endpoints, group by group, and those that may not be picked at the
    /// end.
    pub(super) roster: Roster,
    /// Where in the roster each endpoint of `set` is; none when the two orders
    /// are the same, as they are while every endpoint is in one group.
    positions: Option<Box<[u32]>>,
    /// The group that is used first, with which the roster begins; one without
    /// nodes where there is none.
    pub(super) first: Group,
    /// How that group picks, where it gets every call, the choice is a common
    /// one, and no total is counted.
    pub(super) in_place: Option<Common>,
    /// The same of a common choice by unequal weights.
    pub(super) by_weight: Option<CommonByWeight>,
    /// The clock of the choice, where it is else the cheaper of two by peak
    /// EWMA: as common, and by more than the calls in flight.
    pub(super) by_cost: Option<Clock>,
    /// How the groups pick that share the calls, where several do, nothing else
    /// has to be looked at, and their choices are common ones.
    pub(super) shares: Option<Box<Shares>>,
    /// Those that share the calls with it, and those that are used when the
    /// call has tried all of the others.
    pub(super) below: Box<[Group]>,
    /// Which group gets a call, where several do.
    draw: Option<Draw>,
    /// The groups that calls may name, behind which those are that only they
    /// go to.
    parts: Option<Box<Parts>>,
    /// Who waits for a call that decides whether it is back.
    trials: Box<[Trial]>,
    pub(super) counts: Counts,
    /// What keeps endpoints from being picked, in the order of `set`; none
    /// where all is well.
    pub(super) facts: Option<Box<[Fact]>>,
    /// The clock that latency is taken with, where it is taken.
    pub(super) stopwatch: Option<Clock>,
    /// Whether picks go by latency, and so by the time at which they are made.
    pub(super) by_latency: bool,
    /// Whether picks go by what servers say of their load.
    pub(super) by_reports: bool,
    pub(super) ending: Ending,
    /// Who is told of failures, where somebody listens.
    pub(super) alarm: Option<Arc<Alarm>>,
}

/// What is done at the end of a call beside counting it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Plain,
    /// It is timed.
    Timed,
    /// It is counted in a total or waited for, too.
    Full,
}

/// What is known of a service's endpoints.
pub(super) enum Knowledge {
    NotYet,
    Failed(Error),
    Known,
}

/// The groups that share the calls, in one place.
pub(super) struct Shares {
    /// The last of the draws of 32 bits that each has, ascending.
    last: [u32; Self::MOST],
    groups: [Share; Self::MOST],
}

/// Where a group is, and its choice.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) start: u32,
    pub(super) len: u32,
    /// None where the picker has to be asked.
    pub(super) common: Option<Common>,
}

impl Shares {
    /// A cache line of bounds and one and a half of groups.
    const MOST: usize = 8;

    /// The group of a draw.
    #[inline]
    pub(super) fn of(&self, drawn: u32) -> (usize, Share) {
        let at = self.last.iter().position(|&last| drawn <= last);
        let at = at.unwrap_or_default() % Self::MOST;
        (at, self.groups[at])
    }
}

/// Endpoints of one priority, zone and part of a split, and the choice among
/// them.
pub(super) struct Group {
    pub(super) view: View,
    picker: BoxPicker,
    /// None where there is but one.
    pub(super) rank: Option<Rank>,
}

/// What a group is.
#[derive(Clone, Debug)]
pub(super) struct Rank {
    pub(super) share: f64,
    pub(super) priority: u32,
    pub(super) part: Option<usize>,
    pub(super) only_named: bool,
    pub(super) panic: bool,
}

fn first_zone(view: &View) -> Option<&str> {
    view.endpoints().first()?.locality().zone()
}

impl Ending {
    fn of(stopwatch: Option<&Clock>, has_more: bool) -> Self {
        match stopwatch {
            _ if has_more => Self::Full,
            Some(_) => Self::Timed,
            None => Self::Plain,
        }
    }
}

impl Rank {
    fn is_same_place(&self, other: &Self) -> bool {
        (self.priority, self.part) == (other.priority, other.part)
    }
}

impl Group {
    fn none() -> Self {
        let view = View::none();
        Self {
            picker: RoundRobin::new().build(&view),
            view,
            rank: None,
        }
    }

    /// Its choice, if that is one of the common ones and may be made in place.
    fn in_place(&self, has_total: bool) -> Option<Common> {
        Common::of(&*self.picker).filter(|_| !has_total)
    }

    fn by_weight(&self, has_total: bool) -> Option<CommonByWeight> {
        CommonByWeight::of(&*self.picker).filter(|_| !has_total)
    }

    pub(super) fn len(&self) -> u32 {
        self.view.len()
    }

    /// The position, among the state's endpoints, of the one that gets the call.
    pub(super) fn pick(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let index = self.picker.pick(context)?;
        (index < self.view.len()).then(|| self.view.start() + index)
    }
}

/// Shares of the first groups, as upper bounds of a draw of 32 bits.
pub(super) struct Draw(Box<[u32]>);

impl Draw {
    /// None where the first gets all.
    pub(super) fn new(shares: &[f64]) -> Option<Self> {
        let mut sum = 0.0;
        let bounds = shares
            .iter()
            .take_while(|&&share| share > 0.0)
            .map(|share| {
                sum += share;
                (sum * 2_f64.powi(32)) as u32
            });
        let bounds: Box<[u32]> = bounds.collect();
        (bounds.len() > 1).then_some(Self(bounds))
    }

    /// The groups with what each has of it; none where they are too many.
    fn shares(&self, groups: &[Group]) -> Option<Box<Shares>> {
        let others = self.0.len() - 1;
        if others >= Shares::MOST {
            return None;
        }
        // What rounding left belongs to the last.
        let mut shares = Shares {
            last: [u32::MAX; Shares::MOST],
            groups: Default::default(),
        };
        for (last, bound) in shares.last[..others].iter_mut().zip(&self.0) {
            *last = bound.saturating_sub(1);
        }
        for (share, group) in shares.groups.iter_mut().zip(groups).take(others + 1) {
            *share = Share {
                start: group.view.start(),
                len: group.len(),
                common: group.in_place(false),
            };
        }
        Some(Box::new(shares))
    }

    /// Calls with equal keys go to the same group.
    pub(super) fn draw(&self, context: &mut PickContext<'_>) -> usize {
        let bits = match context.hash() {
            Some(hash) => Rng::seeded(hash).bits(),
            None => context.rng().bits(),
        };
        let drawn = (bits >> 32) as u32;
        let group = self.0.iter().position(|&bound| drawn < bound);
        // What rounding left belongs to the last.
        group.unwrap_or(self.0.len() - 1)
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
    pub(super) fn unknown(place: u32, stopwatch: Option<Clock>, alarm: Option<Arc<Alarm>>) -> Self {
        Self {
            stamp: next_stamp(),
            place,
            knowledge: Knowledge::NotYet,
            set: EndpointSet::empty(),
            roster: Roster::none(),
            positions: None,
            first: Group::none(),
            in_place: None,
            by_weight: None,
            by_cost: None,
            shares: None,
            below: Box::from([]),
            draw: None,
            parts: None,
            trials: Box::from([]),
            counts: Counts::default(),
            ending: Ending::of(stopwatch.as_ref(), false),
            facts: None,
            by_latency: false,
            by_reports: false,
            stopwatch,
            alarm,
        }
    }

    /// After a failure while nothing was known.
    pub(super) fn failed(before: &Self, error: Error) -> Self {
        Self {
            knowledge: Knowledge::Failed(error),
            ..Self::unknown(before.place, before.stopwatch.clone(), before.alarm.clone())
        }
    }

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
        let first = before.heir(all, None, strategy);
        let has_total = roster.counters.has_total();
        Self {
            knowledge: Knowledge::Known,
            set,
            roster,
            in_place: first.in_place(has_total),
            by_weight: first.by_weight(has_total),
            by_cost: before.clock_of_costs(&first, has_total),
            by_latency: strategy.reads_latency(),
            by_reports: strategy.reads_reports(),
            first,
            counts,
            ending: Ending::of(before.stopwatch.as_ref(), has_total),
            ..Self::unknown(before.place, before.stopwatch.clone(), before.alarm.clone())
        }
    }

    /// The group of that view, which follows the one of the same rank in this
    /// state.
    fn heir(&self, view: View, rank: Option<Rank>, strategy: &dyn Strategy) -> Group {
        let mut groups = std::iter::once(&self.first).chain(&self.below);
        let before = groups.find(|group| match (&group.rank, &rank) {
            (Some(before), Some(now)) => {
                before.is_same_place(now) && first_zone(&group.view) == first_zone(&view)
            }
            (None, None) => !group.view.is_empty(),
            _ => false,
        });
        let picker = match before {
            None => strategy.build(&view),
            Some(before) => strategy.rebuild(&view, &*before.picker),
        };
        Group { view, picker, rank }
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
                before.heir(view, Some(rank), strategy)
            })
            .collect();
        let shares = groups
            .iter()
            .filter_map(|group| Some(group.rank.as_ref()?.share));
        let draw = Draw::new(&shares.collect::<Vec<_>>());
        let has_total = roster.counters.has_total();
        // It need not look at the draw and the trials.
        let gets_every_call = draw.is_none() && trials.is_empty();
        let shares = draw.as_ref().filter(|_| trials.is_empty() && !has_total);
        let shares = shares.and_then(|draw| draw.shares(&groups));
        let hidden = hides_first.then(Group::none);
        let mut groups = hidden.into_iter().chain(groups);
        let first = groups.next().unwrap_or_else(Group::none);
        Self {
            knowledge: Knowledge::Known,
            set: draft.set,
            positions: Some(positions),
            in_place: first.in_place(has_total).filter(|_| gets_every_call),
            by_weight: first.by_weight(has_total).filter(|_| gets_every_call),
            by_cost: before
                .clock_of_costs(&first, has_total)
                .filter(|_| gets_every_call),
            shares,
            ending: Ending::of(before.stopwatch.as_ref(), has_total || !trials.is_empty()),
            by_latency: strategy.reads_latency(),
            by_reports: strategy.reads_reports(),
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

    /// The time, if the picker asks for it.
    #[inline]
    pub(super) fn time_of_pick(&self) -> Option<Timestamp> {
        if self.by_latency {
            self.stopwatch.as_ref().map(Clock::now)
        } else {
            None
        }
    }

    fn clock_of_costs(&self, group: &Group, has_total: bool) -> Option<Clock> {
        let picks_by_cost = is_peak_ewma(&*group.picker) && !has_total;
        self.stopwatch.clone().filter(|_| picks_by_cost)
    }

    /// Whether calls may be trials.
    #[inline]
    pub(super) fn has_trials(&self) -> bool {
        !self.trials.is_empty()
    }

    /// All groups, in the order in which a call falls back on them.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.first).chain(&self.below)
    }

    /// Where in the roster the endpoint at that position of the set is.
    pub(super) fn place_of(&self, position: usize) -> usize {
        let positions = self.positions.as_ref();
        positions.map_or(position, |positions| positions[position] as usize)
    }

    /// The stats of the endpoint at that position of the set.
    pub(super) fn stats_of(&self, position: usize) -> &EndpointStats {
        &self.roster.stats[self.place_of(position)]
    }

    /// The roster, if it is in the order of the set because all endpoints may
    /// be picked on one level.
    pub(super) fn one_level(&self) -> Option<&Roster> {
        let all = matches!(self.knowledge, Knowledge::Known) && self.positions.is_none();
        all.then_some(&self.roster)
    }

    /// The position, in the roster, of the endpoint that gets the call: from the
    /// group that is drawn, or the first that has one left.
    #[inline]
    pub(super) fn pick(&self, turns: &Turns, context: &mut PickContext<'_>) -> Option<u32> {
        if !context.preferred().is_empty()
            && let Some(node) = self.pick_preferred(context)
        {
            return Some(node);
        }
        if self.has_trials()
            && let Some(node) = self.claim_trial(context)
        {
            return Some(node);
        }
        if let Some(subset) = context.subset()
            && let Some(parts) = &self.parts
        {
            return parts.pick(self, turns, subset, context);
        }
        self.pick_any(turns, context)
    }

    /// From any group that takes calls which name none.
    #[inline]
    pub(super) fn pick_any(&self, turns: &Turns, context: &mut PickContext<'_>) -> Option<u32> {
        let Some(draw) = &self.draw else {
            let picked = self.first.pick(context);
            return picked.or_else(|| self.pick_elsewhere(context));
        };
        self.pick_of(draw.draw(context), turns, context)
    }

    /// From the group that was drawn, or the first that has one left.
    #[inline]
    pub(super) fn pick_of(
        &self,
        drawn: usize,
        turns: &Turns,
        context: &mut PickContext<'_>,
    ) -> Option<u32> {
        let group = match drawn.checked_sub(1) {
            None => Some(&self.first),
            Some(below) => self.below.get(below),
        };
        let picked = turns.lend(drawn, context, |context| group?.pick(context));
        picked.or_else(|| self.pick_elsewhere(context))
    }

    #[cold]
    #[inline(never)]
    fn pick_elsewhere(&self, context: &mut PickContext<'_>) -> Option<u32> {
        let is_open = |group: &&Group| group.rank.as_ref().is_none_or(|rank| !rank.only_named);
        let mut groups = self.groups().filter(is_open);
        groups.find_map(|group| group.pick(context))
    }

    #[inline(never)]
    fn pick_preferred(&self, context: &PickContext<'_>) -> Option<u32> {
        let find = |id: &EndpointId| {
            let position = self.set.position(id).ok()?;
            let place = self.place_of(position);
            let endpoint = &self.roster.endpoints[place];
            let facts = self.facts.as_ref();
            let is_well = facts.is_none_or(|facts| facts[position].is_healthy());
            let takes = matches!(endpoint.status(), Status::Up | Status::Draining);
            let tried = context.tried().contains(self.roster.stats[place].key());
            (is_well && takes && !tried && place < Mark::NODES).then_some(place as u32)
        };
        context.preferred().iter().find_map(find)
    }

    #[cold]
    #[inline(never)]
    fn claim_trial(&self, context: &PickContext<'_>) -> Option<u32> {
        let claim = |trial: &Trial| {
            let stats = &self.roster.stats[trial.place as usize];
            let endpoint = &self.roster.endpoints[trial.place as usize];
            let fits = match context.subset() {
                Some(subset) => subset.matches(endpoint),
                None => !trial.is_hidden,
            };
            let takes =
                fits && !context.tried().contains(stats.key()) && stats.accrual().claim_trial();
            takes.then_some(trial.place)
        };
        self.trials.iter().find_map(claim)
    }

    /// Whether the call names a subset, and that means something here.
    fn heeds(&self, options: &PickOptions<'_>) -> bool {
        options.named_subset().is_some() && self.parts.is_some()
    }

    /// Why there is no pick.
    pub(super) fn refusal(&self, service: &Arc<str>, options: &PickOptions<'_>) -> Error {
        match &self.knowledge {
            Knowledge::NotYet => Error::not_known_yet(service),
            Knowledge::Failed(error) => Error::discovery_failed(service, error.clone()),
            Knowledge::Known if self.set.is_empty() => Error::empty(service),
            Knowledge::Known if options.is_first_try() && self.heeds(options) => {
                let subset = options.named_subset().map(Selector::to_string);
                Error::none_of_subset(service, subset.unwrap_or_default(), self.counts)
            }
            Knowledge::Known if self.counts.eligible == 0 => {
                Error::none_eligible(service, self.counts)
            }
            Knowledge::Known if options.is_first_try() => Error::declined(service, self.counts),
            Knowledge::Known => Error::all_tried(service, self.counts),
        }
    }
}

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
