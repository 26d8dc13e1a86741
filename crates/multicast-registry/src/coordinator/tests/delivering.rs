//! Delivery in depth: what is known of each target, stored messages, and everything that outlives a runner.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_slot::{DeadQuery, InboxLimits, MulticastId, Settled, Timestamp, Verdict, memory::ManualClock};
use tokio::sync::Notify;

use super::{
    super::{Config, Coordinator, Error, Multicast, Pages, Redrive, Replies, Session, SessionEvent},
    request,
};
use crate::{
    Delivery, Report, Stage, Status,
    delivery::Reply,
    testing::{
        Broker, Fate, Op, Store,
        durable::{Inboxes, Register, durability},
        id, soon,
    },
};

pub(super) struct Fixture {
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<Store>,
    pub(super) broker: Arc<Broker>,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) register: Arc<Register>,
    pub(super) coordinator: Coordinator,
}

pub(super) fn fixture() -> Fixture {
    fixture_with(InboxLimits::default())
}

pub(super) fn fixture_with(limits: InboxLimits) -> Fixture {
    fixture_of(limits, 64 << 20)
}

/// One whose ledger gives up what it can once it has so many bytes.
pub(super) fn fixture_of(limits: InboxLimits, ledger: usize) -> Fixture {
    let clock = Arc::new(ManualClock::new(Timestamp::now()));
    let (store, broker) = (Store::new(clock.clone()), Broker::new());
    let (inboxes, register) = (
        Inboxes::new(limits, clock.clone()),
        Register::new(ledger, clock.clone()),
    );
    let coordinator = runner(&store, &broker, &inboxes, &register);
    Fixture {
        clock,
        store,
        broker,
        inboxes,
        register,
        coordinator,
    }
}

fn runner(
    store: &Arc<Store>,
    broker: &Arc<Broker>,
    inboxes: &Arc<Inboxes>,
    register: &Arc<Register>,
) -> Coordinator {
    let mut config = Config::named("test");
    config.behavior.max_deliver = 3;
    let durability = durability(inboxes, register);
    Coordinator::new(config, store.clone(), broker.clone(), Some(durability))
}

impl Fixture {
    /// A second runner of the same namespace.
    pub(super) fn sibling(&self) -> Coordinator {
        runner(&self.store, &self.broker, &self.inboxes, &self.register)
    }

    pub(super) async fn register(&self, names: &[&str]) {
        for name in names {
            self.coordinator
                .register(request(name, "{}"), soon())
                .await
                .unwrap();
        }
    }

    pub(super) async fn session(&self, name: &str) -> Session {
        self.coordinator.subscribe(name, None, soon()).await.unwrap()
    }
}

/// Stored for all, without waiting for acknowledgments.
pub(super) fn stored(payload: &'static str) -> Multicast {
    Multicast {
        payload: Bytes::from_static(payload.as_bytes()),
        delivery: Some(Delivery::AtLeastOnce),
        ..Default::default()
    }
}

/// The same, waiting for them.
pub(super) fn acked(payload: &'static str) -> Multicast {
    Multicast {
        require: Some(Stage::Acked),
        ..stored(payload)
    }
}

pub(super) async fn event(session: &mut Session) -> SessionEvent {
    let next = tokio::time::timeout(Duration::from_secs(5), session.next());
    next.await
        .expect("an event in time")
        .expect("a session")
        .expect("that is open")
}

