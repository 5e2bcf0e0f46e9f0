//! Probing to reduce queuing and latency.

use std::sync::Arc;
use std::time::Duration;

use super::alias::WeightedDraw;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::error::Error;
use crate::rng::Rng;
use crate::stats::{Entry, Recent};
use crate::time::Timestamp;
use crate::view::{NodeIndex, View};

/// Goes by the last sixteen reports of any endpoints, of which the cold ones are compared by latency
/// and the hot ones by the calls they hold: Prequal (Wydrowski et al., NSDI'24).
///
/// Reports come with answers ([`load`](crate::load)), and with the answers to probes, which
/// [`LoadProbes`](crate::client::LoadProbes) sends to random endpoints, three for each call. That is
/// what it is for: clients so many that one sees little of each server, and servers whose capacity
/// differs or changes, such as those that share their machines.
///
/// - A report is used while it is younger than a second, for as many calls as the paper's formula
///   allows: `max(1, (1 + δ) / ((1 − m/n)·r − 1))` with `m` = 16 reports, `n` endpoints, `r` probes a
///   call and `δ` = 1, rounded at random; at most eight. Each call takes one away besides, the oldest and the worst
///   by turns. Of an endpoint that reported twice, the last counts.
/// - An endpoint is hot when it holds more calls than a share of the reports
///   ([`quantile`](Self::quantile), .84) do. Of the cold ones the quickest gets the call; where all
///   are hot, the one that holds the fewest.
/// - Calls of our own that began and ended since are added to what a report said. So are failures,
///   each as what could be waited for in a second, so that one that fails fast is not quick.
/// - Of sixteen endpoints or fewer, each keeps its last report, and none is taken away.
/// - With fewer than two reports, an endpoint is drawn at random, by weight. So is one that answers
///   and never reports, as before a rollout comes to it: it gets its share, and not what those that
///   report leave. One of which nothing is known gets a call that finds out: of sixteen or fewer when
///   it is drawn first, else at every second time, since probes may tell of it before.
///
/// Weights divide the calls that are held. A server that tells its calls and not its latency has
/// the latency that is measured here.
///
/// O(16), no allocation, no lock. All threads that pick share the reports, whose sixteen words they
/// write.
///
/// ```
/// use waypost::strategy::Prequal;
///
/// let careful = Prequal::new().quantile(0.6)?;
/// assert!(Prequal::new().quantile(1.1).is_err());
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prequal {
    quantile: f32,
    probes: f32,
    lasts: Duration,
}

impl Prequal {
    /// The strategy, with the paper's settings.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            // 2^-.25, the paper's.
            quantile: 0.84,
            probes: 3.0,
            lasts: Duration::from_secs(1),
        }
    }

    /// The share of the reports whose endpoints are cold: 0 goes by calls alone, 1 by latency
    /// alone, and .6 to .9 do about as well (the paper's figure 9).
    ///
    /// # Errors
    ///
    /// When it is not in 0 to 1.
    pub fn quantile(mut self, quantile: f64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&quantile) {
            let reason = "it is a share, from 0 to 1";
            return Err(Error::invalid("quantile", quantile, reason));
        }
        self.quantile = quantile as f32;
        Ok(self)
    }

    /// How many reports come for each call, from which follows how often one is used: those of
    /// probes and of answers together.
    ///
    /// # Errors
    ///
    /// When it is not above 0, or not finite.
    pub fn reports_per_call(mut self, reports: f64) -> Result<Self, Error> {
        if !(reports.is_finite() && reports > 0.0) {
            let reason = "it is a finite number above 0";
            return Err(Error::invalid("reports_per_call", reports, reason));
        }
        self.probes = reports as f32;
        Ok(self)
    }

    /// For how long a report is used; 1 s in the paper.
    #[must_use]
    pub const fn max_age(mut self, age: Duration) -> Self {
        self.lasts = age;
        self
    }

    fn uses(&self, endpoints: u32) -> f32 {
        let left = 1.0 - Recent::SLOTS as f32 / endpoints as f32;
        let spare = left * self.probes - REMOVED;
        if spare <= 0.0 {
            return MOST_USES;
        }
        ((1.0 + DELTA) / spare).clamp(1.0, MOST_USES)
    }
}

impl Default for Prequal {
    fn default() -> Self {
        Self::new()
    }
}

/// The paper's `r_remove` and `δ`.
const REMOVED: f32 = 1.0;
const DELTA: f32 = 1.0;

/// Where reports are scarce beside calls, one is not used for ever: after so many calls, a server
/// with as many workers is no longer what it was.
const MOST_USES: f32 = 8.0;

