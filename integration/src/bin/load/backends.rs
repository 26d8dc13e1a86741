//! What carries or stores the messages of a multicast.

use std::sync::Arc;

use anyhow::{Context, Result};
use multicast_registry::Durability;
use prism_slot::{
    DynMessaging, InboxLimits,
    memory::{MemoryMessaging, MessagingConfig},
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox, JetStreamLedger, NatsMessaging};
use prism_slot_redis::{InboxConfig, RedisInbox, RedisLedger};
use prism_slot_sqlite::{SqliteInbox, SqliteLedger};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::json;
use tempfile::TempDir;

pub(crate) const NAMESPACE: &str = "load";
/// What topics begin with.
pub(crate) const PREFIX: &str = "curve";

/// The slots, and what they need to live.
pub(crate) struct Backend {
    pub(crate) messaging: Arc<dyn DynMessaging>,
    /// Where messages are stored, if they are.
    pub(crate) durability: Option<Durability>,
    pub(crate) nats: Option<NatsServer>,
    _redis: Option<RedisServer>,
    _directory: Option<TempDir>,
}

fn limits() -> InboxLimits {
    InboxLimits {
        max_messages: 1_000_000,
        ..InboxLimits::default()
    }
}

impl Backend {
    pub(crate) fn memory() -> Self {
        Self {
            messaging: Arc::new(MemoryMessaging::new(MessagingConfig::default())),
            durability: None,
            nats: None,
            _redis: None,
            _directory: None,
        }
    }

    pub(crate) async fn nats() -> Result<Self> {
        let server = NatsServer::start().await?;
        let config = serde_json::from_value(json!({ "servers": [server.url()] }))?;
        let messaging = NatsMessaging::open(NAMESPACE, PREFIX, config).await?;
        Ok(Self {
            messaging: Arc::new(messaging),
            nats: Some(server),
            ..Self::memory()
        })
    }

    pub(crate) async fn jetstream() -> Result<Self> {
        let server = NatsServer::start_with_jetstream().await?;
        let config: JetStreamConfig = serde_json::from_value(json!({ "servers": [server.url()] }))?;
        let inbox = JetStreamInbox::open(NAMESPACE, config.clone(), limits()).await?;
        let ledger = JetStreamLedger::open(NAMESPACE, config).await?;
        Ok(Self {
            durability: Some(Durability {
                inbox: Some(Arc::new(inbox)),
                ledger: Arc::new(ledger),
            }),
            nats: Some(server),
            ..Self::memory()
        })
    }

    pub(crate) async fn redis_streams() -> Result<Self> {
        let server = RedisServer::start().await?;
        let config: InboxConfig = serde_json::from_value(json!({ "address": server.addr().to_string() }))?;
        let ledger = RedisLedger::open(NAMESPACE, config.connection()).await?;
        let inbox = RedisInbox::open(NAMESPACE, config, limits()).await?;
        Ok(Self {
            durability: Some(Durability {
                inbox: Some(Arc::new(inbox)),
                ledger: Arc::new(ledger),
            }),
            _redis: Some(server),
            ..Self::memory()
        })
    }

    pub(crate) async fn sqlite() -> Result<Self> {
        let directory = tempfile::tempdir().context("no directory for the file")?;
        let config = serde_json::from_value(json!({ "path": directory.path().join("load.db") }))?;
        let config: prism_slot_sqlite::InboxConfig = config;
        let inbox = SqliteInbox::open(NAMESPACE, config.clone(), limits()).await?;
        let ledger = SqliteLedger::open(NAMESPACE, config).await?;
        Ok(Self {
            durability: Some(Durability {
                inbox: Some(Arc::new(inbox)),
                ledger: Arc::new(ledger),
            }),
            _directory: Some(directory),
            ..Self::memory()
        })
    }
}
