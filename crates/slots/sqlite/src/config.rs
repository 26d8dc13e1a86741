//! The slots' settings, as an operator writes them.

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use prism_core::config::{duration_ms, duration_text, optional_size, size};
use prism_slot::{Error, settings::size_schema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The least that `max_size` may be: enough for the tables and a few records.
const LEAST_SIZE: usize = 256 << 10;
/// The least memory to keep pages in.
const LEAST_CACHE: usize = 64 << 10;

/// Settings of the SQLite registry slot.
///
/// Only `path` is required. Durations are texts like `500ms` or `1h`, or numbers of milliseconds. Sizes are texts like
/// `64MiB`, or numbers of bytes. Where several slots are in one file, the `cache_size` and the `max_size` of the one
/// that was opened last hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file that holds the data, on a disk of this host. It is made when there is none; its directory must exist.
    /// Namespaces and slots may share it. No default.
    pub path: PathBuf,
    /// How much of the file to keep in memory. Default `16MiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub cache_size: usize,
    /// How large the file may become before what would store more is refused. Default none, which is the disk.
    #[serde(deserialize_with = "optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub max_size: Option<usize>,
    /// How many changes the feed keeps for views that fall behind. Default 100000.
    #[schemars(range(min = 1))]
    pub feed_max_changes: u64,
    /// How many bytes of changes the feed keeps at most. Default `64MiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub feed_max_bytes: usize,
    /// How long the feed keeps a change, in time during which the namespace was served. Default `1h`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub feed_max_age: Duration,
}

/// Settings of the SQLite durability slot, and of a ledger.
///
/// Only `path` is required. Sizes are texts like `64MiB`, or numbers of bytes. Where several slots are in one file, the
/// `cache_size` and the `max_size` of the one that was opened last hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InboxConfig {
    /// The file that holds the data, on a disk of this host. It is made when there is none; its directory must exist.
    /// Namespaces and slots may share it. No default.
    pub path: PathBuf,
    /// How much of the file to keep in memory. Default `16MiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub cache_size: usize,
    /// How large the file may become before what would store more is refused. Default none, which is the disk.
    #[serde(deserialize_with = "optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "size_schema")]
    pub max_size: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        let InboxConfig {
            path,
            cache_size,
            max_size,
        } = InboxConfig::default();
        Self {
            path,
            cache_size,
            max_size,
            feed_max_changes: 100_000,
            feed_max_bytes: 64 << 20,
            feed_max_age: Duration::from_secs(3_600),
        }
    }
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            cache_size: 16 << 20,
            max_size: None,
        }
    }
}

impl From<&Config> for InboxConfig {
    /// What of a registry's settings is about the file, for what shares it.
    fn from(config: &Config) -> Self {
        Self {
            path: config.path.clone(),
            cache_size: config.cache_size,
            max_size: config.max_size,
        }
    }
}

impl Config {
    /// What tells the data of one configuration from that of another: the file, whatever name leads to it.
    pub fn identity(&self) -> String {
        InboxConfig::from(self).identity()
    }

    /// Checks what can be checked without touching the file.
    ///
    /// # Errors
    /// The first key at fault.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        InboxConfig::from(self).validate()?;
        if self.feed_max_changes == 0 {
            return Err(invalid("feed_max_changes", "must be at least `1`"));
        }
        if self.feed_max_bytes == 0 {
            return Err(invalid("feed_max_bytes", "must be at least `1`"));
        }
        if self.feed_max_age < Duration::from_secs(1) {
            return Err(invalid("feed_max_age", "must be at least `1s`"));
        }
        Ok(())
    }
}

impl InboxConfig {
    /// As [`Config::identity`].
    pub fn identity(&self) -> String {
        located(&self.path)
            .unwrap_or_else(|_| self.path.clone())
            .display()
            .to_string()
    }

    /// As [`Config::validate`].
    ///
    /// # Errors
    /// The first key at fault.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.path.as_os_str().is_empty() {
            return Err(invalid(
                "path",
                "is required: name the file that is to hold the data",
            ));
        }
        if self.path.file_name().is_none() || self.path.to_string_lossy().ends_with('/') {
            return Err(invalid("path", "must name a file, this is a directory"));
        }
        if self.path == Path::new(":memory:") {
            return Err(invalid(
                "path",
                "must name a file; for memory there is the backend `memory`",
            ));
        }
        if self.cache_size < LEAST_CACHE {
            return Err(invalid("cache_size", "must be at least `64KiB`"));
        }
        if self.max_size.is_some_and(|most| most < LEAST_SIZE) {
            return Err(invalid("max_size", "must be at least `256KiB`"));
        }
        Ok(())
    }
}

/// The one name of a file, which need not exist; its directory must.
pub(crate) fn located(path: &Path) -> std::io::Result<PathBuf> {
    if let Ok(existing) = fs::canonicalize(path) {
        return Ok(existing);
    }
    let name = path.file_name().unwrap_or_default();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(fs::canonicalize(directory)?.join(name))
}

/// What is wrong with a configuration beyond the type of single keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {message}")]
pub struct InvalidConfig {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl From<InvalidConfig> for Error {
    fn from(invalid: InvalidConfig) -> Self {
        crate::error::misconfigured(invalid.to_string())
    }
}

fn invalid(key: &'static str, message: impl Into<String>) -> InvalidConfig {
    InvalidConfig {
        key,
        message: message.into(),
    }
}

fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+ ?(ms|s|m|h|d|w)$" },
            { "type": "number", "minimum": 0, "description": "in milliseconds" },
        ]
    })
}
