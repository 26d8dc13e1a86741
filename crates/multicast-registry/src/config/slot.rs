//! Which backend fills which slot, in both dialects.

use prism_core::config::{Error, Path, decode_value, nearest};
use prism_slot::{MessagingCapability, RegistryCapability, Scope, memory};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    behavior::{FromSlots, Semantics},
    durability::{self, DurabilitySlot},
    index::Index,
};

/// The filled slots of a namespace.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Where records live.
    pub registry: RegistrySlot,
    /// How messages travel.
    pub messaging: MessagingSlot,
    /// Where messages wait, if they do.
    pub durability: Option<DurabilitySlot>,
}

/// The backend of a registry slot with its settings.
#[derive(Debug, Clone)]
pub enum RegistrySlot {
    /// In this process.
    Memory(memory::RegistryConfig),
    /// On Redis.
    #[cfg(feature = "redis")]
    Redis(Box<prism_slot_redis::Config>),
    /// In a file of this host.
    #[cfg(feature = "sqlite")]
    Sqlite(prism_slot_sqlite::Config),
}

/// The backend of a messaging slot with its settings.
#[derive(Debug, Clone)]
pub enum MessagingSlot {
    /// In this process.
    Memory(memory::MessagingConfig),
    /// On NATS.
    #[cfg(feature = "nats")]
    Nats(Box<prism_slot_nats::Config>),
}

impl RegistrySlot {
    /// The settings, if it is on memory.
    pub fn memory(&self) -> Option<&memory::RegistryConfig> {
        match self {
            Self::Memory(config) => Some(config),
            #[allow(unreachable_patterns)] // with no other backend built in
            _ => None,
        }
    }

    /// Whether both say exactly the same.
    pub fn same_settings(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memory(one), Self::Memory(other)) => one == other,
            #[cfg(feature = "redis")]
            (Self::Redis(one), Self::Redis(other)) => one == other,
            #[cfg(feature = "sqlite")]
            (Self::Sqlite(one), Self::Sqlite(other)) => one == other,
            #[allow(unreachable_patterns)] // with no other backend built in
            _ => false,
        }
    }

    /// What the backend can do.
    pub fn capability(&self) -> RegistryCapability {
        match self {
            Self::Memory(_) => memory::MemoryRegistry::CAPABILITY,
            #[cfg(feature = "redis")]
            Self::Redis(_) => prism_slot_redis::RedisRegistry::CAPABILITY,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => prism_slot_sqlite::SqliteRegistry::CAPABILITY,
        }
    }

    /// The canonical settings.
    pub fn settings(&self) -> Value {
        match self {
            Self::Memory(config) => json!(config),
            #[cfg(feature = "redis")]
            Self::Redis(config) => json!(config),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(config) => json!(config),
        }
    }
}

impl MessagingSlot {
    /// The settings, if it is on memory.
    pub fn memory(&self) -> Option<&memory::MessagingConfig> {
        match self {
            Self::Memory(config) => Some(config),
            #[cfg(feature = "nats")]
            Self::Nats(_) => None,
        }
    }

    /// Whether both say exactly the same.
    pub fn same_settings(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memory(one), Self::Memory(other)) => one == other,
            #[cfg(feature = "nats")]
            (Self::Nats(one), Self::Nats(other)) => one == other,
            #[allow(unreachable_patterns)] // with no other backend built in
            _ => false,
        }
    }

    /// What the backend can do.
    pub fn capability(&self) -> MessagingCapability {
        match self {
            Self::Memory(_) => memory::MemoryMessaging::CAPABILITY,
            #[cfg(feature = "nats")]
            Self::Nats(_) => prism_slot_nats::CAPABILITY,
        }
    }

    /// The canonical settings.
    pub fn settings(&self) -> Value {
        match self {
            Self::Memory(config) => json!(config),
            #[cfg(feature = "nats")]
            Self::Nats(config) => json!(config),
        }
    }
}

impl Slots {
    /// How far the weakest slot reaches.
    pub fn scope(&self) -> Scope {
        let durability = self.durability.as_ref().map(|slot| slot.capability().scope);
        self.registry
            .capability()
            .scope
            .min(self.messaging.capability().scope)
            .min(durability.unwrap_or(Scope::Shared))
    }

