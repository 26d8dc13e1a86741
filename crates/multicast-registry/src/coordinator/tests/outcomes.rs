//! What a multicast comes to: told, told again, cancelled, followed and gathered.

use std::{sync::Arc, time::Duration};

use prism_filter::Filter;
use prism_slot::{Applied, MulticastId, Settled, Verdict};
use tokio::sync::Notify;

use super::{
    super::{Error, Multicast, MulticastEvent, Pages, Replies, Session, SessionEvent},
    delivering::{acked, delivery, event, fixture, known, one, settled, stored, told, until},
};
use crate::{
    Delivery, Stage, Status,
    delivery::{Pace, Phase, Reply},
    testing::{Fate, Op, id, soon, unavailable},
};

/// The same key within the window is the same multicast, through any runner.
#[tokio::test]
async fn a_repeated_call_gets_the_first_outcome() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b"]).await;
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        let request = Multicast {
            delivery: Some(delivery),
            idempotency_key: Some(format!("{delivery:?}")),
            ..stored("once")
        };
        let first = fixture
            .coordinator
            .multicast(request.clone(), soon())
            .await
            .unwrap();
        assert!(!first.replayed);
        let published = fixture.broker.batches().len();
        let stored = fixture.inboxes.script.count(Op::Enqueue);
        for coordinator in [&fixture.coordinator, &sibling] {
            let again = coordinator.multicast(request.clone(), soon()).await.unwrap();
            assert!(again.replayed, "{delivery:?}");
            assert_eq!((again.id, told(&again)), (first.id, told(&first)), "{delivery:?}");
        }
        let another = Multicast {
            payload: "another".into(),
            ..request
        };
        let refused = sibling.multicast(another, soon()).await;
        assert_eq!(refused, Err(Error::IdempotencyMismatch { multicast: first.id }));
        assert_eq!(
            fixture.broker.batches().len(),
            published,
            "nothing was sent again"
        );
        assert_eq!(fixture.inboxes.script.count(Op::Enqueue), stored, "or stored");
    }
    let without = Multicast {
        delivery: Some(Delivery::ExactlyOnce),
        ..Default::default()
    };
    let refused = fixture.coordinator.multicast(without, soon()).await;
    assert!(matches!(
        refused,
        Err(Error::InvalidArgument {
            field: "idempotency_key",
            ..
        })
    ));
}

/// A message that may or may not have been stored is stored again, and is there once.
#[tokio::test]
async fn a_store_that_was_not_answered_is_made_again() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    fixture
        .inboxes
        .script
        .next(Op::Enqueue, Fate::Lose(unavailable(Applied::Unknown)));
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 2);
    assert!(report.targets.get(0).unwrap().stage() >= Stage::Stored);
    assert_eq!(delivery(&mut session).await.1, "x");
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// Nothing is sent that could not be written down before.
#[tokio::test]
async fn without_the_ledger_nothing_is_stored() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    fixture
        .register
        .script
        .always(Op::Write, Fate::Refuse(unavailable(Applied::No)));
    let refused = fixture.coordinator.multicast(stored("x"), soon()).await;
    assert!(matches!(refused, Err(Error::Slot(_))), "{refused:?}");
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 0);
    let once = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert_eq!(
        once.targets.get(0).unwrap().reason(),
        "NO_SUBSCRIBER",
        "sent once it needs no ledger"
    );
}

/// Receipts that come when nobody has the multicast in memory are written down all the same.
#[tokio::test]
async fn receipts_outlive_the_runner_that_sent() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    fixture.coordinator.end_keeping(soon()).await;
    fixture.coordinator.end_abruptly().await;
    assert_eq!(
        known(&sibling, report.id).await,
        one("a", Status::Pending, Stage::Stored, "")
    );
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    delivery(&mut session).await;
    // Also those that come while the ledger is not there.
    let ledger = &fixture.register.script;
    ledger.always(Op::Write, Fate::Refuse(unavailable(Applied::No)));
    let before = ledger.count(Op::Write);
    session.say(report.id, Verdict::Ack, None);
    settled(&mut session).await;
    ledger.reached(Op::Write, before + 2).await;
    ledger.always(Op::Write, Fate::Pass);
    until(&sibling, report.id, Stage::Acked, "").await;
}

