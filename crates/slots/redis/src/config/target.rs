//! What the settings amount to, once the several ways to write one are resolved.

use std::{fmt, ops::RangeInclusive, time::Duration};

use prism_core::config::Secret;

use super::{Config, ConnectionConfig, InboxConfig, InvalidConfig, address::Endpoint};
use crate::registry::MAX_BATCH;

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;

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
    pub(super) fn check_own(&self) -> Result<(), InvalidConfig> {
        let year = Duration::from_secs(60 * 60 * 24 * 366);
        within(
            "feed_max_age",
            self.feed_max_age,
            &(Duration::from_secs(1)..=year),
        )?;
        within("feed_max_changes", self.feed_max_changes, &(1..=1 << 40))?;
        within("feed_max_bytes", self.feed_max_bytes, &(1..=1 << 40))?;
        within("group_max_writes", self.group_max_writes, &(1..=MAX_BATCH))?;
        within("group_calls", self.group_calls, &(1..=64))?;
        within("queue_max_writes", self.queue_max_writes, &(MAX_BATCH..=1 << 24))
    }
}

impl InboxConfig {
    pub(super) fn check_own(&self) -> Result<(), InvalidConfig> {
        within("store_max_inboxes", self.store_max_inboxes, &(1..=MAX_BATCH))?;
        within("store_calls", self.store_calls, &(1..=64))
    }
}

impl ConnectionConfig {
    #[allow(clippy::unused_self)] // others have keys of their own
    pub(super) fn check_own(&self) -> Result<(), InvalidConfig> {
        Ok(())
    }

    /// Checks every value and resolves the several ways to write one.
    ///
    /// # Errors
    /// The first key at fault.
    pub(super) fn resolve(&self) -> Result<Target, InvalidConfig> {
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
            return Err(invalid(
                "db",
                "`db` must be 0 with `cluster`, a Redis Cluster has no other",
            ));
        }
        let tls = self.tls || endpoints.iter().any(|endpoint| endpoint.tls);
        if self.ca_file.is_some() && !tls {
            return Err(invalid(
                "ca_file",
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

    fn endpoints(&self) -> Result<Vec<Endpoint>, InvalidConfig> {
        let no_address = |message| invalid("address", message);
        let single = match (&self.address, &self.host) {
            (Some(_), Some(_)) => return Err(contradiction("host")),
            (address, host) => address.as_ref().or(host.as_ref()),
        };
        let listed = match (single, self.addresses.as_slice()) {
            (Some(_), [_, ..]) => return Err(contradiction("addresses")),
            (Some(single), []) => std::slice::from_ref(single),
            (None, []) => return Ok(vec![Endpoint::parse(DEFAULT_HOST).map_err(no_address)?]),
            (None, listed) => listed,
        };
        if listed.len() > 1 && !self.cluster {
            return Err(invalid(
                "addresses",
                "several `addresses` need `cluster: true`; name one server otherwise",
            ));
        }
        listed
            .iter()
            .map(|address| Endpoint::parse(address.expose()).map_err(no_address))
            .collect()
    }

    fn with_ports(&self, endpoints: Vec<Endpoint>) -> Result<Vec<(String, u16)>, InvalidConfig> {
        let port = |endpoint: &Endpoint| match (endpoint.port, self.port) {
            (Some(own), Some(configured)) if own != configured => Err(contradiction("port")),
            (own, configured) => Ok(own.or(configured).unwrap_or(DEFAULT_PORT)),
        };
        endpoints
            .into_iter()
            .map(|endpoint| Ok((endpoint.host.clone(), port(&endpoint)?)))
            .collect()
    }

    fn check_ranges(&self) -> Result<(), InvalidConfig> {
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
        within("max_retries", self.max_retries, &(0..=100))?;
        within("pool_size", self.pool_size, &(1..=256))
    }

    /// A brace would move the end of the hash tag that keeps a namespace's keys together.
    fn check_names(&self) -> Result<(), InvalidConfig> {
        if self.prefix.contains(['{', '}']) {
            let message = format!("`prefix` must not contain braces, `{}` does", self.prefix);
            return Err(invalid("prefix", message));
        }
        Ok(())
    }
}

fn within<T: PartialOrd + fmt::Debug>(
    key: &'static str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), InvalidConfig> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let message = format!("`{key}` must be from `{least:?}` to `{most:?}`, not `{value:?}`");
    Err(invalid(key, message))
}

fn agreed<'a>(
    key: &'static str,
    own: Option<&'a str>,
    of_address: Option<&'a str>,
) -> Result<Option<&'a str>, InvalidConfig> {
    match (own, of_address) {
        (Some(own), Some(other)) if own != other => Err(contradiction(key)),
        (own, other) => Ok(own.or(other)),
    }
}

fn contradiction(key: &'static str) -> InvalidConfig {
    let message = format!("`{key}` contradicts what another key says about the address; write it once");
    invalid(key, message)
}

fn invalid(key: &'static str, message: impl Into<String>) -> InvalidConfig {
    InvalidConfig {
        key,
        message: message.into(),
    }
}
