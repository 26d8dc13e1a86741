//! Slots whose calls go as a test says.

pub(crate) mod durable;
pub(crate) mod generated;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prism_slot::{
    Applied, Call, Claim, Error, Identity, Listener, Message, Messaging, MessagingCapability, Outcome,
    Position, Post, Put, Query, QueryPage, Read, Record, Register, Registered, RegistryCapability,
    RegistryStore, Renew, Renewed, Result, Revision, Scan, ScanPage, Scope, Sync, Timestamp, Unregister,
    Unregistered,
    memory::{ManualClock, MemoryMessaging, MemoryRegistry},
};
use tokio::{sync::Notify, time::Instant};

/// The calls of a registry slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Register,
    Put,
    Renew,
    Unregister,
    Get,
    Leases,
    Sync,
    Changed,
    Scan,
    Query,
    Claim,
    Publish,
    Send,
    Post,
    Configure,
    Enqueue,
    Fetch,
    Settle,
    Read,
    List,
    Write,
    Listen,
    Probe,
}

/// How a call goes.
#[derive(Clone)]
pub(crate) enum Fate {
    /// As in memory.
    Pass,
    /// It fails, with nothing applied.
    Refuse(Error),
    /// It is applied, and then fails.
    Lose(Error),
    /// It never answers.
    Hang,
    /// As in memory, once it is let go.
    Wait(Arc<Notify>),
    /// As in memory at once, but the answer comes when it is let go.
    Late(Arc<Notify>),
    /// As in memory, after so long.
    Slow(Duration),
}

/// What calls went, and how the next ones go.
#[derive(Default)]
pub(crate) struct Script {
    next: Mutex<HashMap<Op, VecDeque<Fate>>>,
    always: Mutex<HashMap<Op, Fate>>,
    calls: Mutex<HashMap<Op, usize>>,
    came: Notify,
}

impl Script {
    /// The next call without a fate goes like this.
    pub(crate) fn next(&self, op: Op, fate: Fate) {
        self.next.lock().entry(op).or_default().push_back(fate);
    }

    /// Every call without a fate of its own goes like this.
    pub(crate) fn always(&self, op: Op, fate: Fate) {
        self.always.lock().insert(op, fate);
    }

    /// How many calls there were.
    pub(crate) fn count(&self, op: Op) -> usize {
        self.calls.lock().get(&op).copied().unwrap_or_default()
    }

    /// Waits until there were that many calls.
    pub(crate) async fn reached(&self, op: Op, count: usize) {
        loop {
            let came = self.came.notified();
            if self.count(op) >= count {
                return;
            }
            came.await;
        }
    }

    fn fate(&self, op: Op) -> Fate {
        *self.calls.lock().entry(op).or_default() += 1;
        self.came.notify_waiters();
        let next = self.next.lock().get_mut(&op).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.lock().get(&op).cloned())
            .unwrap_or(Fate::Pass)
    }

    /// Runs `call` as its fate says.
    async fn play<T>(&self, op: Op, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.fate(op).play(call).await
    }
}

impl Fate {
    async fn play<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Pass => call.await,
            Self::Refuse(error) => Err(error),
            Self::Lose(error) => {
                let _ = call.await;
                Err(error)
            }
            Self::Hang => std::future::pending().await,
            Self::Wait(until) => {
                until.notified().await;
                call.await
            }
            Self::Late(until) => {
                let answer = call.await;
                until.notified().await;
                answer
            }
            Self::Slow(by) => {
                tokio::time::sleep(by).await;
                call.await
            }
        }
    }
}

/// How many records a query goes on by.
const QUERY_PAGE: usize = 3;

/// A registry in memory, reached as if it were far away.
pub(crate) struct Store {
    pub(crate) script: Script,
    memory: MemoryRegistry<Arc<ManualClock>>,
    forgetful: AtomicBool,
    skips: AtomicBool,
    endless: AtomicBool,
    selects: AtomicBool,
    pages: AtomicBool,
    knows_head: AtomicBool,
}

