//! Slots whose backend may not be there yet.
//!
//! A namespace whose backend does not answer is not misconfigured: it is served, every call says that
//! the backend is unavailable, and the slot goes on trying to open it.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{
    Address, Applied, Call, Claim, Consumer, DeadId, DeadPage, DeadQuery, Depth, Discarded, DurableInbox,
    DynDurableInbox, DynLedger, DynMessaging, DynRegistryStore, Enqueued, Entry, Error, Fetch, Fetched,
    Identity, InboxCapability, InboxLimits, Ledger, LedgerCapability, Listed, Listener, Message, Messaging,
    MessagingCapability, MulticastId, Outcome, Position, Post, Put, Query, QueryPage, Read, Record, Redriven,
    Register, Registered, RegistryCapability, RegistryStore, Renew, Renewed, Result, Revision, Scan,
    ScanPage, Settled, Swept, Sync, Terms, Timestamp, Unregister, Unregistered, Verdict, Write, Wrote,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY: Policy = Policy {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(2),
};

/// A slot that is still being opened. Clones share it.
pub(crate) struct Late<C, S: ?Sized>(Arc<Shared<C, S>>);

struct Shared<C, S: ?Sized> {
    capability: C,
    backend: &'static str,
    opened: OnceLock<Arc<S>>,
    last_error: Mutex<Error>,
    closing: CancellationToken,
}

impl<C, S: ?Sized> Clone for Late<C, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C, S: ?Sized> Late<C, S> {
    /// A slot that could not be opened because of `error`; [`Self::run`] goes on trying.
    pub(crate) fn new(capability: C, backend: &'static str, error: Error) -> Self {
        let (opened, last_error) = (OnceLock::new(), Mutex::new(error));
        Self(Arc::new(Shared {
            capability,
            backend,
            opened,
            last_error,
            closing: CancellationToken::new(),
        }))
    }

    /// Tries to open the slot until that works or it is closed.
    pub(crate) async fn run<F: Future<Output = Result<Arc<S>>>>(&self, open: impl Fn() -> F) {
        let (shared, mut backoff) = (&*self.0, Backoff::new(RETRY));
        let work = async {
            loop {
                tokio::time::sleep(backoff.pause()).await;
                match open().await {
                    Ok(slot) => {
                        tracing::info!(backend = shared.backend, "the backend is there now");
                        let _ = shared.opened.set(slot);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(backend = shared.backend, %error, "the backend is not there yet");
                        *shared.last_error.lock() = error;
                    }
                }
            }
        };
        shared.closing.run_until_cancelled(work).await;
    }

    fn slot(&self) -> Result<&S> {
        if let Some(slot) = self.0.opened.get() {
            return Ok(slot);
        }
        let backend = self.0.backend;
        Err(match &*self.0.last_error.lock() {
            error @ Error::Misconfigured { .. } => error.clone(),
            Error::Unavailable { message, .. } => Error::Unavailable {
                backend,
                message: message.clone(),
                applied: Applied::No,
            },
            error => Error::Unavailable {
                backend,
                message: error.to_string(),
                applied: Applied::No,
            },
        })
    }
}

impl RegistryStore for Late<RegistryCapability, dyn DynRegistryStore> {
    fn capability(&self) -> &RegistryCapability {
        &self.0.capability
    }

    async fn register(&self, call: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        match self.slot() {
            Ok(slot) => slot.register(call, batch).await,
            Err(error) => vec![Err(error); batch.len()],
        }
    }

    async fn put(&self, call: Call, put: Put) -> Result<Arc<Record>> {
        self.slot()?.put(call, put).await
    }

    async fn renew(&self, call: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        match self.slot() {
            Ok(slot) => slot.renew(call, batch).await,
            Err(error) => vec![Err(error); batch.len()],
        }
    }

    async fn unregister(&self, call: Call, request: Unregister) -> Result<Unregistered> {
        self.slot()?.unregister(call, request).await
    }

    async fn get(&self, call: Call, identity: Identity) -> Result<Read> {
        self.slot()?.get(call, identity).await
    }

    async fn leases(&self, call: Call, identities: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        self.slot()?.leases(call, identities).await
    }

