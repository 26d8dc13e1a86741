//! What a slot has seen that its callers are not told call by call.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the slot was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// How often a lost connection was made again.
    pub reconnections: u64,
    /// Messages dropped because a stranger had published them.
    pub foreign_messages: u64,
    /// Messages dropped because they were damaged or of a newer version.
    pub unreadable_messages: u64,
    /// Messages known to have been dropped by the client library, each also reported to its listener.
    pub overflows: u64,
    /// Errors that the broker reported, missing permissions for one.
    pub broker_errors: u64,
}

/// The same, being counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) reconnections: AtomicU64,
    pub(crate) foreign_messages: AtomicU64,
    pub(crate) unreadable_messages: AtomicU64,
    pub(crate) overflows: AtomicU64,
    pub(crate) broker_errors: AtomicU64,
}

impl Counters {
    pub(crate) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            reconnections: read(&self.reconnections),
            foreign_messages: read(&self.foreign_messages),
            unreadable_messages: read(&self.unreadable_messages),
            overflows: read(&self.overflows),
            broker_errors: read(&self.broker_errors),
        }
    }
}
