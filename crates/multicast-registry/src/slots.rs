//! Opens the backends that a namespace's configuration names.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use prism_slot::{
    Applied, DynDurableInbox, DynLedger, DynMessaging, DynRegistryStore, Error, InboxLimits,
    LedgerCapability, Result, memory,
};
use tokio_util::task::TaskTracker;

use crate::{
    config::{DurabilitySlot, MessagingSlot, Namespace, RegistrySlot},
    coordinator::Durability,
    late::Late,
};

/// How long opening a backend may take before the namespace is served without it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// An open registry slot.
#[derive(Clone)]
pub struct OpenRegistry {
    /// The slot.
    pub slot: Arc<dyn DynRegistryStore>,
    memory: Option<Arc<memory::MemoryRegistry>>,
}

/// An open messaging slot.
#[derive(Clone)]
pub struct OpenMessaging {
    /// The slot.
    pub slot: Arc<dyn DynMessaging>,
    memory: Option<Arc<memory::MemoryMessaging>>,
}

/// An open durability slot.
#[derive(Clone)]
pub struct OpenInbox {
    /// The slot, where the namespace has one.
    pub slot: Option<Arc<dyn DynDurableInbox>>,
    memory: Option<Arc<memory::MemoryInbox>>,
}

/// Opens the registry slot of a namespace. Where its backend does not answer, the slot is opened
/// later by a task on `tasks`, which ends when the slot is closed.
///
/// # Errors
/// The backend answers and cannot be used as it is set up.
pub async fn open_registry(namespace: &Namespace, tasks: &TaskTracker) -> Result<OpenRegistry> {
    if let Some(config) = namespace.slots.registry.memory() {
        let opened = Arc::new(memory::MemoryRegistry::new(config.clone()));
        return Ok(OpenRegistry {
            slot: opened.clone(),
            memory: Some(opened),
        });
    }
    let capability = namespace.slots.registry.capability();
    let error = match within(capability.backend, connect_registry(namespace)).await {
        Ok(slot) => return Ok(OpenRegistry { slot, memory: None }),
        Err(error @ Error::Misconfigured { .. }) => return Err(error),
        Err(error) => error,
    };
    tracing::error!(namespace = namespace.name, %error, "the registry backend does not answer, going on without it");
    let late = Late::new(capability.clone(), capability.backend, error);
    let (opening, namespace) = (late.clone(), namespace.clone());
    tasks.spawn(async move {
        opening
            .run(|| within(capability.backend, connect_registry(&namespace)))
            .await;
    });
    Ok(OpenRegistry {
        slot: Arc::new(late),
        memory: None,
    })
}

/// Opens the messaging slot of a namespace, as [`open_registry`] does.
///
/// # Errors
/// The broker answers and cannot be used as it is set up.
pub async fn open_messaging(namespace: &Namespace, tasks: &TaskTracker) -> Result<OpenMessaging> {
    if let Some(config) = namespace.slots.messaging.memory() {
        let opened = Arc::new(memory::MemoryMessaging::new(config.clone()));
        return Ok(OpenMessaging {
            slot: opened.clone(),
            memory: Some(opened),
        });
    }
    let capability = namespace.slots.messaging.capability();
    let error = match within(capability.backend, connect_messaging(namespace)).await {
        Ok(slot) => return Ok(OpenMessaging { slot, memory: None }),
        Err(error @ Error::Misconfigured { .. }) => return Err(error),
        Err(error) => error,
    };
    tracing::error!(namespace = namespace.name, %error, "the messaging backend does not answer, going on without it");
    let late = Late::new(capability.clone(), capability.backend, error);
    let (opening, namespace) = (late.clone(), namespace.clone());
    tasks.spawn(async move {
        opening
            .run(|| within(capability.backend, connect_messaging(&namespace)))
            .await;
    });
    Ok(OpenMessaging {
        slot: Arc::new(late),
        memory: None,
    })
}

/// Opens the durability slot of a namespace, if it has one, as [`open_registry`] does.
///
/// # Errors
/// The backend answers and cannot be used as it is set up.
pub async fn open_inbox(
    namespace: &Namespace,
    limits: InboxLimits,
    tasks: &TaskTracker,
) -> Result<OpenInbox> {
    let slot = namespace.slots.durability.as_ref();
    if let Some(config) = slot.and_then(DurabilitySlot::memory) {
        let opened = Arc::new(memory::MemoryInbox::new(config.clone(), limits));
        return Ok(OpenInbox {
            slot: Some(opened.clone()),
            memory: Some(opened),
        });
    }
    let slot = match slot {
        None => None,
        Some(slot) => Some(open_far_inbox(namespace, slot, limits, tasks).await?),
    };
    Ok(OpenInbox { slot, memory: None })
}

