//! What a proxy asks of a plugin.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Mark;

/// One namespace's configuration, as pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// The namespace.
    pub namespace: String,
    /// The version of the pattern that it is written for.
    pub pattern_version: String,
    /// `{slots: {...}, behavior: {...}, ...}`.
    pub config: Map<String, Value>,
    /// Which version it is, and of what content.
    pub mark: Mark,
}

/// A command. `within` is how long its sender is prepared to wait, `None` when it does not say.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Add or change a namespace.
    Initialize(Configuration),
    /// Take a namespace away.
    Remove {
        /// Which.
        namespace: String,
        /// The version of the configuration that lacks it; 0 when versions are not counted.
        version: i64,
    },
    /// Begin serving.
    Start,
    /// Report health.
    HealthCheck,
    /// Finish what is under way, take nothing new.
    Drain {
        /// The hard limit.
        within: Option<Duration>,
        /// For the log.
        reason: String,
    },
    /// Release everything and end.
    Stop {
        /// The hard limit, drain included.
        within: Option<Duration>,
    },
    /// Drain, stop, exit. A plugin treats it as a stop; the words differ on the wire only.
    Shutdown {
        /// The hard limit, drain included.
        within: Option<Duration>,
        /// For the log.
        reason: String,
    },
    /// An `initialize` that cannot be read, with what is wrong about it.
    Invalid(String),
    /// A command of a newer proxy.
    Unknown,
}

/// A command without its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Initialize`, `Remove` or `Invalid`: whatever concerns one namespace.
    Configure,
    /// `Start`.
    Start,
    /// `HealthCheck` or `Unknown`: whatever a health report answers.
    HealthCheck,
    /// `Drain`.
    Drain,
    /// `Stop` or `Shutdown`.
    Stop,
}

impl Command {
    /// Which kind of command this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Initialize(_) | Self::Remove { .. } | Self::Invalid(_) => Kind::Configure,
            Self::Start => Kind::Start,
            Self::HealthCheck | Self::Unknown => Kind::HealthCheck,
            Self::Drain { .. } => Kind::Drain,
            Self::Stop { .. } | Self::Shutdown { .. } => Kind::Stop,
        }
    }
}