/// The next stored message: its multicast, its text and its attempt.
pub(super) async fn delivery(session: &mut Session) -> (MulticastId, String, u32) {
    loop {
        match event(session).await {
            SessionEvent::Stored(delivery) => {
                let text = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                return (delivery.message.multicast, text, delivery.attempt);
            }
            SessionEvent::Settled(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What became of words, whatever comes before.
async fn settled_at_last(session: &mut Session) -> Vec<(MulticastId, Settled)> {
    loop {
        match event(session).await {
            SessionEvent::Settled(settled) => return settled,
            SessionEvent::Stored(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn settled(session: &mut Session) -> Vec<(MulticastId, Settled)> {
    match event(session).await {
        SessionEvent::Settled(settled) => settled,
        other => panic!("{other:?}"),
    }
}

pub(super) fn told(report: &Report) -> Vec<(String, Status, Stage, &'static str)> {
    let mut told: Vec<_> = report
        .targets
        .iter()
        .map(|target| {
            (
                target.identity.to_string(),
                target.status(),
                target.stage(),
                target.reason(),
            )
        })
        .collect();
    told.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    told
}

pub(super) async fn known(
    coordinator: &Coordinator,
    id: MulticastId,
) -> Vec<(String, Status, Stage, &'static str)> {
    let all = Pages {
        limit: 1_000,
        ..Pages::default()
    };
    told(&coordinator.get_multicast(id, all, soon()).await.unwrap())
}

/// Waits until something is known of the only target.
pub(super) async fn until(coordinator: &Coordinator, id: MulticastId, stage: Stage, reason: &str) {
    let wait = async {
        loop {
            let known = known(coordinator, id).await;
            if matches!(&known[..], [(_, _, at, why)] if *at == stage && *why == reason) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(5), wait).await;
    assert!(waited.is_ok(), "{:?}", known(coordinator, id).await);
}

pub(super) fn one(
    name: &str,
    status: Status,
    stage: Stage,
    reason: &'static str,
) -> Vec<(String, Status, Stage, &'static str)> {
    vec![(name.to_owned(), status, stage, reason)]
}

/// A message waits for whoever is not there, and is pending until it is acknowledged.
#[tokio::test]
async fn stored_messages_wait_until_they_are_acknowledged() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let report = fixture
        .coordinator
        .multicast(stored("hello"), soon())
        .await
        .unwrap();
    assert_eq!(told(&report), one("a", Status::Pending, Stage::Stored, ""));
    let mut session = fixture.session("a").await;
    assert_eq!(delivery(&mut session).await, (report.id, "hello".to_owned(), 1));
    until(&fixture.coordinator, report.id, Stage::Handed, "").await;
    session.say(report.id, Verdict::Ack, None);
    assert_eq!(settled(&mut session).await, [(report.id, Settled::Done)]);
    until(&fixture.coordinator, report.id, Stage::Acked, "").await;
    session.say(report.id, Verdict::Ack, None);
    assert_eq!(settled(&mut session).await, [(report.id, Settled::Gone)]);
}

/// Whoever requires acknowledgments gets them within its time, from live sessions on any runner.
#[tokio::test]
async fn acknowledgments_find_their_way_home() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["here", "there", "nowhere"]).await;
    let consume = |mut session: Session| {
        tokio::spawn(async move {
            let (multicast, ..) = delivery(&mut session).await;
            session.say(multicast, Verdict::Ack, None);
            settled(&mut session).await;
            session
        })
    };
    let here = consume(fixture.session("here").await);
    let there = consume(sibling.subscribe("there", None, soon()).await.unwrap());
    let patient = Multicast {
        timeout: Some(Duration::from_millis(700)),
        ..acked("x")
    };
    let report = fixture.coordinator.multicast(patient, soon()).await.unwrap();
    let expected = [
        ("here".to_owned(), Status::Delivered, Stage::Acked, ""),
        ("nowhere".to_owned(), Status::Pending, Stage::Stored, ""),
        ("there".to_owned(), Status::Delivered, Stage::Acked, ""),
    ];
    assert_eq!(told(&report), expected);
    assert_eq!(report.tally.total(), 3);
    drop((here.await.unwrap(), there.await.unwrap()));
}

/// A runner that does not take what it is told holds up nothing that others are told.
#[tokio::test(start_paused = true)]
async fn a_silent_runner_delays_nobody_elses_receipts() {
    let fixture = fixture();
    let (silent, other) = (fixture.sibling(), fixture.sibling());
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    let handed = |payload| Multicast {
        payload: Bytes::from_static(payload),
        require: Some(Stage::Handed),
        ..Default::default()
    };
    fixture.broker.script.next(Op::Send, Fate::Hang);
    let waiting = tokio::spawn(async move { silent.multicast(handed(b"1"), soon()).await });
    event(&mut session).await;
    fixture.broker.script.reached(Op::Send, 1).await;
    let began = tokio::time::Instant::now();
    let told = tokio::spawn(async move { other.multicast(handed(b"2"), soon()).await });
    event(&mut session).await;
    let report = told.await.unwrap().unwrap();
    assert_eq!(report.targets.get(0).unwrap().stage(), Stage::Handed);
    // The clock stands still while there is something to do.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    waiting.abort();
}

/// At most once, too, more can be required than that the broker took it; and less is never claimed.
#[tokio::test]
async fn more_can_be_required_of_messages_that_are_sent_once() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["acks", "reads", "sleeps"]).await;
    let _asleep = fixture.session("sleeps").await;
    let mut reads = sibling.subscribe("reads", None, soon()).await.unwrap();
    let mut acks = sibling.subscribe("acks", None, soon()).await.unwrap();
    let readers = tokio::spawn(async move {
        event(&mut reads).await;
        let SessionEvent::Message(message) = event(&mut acks).await else {
            panic!("no message")
        };
        acks.say(message.multicast, Verdict::Ack, None);
        (reads, acks)
    });
    let strict = Multicast {
        require: Some(Stage::Acked),
        timeout: Some(Duration::from_millis(700)),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(strict, soon()).await.unwrap();
    let expected = [
        ("acks".to_owned(), Status::Delivered, Stage::Acked, ""),
        (
            "reads".to_owned(),
            Status::Timeout,
            Stage::Handed,
            "NOT_CONFIRMED",
        ),
        (
            "sleeps".to_owned(),
            Status::Timeout,
            Stage::Accepted,
            "NOT_CONFIRMED",
        ),
    ];
    assert_eq!(told(&report), expected);
    readers.await.unwrap();
    // Nobody else has these receipts; the runner that has them is asked.
    assert_eq!(known(&sibling, report.id).await, expected);
}

#[tokio::test]
async fn what_cannot_be_required_is_refused() {
    let fixture = fixture();
    for (delivery, require) in [
        (Delivery::AtMostOnce, Stage::Stored),
        (Delivery::AtMostOnce, Stage::Resolved),
        (Delivery::AtLeastOnce, Stage::Accepted),
    ] {
        let request = Multicast {
            delivery: Some(delivery),
            require: Some(require),
            ..Default::default()
        };
        let refused = fixture.coordinator.multicast(request, soon()).await;
        assert!(
            matches!(refused, Err(Error::InvalidArgument { field: "require", .. })),
            "{refused:?}"
        );
    }
}

/// Redelivered until it is acknowledged, and no more often than it may be; what is given up can be put back.
#[tokio::test]
async fn messages_come_again_until_they_are_given_up() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(delivery(&mut session).await.2, attempt);
        let delay = Duration::ZERO;
        session.say(report.id, Verdict::Nack { delay }, None);
        settled(&mut session).await;
    }
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    until(&fixture.coordinator, report.id, Stage::Handed, "MAX_DELIVER").await;
    let page = fixture
        .coordinator
        .dead_letters(DeadQuery::default(), soon())
        .await
        .unwrap();
    assert_eq!((page.letters.len(), page.letters[0].attempts), (1, 3));
    let redriven = fixture.coordinator.redrive(Redrive::All, soon()).await.unwrap();
    assert_eq!((redriven.back, redriven.full, redriven.gone), (1, 0, 0));
    assert_eq!(delivery(&mut session).await, (report.id, "x".to_owned(), 1));
    session.say(report.id, Verdict::Ack, None);
    settled(&mut session).await;
    until(&fixture.coordinator, report.id, Stage::Acked, "").await;
}

#[tokio::test]
async fn a_consumer_can_refuse_a_message() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    delivery(&mut session).await;
    let reason = "unreadable".to_owned();
    session.say(report.id, Verdict::Term { reason }, None);
    settled(&mut session).await;
    until(&fixture.coordinator, report.id, Stage::Handed, "TERMINATED").await;
    let all = Pages {
        limit: 1,
        ..Pages::default()
    };
    let report = fixture
        .coordinator
        .get_multicast(report.id, all, soon())
        .await
        .unwrap();
    assert!(
        report
            .targets
            .get(0)
            .unwrap()
            .error()
            .unwrap()
            .ends_with(": unreadable")
    );
}

/// What was not stored becomes no dead letter, and nobody is told that it did.
#[tokio::test]
async fn a_consumer_can_refuse_what_is_sent_once() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    for (reason, error) in [
        ("", "the consumer refused it"),
        ("unreadable", "the consumer refused it: unreadable"),
    ] {
        let strict = Multicast {
            require: Some(Stage::Acked),
            ..Default::default()
        };
        let coordinator = fixture.coordinator.clone();
        let sent = tokio::spawn(async move { coordinator.multicast(strict, soon()).await });
        let SessionEvent::Message(message) = event(&mut session).await else {
            panic!("no message")
        };
        let reason = reason.to_owned();
        session.say(message.multicast, Verdict::Term { reason }, None);
        settled(&mut session).await;
        let report = sent.await.unwrap().unwrap();
        assert_eq!(told(&report), one("a", Status::Failed, Stage::Handed, "REFUSED"));
        assert_eq!(report.targets.get(0).unwrap().error().as_deref(), Some(error));
        let letters = fixture
            .coordinator
            .dead_letters(DeadQuery::default(), soon())
            .await;
        assert!(letters.unwrap().letters.is_empty());
    }
}

/// What a consumer said last holds, and its sender learns of it, though it left at once.
#[tokio::test]
async fn the_last_word_of_a_consumer_is_heard() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let term = Verdict::Term {
        reason: "unreadable".to_owned(),
    };
    for (verdict, stage, reason) in [
        (Verdict::Ack, Stage::Acked, ""),
        (term, Stage::Handed, "TERMINATED"),
    ] {
        let mut session = fixture.session("a").await;
        let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
        delivery(&mut session).await;
        session.say(report.id, verdict, None);
        drop(session);
        until(&fixture.coordinator, report.id, stage, reason).await;
    }
}