#[tokio::test]
async fn a_multicast_that_nobody_knows_is_said_to_be_unknown() {
    let fixture = fixture();
    let unknown = fixture
        .coordinator
        .get_multicast(MulticastId(7), Pages::default(), soon())
        .await;
    assert_eq!(unknown, Err(Error::UnknownMulticast(MulticastId(7))));
}

/// What waits is taken back; what a consumer has is not.
#[tokio::test]
async fn what_has_not_been_handed_over_can_be_cancelled() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["has", "waits"]).await;
    let mut session = fixture.session("has").await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    delivery(&mut session).await;
    let cancelled = sibling.cancel_multicast(report.id, soon()).await.unwrap();
    assert_eq!(cancelled.tally.failed, 1);
    session.say(report.id, Verdict::Ack, None);
    assert_eq!(settled(&mut session).await, [(report.id, Settled::Done)]);
    let mut late = fixture.session("waits").await;
    let waited = tokio::time::timeout(Duration::from_millis(50), late.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// Whoever is told that something was taken back is told so again, by any runner and whichever ends.
#[tokio::test]
async fn what_is_taken_back_is_known_at_once() {
    let fixture = fixture();
    let (sibling, other) = (fixture.sibling(), fixture.sibling());
    fixture.register(&["a"]).await;
    let taken_back = one("a", Status::Failed, Stage::Stored, "CANCELLED");
    // By its own runner, which ends then.
    let sent = sibling.multicast(stored("x"), soon()).await.unwrap();
    let told = sibling.cancel_multicast(sent.id, soon()).await.unwrap();
    assert_eq!(told.tally.failed, 1);
    sibling.end_abruptly().await;
    assert_eq!(known(&other, sent.id).await, taken_back);
    // By another one.
    let sent = fixture.coordinator.multicast(stored("y"), soon()).await.unwrap();
    fixture.coordinator.say_alive().await;
    let told = other.cancel_multicast(sent.id, soon()).await.unwrap();
    assert_eq!(told.tally.failed, 1);
    assert_eq!(known(&fixture.coordinator, sent.id).await, taken_back);
    assert_eq!(known(&other, sent.id).await, taken_back);
    // By another one, which ends then as the first one did before.
    let sent = fixture.coordinator.multicast(stored("z"), soon()).await.unwrap();
    fixture.coordinator.write_up_all(soon).await;
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(11));
    let told = other.cancel_multicast(sent.id, soon()).await.unwrap();
    assert_eq!(told.tally.failed, 1);
    other.end_abruptly().await;
    assert_eq!(known(&fixture.sibling(), sent.id).await, taken_back);
}

/// It is not said before it is written down, and is as soon as that goes.
#[tokio::test]
async fn what_is_taken_back_and_not_written_down_is_not_told() {
    for is_in_memory in [true, false] {
        let fixture = fixture();
        let sibling = fixture.sibling();
        fixture.register(&["a"]).await;
        let sent = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
        fixture.coordinator.write_up_all(soon).await;
        let canceller = if is_in_memory {
            &fixture.coordinator
        } else {
            fixture.coordinator.end_abruptly().await;
            fixture.clock.advance(Duration::from_secs(11));
            &sibling
        };
        let ledger = &fixture.register.script;
        ledger.always(Op::Write, Fate::Refuse(unavailable(Applied::No)));
        let told = canceller.cancel_multicast(sent.id, soon()).await;
        assert!(matches!(told, Err(Error::Slot(_))), "{told:?}");
        ledger.always(Op::Write, Fate::Pass);
        let told = || known(&sibling, sent.id);
        let taken_back = one("a", Status::Failed, Stage::Stored, "CANCELLED");
        let until = async {
            while told().await != taken_back {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), until).await.unwrap();
    }
}

