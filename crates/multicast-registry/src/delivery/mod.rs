//! What became of multicasts: what is known of each target, how word of it travels, and where it is kept.
//!
//! While a multicast is under way, and for a while after, it is a `Tracker` on the `Desk` of the runner that makes
//! it. Sessions say through the `Courier` how far messages have come; what a desk does not know goes into the
//! `Books`, which are the namespace's ledger. What is known only grows (`state`), so word may come late, twice, or
//! not at all, and leaves at worst a lower stage.

mod batch;
mod bells;
mod books;
mod cast;
mod courier;
mod desk;
mod gate;
mod keys;
mod note;
mod orphans;
mod places;
mod records;
mod reply;
pub(crate) mod state;
mod states;
mod targets;
mod tracker;

pub use cast::Phase;
pub use reply::Reply;
pub use state::{End, Stage, Status};
pub use targets::{Target, Targets};

pub(crate) use batch::Batch;
pub(crate) use bells::Bells;
pub(crate) use books::Books;
pub(crate) use cast::{Cast, Progress};
pub(crate) use courier::{Courier, Strays};
pub(crate) use desk::Desk;
pub(crate) use gate::{Admission, Crowded, Gate, Turn};
pub(crate) use keys::{BEGINNING, Claim};
pub(crate) use note::{Bell, Note, Query, QueryAnswer, Receipt};
pub(crate) use orphans::Orphan;
#[cfg(test)]
pub(crate) use records::void;
pub(crate) use records::{CastEntry, KeyEntry, Load, Part, into_parts};
pub(crate) use state::{Brief, News, State};
pub(crate) use targets::targets_of;
pub(crate) use tracker::{Told, Tracker};

use prism_slot::{MulticastId, Position, Timestamp};

/// How sure the sender wants to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Sent once; what is known not to have been sent is tried again, nothing else.
    #[default]
    AtMostOnce,
    /// Stored, and handed out again until it is acknowledged.
    AtLeastOnce,
    /// The same under an idempotency key, with duplicates suppressed within the dedupe window.
    ExactlyOnce,
}

/// How fast to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// To how many targets a second at most.
    pub per_second: Option<u64>,
    /// To how many at a time.
    pub batch: Option<usize>,
}

/// Who can read receipts later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptsScope {
    /// They are in this runner's memory.
    Runner,
    /// They are in the ledger of the namespace.
    Ledger,
}

/// How many targets there are of each status. They add up to the number of targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many have been delivered.
    pub delivered: usize,
    /// How many have certainly not been.
    pub failed: usize,
    /// How many may still be.
    pub pending: usize,
    /// How many it is not known of.
    pub timeout: usize,
}

impl Tally {
    pub(crate) fn of(statuses: impl IntoIterator<Item = Status>) -> Self {
        let mut tally = Self::default();
        for status in statuses {
            tally.delivered += usize::from(status == Status::Delivered);
            tally.failed += usize::from(status == Status::Failed);
            tally.pending += usize::from(status == Status::Pending);
            tally.timeout += usize::from(status == Status::Timeout);
        }
        tally
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.delivered + self.failed + self.pending + self.timeout
    }
}

/// What is known of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Names it.
    pub id: MulticastId,
    /// Where the target set was taken.
    pub position: Position,
    /// The targets, in no particular order: all of them, or those of a page.
    pub targets: Targets,
    /// How many of all there are of each status.
    pub tally: Tally,
    /// Where it stands.
    pub phase: Phase,
    /// Whether it is the outcome of an earlier call with the same idempotency key.
    pub replayed: bool,
    /// Who can read it later, and until when; absent for one that sent nothing.
    pub kept: Option<(ReceiptsScope, Timestamp)>,
    /// What targets answered, where that was collected.
    pub replies: Vec<Reply>,
    /// How many have answered, also where there was no room for what they said.
    pub reply_count: usize,
    /// Where the next page begins.
    pub next: Option<usize>,
}

impl Report {
    /// How many targets were delivered.
    pub fn delivered(&self) -> usize {
        self.tally.delivered
    }

    /// How many targets have this status.
    pub fn count(&self, status: Status) -> usize {
        match status {
            Status::Delivered => self.tally.delivered,
            Status::Failed => self.tally.failed,
            Status::Pending => self.tally.pending,
            Status::Timeout => self.tally.timeout,
        }
    }
}

/// A runner, as others know it: the first half of the identifiers of its multicasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Runner(pub(crate) u64);

impl Runner {
    pub(crate) fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }

    /// The runner that made a multicast.
    pub(crate) fn of(multicast: MulticastId) -> Self {
        Self((multicast.0 >> 64) as u64)
    }

    /// A fresh identifier for a multicast of this runner.
    pub(crate) fn multicast(self) -> MulticastId {
        MulticastId(u128::from(self.0) << 64 | u128::from(rand::random::<u64>()))
    }
}
