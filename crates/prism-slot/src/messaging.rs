//! The messaging slot: how a message travels to an identity.

use std::{
    fmt,
    future::Future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::{Applied, Error, Identity, Listener, MessagingCapability, Post, Result, Scope, Timestamp};

/// How long after the deadline of a publish its outcomes may still come. A slot that keeps to the
/// deadline knows more about each target than whoever gives it up.
const GRACE: Duration = Duration::from_millis(50);

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
        // Each delivery shows it twice, and the formatter of numbers is slow.
        let mut digits = [0; 32];
        let written = hex::encode_to_slice(self.0.to_be_bytes(), &mut digits);
        let digits = written.ok().and_then(|()| std::str::from_utf8(&digits).ok());
        f.write_str(digits.ok_or(fmt::Error)?)
    }
}

impl std::str::FromStr for MulticastId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// What a message is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Data for the identity.
    #[default]
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
    /// Where consumers send their own answers, if the sender said so. Opaque here.
    pub reply_to: Option<Arc<str>>,
    /// Whether an answer to this very message is waited for.
    pub expects_reply: bool,
    /// When it is of no more use, by the sending runner's clock.
    pub expires_at: Option<Timestamp>,
    /// The [post](Messaging::post) at which word of its way is welcome.
    pub receipts: Option<Arc<str>>,
    /// Whether an inbox may have had it before: where that one is forgotten, this one comes again.
    pub again: bool,
}

impl Message {
    /// A message of a multicast with this content, and nothing else to it.
    pub fn new(multicast: MulticastId, payload: impl Into<Bytes>) -> Self {
        Self {
            multicast,
            kind: Kind::Payload,
            payload: payload.into(),
            content_type: DEFAULT_CONTENT_TYPE.clone(),
            published_at: Timestamp::now(),
            headers: Vec::new(),
            reply_to: None,
            expects_reply: false,
            expires_at: None,
            receipts: None,
            again: false,
        }
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| 2 * size_of::<String>() + name.len() + value.len());
        let texts = [
            Some(&self.content_type),
            self.reply_to.as_ref(),
            self.receipts.as_ref(),
        ];
        let texts = texts.into_iter().flatten().map(|text| text.len());
        size_of::<Self>() + self.payload.len() + headers.sum::<usize>() + texts.sum::<usize>()
    }
}

/// The address of all posts of a namespace together; see [`Messaging::send`].
pub const EVERY_POST: &str = "*";

/// What a payload is, unless the sender says.
pub static DEFAULT_CONTENT_TYPE: LazyLock<Arc<str>> = LazyLock::new(|| "application/octet-stream".into());

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
/// While the broker does not answer, calls end by their deadline without a claim (`calls_end_in_the_dark`)
/// (`calls_end_while_the_broker_stands_still`), and the slot never sends again what may have been sent
/// (`lost_answers_leave_it_unknown`). Where the connection breaks within a batch each target is told for itself
/// (`a_publish_to_many_that_is_cut_is_told_one_by_one`). The slot goes on by itself when the broker does, and listeners
/// resume after a [`Received::Gap`](crate::Received::Gap): whatever was accepted is heard, or missing there
/// (`listeners_resume_after_a_restart`) (`listeners_resume_after_kills`).
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
    /// - It returns by `deadline`; what is not known by then is [`Outcome::Unknown`]
    ///   (`publish_ends_by_its_deadline`).
    ///
    /// Dropping the future abandons the outcomes, not necessarily the messages.
    fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Starts to listen for one identity. When it returns, a publish through any runner reaches the
    /// listener (`a_listener_hears_from_the_start`).
    ///
    /// - A listener that does not keep up gets a [`Received::Gap`](crate::Received::Gap), delays nobody, and holds no more
    ///   than a bounded number of messages (`a_slow_listener_gets_a_gap`) and of their bytes
    ///   (`a_slow_listener_of_large_messages_gets_a_gap`).
    /// - Dropping the listener ends it: later publishes find nobody (`dropping_a_listener_ends_it`).
    fn listen(&self, identity: &Identity, deadline: Instant)
    -> impl Future<Output = Result<Listener>> + Send;

    /// Opens a post: a place, with an address that nobody guesses, at which notes between runners arrive, and what
    /// consumers that listen at the broker itself answer to messages that name it. Each call opens another one.
    ///
    /// - What was sent after it returned arrives, in the order of one sender (`notes_reach_their_address`).
    /// - It holds no more than a bounded number of notes, and counts what it had to drop (`a_full_post_counts_what_it_drops`).
    /// - Dropping it ends it (`notes_to_nobody_are_noticed`).
    fn post(&self, deadline: Instant) -> impl Future<Output = Result<Post>> + Send;

    /// Sends a note to a post. [`Outcome::Accepted`] says that the post was there, not that somebody has read it
    /// (`notes_to_nobody_are_noticed`). A note has at most `max_payload` bytes. One to [`EVERY_POST`] reaches every post
    /// of the namespace, the sender's own too (`notes_to_every_post_reach_all`).
    fn send(&self, address: &str, note: Bytes, deadline: Instant) -> impl Future<Output = Outcome> + Send;

    /// Whether the broker answers, by the cheapest round trip that proves it
    /// (`closing_ends_listeners_and_calls`).
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Ends all listeners and releases connections. Afterwards nothing is sent, and other calls fail with
    /// [`Error::Unavailable`](crate::Error::Unavailable) (`closing_ends_listeners_and_calls`).
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The object-safe twin of [`Messaging`], implemented for every one of them, and the place where its
/// capability is enforced: a payload over the slot's size is not sent
/// (`payloads_over_the_limit_are_not_sent`), and every call to something outside this process ends at
/// its deadline; what is then not known of a publish is [`Outcome::Unknown`].
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
    /// See [`Messaging::post`].
    fn post(&self, deadline: Instant) -> BoxFuture<'_, Result<Post>>;
    /// See [`Messaging::send`].
    fn send<'a>(&'a self, address: &'a str, note: Bytes, deadline: Instant) -> BoxFuture<'a, Outcome>;
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
        let publish = Messaging::publish_batch(self, targets, message, deadline);
        if self.capability().scope == Scope::Process {
            return Box::pin(publish);
        }
        Box::pin(async move {
            let given_up = |_| {
                let backend = Messaging::capability(self).backend;
                let why = format!("{backend} did not answer before the deadline");
                vec![Outcome::Unknown(why); targets.len()]
            };
            timeout_at(deadline + GRACE, publish)
                .await
                .unwrap_or_else(given_up)
        })
    }

    fn listen<'a>(&'a self, identity: &'a Identity, deadline: Instant) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(bounded(
            self,
            deadline,
            Messaging::listen(self, identity, deadline),
        ))
    }

    fn post(&self, deadline: Instant) -> BoxFuture<'_, Result<Post>> {
        Box::pin(bounded(self, deadline, Messaging::post(self, deadline)))
    }

    fn send<'a>(&'a self, address: &'a str, note: Bytes, deadline: Instant) -> BoxFuture<'a, Outcome> {
        let capability = Messaging::capability(self);
        let (size, most, backend) = (note.len(), capability.max_payload, capability.backend);
        if size > most {
            let why = format!("the note has {size} bytes, the slot takes {most}");
            return Box::pin(std::future::ready(Outcome::NotSent(why)));
        }
        let given_up = move |_| Outcome::Unknown(format!("{backend} did not answer before the deadline"));
        let send = Messaging::send(self, address, note, deadline);
        Box::pin(async move { timeout_at(deadline + GRACE, send).await.unwrap_or_else(given_up) })
    }

    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(bounded(self, deadline, Messaging::probe(self, deadline)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Messaging::close(self))
    }
}

