//! One namespace at work: what the calls of the data service do.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use multicast_registry::{Config, Coordinator, Enumerate, Multicast, Register};
//! use prism_filter::{Document, Filter};
//! use prism_slot::memory::{MemoryMessaging, MemoryRegistry};
//! use tokio::time::Instant;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), multicast_registry::Error> {
//! let registry = Arc::new(MemoryRegistry::new(Default::default()));
//! let messaging = Arc::new(MemoryMessaging::new(Default::default()));
//! let coordinator = Coordinator::new(Config::named("presence"), registry, messaging, None);
//! let deadline = Instant::now() + Duration::from_secs(5);
//!
//! let metadata = Document::from_json(br#"{"status": "online", "room": "engineering"}"#)?;
//! let alice = coordinator.register(Register::new("alice", metadata)?, deadline).await?;
//! assert_eq!(alice.position.revision.0, 1);
//!
//! let filter = Filter::new().eq("room", "engineering");
//! let page = coordinator.enumerate(Enumerate { filter: Some(filter.clone()), ..Default::default() }, deadline);
//! assert_eq!(page.await?.total, 1);
//!
//! let mut session = coordinator.subscribe("alice", None, deadline).await?;
//! let message = Multicast { filter: Some(filter), payload: "hello".into(), ..Default::default() };
//! let report = coordinator.multicast(message, deadline).await?;
//! assert_eq!((report.targets.len(), report.delivered()), (1, 1));
//! assert!(session.next().await.is_some());
//!
//! coordinator.unregister("alice", None, deadline).await?;
//! coordinator.close().await;
//! # Ok(())
//! # }
//! ```

mod backlog;
mod bulk;
mod claiming;
mod conformity;
mod dead;
mod enumerate;
mod error;
mod explain;
mod following;
mod keeping;
mod multicast;
mod pacing;
mod planning;
mod presence;
mod receipts;
mod registrations;
mod search;
mod sending;
mod session;
mod sessions;
mod watch;

#[cfg(test)]
mod tests;

pub use conformity::{Check, Nonconforming, Progress, SchemaRefused, Summary};
pub use dead::{Redrive, RedriveReport};
pub use enumerate::{Enumerate, Page};
pub use error::Error;
pub use explain::{Access, Explanation, Verdict, Why};
pub use following::{Following, MulticastEvent};
pub use multicast::{Multicast, Replies};
pub use receipts::{MAX_PAGE as MAX_RECEIPTS_PAGE, Pages};
pub use registrations::{Extended, Held, Register, Update, Updated};
pub use session::{Session, SessionEvent};
pub use sessions::Closed;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use parking_lot::RwLock;
use prism_filter::Path;
use prism_slot::{
    Call, DynDurableInbox, DynLedger, DynMessaging, DynRegistryStore, Epoch, InboxLimits, Ttl,
    memory::MemoryLedger,
};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Behavior, ViewKind},
    delivery::{Bells, Books, Courier, Desk, Gate, Runner},
    directory::{self, Directory, Horizon},
    limits::{Caller, Exceeded, Kind, Limits},
    metrics::NamespaceMetrics,
    schema::Schema,
    watch::Hub,
};
use conformity::{Census, CurrentSchema};
use pacing::Pacing;
use presence::Presence;
use receipts::Questions;
use sessions::Sessions;

/// What a coordinator needs to know of its namespace.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace's name.
    pub namespace: String,
    /// Limits, defaults and retries.
    pub behavior: Behavior,
    /// What metadata must look like.
    pub schema: Option<Schema>,
    /// The fields that are indexed beside those of the schema.
    pub indexes: Vec<Path>,
}

