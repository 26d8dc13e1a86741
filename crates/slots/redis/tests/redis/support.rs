//! Short ways to say common things.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use fred::{
    interfaces::ClientLike,
    prelude::{Builder, Client},
    types::{ClusterHash, CustomCommand, Value},
};
use prism_slot::{
    Call, Change, Epoch, Error, Identity, Mode, Owner, Position, Record, Register, Registered, RegistryStore,
    RequestId, Revision, Ttl,
};
use prism_slot_redis::{Config, RedisRegistry};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

pub(super) const NAMESPACE: &str = "fleet";
pub(super) const SOON: Duration = Duration::from_secs(10);

/// The slot's settings for a server at `addr`, with `more` on top.
pub(super) fn config(addr: SocketAddr, more: Json) -> Config {
    let mut settings = json!({ "address": addr.to_string() });
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    serde_json::from_value(settings).unwrap()
}

pub(super) async fn open(addr: SocketAddr) -> RedisRegistry {
    open_with(addr, json!({})).await
}

pub(super) async fn open_with(addr: SocketAddr, more: Json) -> RedisRegistry {
    RedisRegistry::open(NAMESPACE, config(addr, more)).await.unwrap()
}

/// A call that has time.
pub(super) fn call() -> Call {
    within(Duration::from_secs(5))
}

pub(super) fn within(limit: Duration) -> Call {
    Call {
        epoch: None,
        deadline: Instant::now() + limit,
    }
}

pub(super) fn in_epoch(epoch: Epoch) -> Call {
    Call {
        epoch: Some(epoch),
        ..call()
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

pub(super) fn leased(name: &str, millis: u64) -> Register {
    Register {
        ttl: Ttl::from_millis(millis),
        ..request(name)
    }
}

pub(super) async fn register_in(
    slot: &RedisRegistry,
    call: Call,
    request: Register,
) -> Result<Registered, Error> {
    let mut results = slot.register(call, vec![request]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

pub(super) async fn register(slot: &RedisRegistry, request: Register) -> Result<Registered, Error> {
    register_in(slot, call(), request).await
}

pub(super) async fn get(slot: &RedisRegistry, name: &str) -> Option<std::sync::Arc<Record>> {
    slot.get(call(), identity(name)).await.unwrap().record
}

pub(super) async fn head(slot: &RedisRegistry) -> Position {
    slot.get(call(), identity("nobody")).await.unwrap().head
}

/// All changes after `from`.
pub(super) async fn history(slot: &RedisRegistry, from: Revision) -> Vec<Change> {
    let (mut changes, mut last) = (Vec::new(), from);
    loop {
        let sync = slot.sync(call(), last, 1_000).await.unwrap();
        last = sync.changes.last().map_or(last, |change| change.revision);
        changes.extend(sync.changes);
        if !sync.more {
            return changes;
        }
    }
}

/// A connection of the operator's.
pub(super) struct Admin(Client);

impl Admin {
    pub(super) async fn to(addr: SocketAddr) -> Self {
        let config = fred::types::config::Config::from_url(&format!("redis://{addr}")).unwrap();
        let client = Builder::from_config(config).build().unwrap();
        client.init().await.unwrap();
        Self(client)
    }

    pub(super) async fn run(&self, words: &[&str]) -> Value {
        self.try_run(words).await.unwrap()
    }

    pub(super) async fn try_run(&self, words: &[&str]) -> Result<Value, fred::error::Error> {
        let arguments = words[1..].iter().map(|word| Value::from(*word)).collect();
        self.run_bytes(words[0], arguments).await
    }

    pub(super) async fn run_bytes(
        &self,
        command: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, fred::error::Error> {
        let command = CustomCommand::new(command, ClusterHash::Random, false);
        self.0.custom(command, arguments).await
    }

    /// A field of `INFO`.
    pub(super) async fn info(&self, section: &str, field: &str) -> String {
        let text = self.run(&["INFO", section]).await.as_string().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{field}:")));
        line.unwrap_or_else(|| panic!("no `{field}` in {text}"))[field.len() + 1..].to_owned()
    }
}

/// A key of the namespace.
pub(super) fn key(part: &str) -> String {
    format!("{{prism:{NAMESPACE}}}:registry:{part}")
}
