//! The cases of [`DurableInbox`](crate::DurableInbox).

mod dead;
mod faults;
mod handing;
mod lasting;
mod settling;
mod storing;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{
    InboxOpen as Open, InboxSubject,
    cases::{Case, FaultCase, cases, fault_cases},
    deadline,
    fault::Scene,
};
use crate::{
    Address, Consumer, DeadQuery, DeadReason, Delivery, Depth, DynDurableInbox, Enqueued, Epoch, Error,
    Fetch, Fetched, Holder, Identity, InboxCapability, InboxLimits, Message, MulticastId, Overflow, Priority,
    Redriven, Result, Settled, Terms, Ticket, Timestamp, Verdict, capability::Survives,
};
use dead::*;
pub(super) use faults::roomy;
use faults::*;
use handing::*;
pub(super) use lasting::work;
use lasting::*;
use settling::*;
use storing::*;

pub(super) const CASES: &[Case<InboxCapability, Fixture>] = cases![
    messages_come_in_order,
    urgent_messages_come_first,
    inboxes_are_apart,
    namespaces_have_their_own_inboxes,
    stored_messages_arrive_unchanged,
    stored_messages_outlive_the_opening if |capability: &InboxCapability| capability.survives > Survives::Nothing,
    a_message_is_stored_once,
    what_may_have_been_stored_before_is_flagged,
    a_full_inbox_rejects,
    the_oldest_makes_room,
    what_makes_room_is_told if |capability: &InboxCapability| capability.tells_losses,
    limits_apply_in_place,
    a_lower_limit_removes_nothing,
    messages_expire,
    what_expires_is_told if |capability: &InboxCapability| capability.tells_losses,
    late_stores_store_nothing,
    a_new_consumer_gets_what_was_out,
    another_holder_inherits_nothing,
    each_inbox_has_its_own_holder,
    the_latest_consumer_stays,
    attempts_are_counted,
    unsettled_messages_come_again,
    some_come_back_while_others_are_out,
    messages_that_are_out_wait,
    given_up_messages_are_dead_letters,
    fetches_are_bounded,
    only_the_consumer_fetches_and_settles,
    verdicts_hold,
    only_what_was_handed_out_is_settled,
    what_is_released_was_not_handed_out,
    what_is_not_out_can_be_cancelled,
    discarded_inboxes_are_empty,
    quiet_sessions_open_again,
    depths_are_told,
    dead_letters_are_bounded,
    dead_letters_can_go_back,
    payloads_over_the_limit_are_not_stored,
    a_closed_slot_refuses,
];

pub(super) const FAULTS: &[FaultCase<InboxCapability, Scene<Open>>] = fault_cases![
    BlackHole: calls_end_in_the_dark =>
        "every call ends by its deadline, with an error; of a store it is said that it is not, or may be, stored; stored \
         again, the message is there once; the slot goes on by itself",
    Frozen: calls_end_while_the_backend_stands_still => "as before",
    LostReplies: lost_answers_are_found_out =>
        "a store is said to be unknown, and stored again it is a duplicate, settled or not; what was settled does not come \
         again",
    Cut: a_store_for_many_that_is_cut_is_told_one_by_one =>
        "each inbox is told for itself: stored is there, not stored is not there, the rest is unknown until it is stored \
         again, and the message is there once",
    Cut: verdicts_that_are_cut_hold_or_are_unknown =>
        "what was said to be settled does not come again; what is unknown is said again",
    Cut: a_cancellation_that_is_cut_is_told_one_by_one =>
        "each inbox is told for itself: taken back is gone, not taken back is there, the rest is unknown, and cancelled \
         again it is gone",
    Restarted: stored_messages_outlive_a_restart if outlives_runners =>
        "what was stored is there, if the server was told to write it to its disk first; what was settled does not come \
         again, and attempts go on",
    Killed: stored_messages_outlive_kills if outlives_runners =>
        "as after a restart, whatever was under way",
    Emptied: lost_messages_are_stored_as_new =>
        "inboxes are empty, the session opens its own again, and what is stored again is new",
    DiskFull: a_full_disk_refuses_and_loses_nothing =>
        "what needs room is refused and certainly not stored, what was stored is there, and with room again it goes on by \
         itself",
];

fn outlives_runners(capability: &InboxCapability) -> bool {
    capability.survives >= Survives::RunnerRestart
}

/// How long an acknowledgment may take in these cases.
const ACK_TIMEOUT: Duration = Duration::from_millis(600);
/// How long a short while is.
const SHORT: Duration = Duration::from_millis(400);
/// How long a message lives that does not live long. Some backends know only whole seconds.
const LIFE: Duration = Duration::from_secs(1);

/// How a case opens the slot, and a namespace of its own.
pub(super) struct Fixture {
    pub(super) open: Arc<Open>,
    pub(super) namespace: String,
}

impl Fixture {
    async fn open(&self) -> Subject {
        self.open_within(InboxLimits::default()).await
    }

    async fn open_within(&self, limits: InboxLimits) -> Subject {
        Subject((self.open)(self.namespace.clone(), limits).await)
    }
}

