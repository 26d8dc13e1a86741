//! Settings of the durability slot.

use std::{path::PathBuf, time::Duration};

use prism_core::config::{Secret, duration_ms, duration_text, one_or_many};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    Config, InvalidConfig,
    address::Prefix,
    config::{LOCAL, duration_schema, invalid, name_url, without_logins},
};

/// Where JetStream keeps what it is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk: it outlives a restart of the servers.
    #[default]
    File,
    /// In memory: it is gone when all servers that have a replica were restarted.
    Memory,
}

/// Settings of the NATS durability slot, which needs JetStream on NATS 2.11 or newer.
///
/// Durations are texts like `500ms` or `2s`, or numbers of milliseconds.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = name_url)]
pub struct JetStreamConfig {
    /// The servers of one cluster, like `nats://localhost:4222` or, encrypted, `tls://…`: a list, or one
    /// text with commas between. May be called `url`. Default `nats://localhost:4222`.
    #[serde(
        alias = "url",
        deserialize_with = "one_or_many",
        serialize_with = "without_logins"
    )]
    pub servers: Vec<String>,
    /// The user to log in as, together with `password`. Both may stand in the servers' addresses instead.
    /// Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password. Default none.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token to log in with. Default none.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A `.creds` file to log in with, read when the slot is opened. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// The seed of a user nkey (`SU…`) to log in with. Default none.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<Secret>,
    /// A PEM file with the certificates of the authorities to trust. Needs servers at `tls://…`. Default
    /// the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long opening the slot may take, and each attempt to connect. Default `5s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: Duration,
    /// The longest pause before the first attempt to connect again. Pauses double up to 2 s, or stay as
    /// they are if this is longer, and are shortened at random. Default `100ms`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub reconnect_wait: Duration,
    /// After how many failed attempts in a row, counted over all servers, to give up for good; `-1` is
    /// never. Every server is tried at least once. Default -1.
    #[schemars(range(min = -1))]
    pub max_reconnects: i64,
    /// How often to ask a silent server for a sign of life. After two without an answer the connection is
    /// taken for dead. Default `5s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub ping_interval: Duration,
    /// What the subjects of all that is stored begin with, and the names of the streams. Default
    /// `prism.queue`.
    pub queue_prefix: String,
    /// On how many servers of the cluster each message is kept. Default 1.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: usize,
    /// Where the servers keep it: `file` or `memory`. Cannot be changed later. Default `file`.
    pub storage: Storage,
    /// Durability on NATS is JetStream's; only `true` is accepted here. Default true.
    #[serde(deserialize_with = "jetstream", skip_serializing)]
    pub enable_jetstream: bool,
}

impl Default for JetStreamConfig {
    fn default() -> Self {
        let Config {
            timeout,
            reconnect_wait,
            max_reconnects,
            ping_interval,
            ..
        } = Config::default();
        Self {
            servers: vec![LOCAL.to_owned()],
            username: None,
            password: None,
            token: None,
            creds_file: None,
            nkey: None,
            ca_file: None,
            timeout,
            reconnect_wait,
            max_reconnects,
            ping_interval,
            queue_prefix: "prism.queue".to_owned(),
            replicas: 1,
            storage: Storage::File,
            enable_jetstream: true,
        }
    }
}

impl JetStreamConfig {
    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// The first key at fault.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.connecting().validate()?;
        if let Err(error) = Prefix::new(&self.queue_prefix, "default") {
            return Err(invalid("queue_prefix", error.to_string()));
        }
        if !(1..=5).contains(&self.replicas) {
            let replicas = self.replicas;
            return Err(invalid(
                "replicas",
                format!("`{replicas}` is not between 1 and 5"),
            ));
        }
        Ok(())
    }

    /// What identifies the data: with another one of these, it is other data.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn identity(&self) -> Result<String, InvalidConfig> {
        let addresses = self.connecting().addresses()?;
        let mut servers: Vec<String> = addresses.into_iter().map(|address| address.text).collect();
        servers.sort_unstable();
        servers.dedup();
        let prefix = self.queue_prefix.strip_suffix('.').unwrap_or(&self.queue_prefix);
        Ok(format!("{}/{prefix}", servers.join(",")))
    }

    /// How to connect, in the words of the messaging slot.
    pub(crate) fn connecting(&self) -> Config {
        Config {
            servers: self.servers.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            creds_file: self.creds_file.clone(),
            nkey: self.nkey.clone(),
            ca_file: self.ca_file.clone(),
            timeout: self.timeout,
            reconnect_wait: self.reconnect_wait,
            max_reconnects: self.max_reconnects,
            ping_interval: self.ping_interval,
            ..Config::default()
        }
    }
}

/// Secrets are hidden, also those within addresses.
impl std::fmt::Debug for JetStreamConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JetStreamConfig")
            .field("connecting", &self.connecting())
            .field("queue_prefix", &self.queue_prefix)
            .field("replicas", &self.replicas)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

fn jetstream<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    if bool::deserialize(deserializer)? {
        return Ok(true);
    }
    Err(de::Error::custom(
        "durability on nats needs JetStream; remove `enable_jetstream` or the durability slot",
    ))
}

#[cfg(test)]
mod tests {
    use prism_core::config::decode_value;
    use serde_json::{Value, json};

    use super::*;

    fn refusal(value: &Value) -> String {
        match decode_value::<JetStreamConfig>(value) {
            Ok(config) => config.validate().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let config = decode_value::<JetStreamConfig>(&json!({
            "url": "nats://u:p@a,b:1", "queue_prefix": "q.", "replicas": 3.0, "storage": "memory",
            "timeout": "1s", "reconnect_wait": 5, "max_reconnects": 2, "ping_interval": "2s", "enable_jetstream": true,
        }))
        .unwrap();
        config.validate().unwrap();
        assert_eq!((config.replicas, config.storage), (3, Storage::Memory));
        assert_eq!(config.identity().unwrap(), "nats://a:4222,nats://b:1/q");
        assert!(!format!("{config:?}").contains("u:p"), "{config:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (value, named) in [
            (json!({"servers": []}), "servers"),
            (json!({"url": "a", "replicas": 0}), "replicas"),
            (json!({"url": "a", "replicas": 6}), "replicas"),
            (json!({"url": "a", "storage": "tape"}), "tape"),
            (json!({"url": "a", "queue_prefix": "a.*"}), "queue_prefix"),
            (json!({"url": "a", "queue_prefix": ""}), "queue_prefix"),
            (json!({"url": "a", "enable_jetstream": false}), "JetStream"),
            (json!({"url": "a", "listener_queue": 3}), "listener_queue"),
            (json!({"url": "a", "timeout": 0}), "timeout"),
            (json!({"url": "a", "token": "t", "nkey": "n"}), "nkey"),
        ] {
            let refusal = refusal(&value);
            assert!(refusal.contains(named), "{value}: {refusal}");
        }
    }
}
