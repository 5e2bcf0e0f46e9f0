//! Everything a pick reads, computed off the hot path and published in one
//! swap.

use std::fmt;
use std::sync::Arc;

use super::alarm::Alarm;
use super::group::{Draw, Group};
use super::layout::{Fact, Trial};
use super::parts::Parts;
use super::pick::Mark;
use super::shortcut::Shortcut;
use crate::endpoint::{EndpointId, EndpointSet, Status};
use crate::error::{Counts, Error};
use crate::stats::EndpointStats;
use crate::strategy::{PickContext, PickOptions, Turns};
use crate::sync::{Stamped, next_stamp};
use crate::time::{Clock, Timestamp};
use crate::topology::Selector;
use crate::view::{Node, Roster};

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
    pub(super) positions: Option<Box<[u32]>>,
    /// The group that is used first, with which the roster begins; one without
    /// nodes where there is none.
    pub(super) first: Group,
    /// How any endpoint is picked, where no picker has to be asked and no total
    /// is counted.
    pub(super) shortcut: Option<Shortcut>,
    /// Those that share the calls with it, and those that are used when the
    /// call has tried all of the others.
    pub(super) below: Box<[Group]>,
    /// Which group gets a call, where several do.
    pub(super) draw: Option<Draw>,
    /// The groups that calls may name, behind which those are that only they
    /// go to.
    pub(super) parts: Option<Box<Parts>>,
    /// Who waits for a call that decides whether it is back.
    pub(super) trials: Box<[Trial]>,
    pub(super) counts: Counts,
    /// What keeps endpoints from being picked, in the order of `set`; none
    /// where all is well.
    pub(super) facts: Option<Box<[Fact]>>,
    /// The clock that latency is taken with, where it is taken.
    pub(super) stopwatch: Option<Clock>,
    /// Whether picks go by latency, and so by the time at which they are made.
    pub(super) by_latency: bool,
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

impl Ending {
    pub(super) fn of(stopwatch: Option<&Clock>, has_more: bool) -> Self {
        match stopwatch {
            _ if has_more => Self::Full,
            Some(_) => Self::Timed,
            None => Self::Plain,
        }
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
            shortcut: None,
            below: Box::from([]),
            draw: None,
            parts: None,
            trials: Box::from([]),
            counts: Counts::default(),
            ending: Ending::of(stopwatch.as_ref(), false),
            facts: None,
            by_latency: false,
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

    /// The time, if the picker asks for it.
    #[inline]
    pub(super) fn time_of_pick(&self) -> Option<Timestamp> {
        if self.by_latency {
            self.stopwatch.as_ref().map(Clock::now)
        } else {
            None
        }
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

    /// All endpoints, in the roster's order.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let Roster {
            endpoints, stats, ..
        } = &self.roster;
        let nodes = endpoints.iter().cloned().zip(stats.iter().cloned());
        nodes
            .map(|(endpoint, stats)| Node::new(endpoint, stats))
            .collect()
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
