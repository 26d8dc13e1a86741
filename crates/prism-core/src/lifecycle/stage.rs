//! How far a plugin is in its life, and what it may be asked there.

use super::Kind;

/// A plugin's stage. Ordered: a plugin only ever moves forward, except from a failed start back to
/// idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Not started; namespaces may be configured already.
    Idle,
    /// The start is under way.
    Starting,
    /// Serving.
    Running,
    /// Told to end, still serving until the proxies have been told.
    Leaving,
    /// Finishing what is under way.
    Draining,
    /// Nothing is under way any more.
    Drained,
    /// Releasing resources.
    Stopping,
    /// Done.
    Stopped,
}

impl Stage {
    /// Whether a command of this kind is carried out here; otherwise why it is refused.
    ///
    /// Draining, stopping and health checks are never refused: where the work is under way or done
    /// already they get its outcome.
    ///
    /// # Errors
    /// The reason, as the refusal's text.
    pub fn admits(self, kind: Kind) -> Result<(), &'static str> {
        match kind {
            Kind::HealthCheck | Kind::Drain | Kind::Stop => Ok(()),
            Kind::Configure | Kind::Start if self < Self::Leaving => Ok(()),
            Kind::Configure | Kind::Start if self < Self::Stopping => {
                Err("the plugin is draining, use another instance")
            }
            Kind::Configure | Kind::Start => Err("the plugin is stopped, use another instance"),
        }
    }

    /// Whether new calls should be sent here.
    pub fn serves(self) -> bool {
        matches!(self, Self::Running | Self::Leaving)
    }

    /// In lower case, for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}