/// Ends a call at its deadline. A slot inside this process never waits, so it is not timed.
async fn bounded<T>(
    slot: &impl Messaging,
    deadline: Instant,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let capability = slot.capability();
    if capability.scope == Scope::Process {
        return call.await;
    }
    let late = Error::Timeout {
        backend: capability.backend,
        applied: Applied::No,
    };
    timeout_at(deadline, call).await.unwrap_or(Err(late))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::AcceptedBy;

    /// A broker that takes everything and says nothing.
    struct Mute;

    impl Messaging for Mute {
        fn capability(&self) -> &MessagingCapability {
            const CAPABILITY: MessagingCapability = MessagingCapability {
                backend: "mute",
                interfaces: &[],
                scope: Scope::Shared,
                accepted_by: AcceptedBy::Broker,
                max_payload: 1,
            };
            &CAPABILITY
        }

        async fn publish_batch(&self, _: &[Identity], _: Arc<Message>, _: Instant) -> Vec<Outcome> {
            std::future::pending().await
        }

        async fn listen(&self, _: &Identity, _: Instant) -> Result<Listener> {
            std::future::pending().await
        }

        async fn post(&self, _: Instant) -> Result<Post> {
            std::future::pending().await
        }

        async fn send(&self, _: &str, _: Bytes, _: Instant) -> Outcome {
            std::future::pending().await
        }

        async fn probe(&self, _: Instant) -> Result<()> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_never_answers_is_given_up() {
        let (slot, deadline) = (
            &Mute as &dyn DynMessaging,
            Instant::now() + Duration::from_secs(1),
        );
        let identity = Identity::new("a").unwrap();
        assert!(matches!(slot.probe(deadline).await, Err(Error::Timeout { .. })));
        let listened = slot.listen(&identity, deadline).await;
        assert!(matches!(listened, Err(Error::Timeout { .. })));
        let posted = slot.post(deadline).await;
        assert!(matches!(posted, Err(Error::Timeout { .. })));
        let sent = slot.send("x", Bytes::new(), deadline).await;
        assert!(matches!(sent, Outcome::Unknown(_)), "{sent:?}");
        let message = Arc::new(Message::new(MulticastId(1), ""));
        let targets = [identity.clone(), identity];
        let outcomes = slot.publish_batch(&targets, message, deadline).await;
        let unknown = Outcome::Unknown("mute did not answer before the deadline".to_owned());
        assert_eq!(outcomes, [unknown.clone(), unknown]);
        assert!(deadline.elapsed() <= GRACE, "{:?}", deadline.elapsed());
    }
}