async fn open_far_inbox(
    namespace: &Namespace,
    slot: &DurabilitySlot,
    limits: InboxLimits,
    tasks: &TaskTracker,
) -> Result<Arc<dyn DynDurableInbox>> {
    let capability = slot.capability();
    let error = match within(capability.backend, connect_inbox(namespace, slot, limits)).await {
        Ok(slot) => return Ok(slot),
        Err(error @ Error::Misconfigured { .. }) => return Err(error),
        Err(error) => error,
    };
    tracing::error!(namespace = namespace.name, %error, "the durability backend does not answer, going on without it");
    let late = Late::new(capability.clone(), capability.backend, error);
    let (opening, namespace, slot) = (late.clone(), namespace.clone(), slot.clone());
    tasks.spawn(async move {
        opening
            .run(|| within(capability.backend, connect_inbox(&namespace, &slot, limits)))
            .await;
    });
    Ok(Arc::new(late))
}

/// Opens the ledger of a namespace, as [`open_registry`] does. It is beside the durability slot, else beside the registry
/// slot, else in memory.
///
/// # Errors
/// The backend answers and cannot be used as it is set up.
pub async fn open_ledger(namespace: &Namespace, tasks: &TaskTracker) -> Result<Arc<dyn DynLedger>> {
    let place = LedgerPlace::of(namespace);
    let capability = place.capability();
    let error = match within(capability.backend, place.connect(&namespace.name)).await {
        Ok(ledger) => return Ok(ledger),
        Err(error @ Error::Misconfigured { .. }) => return Err(error),
        Err(error) => error,
    };
    tracing::error!(namespace = namespace.name, %error, "the ledger does not answer, going on without it");
    let late = Late::new(capability.clone(), capability.backend, error);
    let (opening, name) = (late.clone(), namespace.name.clone());
    tasks.spawn(async move {
        opening
            .run(|| within(capability.backend, place.connect(&name)))
            .await;
    });
    Ok(Arc::new(late))
}

/// Whether the ledgers of both are in the same place, and reached in the same way.
pub fn same_ledger(one: &Namespace, other: &Namespace) -> bool {
    LedgerPlace::of(one) == LedgerPlace::of(other)
}

/// Where the ledger of a namespace is, and how it is reached.
#[derive(PartialEq)]
enum LedgerPlace {
    /// In this process.
    Memory,
    #[cfg(feature = "nats")]
    Nats(prism_slot_nats::JetStreamConfig),
    #[cfg(feature = "redis")]
    Redis(prism_slot_redis::ConnectionConfig),
    #[cfg(feature = "sqlite")]
    Sqlite(prism_slot_sqlite::InboxConfig),
}

impl LedgerPlace {
    /// Beside the durability slot, else beside the registry slot.
    fn of(namespace: &Namespace) -> Self {
        match &namespace.slots.durability {
            #[cfg(feature = "nats")]
            Some(DurabilitySlot::Nats(config)) => return Self::Nats((**config).clone()),
            #[cfg(feature = "redis")]
            Some(DurabilitySlot::RedisStream(config)) => return Self::Redis(config.connection()),
            #[cfg(feature = "sqlite")]
            Some(DurabilitySlot::Sqlite(config)) => return Self::Sqlite(config.clone()),
            Some(DurabilitySlot::Memory(_)) | None => {}
        }
        match &namespace.slots.registry {
            #[cfg(feature = "redis")]
            RegistrySlot::Redis(config) => Self::Redis(config.connection()),
            #[cfg(feature = "sqlite")]
            RegistrySlot::Sqlite(config) => Self::Sqlite(config.into()),
            RegistrySlot::Memory(_) => Self::Memory,
        }
    }

    fn capability(&self) -> LedgerCapability {
        match self {
            Self::Memory => memory::MemoryLedger::CAPABILITY,
            #[cfg(feature = "nats")]
            Self::Nats(_) => prism_slot_nats::LEDGER_CAPABILITY,
            #[cfg(feature = "redis")]
            Self::Redis(_) => prism_slot_redis::RedisLedger::CAPABILITY,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => prism_slot_sqlite::SqliteLedger::CAPABILITY,
        }
    }

