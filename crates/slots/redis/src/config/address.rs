//! The ways to write where a server is.

use std::fmt;

use prism_core::config::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A `host`, a `host:port` or a URL. Shows without its password.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Address(String);

impl Address {
    /// Takes a text that can be parsed as an address.
    ///
    /// # Errors
    /// What is wrong with it, as a message for people.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        Endpoint::parse(&text)?;
        Ok(Self(text))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&redacted(&self.0), f)
    }
}

/// Without its password.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redacted(&self.0))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What an address says; `None` for what it does not mention.
#[derive(Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) db: Option<u8>,
    pub(super) tls: bool,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refused = |what: &str| {
            let shown = redacted(text);
            format!(
                "`{shown}` is no address, {what}; write it like `localhost:6379` or `redis://localhost:6379/0`"
            )
        };
        let (tls, rest) = match text.trim().split_once("://") {
            None => (false, text.trim()),
            Some(("redis", rest)) => (false, rest),
            Some(("rediss", rest)) => (true, rest),
            Some((scheme, _)) => return Err(refused(&format!("`{scheme}` is not `redis` or `rediss`"))),
        };
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority).ok_or_else(|| refused("its port is not a number"))?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(refused("it has no host"));
        }
        let db = match path {
            "" => None,
            number => Some(
                number
                    .parse()
                    .map_err(|_| refused("its path is not the number of a database"))?,
            ),
        };
        let (username, password) =
            credentials(userinfo).ok_or_else(|| refused("its credentials are not percent-encoded"))?;
        Ok(Self {
            host: host.to_owned(),
            port,
            username,
            password,
            db,
            tls,
        })
    }
}

/// Of `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => Some((host, None)),
            None => None,
            Some(port) => Some((host, Some(port.parse().ok()?))),
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, rest)) if rest.contains(':') => Some((authority, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
    }
}

fn credentials(userinfo: Option<&str>) -> Option<(Option<String>, Option<Secret>)> {
    let Some(userinfo) = userinfo else {
        return Some((None, None));
    };
    let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let filled = |text: String| (!text.is_empty()).then_some(text);
    Some((
        filled(decoded(username)?),
        filled(decoded(password)?).map(Secret::new),
    ))
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Hides everything before the last `@` but the scheme.
fn redacted(text: &str) -> String {
    let Some((before, rest)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    let scheme = before
        .split_once("://")
        .map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}***@{rest}")
}
