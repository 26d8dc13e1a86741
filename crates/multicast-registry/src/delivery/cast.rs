//! What a multicast is, and where it stands.

use std::time::Duration;

use prism_slot::{MulticastId, Position, Timestamp};

use super::{
    Delivery,
    state::{Brief, Stage, Status},
};

/// What a multicast is, apart from its message and its targets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cast {
    pub(crate) id: MulticastId,
    pub(crate) position: Position,
    pub(crate) delivery: Delivery,
    pub(crate) required: Stage,
    pub(crate) began_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    /// Until when its receipts are kept.
    pub(crate) kept_until: Timestamp,
    /// Whether the ledger has it.
    pub(crate) recorded: bool,
    /// For how long a repeated call must get the same outcome; absent where it has no idempotency key.
    pub(crate) key_window: Option<Duration>,
}

impl Cast {
    /// Whether a target that nothing more is known of may still be delivered to.
    fn is_open(&self, progress: Progress, state: Brief, now: Timestamp) -> bool {
        if progress == Progress::Sending {
            return true;
        }
        let expired = self.expires_at.is_some_and(|at| at <= now);
        self.delivery != Delivery::AtMostOnce && state.stage >= Stage::Stored && !expired
    }

    pub(crate) fn status(&self, progress: Progress, state: Brief, now: Timestamp) -> Status {
        let is_settled = progress == Progress::Settled;
        state.status(self.required, is_settled, || self.is_open(progress, state, now))
    }
}

/// How far sending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on, so what failed may be tried again.
    Sending,
    /// It is over here. Should this runner end now, another one would try what failed.
    Sent,
    /// Nobody sends any more.
    Settled,
}

impl Progress {
    /// As the ledger has it.
    pub(crate) fn recorded(phase: Phase) -> Self {
        match phase {
            Phase::Running => Self::Sending,
            Phase::Sent | Phase::Cancelled => Self::Settled,
        }
    }
}

/// Where a multicast stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not all targets have been sent to yet.
    #[default]
    Running,
    /// All have been sent to.
    Sent,
    /// It was cancelled before that.
    Cancelled,
}
