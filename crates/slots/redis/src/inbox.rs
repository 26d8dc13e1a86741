//! The durability slot on Redis Streams: what the trait asks, in terms of the functions.

mod body;
mod calls;
mod deliver;
mod letters;
mod library;
mod store;

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use prism_slot::{
    Address, Consumer, DeadId, DeadPage, DeadQuery, Depth, Discarded, DurableInbox, Enqueued, Error, Fetch,
    Fetched, Identity, InboxCapability, InboxLimits, Message, MulticastId, Redriven, Result, Scope, Settled,
    Swept, Terms, Verdict,
    capability::{Room, Survives},
};
use tokio::time::Instant;

use crate::{
    config::InboxConfig,
    error::{Effect, of_backend},
};
use calls::{BACKEND, Calls, Refused};
use library::Function;

/// How many verdicts, identities or dead letters one call takes.
const MAX_BATCH: usize = 128;

/// The inboxes of one namespace in Redis.
#[derive(Debug)]
pub struct RedisInbox {
    calls: Calls,
    /// How many addresses go into a call, and how many calls of one store are under way.
    store: (usize, usize),
    /// From where on the next sweep looks at sessions.
    cursor: Mutex<Bytes>,
}

impl RedisInbox {
    /// What every one of them can do.
    ///
    /// A restart of Redis is survived as far as its persistence goes, which is the operator's choice and
    /// cannot be known here: so it is not promised.
    pub const CAPABILITY: InboxCapability = InboxCapability {
        backend: BACKEND,
        interfaces: &["QueueInterface"],
        scope: Scope::Shared,
        survives: Survives::RunnerRestart,
        max_payload: 1 << 20,
        room: Room::Inbox,
        tells_losses: true,
    };

    /// Connects, and checks that the server can keep the promises of the slot.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] for a setting that cannot be, a server that is too old or may evict
    /// keys, missing permissions, or keys that belong to somebody else; [`Error::Unavailable`] when
    /// the server cannot be reached within the configured timeouts.
    pub async fn open(namespace: &str, config: InboxConfig, limits: InboxLimits) -> Result<Self> {
        let here = |error| of_backend(BACKEND, error);
        config.validate().map_err(|invalid| here(invalid.into()))?;
        let calls = Calls::open(namespace, &config, &limits).await.map_err(here)?;
        let deadline = Instant::now() + config.dial_timeout + config.read_timeout;
        let checked = calls.call(Function::Check, &[], deadline, Effect::Read).await;
        checked.map_err(Refused::into_error)?;
        Ok(Self {
            calls,
            store: (config.store_max_inboxes, config.store_calls),
            cursor: Mutex::new(Bytes::from_static(b"0")),
        })
    }
}

impl DurableInbox for RedisInbox {
    fn capability(&self) -> &InboxCapability {
        &Self::CAPABILITY
    }