impl Store {
    pub(crate) fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            script: Script::default(),
            memory: MemoryRegistry::with_clock(Default::default(), clock),
            forgetful: AtomicBool::new(false),
            skips: AtomicBool::new(false),
            endless: AtomicBool::new(false),
            selects: AtomicBool::new(false),
            pages: AtomicBool::new(false),
            knows_head: AtomicBool::new(false),
        })
    }

    /// Batches come back without results from now on.
    pub(crate) fn forget_results(&self) {
        self.forgetful.store(true, Ordering::Relaxed);
    }

    /// The next run of history comes without its first change.
    pub(crate) fn skip_a_change(&self) {
        self.skips.store(true, Ordering::Relaxed);
    }

    /// From now on there is always more history to come.
    pub(crate) fn never_end(&self) {
        self.endless.store(true, Ordering::Relaxed);
    }

    /// It selects by filters from now on.
    pub(crate) fn select(&self) {
        self.selects.store(true, Ordering::Relaxed);
    }

    /// A scan brings no more than it is asked for from now on.
    pub(crate) fn scan_by_pages(&self) {
        self.pages.store(true, Ordering::Relaxed);
    }

    /// It knows at once where it stands from now on.
    pub(crate) fn know_head(&self) {
        self.knows_head.store(true, Ordering::Relaxed);
    }

    async fn each<T>(
        &self,
        op: Op,
        count: usize,
        call: impl Future<Output = Vec<Result<T>>>,
    ) -> Vec<Result<T>> {
        match self.script.play(op, async { Ok(call.await) }).await {
            Ok(_) if self.forgetful.load(Ordering::Relaxed) => Vec::new(),
            Ok(results) => results,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }
}

impl RegistryStore for Store {
    fn capability(&self) -> &RegistryCapability {
        const CAPABILITY: RegistryCapability = RegistryCapability {
            backend: "double",
            scope: Scope::Shared,
            ..MemoryRegistry::CAPABILITY
        };
        const SELECTING: RegistryCapability = RegistryCapability {
            query: true,
            ..CAPABILITY
        };
        match self.selects.load(Ordering::Relaxed) {
            true => &SELECTING,
            false => &CAPABILITY,
        }
    }

    async fn register(&self, call: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        let count = batch.len();
        self.each(Op::Register, count, self.memory.register(call, batch))
            .await
    }

    async fn put(&self, call: Call, put: Put) -> Result<Arc<Record>> {
        self.script.play(Op::Put, self.memory.put(call, put)).await
    }

    async fn renew(&self, call: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        let count = batch.len();
        self.each(Op::Renew, count, self.memory.renew(call, batch)).await
    }

    async fn unregister(&self, call: Call, request: Unregister) -> Result<Unregistered> {
        let removed = self.memory.unregister(call, request);
        self.script.play(Op::Unregister, removed).await
    }

    async fn get(&self, call: Call, identity: Identity) -> Result<Read> {
        self.script.play(Op::Get, self.memory.get(call, identity)).await
    }

    async fn leases(&self, call: Call, identities: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        let leases = self.memory.leases(call, identities);
        self.script.play(Op::Leases, leases).await
    }

    async fn sync(&self, call: Call, from: Revision, limit: usize) -> Result<Sync> {
        let sync = self.memory.sync(call, from, limit);
        let mut sync = self.script.play(Op::Sync, sync).await?;
        if !sync.changes.is_empty() && self.skips.swap(false, Ordering::Relaxed) {
            sync.changes.remove(0);
        }
        sync.more |= self.endless.load(Ordering::Relaxed);
        Ok(sync)
    }

    async fn changed(&self, call: Call, from: Revision) -> Result<()> {
        self.script
            .play(Op::Changed, self.memory.changed(call, from))
            .await
    }

    fn is_head(&self, position: Position) -> bool {
        self.knows_head.load(Ordering::Relaxed) && self.memory.is_head(position)
    }

    async fn scan(&self, call: Call, scan: Scan) -> Result<ScanPage> {
        let (after, limit) = (scan.cursor.clone().unwrap_or_default(), scan.limit);
        let mut page = self.script.play(Op::Scan, self.memory.scan(call, scan)).await?;
        if self.pages.load(Ordering::Relaxed) {
            page.records
                .sort_by(|one, other| one.identity.cmp(&other.identity));
            page.records
                .retain(|record| record.identity.as_str().as_bytes() > &after[..]);
            if page.records.len() > limit {
                page.records.truncate(limit);
                page.next = page.records.last().map(|last| last.identity.to_string().into());
            }
        }
        Ok(page)
    }

