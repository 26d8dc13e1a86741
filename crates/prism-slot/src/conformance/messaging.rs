//! The cases of [`Messaging`](crate::Messaging).

mod faults;
mod posts;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{
    CALL_LIMIT, MessagingOpen as Open, Options,
    cases::{Case, FaultCase, cases, fault_cases},
    deadline,
    fault::Scene,
};
use crate::{
    DynMessaging, Error, GapReason, Identity, Kind, Listener, Message, MessagingCapability, MulticastId,
    Outcome, Received, Room, Scope, Timestamp,
};
use faults::*;
use posts::*;

pub(super) const CASES: &[Case<MessagingCapability, Fixture>] = cases![
    publish_reaches_every_listener,
    messages_arrive_unchanged,
    identities_never_share_an_address,
    publish_knows_who_listens,
    publish_ends_by_its_deadline,
    accepted_messages_keep_their_order,
    a_listener_hears_from_the_start,
    a_slow_listener_gets_a_gap,
    a_slow_listener_of_large_messages_gets_a_gap,
    dropping_a_listener_ends_it,
    payloads_over_the_limit_are_not_sent,
    closing_ends_listeners_and_calls,
    notes_reach_their_address,
    notes_to_nobody_are_noticed,
    notes_to_every_post_reach_all,
    a_full_post_counts_what_it_drops,
    openings_reach_each_other if |capability: &MessagingCapability| capability.scope == Scope::Shared,
    namespaces_are_apart if |capability: &MessagingCapability| capability.scope == Scope::Shared,
];

pub(super) const FAULTS: &[FaultCase<MessagingCapability, Scene<Open>>] = fault_cases![
    BlackHole: calls_end_in_the_dark =>
        "every call ends by its deadline; of a publish it is said that it is not, or may be, sent; the slot goes on by \
         itself, and nothing is heard twice",
    Frozen: calls_end_while_the_broker_stands_still => "as before",
    LostReplies: lost_answers_leave_it_unknown => "a publish is said to be unknown, and is not sent again",
    Cut: a_publish_to_many_that_is_cut_is_told_one_by_one =>
        "each target is told for itself: accepted was heard, not sent was not, the rest is unknown, and nothing is heard \
         twice",
    Restarted: listeners_resume_after_a_restart =>
        "listeners hear again by themselves, after a gap that they are told of; what was accepted is heard, or stands in \
         the gap",
    Killed: listeners_resume_after_kills => "as after a restart, whatever was under way",
];

/// How a case opens the slot, and a namespace of its own.
pub(super) struct Fixture {
    pub(super) open: Arc<Open>,
    pub(super) namespace: String,
}

impl Fixture {
    async fn open(&self) -> Arc<dyn DynMessaging> {
        (self.open)(self.namespace.clone(), Options::default()).await
    }
}

fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        content_type: "text/plain".into(),
        published_at: Timestamp(1_700_000_000_123),
        ..Message::new(MulticastId::random(), text.to_owned())
    })
}

async fn listen(slot: &Arc<dyn DynMessaging>, name: &str) -> Listener {
    slot.listen(&identity(name), deadline()).await.unwrap()
}

async fn publish(slot: &Arc<dyn DynMessaging>, names: &[&str], message: &Arc<Message>) -> Vec<Outcome> {
    let targets: Vec<Identity> = names.iter().copied().map(identity).collect();
    slot.publish_batch(&targets, message.clone(), deadline()).await
}

async fn next(listener: &mut Listener) -> Received {
    timeout(CALL_LIMIT, listener.next())
        .await
        .expect("nothing received in time")
        .expect("the listener ended")
}

async fn expect(listener: &mut Listener, message: &Arc<Message>) {
    assert_eq!(next(listener).await, Received::Message(message.clone()));
}

async fn publish_reaches_every_listener(fixture: Fixture) {
    let slot = fixture.open().await;
    let (mut a1, mut a2, mut b) = (
        listen(&slot, "a").await,
        listen(&slot, "a").await,
        listen(&slot, "b").await,
    );
    let (first, second) = (message("first"), message("second"));
    assert_eq!(
        publish(&slot, &["a", "b"], &first).await,
        [Outcome::Accepted, Outcome::Accepted]
    );
    assert_eq!(publish(&slot, &["b"], &second).await, [Outcome::Accepted]);
    for listener in [&mut a1, &mut a2, &mut b] {
        expect(listener, &first).await;
    }
    expect(&mut b, &second).await;
    assert_eq!(publish(&slot, &["a"], &second).await, [Outcome::Accepted]);
    expect(&mut a1, &second).await;
}