    #[cfg_attr(
        not(any(feature = "nats", feature = "redis", feature = "sqlite")),
        allow(unused_variables)
    )]
    fn connect<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, Result<Arc<dyn DynLedger>>> {
        Box::pin(async move {
            let ledger: Arc<dyn DynLedger> = match self {
                Self::Memory => Durability::none().ledger,
                #[cfg(feature = "nats")]
                Self::Nats(config) => {
                    Arc::new(prism_slot_nats::JetStreamLedger::open(namespace, config.clone()).await?)
                }
                #[cfg(feature = "redis")]
                Self::Redis(config) => {
                    Arc::new(prism_slot_redis::RedisLedger::open(namespace, config.clone()).await?)
                }
                #[cfg(feature = "sqlite")]
                Self::Sqlite(config) => {
                    Arc::new(prism_slot_sqlite::SqliteLedger::open(namespace, config.clone()).await?)
                }
            };
            Ok(ledger)
        })
    }
}

/// What the ledger of a namespace can do.
pub fn ledger_capability(namespace: &Namespace) -> LedgerCapability {
    LedgerPlace::of(namespace).capability()
}

#[cfg_attr(
    not(any(feature = "nats", feature = "redis", feature = "sqlite")),
    allow(unused_variables)
)]
fn connect_inbox<'a>(
    namespace: &'a Namespace,
    slot: &'a DurabilitySlot,
    limits: InboxLimits,
) -> BoxFuture<'a, Result<Arc<dyn DynDurableInbox>>> {
    Box::pin(async move {
        let slot: Arc<dyn DynDurableInbox> = match slot {
            DurabilitySlot::Memory(config) => Arc::new(memory::MemoryInbox::new(config.clone(), limits)),
            #[cfg(feature = "nats")]
            DurabilitySlot::Nats(config) => {
                let config = (**config).clone();
                Arc::new(prism_slot_nats::JetStreamInbox::open(&namespace.name, config, limits).await?)
            }
            #[cfg(feature = "redis")]
            DurabilitySlot::RedisStream(config) => {
                let config = (**config).clone();
                Arc::new(prism_slot_redis::RedisInbox::open(&namespace.name, config, limits).await?)
            }
            #[cfg(feature = "sqlite")]
            DurabilitySlot::Sqlite(config) => {
                Arc::new(prism_slot_sqlite::SqliteInbox::open(&namespace.name, config.clone(), limits).await?)
            }
        };
        Ok(slot)
    })
}

impl OpenInbox {
    /// As [`OpenRegistry::takes`].
    pub fn takes(&self, slot: Option<&DurabilitySlot>) -> bool {
        self.memory.is_some() && slot.is_some_and(|slot| slot.memory().is_some())
    }

    /// As [`OpenRegistry::retune`]. Limits are applied apart from this.
    pub fn retune(&self, slot: Option<&DurabilitySlot>) {
        if let (Some(memory), Some(config)) = (&self.memory, slot.and_then(DurabilitySlot::memory)) {
            memory.retune(config);
        }
    }
}

impl OpenRegistry {
    /// Whether these settings are applied in place, because the slot is one that must not be opened twice.
    pub fn takes(&self, slot: &RegistrySlot) -> bool {
        self.memory.is_some() && slot.memory().is_some()
    }

    /// Applies settings where [`Self::takes`] says so. Cannot fail.
    pub fn retune(&self, slot: &RegistrySlot) {
        if let (Some(memory), Some(config)) = (&self.memory, slot.memory()) {
            memory.configure(config);
        }
    }
}

impl OpenMessaging {
    /// As [`OpenRegistry::takes`].
    pub fn takes(&self, slot: &MessagingSlot) -> bool {
        self.memory.is_some() && slot.memory().is_some()
    }

    /// As [`OpenRegistry::retune`].
    pub fn retune(&self, slot: &MessagingSlot) {
        if let (Some(memory), Some(config)) = (&self.memory, slot.memory()) {
            memory.configure(config);
        }
    }
}

async fn within<T>(backend: &'static str, open: impl Future<Output = Result<T>>) -> Result<T> {
    let late = Error::Timeout {
        backend,
        applied: Applied::No,
    };
    tokio::time::timeout(OPEN_TIMEOUT, open)
        .await
        .unwrap_or(Err(late))
}

