//! The cases of [`DurableInbox`](crate::DurableInbox).

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Case, InboxSubject, cases, deadline};
use crate::{
    Address, Consumer, DeadQuery, DeadReason, Delivery, Depth, DynDurableInbox, Enqueued, Epoch, Error,
    Fetch, Fetched, Holder, Identity, InboxCapability, InboxLimits, Message, MulticastId, Overflow, Priority,
    Redriven, Result, Settled, Terms, Ticket, Timestamp, Verdict, capability::Survives,
};

pub(super) type Open = dyn Fn(String, InboxLimits) -> BoxFuture<'static, InboxSubject> + Send + Sync;

pub(super) const CASES: &[Case<InboxCapability, Fixture>] = cases![
    messages_come_in_order,
    urgent_messages_come_first,
    inboxes_are_apart,
    namespaces_have_their_own_inboxes,
    stored_messages_arrive_unchanged,
    stored_messages_outlive_the_opening if |capability: &InboxCapability| capability.survives > Survives::Nothing,
    a_message_is_stored_once,
    a_full_inbox_rejects,
    the_oldest_makes_room,
    what_makes_room_is_told if |capability: &InboxCapability| capability.tells_losses,
    limits_apply_in_place,
    messages_expire,
    what_expires_is_told if |capability: &InboxCapability| capability.tells_losses,
    late_stores_store_nothing,
    a_new_consumer_gets_what_was_out,
    another_holder_inherits_nothing,
    the_latest_consumer_stays,
    attempts_are_counted,
    unsettled_messages_come_again,
    messages_that_are_out_wait,
    given_up_messages_are_dead_letters,
    fetches_are_bounded,
    only_the_consumer_fetches_and_settles,
    verdicts_hold,
    only_what_was_handed_out_is_settled,
    what_is_released_was_not_handed_out,
    what_is_not_out_can_be_cancelled,
    discarded_inboxes_are_empty,
    depths_are_told,
    dead_letters_are_bounded,
    dead_letters_can_go_back,
    payloads_over_the_limit_are_not_stored,
    a_closed_slot_refuses,
];

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

async fn messages_come_in_order(fixture: Fixture) {
    let slot = fixture.open().await;
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for text in &expected {
        slot.store("a", text).await;
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, expected);
}

async fn urgent_messages_come_first(fixture: Fixture) {
    let slot = fixture.open().await;
    for (text, priority) in [
        ("low", Priority::Low),
        ("normal 1", Priority::Normal),
        ("high 1", Priority::High),
        ("normal 2", Priority::Normal),
        ("high 2", Priority::High),
    ] {
        let terms = Terms { priority, ..terms() };
        assert_eq!(slot.enqueue(&["a"], &message(text), terms).await, [STORED]);
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(
        slot.texts(&consumer).await,
        ["high 1", "high 2", "normal 1", "normal 2", "low"]
    );
}

async fn inboxes_are_apart(fixture: Fixture) {
    let slot = fixture.open().await;
    let long = "é".repeat(128);
    let names = [
        "a", "a.b", "a.*", "a.>", "*", ">", ".", "a b", "a%20b", "a:b", "{a}", "$SYS", "A", "ключ", "a/b",
        "a\\b", "a'b", "\u{a0}", &long,
    ];
    for name in names {
        slot.store(name, name).await;
    }
    let shared = message("to all");
    let outcomes = slot.enqueue(&names, &shared, terms()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED), "{outcomes:?}");
    for name in names {
        let consumer = slot.consumer(name, 1).await;
        assert_eq!(slot.texts(&consumer).await, [name, "to all"]);
        assert_eq!(slot.settle(&consumer, &shared, Verdict::Ack).await, Settled::Done);
    }
    assert_eq!(slot.depth(None).await.messages, names.len() as u64);
}

async fn namespaces_have_their_own_inboxes(fixture: Fixture) {
    let here = fixture.open().await;
    let there = Subject((fixture.open)(format!("{}-other", fixture.namespace), InboxLimits::default()).await);
    here.store("a", "here").await;
    assert_eq!(there.depth(None).await.messages, 0);
    let consumer = there.consumer("a", 1).await;
    assert_eq!(there.fetch(&consumer).await, []);
}

