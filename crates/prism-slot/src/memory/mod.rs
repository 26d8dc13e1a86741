//! The memory slots: the embedded default, and the oracle that other slots are compared with.

mod clock;
mod inbox;
mod leases;
mod ledger;
mod mailbox;
mod messaging;
mod registry;

pub use clock::{Clock, ManualClock, WallClock};
pub use inbox::MemoryInbox;
pub use ledger::MemoryLedger;
pub use messaging::MemoryMessaging;
pub use registry::MemoryRegistry;

use prism_core::config::size;

use crate::{Room, settings::size_schema};

/// Settings of the memory registry slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// How many changes the feed keeps for views that fall behind.
    #[schemars(range(min = 1))]
    pub feed_max_changes: usize,
    /// How many bytes of records the feed keeps at most.
    #[schemars(range(min = 1))]
    pub feed_max_bytes: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            feed_max_changes: 100_000,
            feed_max_bytes: 64 << 20,
        }
    }
}

/// The longest [`MessagingConfig::listener_queue`].
pub const MAX_LISTENER_QUEUE: usize = 1_000_000;

/// Settings of the memory messaging slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MessagingConfig {
    /// How many messages wait for one session before further ones are dropped and reported as a gap. A sender is told that
    /// they are not sent.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub listener_queue: usize,
    /// How many bytes of messages wait for one session before further ones are dropped and reported as a gap. A larger
    /// message still waits alone.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub listener_queue_bytes: usize,
}

impl MessagingConfig {
    fn room(&self) -> Room {
        Room {
            messages: self.listener_queue,
            bytes: self.listener_queue_bytes,
        }
    }
}

impl Default for MessagingConfig {
    fn default() -> Self {
        let Room { messages, bytes } = Room::default();
        Self {
            listener_queue: messages,
            listener_queue_bytes: bytes,
        }
    }
}

/// Settings of the memory durability slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InboxConfig {
    /// How many bytes of payload wait in all inboxes together before further messages are refused.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub max_bytes: usize,
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}
