//! A durability slot and a ledger in memory, reached as if they were far away, whose calls go as a test says.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use prism_slot::{
    Address, Consumer, DeadId, DeadPage, DeadQuery, Depth, Discarded, DurableInbox, Enqueued, Entry, Error,
    Fetch, Fetched, Identity, InboxCapability, InboxLimits, Ledger, LedgerCapability, Listed, Message,
    MulticastId, Redriven, Result, Scope, Settled, Swept, Terms, Verdict, Write, Wrote,
    memory::{ManualClock, MemoryInbox, MemoryLedger},
};
use tokio::time::Instant;

use super::{Fate, Op, Script, late};
use crate::coordinator::Durability;

/// Inboxes in memory.
pub(crate) struct Inboxes {
    pub(crate) script: Script,
    verdicts: Mutex<HashMap<Identity, VecDeque<Enqueued>>>,
    kept: Mutex<HashMap<Identity, Error>>,
    memory: MemoryInbox,
}

/// How a write goes, by what it writes.
type Judge = Box<dyn FnMut(&[Write]) -> Fate + Send>;

/// A ledger in memory.
pub(crate) struct Register {
    pub(crate) script: Script,
    judge: Mutex<Option<Judge>>,
    memory: MemoryLedger,
}

impl Inboxes {
    pub(crate) fn new(limits: InboxLimits, clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            script: Script::default(),
            verdicts: Mutex::default(),
            kept: Mutex::default(),
            memory: MemoryInbox::with_clock(Default::default(), limits, clock),
        })
    }

    /// The next message for this identity is not stored, and this is said of it.
    pub(crate) fn judge(&self, identity: &Identity, outcome: Enqueued) {
        let mut verdicts = self.verdicts.lock();
        verdicts.entry(identity.clone()).or_default().push_back(outcome);
    }

    /// Nothing is taken back from this identity, for which this is said.
    pub(crate) fn keep(&self, identity: &Identity, why: Error) {
        self.kept.lock().insert(identity.clone(), why);
    }

    async fn store(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        let verdict = |address: &Address| self.verdicts.lock().get_mut(&address.identity)?.pop_front();
        let verdicts: Vec<Option<Enqueued>> = addresses.iter().map(verdict).collect();
        let judged = addresses.iter().zip(&verdicts);
        let others = judged
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(address, _)| address.clone());
        let others: Vec<Address> = others.collect();
        let stored = self.memory.enqueue(&others, message, terms, deadline).await;
        let mut stored = stored.into_iter();
        let outcomes = verdicts
            .into_iter()
            .filter_map(|verdict| verdict.or_else(|| stored.next()));
        outcomes.collect()
    }
}

impl Register {
    /// One that gives up what it can once it has so many bytes.
    pub(crate) fn new(max_bytes: usize, clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            script: Script::default(),
            judge: Mutex::default(),
            memory: MemoryLedger::with_clock(max_bytes, clock),
        })
    }
}

impl Register {
    /// Writes go as this says from now on.
    pub(crate) fn judge(&self, judge: impl FnMut(&[Write]) -> Fate + Send + 'static) {
        *self.judge.lock() = Some(Box::new(judge));
    }

    /// Writes go as the script says again.
    pub(crate) fn heal(&self) {
        *self.judge.lock() = None;
    }
}

/// Both, for as many runners as one likes.
pub(crate) fn durability(inboxes: &Arc<Inboxes>, register: &Arc<Register>) -> Durability {
    Durability {
        inbox: Some(inboxes.clone()),
        ledger: register.clone(),
    }
}

/// A call that is slow ends at its deadline.
async fn in_time<T>(fate: Fate, call: impl Future<Output = Result<T>>, deadline: Instant) -> Result<T> {
    if !matches!(fate, Fate::Slow(_)) {
        return fate.play(call).await;
    }
    let played = tokio::time::timeout_at(deadline, fate.play(call)).await;
    played.unwrap_or_else(|_| Err(late()))
}

impl DurableInbox for Inboxes {
    fn capability(&self) -> &InboxCapability {
        const CAPABILITY: InboxCapability = InboxCapability {
            backend: "double",
            scope: Scope::Shared,
            ..MemoryInbox::CAPABILITY
        };
        &CAPABILITY
    }

    async fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        let stored = self.store(addresses, message, terms, deadline);
        let stored = self.script.play(Op::Enqueue, async { Ok(stored.await) }).await;
        let unknown = |error: Error| vec![Enqueued::Unknown(error.to_string()); addresses.len()];
        stored.unwrap_or_else(unknown)
    }

    async fn open(&self, consumer: &Consumer, deadline: Instant) -> Result<()> {
        self.memory.open(consumer, deadline).await
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, deadline: Instant) -> Result<Fetched> {
        let fetched = self.memory.fetch(consumer, fetch, deadline);
        self.script.play(Op::Fetch, fetched).await
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>> {
        let settled = self.memory.settle(consumer, verdicts, deadline);
        self.script.play(Op::Settle, settled).await
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        let mut outcomes = Vec::with_capacity(identities.len());
        for identity in identities {
            let kept = self.kept.lock().get(identity).cloned();
            let one = std::slice::from_ref(identity);
            match kept {
                Some(why) => outcomes.push(Err(why)),
                None => outcomes.extend(self.memory.cancel(multicast, one, deadline).await),
            }
        }
        outcomes
    }

    async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        self.memory.discard(address, deadline).await
    }

    async fn depth(&self, identity: Option<&Identity>, deadline: Instant) -> Result<Depth> {
        self.memory.depth(identity, deadline).await
    }

    async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        self.memory.dead_letters(query, deadline).await
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        self.memory.redrive(letters, terms, deadline).await
    }

    async fn configure(&self, limits: InboxLimits, deadline: Instant) -> Result<()> {
        let configured = self.memory.configure(limits, deadline);
        self.script.play(Op::Configure, configured).await
    }

    async fn sweep(&self, deadline: Instant) -> Result<Swept> {
        self.memory.sweep(deadline).await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.memory.probe(deadline).await
    }

    /// Others use it still.
    async fn close(&self) {}
}

impl Ledger for Register {
    fn capability(&self) -> &LedgerCapability {
        const CAPABILITY: LedgerCapability = LedgerCapability {
            backend: "double",
            scope: Scope::Shared,
            ..MemoryLedger::CAPABILITY
        };
        &CAPABILITY
    }

    async fn read(&self, keys: Vec<String>, deadline: Instant) -> Result<Vec<Option<Entry>>> {
        let read = self.memory.read(keys, deadline);
        in_time(self.script.fate(Op::Read), read, deadline).await
    }

    async fn write(&self, writes: Vec<Write>, deadline: Instant) -> Vec<Result<Wrote>> {
        let count = writes.len();
        let fate = self.judge.lock().as_mut().map(|judge| judge(&writes));
        let written = self.memory.write(writes, deadline);
        let written = async { Ok(written.await) };
        let fate = fate.unwrap_or_else(|| self.script.fate(Op::Write));
        let written = in_time(fate, written, deadline).await;
        written.unwrap_or_else(|error| vec![Err(error); count])
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listed> {
        let listed = self.memory.list(prefix, after, limit, deadline);
        self.script.play(Op::List, listed).await
    }

    fn let_go(&self, keys: Vec<String>, after: Duration) {
        self.memory.let_go(keys, after);
    }

    /// Others use it still.
    async fn close(&self) {}
}
