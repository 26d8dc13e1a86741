//! What a caller holds of a registration that is kept.

use std::{
    fmt,
    mem::{Discriminant, discriminant},
    sync::Arc,
};

use futures::future::BoxFuture;
use prism_core::failure::Reason;
use prism_proto::pattern;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    keeper::{Desk, Keeper},
    schedule::{Kept, Key, State},
};
use crate::{
    Error, Found, RegisterRequest, Registration, Registry, Result, SubscribeRequest, Subscription,
    UpdateRequest, raw::Claim, wire,
};

/// An identity that stays registered for as long as this lives.
///
/// It is renewed when the service says, after a third of the lease give or take a fifth and earlier where
/// many came at once, in one call with the other registrations of its client. When the service has lost it - it expired while nobody could
/// renew it, or the namespace's history began anew - it is registered again, with the metadata that it
/// last had through this handle. Somebody else who holds the identity by then keeps it: the state is
/// then [`State::Lost`], and stays so.
///
/// [`close`](Self::close) unregisters. Dropping the handle only stops the renewals, and leaves the lease
/// to expire.
#[must_use = "a registration that is dropped is not renewed any more"]
pub struct RegistrationHandle {
    identity: String,
    registry: Registry,
    keeper: Arc<Keeper>,
    key: Key,
    kept: watch::Receiver<Kept>,
    seen: Discriminant<State>,
}

impl RegistrationHandle {
    pub(crate) async fn register(registry: Registry, request: RegisterRequest) -> Result<Self> {
        let registration = registry.register(request.clone()).await?;
        let identity = registration.identity.clone();
        let keeper = registry.keepers().of(registry.raw().namespace(), || {
            Keeper::start(registry.clone(), registry.raw().backoff())
        });
        let (key, kept) = keeper.desk().insert(request, registration);
        Ok(Self {
            identity,
            seen: discriminant(&State::Live),
            registry,
            keeper,
            key,
            kept,
        })
    }

    /// The identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The registration as it was last confirmed.
    pub fn registration(&self) -> Registration {
        self.kept.borrow().registration.clone()
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.kept.borrow().state.clone()
    }

    /// Waits until it stands otherwise than at the last return, or at the beginning, and returns how.
    /// Cancel safe.
    pub async fn changed(&mut self) -> State {
        let seen = self.seen;
        let state = match self.kept.wait_for(|kept| discriminant(&kept.state) != seen).await {
            Ok(kept) => Some(kept.state.clone()),
            Err(_) => None,
        };
        let Some(state) = state else {
            // Only this handle ends the keeping, and it is here.
            return std::future::pending().await;
        };
        self.seen = discriminant(&state);
        state
    }

    /// Changes the metadata by a merge patch, also for when it is to be registered again.
    ///
    /// # Errors
    /// As [`Registry::update`].
    pub async fn update(&self, patch: Value) -> Result<Found> {
        let request = UpdateRequest {
            identity: self.identity.clone(),
            patch,
            generation: Some(self.registration().generation),
            if_revision: None,
        };
        let found = self.registry.update(request).await?;
        let metadata = Value::Object(found.identity.metadata.clone());
        self.keeper.desk().set_metadata(self.key, metadata);
        Ok(found)
    }

    /// Listens for the messages of the identity. When the registration is lost and comes back, so does
    /// the session, for as long as this handle lives.
    ///
    /// # Errors
    /// As [`Registry::subscribe`].
    pub async fn subscribe(&self) -> Result<Subscription> {
        self.subscribe_with(SubscribeRequest::default()).await
    }

    /// As [`subscribe`](Self::subscribe), with the credits and the memory of `request`, whatever its identity.
    ///
    /// # Errors
    /// As [`Registry::subscribe`].
    pub async fn subscribe_with(&self, request: SubscribeRequest) -> Result<Subscription> {
        let claim = KeptClaim {
            desk: self.keeper.desk().clone(),
            key: self.key,
            kept: self.kept.clone(),
        };
        let mut listen = wire::listen(SubscribeRequest {
            identity: self.identity.clone(),
            ..request
        });
        listen.open.generation = claim.generation();
        let answers = self
            .registry
            .raw()
            .subscribe_kept(listen, Box::new(claim))
            .await?;
        Ok(Subscription::new(answers))
    }

    /// Unregisters. Returns whether this registration was there to remove. Waits for a renewal that is
    /// under way, so that nothing registers the identity again afterwards.
    ///
    /// # Errors
    /// When the service cannot be asked; the lease is then left to expire. So it is when the returned
    /// future is dropped.
    pub async fn close(self) -> Result<bool> {
        self.keeper.desk().retire(self.key).await;
        let kept = self.kept.borrow().clone();
        if matches!(kept.state, State::Lost { .. }) {
            return Ok(false);
        }
        match self.registry.unregister(&kept.registration).await {
            Ok(unregistered) => Ok(unregistered.existed),
            Err(error) if error.reason() == Some(Reason::StaleGeneration) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for RegistrationHandle {
    fn drop(&mut self) {
        self.keeper.desk().forget(self.key);
    }
}

impl fmt::Debug for RegistrationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationHandle")
            .field("identity", &self.identity)
            .field("state", &self.kept.borrow().state)
            .finish_non_exhaustive()
    }
}

/// A subscription's view of a registration that is kept.
struct KeptClaim {
    desk: Arc<Desk>,
    key: Key,
    kept: watch::Receiver<Kept>,
}

impl Claim for KeptClaim {
    fn generation(&self) -> Option<pattern::Position> {
        Some(wire::position(self.kept.borrow().registration.generation))
    }

    fn regained(&mut self, lost: Error) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let before = self.kept.borrow().confirmations;
            self.desk.hurry(self.key);
            let settled =
                |kept: &Kept| kept.confirmations > before || matches!(kept.state, State::Lost { .. });
            match self.kept.wait_for(settled).await {
                Ok(kept) => match &kept.state {
                    State::Lost { error } => Err(error.clone()),
                    _ => Ok(()),
                },
                // The handle is gone.
                Err(_) => Err(lost),
            }
        })
    }
}
