//! The durability slot: where messages wait for identities until they are acknowledged.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::{
    Applied, Epoch, Error, Identity, InboxCapability, Message, MulticastId, Result, Scope, Timestamp,
};

/// How long after the deadline of a store or a cancellation its outcomes may still come, as for a publish.
const GRACE: Duration = Duration::from_millis(50);

/// Whose an inbox is. Messages that were stored for one owner of an identity are never handed to another
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder(pub [u8; 16]);

/// Where a message is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The identity.
    pub identity: Identity,
    /// Who holds it now.
    pub holder: Holder,
}

/// What happens to a message for an inbox that is full.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest message of the lowest priority makes room.
    DropOldest,
}

/// Which of two messages in an inbox comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// After all others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// What holds for all inboxes of a namespace. Part of opening a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// How many messages wait in one inbox at most; what that counts, the capability says.
    pub max_messages: u32,
    /// What happens to one more.
    pub overflow: Overflow,
    /// For how long after it was stored storing a message again is noticed.
    pub dedupe: Duration,
    /// How many dead letters are kept, of all inboxes together; the oldest make room.
    pub max_dead_letters: usize,
    /// For how long a session that is not heard of is remembered where nothing waits for it.
    pub idle: Duration,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            max_messages: 1_000,
            overflow: Overflow::Reject,
            dedupe: Duration::from_secs(120),
            max_dead_letters: 10_000,
            idle: Duration::from_secs(86_400),
        }
    }
}

/// On what terms a message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Before which others it comes.
    pub priority: Priority,
    /// After how long it is gone if it was not acknowledged. Whole seconds in some backends, rounded up.
    pub ttl: Duration,
}

/// A message that left an inbox, and where word of it is welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its multicast.
    pub multicast: MulticastId,
    /// As in [`Message::receipts`].
    pub receipts: Option<Arc<str>>,
}

impl From<&Message> for Ticket {
    fn from(message: &Message) -> Self {
        Self {
            multicast: message.multicast,
            receipts: message.receipts.clone(),
        }
    }
}

/// What is known about a message and one inbox after a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// It is persisted, as far as the capability promises.
    Stored {
        /// The message that had to make room for it, where the capability says that it is told.
        displaced: Option<Ticket>,
    },
    /// It was stored before, and may have been settled since. Nothing changed.
    Duplicate,
    /// The inbox is full: certainly not stored.
    Full,
    /// Certainly not stored.
    NotStored(String),
    /// It may or may not have been stored. Storing it again finds out.
    Unknown(String),
}

/// The session that works on an inbox. Of those of one epoch, the one with the greatest number; one of another
/// epoch takes over from whichever was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// The inbox, and who holds the identity.
    pub address: Address,
    /// The epoch in which the session was claimed.
    pub epoch: Epoch,
    /// Its number; see [`Claim`](crate::Claim).
    pub session_seq: u64,
}

/// How much to fetch, and on what terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// How many messages at most.
    pub max_messages: usize,
    /// How many bytes of payload, unless the first message has more.
    pub max_bytes: usize,
    /// After how long without a word about it a message is due again.
    pub ack_timeout: Duration,
    /// How often a message is handed out before it goes to the dead letters.
    pub max_deliver: u32,
}

/// A message on its way to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message. Its multicast names it within the inbox.
    pub message: Arc<Message>,
    /// How often it has been handed out, this time included, and one more where it may have been stored before
    /// ([`Message::again`]).
    pub attempt: u32,
    /// When it was stored, by the slot's clock.
    pub stored_at: Timestamp,
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// In the order in which to hand them on.
    pub deliveries: Vec<Delivery>,
    /// What was found to have gone to the dead letters meanwhile.
    pub dead: Vec<(Ticket, DeadReason)>,
    /// What was found to have expired, where the capability says that it is told.
    pub expired: Vec<Ticket>,
    /// In how long the next message is due of those that are out or were delayed. `None`: there are none.
    pub next_due: Option<Duration>,
    /// Whether more was due than was asked for.
    pub more: bool,
}

