//! One strategy that needs no tuning.

use super::alias::WeightedDraw;
use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::stats::Held;
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
///   Without reports it is one and our own calls in flight;
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
        let total: f64 = view.weights().iter().copied().map(f64::from).sum();
        Box::new(Scored {
            draw: WeightedDraw::new(view),
            mean_weight: (total / f64::from(view.len().max(1))) as f32,
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
const LOOK: u32 = 32;

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

#[derive(Clone, Copy)]
struct Candidate {
    index: NodeIndex,
    /// Nanoseconds; 0 where none is known.
    latency: f32,
    /// Calls of our own in flight.
    own: f32,
    held: Option<Held>,
    trouble: f32,
}

/// What is usual among the candidates.
#[derive(Default)]
struct Usual {
    latency: Mean,
    held: Mean,
    surplus: Mean,
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

impl Usual {
    fn add(&mut self, candidate: &Candidate) {
        if candidate.latency > 0.0 {
            self.latency.add(candidate.latency);
        }
        if let Some(held) = candidate.held {
            self.held.add(held.calls);
            self.surplus.add(held.surplus);
        }
    }
}

impl Scored {
    #[inline]
    fn candidate(&self, index: NodeIndex, now: Timestamp) -> Candidate {
        let stats = self.view.node(index).stats();
        Candidate {
            index,
            latency: stats.falling_latency(now),
            own: self.view.in_flight(index) as f32,
            held: stats.held(now),
            trouble: stats.trouble(now),
        }
    }

    /// The best of them.
    fn best(&self, candidates: &[Candidate], usual: &Usual) -> Option<NodeIndex> {
        let latency = usual.latency.get().max(1.0);
        let (held, surplus) = (usual.held.get(), usual.surplus.get());
        let patience = latency * PATIENCE;
        let mut best: Option<(Score, NodeIndex)> = None;
        for candidate in candidates {
            let calls = candidate.held.map_or(candidate.own, |said| {
                let fresh = patience / (patience + said.age);
                let calls = held + (said.surplus - surplus) * fresh;
                (calls + candidate.own - said.own as f32).max(candidate.own)
            });
            let score = self.score(candidate, calls, latency);
            if best.is_none_or(|(lowest, _)| score.is_below(lowest)) {
                best = Some((score, candidate.index));
            }
        }
        best.map(|(_, index)| index)
    }

    #[inline]
    fn score(&self, candidate: &Candidate, mut calls: f32, usual_latency: f32) -> Score {
        if !self.view.is_uniform() {
            calls *= self.mean_weight / self.view.weight(candidate.index) as f32;
        }
        let (mut latency, mut failures) = (candidate.latency, 0.0);
        if candidate.trouble > 0.0 {
            // What fails is no quicker than what works. Its latency falls as its trouble does while
            // nobody calls, and one over the other would never.
            latency = latency.max(usual_latency);
            failures = candidate.trouble * FAILURE / latency;
            // Where most calls fail, so do those that wait there.
            failures *= 1.0 + candidate.trouble.min(1.0) * calls;
        } else if latency == 0.0 && candidate.own > 0.0 {
            return Score {
                cost: UNKNOWN * (1.0 + calls),
                is_idle: false,
            };
        }
        let load = 1.0 + calls + failures;
        Score {
            cost: latency.sqrt() * load * load * load,
            is_idle: calls == 0.0 && failures < FORGIVEN,
        }
    }
}

#[derive(Clone, Copy)]
struct Score {
    cost: f32,
    is_idle: bool,
}

impl Score {
    #[inline]
    fn is_below(self, other: Self) -> bool {
        let noise = if self.is_idle && other.is_idle {
            NOISE
        } else {
            1.0
        };
        self.cost < other.cost * noise
    }
}

impl Picker for Scored {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let n = self.view.len();
        if n <= 1 {
            return context.first_untried(&self.view, 0);
        }
        let now = context.now();
        let nobody = Candidate {
            index: 0,
            latency: 0.0,
            own: 0.0,
            held: None,
            trouble: 0.0,
        };
        let mut candidates = [nobody; LOOK as usize];
        let mut found = 0;
        let mut usual = Usual::default();
        let start = context.rng().below(n);
        let is_first_try = context.tried().is_empty();
        for at in 0..LOOK.min(n) {
            let index = if self.view.is_uniform() {
                let index = start + at;
                if index < n { index } else { index - n }
            } else {
                self.draw.draw(context.rng())
            };
            if is_first_try || context.may_pick(&self.view, index) {
                let candidate = self.candidate(index, now);
                usual.add(&candidate);
                candidates[found] = candidate;
                found += 1;
            }
        }
        let best = self.best(&candidates[..found], &usual);
        // None where those that were drawn have been tried.
        best.or_else(|| context.first_untried(&self.view, start))
    }
}