async fn messages_arrive_unchanged(fixture: Fixture) {
    let slot = fixture.open().await;
    let mut listener = listen(&slot, "a").await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let all: Vec<u8> = (0..=255).collect();
    let full = Message {
        payload: Bytes::from(all),
        content_type: "application/json; charset=utf-8".into(),
        headers: vec![
            ("traceparent".into(), traceparent.into()),
            ("x-note".into(), "one: two".into()),
        ],
        reply_to: Some("questions.to/me".into()),
        expects_reply: true,
        expires_at: Some(Timestamp(1_900_000_000_000)),
        receipts: Some(slot.post(deadline()).await.unwrap().address().clone()),
        ..(*message("")).clone()
    };
    let superseded = Message {
        kind: Kind::Superseded {
            session_seq: u64::MAX,
        },
        ..(*message("")).clone()
    };
    for sent in [full, superseded, (*message("")).clone()] {
        let sent = Arc::new(sent);
        assert_eq!(publish(&slot, &["a"], &sent).await, [Outcome::Accepted]);
        expect(&mut listener, &sent).await;
    }
}

async fn identities_never_share_an_address(fixture: Fixture) {
    let slot = fixture.open().await;
    let long = "é".repeat(128);
    let names = [
        "a", "a.b", "a.*", "a.>", "*", ">", ".", "a b", "a%20b", "a%2Eb", "%", "_", "__", "$SYS", "a_b", "A",
        "ключ", "a/b", "a\\b", "a=b", "=2E", "a=2Eb", "\u{a0}", &long,
    ];
    let mut listeners = Vec::new();
    for name in names {
        listeners.push(listen(&slot, name).await);
    }
    for (name, listener) in names.iter().zip(&mut listeners) {
        let sent = message(name);
        assert_eq!(
            publish(&slot, &[name], &sent).await,
            [Outcome::Accepted],
            "{name}"
        );
        expect(listener, &sent).await;
    }
    // Whatever had reached a wrong listener would be read before this.
    let last = message("last");
    assert!(
        publish(&slot, &names, &last)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Accepted)
    );
    for listener in &mut listeners {
        expect(listener, &last).await;
    }
}

async fn publish_knows_who_listens(fixture: Fixture) {
    let slot = fixture.open().await;
    let names: Vec<String> = (0..200).map(|number| format!("id-{number}")).collect();
    let mut listeners = Vec::new();
    for name in names.iter().step_by(2) {
        listeners.push(listen(&slot, name).await);
    }
    let targets: Vec<&str> = names.iter().map(String::as_str).collect();
    let outcomes = publish(&slot, &targets, &message("hello")).await;
    assert_eq!(outcomes.len(), 200);
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = if number % 2 == 0 {
            Outcome::Accepted
        } else {
            Outcome::NoSubscriber
        };
        assert_eq!(*outcome, expected, "id-{number}");
    }
    assert_eq!(publish(&slot, &[], &message("nobody")).await, []);
}

/// What is not known by then is not known; what is accepted is heard, and what is not sent is not.
async fn publish_ends_by_its_deadline(fixture: Fixture) {
    let slot = fixture.open().await;
    let mut listener = listen(&slot, "a").await;
    let targets = vec![identity("a"); 100];
    let (mut told, mut heard) = (Vec::new(), Vec::new());
    for micros in [0, 100, 300, 1_000, 3_000] {
        let late = message("late");
        let deadline = Instant::now() + Duration::from_micros(micros);
        let call = slot.publish_batch(&targets, late.clone(), deadline);
        let outcomes = timeout(CALL_LIMIT / 5, call).await.expect("waited on");
        assert_eq!(outcomes.len(), 100);
        assert!(!outcomes.contains(&Outcome::NoSubscriber), "{outcomes:?}");
        let is_heard = |outcome: &&Outcome| **outcome == Outcome::Accepted;
        let may_be = |outcome: &&Outcome| matches!(outcome, Outcome::Accepted | Outcome::Unknown(_));
        let least = outcomes.iter().filter(is_heard).count();
        told.push((late, (least, outcomes.iter().filter(may_be).count())));
        // Whatever came of it, the slot goes on.
        let end = message("in time");
        assert_eq!(publish(&slot, &["a"], &end).await, [Outcome::Accepted]);
        loop {
            match next(&mut listener).await {
                Received::Message(message) if message == end => break,
                Received::Message(message) => heard.push(message),
                other => panic!("{other:?}"),
            }
        }
    }
    for (late, (least, most)) in told {
        let count = heard.iter().filter(|message| **message == late).count();
        assert!(
            (least..=most).contains(&count),
            "{count} of {least} to {most} were heard"
        );
    }
}

async fn accepted_messages_keep_their_order(fixture: Fixture) {
    let slot = fixture.open().await;
    let mut listener = listen(&slot, "a").await;
    let sent: Vec<_> = (0..100).map(|number| message(&number.to_string())).collect();
    for message in &sent {
        assert_eq!(publish(&slot, &["a"], message).await, [Outcome::Accepted]);
    }
    for message in &sent {
        expect(&mut listener, message).await;
    }
}

async fn a_listener_hears_from_the_start(fixture: Fixture) {
    let slot = fixture.open().await;
    let publisher = another(&fixture, &slot).await;
    for number in 0..50 {
        let name = format!("id-{number}");
        let mut listener = listen(&slot, &name).await;
        let sent = message(&name);
        assert_eq!(
            publish(&publisher, &[&name], &sent).await,
            [Outcome::Accepted],
            "{name}"
        );
        expect(&mut listener, &sent).await;
    }
}

