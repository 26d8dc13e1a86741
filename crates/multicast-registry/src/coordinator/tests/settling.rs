//! What is said of targets as long as somebody may still send to them, and what is not lost when things end.

use std::{sync::Arc, time::Duration};

use prism_slot::{Applied, Identity, InboxLimits, MulticastId, Outcome, Verdict};
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{Multicast, MulticastEvent, following::Following},
    delivering::{Fixture, delivery, fixture, fixture_with, known, one, stored, told, until},
};
use crate::{
    Status,
    delivery::{Pace, Stage},
    testing::{Fate, Op, soon, unavailable},
};

/// Inboxes that hold one message, all of them full.
async fn crowded(names: &[&str]) -> Fixture {
    let fixture = fixture_with(InboxLimits {
        max_messages: 1,
        ..InboxLimits::default()
    });
    fixture.register(names).await;
    let first = Multicast {
        // Of this one all is in the ledger when it ends.
        idempotency_key: Some("k".to_owned()),
        ..stored("first")
    };
    fixture.coordinator.multicast(first, soon()).await.unwrap();
    fixture
}

/// What a stream tells of targets until it ends, and then of all of them: delivered, failed, pending.
async fn followed(mut following: Following) -> (Vec<(Status, &'static str)>, [usize; 3]) {
    let mut told = Vec::new();
    loop {
        match following.next().await {
            Some(MulticastEvent::Target(target)) => told.push((target.status(), target.reason())),
            Some(MulticastEvent::Ended(report)) => {
                let tally = report.tally;
                return (told, [tally.delivered, tally.failed, tally.pending]);
            }
            Some(_) => {}
            None => panic!("it ends with the end"),
        }
    }
}

async fn begun(following: &mut Following) -> MulticastId {
    match following.next().await {
        Some(MulticastEvent::Started(report)) => report.id,
        other => panic!("{other:?}"),
    }
}

fn at(per_second: u64) -> Pace {
    Pace {
        per_second: Some(per_second),
        batch: None,
    }
}

/// Whoever takes it over would find room where there was none.
#[tokio::test]
async fn nothing_has_failed_while_it_is_sent() {
    let fixture = crowded(&["a", "b"]).await;
    let sibling = fixture.sibling();
    let before = fixture.inboxes.script.count(Op::Enqueue);
    let (go, slowly) = (Arc::new(Notify::new()), stored("x"));
    let slowly = Multicast {
        pace: at(1),
        ..slowly
    };
    fixture.inboxes.script.next(Op::Enqueue, Fate::Pass);
    fixture.inboxes.script.always(Op::Enqueue, Fate::Wait(go.clone()));
    let mut following = fixture
        .coordinator
        .multicast_stream(slowly, soon())
        .await
        .unwrap();
    let id = begun(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, before + 2).await;
    // The first one found no room. So it stands in the ledger, and here.
    fixture.coordinator.write_up_all(soon).await;
    for coordinator in [&fixture.coordinator, &sibling] {
        let known = known(coordinator, id).await;
        assert!(
            known.iter().all(|target| target.1 == Status::Pending),
            "{known:?}"
        );
    }
    let early = tokio::time::timeout(Duration::from_millis(50), following.next()).await;
    assert!(early.is_err(), "{early:?}");
    go.notify_one();
    let full = (Status::Failed, "INBOX_FULL");
    assert_eq!(followed(following).await, (vec![full; 2], [0, 2, 0]));
    assert!(
        known(&sibling, id)
            .await
            .iter()
            .all(|target| target.1 == Status::Failed)
    );
}

/// Where the ledger does not take it, another runner might still go on.
#[tokio::test]
async fn what_failed_and_is_not_written_down_is_not_told() {
    for is_followed in [false, true] {
        let fixture = crowded(&["a"]).await;
        let go = Arc::new(Notify::new());
        fixture.inboxes.script.next(Op::Enqueue, Fate::Wait(go.clone()));
        let (ledger, inboxes) = (&fixture.register.script, &fixture.inboxes.script);
        let before = inboxes.count(Op::Enqueue);
        let spoil = async {
            inboxes.reached(Op::Enqueue, before + 1).await;
            ledger.always(Op::Write, Fate::Refuse(unavailable(Applied::No)));
            go.notify_one();
        };
        let id = if is_followed {
            let following = fixture.coordinator.multicast_stream(stored("x"), soon()).await;
            let mut following = following.unwrap();
            let id = begun(&mut following).await;
            let (told, ()) = tokio::join!(followed(following), spoil);
            assert_eq!(told, (Vec::new(), [0, 0, 1]));
            id
        } else {
            let multicast = fixture.coordinator.multicast(stored("x"), soon());
            let (report, ()) = tokio::join!(multicast, spoil);
            let report = report.unwrap();
            assert_eq!(told(&report), one("a", Status::Pending, Stage::Resolved, ""));
            report.id
        };
        let open = one("a", Status::Pending, Stage::Resolved, "");
        assert_eq!(known(&fixture.coordinator, id).await, open);
        ledger.always(Op::Write, Fate::Pass);
        until(&fixture.coordinator, id, Stage::Resolved, "INBOX_FULL").await;
    }
}

/// What was not sent is sent again: its sender is not told in between that it was not.
#[tokio::test]
async fn what_is_tried_again_has_not_failed() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let _listens = fixture.session("a").await;
    let not_sent = |targets: &[Identity]| vec![Outcome::NotSent("no link".to_owned()); targets.len()];
    fixture.broker.judge(not_sent);
    let following = fixture.coordinator.multicast_stream(Multicast::default(), soon());
    let (told, tally) = followed(following.await.unwrap()).await;
    assert!(
        told.iter().all(|(status, _)| *status == Status::Delivered),
        "{told:?}"
    );
    assert_eq!(tally, [1, 0, 0]);
}

