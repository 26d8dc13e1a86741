//! Register, renew, update, get, unregister.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_core::backoff::{Backoff, Policy};
use prism_filter::{Document, merge_patch};
use prism_slot::{
    Address, Applied, Call, DynRegistryStore, Epoch, Error as SlotError, Identity, InvalidIdentity, Mode,
    Owner, Position, Put, Read, Record, Registered, Renew, Renewed, RequestId, Revision, SessionId,
    Timestamp, Ttl, Unregister, Unregistered,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Config, Coordinator, Error, pacing::Answer, planning::holder_of};
use crate::{
    config::LongTtl,
    delivery::{End, News},
    directory::stored_document,
    schema::Occasion,
};

/// The longest lease that can be asked for, about a hundred years.
const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 86_400);
/// How often a call is sent to a slot that is known not to have applied it.
pub(super) const ATTEMPTS: u32 = 4;
/// How long there is at least to see whether a call whose answer was lost was applied.
const LOST: Duration = Duration::from_secs(1);

/// A request to register.
#[derive(Debug, Clone)]
pub struct Register {
    /// The identity.
    pub identity: Identity,
    /// Its metadata.
    pub metadata: Document,
    /// The lease; `None` for the namespace's default, `Some(ZERO)` for none.
    pub ttl: Option<Duration>,
    /// Whether to take the identity over from whoever holds it.
    pub replace: bool,
    /// The client's session, if it has one.
    pub session: Option<SessionId>,
}

impl Register {
    /// A registration with the namespace's default lease that takes nothing over.
    pub fn new(identity: impl AsRef<str>, metadata: Document) -> Result<Self, InvalidIdentity> {
        let identity = Identity::new(identity)?;
        Ok(Self {
            identity,
            metadata,
            ttl: None,
            replace: false,
            session: None,
        })
    }
}

/// A registration with its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What the slot did.
    pub registered: Registered,
    /// The lease that was granted.
    pub ttl: Option<Ttl>,
    /// When to renew it.
    pub renew_after: Option<Duration>,
}

impl std::ops::Deref for Held {
    type Target = Registered;

    fn deref(&self) -> &Registered {
        &self.registered
    }
}

/// A lease that was extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// What the slot did.
    pub renewed: Renewed,
    /// When to renew it again.
    pub renew_after: Option<Duration>,
}

impl std::ops::Deref for Extended {
    type Target = Renewed;

    fn deref(&self) -> &Renewed {
        &self.renewed
    }
}

/// A registration that was checked and can be sent to the slot.
pub(super) struct Prepared {
    pub(super) request: prism_slot::Register,
    ttl: Option<Ttl>,
}

impl Prepared {
    pub(super) fn new(config: &Config, request: Register) -> Result<Self, Error> {
        let ttl = granted_ttl(config, request.ttl)?;
        let metadata = stored_form(config, &request.identity, request.metadata, Occasion::Registered)?;
        let request = prism_slot::Register {
            identity: request.identity,
            metadata,
            ttl,
            mode: if request.replace {
                Mode::Replace
            } else {
                Mode::Create
            },
            owner: Owner {
                session: request.session,
                ..Owner::default()
            },
            max_identities: config.behavior.max_identities,
            request: RequestId::next(),
        };
        Ok(Self { request, ttl })
    }

    pub(super) fn held(
        self,
        answer: Result<Registered, SlotError>,
        pacing: &mut Answer<'_>,
    ) -> Result<Held, Error> {
        let (registered, ttl) = (answer?, self.ttl);
        Ok(Held {
            registered,
            ttl,
            renew_after: ttl.map(|ttl| pacing.renew_after(ttl)),
        })
    }
}

/// A change of metadata.
#[derive(Debug, Clone)]
pub struct Update {
    /// The identity.
    pub identity: Identity,
    /// A merge patch (RFC 7396).
    pub patch: Document,
    /// Refuse unless this is the registration.
    pub generation: Option<Position>,
    /// Refuse unless the last write has this revision.
    pub if_revision: Option<Revision>,
}

/// A record after a change of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// As it is now.
    pub record: Arc<Record>,
    /// Where it was written.
    pub position: Position,
}

