//! The slot's settings, as an operator writes them.

mod address;
mod number;
mod target;

use std::{path::PathBuf, time::Duration};

use prism_core::config::{Secret, duration_ms, format_duration, size};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize, Serializer};

pub use address::Address;
use number::{optional_whole, whole};
pub(crate) use target::Target;

/// Settings of the Redis registry slot.
///
/// Where the data is, is said by `address` (or `host` and `port`, or `addresses` of a cluster), `db` and
/// `prefix`. Durations are texts like `500ms` or `5s`, or numbers of milliseconds. Sizes are texts
/// like `64MiB`, or numbers of bytes. Shown and written without secrets.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where Redis listens: `host`, `host:port`, or a URL like `redis://user:password@host:port/db`,
    /// with `rediss://` for TLS. Default `localhost:6379`.
    #[serde(alias = "addr")]
    pub address: Option<Address>,
    /// Another way to write `address`, with or without a port. Default none.
    pub host: Option<Address>,
    /// The port that belongs to `host`, or to an `address` without one. Default 6379.
    #[serde(deserialize_with = "optional_whole")]
    pub port: Option<u16>,
    /// Some nodes of a cluster, from which the others are found. Needs `cluster`. Default none.
    pub addresses: Vec<Address>,
    /// Whether this is a Redis Cluster. Default false.
    pub cluster: bool,
    /// The user of Redis's access control list, who needs `~{prefix*` and `+fcall +function|load +info
    /// +ping +client|id +cluster|info +get +set +unlink +time +@hash +@sortedset +@stream +@list`.
    /// Default none, which is Redis's user `default`.
    pub username: Option<String>,
    /// The password. Default none.
    #[schemars(with = "String")]
    pub password: Secret,
    /// The number of the database; a cluster has only 0. Default 0.
    #[serde(deserialize_with = "optional_whole")]
    pub db: Option<u8>,
    /// What the names of all keys begin with, inside their hash tag. Default `prism:`.
    pub prefix: String,
    /// Whether to speak TLS. Default false, or true for an address with `rediss://`.
    pub tls: bool,
    /// A PEM file with the certificates of the authorities to trust with `tls`. Default the system's.
    pub ca_file: Option<PathBuf>,

    /// How often a call that certainly had no effect is tried again, within its deadline. Default 3.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(max = 100))]
    pub max_retries: u32,
    /// How many connections to hold, beside one that waits for changes. Default 4.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 256))]
    pub pool_size: usize,
    /// How long connecting may take, with TLS and authentication. Default `5s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "as_text")]
    #[schemars(schema_with = "duration_schema")]
    pub dial_timeout: Duration,
    /// How long to wait for a reply before the connection is given up and its calls fail. Default
    /// `1500ms`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "as_text")]
    #[schemars(schema_with = "duration_schema")]
    pub read_timeout: Duration,
    /// How long what was written may stay unacknowledged by the peer's TCP before the connection is
    /// given up. Default `3s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "as_text")]
    #[schemars(schema_with = "duration_schema")]
    pub write_timeout: Duration,
    /// How long a call waits for a connection while none is up. Default `1s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "as_text")]
    #[schemars(schema_with = "duration_schema")]
    pub pool_timeout: Duration,

    /// How many changes the feed keeps for views that fall behind. Default 100000.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = 1))]
    pub feed_max_changes: u64,
    /// How many bytes of changes the feed keeps at most. Default `64MiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub feed_max_bytes: usize,
    /// How long the feed keeps a change, in time during which the namespace was served. Default `1h`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "as_text")]
    #[schemars(schema_with = "duration_schema")]
    pub feed_max_age: Duration,

    /// How many writes one call to Redis carries at most. Default 128.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 128))]
    pub group_max_writes: usize,
    /// How many calls with writes are under way at a time; while they are, further writes gather for
    /// the next. Default 2.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = 1, max = 64))]
    pub group_calls: usize,
    /// How many writes may wait before further ones are refused. Default 8192.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = 128))]
    pub queue_max_writes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: None,
            host: None,
            port: None,
            addresses: Vec::new(),
            cluster: false,
            username: None,
            password: Secret::default(),
            db: None,
            prefix: "prism:".to_owned(),
            tls: false,
            ca_file: None,
            max_retries: 3,
            pool_size: 4,
            dial_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_millis(1_500),
            write_timeout: Duration::from_secs(3),
            pool_timeout: Duration::from_secs(1),
            feed_max_changes: 100_000,
            feed_max_bytes: 64 << 20,
            feed_max_age: Duration::from_secs(3_600),
            group_max_writes: 128,
            group_calls: 2,
            queue_max_writes: 8_192,
        }
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

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

fn duration_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+ ?(ms|s|m|h|d|w)$" },
            { "type": "number", "minimum": 0, "description": "in milliseconds" },
        ]
    })
}

fn size_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+ ?(B|[KMG]i?B?)?$" },
            { "type": "integer", "minimum": 1, "description": "in bytes" },
        ]
    })
}

#[cfg(test)]
mod tests;
