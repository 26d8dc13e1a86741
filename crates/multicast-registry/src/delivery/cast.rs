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
    pub(crate) fn is_open(&self, sent: bool, state: Brief, now: Timestamp) -> bool {
        if !sent {
            return true;
        }
        let expired = self.expires_at.is_some_and(|at| at <= now);
        self.delivery != Delivery::AtMostOnce && state.stage >= Stage::Stored && !expired
    }

    pub(crate) fn status(&self, sent: bool, state: Brief, now: Timestamp) -> Status {
        state.status(self.required, || self.is_open(sent, state, now))
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