/// An outage, in which one cancels, leaves much of which nobody knows whether it is stored.
#[tokio::test]
async fn what_may_be_stored_is_taken_back() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let lost = Fate::Lose(unavailable(Applied::Unknown));
    fixture.inboxes.script.always(Op::Enqueue, lost);
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    assert_eq!(
        told(&report),
        one("a", Status::Timeout, Stage::Resolved, "UNKNOWN_OUTCOME")
    );
    fixture
        .coordinator
        .cancel_multicast(report.id, soon())
        .await
        .unwrap();
    let taken_back = one("a", Status::Failed, Stage::Resolved, "CANCELLED");
    assert_eq!(known(&fixture.coordinator, report.id).await, taken_back);
    let mut session = fixture.session("a").await;
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// The same of a runner that has ended, so that nobody knows anything of its targets.
#[tokio::test]
async fn what_nobody_knows_of_is_taken_back() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let go = Arc::new(Notify::new());
    fixture.inboxes.script.always(Op::Enqueue, Fate::Late(go));
    let following = fixture.coordinator.multicast_stream(stored("x"), soon()).await;
    let mut following = following.unwrap();
    let id = begun(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, 1).await;
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(600));
    sibling.look_after_once().await;
    let lost = one("a", Status::Timeout, Stage::Resolved, "UNKNOWN_OUTCOME");
    assert_eq!(known(&sibling, id).await, lost);
    sibling.cancel_multicast(id, soon()).await.unwrap();
    let taken_back = one("a", Status::Failed, Stage::Resolved, "CANCELLED");
    assert_eq!(known(&sibling, id).await, taken_back);
}

/// Word of what is stored can wait; what is to be stored cannot.
#[tokio::test]
async fn messages_are_stored_without_a_post() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    fixture
        .broker
        .script
        .always(Op::Post, Fate::Refuse(unavailable(Applied::No)));
    let sibling = fixture.sibling();
    let patient = Multicast {
        timeout: Some(Duration::from_millis(400)),
        ..stored("waits")
    };
    for request in [stored("x"), patient] {
        let report = sibling.multicast(request, soon()).await.unwrap();
        assert_eq!(told(&report), one("a", Status::Pending, Stage::Stored, ""));
    }
}