/// What was out with a session that went away comes to the next one, flagged as a redelivery, wherever that is.
#[tokio::test]
async fn a_session_goes_on_where_the_one_before_ended() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    for text in ["1", "2", "3"] {
        fixture.coordinator.multicast(stored(text), soon()).await.unwrap();
    }
    let (first, ..) = delivery(&mut session).await;
    delivery(&mut session).await;
    session.say(first, Verdict::Ack, None);
    // It goes away with its word unsaid, which holds all the same.
    drop(session);
    fixture.inboxes.script.reached(Op::Settle, 1).await;
    let mut next = sibling.subscribe("a", None, soon()).await.unwrap();
    let rest = [delivery(&mut next).await, delivery(&mut next).await];
    let rest: Vec<(&str, bool)> = rest
        .iter()
        .map(|(_, text, attempt)| (text.as_str(), *attempt > 1))
        .collect();
    assert_eq!(rest, [("2", true), ("3", rest[1].1)]);
}

/// Whoever is handed a message again before the slot has answered to its first word is heard the second time, too.
#[tokio::test]
async fn a_word_counts_for_the_delivery_that_it_is_about() {
    let fixture = fixture();
    let sender = fixture.sibling();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    let asking = Multicast {
        replies: Some(Replies::default()),
        timeout: Some(Duration::from_secs(5)),
        ..stored("x")
    };
    let answer = Arc::new(Notify::new());
    let consume = async {
        let (multicast, _, attempt) = delivery(&mut session).await;
        assert_eq!(attempt, 1);
        let late = Fate::Late(answer.clone());
        fixture.inboxes.script.next(Op::Settle, late);
        let delay = Duration::ZERO;
        session.say(multicast, Verdict::Nack { delay }, None);
        let ring = async {
            fixture.inboxes.script.reached(Op::Settle, 1).await;
            fixture.coordinator.multicast(stored("y"), soon()).await.unwrap();
        };
        let (again, ()) = tokio::join!(delivery(&mut session), ring);
        assert_eq!((again.0, again.2), (multicast, 2));
        answer.notify_one();
        let done = [(multicast, Settled::Done)];
        assert_eq!(settled_at_last(&mut session).await, done);
        let reply = Reply {
            identity: id("a"),
            payload: "yes".into(),
            content_type: "text/plain".into(),
            headers: Vec::new(),
        };
        session.say(multicast, Verdict::Ack, Some(reply));
        assert_eq!(settled_at_last(&mut session).await, done);
    };
    let (report, ()) = tokio::join!(sender.multicast(asking, soon()), consume);
    let report = report.unwrap();
    assert_eq!(told(&report), one("a", Status::Delivered, Stage::Acked, ""));
    assert_eq!(report.replies[0].payload, "yes");
}