async fn stored_messages_arrive_unchanged(fixture: Fixture) {
    let slot = fixture.open().await;
    let full = Arc::new(Message {
        payload: (0..=255).collect::<Vec<u8>>().into(),
        content_type: "application/json; charset=utf-8".into(),
        headers: vec![
            ("traceparent".into(), "00-0af7-b7ad-01".into()),
            ("x".into(), String::new()),
        ],
        reply_to: Some("questions".into()),
        expects_reply: true,
        expires_at: Some(Timestamp(1_900_000_000_000)),
        receipts: Some("here".into()),
        ..(*message("")).clone()
    });
    let empty = message("");
    assert_eq!(slot.enqueue(&["a"], &full, terms()).await, [STORED]);
    assert_eq!(slot.enqueue(&["a"], &empty, terms()).await, [STORED]);
    let consumer = slot.consumer("a", 1).await;
    let deliveries = slot.fetch(&consumer).await;
    let messages: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.message.clone())
        .collect();
    assert_eq!(messages, [full, empty]);
}

async fn stored_messages_outlive_the_opening(fixture: Fixture) {
    let slot = fixture.open().await;
    let kept = slot.store("a", "kept").await;
    let acked = slot.store("a", "acked").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 2);
    slot.settle(&consumer, &acked, Verdict::Ack).await;
    slot.slot().close().await;
    let again = fixture.open().await;
    assert_eq!(
        again.enqueue(&["a"], &acked, terms()).await,
        [Enqueued::Duplicate],
        "that it was here is remembered"
    );
    let deliveries = {
        let consumer = again.consumer("a", 2).await;
        again.fetch(&consumer).await
    };
    assert_eq!(deliveries.len(), 1);
    assert_eq!((&deliveries[0].message, deliveries[0].attempt), (&kept, 2));
}

async fn a_message_is_stored_once(fixture: Fixture) {
    let limits = InboxLimits {
        dedupe: LIFE,
        ..InboxLimits::default()
    };
    let slot = fixture.open_within(limits).await;
    let sent = message("once");
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [STORED]);
    assert_eq!(
        slot.enqueue(&["a", "b"], &sent, terms()).await,
        [Enqueued::Duplicate, STORED],
        "each inbox for itself"
    );
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["once"]);
    slot.settle(&consumer, &sent, Verdict::Ack).await;
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [Enqueued::Duplicate]);
    assert_eq!(slot.fetch(&consumer).await, []);
    slot.pass(LIFE * 2).await;
    assert_eq!(slot.enqueue(&["a"], &sent, terms()).await, [STORED]);
}

/// At most two messages, and what happens to one more.
fn two(overflow: Overflow) -> InboxLimits {
    InboxLimits {
        max_messages: 2,
        overflow,
        ..InboxLimits::default()
    }
}

async fn a_full_inbox_rejects(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::Reject)).await;
    for expected in [STORED, STORED, Enqueued::Full] {
        assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, [expected]);
    }
    assert_eq!(slot.enqueue(&["b"], &message("x"), terms()).await, [STORED]);
    let consumer = slot.consumer("a", 1).await;
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(
        slot.enqueue(&["a", "b"], &message("x"), terms()).await,
        [Enqueued::Full, STORED],
        "what is out counts"
    );
    slot.settle(&consumer, &deliveries[0].message, Verdict::Ack).await;
    assert_eq!(slot.enqueue(&["a"], &message("x"), terms()).await, [STORED]);
}

async fn the_oldest_makes_room(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::DropOldest)).await;
    for text in ["1", "2", "3"] {
        let outcomes = slot.enqueue(&["a"], &message(text), terms()).await;
        assert!(matches!(outcomes[..], [Enqueued::Stored { .. }]), "{outcomes:?}");
    }
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["2", "3"]);
}

async fn what_makes_room_is_told(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::DropOldest)).await;
    let first = Arc::new(Message {
        receipts: Some("here".into()),
        ..(*message("1")).clone()
    });
    let ticket = Some(Ticket::from(&*first));
    for (message, displaced) in [(first, None), (message("2"), None), (message("3"), ticket)] {
        let stored = slot.enqueue(&["a"], &message, terms()).await;
        assert_eq!(stored, [Enqueued::Stored { displaced }]);
    }
}

async fn limits_apply_in_place(fixture: Fixture) {
    let slot = fixture.open_within(two(Overflow::Reject)).await;
    slot.store("a", "1").await;
    slot.store("a", "2").await;
    assert_eq!(
        slot.enqueue(&["a"], &message("x"), terms()).await,
        [Enqueued::Full]
    );
    let three = InboxLimits {
        max_messages: 3,
        ..two(Overflow::Reject)
    };
    slot.slot().configure(three, deadline()).await.unwrap();
    slot.store("a", "3").await;
    assert_eq!(
        slot.enqueue(&["a"], &message("x"), terms()).await,
        [Enqueued::Full]
    );
    let three = InboxLimits {
        overflow: Overflow::DropOldest,
        ..three
    };
    slot.slot().configure(three, deadline()).await.unwrap();
    let outcomes = slot.enqueue(&["a"], &message("4"), terms()).await;
    assert!(matches!(outcomes[..], [Enqueued::Stored { .. }]), "{outcomes:?}");
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.texts(&consumer).await, ["2", "3", "4"]);
}

