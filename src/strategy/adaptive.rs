//! One strategy that needs no tuning.

use super::alias::WeightedDraw;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::time::Timestamp;
use crate::view::{NodeIndex, View};

/// Goes by what servers say of their load where they do, by calls in flight and latency where they
/// do not, and by failures always.
///
/// A pick looks at 32 endpoints (all of them where there are no more) from a random one on and takes
/// the one with the lowest `√latency · load³`, after C3's cubic score (NSDI'15), in which
///
/// - `latency` is the mean of the last ten seconds, of answered calls; it falls while no call ends, so that an
///   endpoint that was slow is tried again. Its root tells a slow server
///   from a fast one, and yet noise in it does not outweigh a queue;
/// - `load` is one and the calls that the server holds, as its [report](crate::load) said, with those
///   of our own since. A report gets old as soon as other clients act on it: after a fifth of the
///   mean latency half of it counts, and for the rest what servers usually hold. So a server that
///   just said that it is idle is preferred to one that said so long ago, and clients with
///   different news do not herd. What counts of it is by how many calls the server held more than
///   others that reported about then: a server that reported before a burst began is no idle one.
///   A server that does not report beside others that do is taken to hold what they usually hold of
///   other clients' calls. Without reports it is one and our own calls in flight;
/// - failures are added to the load as the calls that could be waited for meanwhile, a failed call
///   at a second, and at more where the server said when to come back; where all calls fail, so
///   often for each that waits there. One failure among successes
///   is a blip; two in a row, or one before any success, count as if all calls failed, until time
///   tells otherwise (they fall to a third every ten seconds, so that an endpoint of a service that
///   takes 10 ms a call is tried again after a minute).
///
/// With weights, endpoints are drawn by them and calls are compared per unit of weight. An endpoint
/// of which nothing is known gets one call, and more when that has ended. Of two that are idle, a
/// fifth of the score makes no difference, and the first drawn wins.
///
/// The default of a balancer. O(32): .2 to .4 µs, where the two of [`P2c`](super::P2c) take .015,
/// which buys the tail; `examples/simulate.rs` compares them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adaptive;