/// What a consumer says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with.
    Ack,
    /// It is to come again, after a while.
    Nack {
        /// After how long.
        delay: Duration,
    },
    /// It is not to come again: it goes to the dead letters.
    Term {
        /// What the consumer said of it.
        reason: String,
    },
    /// It never reached the consumer: it is due at once, and was not handed out that time.
    Release,
}

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It holds.
    Done,
    /// The message is not there any more (settled before, expired, displaced, among the dead letters), or was not
    /// handed out since it was stored.
    Gone,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadReason {
    /// It was handed out as often as it may be.
    MaxDeliver,
    /// The consumer did not want it.
    Terminated(String),
    /// The identity has another owner than it was stored for.
    OtherHolder,
}

/// Names a dead letter. In the order in which they died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeadId(pub u64);

/// A message that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadId,
    /// Whom it was for.
    pub identity: Identity,
    /// Why.
    pub reason: DeadReason,
    /// How often it was handed out.
    pub attempts: u32,
    /// When it was given up, by the slot's clock.
    pub died_at: Timestamp,
    /// The message.
    pub message: Arc<Message>,
}

/// Which dead letters to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadQuery {
    /// Those after this one; from the oldest if absent.
    pub after: Option<DeadId>,
    /// Only those for this identity.
    pub identity: Option<Identity>,
    /// How many at most; 0 is treated as 1.
    pub limit: usize,
}

/// A part of the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadPage {
    /// The oldest first.
    pub letters: Vec<DeadLetter>,
    /// Whether there are more after these.
    pub more: bool,
}

/// What became of a dead letter that was to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redriven {
    /// It waits in the inbox again, as if it had never been handed out. Where it may have come back before, because nobody
    /// knows how that ended, it says so ([`Message::again`]).
    Back,
    /// There is no such dead letter.
    Gone,
    /// The inbox is full; it stays where it is.
    Full,
}

/// What was dropped of an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discarded {
    /// Each message that certainly is gone with this call.
    pub dropped: Vec<Ticket>,
    /// Whether something stopped it after these, so that there may be more to drop; never without any.
    pub more: bool,
}

/// How many messages wait, in one inbox or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// How many have not been settled.
    pub messages: u64,
    /// How many of them are out with a consumer; of all inboxes together only where the slot can tell.
    pub out: Option<u64>,
    /// How many dead letters there are.
    pub dead: u64,
}

/// What a round of tidying found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// What expired, where the capability says that it is told.
    pub expired: Vec<(Identity, Ticket)>,
    /// Whether it is worth going on at once.
    pub more: bool,
}