/// For a moment only.
fn brief() -> Terms {
    Terms { ttl: LIFE, ..terms() }
}

/// Everything that sweeping finds to have expired.
async fn sweep(slot: &Subject) -> Vec<(Identity, Ticket)> {
    let mut expired = Vec::new();
    loop {
        let swept = slot.slot().sweep(deadline()).await.unwrap();
        expired.extend(swept.expired);
        if !swept.more {
            return expired;
        }
    }
}

async fn messages_expire(fixture: Fixture) {
    let slot = fixture.open().await;
    let outcomes = slot.enqueue(&["a", "b"], &message("gone"), brief()).await;
    assert_eq!(outcomes, [STORED, STORED]);
    slot.store("a", "stays").await;
    let consumer = slot.consumer("a", 1).await;
    slot.pass(LIFE * 3).await;
    assert_eq!(slot.texts(&consumer).await, ["stays"]);
    sweep(&slot).await;
    assert_eq!(slot.depth(None).await.messages, 1);
    let other = slot.consumer("b", 1).await;
    assert_eq!(slot.fetch(&other).await, []);
}

async fn what_expires_is_told(fixture: Fixture) {
    let slot = fixture.open().await;
    let gone = Arc::new(Message {
        receipts: Some("here".into()),
        ..(*message("gone")).clone()
    });
    slot.enqueue(&["a", "b"], &gone, brief()).await;
    let consumer = slot.consumer("a", 1).await;
    slot.pass(LIFE * 3).await;
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    let mut expired = sweep(&slot).await;
    expired.extend(fetched.expired.into_iter().map(|ticket| (identity("a"), ticket)));
    expired.sort_by(|(one, _), (other, _)| one.cmp(other));
    let both = ["a", "b"].map(|name| (identity(name), Ticket::from(&*gone)));
    assert_eq!(expired, both, "each is told once, by a fetch or a sweep");
}

async fn late_stores_store_nothing(fixture: Fixture) {
    let slot = fixture.open().await;
    let late = slot
        .slot()
        .enqueue(&[address("a")], message("late"), terms(), Instant::now())
        .await;
    assert!(matches!(late.as_slice(), [Enqueued::NotStored(_)]), "{late:?}");
    assert_eq!(slot.depth(None).await.messages, 0);
}

async fn a_new_consumer_gets_what_was_out(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.store("a", "x").await;
    let first = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&first).await[0].attempt, 1);
    let second = slot.consumer("a", 2).await;
    assert_eq!(slot.fetch(&second).await[0].attempt, 2);
}

async fn another_holder_inherits_nothing(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "private").await;
    let mut other = consumer("a", 2);
    other.address.holder = Holder([2; 16]);
    slot.slot().open(&other, deadline()).await.unwrap();
    assert_eq!(slot.fetch(&other).await, []);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (&dead[0].reason, &dead[0].message),
        (&DeadReason::OtherHolder, &sent)
    );
    let own = message("own");
    let stored = slot
        .slot()
        .enqueue(&[other.address.clone()], own, terms(), deadline())
        .await;
    assert_eq!(stored, [STORED]);
    assert_eq!(slot.texts(&other).await, ["own"]);
    // Also what is stored for the one before after the other one came.
    slot.store("a", "late").await;
    let third = Consumer {
        session_seq: 3,
        ..other
    };
    slot.slot().open(&third, deadline()).await.unwrap();
    assert_eq!(slot.texts(&third).await, ["own"]);
}

async fn the_latest_consumer_stays(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.consumer("a", 5).await;
    slot.consumer("a", 5).await;
    let earlier = slot.slot().open(&consumer("a", 4), deadline()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("a"))));
    let other_epoch = Consumer {
        epoch: Epoch(8),
        ..consumer("a", 1)
    };
    slot.slot().open(&other_epoch, deadline()).await.unwrap();
    assert_eq!(slot.fetch(&other_epoch).await, []);
}

