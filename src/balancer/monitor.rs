//! What calls and probes tell of the endpoints, gathered from time to time.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::layout::Fact;
use crate::endpoint::{Endpoint, EndpointSet};
use crate::event::Event;
use crate::health::check::Watched;
use crate::health::outlier::{Change, Ejector, Observation, OutlierEjection, Standing};
use crate::health::slow_start::SlowStart;
use crate::rng::Rng;
use crate::stats::{EndpointStats, NodeKey, Trial};
use crate::time::Timestamp;

/// Who is well; all state is by the endpoints' identity.
pub(super) struct Monitor {
    ejector: Option<(Ejector, OutlierEjection)>,
    slow_start: Option<SlowStart>,
    checks: Option<Watched>,
    /// Those that fail their check, and why.
    failing: HashMap<NodeKey, Arc<str>>,
    /// Where slow start is on: since when each endpoint has nothing against it;
    /// none for those of the first set, which were there before.
    admitted: HashMap<NodeKey, Option<Timestamp>>,
    ramping: bool,
    begun: bool,
    rng: Rng,
    looked: Timestamp,
}

impl Monitor {
    pub(super) fn new(
        ejection: Option<OutlierEjection>,
        slow_start: Option<SlowStart>,
        checks: Option<Watched>,
        now: Timestamp,
    ) -> Self {
        Self {
            ejector: ejection.map(|settings| (Ejector::new(settings.clone(), now), settings)),
            slow_start,
            checks,
            failing: HashMap::new(),
            admitted: HashMap::new(),
            ramping: false,
            begun: false,
            rng: Rng::from_entropy(),
            looked: now,
        }
    }

    /// Probes the endpoints of `set`, and no others.
    pub(super) fn follow(&mut self, set: &EndpointSet, stats: &[EndpointStats]) {
        if let Some(checks) = &mut self.checks {
            checks.follow(set, stats);
        }
    }

    /// The set with those of `before` that the registry no longer tells of, but
    /// that pass their check.
    pub(super) fn keep_passing(&self, before: &EndpointSet, set: EndpointSet) -> EndpointSet {
        let Some(checks) = self.checks.as_ref().filter(|checks| checks.keeps_absent()) else {
            return set;
        };
        let absent = before
            .iter()
            .filter(|endpoint| set.get(endpoint.id()).is_none() && checks.passes(endpoint.id()));
        let absent: Vec<&Endpoint> = absent.map(AsRef::as_ref).collect();
        if absent.is_empty() {
            return set;
        }
        // One that is back under another id is not absent.
        let here: HashSet<&str> = set.iter().map(|e| e.address().as_str()).collect();
        let absent = absent
            .into_iter()
            .filter(|e| !here.contains(e.address().as_str()));
        let all = set.iter().map(AsRef::as_ref).chain(absent).cloned();
        // The ids of the two differ.
        set.next(all).unwrap_or_else(|_| set.clone())
    }

    /// Whether probes say that an endpoint which the registry no longer tells of
    /// has to go.
    pub(super) fn has_checks(&self) -> bool {
        self.checks.is_some()
    }

