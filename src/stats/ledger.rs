//! Where the counters of one balancer's endpoints lie.
//!
//! A pick reads and writes counters of endpoints that it knows by position, so
//! they lie flat: each thread's side by side, 32 endpoints a page, found by two
//! small tables and without a look at the endpoints themselves. An endpoint
//! keeps its row for as long as anybody refers to its stats, whatever set it is
//! in; a set brings a table of the rows of its endpoints, which is shared from
//! set to set while the ids are the same.

use std::hint;
use std::sync::{Arc, Mutex, PoisonError};

use super::gauges::{Cost, Gauges};
use super::latency::Latency;
use super::stripe::Stripe;
use super::{Accounting, EndpointStats, Outcome, Totals};
use crate::sync::Slot;

/// The rows of a page: enough that a thousand endpoints are 32 pages, and few
/// enough that a service with three spends a kilobyte a thread.
const ROWS: usize = 32;

/// What one slot counts in a page.
#[derive(Debug)]
#[repr(align(64))]
struct Lane([Stripe; ROWS]);

impl Lane {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Stripe::default()))
    }
}

/// The counters of 32 endpoints: a lane for each slot that a machine may have,
/// of which those that are never used are never touched. What time tells of the
/// endpoints is no thread's own: but for peaks and failures, it is written once in
/// 16 µs at most for each.
#[derive(Debug)]
struct Page {
    lanes: [Lane; Slot::MOST],
    latency: [Latency; ROWS],
    costs: [Cost; ROWS],
}

impl Page {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lanes: std::array::from_fn(|_| Lane::new()),
            latency: std::array::from_fn(|_| Latency::default()),
            costs: std::array::from_fn(|_| Cost::default()),
        })
    }

    #[inline]
    fn stripe(&self, row: u32, slot: Slot) -> &Stripe {
        // Reduced, which changes nothing and spares the bounds' checks.
        let lane = &self.lanes[usize::from(slot.stripe) % Slot::MOST];
        &lane.0[row as usize % ROWS]
    }

    #[inline]
    fn gauges(&self, row: u32) -> Gauges<'_> {
        let at = row as usize % ROWS;
        Gauges {
            latency: &self.latency[at],
            cost: &self.costs[at],
        }
    }

    #[inline]
    fn in_flight(&self, row: u32, stripes: Stripes) -> u32 {
        let at = row as usize % ROWS;
        let lane = |i: usize| self.lanes[i].0[at].in_flight();
        let sum = match stripes {
            Stripes::One => lane(0),
            Stripes::Two => lane(0).wrapping_add(lane(1)),
            Stripes::Many(in_use) => {
                let stripes = self.stripes(row).take(in_use);
                stripes.fold(0_u32, |sum, stripe| sum.wrapping_add(stripe.in_flight()))
            }
        };
        // A call that began under one thread and ended under another leaves +1
        // in one stripe and -1 in the next; a reader between the two may see
        // the -1 alone.
        sum.cast_signed().max(0).cast_unsigned()
    }

    fn stripes(&self, row: u32) -> impl Iterator<Item = &Stripe> {
        let at = row as usize % ROWS;
        self.lanes.iter().map(move |lane| &lane.0[at])
    }
}

/// The calls to all endpoints of a ledger together, for strategies that ask: a line for each slot.
#[derive(Debug)]
struct Total([Line; Slot::MOST]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(Stripe);

impl Total {
    fn stripe(&self, slot: Slot) -> &Stripe {
        &self.0[usize::from(slot.stripe) % Slot::MOST].0
    }

    fn in_flight(&self) -> u64 {
        let lines = self.0.iter().take(Slot::in_use());
        let sum = lines.fold(0_u32, |sum, line| sum.wrapping_add(line.0.in_flight()));
        // Below zero for a moment, as the sum of a page.
        sum.cast_signed().max(0).cast_unsigned().into()
    }
}

/// The counters of one endpoint, in every lane of its page.
#[derive(Debug)]
pub(super) struct Row {
    page: Arc<Page>,
    total: Option<Arc<Total>>,
    number: u32,
    /// Where the number goes when nobody refers to it any more.
    free: Arc<Mutex<Vec<u32>>>,
}

impl Row {
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.page.in_flight(self.number, Stripes::in_use())
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for stripe in self.page.stripes(self.number) {
            stripe.add_to(&mut totals);
        }
        totals
    }

    #[inline]
    pub(super) fn gauges(&self) -> Gauges<'_> {
        self.page.gauges(self.number)
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn end(&self, slot: Slot, outcome: Outcome) {
        self.page.stripe(self.number, slot).end(slot, outcome);
        if let Some(total) = &self.total {
            total.stripe(slot).end(slot, outcome);
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.number);
    }
}