impl std::ops::Deref for Updated {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl Coordinator {
    /// Registers an identity.
    ///
    /// # Errors
    /// Bad arguments; `AlreadyExists` and `QuotaExceeded` of the slot; unavailability, saying whether
    /// the registration may have been made. Dropping the future may leave it made.
    pub async fn register(&self, request: Register, deadline: Instant) -> Result<Held, Error> {
        let prepared = Prepared::new(&self.config(), request)?;
        let registered = self
            .retrying(deadline, |slot, call| {
                let request = prepared.request.clone();
                async move {
                    let mut results = slot.register(call, vec![request]).await;
                    results.pop().unwrap_or_else(|| Err(missing_result()))
                }
            })
            .await?;
        tracing::debug!(
            namespace = self.shared.sessions.namespace(),
            identity = %prepared.request.identity,
            at = %registered.position,
            "registered"
        );
        prepared.held(Ok(registered), &mut self.shared.pacing.answer())
    }

    /// Extends leases; results in the order of the requests.
    ///
    /// # Errors
    /// Only what concerns all of them; each has a result of its own.
    pub async fn renew(
        &self,
        batch: Vec<Renew>,
        deadline: Instant,
    ) -> Result<Vec<Result<Extended, Error>>, Error> {
        let call = self.call(deadline).await?;
        let count = batch.len();
        let mut results = self.registry().renew(call, batch.clone()).await;
        let other_epoch = results.iter().find_map(|result| match result {
            Err(SlotError::EpochChanged { current }) => Some(*current),
            _ => None,
        });
        if let Some(epoch) = other_epoch {
            // A renewal is harmless to repeat.
            let call = self.call_in(epoch, deadline).await?;
            results = self.registry().renew(call, batch).await;
        }
        results.resize_with(count, || Err(missing_result()));
        let mut pacing = self.shared.pacing.answer();
        let mut extended = |renewed: Renewed| Extended {
            renewed,
            renew_after: renewed.ttl.map(|ttl| pacing.renew_after(ttl)),
        };
        let results = results.into_iter();
        Ok(results.map(|result| Ok(extended(result?))).collect())
    }