impl Config {
    /// A namespace with default behaviour and no schema.
    pub fn named(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            behavior: Behavior::default(),
            schema: None,
            indexes: Vec::new(),
        }
    }

    pub(crate) fn limits(&self) -> prism_filter::Limits {
        prism_filter::Limits {
            max_depth: self.behavior.max_filter_depth,
            max_clauses: self.behavior.max_clauses,
            max_regex_bytes: self.behavior.max_regex_bytes,
            ..prism_filter::Limits::default()
        }
    }

    fn directory(&self) -> directory::Settings {
        let horizon = Horizon {
            age: self.behavior.history_age,
            bytes: self.behavior.history_bytes,
        };
        let declared = self.schema.iter().flat_map(Schema::indexed);
        let mut indexed: Vec<Path> = declared.chain(self.indexes.iter().cloned()).collect();
        indexed.sort();
        indexed.dedup();
        let bare = self.behavior.view == ViewKind::None;
        directory::Settings {
            horizon,
            indexed,
            bare,
        }
    }

    /// What holds for the namespace's inboxes.
    pub fn inbox_limits(&self) -> InboxLimits {
        InboxLimits {
            max_messages: self.behavior.inbox_max_messages,
            overflow: self.behavior.inbox_overflow,
            dedupe: self.behavior.dedupe_window,
            max_dead_letters: self.behavior.max_dead_letters,
            idle: self.behavior.message_ttl.max(SHORTEST_IDLE),
        }
    }

    fn default_ttl(&self) -> Option<Ttl> {
        self.behavior
            .ttl_default
            .and_then(|ttl| Ttl::from_millis(ttl.as_millis() as u64))
    }
}

/// One namespace at work. Clones share it.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    parts: RwLock<Parts>,
    directory: Directory,
    sessions: Arc<Sessions>,
    watches: Arc<Hub>,
    /// How many there are.
    watchers: Arc<AtomicUsize>,
    /// Turns to search the slot.
    searches: Semaphore,
    pacing: Pacing,
    /// As other runners know it.
    runner: Runner,
    desk: Arc<Desk>,
    courier: Arc<Courier>,
    bells: Bells,
    /// Of what is published, and of what is stored: when one of both stands still, the other goes on.
    publishing: Gate,
    storing: Gate,
    questions: Questions,
    /// Whether the ledger knows that this runner is alive.
    presence: Presence,
    metrics: NamespaceMetrics,
    /// For whoever counts violations of it.
    schema: CurrentSchema,
    /// Closed as soon as the coordinator is.
    tasks: TaskTracker,
    /// What sessions that have ended still say.
    words: TaskTracker,
    closing: CancellationToken,
}

/// What a call works with from its beginning to its end, and the next one may find replaced.
#[derive(Clone)]
struct Parts {
    config: Arc<Config>,
    /// How often callers may call, where that is limited.
    limits: Option<Arc<Limits>>,
    registry: Arc<dyn DynRegistryStore>,
    messaging: Arc<dyn DynMessaging>,
    inbox: Option<Arc<dyn DynDurableInbox>>,
    books: Books,
}

/// Where messages wait, and where it is kept what became of them.
#[derive(Clone)]
pub struct Durability {
    /// The durability slot, where the namespace has one.
    pub inbox: Option<Arc<dyn DynDurableInbox>>,
    /// The ledger.
    pub ledger: Arc<dyn DynLedger>,
}

impl Durability {
    /// A ledger in this process's memory, and no durability slot.
    pub fn none() -> Self {
        Self {
            inbox: None,
            ledger: Arc::new(MemoryLedger::new(LEDGER_BYTES)),
        }
    }
}