/// A consumer whose session was cut says in the next one what it had not been confirmed.
#[tokio::test]
async fn a_word_about_what_an_earlier_session_had_is_told() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    for (by, reader) in [(&fixture.coordinator, &fixture.coordinator), (&sibling, &sibling)] {
        let mut cut = fixture.session("a").await;
        let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
        delivery(&mut cut).await;
        let mut next = by.subscribe("a", None, soon()).await.unwrap();
        next.say(report.id, Verdict::Ack, None);
        let done = [(report.id, Settled::Done)];
        assert_eq!(settled_at_last(&mut next).await, done);
        until(reader, report.id, Stage::Acked, "").await;
        drop(cut);
    }
}

/// A consumer that has as many messages as it may and says nothing of them gets them again.
#[tokio::test]
async fn what_is_forgotten_comes_again_where_there_is_no_room() {
    let fixture = fixture();
    let mut config = (*fixture.coordinator.config()).clone();
    config.behavior.max_unacked = 1;
    config.behavior.ack_timeout = Duration::from_millis(20);
    fixture.coordinator.reconfigure(config);
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    for text in ["1", "2"] {
        fixture.coordinator.multicast(stored(text), soon()).await.unwrap();
    }
    let (first, text, attempt) = delivery(&mut session).await;
    assert_eq!((text.as_str(), attempt), ("1", 1));
    fixture.clock.advance(Duration::from_millis(25));
    let (again, _, attempt) = delivery(&mut session).await;
    assert_eq!((again, attempt), (first, 2));
    session.say(first, Verdict::Ack, None);
    assert_eq!(delivery(&mut session).await.1, "2");
}

