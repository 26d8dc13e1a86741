//! The slot's settings, as an operator writes them.

mod address;

use std::{fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use prism_core::config::{Secret, duration_ms, size};
use prism_slot::Error;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use address::Address;
use address::Endpoint;

use crate::error::misconfigured;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;

/// Settings of the Redis registry slot.
///
/// Where the data is, is said by `address` (or `host` and `port`, or `addresses` of a cluster), `db` and
/// `prefix`. Durations are texts like `500ms` or `5s`, or numbers of milliseconds. Sizes are texts
/// like `64MiB`, or numbers of bytes.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
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
    /// The user of Redis's access control list. Default none, which is Redis's user `default`.
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
    /// How many connections to hold. Default 4.
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

/// Without secrets, and without those of an address.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            host,
            port,
            addresses,
            cluster,
            username,
            password,
            db,
            prefix,
            tls,
            ..
        } = self;
        f.debug_struct("Config")
            .field("address", address)
            .field("host", host)
            .field("port", port)
            .field("addresses", addresses)
            .field("cluster", cluster)
            .field("username", username)
            .field("password", password)
            .field("db", db)
            .field("prefix", prefix)
            .field("tls", tls)
            .finish_non_exhaustive()
    }
}

/// Where the data is and how to get there, with nothing left to default.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// One server, or some nodes of a cluster.
    pub(crate) nodes: Vec<(String, u16)>,
    pub(crate) cluster: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Secret,
    pub(crate) db: u8,
    pub(crate) tls: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        write!(f, "{scheme}://{}/{}", nodes.join(","), self.db)
    }
}

impl Config {
    /// What tells the data of one configuration from that of another: where it is, and under which
    /// names. Without secrets.
    ///
    /// # Errors
    /// [`Error::Misconfigured`], naming the key at fault.
    pub fn identity(&self) -> Result<String, Error> {
        Ok(format!("{} {}", self.target()?, self.prefix))
    }

