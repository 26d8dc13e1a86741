//! What is known of multicasts, and of messages that could not be delivered.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::Position;

/// What is known of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multicast {
    /// How many identities matched.
    pub target_count: u64,
    /// How many of them got the message.
    pub delivered_count: u64,
    /// How many are known not to have got it.
    pub failed_count: u64,
    /// How many have not got it yet, and may still.
    pub pending_count: u64,
    /// Of how many nothing is known.
    pub timeout_count: u64,
    /// One a target, in no particular order. Where there are more than fit into one answer, some are left out, those
    /// that were delivered before any other; [`Registry::receipts`](crate::Registry::receipts) has all of them.
    pub statuses: Vec<DeliveryStatus>,
    /// Names the multicast.
    pub multicast_id: String,
    /// Where the target set was taken.
    pub position: Position,
    /// Where it stands.
    pub state: MulticastState,
    /// Whether this is the outcome of an earlier call with the same idempotency key.
    pub replayed: bool,
    /// Who can read the receipts later; `None` where nobody can.
    pub receipts_scope: Option<ReceiptsScope>,
    /// Until when they can be read, as far as memory allows where the scope is the runner.
    pub receipts_until: Option<SystemTime>,
    /// What targets answered, where that was collected; as many as fit beside the statuses.
    pub replies: Vec<Reply>,
    /// How many targets have answered, where that was collected.
    pub reply_count: u64,
    /// Where the next page begins; `None` on the last, and where there are no pages.
    pub next_cursor: Option<String>,
}

/// Where a multicast stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MulticastState {
    /// Not all targets have been sent to yet.
    Running,
    /// All have been sent to. Receipts may still come.
    Sent,
    /// It was cancelled before that.
    Cancelled,
}

/// Who can read the receipts of a multicast later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReceiptsScope {
    /// They are in the memory of the runner that sent, and are gone with it.
    Runner,
    /// They are in the ledger of the namespace, and outlive the runner.
    Ledger,
}

/// What is known of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// The target.
    pub identity: String,
    /// The verdict.
    pub status: Status,
    /// How far the message is known to have come.
    pub stage: Stage,
    /// Machine-readable cause where it was not delivered, for example `NO_SUBSCRIBER` or `EXPIRED`.
    pub reason: Option<String>,
    /// The same for people.
    pub error: Option<String>,
}

/// The verdict on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not delivered yet, and may still be: its turn has not come, or it is stored and not acknowledged.
    Pending,
    /// Known not to have been delivered.
    Failed,
    /// Not known either way.
    Timeout,
    /// Delivered.
    Delivered,
}

/// How far a message is known to have come, in order. At most once a message is accepted, and never stored;
/// otherwise it is the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The identity was in the target set.
    Resolved,
    /// The broker has processed it for this identity and somebody was listening.
    Accepted,
    /// It is persisted for this identity.
    Stored,
    /// It was written to a live session of the identity.
    Handed,
    /// The identity acknowledged it.
    Acked,
}

/// What one target answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The target.
    pub identity: String,
    /// The content of its answer.
    pub payload: Bytes,
    /// The type of that.
    pub content_type: String,
    /// Headers that came along.
    pub headers: BTreeMap<String, String>,
}

impl Reply {
    /// The content as JSON.
    ///
    /// # Errors
    /// As `serde_json` says, when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.payload)
    }
}

/// What a multicast that is followed tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MulticastEvent {
    /// It has begun: its identifier and the number of its targets, without statuses. Always the first.
    Started(Multicast),
    /// More is known of a target.
    Target(DeliveryStatus),
    /// A target answered, where answers are collected.
    Reply(Reply),
    /// It is over: the totals, without statuses. Always the last.
    Ended(Multicast),
}

/// Whom a multicast would reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// How many identities match.
    pub target_count: u64,
    /// Which, in no particular order; as many as fit into one answer.
    pub identities: Vec<String>,
    /// Where the target set was taken.
    pub position: Position,
}

/// A message that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names the letter.
    pub letter_id: String,
    /// To whom it was.
    pub identity: String,
    /// Of the message to the identity.
    pub delivery_id: String,
    /// Why: `MAX_DELIVER`, `TERMINATED` or `OTHER_HOLDER`.
    pub reason: String,
    /// What the consumer said, where it did not want it.
    pub detail: Option<String>,
    /// How often it was handed out.
    pub attempts: u32,
    /// When it was given up.
    pub died_at: SystemTime,
    /// When it was published.
    pub published_at: SystemTime,
    /// The beginning of its content, at most 4 KiB.
    pub payload: Bytes,
    /// The size of its content, in bytes.
    pub payload_size: u64,
    /// The type of its content.
    pub content_type: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
}

/// A page of dead letters, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// Those on this page.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
}

/// What putting dead letters back came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// How many wait for their identities again.
    pub redriven_count: u64,
    /// How many found the inboxes of their identities full, and stay dead letters.
    pub full_count: u64,
    /// How many are no dead letters any more, or for identities that are not registered.
    pub gone_count: u64,
}
