//! What a plugin answers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::wire;

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `Initialize` and `Remove`; an error names slot and key.
    Initialized(Result<Initialized, String>),
    /// To `Start`: the data endpoint.
    Started(Result<String, String>),
    /// To `Drain`.
    Drained {
        /// What became of the work under way.
        counts: Drained,
        /// Why not all of it ended well.
        error: Option<String>,
    },
    /// To `Stop` and `Shutdown`.
    Stopped(Result<(), String>),
    /// To `HealthCheck` and to commands that the plugin does not know.
    Health(Health),
    /// Nothing recognisable. Received from peers of other origin or version, never sent.
    Unrecognised,
}

/// What a namespace offers with the configuration that was just applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Initialized {
    /// How far the data of its weakest slot reaches.
    pub scope: Scope,
    /// Open-ended properties for the proxy.
    pub extra: BTreeMap<String, String>,
}

impl Initialized {
    /// Says the scope in `extra` as well, which is how it travels.
    pub(super) fn with_scope_of(mut self, namespace: &str) -> Self {
        let scope = self.scope.as_str().to_owned();
        self.extra.insert(wire::scope_key(namespace), scope);
        self
    }

    /// Reads the scope from `extra`. One that is missing or unknown is the narrowest.
    pub(super) fn scope_of(&self, namespace: &str) -> Scope {
        self.extra
            .get(&wire::scope_key(namespace))
            .and_then(|scope| scope.parse().ok())
            .unwrap_or_default()
    }
}

/// How far a namespace's data reaches, and so how many runners may serve it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One process: another one would see other data. What a peer that does not say is taken for.
    #[default]
    Process,
    /// All processes of one host.
    Host,
    /// Every process that is configured alike.
    Shared,
}

impl Scope {
    /// As in `extra["prism.scope.<namespace>"]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Host => "host",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A scope that is none of the three.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope, use `process`, `host` or `shared`")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Process, Self::Host, Self::Shared]
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// What became of the work that was under way when a drain began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Operations that ended by themselves.
    pub drained: u64,
    /// Operations that were cut off.
    pub aborted: u64,
}

/// A health report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// For people.
    pub message: String,
    /// One entry a namespace and slot, e.g. `presence.registry` = `healthy`.
    pub details: BTreeMap<String, String>,
}

impl Health {
    /// A report with a verdict and a message.
    pub fn new(status: HealthStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            details: BTreeMap::new(),
        }
    }

    /// Nothing to complain about.
    pub fn healthy() -> Self {
        Self::default()
    }
}

/// How well a plugin does. Ordered from well to badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    #[default]
    Healthy,
    /// It serves, with something missing or slow.
    Degraded,
    /// It cannot serve.
    Unhealthy,
}

impl HealthStatus {
    /// In lower case, for details, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}