    async fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        store::store(&self.calls, self.store, addresses, message, terms, deadline).await
    }

    /// May take several calls, where much was stored for somebody else; the session is the consumer after the last.
    async fn open(&self, consumer: &Consumer, deadline: Instant) -> Result<()> {
        let mut go_on = Bytes::new();
        loop {
            let arguments = [name(&consumer.address.identity), session(consumer), go_on];
            let called = self
                .calls
                .call(Function::Open, &arguments, deadline, Effect::Read);
            let mut answer = called.await.map_err(|refused| fenced(refused, consumer))?;
            go_on = answer.text().map_err(|error| of_backend(BACKEND, error))?;
            if go_on.is_empty() {
                return Ok(());
            }
        }
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, deadline: Instant) -> Result<Fetched> {
        let arguments = [
            name(&consumer.address.identity),
            session(consumer),
            deliver::wanted(&fetch),
        ];
        let called = self
            .calls
            .call(Function::Fetch, &arguments, deadline, Effect::Write);
        let answer = called.await.map_err(|refused| fenced(refused, consumer))?;
        deliver::fetched(answer).map_err(Refused::into_error)
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>> {
        let mut settled = Vec::with_capacity(verdicts.len());
        // Without any it is still a question of who is the consumer.
        let mut rest = &verdicts[..];
        loop {
            let (part, later) = rest.split_at(rest.len().min(MAX_BATCH));
            let mut arguments = vec![name(&consumer.address.identity), session(consumer)];
            arguments.extend(part.iter().map(deliver::verdict));
            let called = self
                .calls
                .call(Function::Settle, &arguments, deadline, Effect::Write);
            let answer = called.await.map_err(|refused| fenced(refused, consumer))?;
            settled.extend(deliver::settled(answer, part.len()).map_err(Refused::into_error)?);
            if later.is_empty() {
                return Ok(settled);
            }
            rest = later;
        }
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        let mut cancelled = Vec::with_capacity(identities.len());
        for part in identities.chunks(MAX_BATCH) {
            let mut arguments = vec![Bytes::from(multicast.to_string())];
            arguments.extend(part.iter().map(name));
            let called = self
                .calls
                .call(Function::Cancel, &arguments, deadline, Effect::Write);
            let letters = called
                .await
                .and_then(|mut answer| Ok(answer.letters(part.len())?));
            match letters.map_err(Refused::into_error) {
                Ok(letters) => cancelled.extend(letters.iter().map(|letter| Ok(*letter == b'C'))),
                Err(error) => cancelled.extend(part.iter().map(|_| Err(error.clone()))),
            }
        }
        cancelled
    }

    async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        let (mut dropped, mut go_on) = (Vec::new(), Bytes::new());
        loop {
            let holder = Bytes::copy_from_slice(&address.holder.0);
            let arguments = [name(&address.identity), holder, go_on];
            let called = self
                .calls
                .call(Function::Discard, &arguments, deadline, Effect::Write);
            let (some, next) = match called.await.and_then(deliver::discarded) {
                Ok(step) => step,
                Err(refused) if dropped.is_empty() => return Err(refused.into_error()),
                // The next call tells of that, or goes on.
                Err(_) => return Ok(Discarded { dropped, more: true }),
            };
            dropped.extend(some);
            if next.is_empty() {
                return Ok(Discarded { dropped, more: false });
            }
            go_on = next;
        }
    }

    async fn depth(&self, identity: Option<&Identity>, deadline: Instant) -> Result<Depth> {
        let arguments = [identity.map_or_else(Bytes::new, name)];
        let called = self
            .calls
            .call(Function::Depth, &arguments, deadline, Effect::Read);
        let read = called.await.and_then(|mut answer| {
            Ok(Depth {
                messages: answer.number()?,
                out: Some(answer.number()?).filter(|_| identity.is_some()),
                dead: answer.number()?,
            })
        });
        read.map_err(Refused::into_error)
    }

    async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        let page = letters::list(&self.calls, query, deadline).await;
        page.map_err(Refused::into_error)
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        let outcomes = letters::redrive(&self.calls, &letters, terms, deadline).await;
        outcomes.map_err(Refused::into_error)
    }

    async fn configure(&self, limits: InboxLimits, _deadline: Instant) -> Result<()> {
        self.calls.configure(&limits);
        Ok(())
    }

    async fn sweep(&self, deadline: Instant) -> Result<Swept> {
        let cursor = [self.cursor.lock().clone()];
        let called = self.calls.call(Function::Sweep, &cursor, deadline, Effect::Write);
        let swept = called.await.and_then(deliver::swept);
        let (swept, cursor) = swept.map_err(Refused::into_error)?;
        *self.cursor.lock() = cursor;
        Ok(swept)
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.calls.ping(deadline).await
    }

    async fn close(&self) {
        self.calls.close().await;
    }
}

fn fenced(refused: Refused, consumer: &Consumer) -> Error {
    match refused {
        Refused::Fenced => Error::Fenced(consumer.address.identity.clone()),
        other => other.into_error(),
    }
}

fn name(identity: &Identity) -> Bytes {
    Bytes::copy_from_slice(identity.as_str().as_bytes())
}

fn session(consumer: &Consumer) -> Bytes {
    let mut bytes = Vec::with_capacity(32);
    bytes.put_slice(&consumer.address.holder.0);
    bytes.put_u64(consumer.epoch.0);
    bytes.put_u64(consumer.session_seq);
    bytes.into()
}
