//! Which backends fill the slots, and what these can do.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Result, anyhow};
use multicast_registry::{config::Namespace, slots::ledger_capability};
use prism_slot::{InboxCapability, LedgerCapability, MessagingCapability, RegistryCapability, Scope};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Backends that fill the slots of a namespace together.
pub(crate) struct Combination {
    pub(crate) name: &'static str,
    registry: &'static str,
    messaging: &'static str,
    durability: Option<&'static str>,
}

const fn of(
    name: &'static str,
    registry: &'static str,
    messaging: &'static str,
    durability: Option<&'static str>,
) -> Combination {
    Combination {
        name,
        registry,
        messaging,
        durability,
    }
}

/// Every backend, in every slot that it can fill.
pub(crate) const ALL: &[Combination] = &[
    of("memory", "memory", "memory", Some("memory")),
    of("redis+nats", "redis", "nats", None),
    of("redis+nats+jetstream", "redis", "nats", Some("nats")),
    of("redis+nats+redis-stream", "redis", "nats", Some("redis-stream")),
    of("sqlite+memory+sqlite", "sqlite", "memory", Some("sqlite")),
    of("sqlite+nats+sqlite", "sqlite", "nats", Some("sqlite")),
];

/// What the slots of a combination can do.
pub(crate) struct Slots {
    pub(crate) registry: RegistryCapability,
    pub(crate) messaging: MessagingCapability,
    pub(crate) durability: Option<InboxCapability>,
    pub(crate) ledger: LedgerCapability,
}

impl Slots {
    /// Whether messages can be stored.
    pub(crate) fn store(&self) -> bool {
        self.durability.is_some()
    }

    /// Whether the durability slot says what became of what it gave up.
    pub(crate) fn tell_losses(&self) -> bool {
        self.durability.as_ref().is_some_and(|slot| slot.tells_losses)
    }

    /// Whether several runners serve a namespace at once.
    pub(crate) fn are_shared(&self) -> bool {
        let durability = self.durability.as_ref().map_or(Scope::Shared, |slot| slot.scope);
        self.registry.scope.min(self.messaging.scope).min(durability) == Scope::Shared
    }

    /// The largest payload that every slot takes.
    pub(crate) fn max_payload(&self) -> usize {
        let durability = self
            .durability
            .as_ref()
            .map_or(usize::MAX, |slot| slot.max_payload);
        self.messaging.max_payload.min(durability)
    }
}

/// The servers behind a combination, and a folder for files.
pub(crate) struct Servers {
    redis: Option<RedisServer>,
    nats: Option<NatsServer>,
    directory: TempDir,
}

/// Where the data of a combination is.
struct Places {
    redis: SocketAddr,
    nats: SocketAddr,
    file: PathBuf,
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl Servers {
    fn places(&self) -> Places {
        Places {
            redis: self.redis.as_ref().map_or(NOWHERE, RedisServer::addr),
            nats: self.nats.as_ref().map_or(NOWHERE, NatsServer::addr),
            file: self.directory.path().join("prism.db"),
        }
    }
}

impl Combination {
    fn uses(&self, backends: &[&str]) -> bool {
        let all = [self.registry, self.messaging].into_iter().chain(self.durability);
        all.into_iter().any(|backend| backends.contains(&backend))
    }

    /// Starts the servers that it needs.
    pub(crate) async fn start_servers(&self) -> Result<Servers> {
        let redis = async {
            match self.uses(&["redis", "redis-stream"]) {
                true => RedisServer::start().await.map(Some),
                false => Ok(None),
            }
        };
        let nats = async {
            match self.uses(&["nats"]) {
                true => NatsServer::start_with_jetstream().await.map(Some),
                false => Ok(None),
            }
        };
        let (redis, nats) = tokio::try_join!(redis, nats)?;
        Ok(Servers {
            redis,
            nats,
            directory: tempfile::tempdir()?,
        })
    }

    /// A namespace on these servers.
    pub(crate) fn namespace(&self, name: &str, servers: &Servers) -> Value {
        self.namespace_at(name, &servers.places())
    }

    fn namespace_at(&self, name: &str, places: &Places) -> Value {
        let slot = |backend: &str| {
            let settings = match backend {
                "redis" | "redis-stream" => json!({ "address": places.redis.to_string(), "pool_size": 1 }),
                "nats" => json!({ "servers": [format!("nats://{}", places.nats)] }),
                "sqlite" => json!({ "path": places.file }),
                _ => json!({}),
            };
            json!({ "backend": backend, "config": settings })
        };
        let mut slots = json!({ "registry": slot(self.registry), "messaging": slot(self.messaging) });
        if let Some(backend) = self.durability {
            slots["durability"] = slot(backend);
        }
        json!({ "name": name, "pattern": "multicast-registry", "slots": slots })
    }

    /// What its slots declare.
    pub(crate) fn capabilities(&self) -> Result<Slots> {
        let places = Places {
            redis: NOWHERE,
            nats: NOWHERE,
            file: "prism.db".into(),
        };
        let namespace =
            Namespace::read(None, &self.namespace_at("any", &places)).map_err(|error| anyhow!("{error}"))?;
        Ok(Slots {
            registry: namespace.slots.registry.capability(),
            messaging: namespace.slots.messaging.capability(),
            durability: namespace.slots.durability.as_ref().map(|slot| slot.capability()),
            ledger: ledger_capability(&namespace),
        })
    }
}