    async fn sync(&self, call: Call, from: Revision, limit: usize) -> Result<Sync> {
        self.slot()?.sync(call, from, limit).await
    }

    async fn changed(&self, call: Call, from: Revision) -> Result<()> {
        self.slot()?.changed(call, from).await
    }

    fn is_head(&self, position: Position) -> bool {
        self.0.opened.get().is_some_and(|slot| slot.is_head(position))
    }

    async fn scan(&self, call: Call, scan: Scan) -> Result<ScanPage> {
        self.slot()?.scan(call, scan).await
    }

    async fn query(&self, call: Call, query: Query) -> Result<QueryPage> {
        self.slot()?.query(call, query).await
    }

    async fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> Result<Claim> {
        self.slot()?.claim_session(call, identity, generation).await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.slot()?.probe(deadline).await
    }

    async fn close(&self) {
        self.0.closing.cancel();
        if let Some(slot) = self.0.opened.get() {
            slot.close().await;
        }
    }
}

impl Messaging for Late<MessagingCapability, dyn DynMessaging> {
    fn capability(&self) -> &MessagingCapability {
        &self.0.capability
    }

    async fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        match self.slot() {
            Ok(slot) => slot.publish_batch(targets, message, deadline).await,
            Err(error) => vec![Outcome::NotSent(error.to_string()); targets.len()],
        }
    }

    async fn listen(&self, identity: &Identity, deadline: Instant) -> Result<Listener> {
        self.slot()?.listen(identity, deadline).await
    }

    async fn post(&self, deadline: Instant) -> Result<Post> {
        self.slot()?.post(deadline).await
    }

    async fn send(&self, address: &str, note: Bytes, deadline: Instant) -> Outcome {
        match self.slot() {
            Ok(slot) => slot.send(address, note, deadline).await,
            Err(error) => Outcome::NotSent(error.to_string()),
        }
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.slot()?.probe(deadline).await
    }

    async fn close(&self) {
        self.0.closing.cancel();
        if let Some(slot) = self.0.opened.get() {
            slot.close().await;
        }
    }
}

impl DurableInbox for Late<InboxCapability, dyn DynDurableInbox> {
    fn capability(&self) -> &InboxCapability {
        &self.0.capability
    }

    async fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        match self.slot() {
            Ok(slot) => slot.enqueue(addresses, message, terms, deadline).await,
            Err(error) => vec![Enqueued::NotStored(error.to_string()); addresses.len()],
        }
    }

    async fn open(&self, consumer: &Consumer, deadline: Instant) -> Result<()> {
        self.slot()?.open(consumer, deadline).await
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, deadline: Instant) -> Result<Fetched> {
        self.slot()?.fetch(consumer, fetch, deadline).await
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>> {
        self.slot()?.settle(consumer, verdicts, deadline).await
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        match self.slot() {
            Ok(slot) => slot.cancel(multicast, identities, deadline).await,
            Err(error) => vec![Err(error); identities.len()],
        }
    }

    async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        self.slot()?.discard(address, deadline).await
    }

    async fn depth(&self, identity: Option<&Identity>, deadline: Instant) -> Result<Depth> {
        self.slot()?.depth(identity, deadline).await
    }

    async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        self.slot()?.dead_letters(query, deadline).await
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        self.slot()?.redrive(letters, terms, deadline).await
    }

    async fn configure(&self, limits: InboxLimits, deadline: Instant) -> Result<()> {
        self.slot()?.configure(limits, deadline).await
    }

    async fn sweep(&self, deadline: Instant) -> Result<Swept> {
        self.slot()?.sweep(deadline).await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.slot()?.probe(deadline).await
    }

    async fn close(&self) {
        self.0.closing.cancel();
        if let Some(slot) = self.0.opened.get() {
            slot.close().await;
        }
    }
}

impl Ledger for Late<LedgerCapability, dyn DynLedger> {
    fn capability(&self) -> &LedgerCapability {
        &self.0.capability
    }

    async fn read(&self, keys: Vec<String>, deadline: Instant) -> Result<Vec<Option<Entry>>> {
        self.slot()?.read(keys, deadline).await
    }

