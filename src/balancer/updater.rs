//! From sets to states: what turns a registry's answers into what picks read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::core::Core;
use super::draft::Draft;
use super::layout::{Fact, lay_out};
use super::monitor::Monitor;
use super::state::{Knowledge, State};
use crate::endpoint::{Endpoint, EndpointId, EndpointSet, merge};
use crate::error::Error;
use crate::event::{Discovery, Event, Snapshot};
use crate::stats::{Accounting, Bell, EndpointStats, Ledger, Totals};
use crate::strategy::Strategy;
use crate::time::{Clock, Timestamp};
use crate::topology::Topology;

/// Feeds a balancer by hand: the half that a background driver owns otherwise.
///
/// [`BalancerBuilder::manual`](crate::BalancerBuilder::manual) gives one to
/// those who have a discovery loop of their own, or no runtime at all, such as
/// a simulation. There is one updater for a balancer. When it is dropped the
/// balancer goes on serving the last set.
pub struct Updater {
    core: Arc<Core>,
    state: Arc<State>,
    strategy: Arc<dyn Strategy>,
    clock: Clock,
    discovery: Discovery,
    ledger: Ledger,
    topology: Topology,
    monitor: Monitor,
    /// The set as it was told last: checks keep some that it has no more, and
    /// what a source skipped may change while the endpoints do not.
    told: EndpointSet,
    unconfirmed: usize,
    /// What the monitor told last; none where all is well.
    facts: Option<Box<[Fact]>>,
    absent: HashMap<EndpointId, Absent>,
    absent_swept: Timestamp,
    retired: Vec<Arc<State>>,
}

/// An endpoint that left, and may come back.
#[derive(Debug)]
struct Absent {
    stats: EndpointStats,
    since: Timestamp,
}

/// How long an endpoint that left is remembered: longer than a registry's flap
/// or a restart, after which its old figures mislead.
const REMEMBERED: Duration = Duration::from_mins(5);

impl Absent {
    fn is_remembered(&self, now: Timestamp) -> bool {
        now.since(self.since) < REMEMBERED || self.stats.in_flight() > 0
    }
}

/// How often the absent are looked through: rarely enough that ten thousand of
/// them cost nothing in a storm of updates.
const SWEEP: Duration = Duration::from_secs(1);

impl Updater {
    pub(super) fn new(
        core: Arc<Core>,
        state: Arc<State>,
        strategy: Arc<dyn Strategy>,
        clock: Clock,
        topology: Topology,
        monitor: Monitor,
    ) -> Self {
        let accounting = Accounting {
            stopwatch: state.stopwatch.clone(),
            by_latency: strategy.reads_latency(),
            by_reports: strategy.reads_reports(),
            bell: core.alarm.clone().map(|alarm| alarm as Arc<dyn Bell>),
            ..Accounting::default()
        };
        let ledger = Ledger::new(accounting, strategy.reads_total());
        Self {
            core,
            state,
            strategy,
            discovery: Discovery::Unknown { error: None },
            ledger,
            topology,
            monitor,
            told: EndpointSet::empty(),
            unconfirmed: 0,
            facts: None,
            absent: HashMap::new(),
            absent_swept: clock.now(),
            retired: Vec::new(),
            clock,
        }
    }

    /// Makes `set` the one that picks are made from. Calls in flight are not
    /// touched, and no pick waits. O(n), where an endpoint that the set shares
    /// with the one before costs a few nanoseconds.
    pub fn apply(&mut self, set: EndpointSet) {
        self.apply_doubted(set, 0);
    }

    /// As [`apply`](Self::apply), where `unconfirmed` endpoints of the set are
    /// held against the registry's word.
    pub(super) fn apply_doubted(&mut self, set: EndpointSet, unconfirmed: usize) {
        let now = self.clock.now();
        let skipped = |set: &EndpointSet| set.skipped().map_or(0, |skipped| skipped.count);
        let news = !self.discovery.is_fresh()
            || self.unconfirmed != unconfirmed
            || skipped(&self.told) != skipped(&set);
        self.discovery = Discovery::Fresh;
        self.unconfirmed = unconfirmed;
        self.told = set.clone();
        let set = self.monitor.keep_passing(&self.state.set, set);
        let same = matches!(self.state.knowledge, Knowledge::Known) && self.state.set == set;
        if same {
            if news {
                self.tell();
            }
            return;
        }
        self.change(set, now);
    }

