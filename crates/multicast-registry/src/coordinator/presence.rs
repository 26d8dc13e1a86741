//! Whether others know that this runner is alive, and where it is reached.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is to be known of a runner changes with its post and with its ledger. While it is being written down it may
/// change again, and then others know something else.
#[derive(Debug)]
pub(super) struct Presence {
    /// How often that has changed.
    changes: AtomicU64,
    /// After how many changes others were told.
    told: AtomicU64,
}

/// What there was to be told at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsOf(u64);

impl Presence {
    /// Nobody knows anything.
    pub(super) fn new() -> Self {
        Self {
            changes: AtomicU64::new(1),
            told: AtomicU64::new(0),
        }
    }

    /// What is to be told is another thing from now on. Said after it is.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// To be asked before what is told is read.
    pub(super) fn as_of(&self) -> AsOf {
        AsOf(self.changes.load(Ordering::Acquire))
    }

    /// Others know what there was to be told then.
    pub(super) fn told(&self, as_of: AsOf) {
        self.told.store(as_of.0, Ordering::Release);
    }

    /// Whether others know what there is to be told.
    pub(super) fn is_known(&self) -> bool {
        self.told.load(Ordering::Acquire) == self.changes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_told_is_not_known() {
        let presence = Presence::new();
        assert!(!presence.is_known());
        let before = presence.as_of();
        presence.changed();
        presence.told(before);
        assert!(!presence.is_known());
        presence.told(presence.as_of());
        assert!(presence.is_known());
        presence.changed();
        assert!(!presence.is_known());
    }
}
