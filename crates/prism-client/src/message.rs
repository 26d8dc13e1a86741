//! What a subscription yields, and what its consumer says to that.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    Position, Result,
    raw::{Acks, Said},
    wire,
};

/// What a subscription yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session is open: from here on, a multicast to the identity reaches it.
    Opened(Opened),
    /// A message for the identity.
    Message(Message),
    /// Messages are, or may be, missing at this point.
    Gap(Gap),
}

/// An open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The registration that it belongs to.
    pub generation: Position,
    /// Orders the sessions of an identity: the newest is the live one.
    pub session_seq: u64,
}

/// A message to an identity.
///
/// One that is [`stored`](Self::stored) comes again, after the namespace's `ack_timeout` or with the next session,
/// until it is acknowledged, refused or expired; others may be acknowledged too, of which their sender is told.
/// Clones may be acknowledged in other tasks, for as long as the subscription lives.
///
/// [`ack`](Self::ack), [`nack`](Self::nack), [`term`](Self::term) and [`answer`](Self::answer) return once the word
/// is on its way, which takes time only where thousands before it have not been confirmed. It is said again in the
/// next session where this one is lost before the service has confirmed it. What they return can be dropped, or
/// waited for to know that it holds. They fail when the subscription has ended, with what ended it. They are cancel
/// safe: dropped before they return, nothing was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The multicast that it is part of.
    pub multicast_id: String,
    /// Of this message to this identity; the same on every redelivery.
    pub delivery_id: String,
    /// Its content.
    pub payload: Bytes,
    /// The type of its content.
    pub content_type: String,
    /// When it was published.
    pub published_at: SystemTime,
    /// Its headers, among them the W3C `traceparent`.
    pub headers: BTreeMap<String, String>,
    /// How often it has been handed out, this time included, and one more where it may have been stored before. Above 1 it
    /// is a redelivery, or may be one.
    pub attempt: u32,
    /// Whether it comes again unless it is acknowledged in time.
    pub stored: bool,
    /// When it is of no more use; `None` where that was not said.
    pub expires_at: Option<SystemTime>,
    /// Where the sender wants answers sent, in its own words.
    pub reply_to: Option<String>,
    /// Whether the sender waits for an [`answer`](Self::answer).
    pub expects_reply: bool,
    pub(crate) acks: Acks,
}

impl Message {
    /// The content as JSON.
    ///
    /// # Errors
    /// As `serde_json` says, when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.payload)
    }

    /// The message is done with and does not come again.
    ///
    /// # Errors
    /// What ended the subscription.
    pub async fn ack(&self) -> Result<Said> {
        self.acks.ack(self.delivery_id.as_str()).await
    }

    /// The message is to come again, after a while: to this session or to a later one, as a further attempt. One
    /// that is not stored cannot.
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`](crate::Error::Invalid) for more than a year.
    pub async fn nack(&self, delay: Duration) -> Result<Said> {
        self.acks.nack(self.delivery_id.as_str(), delay).await
    }

    /// The message is not to come again, and not to be forgotten: it goes to the dead letters, with this reason of
    /// at most 256 bytes.
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`](crate::Error::Invalid) for a reason that is too long.
    pub async fn term(&self, reason: impl Into<String>) -> Result<Said> {
        self.acks.term(self.delivery_id.as_str(), reason).await
    }

    /// Answers the message, which acknowledges it. The sender gets the answer where it waits for one
    /// ([`expects_reply`](Self::expects_reply)).
    ///
    /// # Errors
    /// What ended the subscription; [`Error::Invalid`](crate::Error::Invalid) for an answer of more than 1 MiB, or
    /// with headers that cannot be sent. The slots of a namespace may take less; the service then ends the
    /// subscription with `PAYLOAD_TOO_LARGE`.
    pub async fn answer(&self, answer: impl Into<Answer>) -> Result<Said> {
        let answer = wire::answer_to(&self.delivery_id, answer.into());
        self.acks.answer(answer).await
    }
}

/// An answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Its content.
    pub payload: Bytes,
    /// The type of that. `None`: `application/octet-stream`.
    pub content_type: Option<String>,
    /// Headers to send along, as of a [`MulticastRequest`](crate::MulticastRequest).
    pub headers: BTreeMap<String, String>,
}

macro_rules! answer_from {
    ($($content:ty)*) => {$(
        impl From<$content> for Answer {
            fn from(content: $content) -> Self {
                Self { payload: content.into(), ..Self::default() }
            }
        }
    )*};
}

answer_from!(Bytes Vec<u8> String &'static str);

/// What became of a word about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It holds.
    Done,
    /// The message was not there any more: settled before, expired, displaced or a dead letter.
    Gone,
}

/// Messages that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many, as far as is known; 0 when it is not.
    pub dropped: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why messages are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// The session did not read fast enough.
    SlowConsumer,
    /// The service lost its broker for a while.
    Reconnected,
    /// This client lost the service for a while.
    ConnectionLost,
    /// What a newer service says.
    Other(String),
}
