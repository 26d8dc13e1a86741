//! Settings of the slot.

mod address;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use prism_core::config::{Secret, duration_ms, duration_text, one_or_many, size};
use prism_slot::{Room, memory::MAX_LISTENER_QUEUE, settings::size_schema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) use address::Address;

/// A broker that is only named is the local one, as a store that is only named is.
pub(crate) const LOCAL: &str = "nats://localhost:4222";

/// Settings of the NATS messaging slot.
///
/// Durations are texts like `500ms` or `2s`, or numbers of milliseconds.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = name_url)]
pub struct Config {
    /// The brokers of one cluster, like `nats://localhost:4222` or, encrypted, `tls://…`: a list, or one
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
    /// How many connections to hold for publishing, and as many again for listening; identities are spread
    /// over them. Default 1.
    #[schemars(range(min = 1, max = 64))]
    pub connections: usize,
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
    /// How often to ask a silent broker for a sign of life. After two without an answer the connection is
    /// taken for dead. Default `5s`.
    #[serde(deserialize_with = "duration_ms", serialize_with = "duration_text")]
    #[schemars(schema_with = "duration_schema")]
    pub ping_interval: Duration,
    /// After how many messages of a multicast to ask the broker for a confirmation. Two such groups are
    /// under way at a time. Default 512.
    #[schemars(range(min = 1, max = 8192))]
    pub publish_window: usize,
    /// How many messages wait for one session before further ones are dropped and reported as a gap.
    /// Default 1024.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub listener_queue: usize,
    /// How many bytes of messages wait for one session before further ones are dropped and reported as a gap. A larger
    /// message still waits alone. Default `4MiB`.
    #[serde(deserialize_with = "size")]
    #[schemars(schema_with = "size_schema")]
    pub listener_queue_bytes: usize,
    /// Belongs to the durability slot; only `false` is accepted here. Default false.
    #[serde(deserialize_with = "no_jetstream", skip_serializing)]
    pub enable_jetstream: bool,
    /// Belongs to the durability slot; must be absent or empty here. Default none.
    #[serde(deserialize_with = "no_queue_prefix", skip_serializing)]
    pub queue_prefix: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let room = Room::default();
        Self {
            servers: vec![LOCAL.to_owned()],
            username: None,
            password: None,
            token: None,
            creds_file: None,
            nkey: None,
            ca_file: None,
            connections: 1,
            timeout: Duration::from_secs(5),
            reconnect_wait: Duration::from_millis(100),
            max_reconnects: -1,
            ping_interval: Duration::from_secs(5),
            publish_window: 512,
            listener_queue: room.messages,
            listener_queue_bytes: room.bytes,
            enable_jetstream: false,
            queue_prefix: None,
        }
    }
}

