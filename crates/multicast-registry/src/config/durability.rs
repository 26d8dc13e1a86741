//! Which backend fills the durability slot, where one does.

use prism_core::config::{Error, Path};
use prism_slot::{InboxCapability, memory};
use serde_json::{Value, json};

use super::{
    behavior::FromSlots,
    document::{Backend, schema_of},
    slot::Declared,
};

/// The backend of a durability slot with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum DurabilitySlot {
    /// In this process.
    Memory(memory::InboxConfig),
    /// On JetStream.
    #[cfg(feature = "nats")]
    Nats(Box<prism_slot_nats::JetStreamConfig>),
    /// On Redis Streams.
    #[cfg(feature = "redis")]
    RedisStream(Box<prism_slot_redis::InboxConfig>),
    /// In a file of this host.
    #[cfg(feature = "sqlite")]
    Sqlite(prism_slot_sqlite::InboxConfig),
}

/// The durability backends of this build.
const BACKENDS: &[&str] = &[
    "memory",
    #[cfg(feature = "nats")]
    "nats",
    #[cfg(feature = "redis")]
    "redis-stream",
    #[cfg(feature = "sqlite")]
    "sqlite",
];

impl DurabilitySlot {
    /// The settings, if it is on memory.
    pub fn memory(&self) -> Option<&memory::InboxConfig> {
        match self {
            Self::Memory(config) => Some(config),
            #[allow(unreachable_patterns)] // with no other backend built in
            _ => None,
        }
    }

    /// What the backend can do.
    pub fn capability(&self) -> InboxCapability {
        match self {
            Self::Memory(_) => memory::MemoryInbox::CAPABILITY,
            #[cfg(feature = "nats")]
            Self::Nats(_) => prism_slot_nats::INBOX_CAPABILITY,
            #[cfg(feature = "redis")]
            Self::RedisStream(_) => prism_slot_redis::RedisInbox::CAPABILITY,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => prism_slot_sqlite::SqliteInbox::CAPABILITY,
        }
    }

    /// The canonical settings.
    pub fn settings(&self) -> Value {
        match self {
            Self::Memory(config) => json!(config),
            #[cfg(feature = "nats")]
            Self::Nats(config) => json!(config),
            #[cfg(feature = "redis")]
            Self::RedisStream(config) => json!(config),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(config) => json!(config),
        }
    }
}

/// Reads the slot; `None` where there is none.
pub(super) fn read(
    tree: Option<&Value>,
    messaging: &Declared,
    behavior: &mut FromSlots,
) -> Result<Option<DurabilitySlot>, Error> {
    let Some(tree) = tree.filter(|tree| !tree.is_null()) else {
        return Ok(None);
    };
    let declared = match on_messaging(tree)? {
        Some(tree) => with_backend_of(messaging, tree, behavior)?,
        None => Declared::read("durability", Some(tree), behavior)?,
    };
    let slot = slot(&declared)?;
    declared.check_interfaces(slot.capability().interfaces)?;
    Ok(Some(slot))
}

/// What is written beside `use_messaging: true`; `None` where that is not said.
fn on_messaging(tree: &Value) -> Result<Option<Value>, Error> {
    let Some(said) = tree.get("use_messaging") else {
        return Ok(None);
    };
    let at = Path::root().key("durability").key("use_messaging");
    let Some(said) = said.as_bool() else {
        return Err(Error::new(
            at,
            format!("expected `true` or `false`, found `{said}`"),
        ));
    };
    let mut tree = tree.clone();
    if let Some(keys) = tree.as_object_mut() {
        keys.remove("use_messaging");
    }
    let names_backend = ["backend", "driver", "type"]
        .iter()
        .any(|key| tree.get(key).is_some());
    match (said, names_backend) {
        (true, false) => Ok(Some(tree)),
        (true, true) => Err(Error::new(at, "the backend is already named, keep one of them")),
        (false, _) => Err(Error::new(
            at,
            "`false` says nothing: name the slot's backend, or leave `durability` out to have none",
        )),
    }
}

/// The same backend as the messaging slot's, reached in the same way.
fn with_backend_of(
    messaging: &Declared,
    mut tree: Value,
    behavior: &mut FromSlots,
) -> Result<Declared, Error> {
    let backend = messaging.backend.as_str();
    if !BACKENDS.contains(&backend) && backend != "memstore" {
        let at = Path::root().key("durability").key("use_messaging");
        let message =
            format!("`{backend}` stores no messages for consumers that are away, name another backend");
        return Err(Error::new(at, message));
    }
    if let Some(keys) = tree.as_object_mut() {
        keys.insert("backend".to_owned(), json!(backend));
    }
    let mut declared = Declared::read("durability", Some(&tree), behavior)?;
    let shared = messaging
        .settings
        .iter()
        .filter(|(key, _)| is_of_both(backend, key));
    for (key, value) in shared {
        declared
            .settings
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    Ok(declared)
}

/// Whether a setting of a messaging slot means the same for a durability slot on the same backend.
fn is_of_both(backend: &str, key: &str) -> bool {
    let settings = backend_schemas()
        .into_iter()
        .find(|known| known.backend == backend);
    settings.is_some_and(|known| known.settings["properties"].get(key).is_some())
}

fn slot(declared: &Declared) -> Result<DurabilitySlot, Error> {
    match declared.backend.as_str() {
        "memory" | "memstore" => {
            let config: memory::InboxConfig = declared.settings()?;
            declared.check_positive("max_bytes", config.max_bytes)?;
            Ok(DurabilitySlot::Memory(config))
        }
        #[cfg(feature = "nats")]
        "nats" => {
            let config: prism_slot_nats::JetStreamConfig = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(DurabilitySlot::Nats(Box::new(config)))
        }
        #[cfg(feature = "redis")]
        "redis-stream" => {
            let config: prism_slot_redis::InboxConfig = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(DurabilitySlot::RedisStream(Box::new(config)))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let config: prism_slot_sqlite::InboxConfig = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(DurabilitySlot::Sqlite(config))
        }
        _ => Err(declared.unknown(BACKENDS)),
    }
}

/// The backends of this build, described.
pub(super) fn backend_schemas() -> Vec<Backend> {
    vec![
        Backend {
            slot: "durability",
            backend: "memory",
            names: &["memory", "memstore"],
            capability: json!(memory::MemoryInbox::CAPABILITY),
            settings: schema_of::<memory::InboxConfig>(),
        },
        #[cfg(feature = "nats")]
        Backend {
            slot: "durability",
            backend: "nats",
            names: &["nats"],
            capability: json!(prism_slot_nats::INBOX_CAPABILITY),
            settings: schema_of::<prism_slot_nats::JetStreamConfig>(),
        },
        #[cfg(feature = "redis")]
        Backend {
            slot: "durability",
            backend: "redis-stream",
            names: &["redis-stream"],
            capability: json!(prism_slot_redis::RedisInbox::CAPABILITY),
            settings: super::slot::with_alias(
                schema_of::<prism_slot_redis::InboxConfig>(),
                "address",
                "addr",
            ),
        },
        #[cfg(feature = "sqlite")]
        Backend {
            slot: "durability",
            backend: "sqlite",
            names: &["sqlite"],
            capability: json!(prism_slot_sqlite::SqliteInbox::CAPABILITY),
            settings: schema_of::<prism_slot_sqlite::InboxConfig>(),
        },
    ]
}