/// Hands out rows.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pages: Vec<Arc<Page>>,
    /// The same pages, as [`Counters`] share them.
    shared: Option<Arc<[Arc<Page>]>>,
    total: Option<Arc<Total>>,
    accounting: Arc<Accounting>,
    /// Numbers below this were handed out.
    next: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl Ledger {
    /// One that keeps a total, too, if that is asked for.
    pub(crate) fn new(accounting: Accounting, with_total: bool) -> Self {
        let total = || Arc::new(Total(std::array::from_fn(|_| Line::default())));
        Self {
            total: with_total.then(total),
            accounting: Arc::new(accounting),
            ..Self::default()
        }
    }

    /// The stats of an endpoint that is new.
    pub(crate) fn open(&mut self) -> EndpointStats {
        let returned = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.pop()
        };
        let number = returned.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let at = number as usize / ROWS;
        if at == self.pages.len() {
            self.pages.push(Page::new());
            self.shared = None;
        }
        let row = Row {
            page: Arc::clone(&self.pages[at]),
            total: self.total.clone(),
            number,
            free: Arc::clone(&self.free),
        };
        if returned.is_some() {
            // Whoever counted here has let go of the row, and the mutex makes
            // what they wrote happen before this.
            row.page.stripes(number).for_each(Stripe::reset);
            row.gauges().reset();
        }
        EndpointStats::new(row, Arc::clone(&self.accounting))
    }

    /// The counters of endpoints with these rows of this ledger.
    pub(crate) fn counters(&mut self, rows: Arc<[u32]>) -> Counters {
        let pages = &self.pages;
        let shared = self
            .shared
            .get_or_insert_with(|| pages.iter().cloned().collect());
        Counters {
            rows,
            pages: Arc::clone(shared),
            total: self.total.clone(),
        }
    }
}

/// The calls of endpoints that are known by position.
///
/// Every position has a row; looking it up without a way to panic keeps the hot
/// path free of what unwinding would need.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    rows: Arc<[u32]>,
    pages: Arc<[Arc<Page>]>,
    total: Option<Arc<Total>>,
}

impl Counters {
    pub(crate) fn none() -> Self {
        Self {
            rows: Arc::from([]),
            pages: Arc::from([]),
            total: None,
        }
    }

    /// The same endpoints in another order.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        Self {
            rows: order.iter().map(|&at| self.rows[at as usize]).collect(),
            pages: Arc::clone(&self.pages),
            total: self.total.clone(),
        }
    }

    #[inline]
    fn page(&self, position: u32) -> Option<(&Page, u32)> {
        let row = *self.rows.get(position as usize)?;
        let page = self.pages.get(row as usize / ROWS)?;
        Some((page, row))
    }

    #[inline]
    pub(crate) fn begin(&self, position: u32, slot: Slot) {
        if let Some((page, row)) = self.page(position) {
            page.stripe(row, slot).begin(slot);
        }
    }

    #[inline]
    pub(crate) fn end(&self, position: u32, slot: Slot, outcome: Outcome) {
        if let Some((page, row)) = self.page(position) {
            page.stripe(row, slot).end(slot, outcome);
        }
    }

    /// What time tells of the endpoint at that position.
    #[inline]
    pub(crate) fn gauges(&self, position: u32) -> Option<Gauges<'_>> {
        let (page, row) = self.page(position)?;
        Some(page.gauges(row))
    }

    /// Whether calls are to be counted in a total, too. That is left to the caller, since few
    /// strategies ask for it, and the others' calls should not have to look.
    pub(crate) fn has_total(&self) -> bool {
        self.total.is_some()
    }

    pub(crate) fn begin_in_total(&self, slot: Slot) {
        if let Some(total) = &self.total {
            total.stripe(slot).begin(slot);
        }
    }

    pub(crate) fn end_in_total(&self, slot: Slot, outcome: Outcome) {
        if let Some(total) = &self.total {
            total.stripe(slot).end(slot, outcome);
        }
    }

    /// The calls in flight in the whole ledger, if it keeps a total. While calls begin and end, it
    /// may miss those that do so during the reading.
    pub(crate) fn total_in_flight(&self) -> Option<u64> {
        self.total.as_ref().map(|total| total.in_flight())
    }

    /// The calls in flight there; more than there ever are where nothing is.
    #[inline]
    pub(crate) fn in_flight(&self, position: u32) -> u32 {
        let page = self.page(position);
        page.map_or(u32::MAX, |(page, row)| {
            page.in_flight(row, Stripes::in_use())
        })
    }

    /// The calls in flight at two positions; more than there ever are where
    /// nothing is.
    #[inline]
    pub(crate) fn two_in_flight(&self, first: u32, second: u32) -> (u32, u32) {
        match (self.page(first), self.page(second)) {
            (Some((first, a)), Some((second, b))) => {
                let stripes = Stripes::in_use();
                (first.in_flight(a, stripes), second.in_flight(b, stripes))
            }
            _ => (u32::MAX, u32::MAX),
        }
    }

    /// Begins a call at the second of two positions if that one is better by
    /// what is read of both, else at the first, and tells which. The second is
    /// not read where the first cannot be beaten: its counters may be another
    /// core's by now.
    #[expect(clippy::inline_always, reason = "a call would need a stack")]
    #[inline(always)]
    pub(crate) fn begin_at_better<T: Copy>(
        &self,
        (first, second): (u32, u32),
        slot: Slot,
        read: impl Fn(Place<'_>) -> T,
        is_best: impl FnOnce(T) -> bool,
        second_is_better: impl FnOnce(T, T) -> bool,
    ) -> u32 {
        let (Some(one), Some(other)) = (self.page(first), self.page(second)) else {
            return first;
        };
        let read = |(page, row): (&Page, u32)| read(Place { page, row });
        let a = read(one);
        if is_best(a) {
            one.0.stripe(one.1, slot).begin(slot);
            return first;
        }
        let second_is_better = second_is_better(a, read(other));
        let ((page, row), chosen) =
            hint::select_unpredictable(second_is_better, (other, second), (one, first));
        page.stripe(row, slot).begin(slot);
        chosen
    }
}

