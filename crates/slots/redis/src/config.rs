//! The slots' settings, as an operator writes them.

mod address;
mod connection;
mod target;

use std::{path::PathBuf, time::Duration};

use connection::with_connection;
use prism_core::config::{Secret, duration_ms, duration_text, size};
use prism_slot::settings::size_schema;
use schemars::{Schema, json_schema};

pub use address::Address;
pub(crate) use target::Target;

with_connection! {
    /// Settings of the Redis registry slot.
    pub struct Config {
        /// The user of Redis's access control list, who needs `~{prefix*` and `+fcall +function|load +info
        /// +ping +client|id +cluster|info +get +set +unlink +time +@hash +@sortedset +@stream +@list`.
        /// Default none, which is Redis's user `default`.
        username,
        /// How many connections to hold, beside one that waits for changes. Default 4.
        pool_size,

        /// How many changes the feed keeps for views that fall behind. Default 100000.
        #[schemars(range(min = 1))]
        pub feed_max_changes: u64 = 100_000,
        /// How many bytes of changes the feed keeps at most. Default `64MiB`.
        #[serde(deserialize_with = "size")]
        #[schemars(schema_with = "size_schema")]
        pub feed_max_bytes: usize = 64 << 20,
        /// How long the feed keeps a change, in time during which the namespace was served. Default `1h`.
        #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
        #[schemars(schema_with = "duration_schema")]
        pub feed_max_age: Duration = Duration::from_secs(3_600),

        /// How many writes one call to Redis carries at most. Default 128.
        #[schemars(range(min = 1, max = 128))]
        pub group_max_writes: usize = 128,
        /// How many calls with writes are under way at a time; while they are, further writes gather for
        /// the next. Default 2.
        #[schemars(range(min = 1, max = 64))]
        pub group_calls: usize = 2,
        /// How many writes may wait before further ones are refused. Default 8192.
        #[schemars(range(min = 128))]
        pub queue_max_writes: usize = 8_192,
    }
}

with_connection! {
    /// Settings of the Redis durability slot.
    pub struct InboxConfig {
        /// The user of Redis's access control list, who needs `~{prefix*` and `+fcall +function|load +info
        /// +ping +client|id +cluster|info +get +set +mget +getrange +exists +unlink +time +@hash +@sortedset
        /// +@stream +@list`. Default none, which is Redis's user `default`.
        username,
        /// How many connections to hold. Default 4.
        pool_size,

        /// How many inboxes one call to Redis stores a message in at most. Default 128.
        #[schemars(range(min = 1, max = 128))]
        pub store_max_inboxes: usize = 128,
        /// How many calls of one store are under way at a time. Default 4.
        #[schemars(range(min = 1, max = 64))]
        pub store_calls: usize = 4,
    }
}

with_connection! {
    /// Settings of a ledger on Redis: those that it shares with the slot beside it.
    pub struct ConnectionConfig {
        /// The user of Redis's access control list, who needs `~{prefix*` and `+fcall +function|load +info
        /// +ping +client|id +cluster|info +get +set +getrange +exists +unlink +time +@sortedset`. Default none,
        /// which is Redis's user `default`.
        username,
        /// How many connections to hold; a ledger takes two at most. Default 4.
        pool_size,
    }
}

/// What is wrong with a configuration beyond the type of single keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidConfig {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong with it, naming it.
    pub message: String,
}

impl From<InvalidConfig> for prism_slot::Error {
    fn from(invalid: InvalidConfig) -> Self {
        crate::error::misconfigured(invalid.message)
    }
}

fn duration_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+ ?(ms|s|m|h|d|w)$" },
            { "type": "number", "minimum": 0, "description": "in milliseconds" },
        ]
    })
}

#[cfg(test)]
mod tests;