/// Boxed: a backend's way of connecting is deep, and is walked once.
fn connect_registry(namespace: &Namespace) -> BoxFuture<'_, Result<Arc<dyn DynRegistryStore>>> {
    Box::pin(async move {
        let slot: Arc<dyn DynRegistryStore> = match &namespace.slots.registry {
            RegistrySlot::Memory(config) => Arc::new(memory::MemoryRegistry::new(config.clone())),
            #[cfg(feature = "redis")]
            RegistrySlot::Redis(config) => {
                let config = (**config).clone();
                Arc::new(prism_slot_redis::RedisRegistry::open(&namespace.name, config).await?)
            }
            #[cfg(feature = "sqlite")]
            RegistrySlot::Sqlite(config) => {
                Arc::new(prism_slot_sqlite::SqliteRegistry::open(&namespace.name, config.clone()).await?)
            }
        };
        Ok(slot)
    })
}

fn connect_messaging(namespace: &Namespace) -> BoxFuture<'_, Result<Arc<dyn DynMessaging>>> {
    Box::pin(async move {
        let slot: Arc<dyn DynMessaging> = match &namespace.slots.messaging {
            MessagingSlot::Memory(config) => Arc::new(memory::MemoryMessaging::new(config.clone())),
            #[cfg(feature = "nats")]
            MessagingSlot::Nats(config) => {
                let (prefix, config) = (&namespace.behavior.topic_prefix, (**config).clone());
                Arc::new(prism_slot_nats::NatsMessaging::open(&namespace.name, prefix, config).await?)
            }
        };
        Ok(slot)
    })
}

/// What identifies the data behind a registry slot: as long as it is equal, so is the data.
pub fn registry_identity(slot: &RegistrySlot) -> String {
    match slot {
        RegistrySlot::Memory(_) => "memory".to_owned(),
        #[cfg(feature = "redis")]
        RegistrySlot::Redis(config) => match config.identity() {
            Ok(identity) => format!("redis {identity}"),
            // It could not be opened either.
            Err(error) => format!("redis {error}"),
        },
        #[cfg(feature = "sqlite")]
        RegistrySlot::Sqlite(config) => format!("sqlite {}", config.identity()),
    }
}

/// What identifies the inboxes behind a durability slot.
pub fn durability_identity(slot: Option<&DurabilitySlot>) -> String {
    match slot {
        None => "none".to_owned(),
        Some(DurabilitySlot::Memory(_)) => "memory".to_owned(),
        #[cfg(feature = "nats")]
        Some(DurabilitySlot::Nats(config)) => match config.identity() {
            Ok(identity) => format!("nats {identity}"),
            Err(error) => format!("nats {error}"),
        },
        #[cfg(feature = "redis")]
        Some(DurabilitySlot::RedisStream(config)) => match config.identity() {
            Ok(identity) => format!("redis-stream {identity}"),
            Err(error) => format!("redis-stream {error}"),
        },
        #[cfg(feature = "sqlite")]
        Some(DurabilitySlot::Sqlite(config)) => format!("sqlite {}", config.identity()),
    }
}

/// What identifies the topics behind a messaging slot.
#[cfg_attr(not(feature = "nats"), allow(unused_variables))]
pub fn messaging_identity(slot: &MessagingSlot, topic_prefix: &str) -> String {
    match slot {
        MessagingSlot::Memory(_) => "memory".to_owned(),
        #[cfg(feature = "nats")]
        MessagingSlot::Nats(config) => format!("nats {:?} {topic_prefix}", config.servers),
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use serde_json::json;

    use super::*;

    /// What identifies the data does not change with how it is reached, and a topic is data.
    #[test]
    fn an_identity_is_that_of_the_data() {
        let slots = |messaging| json!({ "slots": { "registry": "memory", "messaging": messaging } });
        let identity = |messaging| {
            let namespace = Namespace::read(None, &slots(messaging)).unwrap();
            messaging_identity(&namespace.slots.messaging, &namespace.behavior.topic_prefix)
        };
        let here = identity(json!({ "backend": "nats", "config": { "servers": "nats://a" } }));
        let tuned = json!({ "backend": "nats", "config": { "servers": "nats://a", "connections": 2, "timeout": "1s" } });
        assert_eq!(here, identity(tuned));
        let moved = json!({ "backend": "nats", "config": { "servers": "nats://b" } });
        assert_ne!(here, identity(moved));
        let renamed = json!({ "backend": "nats", "topic_prefix": "x", "config": { "servers": "nats://a" } });
        assert_ne!(here, identity(renamed));
    }
}