/// What one inbox fails with hides nothing of the others, however many there are.
#[tokio::test]
async fn what_is_taken_back_is_told_where_another_inbox_fails() {
    for is_in_memory in [true, false] {
        let fixture = fixture();
        let sibling = fixture.sibling();
        let names: Vec<String> = (0..1_100).map(|number| format!("id-{number:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        fixture.register(&names).await;
        let sent = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
        fixture.coordinator.write_up_all(soon).await;
        let canceller = if is_in_memory {
            &fixture.coordinator
        } else {
            fixture.coordinator.end_abruptly().await;
            fixture.clock.advance(Duration::from_secs(11));
            &sibling
        };
        fixture.inboxes.keep(&id("id-0007"), unavailable(Applied::No));
        let told = canceller.cancel_multicast(sent.id, soon()).await;
        assert_eq!(told.unwrap_err(), Error::Slot(unavailable(Applied::No)));
        let now = canceller.get_multicast(sent.id, Pages::default(), soon()).await;
        let now = now.unwrap();
        assert_eq!((now.tally.failed, now.tally.pending), (1_099, 1));
    }
}

/// One that is sent slowly can be stopped in the middle, through another runner.
#[tokio::test]
async fn a_multicast_can_be_stopped_while_it_is_sent() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    let names: Vec<String> = (0..20).map(|number| format!("id-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fixture.register(&names).await;
    let slow = Multicast {
        pace: Pace {
            per_second: Some(2),
            batch: None,
        },
        ..Default::default()
    };
    let mut following = fixture.coordinator.multicast_stream(slow, soon()).await.unwrap();
    let Some(MulticastEvent::Started(started)) = following.next().await else {
        panic!("it begins with the beginning")
    };
    assert_eq!(started.tally.pending, 20);
    let Some(MulticastEvent::Target(first)) = following.next().await else {
        panic!("something is known of the first")
    };
    assert_eq!(first.reason(), "NO_SUBSCRIBER");
    sibling.look_after_once().await;
    fixture.coordinator.look_after_once().await;
    // The answer is what it came to: nothing is sent after it.
    let cancelled = sibling.cancel_multicast(started.id, soon()).await.unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled);
    let ended = loop {
        match following.next().await {
            Some(MulticastEvent::Target(_)) => {}
            Some(MulticastEvent::Ended(report)) => break report,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ended.phase, ended.tally.total()), (Phase::Cancelled, 20));
    assert!(
        fixture.broker.batches().len() < 10,
        "{:?}",
        fixture.broker.batches()
    );
    assert!(following.next().await.is_none());
}

/// Whoever is told that it is over may rely on that.
#[tokio::test]
async fn a_cancellation_waits_for_what_is_under_way() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let go = Arc::new(Notify::new());
    fixture.broker.script.always(Op::Publish, Fate::Wait(go.clone()));
    let mut following = fixture
        .coordinator
        .multicast_stream(Multicast::default(), soon())
        .await
        .unwrap();
    let Some(MulticastEvent::Started(started)) = following.next().await else {
        panic!("it begins with the beginning")
    };
    fixture.broker.script.reached(Op::Publish, 1).await;
    sibling.look_after_once().await;
    fixture.coordinator.look_after_once().await;
    // Long enough for its runner to say that it has not come to an end.
    let later = tokio::time::Instant::now() + Duration::from_millis(1_500);
    let early = sibling.cancel_multicast(started.id, later).await;
    assert!(matches!(early, Err(Error::DeadlineExceeded)), "{early:?}");
    go.notify_one();
    let cancelled = sibling.cancel_multicast(started.id, soon()).await.unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled);
}

/// Each target is told of as something becomes known of it, and the totals are those of the end.
#[tokio::test]
async fn a_multicast_can_be_followed() {
    let fixture = fixture();
    fixture.register(&["acks", "absent"]).await;
    let mut session = fixture.session("acks").await;
    let consumer = tokio::spawn(async move {
        let (multicast, ..) = delivery(&mut session).await;
        session.say(multicast, Verdict::Ack, None);
        settled(&mut session).await;
    });
    let patient = Multicast {
        timeout: Some(Duration::from_millis(500)),
        ..acked("x")
    };
    let mut following = fixture
        .coordinator
        .multicast_stream(patient, soon())
        .await
        .unwrap();
    let mut stages = Vec::new();
    let ended = loop {
        match following.next().await.unwrap() {
            MulticastEvent::Target(target) => stages.push((target.identity.to_string(), target.stage())),
            MulticastEvent::Ended(report) => break report,
            MulticastEvent::Started(report) => assert_eq!(report.tally.total(), 2),
            MulticastEvent::Reply(reply) => panic!("{reply:?}"),
        }
    };
    assert_eq!((ended.tally.delivered, ended.tally.pending), (1, 1));
    assert!(stages.contains(&("acks".to_owned(), Stage::Acked)), "{stages:?}");
    let of_one: Vec<Stage> = stages
        .iter()
        .filter(|(name, _)| name == "acks")
        .map(|(_, stage)| *stage)
        .collect();
    assert!(of_one.is_sorted(), "{of_one:?}");
    consumer.await.unwrap();
}

