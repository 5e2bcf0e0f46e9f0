//! An entry in a registry, for as long as it should be there.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::endpoint::{Endpoint, EndpointId, ServiceName, Status};
use crate::error::Error;

/// Keeps an endpoint registered.
///
/// While it lives, the entry is kept alive (heartbeat, lease, TTL check) and
/// entered again if the registry forgets it; [`deregister`](Self::deregister)
/// takes it out and waits for that, dropping it takes it out without waiting.
#[derive(Debug)]
#[must_use = "dropping a registration takes the entry out again"]
pub struct Registration {
    service: ServiceName,
    endpoint: Endpoint,
    /// None when it is deregistered already.
    keeper: Option<Box<dyn Keeper>>,
}

/// How an entry stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// It is in the registry, as far as is known.
    Registered,
    /// It may not be; the reason, and that it is being tried again.
    Retrying(Error),
    /// It is out, and stays out: deregistered, or replaced by another
    /// registration of the same id.
    Lost,
}

impl RegistrationState {
    /// Whether the entry is in the registry, as far as is known.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered)
    }
}

/// The part of a [`Registration`] that a registry implements.
pub trait Keeper: fmt::Debug + Send + Sync + 'static {
    /// How the entry stands.
    fn state(&self) -> RegistrationState;

    /// Replaces the entry by `endpoint`, which has the same id.
    fn update(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<(), Error>>;

    /// Takes the entry out. Taking out what is not there is no error.
    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Takes the entry out without being waited for: called when a
    /// registration is dropped, perhaps outside of any runtime.
    fn release(&self);
}

impl Registration {
    /// Wraps what keeps an entry, for implementors of
    /// [`Registry`](super::Registry).
    pub fn new(service: ServiceName, endpoint: Endpoint, keeper: impl Keeper) -> Self {
        Self {
            service,
            endpoint,
            keeper: Some(Box::new(keeper)),
        }
    }

    /// The service it is registered under.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The id it is registered with.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        self.endpoint.id()
    }

    /// The endpoint as it was announced last.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How the entry stands.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        self.keeper
            .as_ref()
            .map_or(RegistrationState::Lost, |keeper| keeper.state())
    }

    /// Announces another status.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the registry refuses or cannot be reached;
    /// what was announced before stands.
    pub async fn set_status(&mut self, status: Status) -> Result<(), Error> {
        self.announce(self.endpoint.clone().with_status(status))
            .await
    }

    /// Announces another weight; 0 drains.
    ///
    /// # Errors
    ///
    /// As [`set_status`](Self::set_status).
    pub async fn set_weight(&mut self, weight: u32) -> Result<(), Error> {
        self.announce(self.endpoint.clone().with_weight(weight))
            .await
    }

    async fn announce(&mut self, endpoint: Endpoint) -> Result<(), Error> {
        if let Some(keeper) = &self.keeper {
            keeper.update(endpoint.clone()).await?;
            self.endpoint = endpoint;
        }
        Ok(())
    }

    /// Takes the entry out, and returns when the registry has confirmed it.
    ///
    /// # Errors
    ///
    /// [`Error::is_registry`] when the registry could not be told; the entry
    /// is no longer kept alive and lapses by the registry's own rules.
    pub async fn deregister(mut self) -> Result<(), Error> {
        match &self.keeper {
            Some(keeper) => keeper.deregister().await?,
            None => return Ok(()),
        }
        self.keeper = None;
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.release();
        }
    }
}

impl<T: Keeper + ?Sized> Keeper for Arc<T> {
    fn state(&self) -> RegistrationState {
        (**self).state()
    }

    fn update(&self, endpoint: Endpoint) -> BoxFuture<'_, Result<(), Error>> {
        (**self).update(endpoint)
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), Error>> {
        (**self).deregister()
    }

    fn release(&self) {
        (**self).release();
    }
}
