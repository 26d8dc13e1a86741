//! Keeps a view in step with its slot.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use prism_core::backoff::{Backoff, Policy};
use prism_filter::Document;
use prism_slot::{
    Applied, Call, Change, DynRegistryStore, Epoch, Error, Identity, Position, Record, Revision, Timestamp,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    hydrate::{SCAN_LIMIT, Scanned, Start},
    turn::Turns,
    view::{Settings, View},
};

/// How often the slot is asked even when nobody reads. The lease clock stops beyond two seconds.
const TICK: Duration = Duration::from_millis(500);
/// How soon it is asked again at most: changes that come quickly are fetched together.
const PACE: Duration = Duration::from_millis(10);
/// How often it is decided which fields are not worth an index any more.
const ADAPT_EVERY: Duration = Duration::from_secs(60);
/// How many rows a new index takes in at once, while readers and changes wait.
const FILL_ROWS: usize = 2_048;
/// How many rows are given up at once, while readers and changes wait.
const COLLECT_ROWS: usize = 2_048;
/// How many changes one call to the slot brings.
pub(super) const SYNC_LIMIT: usize = 1_024;
/// How long one call to the slot may take in the background.
pub(super) const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a view whose store does not answer.
const ABSENT_PATIENCE: Duration = Duration::from_millis(500);
/// How failed attempts to build the view are spaced.
const REBUILD: Policy = Policy {
    base: Duration::from_millis(50),
    cap: Duration::from_secs(2),
};

/// Told of what happens to registrations, in order. Called with the view's lock held, so it must not
/// wait and must not read the directory.
pub trait Observer: Send + Sync + 'static {
    /// A change was applied.
    fn changed(&self, change: &Change);
    /// The view was built anew, stands at `head` and holds `count` registrations, where it holds any; whatever was
    /// there by then and is not held is gone. `standing_of` looks an identity up.
    fn rebuilt(&self, head: Position, standing_of: &dyn Fn(&Identity) -> Standing, count: Option<usize>);
    /// Whose registrations it asks about when nothing is held.
    fn of_interest(&self) -> Vec<Identity>;
}

/// What is known of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The generation of its registration, if there is one.
    Known(Option<Position>),
    /// It was not asked about.
    Unknown,
}

/// Why a view cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It is not built yet; with what went wrong last, if something did.
    #[error("the view is being built{}", because(.0.as_ref()))]
    NotReady(Option<Error>),
    /// The slot failed.
    #[error(transparent)]
    Store(#[from] Error),
}

fn because(error: Option<&Error>) -> String {
    error.map_or_else(String::new, |error| {
        format!(", which failed last because {error}")
    })
}

/// The materialized view of one namespace. Clones share it.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
}

struct Shared {
    store: RwLock<Arc<dyn DynRegistryStore>>,
    observer: Box<dyn Observer>,
    view: RwLock<View>,
    settings: Mutex<Settings>,
    secret: Mutex<[u8; 16]>,
    state: watch::Sender<State>,
    /// The epoch that the view follows; 0 while it is being built. Written with `state`.
    following: AtomicU64,
    /// Held while the slot's history is being fetched and applied.
    fetching: Turns,
    /// How many fetches have begun, and the number of the last one that completed.
    begun: AtomicU64,
    completed: AtomicU64,
    /// The last fetch that failed.
    failed: Mutex<Option<(u64, Error)>>,
    /// When the last completed fetch began.
    current_at: Mutex<Instant>,
    /// Where the view stands, told after it has moved.
    heads: watch::Sender<Position>,
    wake: Notify,
    /// What happened after this revision is not given up. Lowered while the view is read.
    held: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Building(Option<Error>),
    Ready,
}