async fn attempts_are_counted(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    for attempt in 1..=4 {
        let deliveries = slot.fetch(&consumer).await;
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].attempt, attempt);
        let delay = Duration::ZERO;
        slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    }
}

async fn unsettled_messages_come_again(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    let due = fetched.next_due.unwrap();
    assert!(due > Duration::ZERO && due <= ACK_TIMEOUT, "{due:?}");
    slot.pass(ACK_TIMEOUT + SHORT).await;
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(
        (texts(&deliveries), deliveries[0].attempt),
        (vec!["x".to_owned()], 2)
    );
}

async fn messages_that_are_out_wait(fixture: Fixture) {
    let slot = fixture.open().await;
    let patient = Fetch {
        ack_timeout: Duration::from_secs(600),
        ..all()
    };
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(
        slot.try_fetch(&consumer, patient).await.unwrap().deliveries.len(),
        1
    );
    let fetched = slot.try_fetch(&consumer, patient).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert!(
        fetched.next_due.is_some_and(|due| due > Duration::from_secs(500)),
        "{:?}",
        fetched.next_due
    );
    let delay = SHORT;
    slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    let fetched = slot.try_fetch(&consumer, patient).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert!(
        fetched.next_due.is_some_and(|due| due <= SHORT),
        "{:?}",
        fetched.next_due
    );
    slot.pass(SHORT * 2).await;
    assert_eq!(
        slot.try_fetch(&consumer, patient).await.unwrap().deliveries.len(),
        1
    );
}

async fn given_up_messages_are_dead_letters(fixture: Fixture) {
    let slot = fixture.open().await;
    let twice = Fetch {
        max_deliver: 2,
        ..all()
    };
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    for _ in 0..2 {
        assert_eq!(
            slot.try_fetch(&consumer, twice).await.unwrap().deliveries.len(),
            1
        );
        let delay = Duration::ZERO;
        slot.settle(&consumer, &sent, Verdict::Nack { delay }).await;
    }
    let fetched = slot.try_fetch(&consumer, twice).await.unwrap();
    assert_eq!(fetched.deliveries, []);
    assert_eq!(fetched.dead, [(Ticket::from(&*sent), DeadReason::MaxDeliver)]);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (
            &dead[0].identity,
            &dead[0].reason,
            dead[0].attempts,
            &dead[0].message
        ),
        (&identity("a"), &DeadReason::MaxDeliver, 2, &sent)
    );
    let depth = slot.depth(Some("a")).await;
    assert_eq!((depth.messages, depth.out, depth.dead), (0, Some(0), 1));
}

async fn fetches_are_bounded(fixture: Fixture) {
    let slot = fixture.open().await;
    for number in 0..6 {
        slot.store("a", &format!("{number:0>100}")).await;
    }
    let consumer = slot.consumer("a", 1).await;
    let few = Fetch {
        max_messages: 2,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, few).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (2, true));
    let small = Fetch {
        max_bytes: 250,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, small).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (2, true));
    let tiny = Fetch {
        max_bytes: 1,
        ..all()
    };
    let fetched = slot.try_fetch(&consumer, tiny).await.unwrap();
    assert_eq!(
        (fetched.deliveries.len(), fetched.more),
        (1, true),
        "one always comes"
    );
    let fetched = slot.try_fetch(&consumer, all()).await.unwrap();
    assert_eq!((fetched.deliveries.len(), fetched.more), (1, false));
}

async fn only_the_consumer_fetches_and_settles(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let first = slot.consumer("a", 1).await;
    slot.fetch(&first).await;
    let second = slot.consumer("a", 2).await;
    let fenced = Error::Fenced(identity("a"));
    assert_eq!(slot.try_fetch(&first, all()).await, Err(fenced.clone()));
    let verdicts = vec![(sent.multicast, Verdict::Ack)];
    let settled = slot.slot().settle(&first, verdicts, deadline()).await;
    assert_eq!(settled, Err(fenced.clone()));
    let never_opened = consumer("b", 1);
    let fetched = slot.try_fetch(&never_opened, all()).await;
    assert_eq!(fetched, Err(Error::Fenced(identity("b"))));
    assert_eq!(
        slot.texts(&second).await,
        ["x"],
        "nothing that the first one said holds"
    );
}