/// Where an endpoint's counters are.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    page: &'a Page,
    row: u32,
}

impl<'a> Place<'a> {
    /// The calls in flight there.
    #[inline]
    pub(crate) fn in_flight(self, stripes: Stripes) -> u32 {
        self.page.in_flight(self.row, stripes)
    }

    #[inline]
    pub(crate) fn gauges(self) -> Gauges<'a> {
        self.page.gauges(self.row)
    }
}

/// How many stripes a reader adds up. One or two threads that pick are common, and
/// a loop for so few costs more than what it adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stripes {
    One,
    Two,
    Many(usize),
}

impl Stripes {
    #[inline]
    pub(crate) fn in_use() -> Self {
        match Slot::in_use() {
            1 => Self::One,
            2 => Self::Two,
            in_use => Self::Many(in_use),
        }
    }
}

#[cfg(all(test, not(waypost_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_position_and_by_its_stats() {
        let mut ledger = Ledger::default();
        let opened: Vec<EndpointStats> = (0..=3 * ROWS).map(|_| ledger.open()).collect();
        // Some of them, in an order of their own.
        let chosen: Vec<&EndpointStats> = opened.iter().rev().step_by(7).collect();
        let rows = chosen.iter().map(|stats| stats.row()).collect();
        let counters = ledger.counters(rows);
        let slot = Slot::shared();
        for (position, stats) in (0..).zip(&chosen) {
            for _ in 0..=position {
                counters.begin(position, slot);
            }
            counters.end(position, slot, Outcome::NotSent);
            assert_eq!(stats.in_flight(), position);
            assert_eq!(counters.in_flight(position), position);
            assert_eq!(stats.totals().failed, 1);
        }
        let counted: u32 = opened.iter().map(EndpointStats::in_flight).sum();
        assert_eq!(counted, (0..chosen.len() as u32).sum::<u32>());
        assert_eq!(counters.in_flight(chosen.len() as u32), u32::MAX);
    }

    #[test]
    fn a_row_comes_back_clean_when_nobody_refers_to_it() {
        let mut ledger = Ledger::default();
        let (kept, given) = (ledger.open(), ledger.open());
        let row = given.row();
        let counters = ledger.counters(Arc::from([row]));
        counters.begin(0, Slot::shared());
        let other = given.clone();
        drop(given);
        assert_ne!(ledger.open().row(), row, "somebody still refers to it");
        drop(other);
        let next: Vec<EndpointStats> = (0..2).map(|_| ledger.open()).collect();
        let again = next.iter().find(|stats| stats.row() == row);
        let again = again.expect("the row is used again");
        assert_eq!((again.in_flight(), again.totals()), (0, Totals::default()));
        assert_ne!(again.key(), kept.key());
    }
}