    pub(super) fn read(tree: &Value) -> Result<(Self, FromSlots), Error> {
        let written: Written = decode_value(tree)?;
        if written.composition.is_some() {
            let message = "composed delivery (a transactional outbox) is not available in this version";
            return Err(Error::new(Path::root().key("composition"), message));
        }
        let mut behavior = FromSlots::default();
        let registry = Declared::read("registry", written.registry.as_ref(), &mut behavior)?;
        let messaging = Declared::read("messaging", written.messaging.as_ref(), &mut behavior)?;
        let mut slots = Self {
            registry: registry_slot(&registry)?,
            messaging: messaging_slot(&messaging)?,
            durability: None,
        };
        registry.check_interfaces(slots.registry.capability().interfaces)?;
        messaging.check_interfaces(slots.messaging.capability().interfaces)?;
        slots.durability = durability::read(written.durability.as_ref(), &messaging, &mut behavior)?;
        Ok((slots, behavior))
    }

    pub(super) fn to_value(&self) -> Value {
        let (registry, messaging) = (&self.registry, &self.messaging);
        let mut tree = json!({
            "registry": { "backend": registry.capability().backend, "config": registry.settings() },
            "messaging": { "backend": messaging.capability().backend, "config": messaging.settings() },
        });
        if let Some(durability) = &self.durability {
            tree["durability"] =
                json!({ "backend": durability.capability().backend, "config": durability.settings() });
        }
        tree
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    registry: Option<Value>,
    messaging: Option<Value>,
    durability: Option<Value>,
    composition: Option<Value>,
}

/// One slot as it is written, before its settings are understood.
#[derive(Debug)]
pub(super) struct Declared {
    role: &'static str,
    pub(super) backend: String,
    backend_path: Path,
    interfaces: Vec<String>,
    pub(super) settings: Map<String, Value>,
    settings_path: Path,
}

/// The backends that the seeds and the field name and that are still to come, by role.
const PLANNED: [(&str, &[&str]); 3] = [
    ("registry", &["postgres", "etcd", "dynamodb", "mongodb"]),
    (
        "messaging",
        &["kafka", "rabbitmq", "redis-pubsub", "sns", "redis", "postgres"],
    ),
    ("durability", &["postgres", "kafka", "rabbitmq", "sqs"]),
];

/// Settings that have two names.
const ALIASES: [(&str, &str); 2] = [("address", "addr"), ("servers", "url")];

impl Declared {
    pub(super) fn read(
        role: &'static str,
        tree: Option<&Value>,
        behavior: &mut FromSlots,
    ) -> Result<Self, Error> {
        let at = Path::root().key(role);
        let mut keys = match tree {
            None | Some(Value::Null) => {
                let message = format!("missing key `{role}`: name the backend that fills this slot");
                return Err(Error::new(Path::root(), message));
            }
            Some(Value::String(backend)) => {
                let (backend_path, settings_path) = (at.clone(), at);
                let (interfaces, settings) = (Vec::new(), Map::new());
                let backend = backend.clone();
                return Ok(Self {
                    role,
                    backend,
                    backend_path,
                    interfaces,
                    settings,
                    settings_path,
                });
            }
            Some(Value::Object(keys)) => keys.clone(),
            Some(other) => {
                return Err(Error::new(
                    at,
                    format!("expected a backend's name or a mapping, found `{other}`"),
                ));
            }
        };
        let (backend_path, backend) = take_backend(&mut keys, &at)?;
        let mut take = |key: &str| keys.remove(key).map(|value| (at.clone().key(key), value));
        let interfaces = take("interfaces").map(decode::<Vec<String>>).transpose()?;
        let nested = take("config").map(decode::<Map<String, Value>>).transpose()?;
        behavior.take(role, &mut keys, &at)?;
        let (settings, settings_path) = match nested {
            Some(mut settings) => {
                if let Some(stray) = keys.keys().next() {
                    let message = format!("unknown key `{stray}`, a backend's settings belong into `config`");
                    return Err(Error::new(at.key(stray.clone()), message));
                }
                let at = at.key("config");
                behavior.take(role, &mut settings, &at)?;
                (settings, at)
            }
            None => (keys, at),
        };
        let interfaces = interfaces.unwrap_or_default();
        Ok(Self {
            role,
            backend,
            backend_path,
            interfaces,
            settings,
            settings_path,
        })
    }