    /// In the order of identities, a few at a time; each page begins with the last record of the one before.
    async fn query(&self, call: Call, query: Query) -> Result<QueryPage> {
        let page = self.script.play(Op::Query, async {
            let all = Scan {
                cursor: None,
                limit: usize::MAX,
                hold: Duration::ZERO,
            };
            self.memory.sync(call, Revision::ZERO, 0).await?;
            self.memory.scan(call, all).await
        });
        let mut page = page.await?;
        page.records
            .sort_by(|one, other| one.identity.cmp(&other.identity));
        let after = query.cursor.unwrap_or_default();
        let end = page
            .records
            .partition_point(|record| record.identity.as_str().as_bytes() <= &after[..])
            + QUERY_PAGE;
        let next = page
            .records
            .get(end.wrapping_sub(1))
            .filter(|_| end < page.records.len());
        let next = next.map(|record| record.identity.to_string().into());
        let shown = end.min(page.records.len()).saturating_sub(QUERY_PAGE + 1)..end.min(page.records.len());
        Ok(QueryPage {
            examined: shown.len() as u64,
            records: page.records[shown].to_vec(),
            next,
            head: page.head,
        })
    }

    async fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> Result<Claim> {
        let claim = self.memory.claim_session(call, identity, generation);
        self.script.play(Op::Claim, claim).await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.script.play(Op::Probe, self.memory.probe(deadline)).await
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

/// What a broker says of a batch, made from what it was given.
type Verdict = Box<dyn FnOnce(&[Identity]) -> Vec<Outcome> + Send>;

/// A messaging slot in memory, reached as if it were far away, that can say of a batch whatever a test
/// wants it to.
#[derive(Default)]
pub(crate) struct Broker {
    pub(crate) script: Script,
    verdicts: Mutex<VecDeque<Verdict>>,
    batches: Mutex<Vec<Vec<String>>>,
    memory: Option<MemoryMessaging>,
}

impl Broker {
    /// With listeners in memory.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Some(MemoryMessaging::new(Default::default())),
            ..Self::default()
        })
    }

    /// Says this of the next batch, which then goes nowhere.
    pub(crate) fn judge(&self, verdict: impl FnOnce(&[Identity]) -> Vec<Outcome> + Send + 'static) {
        self.verdicts.lock().push_back(Box::new(verdict));
    }

    /// Who was sent to, batch by batch.
    pub(crate) fn batches(&self) -> Vec<Vec<String>> {
        self.batches.lock().clone()
    }

    fn memory(&self) -> &MemoryMessaging {
        self.memory.as_ref().expect("made by `new`")
    }
}

impl Messaging for Broker {
    fn capability(&self) -> &MessagingCapability {
        const CAPABILITY: MessagingCapability = MessagingCapability {
            backend: "double",
            scope: Scope::Shared,
            ..MemoryMessaging::CAPABILITY
        };
        &CAPABILITY
    }

    async fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        self.batches
            .lock()
            .push(targets.iter().map(ToString::to_string).collect());
        if let Some(verdict) = self.verdicts.lock().pop_front() {
            return verdict(targets);
        }
        let publish = self.memory().publish_batch(targets, message, deadline);
        let published = self.script.play(Op::Publish, async { Ok(publish.await) });
        let unknown = |error: Error| vec![Outcome::Unknown(error.to_string()); targets.len()];
        published.await.unwrap_or_else(unknown)
    }

    async fn listen(&self, identity: &Identity, deadline: Instant) -> Result<Listener> {
        let listen = self.memory().listen(identity, deadline);
        self.script.play(Op::Listen, listen).await
    }

    async fn post(&self, deadline: Instant) -> Result<Post> {
        self.script.play(Op::Post, self.memory().post(deadline)).await
    }

    async fn send(&self, address: &str, note: Bytes, deadline: Instant) -> Outcome {
        let send = self.memory().send(address, note, deadline);
        let sent = self.script.play(Op::Send, async { Ok(send.await) });
        sent.await
            .unwrap_or_else(|error| Outcome::Unknown(error.to_string()))
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.script.play(Op::Probe, self.memory().probe(deadline)).await
    }

    async fn close(&self) {
        self.memory().close().await;
    }
}

/// A failure of a backend that says whether something was applied.
pub(crate) fn unavailable(applied: Applied) -> Error {
    Error::Unavailable {
        backend: "double",
        message: "the test wants it so".to_owned(),
        applied,
    }
}

/// A backend that did not answer in time, and did nothing.
pub(crate) fn late() -> Error {
    Error::Timeout {
        backend: "double",
        applied: Applied::No,
    }
}

/// A deadline that no test should come near.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(crate) fn id(name: &str) -> Identity {
    Identity::new(name).expect("a test's identity")
}