/// A slot, and how the cases use it.
struct Subject(InboxSubject);

impl Subject {
    fn slot(&self) -> &Arc<dyn DynDurableInbox> {
        &self.0.slot
    }

    async fn pass(&self, by: Duration) {
        (self.0.pass)(by).await;
    }

    async fn enqueue(&self, names: &[&str], message: &Arc<Message>, terms: Terms) -> Vec<Enqueued> {
        let addresses: Vec<Address> = names.iter().map(|name| address(name)).collect();
        self.slot()
            .enqueue(&addresses, message.clone(), terms, deadline())
            .await
    }

    async fn store(&self, name: &str, text: &str) -> Arc<Message> {
        let message = message(text);
        assert_eq!(self.enqueue(&[name], &message, terms()).await, [STORED]);
        message
    }

    /// Makes a session the consumer.
    async fn consumer(&self, name: &str, session_seq: u64) -> Consumer {
        let consumer = consumer(name, session_seq);
        self.slot().open(&consumer, deadline()).await.unwrap();
        consumer
    }

    /// Drops what is in an inbox, in as many calls as that takes.
    async fn discard(&self, address: &Address) -> Vec<Ticket> {
        let mut dropped = Vec::new();
        loop {
            let discarded = self.slot().discard(address, deadline()).await.unwrap();
            dropped.extend(discarded.dropped);
            if !discarded.more {
                return dropped;
            }
        }
    }

    async fn try_fetch(&self, consumer: &Consumer, fetch: Fetch) -> Result<Fetched> {
        self.slot().fetch(consumer, fetch, deadline()).await
    }

    async fn fetch(&self, consumer: &Consumer) -> Vec<Delivery> {
        self.try_fetch(consumer, all()).await.unwrap().deliveries
    }

    async fn texts(&self, consumer: &Consumer) -> Vec<String> {
        texts(&self.fetch(consumer).await)
    }

    async fn settle(&self, consumer: &Consumer, message: &Message, verdict: Verdict) -> Settled {
        let verdicts = vec![(message.multicast, verdict)];
        let settled = self.slot().settle(consumer, verdicts, deadline()).await.unwrap();
        assert_eq!(settled.len(), 1);
        settled[0]
    }

    async fn depth(&self, name: Option<&str>) -> Depth {
        let identity = name.map(identity);
        self.slot().depth(identity.as_ref(), deadline()).await.unwrap()
    }

    async fn dead(&self) -> Vec<crate::DeadLetter> {
        let query = DeadQuery {
            limit: 1_000,
            ..DeadQuery::default()
        };
        let page = self.slot().dead_letters(query, deadline()).await.unwrap();
        assert!(!page.more);
        page.letters
    }
}

const STORED: Enqueued = Enqueued::Stored { displaced: None };

fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn address(name: &str) -> Address {
    Address {
        identity: identity(name),
        holder: Holder([1; 16]),
    }
}

fn consumer(name: &str, session_seq: u64) -> Consumer {
    Consumer {
        address: address(name),
        epoch: Epoch(7),
        session_seq,
    }
}

fn terms() -> Terms {
    Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    }
}

fn all() -> Fetch {
    Fetch {
        max_messages: 100,
        max_bytes: 1 << 20,
        ack_timeout: ACK_TIMEOUT,
        max_deliver: 10,
    }
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        content_type: "text/plain".into(),
        published_at: Timestamp(1_700_000_000_123),
        ..Message::new(MulticastId::random(), text.to_owned())
    })
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let text = |delivery: &Delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap();
    deliveries.iter().map(text).collect()
}

async fn payloads_over_the_limit_are_not_stored(fixture: Fixture) {
    let slot = fixture.open().await;
    let most = slot.slot().capability().max_payload;
    let large = Arc::new(Message {
        payload: vec![0; most + 1].into(),
        ..(*message("")).clone()
    });
    let outcomes = slot.enqueue(&["a", "b"], &large, terms()).await;
    assert!(
        matches!(
            outcomes.as_slice(),
            [Enqueued::NotStored(_), Enqueued::NotStored(_)]
        ),
        "{outcomes:?}"
    );
    let fits = Arc::new(Message {
        payload: vec![0; most.min(256 << 10)].into(),
        ..(*message("")).clone()
    });
    assert_eq!(slot.enqueue(&["a"], &fits, terms()).await, [STORED]);
}

async fn a_closed_slot_refuses(fixture: Fixture) {
    let slot = fixture.open().await;
    let consumer = slot.consumer("a", 1).await;
    slot.slot().probe(deadline()).await.unwrap();
    slot.slot().close().await;
    let stored = slot.enqueue(&["a"], &message("x"), terms()).await;
    assert!(
        matches!(stored.as_slice(), [Enqueued::NotStored(_)]),
        "{stored:?}"
    );
    for refused in [
        slot.try_fetch(&consumer, all()).await.map(drop),
        slot.slot().open(&consumer, deadline()).await,
        slot.slot().probe(deadline()).await,
    ] {
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
}