impl Directory {
    /// A directory that is not built yet; [`Self::run`] builds it.
    pub fn new(store: Arc<dyn DynRegistryStore>, settings: Settings, observer: impl Observer) -> Self {
        let shared = Shared {
            store: RwLock::new(store),
            observer: Box::new(observer),
            view: RwLock::new(View::unbuilt()),
            settings: Mutex::new(settings),
            secret: Mutex::new([0; 16]),
            state: watch::Sender::new(State::Building(None)),
            following: AtomicU64::new(0),
            fetching: Turns::default(),
            begun: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: Mutex::new(None),
            current_at: Mutex::new(Instant::now()),
            heads: watch::Sender::new(View::unbuilt().head()),
            wake: Notify::new(),
            held: AtomicU64::new(u64::MAX),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Keeps the view in step until cancelled. Exactly one task runs this.
    pub async fn run(&self, cancelled: CancellationToken) {
        let work = async {
            let mut adapted_at = Instant::now();
            loop {
                self.build_until_ready().await;
                self.until_there_may_be_more().await;
                if self.fetch_in_background().await {
                    while self.collect() {
                        // Readers and changes come in between.
                        tokio::task::yield_now().await;
                    }
                }
                if adapted_at.elapsed() >= ADAPT_EVERY {
                    adapted_at = Instant::now();
                    self.shared.view.write().age_indexes();
                }
                while self.fill_indexes() {
                    // Readers and changes come in between.
                    tokio::task::yield_now().await;
                }
            }
        };
        cancelled.run_until_cancelled(work).await;
    }

    /// Gives up some of what is past; whether there is more.
    fn collect(&self) -> bool {
        let mut view = self.shared.view.write();
        let held = Revision(self.shared.held.load(Ordering::Acquire));
        view.collect(std::time::Instant::now(), held, COLLECT_ROWS)
    }

    /// Keeps what happens after a revision although it is past, until another one is named; `None`: keeps nothing so. Who
    /// is to be sure that it is still there names the first one while the view is read.
    pub(crate) fn hold(&self, after: Option<Revision>) {
        let held = after.map_or(u64::MAX, |revision| revision.0);
        self.shared.held.store(held, Ordering::Release);
    }

    /// Sees to indexes for a moment; whether there is more to do.
    fn fill_indexes(&self) -> bool {
        let mut view = self.shared.view.write();
        view.begin_index();
        view.fill_indexes(FILL_ROWS)
    }

    /// Returns when somebody asks for it, when the slot tells of a change, and once a tick in any case.
    async fn until_there_may_be_more(&self) {
        let until = Instant::now() + TICK;
        let told = async {
            tokio::time::sleep(PACE).await;
            let head = self.head();
            let call = Call {
                epoch: Some(head.epoch),
                deadline: until,
            };
            if self.store().changed(call, head.revision).await.is_err() {
                // What is wrong shows when it is asked.
                tokio::time::sleep_until(until).await;
            }
        };
        tokio::select! {
            () = self.shared.wake.notified() => {}
            () = told => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Uses another slot over the same data from now on.
    pub fn replace_store(&self, store: Arc<dyn DynRegistryStore>) {
        *self.shared.store.write() = store;
    }

    /// Keeps other past versions and other indexes from now on. A new index is used once it is complete.
    pub fn configure(&self, settings: Settings) {
        let mut view = self.shared.view.write();
        view.configure(&settings);
        *self.shared.settings.lock() = settings;
        drop(view);
        self.nudge();
    }

    /// Whether it keeps nothing.
    pub(crate) fn is_bare(&self) -> bool {
        self.shared.settings.lock().bare
    }

    /// Whether the view has been built and follows.
    pub fn is_ready(&self) -> bool {
        self.following().is_some()
    }

    fn following(&self) -> Option<Epoch> {
        match self.shared.following.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(Epoch(epoch)),
        }
    }

    /// How long ago the view was known to be current.
    pub fn age(&self) -> Duration {
        self.shared.current_at.lock().elapsed()
    }

    /// Where the view stands.
    pub fn head(&self) -> Position {
        self.shared.view.read().head()
    }

    /// Where the view stands, each time that it has moved.
    pub(crate) fn heads(&self) -> watch::Receiver<Position> {
        self.shared.heads.subscribe()
    }

    /// How many identities are registered, as far as the view has followed.
    pub fn len(&self) -> usize {
        self.shared.view.read().open().len()
    }

    /// Whether no identity is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The epoch, and what authenticates its cursors.
    pub(crate) fn secret(&self) -> (Epoch, [u8; 16]) {
        // Both change together, under the view's lock.
        self.read(|view| (view.head().epoch, *self.shared.secret.lock()))
    }

    /// The same identity, as the view has it: then there is one name of it in memory, and equal at a glance.
    pub(crate) fn known(&self, identity: Identity) -> Identity {
        let known = self.read(|view| view.get(identity.as_str()).map(|row| row.identity.clone()));
        known.unwrap_or(identity)
    }

    /// Asks the view something. Readers share the lock; whoever applies changes waits for them.
    pub(crate) fn read<T>(&self, ask: impl FnOnce(&View) -> T) -> T {
        ask(&self.shared.view.read())
    }

    /// Waits until the view has been built, but not for long where the store is known not to answer.
    /// Returns the epoch that it follows.
    pub async fn ready(&self, deadline: Instant) -> Result<Epoch, Unavailable> {
        match self.following() {
            Some(epoch) => Ok(epoch),
            None => self.built(deadline).await,
        }
    }

    async fn built(&self, deadline: Instant) -> Result<Epoch, Unavailable> {
        let mut state = self.shared.state.subscribe();
        let mut patience = deadline;
        loop {
            if let State::Building(Some(Error::Unavailable { .. } | Error::Timeout { .. })) =
                &*state.borrow_and_update()
            {
                patience = patience.min(Instant::now() + ABSENT_PATIENCE);
            }
            if let Some(epoch) = self.following() {
                return Ok(epoch);
            }
            if !matches!(timeout_at(patience, state.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        match &*state.borrow() {
            State::Building(last) => Err(Unavailable::NotReady(last.clone())),
            State::Ready => self.following().ok_or(Unavailable::NotReady(None)),
        }
    }

    /// Makes the view reflect every write that was acknowledged before this call.
    ///
    /// Readers that wait at the same time share a fetch: one that began after they came.
    pub async fn make_current(&self, deadline: Instant) -> Result<(), Unavailable> {
        self.ready(deadline).await?;
        if self.store().is_head(self.head()) {
            return Ok(());
        }
        let shared = &*self.shared;
        let came = shared.begun.load(Ordering::Acquire);
        let turn = shared.fetching.take_unless(|| self.fetched_since(came));
        let turn = match timeout_at(deadline, turn).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(fetched)) => return fetched,
            Err(_) => return Err(self.too_late().into()),
        };
        // Whoever waits for the same fetch has its own patience; this caller's ends with the caller.
        let patience = deadline.max(Instant::now() + BACKGROUND_TIMEOUT);
        match timeout_at(deadline, self.fetch(patience)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if self.must_rebuild(&error) => {
                drop(turn);
                // Building reads the slot's head after this call began.
                self.ready(deadline).await.map(drop)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.too_late().into()),
        }
    }

    /// What came of a fetch that began after so many had, once one is over.
    fn fetched_since(&self, came: u64) -> Option<Result<(), Unavailable>> {
        if self.shared.completed.load(Ordering::Acquire) > came {
            return Some(Ok(()));
        }
        // Those who waited together fail together, instead of each waiting for a dead store in turn.
        match &*self.shared.failed.lock() {
            Some((number, error @ (Error::Unavailable { .. } | Error::Timeout { .. }))) if *number > came => {
                Some(Err(error.clone().into()))
            }
            _ => None,
        }
    }

    fn too_late(&self) -> Error {
        Error::Timeout {
            backend: self.store().capability().backend,
            applied: Applied::No,
        }
    }

    /// Has the background task look at the slot now.
    pub fn nudge(&self) {
        self.shared.wake.notify_one();
    }

    /// Notes that a slot call met another epoch. A view that is there already stays.
    pub(crate) fn epoch_changed(&self, current: Epoch) {
        if self.head().epoch != current {
            self.rebuild(None);
        }
    }

    fn store(&self) -> Arc<dyn DynRegistryStore> {
        self.shared.store.read().clone()
    }

    fn rebuild(&self, because: Option<Error>) {
        self.shared.state.send_if_modified(|state| {
            let was_ready = *state == State::Ready;
            if was_ready {
                self.shared.following.store(0, Ordering::Release);
                *state = State::Building(because);
            }
            was_ready
        });
        self.nudge();
    }

    /// Starts over if the history that the view followed is not there any more.
    fn must_rebuild(&self, error: &Error) -> bool {
        let lost = matches!(error, Error::EpochChanged { .. } | Error::Compacted { .. });
        if lost {
            tracing::info!(%error, "the view is built anew");
            self.rebuild(Some(error.clone()));
        }
        lost
    }

    /// Follows the slot's history to its end. The caller holds `fetching`.
    async fn fetch(&self, deadline: Instant) -> Result<(), Error> {
        let shared = &*self.shared;
        let number = shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let began = Instant::now();
        let fetched = self.follow(deadline).await;
        match &fetched {
            Ok(()) => {
                shared.completed.store(number, Ordering::Release);
                *shared.current_at.lock() = began;
            }
            Err(error) => *shared.failed.lock() = Some((number, error.clone())),
        }
        fetched
    }

    async fn follow(&self, deadline: Instant) -> Result<(), Error> {
        let store = self.store();
        loop {
            let head = self.head();
            let call = Call {
                epoch: Some(head.epoch),
                deadline,
            };
            let sync = store.sync(call, head.revision, SYNC_LIMIT).await?;
            check_dense(head.revision, &sync.changes)?;
            self.apply(sync.changes)?;
            if !sync.more {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.too_late());
            }
            // However much there is to follow, others get their turn.
            tokio::task::yield_now().await;
        }
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.is_bare() {
            self.pass(&changes);
            return Ok(());
        }
        let store = self.store();
        let documents = changes
            .iter()
            .map(|change| match View::needs_document(change.cause) {
                true => stored_document(&change.record, store.capability().backend),
                false => Ok(Document::empty()),
            });
        let documents = documents.collect::<Result<Vec<_>, _>>()?;
        let now = std::time::Instant::now();
        let mut view = self.shared.view.write();
        for (change, document) in changes.iter().zip(documents) {
            view.apply(change, document, now);
            self.shared.observer.changed(change);
        }
        let head = view.head();
        drop(view);
        self.shared.heads.send_replace(head);
        Ok(())
    }

    /// Follows without keeping anything.
    fn pass(&self, changes: &[Change]) {
        let mut view = self.shared.view.write();
        for change in changes {
            view.pass(change.revision);
            self.shared.observer.changed(change);
        }
        let head = view.head();
        drop(view);
        self.shared.heads.send_replace(head);
    }

    /// Fetches without a reader's call; whether that worked.
    async fn fetch_in_background(&self) -> bool {
        let _fetching = self.shared.fetching.take().await;
        match self.fetch(Instant::now() + BACKGROUND_TIMEOUT).await {
            Ok(()) => true,
            Err(error) => {
                if !self.must_rebuild(&error) {
                    tracing::debug!(%error, "the view could not be brought up to date");
                }
                false
            }
        }
    }

    async fn build_until_ready(&self) {
        let mut backoff = Backoff::new(REBUILD);
        while !self.is_ready() {
            let fetching = self.shared.fetching.take().await;
            match self.build().await {
                Ok(()) => {
                    backoff.reset();
                    self.shared.state.send_modify(|state| {
                        let epoch = self.head().epoch.0;
                        self.shared.following.store(epoch, Ordering::Release);
                        *state = State::Ready;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the view could not be built, trying again");
                    drop(fetching);
                    self.shared.state.send_replace(State::Building(Some(error)));
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Puts a view in place of the one that was there, which is returned so that it is given up while
    /// nobody waits.
    fn take_over(&self, built: View, head: Position, secret: [u8; 16]) -> View {
        let mut view = self.shared.view.write();
        let before = std::mem::replace(&mut *view, built);
        // They may have changed meanwhile.
        view.configure(&self.shared.settings.lock());
        let standing_of =
            |identity: &Identity| Standing::Known(view.get(identity.as_str()).map(|row| row.generation));
        self.shared
            .observer
            .rebuilt(head, &standing_of, Some(view.open().len()));
        *self.shared.secret.lock() = secret;
        drop(view);
        self.shared.heads.send_replace(head);
        before
    }

    /// Follows a history from here, keeping nothing of it.
    fn start_at(&self, start: Start) {
        let mut view = self.shared.view.write();
        *view = View::new(start.head, &self.shared.settings.lock(), Vec::new());
        let standing_of = |identity: &Identity| {
            let known = start.registered.get(identity);
            known.map_or(Standing::Unknown, |generation| Standing::Known(*generation))
        };
        self.shared.observer.rebuilt(start.head, &standing_of, None);
        *self.shared.secret.lock() = start.secret;
        drop(view);
        self.shared.heads.send_replace(start.head);
    }

    /// Builds the view from a scan and the changes since its beginning. The caller holds `fetching`.
    async fn build(&self) -> Result<(), Error> {
        let began = Instant::now();
        let number = self.shared.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let store = self.store();
        if self.is_bare() {
            let start = Start::read(&*store, || self.shared.observer.of_interest()).await?;
            self.start_at(start);
            self.shared.completed.store(number, Ordering::Release);
            *self.shared.current_at.lock() = began;
            return Ok(());
        }
        let mut scanned = Scanned::begin(&*store).await?;
        scanned.catch_up(&*store).await?;
        let settings = self.shared.settings.lock().clone();
        let past = match settings.horizon.age.is_zero() {
            true => Vec::new(),
            false => scanned.past(&*store, settings.horizon.bytes).await?,
        };
        let (head, secret) = (scanned.head, scanned.secret);
        let backend = store.capability().backend;
        // Seconds of work for a million records, which no call should have to wait for.
        let built = tokio::task::spawn_blocking(move || scanned.into_view(&settings, past));
        let built = built.await.map_err(|error| Error::Unreadable {
            backend,
            message: format!("the view could not be built: {error}"),
        })??;
        drop(self.take_over(built, head, secret));
        self.shared.completed.store(number, Ordering::Release);
        *self.shared.current_at.lock() = began;
        Ok(())
    }
}

/// A view that missed a change would be wrong for ever, so it starts over instead.
pub(super) fn check_dense(from: Revision, changes: &[Change]) -> Result<(), Error> {
    let mut last = from;
    for change in changes {
        if change.revision != last.next() {
            return Err(Error::Compacted { up_to: last.next() });
        }
        last = change.revision;
    }
    Ok(())
}

/// The metadata of a record that a slot returned.
pub(crate) fn stored_document(record: &Record, backend: &'static str) -> Result<Document, Error> {
    Document::from_json(&record.metadata).map_err(|error| {
        let message = format!("the metadata of `{}` is damaged: {error}", record.identity);
        Error::Unreadable { backend, message }
    })
}

/// What `$expires_at` is compared with, and what an answer shows of leases.
pub(crate) async fn leases_of(
    store: &dyn DynRegistryStore,
    call: Call,
    identities: Vec<Identity>,
) -> Result<HashMap<Identity, Option<Timestamp>>, Error> {
    let mut leases = HashMap::with_capacity(identities.len());
    for part in identities.chunks(SCAN_LIMIT) {
        let ends = store.leases(call, part.to_vec()).await?;
        leases.extend(part.iter().cloned().zip(ends));
    }
    Ok(leases)
}