    /// What is not well of a new set, as far as is known; none where all is.
    /// O(n), but for a look at two numbers where nothing ever was.
    pub(super) fn look_at_change(
        &mut self,
        set: &EndpointSet,
        stats: &[EndpointStats],
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Option<Box<[Fact]>> {
        let quiet = self.ejector.as_ref().is_none_or(|(e, _)| e.is_quiet());
        if quiet && self.checks.is_none() && self.slow_start.is_none() {
            return None;
        }
        self.look(set, stats, now, events)
    }

    /// Looks at all endpoints, and tells what is not well; none where all is.
    /// O(n).
    pub(super) fn look(
        &mut self,
        set: &EndpointSet,
        stats: &[EndpointStats],
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Option<Box<[Fact]>> {
        self.looked = now;
        let mut changes = self.take_checks(set, stats, now, events);
        changes.extend(self.take_calls(set, stats, now));
        tell(&changes, set, stats, events);
        let facts = self.facts(set, stats, now);
        self.begun = true;
        facts
    }

    /// When to look again though nobody asks.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        let ejector = self.ejector.as_ref();
        let ejector = ejector.and_then(|(ejector, _)| ejector.next_wake());
        let ramp = self.slow_start.as_ref().filter(|_| self.ramping);
        // A tenth of the weight a step, as Envoy's minimum.
        let step = ramp.map(|ramp| (ramp.window() / 10).max(Duration::from_millis(50)));
        let ramp = step.map(|step| self.looked.plus(step));
        ejector.into_iter().chain(ramp).min()
    }

    fn take_checks(
        &mut self,
        set: &EndpointSet,
        stats: &[EndpointStats],
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(checks) = &mut self.checks else {
            return changes;
        };
        for (endpoint, stats) in set.iter().zip(stats) {
            let id = endpoint.id();
            if let Some(reason) = checks.fails(id) {
                if let Entry::Vacant(entry) = self.failing.entry(stats.key()) {
                    entry.insert(Arc::clone(&reason));
                    events.push(Event::CheckFailed {
                        endpoint: id.clone(),
                        reason: reason.as_ref().to_owned(),
                    });
                }
                continue;
            }
            if self.failing.remove(&stats.key()).is_some() {
                events.push(Event::CheckPassed {
                    endpoint: id.clone(),
                });
            }
            if let Some((ejector, _)) = &mut self.ejector {
                let is_out = ejector.standing(stats.key()) != Standing::Admitted;
                if checks.passed_while_out(id, is_out) {
                    changes.extend(ejector.passed_check(stats.key(), now));
                }
            }
        }
        changes
    }

    fn take_calls(
        &mut self,
        set: &EndpointSet,
        stats: &[EndpointStats],
        now: Timestamp,
    ) -> Vec<Change> {
        let Some((ejector, settings)) = &mut self.ejector else {
            return Vec::new();
        };
        let called = set.iter().zip(stats).filter(|(e, _)| e.takes_calls());
        let mut changes = Vec::new();
        let mut seen = Vec::new();
        for (_, stats) in called {
            let passed = match stats.accrual().trial() {
                Trial::Passed => Some(true),
                Trial::Failed => Some(false),
                Trial::None | Trial::Open | Trial::Taken => None,
            };
            if let Some(passed) = passed {
                changes.extend(ejector.end_trial(stats.key(), passed, now, &mut self.rng));
                stats.accrual().forgive();
            }
            let mut observation = Observation::new(stats.key());
            if stats.accrual().is_suspect() {
                observation = observation.streaks(stats.streaks());
            }
            if settings.compares() {
                let totals = stats.totals();
                observation = observation
                    .ended(totals.succeeded, totals.failed)
                    .latency(stats.latency());
            }
            seen.push(observation);
        }
        changes.extend(ejector.observe(&seen, now, &mut self.rng));
        changes
    }

    fn facts(
        &mut self,
        set: &EndpointSet,
        stats: &[EndpointStats],
        now: Timestamp,
    ) -> Option<Box<[Fact]>> {
        let (ejector, failing) = (self.ejector.as_ref(), &self.failing);
        let quiet = ejector.is_none_or(|(ejector, _)| ejector.is_quiet());
        if quiet && failing.is_empty() && self.slow_start.is_none() {
            return None;
        }
        let mut facts: Box<[Fact]> = stats
            .iter()
            .map(|stats| Fact {
                standing: ejector.map_or(Standing::Admitted, |(e, _)| e.standing(stats.key())),
                failing: failing.get(&stats.key()).cloned(),
                ..Fact::WELL
            })
            .collect();
        if let Some(slow_start) = &self.slow_start {
            let mut admitted = HashMap::with_capacity(stats.len());
            self.ramping = false;
            for ((endpoint, stats), fact) in set.iter().zip(stats).zip(&mut facts) {
                if !endpoint.takes_calls() || !fact.is_healthy() {
                    continue;
                }
                let known = self.admitted.get(&stats.key()).copied();
                let since = known.unwrap_or_else(|| self.begun.then_some(now));
                admitted.insert(stats.key(), since);
                fact.factor = since.map_or(1.0, |since| slow_start.factor(now.since(since)));
                self.ramping |= fact.factor < 1.0;
            }
            self.admitted = admitted;
        }
        let well = facts.iter().all(|fact| *fact == Fact::WELL);
        (!well).then_some(facts)
    }
}

/// Lets the calls and the observers know.
fn tell(changes: &[Change], set: &EndpointSet, stats: &[EndpointStats], events: &mut Vec<Event>) {
    if changes.is_empty() {
        return;
    }
    let by_key: HashMap<NodeKey, usize> = stats.iter().map(EndpointStats::key).zip(0..).collect();
    for change in changes {
        let Some(&at) = by_key.get(&change.key) else {
            continue;
        };
        let accrual = stats[at].accrual();
        accrual.forgive();
        let endpoint = set.endpoints()[at].id().clone();
        let offered = accrual.trial() != Trial::None;
        let (trial, event) = match change.to {
            Standing::Admitted => (Trial::None, Event::Admitted { endpoint }),
            Standing::OnTrial => (Trial::Open, Event::OnTrial { endpoint }),
            Standing::Ejected { until, cause } => {
                let cause = cause.to_string();
                let event = Event::Ejected {
                    endpoint,
                    until,
                    cause,
                };
                (Trial::None, event)
            }
        };
        accrual.set_trial(trial);
        // A trial call that nobody took, or that never ended, is offered again.
        if !(offered && change.to == Standing::OnTrial) {
            events.push(event);
        }
    }
}
