//! One client: which servers it has heard of, what it knows of them, and whom it
//! picks.

use std::sync::Arc;

use crate::rng::Rng;
use crate::stats::EndpointStats;
use crate::strategy::{BoxPicker, PickContext, PickOptions, Strategy};
use crate::sync::Slot;
use crate::time::Timestamp;
use crate::view::View;

pub(super) struct Client {
    /// Of every server, those too that are away.
    all: View,
    /// Of those that are up, as far as it has heard.
    up: Arc<[u32]>,
    view: View,
    picker: BoxPicker,
    context: PickContext<'static>,
}

impl Client {
    /// Of servers that are all up.
    pub(super) fn new(all: View, up: Arc<[u32]>, strategy: &dyn Strategy, rng: &mut Rng) -> Self {
        let (own, cursor) = (Rng::seeded(rng.bits()), rng.bits() >> 1);
        Self {
            picker: strategy.build(&all),
            context: PickContext::new(own, cursor, &PickOptions::ANY),
            view: all.clone(),
            up,
            all,
        }
    }

    /// Picks the server of a call, which begins.
    pub(super) fn pick(&mut self, slot: Slot, now: Timestamp) -> Option<u32> {
        self.context.set_now(now);
        let index = self.picker.pick(&mut self.context)?;
        let server = *self.up.get(index as usize)?;
        self.view.begin(index, slot);
        Some(server)
    }

    /// The servers that are up, as far as it has heard.
    pub(super) fn up(&self) -> &[u32] {
        &self.up
    }

    /// What it knows of a server.
    pub(super) fn stats(&self, server: u32) -> &EndpointStats {
        self.all.node(server).stats()
    }

    pub(super) fn hear(&mut self, up: &Arc<[u32]>) {
        self.up = Arc::clone(up);
    }

    /// As a balancer would: a view of those that are up, of these weights or all
    /// of one, and the picker for it.
    pub(super) fn build(&mut self, weights: Option<Arc<[u32]>>, strategy: &dyn Strategy) {
        self.view = self.all.of_some(&self.up);
        if let Some(weights) = weights {
            self.view = self.view.with_weights(weights);
        }
        self.picker = strategy.rebuild(&self.view, &*self.picker);
    }
}
