//! Multicasts, their receipts, and dead letters.

use std::{collections::BTreeMap, time::Duration};

use prism_filter::Filter;

use super::Consistency;
use crate::{Stage, Status};

/// What a delivery must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverySemantics {
    /// Sent once; lost if nobody listens.
    AtMostOnce,
    /// Stored, and sent until it is acknowledged.
    AtLeastOnce,
    /// As at-least-once, with duplicates suppressed within a stated window.
    ExactlyOnce,
}

/// Before which other messages one comes, where messages wait for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// After all others.
    Low,
    /// Between them.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Sends one payload to every identity that matches.
#[derive(Debug, Clone, Default)]
pub struct MulticastRequest {
    /// Who. `None`: all.
    pub filter: Option<Filter>,
    /// What.
    pub payload: Vec<u8>,
    /// The type of the payload. `None`: `application/octet-stream`.
    pub content_type: Option<String>,
    /// What the delivery must survive. `None`: as the namespace is configured.
    pub delivery: Option<DeliverySemantics>,
    /// How long the service waits for outcomes. The call's deadline is extended to it where needed.
    pub timeout: Option<Duration>,
    /// How fresh the target set must be.
    pub consistency: Consistency,
    /// From which stage on a target counts as delivered. `None`: [`Stage::Accepted`] at most once,
    /// [`Stage::Acked`] otherwise, which is not waited for. What is asked for here is.
    pub require: Option<Stage>,
    /// 1 to 256 bytes. Another call with the same key, within the namespace's `dedupe_window`, sends nothing and
    /// gets the outcome of the first; such a call can be repeated without harm, and is. `None` with
    /// [`DeliverySemantics::ExactlyOnce`]: a random one, which keeps the client's own attempts apart from other calls
    /// and makes no other call the same. Where exactly-once is the namespace's default, give both.
    pub idempotency_key: Option<String>,
    /// After how long the message is of no more use. `None`: as long as the namespace keeps messages, which is also
    /// the most.
    pub expires_in: Option<Duration>,
    /// Before which other messages it comes.
    pub priority: Priority,
    /// Up to 64, of 8 KiB together. Names are visible ASCII without `:` and `,`; those that begin with `prism-` or
    /// `nats-`, `content-type` and `traceparent` are taken.
    pub headers: BTreeMap<String, String>,
    /// Where consumers should send answers of their own. It is only passed on.
    pub reply_to: Option<String>,
    /// Send to no more targets than this a second. `None`: as fast as possible. What is not sent within `timeout`, or
    /// the call's deadline, is not sent.
    pub max_per_second: Option<u64>,
    /// How many targets are sent to at a time, at most 1,024. `None`: as the service sees fit.
    pub batch_size: Option<u32>,
    /// Wait for an answer of each target, until all have answered, `min_replies` have, or the time is over.
    pub collect_replies: bool,
    /// How many answers are enough. `None`: those of all targets.
    pub min_replies: Option<u64>,
}

/// Reads the receipts of an earlier multicast.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetMulticastRequest {
    /// Names it: [`Multicast::multicast_id`](crate::Multicast::multicast_id).
    pub multicast_id: String,
    /// How many targets a page, at most 1,000. `None`: 100.
    pub limit: Option<u32>,
    /// [`Multicast::next_cursor`](crate::Multicast::next_cursor) of the page before.
    pub cursor: Option<String>,
    /// Only targets with one of these. Empty: all.
    pub only: Vec<Status>,
}

impl From<&str> for GetMulticastRequest {
    fn from(multicast_id: &str) -> Self {
        multicast_id.to_owned().into()
    }
}

impl From<String> for GetMulticastRequest {
    fn from(multicast_id: String) -> Self {
        Self {
            multicast_id,
            ..Self::default()
        }
    }
}

/// Lists messages that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListDeadLettersRequest {
    /// Only those to this identity. `None`: all.
    pub identity: Option<String>,
    /// How many a page, at most 1,000. `None`: 100.
    pub limit: Option<u32>,
    /// [`DeadLetters::next_cursor`](crate::DeadLetters::next_cursor) of the page before.
    pub cursor: Option<String>,
}

/// Which dead letters to put back into the inboxes of their identities. At most 10,000 are at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveRequest {
    /// Those with these [`letter_id`](crate::DeadLetter::letter_id)s.
    Letters(Vec<String>),
    /// Those with these [`delivery_id`](crate::DeadLetter::delivery_id)s.
    Deliveries(Vec<String>),
    /// All to this identity.
    OfIdentity(String),
    /// All.
    All,
}
