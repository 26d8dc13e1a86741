//! Short ways to say common things.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use prism_slot::{
    Address, Call, Change, Consumer, DynDurableInbox, Enqueued, Epoch, Fetch, Holder, Identity, InboxLimits,
    Message, Mode, MulticastId, Owner, Position, Priority, Register, Registered, RegistryStore, RequestId,
    Result, Revision, Terms,
};
use prism_slot_sqlite::{Config, InboxConfig, SqliteInbox, SqliteRegistry};
use tempfile::TempDir;
use tokio::time::Instant;

pub(super) const NAMESPACE: &str = "fleet";
pub(super) const SOON: Duration = Duration::from_secs(20);
pub(super) const STORED: Enqueued = Enqueued::Stored { displaced: None };

/// A directory that goes with the value, and the file in it.
pub(super) struct Place {
    pub(super) directory: TempDir,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// In memory where there is such a place: for what says nothing about disks.
    pub(super) fn fast() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            Self::within(memory)
        } else {
            Self::new()
        }
    }

    fn within(parent: &Path) -> Self {
        let directory = tempfile::tempdir_in(parent).unwrap();
        let path = directory.path().join("prism.db");
        Self { directory, path }
    }

    /// One of the files that SQLite, or the slot, keeps beside it.
    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn registry_config(path: &Path) -> Config {
    Config {
        path: path.to_owned(),
        ..Config::default()
    }
}

pub(super) fn inbox_config(path: &Path) -> InboxConfig {
    InboxConfig::from(&registry_config(path))
}

pub(super) async fn registry(path: &Path) -> SqliteRegistry {
    SqliteRegistry::open(NAMESPACE, registry_config(path))
        .await
        .unwrap()
}

/// Inboxes that take as much as a test stores.
pub(super) fn roomy() -> InboxLimits {
    InboxLimits {
        max_messages: 1_000_000,
        ..InboxLimits::default()
    }
}

pub(super) async fn inbox(path: &Path) -> SqliteInbox {
    SqliteInbox::open(NAMESPACE, inbox_config(path), roomy())
        .await
        .unwrap()
}

pub(super) fn deadline() -> Instant {
    Instant::now() + SOON
}

/// A call that has time.
pub(super) fn call() -> Call {
    Call {
        epoch: None,
        deadline: deadline(),
    }
}

pub(super) fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

pub(super) fn request(name: &str) -> Register {
    Register {
        identity: identity(name),
        metadata: Bytes::from_static(br#"{"status":"online"}"#),
        ttl: None,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 1_000_000,
        request: RequestId::next(),
    }
}

pub(super) async fn register(slot: &SqliteRegistry, request: Register) -> Result<Registered> {
    slot.register(call(), vec![request]).await.remove(0)
}

pub(super) async fn head(slot: &SqliteRegistry) -> Position {
    slot.get(call(), identity("nobody")).await.unwrap().head
}

pub(super) async fn history(slot: &SqliteRegistry, from: Revision) -> Vec<Change> {
    let (mut changes, mut last) = (Vec::new(), from);
    loop {
        let sync = slot.sync(call(), last, 1_000).await.unwrap();
        changes.extend(sync.changes);
        last = changes.last().map_or(from, |change| change.revision);
        if !sync.more {
            return changes;
        }
    }
}

pub(super) fn address(name: &str) -> Address {
    Address {
        identity: identity(name),
        holder: Holder([1; 16]),
    }
}

pub(super) fn consumer(name: &str, session_seq: u64) -> Consumer {
    Consumer {
        address: address(name),
        epoch: Epoch(7),
        session_seq,
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    }
}

pub(super) fn everything() -> Fetch {
    Fetch {
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
        ack_timeout: Duration::from_secs(600),
        max_deliver: u32::MAX,
    }
}

pub(super) fn message(payload: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(Message::new(MulticastId::random(), payload))
}

/// Stores for one identity.
pub(super) async fn store(slot: &dyn DynDurableInbox, name: &str, message: &Arc<Message>) -> Enqueued {
    let to = [address(name)];
    slot.enqueue(&to, message.clone(), terms(), deadline())
        .await
        .remove(0)
}

/// What a new session of an identity is handed: each multicast, and which attempt it is.
pub(super) async fn delivered(
    slot: &dyn DynDurableInbox,
    name: &str,
    session_seq: u64,
) -> Vec<(MulticastId, u32)> {
    let consumer = consumer(name, session_seq);
    slot.open(&consumer, deadline()).await.unwrap();
    let fetched = slot.fetch(&consumer, everything(), deadline()).await.unwrap();
    let attempts = fetched.deliveries.iter();
    attempts
        .map(|delivery| (delivery.message.multicast, delivery.attempt))
        .collect()
}