    /// Checks every value and resolves the several ways to write one.
    ///
    /// # Errors
    /// [`Error::Misconfigured`], naming the key at fault.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        self.check_ranges()?;
        self.check_names()?;
        let endpoints = self.endpoints()?;
        let first = &endpoints[0];
        let username = agreed(
            "username",
            self.username.as_deref().filter(|name| !name.is_empty()),
            first.username.as_deref(),
        )?;
        let password = agreed(
            "password",
            Some(self.password.expose()).filter(|word| !word.is_empty()),
            first.password.as_ref().map(Secret::expose),
        )?;
        let db = match (self.db, first.db) {
            (Some(own), Some(of_address)) if own != of_address => return Err(contradiction("db")),
            (own, of_address) => own.or(of_address).unwrap_or(0),
        };
        if self.cluster && db != 0 {
            return Err(misconfigured(
                "`db` must be 0 with `cluster`, a Redis Cluster has no other",
            ));
        }
        let tls = self.tls || endpoints.iter().any(|endpoint| endpoint.tls);
        if self.ca_file.is_some() && !tls {
            return Err(misconfigured(
                "`ca_file` has no effect without `tls`; set `tls: true` or remove it",
            ));
        }
        Ok(Target {
            username: username.map(str::to_owned),
            password: Secret::new(password.unwrap_or_default()),
            cluster: self.cluster,
            db,
            tls,
            nodes: self.with_ports(endpoints)?,
        })
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let single = match (&self.address, &self.host) {
            (Some(_), Some(_)) => return Err(contradiction("host")),
            (address, host) => address.as_ref().or(host.as_ref()),
        };
        let listed = match (single, self.addresses.as_slice()) {
            (Some(_), [_, ..]) => return Err(contradiction("addresses")),
            (Some(single), []) => std::slice::from_ref(single),
            (None, []) => return Ok(vec![Endpoint::parse(DEFAULT_HOST).map_err(misconfigured)?]),
            (None, listed) => listed,
        };
        if listed.len() > 1 && !self.cluster {
            return Err(misconfigured(
                "several `addresses` need `cluster: true`; name one server otherwise",
            ));
        }
        listed
            .iter()
            .map(|address| Endpoint::parse(address.expose()).map_err(misconfigured))
            .collect()
    }

    fn with_ports(&self, endpoints: Vec<Endpoint>) -> Result<Vec<(String, u16)>, Error> {
        let port = |endpoint: &Endpoint| match (endpoint.port, self.port) {
            (Some(own), Some(configured)) if own != configured => Err(contradiction("port")),
            (own, configured) => Ok(own.or(configured).unwrap_or(DEFAULT_PORT)),
        };
        endpoints
            .into_iter()
            .map(|endpoint| Ok((endpoint.host.clone(), port(&endpoint)?)))
            .collect()
    }

    fn check_ranges(&self) -> Result<(), Error> {
        let minute = |minutes: u64| Duration::from_secs(60 * minutes);
        let soon = Duration::from_millis(1)..=minute(10);
        within("dial_timeout", self.dial_timeout, &soon)?;
        within(
            "read_timeout",
            self.read_timeout,
            &(Duration::from_millis(10)..=minute(10)),
        )?;
        within("write_timeout", self.write_timeout, &soon)?;
        within("pool_timeout", self.pool_timeout, &(Duration::ZERO..=minute(10)))?;
        within(
            "feed_max_age",
            self.feed_max_age,
            &(Duration::from_secs(1)..=minute(60 * 24 * 366)),
        )?;
        within("max_retries", self.max_retries, &(0..=100))?;
        within("pool_size", self.pool_size, &(1..=256))?;
        within("feed_max_changes", self.feed_max_changes, &(1..=1 << 40))?;
        within("feed_max_bytes", self.feed_max_bytes, &(1..=1 << 40))?;
        within(
            "group_max_writes",
            self.group_max_writes,
            &(1..=crate::registry::MAX_BATCH),
        )?;
        within("group_calls", self.group_calls, &(1..=64))?;
        within(
            "queue_max_writes",
            self.queue_max_writes,
            &(crate::registry::MAX_BATCH..=1 << 24),
        )
    }

    /// A brace would move the end of the hash tag that keeps a namespace's keys together.
    fn check_names(&self) -> Result<(), Error> {
        if self.prefix.contains(['{', '}']) {
            return Err(misconfigured(format!(
                "`prefix` must not contain braces, `{}` does",
                self.prefix
            )));
        }
        Ok(())
    }
}

fn within<T: PartialOrd + fmt::Debug>(key: &str, value: T, range: &RangeInclusive<T>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(misconfigured(format!(
        "`{key}` must be from `{least:?}` to `{most:?}`, not `{value:?}`"
    )))
}

fn agreed<'a>(
    key: &str,
    own: Option<&'a str>,
    of_address: Option<&'a str>,
) -> Result<Option<&'a str>, Error> {
    match (own, of_address) {
        (Some(own), Some(other)) if own != other => Err(contradiction(key)),
        (own, other) => Ok(own.or(other)),
    }
}

fn contradiction(key: &str) -> Error {
    misconfigured(format!(
        "`{key}` contradicts what another key says about the address; write it once"
    ))
}

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&prism_core::config::format_duration(*duration))
}

/// Whole doubles are integers: the control stream knows no other numbers.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer)?.fit().map_err(de::Error::custom)
}

fn optional_whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<Whole>::deserialize(deserializer)? else {
        return Ok(None);
    };
    number.fit().map(Some).map_err(de::Error::custom)
}

struct Whole(u64);

impl Whole {
    fn fit<T: TryFrom<u64>>(self) -> Result<T, String> {
        T::try_from(self.0).map_err(|_| format!("`{}` is too large a number here", self.0))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl de::Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
        Ok(Whole(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
        let refuse = |_| E::invalid_value(de::Unexpected::Signed(value), &self);
        u64::try_from(value).map(Whole).map_err(refuse)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and in range, as checked
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || !(0.0..=EXACT).contains(&value) {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        Ok(Whole(value as u64))
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
