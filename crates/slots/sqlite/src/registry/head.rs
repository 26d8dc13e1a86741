//! What is kept about the registry of a namespace as a whole.

use prism_slot::{Epoch, Position, Revision, Timestamp, lease::LeaseClock};

/// The head of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) epoch: Epoch,
    /// Drawn with the epoch; authenticates cursors.
    pub(crate) secret: [u8; 16],
    pub(crate) revision: Revision,
    pub(crate) clock: LeaseClock,
    /// How many records there are, due ones among them.
    pub(crate) records: u64,
    /// How many sessions have been claimed.
    pub(crate) claims: u64,
    /// The last revision that the feed does not keep any more. It keeps all after it.
    pub(crate) compacted_to: Revision,
    pub(crate) feed_bytes: u64,
    /// When the oldest change in the feed was made, in lease time.
    pub(crate) oldest_at: u64,
    /// Changes after this one are kept until then, in lease time, for somebody who scans.
    pub(crate) held_from: Revision,
    pub(crate) held_until: u64,
}

impl Head {
    /// Of a namespace in which nothing has happened yet.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            epoch: Epoch::random(),
            secret: rand::random(),
            revision: Revision::ZERO,
            clock: LeaseClock::new(now),
            records: 0,
            claims: 0,
            compacted_to: Revision::ZERO,
            feed_bytes: 0,
            oldest_at: 0,
            held_from: Revision::ZERO,
            held_until: 0,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            revision: self.revision,
        }
    }

    /// The feed keeps nothing of what was.
    pub(crate) fn forget_feed(&mut self) {
        self.compacted_to = self.revision;
        self.feed_bytes = 0;
        self.held_until = 0;
    }
}