async fn a_slow_listener_gets_a_gap(fixture: Fixture) {
    let room = Room {
        messages: 4,
        ..Room::default()
    };
    falls_behind(&fixture, room, 1).await;
}

async fn a_slow_listener_of_large_messages_gets_a_gap(fixture: Fixture) {
    let room = Room {
        bytes: 50_000,
        ..Room::default()
    };
    falls_behind(&fixture, room, 10_000).await;
}

/// Of 50 messages of a size only some find room with somebody who does not read.
async fn falls_behind(fixture: &Fixture, room: Room, size: usize) {
    let options = Options {
        room,
        ..Options::default()
    };
    let slot = (fixture.open)(fixture.namespace.clone(), options).await;
    let (mut slow, mut quick) = (listen(&slot, "slow").await, listen(&slot, "quick").await);
    for number in 0..50 {
        let sent = message(&format!("{number:size$}"));
        publish(&slot, &["slow", "quick"], &sent).await;
        expect(&mut quick, &sent).await;
    }
    let (mut received, mut missed) = (0, 0);
    while received + missed < 50 {
        match next(&mut slow).await {
            Received::Message(_) => received += 1,
            Received::Gap { dropped, reason } => {
                assert_eq!(reason, GapReason::SlowConsumer);
                missed += dropped;
            }
        }
    }
    assert_eq!(received + missed, 50);
    assert!(
        missed > 0 && received >= 4,
        "{received} received, {missed} missed"
    );
    let sent = message("after");
    assert_eq!(publish(&slot, &["slow"], &sent).await, [Outcome::Accepted]);
    expect(&mut slow, &sent).await;
}

async fn dropping_a_listener_ends_it(fixture: Fixture) {
    let slot = fixture.open().await;
    drop(listen(&slot, "a").await);
    let gone = async {
        // A broker learns of it a moment later.
        while publish(&slot, &["a"], &message("anyone?")).await != [Outcome::NoSubscriber] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CALL_LIMIT, gone).await.expect("somebody still listens");
}

/// The boxed twin refuses what the capability does not cover.
async fn payloads_over_the_limit_are_not_sent(fixture: Fixture) {
    let slot = fixture.open().await;
    let _listener = listen(&slot, "a").await;
    let payload = Bytes::from(vec![0; slot.capability().max_payload + 1]);
    let large = Arc::new(Message {
        payload,
        ..(*message("")).clone()
    });
    let outcomes = publish(&slot, &["a", "b"], &large).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::NotSent(_))),
        "{outcomes:?}"
    );
}

async fn closing_ends_listeners_and_calls(fixture: Fixture) {
    let slot = fixture.open().await;
    assert_eq!(slot.probe(deadline()).await, Ok(()));
    let mut listener = listen(&slot, "a").await;
    let sent = message("waiting");
    assert_eq!(publish(&slot, &["a"], &sent).await, [Outcome::Accepted]);
    expect(&mut listener, &sent).await;
    slot.close().await;
    let end = timeout(CALL_LIMIT, listener.next()).await;
    assert_eq!(end.expect("the listener goes on"), None);
    let unsent = publish(&slot, &["a", "b"], &sent).await;
    assert!(
        matches!(unsent[..], [Outcome::NotSent(_), Outcome::NotSent(_)]),
        "{unsent:?}"
    );
    let refused = slot.listen(&identity("a"), deadline()).await.err();
    assert!(matches!(refused, Some(Error::Unavailable { .. })), "{refused:?}");
    assert!(slot.probe(deadline()).await.is_err());
}

/// Another runner, where there can be one.
async fn another(fixture: &Fixture, slot: &Arc<dyn DynMessaging>) -> Arc<dyn DynMessaging> {
    match slot.capability().scope {
        Scope::Shared => fixture.open().await,
        Scope::Process | Scope::Host => slot.clone(),
    }
}

/// A session on one runner and a publish through another is the normal case.
async fn openings_reach_each_other(fixture: Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let (mut on_one, mut on_other) = (listen(&one, "a").await, listen(&other, "b").await);
    for publisher in [&one, &other] {
        let sent = message("across");
        assert_eq!(
            publish(publisher, &["a", "b"], &sent).await,
            [Outcome::Accepted, Outcome::Accepted]
        );
        expect(&mut on_one, &sent).await;
        expect(&mut on_other, &sent).await;
    }
}

/// The same identity in two namespaces of one broker is two identities.
async fn namespaces_are_apart(fixture: Fixture) {
    let here = fixture.open().await;
    let there = (fixture.open)(format!("{}-other", fixture.namespace), Options::default()).await;
    let _listener = listen(&here, "a").await;
    assert_eq!(
        publish(&there, &["a"], &message("elsewhere")).await,
        [Outcome::NoSubscriber]
    );
}