    /// Changes metadata by merge patch; returns the record after it.
    ///
    /// # Errors
    /// As [`Self::register`], and `NotFound`, `StaleGeneration`, `Conflict`.
    pub async fn update(&self, request: Update, deadline: Instant) -> Result<Updated, Error> {
        let config = self.config();
        let mut backoff = None;
        loop {
            let put = self.patched(&config, &request, deadline).await?;
            match self.put(put, deadline).await {
                // Somebody else was faster; unless the caller named a revision, that is no conflict.
                Err(Error::Slot(SlotError::Conflict { .. })) if request.if_revision.is_none() => {
                    let pause = backoff.get_or_insert_with(|| Backoff::new(CONTENDED)).pause();
                    if timeout_at(deadline, sleep(pause)).await.is_err() {
                        return Err(Error::DeadlineExceeded);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// The write that an update amounts to now.
    async fn patched(&self, config: &Config, request: &Update, deadline: Instant) -> Result<Put, Error> {
        let read = self.get(request.identity.clone(), deadline).await?;
        let record = read
            .record
            .ok_or_else(|| SlotError::NotFound(request.identity.clone()))?;
        check_fence(request, &record)?;
        let before = self.stored_document(&record)?;
        let after = merge_patch(&before, &request.patch)?;
        Ok(Put {
            identity: request.identity.clone(),
            metadata: stored_form(config, &request.identity, after, Occasion::Updated)?,
            if_revision: record.revision,
            generation: Some(record.generation),
            request: RequestId::next(),
        })
    }

    /// The metadata of a record that the slot returned.
    ///
    /// # Errors
    /// What is stored is no metadata, which is no fault of the caller's.
    pub fn stored_document(&self, record: &Record) -> Result<Document, Error> {
        let backend = self.registry().capability().backend;
        Ok(stored_document(record, backend)?)
    }

    /// Reads one registration from the slot.
    ///
    /// # Errors
    /// Unavailability.
    pub async fn get(&self, identity: Identity, deadline: Instant) -> Result<Read, Error> {
        self.retrying(deadline, |slot, call| {
            let identity = identity.clone();
            async move { slot.get(call, identity).await }
        })
        .await
    }

    /// Removes a registration. One that is absent is removed already.
    ///
    /// # Errors
    /// `StaleGeneration`; unavailability, saying whether it may have been removed.
    pub async fn unregister(
        &self,
        identity: impl TryInto<Identity, Error: Into<Error>>,
        generation: Option<Position>,
        deadline: Instant,
    ) -> Result<Unregistered, Error> {
        let identity = identity.try_into().map_err(Into::into)?;
        // Whose inbox it is, nobody knows afterwards.
        let holder = match self.inbox() {
            Some(_) => self.get(identity.clone(), deadline).await?.record,
            None => None,
        };
        let request = Unregister { identity, generation };
        let removed = self
            .retrying(deadline, |slot, call| {
                let request = request.clone();
                async move { slot.unregister(call, request).await }
            })
            .await;
        if let Err(error) = &removed
            && error.applied() == Applied::Unknown
            && let Some(record) = &holder
        {
            self.drop_inbox_if_gone(record, deadline).await;
        }
        let removed = removed?;
        if removed.existed {
            tracing::debug!(
                namespace = self.shared.sessions.namespace(),
                identity = %request.identity,
                at = %removed.position,
                "unregistered"
            );
            if self.shared.sessions.has(&request.identity) {
                // Its sessions here should not wait for the next tick.
                self.shared.directory.nudge();
            }
            if let Some(record) = holder {
                let holder = holder_of(&record.owner.principal);
                let identity = request.identity;
                self.drop_inbox(&Address { identity, holder }, deadline).await;
            }
        }
        Ok(removed)
    }

    /// Drops what waits for an identity whose registration may have been removed, if it was: whoever asks again is not
    /// told that it existed, and does not do it.
    async fn drop_inbox_if_gone(&self, record: &Record, deadline: Instant) {
        // The call that was lost may have taken all of its time.
        let deadline = deadline.max(Instant::now() + LOST);
        let read = self.get(record.identity.clone(), deadline).await;
        if read.is_ok_and(|read| read.record.is_none()) {
            let (identity, holder) = (record.identity.clone(), holder_of(&record.owner.principal));
            self.drop_inbox(&Address { identity, holder }, deadline).await;
        }
    }

    /// Drops what waits for an identity that is gone, and tells whoever sent it.
    async fn drop_inbox(&self, address: &Address, deadline: Instant) {
        let Some(inbox) = self.inbox() else {
            return;
        };
        loop {
            match inbox.discard(address, deadline).await {
                Ok(discarded) => {
                    for ticket in &discarded.dropped {
                        let unregistered = News::Ended(End::Unregistered, None);
                        let courier = &self.shared.courier;
                        courier.say(ticket, &address.identity, unregistered, None);
                    }
                    if !discarded.more {
                        return;
                    }
                }
                Err(error) => {
                    // What is left expires, or goes to the dead letters with the next owner.
                    let (namespace, identity) = (self.shared.sessions.namespace(), &address.identity);
                    tracing::warn!(namespace, %identity, %error, "the inbox of an identity could not be dropped");
                    return;
                }
            }
        }
    }

    /// Writes under a revision, which makes a repeated attempt after a lost reply safe: it returns the
    /// first result, or fails, and then the first attempt may still have been applied.
    async fn put(&self, put: Put, deadline: Instant) -> Result<Updated, Error> {
        let attempt = || {
            self.retrying(deadline, |slot, call| {
                let put = put.clone();
                async move {
                    let record = slot.put(call, put).await?;
                    let epoch = call.epoch.unwrap_or(record.generation.epoch);
                    let revision = record.revision;
                    let position = Position { epoch, revision };
                    Ok(Updated { record, position })
                }
            })
        };
        match attempt().await {
            Err(Error::Slot(error)) if error.applied() == Applied::Unknown && Instant::now() < deadline => {
                attempt().await.map_err(|_| error.into())
            }
            outcome => outcome,
        }
    }

    /// Calls the slot, again where it says that nothing happened and another try may help.
    pub(super) async fn retrying<T, F>(
        &self,
        deadline: Instant,
        send: impl Fn(Arc<dyn DynRegistryStore>, Call) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, SlotError>>,
    {
        let mut call = self.call(deadline).await?;
        let mut backoff = None;
        // Each has a count of its own: a store that comes back after several attempts may have a new epoch.
        let (mut attempt, mut epochs) = (1, 1);
        loop {
            let error = match send(self.registry(), call).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error {
                // Nothing was applied, and waiting for the new view ends with the deadline.
                SlotError::EpochChanged { current } if epochs < ATTEMPTS => {
                    call = self.call_in(current, deadline).await?;
                    epochs += 1;
                }
                SlotError::Unavailable {
                    applied: Applied::No, ..
                } if attempt < ATTEMPTS => {
                    let namespace = self.shared.sessions.namespace();
                    tracing::warn!(namespace, %error, attempt, "the registry slot did not take a call, trying again");
                    let pause = backoff.get_or_insert_with(|| Backoff::new(RETRY)).pause();
                    if timeout_at(deadline, sleep(pause)).await.is_err() {
                        return Err(error.into());
                    }
                    attempt += 1;
                }
                error => return Err(error.into()),
            }
        }
    }

    /// What a call carries once the view has reached another epoch.
    async fn call_in(&self, epoch: Epoch, deadline: Instant) -> Result<Call, Error> {
        self.shared.directory.epoch_changed(epoch);
        self.call(deadline).await
    }
}

pub(super) const RETRY: Policy = Policy {
    base: Duration::from_millis(20),
    cap: Duration::from_millis(500),
};

/// Pauses between updates of one record that get into each other's way. One of them always succeeds.
const CONTENDED: Policy = Policy {
    base: Duration::from_millis(1),
    cap: Duration::from_millis(50),
};

/// Checks metadata and gives it the form in which it is stored.
fn stored_form(
    config: &Config,
    identity: &Identity,
    metadata: Document,
    occasion: Occasion,
) -> Result<Bytes, Error> {
    let metadata = match &config.schema {
        Some(schema) => schema.complete(identity.as_str(), metadata, Timestamp::now().0, occasion)?,
        None => metadata,
    };
    let text = metadata.to_json();
    let (size, limit) = (text.len(), config.behavior.max_metadata_bytes);
    if size > limit {
        return Err(Error::MetadataTooLarge { size, limit });
    }
    Ok(text.into())
}

pub(super) fn missing_result() -> SlotError {
    SlotError::Unreadable {
        backend: "slot",
        message: "a batch came back without a result".to_owned(),
    }
}

/// The lease to grant, by what was asked for and what the namespace allows.
fn granted_ttl(config: &Config, asked: Option<Duration>) -> Result<Option<Ttl>, Error> {
    let max = config.behavior.ttl_max;
    if let (Some(max), LongTtl::Clamp) = (max, config.behavior.on_long_ttl) {
        return Ok(clamped(config, asked, max));
    }
    let invalid = |message: String, max: Duration| Err(Error::InvalidTtl { message, max });
    match (asked, max) {
        (None, Some(max)) if config.default_ttl().is_none() => invalid(
            format!("the namespace requires a lease and has no default, ask for one of at most {max:?}"),
            max,
        ),
        (None, _) => Ok(config.default_ttl()),
        (Some(Duration::ZERO), Some(max)) => invalid(
            format!("the namespace requires a lease, ask for one of at most {max:?}"),
            max,
        ),
        (Some(asked), Some(max)) if asked > max => invalid(
            format!("a lease of {asked:?} is longer than the namespace's maximum of {max:?}"),
            max,
        ),
        (Some(asked), _) if asked > MAX_TTL => invalid(
            format!("a lease of {asked:?} is out of range, at most {MAX_TTL:?} is possible"),
            MAX_TTL,
        ),
        (Some(asked), _) => Ok(rounded(asked)),
    }
}

/// The lease to grant where one that is too long is cut to `max`. No lease at all is the longest.
fn clamped(config: &Config, asked: Option<Duration>, max: Duration) -> Option<Ttl> {
    let max = max.min(MAX_TTL);
    let wanted = asked.or(config.behavior.ttl_default);
    rounded(
        wanted
            .filter(|ttl| !ttl.is_zero())
            .map_or(max, |ttl| ttl.min(max)),
    )
}

/// Rounded up to what slots measure: the shortest lease must not become none.
fn rounded(ttl: Duration) -> Option<Ttl> {
    Ttl::from_millis(ttl.as_nanos().div_ceil(1_000_000) as u64)
}

fn check_fence(request: &Update, record: &Record) -> Result<(), SlotError> {
    let identity = || request.identity.clone();
    if request
        .generation
        .is_some_and(|generation| generation != record.generation)
    {
        return Err(SlotError::StaleGeneration {
            identity: identity(),
            current: record.generation,
        });
    }
    if request
        .if_revision
        .is_some_and(|revision| revision != record.revision)
    {
        return Err(SlotError::Conflict {
            identity: identity(),
            current: record.revision,
        });
    }
    Ok(())
}