    async fn write(&self, writes: Vec<Write>, deadline: Instant) -> Vec<Result<Wrote>> {
        match self.slot() {
            Ok(slot) => slot.write(writes, deadline).await,
            Err(error) => vec![Err(error); writes.len()],
        }
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listed> {
        self.slot()?.list(prefix, after, limit, deadline).await
    }

    fn let_go(&self, keys: Vec<String>, after: Duration) {
        if let Ok(slot) = self.slot() {
            slot.let_go(keys, after);
        }
    }

    async fn close(&self) {
        self.0.closing.cancel();
        if let Some(slot) = self.0.opened.get() {
            slot.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prism_slot::memory::{ManualClock, MemoryMessaging, MemoryRegistry};

    use super::*;
    use crate::testing::{Store, id, soon};

    type LateRegistry = Late<RegistryCapability, dyn DynRegistryStore>;

    fn refused() -> Error {
        Error::Timeout {
            backend: "double",
            applied: Applied::Unknown,
        }
    }

    fn call() -> Call {
        Call {
            epoch: None,
            deadline: soon(),
        }
    }

    /// Until the backend is there every call says so, and that nothing was done; then it serves.
    #[tokio::test(start_paused = true)]
    async fn a_backend_is_used_once_it_is_there() {
        let late = LateRegistry::new(MemoryRegistry::CAPABILITY, "double", refused());
        let error = DynRegistryStore::get(&late, call(), id("a")).await.unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { .. }) && error.applied() == Applied::No,
            "{error:?}"
        );
        let batch = vec![
            Renew {
                identity: id("a"),
                generation: None
            };
            3
        ];
        let results = DynRegistryStore::renew(&late, call(), batch).await;
        assert!(results.len() == 3 && results.iter().all(Result::is_err));

        let attempts = AtomicUsize::new(0);
        let open = || async {
            let slot: Arc<dyn DynRegistryStore> = Store::new(Arc::new(ManualClock::new(Timestamp(0))));
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            if attempt < 3 { Err(refused()) } else { Ok(slot) }
        };
        let started = Instant::now();
        late.run(open).await;
        assert_eq!(attempts.load(Ordering::Relaxed), 4);
        assert!(
            started.elapsed() >= Duration::from_millis(400),
            "with pauses: {:?}",
            started.elapsed()
        );
        assert!(DynRegistryStore::get(&late, call(), id("a")).await.is_ok());
    }

    /// What only the operator can mend is said as it is.
    #[tokio::test]
    async fn a_backend_that_cannot_be_used_says_why() {
        let message = "the password is wrong".to_owned();
        let wrong = Error::Misconfigured {
            backend: "double",
            message,
        };
        let late = LateRegistry::new(MemoryRegistry::CAPABILITY, "double", wrong.clone());
        assert_eq!(
            DynRegistryStore::get(&late, call(), id("a")).await.unwrap_err(),
            wrong
        );
    }

    /// A namespace that is taken away stops trying.
    #[tokio::test(start_paused = true)]
    async fn closing_ends_the_attempts() {
        let late = LateRegistry::new(MemoryRegistry::CAPABILITY, "double", refused());
        let opening = late.clone();
        let attempts = tokio::spawn(async move { opening.run(std::future::pending).await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!attempts.is_finished());
        DynRegistryStore::close(&late).await;
        attempts.await.unwrap();
    }

    /// Nothing was sent to a broker that is not there.
    #[tokio::test]
    async fn a_missing_broker_was_sent_nothing() {
        let late: Late<MessagingCapability, dyn DynMessaging> =
            Late::new(MemoryMessaging::CAPABILITY, "double", refused());
        let message = Arc::new(Message::new(MulticastId(1), ""));
        let outcomes = DynMessaging::publish_batch(&late, &[id("a"), id("b")], message, soon()).await;
        assert!(
            outcomes.len() == 2
                && outcomes
                    .iter()
                    .all(|outcome| matches!(outcome, Outcome::NotSent(_)))
        );
        assert!(DynMessaging::listen(&late, &id("a"), soon()).await.is_err());
        assert!(DynMessaging::probe(&late, soon()).await.is_err());
    }
}