/// A slot that has so much to do that a fetch takes longer than the consumer has for a message.
#[tokio::test]
async fn what_a_slow_slot_brings_is_handed_on() {
    let fixture = fixture();
    let mut config = (*fixture.coordinator.config()).clone();
    config.behavior.ack_timeout = Duration::from_millis(200);
    fixture.coordinator.reconfigure(config);
    fixture.register(&["a"]).await;
    let slow = Fate::Slow(Duration::from_millis(300));
    fixture.inboxes.script.always(Op::Fetch, slow);
    let mut session = fixture.session("a").await;
    fixture.coordinator.multicast(stored("1"), soon()).await.unwrap();
    assert_eq!(delivery(&mut session).await.1, "1");
}

#[tokio::test]
async fn credits_hold_messages_back() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    session.limit();
    for text in ["1", "2"] {
        fixture.coordinator.multicast(stored(text), soon()).await.unwrap();
    }
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    session.grant(2);
    let events = [event(&mut session).await, event(&mut session).await];
    assert!(
        events
            .iter()
            .all(|event| !matches!(event, SessionEvent::Gap { .. }))
    );
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    session.grant(1);
    event(&mut session).await;
}

/// Time is over for a message that nobody acknowledged, and its sender learns of it.
#[tokio::test]
async fn what_expires_is_known_to_have_failed() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let brief = Multicast {
        expires_in: Some(Duration::from_secs(60)),
        ..stored("x")
    };
    let report = fixture.coordinator.multicast(brief, soon()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(61));
    until(&fixture.coordinator, report.id, Stage::Stored, "EXPIRED").await;
}

