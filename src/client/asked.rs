//! What a request asks of its call, by the call's settings.

use std::sync::Arc;

use super::CallSettings;
use super::http::RequestHead;
use super::service::Service;
use crate::endpoint::EndpointId;
use crate::event::{CallScope, Observer};
use crate::strategy::{PickOptions, Tried};
use crate::topology::Selector;

pub(super) struct Asked {
    pub(super) idempotent: bool,
    hash: Option<u64>,
    /// Apart, so that a call without has no room for it.
    narrowed: Option<Box<Narrowed>>,
    pub(super) scope: Option<Box<dyn CallScope>>,
}

/// To which endpoints a call shall go.
struct Narrowed {
    subset: Option<Selector>,
    named: Box<[EndpointId]>,
}

impl Asked {
    pub(super) fn by<X>(
        head: &RequestHead<'_>,
        settings: &CallSettings,
        service: &Service<'_, X>,
    ) -> Self {
        let key = settings.key.as_ref();
        let told = head.extensions.get::<Selector>().cloned();
        let subset = settings.subset.as_ref();
        let subset = told.or_else(|| subset?.of(head));
        let sticky = settings.sticky.as_ref();
        let named = sticky.map_or_else(Box::default, |sticky| sticky.named(head.headers));
        let narrows = subset.is_some() || !named.is_empty();
        let name = service.balancer.service();
        let scope = |observer: &Arc<dyn Observer>| observer.scope(name, head.method.as_str());
        Self {
            idempotent: head.method.is_idempotent(),
            hash: key.and_then(|key| key.hash_of(head)),
            narrowed: narrows.then(|| Box::new(Narrowed { subset, named })),
            scope: settings.observer.as_ref().and_then(scope),
        }
    }

    /// Where the call may go.
    pub(super) fn options<'a>(&'a self, tried: &'a Tried) -> PickOptions<'a> {
        let mut options = PickOptions::new().tried(tried);
        if let Some(hash) = self.hash {
            options = options.hash(hash);
        }
        if let Some(narrowed) = &self.narrowed {
            if let Some(subset) = &narrowed.subset {
                options = options.subset(subset);
            }
            options = options.prefer(&narrowed.named);
        }
        options
    }

    /// The endpoints that the call's session names, the best first.
    pub(super) fn named(&self) -> &[EndpointId] {
        self.narrowed
            .as_deref()
            .map_or(&[], |narrowed| &narrowed.named)
    }
}