/// Of so many draws of endpoints of which nothing is known, one is called.
const EXPLORED: u32 = 2;

/// A failed call costs its caller at least a retry: Finagle's second, in nanoseconds.
const FAILURE: f32 = 1e9;

impl Strategy for Prequal {
    fn build(&self, view: &View) -> BoxPicker {
        let rows: Vec<u32> = view.nodes().map(|node| node.stats().row()).collect();
        let most = rows.iter().max().map_or(0, |most| most + 1);
        let mut index = vec![NOWHERE; most as usize];
        for (at, row) in (0..).zip(rows) {
            index[row as usize] = at;
        }
        Box::new(Probed {
            rules: *self,
            uses: self.uses(view.len()),
            recent: view
                .nodes()
                .next()
                .map(|node| Arc::clone(node.stats().recent_reports())),
            index: index.into(),
            draw: WeightedDraw::new(view),
            mean_weight: view.mean_weight() as f32,
            view: view.clone(),
        })
    }

    fn reads_latency(&self) -> bool {
        true
    }

    fn reads_reports(&self) -> bool {
        true
    }
}

struct Probed {
    rules: Prequal,
    view: View,
    recent: Option<Arc<Recent>>,
    /// The position of each row.
    index: Box<[NodeIndex]>,
    draw: WeightedDraw,
    mean_weight: f32,
    uses: f32,
}

/// A row of no endpoint in the view.
const NOWHERE: NodeIndex = NodeIndex::MAX;

#[derive(Clone, Copy)]
struct Candidate {
    entry: Entry,
    index: NodeIndex,
    age: Duration,
    /// Calls it holds, and what its failures count for.
    held: f32,
    /// Nanoseconds.
    latency: f32,
}

/// Those that a report speaks for.
struct Pool {
    all: [Option<Candidate>; Recent::SLOTS],
    /// More calls than this are hot.
    threshold: f32,
}

impl Probed {
    /// What is known of an endpoint now, if its report is still of use.
    fn candidate(&self, entry: Entry, now: Timestamp) -> Option<Candidate> {
        let index = *self.index.get(entry.row() as usize)?;
        let age = entry.age(now);
        if index == NOWHERE || age > self.rules.lasts {
            return None;
        }
        let stats = self.view.node(index).stats();
        let said = stats.held(now)?;
        let own = self.view.in_flight(index) as f32;
        let latency = match stats.reported_latency() {
            0.0 => stats.gauges().falling_latency(now).abs(),
            latency => latency,
        };
        let failures = stats.gauges().trouble(now) * FAILURE / latency.max(1.0);
        let held = (said.calls + own - said.own as f32).max(own);
        Some(Candidate {
            entry,
            index,
            age,
            held: held * self.mean_weight / self.view.weight(index) as f32 + failures,
            latency,
        })
    }

    /// Whether an endpoint that the call may go to never said anything, and that is no reason to keep
    /// away: it answers well, or was not called yet.
    fn is_silent(&self, index: NodeIndex, context: &mut PickContext<'_>) -> bool {
        let (stats, now) = (self.view.node(index).stats(), context.now());
        if stats.held(now).is_some()
            || stats.gauges().trouble(now) > 0.0
            || !context.may_pick(&self.view, index)
        {
            return false;
        }
        let answers = stats.gauges().falling_latency(now) != 0.0;
        let is_few = self.view.len() as usize <= Recent::SLOTS;
        answers || self.view.in_flight(index) == 0 && (is_few || context.rng().below(EXPLORED) == 0)
    }

    fn pool(&self, recent: &Recent, now: Timestamp) -> Pool {
        let mut all = [None; Recent::SLOTS];
        let mut held = [f32::INFINITY; Recent::SLOTS];
        let mut found = 0;
        let known = recent
            .entries()
            .filter_map(|entry| self.candidate(entry, now));
        for (at, candidate) in known.enumerate().take(Recent::SLOTS) {
            (all[at], held[at]) = (Some(candidate), candidate.held);
            found = at + 1;
        }
        let held = &mut held[..found];
        held.sort_unstable_by(f32::total_cmp);
        let at = (self.rules.quantile * found.saturating_sub(1) as f32) as usize;
        Pool {
            all,
            threshold: held.get(at).copied().unwrap_or_default(),
        }
    }

