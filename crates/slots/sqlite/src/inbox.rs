//! The durability slot: what the trait asks, in terms of steps on the file.

mod consume;
mod dead;
mod depth;
mod desk;
mod messages;
mod parts;
mod sendings;
mod settle;
mod store;
mod sweep;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prism_slot::{
    Address, Applied, Consumer, DeadId, DeadPage, DeadQuery, Depth, Discarded, DurableInbox, Enqueued, Error,
    Fetch, Fetched, Identity, InboxCapability, InboxLimits, Message, MulticastId, Redriven, Result, Scope,
    Settled, Swept, Terms, Verdict,
    capability::{Room, Survives},
    memory::{Clock, WallClock},
};
use tokio::time::Instant;

use crate::{
    call::{Load, Pending},
    codec,
    config::InboxConfig,
    error::{BACKEND, Fault},
    opening::Opening,
    step::Step,
};
use desk::Desk;
pub(crate) use desk::Totals;

/// How many addresses one call to the file stores for; more of them are several calls.
const PART: usize = 1_024;
/// How many bytes a call brings for each identity, about.
const OVERHEAD: usize = 64;
/// What a call about one identity brings.
const ONE: Load = Load {
    size: OVERHEAD,
    grows: false,
};
/// How long after its deadline a store that is being executed may still say what became of it.
const GRACE: Duration = Duration::from_millis(40);

/// The inboxes of one namespace in a file.
pub struct SqliteInbox {
    opening: Opening,
    clock: Arc<dyn Clock>,
    limits: Mutex<InboxLimits>,
    /// The last inbox whose session a sweep has looked at.
    swept: Mutex<Option<Identity>>,
}

impl SqliteInbox {
    /// What every one of them can do.
    pub const CAPABILITY: InboxCapability = InboxCapability {
        backend: BACKEND,
        interfaces: &["QueueInterface"],
        scope: Scope::Host,
        survives: Survives::BackendRestart,
        max_payload: 64 << 20,
        room: Room::Inbox,
        tells_losses: true,
    };

    /// Opens the file, which is made where there is none, and makes the namespace ready.
    ///
    /// # Errors
    /// As [`SqliteRegistry::open`](crate::SqliteRegistry::open).
    pub async fn open(namespace: &str, config: InboxConfig, limits: InboxLimits) -> Result<Self> {
        Self::open_with_clock(namespace, config, limits, WallClock).await
    }

    /// As [`SqliteInbox::open`], on a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with_clock(
        namespace: &str,
        config: InboxConfig,
        limits: InboxLimits,
        clock: impl Clock,
    ) -> Result<Self> {
        Ok(Self {
            opening: Opening::new(namespace, &config).await?,
            clock: Arc::new(clock),
            limits: Mutex::new(limits),
            swept: Mutex::new(None),
        })
    }

    /// `work`, for the file.
    fn work<T, W>(&self, mut work: W) -> impl FnMut(&mut Step<'_>, i64) -> Result<T, Fault> + Send + 'static
    where
        W: FnMut(&mut Desk<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let (clock, limits) = (self.clock.clone(), *self.limits.lock());
        move |step, ns| {
            let mut desk = Desk::new(step, ns, clock.now(), limits);
            let outcome = work(&mut desk);
            if matches!(outcome, Ok(_) | Err(Fault::Refused(_))) {
                desk.finish()?;
            }
            outcome
        }
    }

    /// Executes `work` in one step.
    async fn step<T, W>(&self, deadline: Instant, load: Load, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Desk<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let work = self.work(work);
        self.opening.call(deadline, load, work).await
    }
}

/// A part of a store that is under way, or why it is not.
type Part = (usize, Result<Pending<Vec<Enqueued>>>);

impl DurableInbox for SqliteInbox {
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
        let body: Arc<[u8]> = codec::write_message(&message).into();
        let mut parts: Vec<Part> = Vec::with_capacity(addresses.len().div_ceil(PART));
        for part in addresses.chunks(PART) {
            let (part, count) = (part.to_vec(), part.len());
            let (message, body) = (message.clone(), body.clone());
            // The first part brings the message, the others find it there.
            let payload = if parts.is_empty() { body.len() } else { 0 };
            let work = self.work(move |desk| desk.enqueue(&part, &message, &body, terms));
            let submitted = self
                .opening
                .submit(deadline, Load::stored(payload + count * OVERHEAD), work);
            parts.push((count, submitted.await));
        }
        let mut outcomes = Vec::with_capacity(addresses.len());
        for (count, pending) in parts {
            let stored = match pending {
                Ok(pending) => pending.answer(GRACE).await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(stored) => outcomes.extend(stored),
                Err(error) => outcomes.extend(std::iter::repeat_n(not_stored(&error), count)),
            }
        }
        outcomes
    }

    async fn open(&self, consumer: &Consumer, deadline: Instant) -> Result<()> {
        let consumer = consumer.clone();
        self.step(deadline, ONE, move |desk| desk.open(&consumer)).await
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, deadline: Instant) -> Result<Fetched> {
        let consumer = consumer.clone();
        self.step(deadline, ONE, move |desk| desk.fetch(&consumer, fetch))
            .await
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>> {
        let consumer = consumer.clone();
        self.step(deadline, Load::of(verdicts.len() * OVERHEAD), move |desk| {
            desk.settle(&consumer, &verdicts)
        })
        .await
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        let (identities, count) = (identities.to_vec(), identities.len());
        let cancelled = self.step(deadline, Load::of(count * OVERHEAD), move |desk| {
            desk.cancel(multicast, &identities)
        });
        match cancelled.await {
            Ok(cancelled) => cancelled.into_iter().map(Ok).collect(),
            // One transaction: of all or of none.
            Err(error) => vec![Err(error); count],
        }
    }

    async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        let address = address.clone();
        self.step(deadline, ONE, move |desk| desk.discard(&address)).await
    }

    async fn depth(&self, identity: Option<&Identity>, deadline: Instant) -> Result<Depth> {
        let identity = identity.cloned();
        self.step(deadline, ONE, move |desk| match &identity {
            Some(identity) => desk.depth(identity),
            None => desk.total_depth(),
        })
        .await
    }

    async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        self.step(deadline, ONE, move |desk| desk.dead_letters(&query))
            .await
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        self.step(deadline, Load::stored(letters.len() * OVERHEAD), move |desk| {
            let redrive = |(id, address): &(DeadId, Address)| desk.redrive(*id, address, terms);
            letters.iter().map(redrive).collect()
        })
        .await
    }

    async fn configure(&self, limits: InboxLimits, deadline: Instant) -> Result<()> {
        // Whoever has been told that they hold must not find a store after it that was held to others.
        *self.limits.lock() = limits;
        self.probe(deadline).await
    }

    async fn sweep(&self, deadline: Instant) -> Result<Swept> {
        let after = self.swept.lock().clone();
        let work = move |desk: &mut Desk<'_, '_>| Ok((desk.sweep()?, desk.forget_sessions(after.as_ref())?));
        let (swept, last) = self.step(deadline, ONE, work).await?;
        *self.swept.lock() = last;
        Ok(swept)
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.opening.call(deadline, ONE, |_, _| Ok(())).await
    }

    async fn close(&self) {
        self.opening.close().await;
    }
}

fn not_stored(error: &Error) -> Enqueued {
    match error {
        // Noticed in the middle of a call, of which nothing stays.
        Error::Unreadable { .. } => Enqueued::NotStored(error.to_string()),
        error if error.applied() == Applied::No => Enqueued::NotStored(error.to_string()),
        error => Enqueued::Unknown(error.to_string()),
    }
}
