//! The messaging slot: how a message travels to an identity.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::{Identity, Listener, MessagingCapability, Result, Timestamp};

/// Names one multicast. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MulticastId(pub u128);

impl MulticastId {
    /// A fresh one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for MulticastId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for MulticastId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Data for the identity.
    Payload,
    /// A word between runners: a session with this number is the live one now, older ones close.
    Superseded {
        /// The number of the newest session.
        session_seq: u64,
    },
}

/// One message, shared by all the targets of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The multicast that it belongs to.
    pub multicast: MulticastId,
    /// What it is for.
    pub kind: Kind,
    /// Its content.
    pub payload: Bytes,
    /// The content's media type.
    pub content_type: Arc<str>,
    /// When it was sent, by the sending runner's clock.
    pub published_at: Timestamp,
    /// Further headers, among them the trace context.
    pub headers: Vec<(String, String)>,
}

/// What is known about a message and one target after a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Processed for this identity, with somebody listening; see
    /// [`AcceptedBy`](crate::capability::AcceptedBy).
    Accepted,
    /// Processed, and nobody was listening: certainly not delivered.
    NoSubscriber,
    /// Certainly not sent.
    NotSent(String),
    /// It may or may not have been sent.
    Unknown(String),
}

/// A messaging slot opened for one namespace.
///
/// Where the capability's scope is shared, openings of one namespace reach each other's listeners
/// (`openings_reach_each_other`) and those of different namespaces never do (`namespaces_are_apart`).
///
/// A name in parentheses is the conformance case that proves the sentence before it.
pub trait Messaging: Send + std::marker::Sync + 'static {
    /// What this slot can do. Constant over its life.
    fn capability(&self) -> &MessagingCapability;

    /// Publishes one message to many identities; outcomes in the order of the targets.
    ///
    /// - What it accepted reaches every listener that was listening before the call, once, unchanged
    ///   (`publish_reaches_every_listener`) (`messages_arrive_unchanged`).
    /// - It reaches no other identity, whatever characters either name has
    ///   (`identities_never_share_an_address`).
    /// - A target without a listener is [`Outcome::NoSubscriber`] (`publish_knows_who_listens`).
    /// - Messages to one identity that were accepted in order arrive in order
    ///   (`accepted_messages_keep_their_order`).
    /// - [`Outcome::Unknown`] is reported no later than `deadline`.
    ///
    /// Dropping the future abandons the outcomes, not necessarily the messages.
    fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Starts to listen for one identity. When it returns, a publish through any runner reaches the
    /// listener.
    ///
    /// - A listener that does not keep up gets a [`Received::Gap`](crate::Received::Gap), delays nobody, and holds no more
    ///   than a bounded number of messages (`a_slow_listener_gets_a_gap`).
    /// - Dropping the listener ends it: later publishes find nobody (`dropping_a_listener_ends_it`).
    fn listen(&self, identity: &Identity, deadline: Instant)
    -> impl Future<Output = Result<Listener>> + Send;

    /// Whether the broker answers, by the cheapest round trip that proves it.
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Ends all listeners and releases connections.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The object-safe twin of [`Messaging`], implemented for every one of them, and the place where its
/// capability is enforced: a payload over the slot's size is not sent
/// (`payloads_over_the_limit_are_not_sent`).
pub trait DynMessaging: Send + std::marker::Sync + 'static {
    /// See [`Messaging::capability`].
    fn capability(&self) -> &MessagingCapability;
    /// See [`Messaging::publish_batch`].
    fn publish_batch<'a>(
        &'a self,
        targets: &'a [Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Outcome>>;
    /// See [`Messaging::listen`].
    fn listen<'a>(&'a self, identity: &'a Identity, deadline: Instant) -> BoxFuture<'a, Result<Listener>>;
    /// See [`Messaging::probe`].
    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    /// See [`Messaging::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<M: Messaging> DynMessaging for M {
    fn capability(&self) -> &MessagingCapability {
        Messaging::capability(self)
    }

    fn publish_batch<'a>(
        &'a self,
        targets: &'a [Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Outcome>> {
        let (size, most) = (message.payload.len(), self.capability().max_payload);
        if size > most {
            let refused = Outcome::NotSent(format!("the payload has {size} bytes, the slot takes {most}"));
            return Box::pin(std::future::ready(vec![refused; targets.len()]));
        }
        Box::pin(Messaging::publish_batch(self, targets, message, deadline))
    }

    fn listen<'a>(&'a self, identity: &'a Identity, deadline: Instant) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(Messaging::listen(self, identity, deadline))
    }

    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(Messaging::probe(self, deadline))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Messaging::close(self))
    }
}