    /// Takes one report away, whose age or bad news would keep it there for ever.
    fn remove_one(
        &self,
        recent: &Recent,
        pool: &Pool,
        chosen: &Candidate,
        context: &mut PickContext<'_>,
    ) {
        if self.view.len() as usize <= Recent::SLOTS {
            return;
        }
        let others = pool.iter().filter(|other| other.index != chosen.index);
        *context.cursor() = context.cursor().wrapping_add(1);
        let removed = if (*context.cursor()).is_multiple_of(2) {
            others.max_by_key(|other| other.age)
        } else {
            others.reduce(|worst, other| {
                if pool.prefers(&worst, &other) {
                    other
                } else {
                    worst
                }
            })
        };
        if let Some(removed) = removed {
            recent.remove(removed.entry);
        }
    }

    /// Rounded at random, so that the mean is kept.
    fn uses(&self, rng: &mut Rng) -> u32 {
        let whole = self.uses as u32;
        let part = (self.uses.fract() * 1_024.0) as u32;
        whole + u32::from(rng.below(1_024) < part)
    }
}

impl Pool {
    fn iter(&self) -> impl Iterator<Item = Candidate> {
        self.all.iter().copied().map_while(|candidate| candidate)
    }

    /// Whether the first is better than the second: cold before hot, cold ones by latency, hot
    /// ones by what they hold.
    fn prefers(&self, one: &Candidate, other: &Candidate) -> bool {
        match (one.held > self.threshold, other.held > self.threshold) {
            (false, false) => one.latency < other.latency,
            (true, true) => one.held < other.held,
            (one, _) => !one,
        }
    }
}

impl Picker for Probed {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let recent = self.recent.as_ref()?;
        let drawn = self.draw.draw(context.rng());
        if self.is_silent(drawn, context) {
            return Some(drawn);
        }
        let pool = self.pool(recent, context.now());
        let open = pool
            .iter()
            .filter(|it| context.may_pick(&self.view, it.index));
        let best = open.reduce(|best, it| if pool.prefers(&it, &best) { it } else { best });
        match best {
            // One report alone would get every call.
            Some(chosen) if pool.iter().nth(1).is_some() => {
                let most = self.uses(context.rng());
                recent.use_up(chosen.entry, most);
                self.remove_one(recent, &pool, &chosen, context);
                Some(chosen.index)
            }
            _ => context.first_untried(&self.view, drawn),
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;
    use crate::Endpoint;
    use crate::Outcome;
    use crate::load::LoadReport;
    use crate::strategy::PickOptions;

    struct Fleet {
        view: View,
        picker: BoxPicker,
        context: PickContext<'static>,
    }

    impl Fleet {
        fn new(endpoints: u32, rules: Prequal) -> Self {
            let endpoint = |i| Endpoint::at(format!("s{i:03}:80").as_str()).unwrap();
            let view = View::standalone((0..endpoints).map(endpoint));
            let mut context = PickContext::new(Rng::seeded(1), 0, &PickOptions::ANY);
            context.set_now(at(1_000));
            Self {
                picker: rules.build(&view),
                view,
                context,
            }
        }

        fn report(&self, index: NodeIndex, held: f64, ms: f64, millis: u64) {
            let mut report = LoadReport::default();
            report
                .named_metrics
                .insert(LoadReport::IN_FLIGHT.into(), held);
            report
                .named_metrics
                .insert(LoadReport::LATENCY_MS.into(), ms);
            self.view.node(index).stats().reported(&report, at(millis));
        }

        fn pick(&mut self) -> NodeIndex {
            self.picker.pick(&mut self.context).unwrap()
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(millis))
    }

    #[test]
    fn the_quickest_cold_one_comes_before_all_hot_ones() {
        // Of seven, the sixth is the last cold one.
        let mut fleet = Fleet::new(100, Prequal::new());
        for (index, held, ms) in [
            (4, 9.0, 1.0),
            (7, 5.0, 20.0),
            (8, 4.0, 30.0),
            (9, 3.0, 40.0),
        ] {
            fleet.report(index, held, ms, 900);
        }
        for index in [20, 21, 22] {
            fleet.report(index, 1.0, 50.0, 900);
        }
        assert_eq!(fleet.pick(), 7);
    }

    #[test]
    fn by_calls_alone_and_by_latency_alone_are_the_ends_of_the_quantile() {
        for (quantile, expected) in [(0.0, 9), (1.0, 4)] {
            let mut fleet = Fleet::new(100, Prequal::new().quantile(quantile).unwrap());
            for (index, held, ms) in [(4, 9.0, 1.0), (7, 5.0, 20.0), (9, 3.0, 40.0)] {
                fleet.report(index, held, ms, 900);
            }
            assert_eq!(fleet.pick(), expected);
        }
    }

    #[test]
    fn a_report_is_used_up_and_each_call_takes_another_away() {
        // (1 + 1) / ((1 - 16/1000)·3 - 1) is 1.03.
        let mut fleet = Fleet::new(1_000, Prequal::new());
        for index in 0..16 {
            fleet.report(index, 1.0, f64::from(index + 1), 900);
        }
        let left = |fleet: &Fleet| {
            let recent = fleet.view.node(0).stats().recent_reports();
            recent.entries().count()
        };
        assert_eq!((left(&fleet), fleet.pick()), (16, 0));
        assert!((13..=14).contains(&left(&fleet)));
        for _ in 0..20 {
            fleet.pick();
        }
        assert!(left(&fleet) <= 1);
    }

    #[test]
    fn without_two_fresh_reports_any_endpoint_may_come() {
        let mut fleet = Fleet::new(50, Prequal::new());
        fleet.report(3, 0.0, 1.0, 900);
        // Long ago.
        fleet.report(5, 0.0, 1.0, 1);
        fleet.context.set_now(at(1_100));
        let mut picked: Vec<_> = (0..200).map(|_| fleet.pick()).collect();
        picked.sort_unstable();
        picked.dedup();
        assert!(picked.len() > 40, "{picked:?}");
    }

    #[test]
    fn a_report_is_used_until_it_is_as_old_as_it_may_be() {
        // Reported 100 ms ago, by two of fifty.
        for (age, is_used) in [(101, true), (99, false)] {
            let rules = Prequal::new().max_age(Duration::from_millis(age));
            let mut fleet = Fleet::new(50, rules);
            let others = (0..200).filter(|_| {
                fleet.report(3, 1.0, 1.0, 900);
                fleet.report(5, 1.0, 1.0, 900);
                ![3, 5].contains(&fleet.pick())
            });
            let others = others.count();
            // One of two draws finds out about those of which nothing is known.
            assert_eq!(others < 150, is_used, "{others}");
        }
    }

    #[test]
    fn calls_of_our_own_since_count_and_so_do_failures() {
        let rules = Prequal::new().quantile(0.0).unwrap();
        let mut fleet = Fleet::new(3, rules.reports_per_call(100.0).unwrap());
        for (index, held) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
            fleet.report(index, held, 10.0, 900);
        }
        let stats = fleet.view.node(0).stats();
        stats
            .gauges()
            .ended(1_000_000, Outcome::ServerError, true, at(950));
        stats
            .gauges()
            .ended(1_000_000, Outcome::ServerError, true, at(951));
        assert_eq!(fleet.pick(), 1, "the first fails");
    }