/// A durability slot opened for one namespace.
///
/// An inbox costs by what is in it, and a few bytes where a session has been. Within one inbox messages of a
/// higher priority come first, and those of equal priority in the order in which they were stored
/// (`messages_come_in_order`) (`urgent_messages_come_first`). Inboxes are apart, whatever the names are
/// (`inboxes_are_apart`), and so are namespaces (`namespaces_have_their_own_inboxes`).
///
/// While the backend does not answer, calls end by their deadline with an error, and of a store it is said that it is not,
/// or may be, stored (`calls_end_in_the_dark`) (`calls_end_while_the_backend_stands_still`). Storing again finds out, and
/// leaves the message there once (`lost_answers_are_found_out`), in each inbox for itself
/// (`a_store_for_many_that_is_cut_is_told_one_by_one`); verdicts may be repeated too
/// (`verdicts_that_are_cut_hold_or_are_unknown`). The slot goes on by itself when the backend does. What was stored is
/// there as far as the capability says, however the backend ended; what was settled is not, and attempts go on
/// (`stored_messages_outlive_a_restart`) (`stored_messages_outlive_kills`). A backend that has lost everything has empty
/// inboxes, which sessions open again (`lost_messages_are_stored_as_new`). Without room what needs it is refused and
/// nothing else (`a_full_disk_refuses_and_loses_nothing`).
///
/// A name in parentheses is the conformance case that proves the sentence before it.
pub trait DurableInbox: Send + std::marker::Sync + 'static {
    /// What this slot can do. Constant over its life.
    fn capability(&self) -> &InboxCapability;

    /// Stores one message in many inboxes; outcomes in the order of the addresses.
    ///
    /// - What is stored is fetched until it is settled, unchanged (`stored_messages_arrive_unchanged`), also through
    ///   another opening and after this one is gone (`stored_messages_outlive_the_opening`).
    /// - The same multicast is in an inbox once: storing it again, less than `dedupe` after it was stored, is
    ///   [`Enqueued::Duplicate`], whether it is still there or not (`a_message_is_stored_once`).
    /// - A message of which it is said that it may have been stored before ([`Message::again`]) is stored as any other,
    ///   and comes as one that was handed out before (`what_may_have_been_stored_before_is_flagged`).
    /// - An inbox holds no more than the limits say (`a_full_inbox_rejects`) (`the_oldest_makes_room`), and where the
    ///   capability says so, what had to make room is told (`what_makes_room_is_told`).
    /// - A message is gone after its ttl (`messages_expire`); where the capability says so, that is told
    ///   (`what_expires_is_told`).
    /// - A call that comes too late stores nothing (`late_stores_store_nothing`).
    fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> impl Future<Output = Vec<Enqueued>> + Send;

    /// Makes a session the inbox's consumer. Whatever was out with another one is due at once
    /// (`a_new_consumer_gets_what_was_out`). What was stored for another holder goes to the dead letters
    /// (`another_holder_inherits_nothing`) (`each_inbox_has_its_own_holder`).
    ///
    /// # Errors
    /// [`Error::Fenced`] where a later session of the same epoch has it (`the_latest_consumer_stays`).
    fn open(&self, consumer: &Consumer, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Hands out what is due, and notes that before it returns: whatever happens then, a message that comes again
    /// has a higher attempt (`attempts_are_counted`), unless it was released.
    ///
    /// - It is due again when nothing was said of it for `ack_timeout` (`unsettled_messages_come_again`), or it was given
    ///   back (`some_come_back_while_others_are_out`), and in between not handed out (`messages_that_are_out_wait`).
    /// - After it was handed out `max_deliver` times it is a dead letter (`given_up_messages_are_dead_letters`).
    /// - It fetches no more than asked for, and says whether there is more (`fetches_are_bounded`).
    ///
    /// # Errors
    /// [`Error::Fenced`] for any session but the consumer (`only_the_consumer_fetches_and_settles`).
    fn fetch(
        &self,
        consumer: &Consumer,
        fetch: Fetch,
        deadline: Instant,
    ) -> impl Future<Output = Result<Fetched>> + Send;

    /// Says what became of messages that were handed out, in order; outcomes in the same order (`verdicts_hold`).
    /// Saying it again changes nothing, and of what was not handed out nothing can be said
    /// (`only_what_was_handed_out_is_settled`). What is released was not (`what_is_released_was_not_handed_out`).
    ///
    /// # Errors
    /// [`Error::Fenced`] for any session but the consumer.
    fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Settled>>> + Send;

    /// Takes a message back from inboxes where it is not out with a consumer; outcomes in the order of the identities,
    /// whether it was there (`what_is_not_out_can_be_cancelled`). What one fails with hides nothing of the others
    /// (`a_cancellation_that_is_cut_is_told_one_by_one`).
    ///
    /// # Errors
    /// Of one identity: not taken back where [`Error::applied`] says so, else unknown. Cancelling again takes back what was
    /// left; whether a call without an answer took something is never told.
    fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> impl Future<Output = Vec<Result<bool>>> + Send;

    /// Drops what was stored for a holder, also what is out with a consumer, and forgets its session; which messages that
    /// were, in no order (`discarded_inboxes_are_empty`).
    ///
    /// A backend that works in steps tells what it has dropped also where a later step fails, and that there is more:
    /// dropping it again goes on from there. Of a step whose answer is lost nobody knows what it has dropped, and
    /// dropping it again tells only what was left: whatever else that step took is never told.
    fn discard(&self, address: &Address, deadline: Instant)
    -> impl Future<Output = Result<Discarded>> + Send;

    /// How many messages wait, in one inbox or in all (`depths_are_told`).
    fn depth(
        &self,
        identity: Option<&Identity>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Depth>> + Send;

    /// Lists dead letters, the oldest first. No more than the limits say are kept; the oldest make room
    /// (`dead_letters_are_bounded`).
    fn dead_letters(
        &self,
        query: DeadQuery,
        deadline: Instant,
    ) -> impl Future<Output = Result<DeadPage>> + Send;

    /// Puts dead letters back into the inboxes of who holds the identities now; outcomes in their order
    /// (`dead_letters_can_go_back`).
    fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Redriven>>> + Send;

    /// Holds to other limits from now on (`limits_apply_in_place`). What is stored stays, also where it is more than a lower
    /// limit: what is new then waits for room, or makes room one for one (`a_lower_limit_removes_nothing`).
    fn configure(&self, limits: InboxLimits, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Removes some of what has expired (`messages_expire`), and may forget some of the sessions of empty inboxes that have
    /// not opened them, fetched or settled for as long as the limits say; none is forgotten before. Whoever is fenced because
    /// of that opens the inbox again and misses nothing (`quiet_sessions_open_again`).
    fn sweep(&self, deadline: Instant) -> impl Future<Output = Result<Swept>> + Send;

    /// Whether the backend answers, by the cheapest round trip that proves it.
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Releases connections and files. Other calls fail with [`Error::Unavailable`] afterwards
    /// (`a_closed_slot_refuses`).
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The object-safe twin of [`DurableInbox`], implemented for every one of them, and the place where its capability is
/// enforced: a payload over the slot's size is not stored (`payloads_over_the_limit_are_not_stored`), and every call to
/// something outside this process ends at its deadline; what is then not known of a store is [`Enqueued::Unknown`].
/// What may have been stored before is counted as handed out once more here: backends only carry that with the message.
pub trait DynDurableInbox: Send + std::marker::Sync + 'static {
    /// See [`DurableInbox::capability`].
    fn capability(&self) -> &InboxCapability;
    /// See [`DurableInbox::enqueue`].
    fn enqueue<'a>(
        &'a self,
        addresses: &'a [Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Enqueued>>;
    /// See [`DurableInbox::open`].
    fn open<'a>(&'a self, consumer: &'a Consumer, deadline: Instant) -> BoxFuture<'a, Result<()>>;
    /// See [`DurableInbox::fetch`].
    fn fetch<'a>(
        &'a self,
        consumer: &'a Consumer,
        fetch: Fetch,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Fetched>>;
    /// See [`DurableInbox::settle`].
    fn settle<'a>(
        &'a self,
        consumer: &'a Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<Settled>>>;
    /// See [`DurableInbox::cancel`].
    fn cancel<'a>(
        &'a self,
        multicast: MulticastId,
        identities: &'a [Identity],
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Result<bool>>>;
    /// See [`DurableInbox::discard`].
    fn discard<'a>(&'a self, address: &'a Address, deadline: Instant) -> BoxFuture<'a, Result<Discarded>>;
    /// See [`DurableInbox::depth`].
    fn depth<'a>(&'a self, identity: Option<&'a Identity>, deadline: Instant)
    -> BoxFuture<'a, Result<Depth>>;
    /// See [`DurableInbox::dead_letters`].
    fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> BoxFuture<'_, Result<DeadPage>>;
    /// See [`DurableInbox::redrive`].
    fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Redriven>>>;
    /// See [`DurableInbox::configure`].
    fn configure(&self, limits: InboxLimits, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    /// See [`DurableInbox::sweep`].
    fn sweep(&self, deadline: Instant) -> BoxFuture<'_, Result<Swept>>;
    /// See [`DurableInbox::probe`].
    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    /// See [`DurableInbox::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<I: DurableInbox> DynDurableInbox for I {
    fn capability(&self) -> &InboxCapability {
        DurableInbox::capability(self)
    }

    fn enqueue<'a>(
        &'a self,
        addresses: &'a [Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Enqueued>> {
        let capability = DurableInbox::capability(self);
        let (size, most) = (message.payload.len(), capability.max_payload);
        let refused = if size > most {
            Some(format!("the payload has {size} bytes, the slot takes {most}"))
        } else if Instant::now() >= deadline {
            Some("the deadline passed before its turn came".to_owned())
        } else {
            None
        };
        if let Some(why) = refused {
            let outcomes = vec![Enqueued::NotStored(why); addresses.len()];
            return Box::pin(std::future::ready(outcomes));
        }
        let store = DurableInbox::enqueue(self, addresses, message, terms, deadline);
        if capability.scope == Scope::Process {
            return Box::pin(store);
        }
        let backend = capability.backend;
        let given_up = move |_| {
            let why = format!("{backend} did not answer before the deadline");
            vec![Enqueued::Unknown(why); addresses.len()]
        };
        Box::pin(async move {
            let outcomes = timeout_at(deadline + GRACE, store).await;
            outcomes.unwrap_or_else(given_up)
        })
    }

    fn open<'a>(&'a self, consumer: &'a Consumer, deadline: Instant) -> BoxFuture<'a, Result<()>> {
        let call = DurableInbox::open(self, consumer, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn fetch<'a>(
        &'a self,
        consumer: &'a Consumer,
        fetch: Fetch,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Fetched>> {
        let call = bounded(
            self,
            deadline,
            DurableInbox::fetch(self, consumer, fetch, deadline),
        );
        Box::pin(async move { call.await.map(flagged) })
    }

    fn settle<'a>(
        &'a self,
        consumer: &'a Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Vec<Settled>>> {
        let call = DurableInbox::settle(self, consumer, verdicts, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn cancel<'a>(
        &'a self,
        multicast: MulticastId,
        identities: &'a [Identity],
        deadline: Instant,
    ) -> BoxFuture<'a, Vec<Result<bool>>> {
        let &InboxCapability { backend, scope, .. } = DurableInbox::capability(self);
        let late = move |applied| vec![Err(Error::Timeout { backend, applied }); identities.len()];
        if Instant::now() >= deadline {
            return Box::pin(std::future::ready(late(Applied::No)));
        }
        let cancel = DurableInbox::cancel(self, multicast, identities, deadline);
        if scope == Scope::Process {
            return Box::pin(cancel);
        }
        Box::pin(async move {
            let outcomes = timeout_at(deadline + GRACE, cancel).await;
            outcomes.unwrap_or_else(|_| late(Applied::Unknown))
        })
    }

    fn discard<'a>(&'a self, address: &'a Address, deadline: Instant) -> BoxFuture<'a, Result<Discarded>> {
        Box::pin(bounded(
            self,
            deadline,
            DurableInbox::discard(self, address, deadline),
        ))
    }

    fn depth<'a>(
        &'a self,
        identity: Option<&'a Identity>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Depth>> {
        let call = DurableInbox::depth(self, identity, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> BoxFuture<'_, Result<DeadPage>> {
        let call = DurableInbox::dead_letters(self, query, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Redriven>>> {
        let call = DurableInbox::redrive(self, letters, terms, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn configure(&self, limits: InboxLimits, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        let call = DurableInbox::configure(self, limits, deadline);
        Box::pin(bounded(self, deadline, call))
    }

    fn sweep(&self, deadline: Instant) -> BoxFuture<'_, Result<Swept>> {
        Box::pin(bounded(self, deadline, DurableInbox::sweep(self, deadline)))
    }

    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(bounded(self, deadline, DurableInbox::probe(self, deadline)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(DurableInbox::close(self))
    }
}

/// Has what may have been stored before say that it comes again.
fn flagged(mut fetched: Fetched) -> Fetched {
    for delivery in &mut fetched.deliveries {
        delivery.attempt += u32::from(delivery.message.again);
    }
    fetched
}

/// Ends a call at its deadline. A slot inside this process never waits, so it is not timed.
async fn bounded<T>(
    slot: &impl DurableInbox,
    deadline: Instant,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let capability = slot.capability();
    if capability.scope == Scope::Process {
        return call.await;
    }
    let late = Error::Timeout {
        backend: capability.backend,
        applied: Applied::Unknown,
    };
    timeout_at(deadline, call).await.unwrap_or(Err(late))
}