/// For how long a session is remembered at least: sessions that are open are heard of far more often.
const SHORTEST_IDLE: Duration = Duration::from_secs(600);
/// How much a ledger in memory holds.
const LEDGER_BYTES: usize = 64 << 20;
/// How long sessions have to end once they are told to.
const PARTING: Duration = Duration::from_millis(500);
/// How long writing up what is known may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Starts a namespace over its slots. Needs a tokio runtime, on which it keeps a few tasks until
    /// [`Self::close`]; without a durability, [`Durability::none`] is used. The view may not be built yet when this returns, calls wait for it.
    pub fn new(
        config: Config,
        registry: Arc<dyn DynRegistryStore>,
        messaging: Arc<dyn DynMessaging>,
        durability: Option<Durability>,
    ) -> Self {
        Self::with_metrics(
            config,
            registry,
            messaging,
            durability,
            NamespaceMetrics::unregistered(),
        )
    }

    /// As [`Self::new`], reporting to metrics that are exported.
    pub fn with_metrics(
        config: Config,
        registry: Arc<dyn DynRegistryStore>,
        messaging: Arc<dyn DynMessaging>,
        durability: Option<Durability>,
        metrics: NamespaceMetrics,
    ) -> Self {
        let sessions = Arc::new(Sessions::new(config.namespace.clone(), metrics.clone()));
        let directory = Directory::new(
            registry.clone(),
            config.directory(),
            sessions::Following(sessions.clone()),
        );
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let follow = (directory.clone(), closing.clone());
        tasks.spawn(async move { follow.0.run(follow.1).await });
        let counted = config.schema.clone().filter(|_| !directory.is_bare());
        let schema = CurrentSchema::new(counted);
        let census = Census::new(&config.namespace, directory.clone(), metrics.clone(), &schema);
        tasks.spawn(census.run(closing.clone()));
        let watches = Arc::new(Hub::new(directory.clone(), metrics.clone()));
        let tell = (watches.clone(), closing.clone());
        tasks.spawn(async move { tell.0.run(tell.1).await });
        let runner = Runner::random();
        let desk = Arc::new(Desk::new(config.behavior.receipts_memory));
        let courier = Arc::new(Courier::new(desk.clone(), metrics.clone()));
        let durability = durability.unwrap_or_else(Durability::none);
        let parts = Parts {
            limits: Limits::of(&config.behavior, None),
            config: Arc::new(config),
            registry,
            messaging,
            inbox: durability.inbox,
            books: Books::new(durability.ledger, runner),
        };
        let shared = Shared {
            parts: RwLock::new(parts),
            directory,
            sessions,
            watches,
            watchers: Arc::default(),
            searches: Semaphore::new(search::SEARCHES),
            pacing: Pacing::new(),
            runner,
            desk,
            courier,
            bells: Bells::default(),
            publishing: Gate::new(),
            storing: Gate::new(),
            questions: Questions::default(),
            presence: Presence::new(),
            metrics,
            schema,
            tasks,
            words: TaskTracker::new(),
            closing,
        };
        let coordinator = Self {
            shared: Arc::new(shared),
        };
        coordinator.keep();
        coordinator
    }

    /// The configuration now.
    pub fn config(&self) -> Arc<Config> {
        self.shared.parts.read().config.clone()
    }

    /// Behaves differently from now on. Sessions and the view stay, and so does whether there is one.
    pub fn reconfigure(&self, config: Config) {
        let bare = self.shared.directory.is_bare();
        self.shared.directory.configure(directory::Settings {
            bare,
            ..config.directory()
        });
        self.shared.schema.set(config.schema.clone().filter(|_| !bare));
        self.shared.desk.resize(config.behavior.receipts_memory);
        let mut parts = self.shared.parts.write();
        parts.limits = Limits::of(&config.behavior, parts.limits.as_deref());
        parts.config = Arc::new(config);
    }

    /// Counts a call, and says whose it is where it matters later: `caller` is asked only where calls are
    /// limited.
    ///
    /// # Errors
    /// [`Error::RateLimited`]; the call must not be made.
    pub fn admit(&self, kind: Kind, caller: impl FnOnce() -> Caller) -> Result<Option<Caller>, Error> {
        let Some(limits) = self.limits() else {
            return Ok(None);
        };
        let caller = caller();
        match limits.admit(kind, &caller) {
            Ok(()) => Ok(Some(caller)),
            Err(exceeded) => Err(self.too_often(exceeded)),
        }
    }

    pub(crate) fn limits(&self) -> Option<Arc<Limits>> {
        self.shared.parts.read().limits.clone()
    }

    /// Counts a refusal.
    pub(crate) fn too_often(&self, exceeded: Exceeded) -> Error {
        self.shared.metrics.rate_limited();
        exceeded.into()
    }

    /// Reaches the same records through another slot from now on; returns the one before.
    pub fn replace_registry(&self, registry: Arc<dyn DynRegistryStore>) -> Arc<dyn DynRegistryStore> {
        self.shared.directory.replace_store(registry.clone());
        std::mem::replace(&mut self.shared.parts.write().registry, registry)
    }

    /// Sends and listens through another slot from now on; sessions stay on the one before, which is
    /// returned.
    pub fn replace_messaging(&self, messaging: Arc<dyn DynMessaging>) -> Arc<dyn DynMessaging> {
        std::mem::replace(&mut self.shared.parts.write().messaging, messaging)
    }

    /// Stores through another slot from now on, or not at all; returns the one before. Sessions work on the one that they
    /// found, so those that are open end, and their clients open them again.
    pub fn replace_inbox(&self, inbox: Option<Arc<dyn DynDurableInbox>>) -> Option<Arc<dyn DynDurableInbox>> {
        let before = std::mem::replace(&mut self.shared.parts.write().inbox, inbox);
        // A session is among the open ones before it asks for the slot: whichever found the one before is told.
        self.shared.sessions.close_all(Closed::Reconfigured);
        before
    }

    /// Keeps the books in another ledger from now on; returns the one before.
    pub fn replace_ledger(&self, ledger: Arc<dyn DynLedger>) -> Arc<dyn DynLedger> {
        let mut parts = self.shared.parts.write();
        let books = Books::new(ledger, self.shared.runner);
        let before = std::mem::replace(&mut parts.books, books).into_ledger();
        // The other ledger has not been told yet. Whoever gets the books from now on finds that.
        self.shared.presence.changed();
        before
    }

    /// The view.
    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// How many sessions are open here.
    pub fn session_count(&self) -> usize {
        self.shared.sessions.len()
    }

    /// The registry slot.
    pub fn registry(&self) -> Arc<dyn DynRegistryStore> {
        self.shared.parts.read().registry.clone()
    }

    /// The messaging slot.
    pub fn messaging(&self) -> Arc<dyn DynMessaging> {
        self.shared.parts.read().messaging.clone()
    }

    /// The durability slot, where there is one.
    pub fn inbox(&self) -> Option<Arc<dyn DynDurableInbox>> {
        self.shared.parts.read().inbox.clone()
    }

    /// The ledger, as this runner keeps it.
    fn books(&self) -> Books {
        self.shared.parts.read().books.clone()
    }

    /// Ends every session and watch with a word that the namespace goes elsewhere. Other calls still work.
    pub fn close_sessions(&self) {
        self.shared.sessions.close_all(Closed::Draining);
        self.shared.watches.close();
    }

    /// Ends sessions, stops following, and closes the slots. Later calls fail with
    /// [`Error::Draining`] or the slots' errors.
    pub async fn close(&self) {
        self.shared.tasks.close();
        self.shared.closing.cancel();
        self.close_sessions();
        // What they have said holds; one that is not read any more is not waited for.
        let _ = tokio::time::timeout(PARTING, self.shared.sessions.empty()).await;
        self.shared.words.close();
        tokio::join!(self.shared.tasks.wait(), self.shared.words.wait());
        let deadline = Instant::now() + LAST_WORDS;
        let _ = tokio::time::timeout_at(deadline, self.end_keeping(deadline)).await;
        if let Some(inbox) = self.inbox() {
            inbox.close().await;
        }
        self.books().close().await;
        self.registry().close().await;
        self.messaging().close().await;
    }

    /// Stops everything at once, as a process does that is killed.
    #[cfg(test)]
    pub(crate) async fn end_abruptly(&self) {
        self.shared.tasks.close();
        self.shared.words.close();
        self.shared.closing.cancel();
        tokio::join!(self.shared.tasks.wait(), self.shared.words.wait());
    }

    pub(crate) fn metrics(&self) -> &NamespaceMetrics {
        &self.shared.metrics
    }

    pub(crate) fn open_for_calls(&self) -> Result<(), Error> {
        if self.shared.tasks.is_closed() {
            Err(Error::Draining)
        } else {
            Ok(())
        }
    }

    /// What a call to the registry slot carries, once the view knows the epoch.
    async fn call(&self, deadline: Instant) -> Result<Call, Error> {
        self.open_for_calls()?;
        let epoch = Some(self.shared.directory.ready(deadline).await?);
        Ok(Call { epoch, deadline })
    }

    fn epoch(&self) -> Epoch {
        self.shared.directory.head().epoch
    }
}
