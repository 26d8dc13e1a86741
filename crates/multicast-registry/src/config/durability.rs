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
}

/// The durability backends of this build.
const BACKENDS: &[&str] = &["memory"];

impl DurabilitySlot {
    /// The settings, if it is on memory.
    pub fn memory(&self) -> Option<&memory::InboxConfig> {
        match self {
            Self::Memory(config) => Some(config),
        }
    }

    /// As it is written in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
        }
    }

    /// What the backend can do.
    pub fn capability(&self) -> InboxCapability {
        match self {
            Self::Memory(_) => memory::MemoryInbox::CAPABILITY,
        }
    }

    /// The canonical settings.
    pub fn settings(&self) -> Value {
        match self {
            Self::Memory(config) => json!(config),
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
    if !said {
        return Err(Error::new(
            at,
            "to have no durability slot, leave `durability` out; else name its backend",
        ));
    }
    if ["backend", "driver", "type"]
        .iter()
        .any(|key| tree.get(key).is_some())
    {
        return Err(Error::new(at, "the backend is already named, keep one of them"));
    }
    Ok(Some(tree))
}

/// The same backend as the messaging slot's, reached in the same way.
fn with_backend_of(
    messaging: &Declared,
    mut tree: Value,
    behavior: &mut FromSlots,
) -> Result<Declared, Error> {
    let backend = messaging.backend.as_str();
    if let Some(keys) = tree.as_object_mut() {
        keys.insert("backend".to_owned(), json!(backend));
    }
    let mut declared = Declared::read("durability", Some(&tree), behavior)?;
    for (key, value) in &messaging.settings {
        if reaches(backend, key) {
            declared
                .settings
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
    }
    Ok(declared)
}

/// Whether a setting of a messaging slot says how the backend is reached, and so holds for a durability slot on it.
fn reaches(_backend: &str, _key: &str) -> bool {
    false
}

fn slot(declared: &Declared) -> Result<DurabilitySlot, Error> {
    match declared.backend.as_str() {
        "memory" | "memstore" => {
            let config: memory::InboxConfig = declared.settings()?;
            let most = usize::try_from(config.max_bytes).unwrap_or(usize::MAX);
            declared.check_positive("max_bytes", most)?;
            Ok(DurabilitySlot::Memory(config))
        }
        _ => Err(declared.unknown(BACKENDS)),
    }
}

/// The backends of this build, described.
pub(super) fn backend_schemas() -> Vec<Backend> {
    vec![Backend {
        slot: "durability",
        backend: "memory",
        names: &["memory", "memstore"],
        capability: json!(memory::MemoryInbox::CAPABILITY),
        settings: schema_of::<memory::InboxConfig>(),
    }]
}