    fn change(&mut self, set: EndpointSet, now: Timestamp) {
        let draft = self.draft(set, now);
        self.monitor.follow(&draft.set, &draft.roster.stats);
        let mut events = Vec::new();
        self.facts = self
            .monitor
            .look_at_change(&draft.set, &draft.roster.stats, now, &mut events);
        self.install(draft, events);
        self.sweep_absent(now);
    }

    /// Takes in what calls and probes have told since: ejects, lets back, moves
    /// shares. A driver does so as soon as there is something to take in; who
    /// drives by hand calls this from time to time. O(n) when something is due,
    /// and a few nanoseconds when not.
    pub fn look(&mut self) {
        let rung = || {
            let alarm = self.core.alarm.as_ref();
            alarm.is_some_and(|alarm| alarm.rung().now_or_never().is_some())
        };
        let due = |next| next <= self.clock.now();
        if rung() || self.next_look().is_some_and(due) {
            self.look_now();
        }
    }

    pub(super) fn look_now(&mut self) {
        if !matches!(self.state.knowledge, Knowledge::Known) {
            return;
        }
        if self.monitor.has_checks() {
            // An absent endpoint that no longer passes leaves.
            self.apply_again();
        }
        let now = self.clock.now();
        let current = Arc::clone(&self.state);
        let set = &current.set;
        let stats: Vec<EndpointStats> = (0..set.len())
            .map(|position| current.stats_of(position).clone())
            .collect();
        let mut events = Vec::new();
        let facts = self.monitor.look(set, &stats, now, &mut events);
        if facts == self.facts {
            self.announce(events);
            return;
        }
        self.facts = facts;
        let draft = Draft::new(set.clone(), stats, &mut self.ledger);
        self.install(draft, events);
    }

    /// When [`look`](Self::look) has something to do though no call and no probe
    /// asks for it: an ejection ends, a ramp goes on.
    #[must_use]
    pub fn next_look(&self) -> Option<Timestamp> {
        self.monitor.next_look()
    }

    /// Whether there is ever something to look at.
    pub(super) fn listens(&self) -> bool {
        self.core.alarm.is_some()
    }

    /// Whether calls fail again and again, since this was asked last.
    pub(super) fn take_failing(&self) -> bool {
        let alarm = self.core.alarm.as_ref();
        alarm.is_some_and(|alarm| alarm.take_failing())
    }

    /// Waits until there is something to look at.
    pub(super) async fn wait(&self) {
        let Some(alarm) = &self.core.alarm else {
            return std::future::pending().await;
        };
        match self.next_look() {
            None => alarm.rung().await,
            Some(next) => {
                // No sooner than in a millisecond, so that a clock which stands
                // still does not make it spin.
                let patience = next.since(self.clock.now()).max(Duration::from_millis(1));
                drop(tokio::time::timeout(patience, alarm.rung()).await);
            }
        }
    }

    fn apply_again(&mut self) {
        let told = self.told.clone();
        let kept = self.monitor.keep_passing(&self.state.set, told);
        if kept != self.state.set {
            self.change(kept, self.clock.now());
        }
    }

    /// Makes the state of a draft the one that picks are made from.
    fn install(&mut self, draft: Draft, mut events: Vec<Event>) {
        let (before, strategy) = (&self.state, &*self.strategy);
        let plain = self.facts.is_none() && draft.one_level && self.topology.is_plain();
        let next = if plain {
            State::known(before, draft, strategy)
        } else {
            let all_well = || vec![Fact::WELL; draft.set.len()].into();
            let mut facts = self.facts.clone().unwrap_or_else(all_well);
            let layout = lay_out(&draft, &self.topology, &mut facts);
            State::grouped(before, draft, Some(facts), layout, strategy)
        };
        events.extend(differences(before, &next));
        self.publish(next);
        self.announce(events);
    }