/// Whoever takes it over does not wait for the turns of those that are stored already.
#[tokio::test(start_paused = true)]
async fn an_heir_keeps_the_pace_of_what_is_left() {
    const TARGETS: usize = 90;
    let fixture = fixture();
    let sibling = fixture.sibling();
    let names: Vec<String> = (0..TARGETS).map(|number| format!("{number:02}")).collect();
    fixture
        .register(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let slowly = Multicast {
        pace: at(1),
        ..stored("x")
    };
    let late = Instant::now() + Duration::from_secs(100);
    let mut following = fixture.coordinator.multicast_stream(slowly, late).await.unwrap();
    let id = begun(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, 70).await;
    fixture.coordinator.write_up_all(soon).await;
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(11));
    let taken_over = Instant::now();
    sibling.look_after_once().await;
    assert!(
        taken_over.elapsed() < Duration::from_secs(30),
        "in the time of the test"
    );
    let known = known(&sibling, id).await;
    assert!(known.iter().all(|target| target.2 == Stage::Stored), "{known:?}");
    let stored = fixture.inboxes.script.count(Op::Enqueue);
    assert!(stored <= TARGETS + 2, "{stored}");
}

/// A question that is lost is asked again.
#[tokio::test(start_paused = true)]
async fn a_lost_question_is_asked_again() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b"]).await;
    sibling.look_after_once().await;
    fixture.coordinator.look_after_once().await;
    let slowly = Multicast {
        pace: at(1),
        ..Multicast::default()
    };
    let late = Instant::now() + Duration::from_secs(30);
    let mut following = fixture.coordinator.multicast_stream(slowly, late).await.unwrap();
    let id = begun(&mut following).await;
    let lost = Fate::Refuse(unavailable(Applied::Unknown));
    fixture.broker.script.next(Op::Send, lost);
    let cancelled = sibling.cancel_multicast(id, soon()).await;
    assert!(cancelled.is_ok(), "{cancelled:?}");
}

/// The answer to the first question counts also when it comes after the second one.
#[tokio::test(start_paused = true)]
async fn an_answer_may_take_longer_than_it_takes_to_ask_again() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b"]).await;
    sibling.look_after_once().await;
    fixture.coordinator.look_after_once().await;
    let slowly = Multicast {
        pace: at(1),
        ..Multicast::default()
    };
    let late = Instant::now() + Duration::from_secs(60);
    let mut following = fixture.coordinator.multicast_stream(slowly, late).await.unwrap();
    let id = begun(&mut following).await;
    let slow = Fate::Slow(Duration::from_secs(3));
    fixture.broker.script.always(Op::Send, slow);
    let cancelled = sibling.cancel_multicast(id, late).await;
    assert!(cancelled.is_ok(), "{cancelled:?}");
}

/// Nobody would do it later: the call that is made again is not told that the identity existed.
#[tokio::test]
async fn an_inbox_goes_also_where_the_answer_to_unregistering_is_lost() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    let lost = Fate::Lose(unavailable(Applied::Unknown));
    fixture.store.script.next(Op::Unregister, lost);
    let removed = fixture.coordinator.unregister("a", None, soon()).await;
    assert!(removed.is_err(), "{removed:?}");
    until(&fixture.coordinator, report.id, Stage::Stored, "UNREGISTERED").await;
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    let waited = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// A namespace that goes elsewhere takes along what its consumers have said.
#[tokio::test]
async fn what_was_acknowledged_is_when_a_namespace_is_taken_away() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let report = fixture.coordinator.multicast(stored("x"), soon()).await.unwrap();
    let mut session = fixture.session("a").await;
    let (id, ..) = delivery(&mut session).await;
    fixture
        .inboxes
        .script
        .always(Op::Settle, Fate::Slow(Duration::from_millis(50)));
    session.say(id, Verdict::Ack, None);
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = session.next().await {} });
    fixture.coordinator.close().await;
    reading.await.unwrap();
    assert_eq!(
        known(&sibling, report.id).await,
        one("a", Status::Delivered, Stage::Acked, "")
    );
}