    pub(super) fn check_interfaces(&self, offered: &[&str]) -> Result<(), Error> {
        let Some(missing) = self
            .interfaces
            .iter()
            .find(|name| !offered.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let path = Path::root().key(self.role).key("interfaces");
        let message = format!(
            "the backend `{}` does not offer `{missing}` in this slot, it offers `{}`",
            self.backend,
            offered.join("`, `")
        );
        Err(Error::new(path, message).suggest(nearest(missing, offered.iter().copied())))
    }

    pub(super) fn settings<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        let tree = Value::Object(self.settings.clone());
        decode_value(&tree).map_err(|error| error.within(&self.settings_path))
    }

    /// An error at one of the settings, under the name that it was written with.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        let written = [key]
            .into_iter()
            .chain(
                ALIASES
                    .iter()
                    .filter(|(name, _)| *name == key)
                    .map(|(_, alias)| *alias),
            )
            .find(|name| self.settings.contains_key(*name));
        Error::new(self.settings_path.clone().key(written.unwrap_or(key)), message)
    }

    pub(super) fn check_positive(&self, key: &str, value: usize) -> Result<(), Error> {
        if value == 0 {
            return Err(self.fault(key, "`0` is out of range, at least `1` is possible"));
        }
        Ok(())
    }

    pub(super) fn check_at_most(&self, key: &str, value: usize, most: usize) -> Result<(), Error> {
        if value > most {
            return Err(self.fault(
                key,
                format!("`{value}` is out of range, at most `{most}` is possible"),
            ));
        }
        self.check_positive(key, value)
    }

    /// The error for a backend that no arm of the caller's match knows.
    pub(super) fn unknown(&self, available: &[&str]) -> Error {
        let planned = PLANNED
            .iter()
            .find(|(role, _)| *role == self.role)
            .map_or(&[][..], |(_, names)| names);
        let (backend, role, names) = (&self.backend, self.role, available.join("`, `"));
        let error = |message| Error::new(self.backend_path.clone(), message);
        if planned.contains(&backend.as_str()) {
            return error(format!(
                "the backend `{backend}` cannot fill the {role} slot in this version, `{names}` can"
            ));
        }
        error(format!(
            "unknown backend `{backend}` for the {role} slot, `{names}` are known"
        ))
        .suggest(nearest(backend, available.iter().copied()))
    }
}

/// Takes the backend's name, which has three spellings.
fn take_backend(keys: &mut Map<String, Value>, at: &Path) -> Result<(Path, String), Error> {
    let mut found: Option<(Path, String)> = None;
    for spelling in ["backend", "driver", "type"] {
        let Some(value) = keys.remove(spelling) else {
            continue;
        };
        let path = at.clone().key(spelling);
        if let Some((_, first)) = &found {
            let message = format!("the backend is already named, it is `{first}`");
            return Err(Error::new(path, message));
        }
        found = Some((path.clone(), decode((path, value))?));
    }
    found.ok_or_else(|| Error::new(at.clone(), "missing key `backend`"))
}

/// The keys of a slot that say how the namespace behaves, not where its data is.
pub(super) fn behavior_keys(role: &str) -> &'static [&'static str] {
    match role {
        "registry" => &["ttl_default", "indexes"],
        "messaging" => &["topic_prefix", "delivery"],
        _ => &[],
    }
}

impl FromSlots {
    /// Takes the keys of one slot that say how the namespace behaves, wherever among its settings they
    /// stand.
    fn take(&mut self, role: &str, keys: &mut Map<String, Value>, at: &Path) -> Result<(), Error> {
        let mut take = |key: &str| keys.remove(key).map(|value| (at.clone().key(key), value));
        if role == "registry" {
            if let Some(ttl) = take("ttl_default") {
                let seconds = (ttl.0.clone(), decode::<Seconds>(ttl)?.0);
                once(&mut self.ttl_default, seconds)?;
            }
            if let Some(indexes) = take("indexes") {
                let indexes = (indexes.0.clone(), decode::<Vec<Index>>(indexes)?);
                once(&mut self.indexes, indexes)?;
            }
            return Ok(());
        }
        if role != "messaging" {
            return Ok(());
        }
        if let Some(prefix) = take("topic_prefix") {
            let text = (prefix.0.clone(), decode::<String>(prefix)?);
            once(&mut self.topic_prefix, text)?;
        }
        if let Some(delivery) = take("delivery") {
            let semantics = (delivery.0.clone(), decode::<Semantics>(delivery)?);
            once(&mut self.delivery, semantics)?;
        }
        Ok(())
    }
}

fn once<T>(place: &mut Option<(Path, T)>, found: (Path, T)) -> Result<(), Error> {
    if let Some((first, _)) = place {
        let message = format!("already said at `{first}`, keep one");
        return Err(Error::new(found.0, message));
    }
    *place = Some(found);
    Ok(())
}