    fn announce(&self, events: Vec<Event>) {
        for event in events {
            // Nobody listens, at worst.
            drop(self.core.events.send(event));
        }
    }

    /// Tells that the registry fails. The last set goes on serving; where there
    /// is none, picks fail with this error as their reason.
    pub fn fail(&mut self, error: Error) {
        if let Knowledge::Known = self.state.knowledge {
            let since = match &self.discovery {
                Discovery::Stale { since, .. } => *since,
                _ => self.clock.now(),
            };
            self.discovery = Discovery::Stale { since, error };
            self.tell();
        } else {
            self.discovery = Discovery::Unknown {
                error: Some(error.clone()),
            };
            self.publish(State::failed(&self.state, error));
        }
    }

    /// Tells those who still hold the balancer that its driver has ended, unless they know of a failure
    /// already.
    pub(super) fn abandon(&mut self) {
        let is_held = Arc::strong_count(&self.core) > 1;
        if is_held && self.discovery.error().is_none() {
            let reason = "nobody follows it any more: the balancer's task ended with its runtime, \
                          or by a panic";
            self.fail(Error::registry("registry", reason));
        }
    }

    /// Frees states that no thread reads any more, and tells whether some are
    /// left. Done with every [`apply`](Self::apply) too; the point is that the
    /// work never falls to a thread that picks.
    pub fn collect(&mut self) -> bool {
        // Whoever still reads one holds a handle to it; nobody can get a new
        // one, since it is no longer published.
        self.retired.retain(|state| Arc::strong_count(state) > 1);
        !self.retired.is_empty()
    }