async fn verdicts_hold(fixture: Fixture) {
    let slot = fixture.open().await;
    let messages = [
        slot.store("a", "ack").await,
        slot.store("a", "nack").await,
        slot.store("a", "term").await,
    ];
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 3);
    let reason = "unreadable".to_owned();
    let delay = Duration::ZERO;
    let verdicts = [
        Verdict::Ack,
        Verdict::Nack { delay },
        Verdict::Term {
            reason: reason.clone(),
        },
    ];
    let mut said: Vec<_> = messages
        .iter()
        .map(|message| message.multicast)
        .zip(verdicts)
        .collect();
    said.push((MulticastId::random(), Verdict::Ack));
    let settled = slot.slot().settle(&consumer, said, deadline()).await.unwrap();
    assert_eq!(
        settled,
        [Settled::Done, Settled::Done, Settled::Done, Settled::Gone]
    );
    assert_eq!(
        slot.settle(&consumer, &messages[0], Verdict::Ack).await,
        Settled::Gone
    );
    assert_eq!(slot.texts(&consumer).await, ["nack"]);
    let dead = slot.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (&dead[0].reason, dead[0].attempts),
        (&DeadReason::Terminated(reason), 1)
    );
    assert_eq!(dead[0].message, messages[2]);
}

async fn only_what_was_handed_out_is_settled(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    let reason = "unreadable".to_owned();
    let verdicts = [
        Verdict::Ack,
        Verdict::Nack { delay: LIFE * 600 },
        Verdict::Term {
            reason: reason.clone(),
        },
    ];
    for verdict in &verdicts {
        assert_eq!(
            slot.settle(&consumer, &sent, verdict.clone()).await,
            Settled::Gone,
            "{verdict:?}"
        );
    }
    assert_eq!(slot.texts(&consumer).await, ["x"]);
    assert_eq!(
        slot.settle(&consumer, &sent, Verdict::Term { reason }).await,
        Settled::Done
    );
    let letters = slot
        .dead()
        .await
        .into_iter()
        .map(|letter| (letter.id, address("a")))
        .collect();
    let redriven = slot.slot().redrive(letters, terms(), deadline()).await.unwrap();
    assert_eq!(redriven, [Redriven::Back]);
    for verdict in verdicts {
        assert_eq!(
            slot.settle(&consumer, &sent, verdict).await,
            Settled::Gone,
            "a word of its former life"
        );
    }
    assert_eq!(slot.texts(&consumer).await, ["x"]);
}

async fn what_is_released_was_not_handed_out(fixture: Fixture) {
    let slot = fixture.open().await;
    let (first, second) = (slot.store("a", "1").await, slot.store("a", "2").await);
    let consumer = slot.consumer("a", 1).await;
    for attempt in [1, 2] {
        let fetched = slot.fetch(&consumer).await;
        let attempts: Vec<u32> = fetched.iter().map(|delivery| delivery.attempt).collect();
        assert_eq!(attempts, [1, attempt]);
        assert_eq!(
            slot.settle(&consumer, &first, Verdict::Release).await,
            Settled::Done
        );
        assert_eq!(
            slot.settle(&consumer, &first, Verdict::Release).await,
            Settled::Gone
        );
        assert_eq!(slot.settle(&consumer, &first, Verdict::Ack).await, Settled::Gone);
        let delay = Duration::ZERO;
        assert_eq!(
            slot.settle(&consumer, &second, Verdict::Nack { delay }).await,
            Settled::Done
        );
    }
}

async fn what_is_not_out_can_be_cancelled(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = message("x");
    slot.enqueue(&["a", "b"], &sent, terms()).await;
    slot.store("b", "stays").await;
    let consumer = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&consumer).await.len(), 1);
    let names = ["a", "b", "c"].map(identity);
    let cancelled = slot
        .slot()
        .cancel(sent.multicast, &names, deadline())
        .await
        .unwrap();
    assert_eq!(cancelled, [false, true, false], "out, waiting, never there");
    let other = slot.consumer("b", 1).await;
    assert_eq!(slot.texts(&other).await, ["stays"]);
    assert_eq!(slot.settle(&consumer, &sent, Verdict::Ack).await, Settled::Done);
}

async fn discarded_inboxes_are_empty(fixture: Fixture) {
    let slot = fixture.open().await;
    slot.store("a", "1").await;
    slot.store("a", "2").await;
    slot.store("b", "stays").await;
    let consumer = slot.consumer("a", 1).await;
    let mut other = address("a");
    other.holder = Holder([2; 16]);
    assert_eq!(
        slot.slot().discard(&other, deadline()).await,
        Ok(0),
        "another one's"
    );
    assert_eq!(slot.texts(&consumer).await, ["1", "2"]);
    assert_eq!(slot.slot().discard(&address("a"), deadline()).await, Ok(2));
    assert_eq!(slot.slot().discard(&address("a"), deadline()).await, Ok(0));
    assert_eq!(
        slot.try_fetch(&consumer, all()).await,
        Err(Error::Fenced(identity("a")))
    );
    assert_eq!(slot.depth(None).await.messages, 1);
    // Its sessions may be counted from the beginning.
    let again = slot.consumer("a", 1).await;
    assert_eq!(slot.fetch(&again).await, []);
}