/// Answers are gathered from any runner, until all or enough have come.
#[tokio::test]
async fn answers_are_gathered() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b", "mute"]).await;
    let answerer = |mut session: Session, name: &'static str| {
        tokio::spawn(async move {
            loop {
                let (multicast, stored) = match event(&mut session).await {
                    SessionEvent::Message(message) => (message.multicast, false),
                    SessionEvent::Stored(delivery) => (delivery.message.multicast, true),
                    SessionEvent::Settled(_) => continue,
                    other => panic!("{other:?}"),
                };
                let reply = Reply {
                    identity: id(name),
                    payload: format!("{name} {stored}").into(),
                    content_type: "text/plain".into(),
                    headers: Vec::new(),
                };
                session.say(multicast, Verdict::Ack, Some(reply));
            }
        })
    };
    let tasks = [
        answerer(fixture.session("a").await, "a"),
        answerer(sibling.subscribe("b", None, soon()).await.unwrap(), "b"),
    ];
    let _mute = fixture.session("mute").await;
    for (delivery, stored) in [(Delivery::AtMostOnce, false), (Delivery::AtLeastOnce, true)] {
        let enough = Multicast {
            delivery: Some(delivery),
            replies: Some(Replies { min: Some(2) }),
            ..Default::default()
        };
        let report = fixture.coordinator.multicast(enough, soon()).await.unwrap();
        let mut texts: Vec<&[u8]> = report.replies.iter().map(|reply| &reply.payload[..]).collect();
        texts.sort_unstable();
        assert_eq!(
            texts,
            [format!("a {stored}").as_bytes(), format!("b {stored}").as_bytes()]
        );
    }
    let all = Multicast {
        filter: Some(Filter::new().ne("$identity", "mute")),
        replies: Some(Replies::default()),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(all, soon()).await.unwrap();
    assert_eq!(report.replies.len(), 2);
    let kept = fixture.coordinator.shared.desk.get(report.id).unwrap();
    assert_eq!(kept.replies().0, [], "answers are not kept for nobody");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// More than can wait is refused at once, with a time to come back.
#[tokio::test]
async fn too_many_targets_are_refused_early() {
    let fixture = fixture();
    fixture.register(&["a", "b"]).await;
    let mut config = (*fixture.coordinator.config()).clone();
    config.behavior.max_targets_in_flight = 3;
    fixture.coordinator.reconfigure(config);
    fixture.broker.script.always(Op::Publish, Fate::Hang);
    let coordinator = fixture.coordinator.clone();
    let first = tokio::spawn(async move { coordinator.multicast(Multicast::default(), soon()).await });
    fixture.broker.script.reached(Op::Publish, 1).await;
    let refused = fixture.coordinator.multicast(Multicast::default(), soon()).await;
    assert!(
        matches!(refused, Err(Error::Crowded { limit: 3, .. })),
        "{refused:?}"
    );
    first.abort();
}

/// A bell that is late costs a delay.
#[tokio::test]
async fn a_broker_that_stands_still_does_not_hold_up_what_is_stored() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    fixture.broker.script.always(Op::Send, Fate::Hang);
    fixture.broker.script.always(Op::Publish, Fate::Hang);
    let published: Vec<_> = (0..300)
        .map(|_| {
            let coordinator = fixture.coordinator.clone();
            tokio::spawn(async move { coordinator.multicast(Multicast::default(), soon()).await })
        })
        .collect();
    fixture.broker.script.reached(Op::Publish, 200).await;
    for _ in 0..300 {
        let storing = fixture.coordinator.multicast(stored("x"), soon());
        let report = tokio::time::timeout(Duration::from_secs(2), storing).await;
        let report = report.expect("nobody waits for the broker").unwrap();
        assert_eq!(told(&report), one("a", Status::Pending, Stage::Stored, ""));
    }
    published.iter().for_each(tokio::task::JoinHandle::abort);
}