fn decode<T: serde::de::DeserializeOwned>((path, value): (Path, Value)) -> Result<T, Error> {
    decode_value(&value).map_err(|error| error.within(&path))
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Seconds(#[serde(deserialize_with = "prism_core::config::duration_seconds")] std::time::Duration);

/// The registry backends of this build.
pub(super) const REGISTRY_BACKENDS: &[&str] = &[
    "memory",
    #[cfg(feature = "redis")]
    "redis",
    #[cfg(feature = "sqlite")]
    "sqlite",
];

/// The messaging backends of this build.
pub(super) const MESSAGING_BACKENDS: &[&str] = &[
    "memory",
    #[cfg(feature = "nats")]
    "nats",
];

fn registry_slot(declared: &Declared) -> Result<RegistrySlot, Error> {
    match declared.backend.as_str() {
        "memory" | "memstore" => {
            let config: memory::RegistryConfig = declared.settings()?;
            declared.check_positive("feed_max_changes", config.feed_max_changes)?;
            declared.check_positive("feed_max_bytes", config.feed_max_bytes)?;
            Ok(RegistrySlot::Memory(config))
        }
        #[cfg(feature = "redis")]
        "redis" => {
            let config: prism_slot_redis::Config = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(RegistrySlot::Redis(Box::new(config)))
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let config: prism_slot_sqlite::Config = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(RegistrySlot::Sqlite(config))
        }
        _ => Err(declared.unknown(REGISTRY_BACKENDS)),
    }
}

fn messaging_slot(declared: &Declared) -> Result<MessagingSlot, Error> {
    match declared.backend.as_str() {
        "memory" | "memstore" => {
            let config: memory::MessagingConfig = declared.settings()?;
            declared.check_at_most(
                "listener_queue",
                config.listener_queue,
                memory::MAX_LISTENER_QUEUE,
            )?;
            declared.check_positive("listener_queue_bytes", config.listener_queue_bytes)?;
            Ok(MessagingSlot::Memory(config))
        }
        #[cfg(feature = "nats")]
        "nats" => {
            let config: prism_slot_nats::Config = declared.settings()?;
            let valid = config.validate();
            valid.map_err(|error| declared.fault(error.key, error.message))?;
            Ok(MessagingSlot::Nats(Box::new(config)))
        }
        _ => Err(declared.unknown(MESSAGING_BACKENDS)),
    }
}

/// The backends of this build, described.
pub(super) fn backend_schemas() -> Vec<super::document::Backend> {
    use super::document::{Backend, schema_of};
    let mut backends = vec![
        Backend {
            slot: "registry",
            backend: "memory",
            names: &["memory", "memstore"],
            capability: json!(memory::MemoryRegistry::CAPABILITY),
            settings: schema_of::<memory::RegistryConfig>(),
        },
        #[cfg(feature = "redis")]
        Backend {
            slot: "registry",
            backend: "redis",
            names: &["redis"],
            capability: json!(prism_slot_redis::RedisRegistry::CAPABILITY),
            settings: with_alias(schema_of::<prism_slot_redis::Config>(), "address", "addr"),
        },
        #[cfg(feature = "sqlite")]
        Backend {
            slot: "registry",
            backend: "sqlite",
            names: &["sqlite"],
            capability: json!(prism_slot_sqlite::SqliteRegistry::CAPABILITY),
            settings: schema_of::<prism_slot_sqlite::Config>(),
        },
        Backend {
            slot: "messaging",
            backend: "memory",
            names: &["memory", "memstore"],
            capability: json!(memory::MemoryMessaging::CAPABILITY),
            settings: schema_of::<memory::MessagingConfig>(),
        },
        #[cfg(feature = "nats")]
        Backend {
            slot: "messaging",
            backend: "nats",
            names: &["nats"],
            capability: json!(prism_slot_nats::CAPABILITY),
            settings: schema_of::<prism_slot_nats::Config>(),
        },
    ];
    backends.extend(durability::backend_schemas());
    backends
}

/// Another name for a key, which a derived schema does not know.
#[cfg(feature = "redis")]
pub(super) fn with_alias(mut schema: Value, key: &str, alias: &str) -> Value {
    if let Some(properties) = schema["properties"].as_object_mut()
        && let Some(property) = properties.get(key).cloned()
    {
        properties.insert(alias.to_owned(), property);
    }
    schema
}