async fn depths_are_told(fixture: Fixture) {
    let slot = fixture.open().await;
    for text in ["1", "2", "3"] {
        slot.store("a", text).await;
    }
    slot.store("b", "1").await;
    let consumer = slot.consumer("a", 1).await;
    let two = Fetch {
        max_messages: 2,
        ack_timeout: Duration::from_secs(600),
        ..all()
    };
    slot.try_fetch(&consumer, two).await.unwrap();
    let depth = |messages, out| Depth {
        messages,
        out: Some(out),
        dead: 0,
    };
    assert_eq!(slot.depth(Some("a")).await, depth(3, 2));
    assert_eq!(slot.depth(Some("b")).await, depth(1, 0));
    assert_eq!(slot.depth(Some("c")).await, depth(0, 0));
    let all = slot.depth(None).await;
    assert!(all.out.is_none_or(|out| out == 2), "{all:?}");
    assert_eq!((all.messages, all.dead), (4, 0));
}

async fn dead_letters_are_bounded(fixture: Fixture) {
    let limits = InboxLimits {
        max_dead_letters: 3,
        ..InboxLimits::default()
    };
    let slot = fixture.open_within(limits).await;
    let consumer = slot.consumer("a", 1).await;
    for number in 0..5 {
        let sent = slot.store("a", &number.to_string()).await;
        slot.fetch(&consumer).await;
        let reason = String::new();
        slot.settle(&consumer, &sent, Verdict::Term { reason }).await;
    }
    let payloads = |letters: &[crate::DeadLetter]| {
        let text = |letter: &crate::DeadLetter| String::from_utf8(letter.message.payload.to_vec()).unwrap();
        letters.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(
        payloads(&slot.dead().await),
        ["2", "3", "4"],
        "the oldest made room"
    );
    let page = |after, identity| DeadQuery {
        after,
        identity,
        limit: 2,
    };
    let first = slot
        .slot()
        .dead_letters(page(None, None), deadline())
        .await
        .unwrap();
    assert_eq!(
        (payloads(&first.letters), first.more),
        (vec!["2".into(), "3".into()], true)
    );
    let after = first.letters.last().map(|letter| letter.id);
    let second = slot
        .slot()
        .dead_letters(page(after, None), deadline())
        .await
        .unwrap();
    assert_eq!(
        (payloads(&second.letters), second.more),
        (vec!["4".into()], false)
    );
    let of_another = page(None, Some(identity("b")));
    let nothing = slot.slot().dead_letters(of_another, deadline()).await.unwrap();
    assert_eq!((nothing.letters.len(), nothing.more), (0, false));
}

async fn dead_letters_can_go_back(fixture: Fixture) {
    let slot = fixture.open().await;
    let sent = slot.store("a", "x").await;
    let consumer = slot.consumer("a", 1).await;
    slot.fetch(&consumer).await;
    let reason = "not now".to_owned();
    slot.settle(&consumer, &sent, Verdict::Term { reason }).await;
    let id = slot.dead().await[0].id;
    let redrive = |name: &str| {
        let letters = vec![(id, address(name))];
        let call = slot.slot().redrive(letters, terms(), deadline());
        async { call.await.unwrap() }
    };
    assert_eq!(redrive("b").await, [Redriven::Gone], "it is for another identity");
    slot.store("a", "y").await;
    let one = InboxLimits {
        max_messages: 1,
        ..InboxLimits::default()
    };
    slot.slot().configure(one, deadline()).await.unwrap();
    assert_eq!(redrive("a").await, [Redriven::Full]);
    slot.slot()
        .configure(InboxLimits::default(), deadline())
        .await
        .unwrap();
    assert_eq!(redrive("a").await, [Redriven::Back]);
    assert_eq!(redrive("a").await, [Redriven::Gone]);
    let deliveries = slot.fetch(&consumer).await;
    assert_eq!(texts(&deliveries), ["y", "x"]);
    assert_eq!((deliveries[1].attempt, &deliveries[1].message), (1, &sent));
    assert_eq!(slot.settle(&consumer, &sent, Verdict::Ack).await, Settled::Done);
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