impl Adaptive {
    /// The strategy.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Strategy for Adaptive {
    fn build(&self, view: &View) -> BoxPicker {
        Box::new(Scored {
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

/// Of a hundred servers, a few would miss those that just said that they are idle.
const LOOK: usize = 32;

/// A failed call costs its caller at least a retry: Finagle's second, in nanoseconds.
const FAILURE: f32 = 1e9;

/// Of an endpoint with calls under way and none that ended: dearer than all of which something is
/// known.
const UNKNOWN: f32 = 1e30;

/// Mean latencies after which half of a report counts.
const PATIENCE: f32 = 0.2;

/// The score that an idle endpoint has to be below, of the best before it if that is idle, too: so
/// an idle service of like endpoints shares its calls by weight, and not by the noise of its
/// latencies.
const NOISE: f32 = 0.8;

/// Failures that no longer tell an idle endpoint from another; the cube of one and this is less than
/// what [`NOISE`] is.
const FORGIVEN: f32 = 1.0 / 16.0;

struct Scored {
    view: View,
    draw: WeightedDraw,
    mean_weight: f32,
}

/// What is known of the endpoints that are looked at, in lists, so that a processor works at several
/// at once.
struct Candidates {
    len: usize,
    index: [NodeIndex; LOOK],
    /// Nanoseconds; 0 where none is known, and below 0 where but one call tells.
    latency: [f32; LOOK],
    /// Calls of our own in flight.
    own: [f32; LOOK],
    /// By how many calls of other clients the server held more than others when it told its load, and
    /// how long ago that was in nanoseconds; for ever where it never told.
    surplus: [f32; LOOK],
    age: [f32; LOOK],
    trouble: [f32; LOOK],
    usual: Usual,
}

/// What is usual among the candidates.
#[derive(Default)]
struct Usual {
    latency: Mean,
    /// Calls of other clients that a server holds.
    others: Mean,
    surplus: Mean,
    /// Whether there is any.
    trouble: bool,
    /// Whether there are some of which but one call tells.
    first_calls: bool,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f32,
    count: f32,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += value;
        self.count += 1.0;
    }

    /// 0 of nothing.
    fn get(self) -> f32 {
        self.sum / self.count.max(1.0)
    }
}

impl Candidates {
    fn none() -> Self {
        Self {
            len: 0,
            index: [0; LOOK],
            latency: [0.0; LOOK],
            own: [0.0; LOOK],
            surplus: [0.0; LOOK],
            age: [f32::INFINITY; LOOK],
            trouble: [0.0; LOOK],
            usual: Usual::default(),
        }
    }

    #[inline]
    fn add(&mut self, view: &View, index: NodeIndex, now: Timestamp) {
        let at = self.len % LOOK;
        self.len = at + 1;
        let stats = view.node(index).stats();
        self.index[at] = index;
        self.own[at] = view.in_flight(index) as f32;
        let Some(gauges) = view.gauges(index) else {
            return;
        };
        let latency = gauges.falling_latency(now);
        self.latency[at] = latency;
        if latency > 0.0 {
            self.usual.latency.add(latency);
        }
        self.usual.first_calls |= latency < 0.0;
        if let Some(held) = stats.held(now) {
            let own_then = held.own as f32;
            self.surplus[at] = held.surplus - own_then;
            self.age[at] = held.age;
            self.usual.others.add(held.calls - own_then);
            self.usual.surplus.add(self.surplus[at]);
        }
        let trouble = gauges.trouble(now);
        if trouble > 0.0 {
            self.trouble[at] = trouble;
            self.usual.trouble = true;
        }
    }

    /// The calls that each holds, as far as is known: its own, and those that other clients are
    /// taken to have there. Of a server that never told, that is what is usual at those that did:
    /// taken for idle, it would get the calls of all of them.
    fn calls(&self) -> [f32; LOOK] {
        if self.usual.others.count == 0.0 {
            return self.own;
        }
        let patience = self.usual_latency() * PATIENCE;
        let (others, surplus) = (self.usual.others.get(), self.usual.surplus.get());
        std::array::from_fn(|at| {
            let fresh = patience / (patience + self.age[at]);
            let more = (self.surplus[at] - surplus) * fresh;
            self.own[at] + (others + more).max(0.0)
        })
    }

    fn usual_latency(&self) -> f32 {
        self.usual.latency.get().max(1.0)
    }

    /// The calls that failures stand for, beside so many that wait; and latencies with them, as what
    /// fails is no quicker than what works. Its own falls as its trouble does while nobody calls,
    /// and one over the other would never.
    #[cold]
    fn failures(&mut self, calls: &[f32; LOOK]) -> [f32; LOOK] {
        let usual = self.usual_latency();
        std::array::from_fn(|at| {
            let trouble = self.trouble[at];
            if trouble == 0.0 {
                return 0.0;
            }
            self.latency[at] = self.latency[at].max(usual);
            // Where most calls fail, so do those that wait there.
            trouble * FAILURE / self.latency[at] * (1.0 + trouble.min(1.0) * calls[at])
        })
    }

    /// Takes what but one call tells, which may have made the connection, for no more than what is
    /// usual: else, where each makes a connection of its own, whoever was called first gets all calls.
    fn trust_first_calls(&mut self) {
        let usual = self.usual_latency();
        for latency in &mut self.latency {
            let first = latency.abs().min(usual);
            *latency = if *latency < 0.0 { first } else { *latency };
        }
    }

    /// The best, by the calls that each holds for its weight.
    fn best(&mut self, calls: &[f32; LOOK]) -> Option<NodeIndex> {
        if self.usual.first_calls {
            self.trust_first_calls();
        }
        let failures = if self.usual.trouble {
            self.failures(calls)
        } else {
            [0.0; LOOK]
        };
        let costs: [f32; LOOK] = std::array::from_fn(|at| {
            let load = 1.0 + calls[at] + failures[at];
            let cost = self.latency[at].sqrt() * load * load * load;
            if self.latency[at] == 0.0 && self.own[at] > 0.0 {
                UNKNOWN * (1.0 + calls[at])
            } else {
                cost
            }
        });
        let mut best: Option<(f32, bool, NodeIndex)> = None;
        for at in 0..self.len.min(LOOK) {
            let is_idle = calls[at] == 0.0 && failures[at] < FORGIVEN;
            let is_better = best.is_none_or(|(lowest, idle, _)| {
                let noise = if is_idle && idle { NOISE } else { 1.0 };
                costs[at] < lowest * noise
            });
            if is_better {
                best = Some((costs[at], is_idle, self.index[at]));
            }
        }
        best.map(|(.., index)| index)
    }
}

impl Scored {
    /// By weight, as an endpoint of mean weight has them.
    fn weigh(&self, candidates: &Candidates, calls: &mut [f32; LOOK]) {
        if !self.view.is_uniform() {
            for (calls, &index) in calls.iter_mut().zip(&candidates.index[..candidates.len]) {
                *calls *= self.mean_weight / self.view.weight(index) as f32;
            }
        }
    }
}

impl Picker for Scored {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let n = self.view.len();
        if n <= 1 {
            return context.first_untried(&self.view, 0);
        }
        let now = context.now();
        let mut candidates = Candidates::none();
        let start = context.rng().below(n);
        let is_first_try = context.tried().is_empty();
        for at in 0..n.min(LOOK as u32) {
            let index = if self.view.is_uniform() {
                let index = start + at;
                if index < n { index } else { index - n }
            } else {
                self.draw.draw(context.rng())
            };
            if is_first_try || context.may_pick(&self.view, index) {
                candidates.add(&self.view, index, now);
            }
        }
        let mut calls = candidates.calls();
        self.weigh(&candidates, &mut calls);
        let best = candidates.best(&calls);
        // None where those that were drawn have been tried.
        best.or_else(|| context.first_untried(&self.view, start))
    }
}
