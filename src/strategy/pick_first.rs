//! One endpoint for all, the others as its spares.

use super::{BoxPicker, PickContext, Picker, Strategy};
use crate::hash::{Rendezvous, Table};
use crate::rng::Rng;
use crate::view::{NodeIndex, View};

/// Every call goes to the first endpoint that may be picked, in the order of
/// ids; a retry to the first that the call has not tried.
///
/// For a service of which one replica does the work and the others stand by,
/// and for clients that shall keep to one endpoint (gRPC's `pick_first`). That
/// an endpoint is out of use is known from its status, its health checks and
/// its ejection, as for all strategies.
///
/// [`shuffled`](Self::shuffled) is for many clients that shall each keep to one
/// endpoint, and not all to the same. O(1); O(n) once the first was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickFirst {
    /// What the order is drawn from; none for the order of ids.
    seed: Option<u64>,
}

impl PickFirst {
    /// The strategy, in the order of ids.
    #[must_use]
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// In an order that is drawn at random now, and kept by this value and its
    /// copies: over many clients, an endpoint is the first in proportion to its
    /// weight.
    ///
    /// It is the order of a rendezvous for one key (see [`Rendezvous`]), so an
    /// endpoint that comes or goes leaves the others as they are: the client
    /// moves when its endpoint leaves, comes back when it does, and moves to a
    /// new one only if that is the first.
    #[must_use]
    pub fn shuffled() -> Self {
        Self {
            seed: Some(Rng::from_entropy().bits()),
        }
    }
}

impl Strategy for PickFirst {
    fn build(&self, view: &View) -> BoxPicker {
        let names = view.nodes().map(|node| node.endpoint().id().as_str());
        let nodes = names.zip(view.weights().iter().copied());
        // No table of an empty view, which has no first either.
        let order = self
            .seed
            .and_then(|seed| Some((seed, Rendezvous::new(nodes).ok()?)));
        let first = order.as_ref().and_then(|(seed, table)| table.lookup(*seed));
        Box::new(Preferred {
            first: first.unwrap_or_default(),
            order,
            view: view.clone(),
        })
    }
}

struct Preferred {
    first: NodeIndex,
    /// What decides after it; none for the order of the view.
    order: Option<(u64, Rendezvous)>,
    view: View,
}

impl Picker for Preferred {
    #[inline]
    fn pick(&self, context: &mut PickContext<'_>) -> Option<NodeIndex> {
        let view = &self.view;
        if self.first < view.len() && context.may_pick(view, self.first) {
            return Some(self.first);
        }
        match &self.order {
            Some((seed, table)) => table.find(*seed, &mut |node| context.may_pick(view, node)),
            None => context.first_untried(view, 0),
        }
    }
}