#[tokio::test]
async fn a_full_inbox_is_a_failure_and_what_makes_room_too() {
    use prism_slot::Overflow;
    for (overflow, expected) in [
        (Overflow::Reject, ["", "INBOX_FULL"]),
        (Overflow::DropOldest, ["DISPLACED", ""]),
    ] {
        let fixture = fixture_with(InboxLimits {
            max_messages: 1,
            overflow,
            ..InboxLimits::default()
        });
        fixture.register(&["a"]).await;
        let first = fixture.coordinator.multicast(stored("1"), soon()).await.unwrap();
        let second = fixture.coordinator.multicast(stored("2"), soon()).await.unwrap();
        for (report, reason) in [first, second].iter().zip(expected) {
            let known = known(&fixture.coordinator, report.id).await;
            assert_eq!(known[0].3, reason, "{overflow:?}");
        }
    }
}

/// An inbox is dropped with its registration, which is told, and kept over the end of a lease.
#[tokio::test]
async fn an_inbox_outlives_a_lease_and_no_registration() {
    let fixture = fixture();
    let leased = super::super::Register {
        ttl: Some(Duration::from_secs(1)),
        ..request("leased", "{}")
    };
    fixture.coordinator.register(leased, soon()).await.unwrap();
    fixture.register(&["removed"]).await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(2));
    fixture
        .coordinator
        .unregister("removed", None, soon())
        .await
        .unwrap();
    let told = known(&fixture.coordinator, report.id).await;
    let of = |name: &str, status, reason: &'static str| (name.to_owned(), status, Stage::Stored, reason);
    let leased = of("leased", Status::Pending, "");
    assert_eq!(told, [leased, of("removed", Status::Failed, "UNREGISTERED")]);
    fixture.register(&["leased", "removed"]).await;
    let mut kept = fixture.session("leased").await;
    assert_eq!(delivery(&mut kept).await.1, "x");
    let mut dropped = fixture.session("removed").await;
    let waited = tokio::time::timeout(Duration::from_millis(50), dropped.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// What a session fetched and did not hand on counts as no attempt, however often its client comes and goes.
#[tokio::test]
async fn coming_and_going_uses_up_no_attempts() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    for text in ["1", "2"] {
        fixture.coordinator.multicast(stored(text), soon()).await.unwrap();
    }
    for round in 1..3 {
        let mut session = fixture.session("a").await;
        let (_, text, attempt) = delivery(&mut session).await;
        assert_eq!(
            (text.as_str(), attempt),
            ("1", round),
            "the second is fetched with it"
        );
        drop(session);
        let given_back = fixture.inboxes.script.reached(Op::Settle, round as usize);
        tokio::time::timeout(Duration::from_secs(5), given_back)
            .await
            .expect("it is given back");
    }
    let mut session = fixture.session("a").await;
    for expected in [("1", 3), ("2", 1)] {
        let (_, text, attempt) = delivery(&mut session).await;
        assert_eq!((text.as_str(), attempt), expected);
    }
}