    /// Puts a set in place that follows from doubts about the last answer, and
    /// not from a new one: how fresh the knowledge is stays as it was.
    pub(super) fn hold(&mut self, set: EndpointSet, unconfirmed: usize) {
        let discovery = self.discovery.clone();
        self.apply_doubted(set, unconfirmed);
        if !discovery.is_fresh() {
            self.discovery = discovery;
            self.tell();
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How the calls to an endpoint of the set have ended. O(log n).
    pub(super) fn totals(&self, id: &EndpointId) -> Option<Totals> {
        let endpoints = self.state.set.endpoints();
        let at = endpoints.binary_search_by(|endpoint| endpoint.id().cmp(id));
        Some(self.state.stats_of(at.ok()?).totals())
    }

    fn draft(&mut self, set: EndpointSet, now: Timestamp) -> Draft {
        let Self {
            state,
            absent,
            ledger,
            ..
        } = self;
        let (old, new) = (state.set.endpoints(), set.endpoints());
        // What is the same at both ends is taken over as it is.
        let (mut head, mut tail) = (0, 0);
        if let Some(roster) = state.one_level() {
            head = common(old.iter().zip(new));
            tail = common(old[head..].iter().rev().zip(new[head..].iter().rev()));
            let (before, after) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
            if let Some(weights) = reweighted(&roster.weights, head, before, after) {
                return Draft::same_ids(set, roster, weights);
            }
        }
        let mut stats = Vec::with_capacity(new.len());
        stats.extend_from_slice(&state.roster.stats[..head]);
        let (old, new) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
        merge(old, new, |before, after| match (before, after) {
            (Some((at, _)), Some(_)) => stats.push(state.stats_of(head + at).clone()),
            (None, Some((_, new))) => stats.push(arrive(new.id(), absent, ledger, now)),
            (Some((at, old)), None) => {
                let gone = Absent {
                    stats: state.stats_of(head + at).clone(),
                    since: now,
                };
                absent.insert(old.id().clone(), gone);
            }
            (None, None) => {}
        });
        let known = &state.roster.stats;
        stats.extend_from_slice(&known[known.len() - tail..]);
        Draft::new(set, stats, ledger)
    }

    fn publish(&mut self, next: State) {
        let next = Arc::new(next);
        self.state = Arc::clone(&next);
        let previous = self.core.published.publish(next);
        self.retired.push(previous);
        self.collect();
        self.tell();
    }

    fn tell(&self) {
        self.core.snapshots.send_replace(Snapshot {
            set: self.published_set(),
            eligible: self.state.counts.eligible,
            unconfirmed: self.unconfirmed,
            discovery: self.discovery.clone(),
        });
    }

    /// The set of the state, and what its source left out, which may change
    /// while the endpoints do not.
    fn published_set(&self) -> EndpointSet {
        let skipped = self.told.skipped().cloned();
        self.state.set.clone().with_skipped(skipped)
    }

    fn sweep_absent(&mut self, now: Timestamp) {
        if now.since(self.absent_swept) < SWEEP {
            return;
        }
        self.absent_swept = now;
        self.absent.retain(|_, absent| absent.is_remembered(now));
    }
}

impl fmt::Debug for Updater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updater")
            .field("service", &self.core.service)
            .field("state", &self.state)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

/// What changed in the spread of calls over levels.
fn differences(before: &State, after: &State) -> Vec<Event> {
    let mut events = Vec::new();
    let (old, new) = (levels(before), levels(after));
    let in_panic = |levels: &BTreeMap<u32, Load>, priority: u32| {
        levels.get(&priority).is_some_and(|level| level.panic)
    };
    let entered = new
        .keys()
        .filter(|&&p| in_panic(&new, p) && !in_panic(&old, p));
    events.extend(entered.map(|&priority| Event::PanicEntered { priority }));
    let left = old
        .keys()
        .filter(|&&p| in_panic(&old, p) && !in_panic(&new, p));
    events.extend(left.map(|&priority| Event::PanicLeft { priority }));
    let percent = |levels: &BTreeMap<u32, Load>| -> Vec<(u32, u32)> {
        let percent = levels
            .iter()
            .map(|(&p, l)| (p, (l.share * 100.0).round() as u32));
        percent.collect()
    };
    if new.len() > 1 && percent(&old) != percent(&new) {
        let loads = new.iter().map(|(&priority, level)| (priority, level.share));
        let loads = loads.collect();
        events.push(Event::Loads { loads });
    }
    events
}

#[derive(Default)]
struct Load {
    share: f64,
    panic: bool,
}

/// The levels of a state that has groups.
fn levels(state: &State) -> BTreeMap<u32, Load> {
    let mut levels: BTreeMap<u32, Load> = BTreeMap::new();
    for rank in state.groups().filter_map(|group| group.rank.as_ref()) {
        let level = levels.entry(rank.priority).or_default();
        level.share += rank.share;
        level.panic |= rank.panic;
    }
    levels
}

/// How many pairs, from the first on, are one and the same endpoint.
fn common<'a>(pairs: impl Iterator<Item = (&'a Arc<Endpoint>, &'a Arc<Endpoint>)>) -> usize {
    pairs.take_while(|(a, b)| Arc::ptr_eq(a, b)).count()
}

/// The weights of a roster on one level of which the endpoints from `at` on
/// changed from `before` to `after`; none if more changed than weights, and
/// what has no part in picking.
fn reweighted(
    weights: &Arc<[u32]>,
    at: usize,
    before: &[Arc<Endpoint>],
    after: &[Arc<Endpoint>],
) -> Option<Arc<[u32]>> {
    let alike = |(old, new): (&Arc<Endpoint>, &Arc<Endpoint>)| {
        old.id() == new.id() && old.priority() == new.priority() && new.takes_calls()
    };
    if before.len() != after.len() || !before.iter().zip(after).all(alike) {
        return None;
    }
    let changed = before
        .iter()
        .zip(after)
        .any(|(old, new)| old.weight() != new.weight());
    if !changed {
        return Some(Arc::clone(weights));
    }
    let mut next: Arc<[u32]> = Arc::from(&**weights);
    for (weight, endpoint) in Arc::make_mut(&mut next)[at..].iter_mut().zip(after) {
        *weight = endpoint.weight();
    }
    Some(next)
}

/// The stats of an endpoint that is new, or back.
fn arrive(
    id: &EndpointId,
    absent: &mut HashMap<EndpointId, Absent>,
    ledger: &mut Ledger,
    now: Timestamp,
) -> EndpointStats {
    let known = absent.remove(id).filter(|absent| absent.is_remembered(now));
    known.map_or_else(|| ledger.open(), |absent| absent.stats)
}