/// What is wrong with a configuration beyond the type of single keys. Names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct InvalidConfig {
    /// The key at fault.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Config {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// The first key at fault.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.addresses()?;
        self.validate_login()?;
        self.validate_ranges()
    }

    /// The servers, one by one.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, InvalidConfig> {
        if self.servers.is_empty() {
            return Err(invalid(
                "servers",
                "name at least one, like `nats://localhost:4222`",
            ));
        }
        let texts = self.servers.iter().flat_map(|text| text.split(','));
        texts
            .map(|text| Address::parse(text.trim()).map_err(|message| invalid("servers", message)))
            .collect()
    }

    /// The most attempts to reconnect in a row; `None` for no limit.
    pub(crate) fn most_reconnects(&self) -> Option<usize> {
        usize::try_from(self.max_reconnects).ok()
    }

    fn validate_login(&self) -> Result<(), InvalidConfig> {
        let user = self.username.is_some() || self.addresses()?.iter().any(|address| address.login.is_some());
        let ways = [
            ("username", user),
            ("token", self.token.is_some()),
            ("creds_file", self.creds_file.is_some()),
            ("nkey", self.nkey.is_some()),
        ];
        let mut given = ways.iter().filter(|(_, given)| *given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            return Err(invalid(
                second,
                format!("give one way to log in, not `{first}` as well"),
            ));
        }
        if self.username.is_some() != self.password.is_some() {
            return Err(invalid("username", "`username` and `password` go together"));
        }
        let logins: Vec<_> = self
            .addresses()?
            .into_iter()
            .filter_map(|address| address.login)
            .collect();
        if (self.username.is_some() && !logins.is_empty()) || logins.windows(2).any(|pair| pair[0] != pair[1])
        {
            return Err(invalid(
                "servers",
                "the addresses name different users; use `username` and `password`",
            ));
        }
        let encrypted = self.addresses()?.iter().all(|address| address.encrypted);
        if self.ca_file.is_some() && !encrypted {
            return Err(invalid("ca_file", "has no effect without `tls://` addresses"));
        }
        Ok(())
    }

    fn validate_ranges(&self) -> Result<(), InvalidConfig> {
        let ranges = [
            ("connections", self.connections, 64),
            ("publish_window", self.publish_window, 8_192),
            ("listener_queue", self.listener_queue, MAX_LISTENER_QUEUE),
            ("listener_queue_bytes", self.listener_queue_bytes, usize::MAX),
        ];
        if let Some((key, value, most)) = ranges
            .iter()
            .find(|(_, value, most)| !(1..=*most).contains(value))
        {
            return Err(invalid(key, format!("`{value}` is not between 1 and {most}")));
        }
        let durations = [("timeout", self.timeout), ("ping_interval", self.ping_interval)];
        if let Some((key, _)) = durations.iter().find(|(_, value)| value.is_zero()) {
            return Err(invalid(key, "must not be zero"));
        }
        if self.max_reconnects == 0 || self.max_reconnects < -1 {
            return Err(invalid(
                "max_reconnects",
                "use a number from 1, or `-1` for no limit",
            ));
        }
        Ok(())
    }
}

/// Secrets are hidden, also those within addresses.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field(
                "servers",
                &self
                    .servers
                    .iter()
                    .map(|text| Address::shown(text))
                    .collect::<Vec<_>>(),
            )
            .field("username", &self.username)
            .field("password", &self.password)
            .field("token", &self.token)
            .field("creds_file", &self.creds_file)
            .field("nkey", &self.nkey)
            .field("ca_file", &self.ca_file)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("reconnect_wait", &self.reconnect_wait)
            .field("max_reconnects", &self.max_reconnects)
            .field("ping_interval", &self.ping_interval)
            .field("publish_window", &self.publish_window)
            .field("listener_queue", &self.listener_queue)
            .field("listener_queue_bytes", &self.listener_queue_bytes)
            .finish_non_exhaustive()
    }
}

pub(crate) fn invalid(key: &'static str, message: impl Into<String>) -> InvalidConfig {
    InvalidConfig {
        key,
        message: message.into(),
    }
}

pub(crate) fn without_logins<S: Serializer>(servers: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(servers.iter().map(|text| Address::shown(text)))
}

pub(crate) fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}

/// The other name of `servers`, which the derived schema does not know.
pub(crate) fn name_url(schema: &mut Schema) {
    if let Some(properties) = schema
        .get_mut("properties")
        .and_then(|properties| properties.as_object_mut())
        && let Some(servers) = properties.get_mut("servers")
    {
        servers["type"] = serde_json::json!(["array", "string"]);
        let url = servers.clone();
        properties.insert("url".to_owned(), url);
    }
}

fn no_jetstream<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    if bool::deserialize(deserializer)? {
        return Err(de::Error::custom(
            "`enable_jetstream` belongs to the durability slot; remove it from the messaging slot",
        ));
    }
    Ok(false)
}

fn no_queue_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(prefix) if !prefix.is_empty() => Err(de::Error::custom(
            "`queue_prefix` belongs to the durability slot; remove it from the messaging slot",
        )),
        _ => Ok(None),
    }
}