    #[test]
    fn one_that_answers_and_does_not_report_gets_its_share_until_it_fails() {
        let rules = Prequal::new().max_age(Duration::from_hours(1));
        let mut fleet = Fleet::new(20, rules.reports_per_call(100.0).unwrap());
        let silent = fleet.view.node(7).stats().clone();
        let share = |fleet: &mut Fleet| {
            let picked = (0..1_000).filter(|_| {
                fleet.report(3, 1.0, 1.0, 900);
                fleet.report(5, 1.0, 1.0, 900);
                fleet.pick() == 7
            });
            picked.count()
        };
        assert!(share(&mut fleet) < 40, "nothing is known of it");
        silent
            .gauges()
            .ended(1_000_000, Outcome::Success, true, at(950));
        assert!((30..75).contains(&share(&mut fleet)), "a twentieth");
        for millis in [960, 970] {
            silent
                .gauges()
                .ended(1_000_000, Outcome::ServerError, true, at(millis));
        }
        assert_eq!(share(&mut fleet), 0, "it fails");
    }

    #[test]
    fn of_few_one_of_which_nothing_is_known_gets_a_call() {
        let mut fleet = Fleet::new(3, Prequal::new());
        let found = (0..100).find(|_| {
            fleet.report(0, 1.0, 1.0, 900);
            fleet.report(1, 1.0, 1.0, 900);
            fleet.pick() == 2
        });
        assert!(found.is_some());
    }

    #[test]
    fn what_is_no_share_or_number_is_refused() {
        for quantile in [-0.1, 1.1, f64::NAN] {
            assert!(Prequal::new().quantile(quantile).unwrap_err().is_invalid());
        }
        for reports in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            let refused = Prequal::new().reports_per_call(reports).unwrap_err();
            assert!(refused.is_invalid());
        }
        for (n, expected) in [(100, 1.316), (10, 8.0), (1_000_000, 1.0)] {
            assert!((Prequal::new().uses(n) - expected).abs() < 0.01, "{n}");
        }
    }
}
