//! What becomes of the multicasts of runners that end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_slot::{Applied, Expect, InboxLimits, Ledger, MulticastId, Write};
use tokio::sync::Notify;

use super::{
    super::{Error, Multicast, MulticastEvent, following::Following},
    delivering::{Fixture, delivery, fixture, fixture_with, known, one, stored, told},
};
use crate::{
    Stage, Status,
    delivery::{Pace, Phase},
    testing::{Fate, Op, soon, unavailable},
};

impl Fixture {
    /// A runner begins to store something and ends without a word, as far as anybody can see.
    async fn die_while_storing(&self) -> MulticastId {
        self.inboxes.script.always(Op::Enqueue, Fate::Hang);
        let mut following = self
            .coordinator
            .multicast_stream(stored("x"), soon())
            .await
            .unwrap();
        let id = started(&mut following).await;
        self.inboxes.script.reached(Op::Enqueue, 1).await;
        self.coordinator.end_abruptly().await;
        self.inboxes.script.always(Op::Enqueue, Fate::Pass);
        self.clock.advance(Duration::from_secs(11));
        id
    }

    /// A call with an idempotency key that is given up while it publishes.
    async fn give_up_while_publishing(&self) -> Multicast {
        self.broker.script.always(Op::Publish, Fate::Hang);
        let once = Multicast {
            idempotency_key: Some("k".to_owned()),
            ..Default::default()
        };
        let (coordinator, request) = (self.coordinator.clone(), once.clone());
        let sending = tokio::spawn(async move { coordinator.multicast(request, soon()).await });
        self.broker.script.reached(Op::Publish, 1).await;
        sending.abort();
        let _ = sending.await;
        once
    }
}

async fn started(following: &mut Following) -> MulticastId {
    match following.next().await {
        Some(MulticastEvent::Started(report)) => report.id,
        other => panic!("it begins with the beginning, and not with {other:?}"),
    }
}

/// A runner that ended while it sent: another one goes on with what it wrote down.
#[tokio::test]
async fn what_a_dead_runner_has_begun_is_finished() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b"]).await;
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    fixture.die_while_storing().await;
    sibling.look_after_once().await;
    let (id, text, _) = delivery(&mut session).await;
    assert_eq!(text, "x");
    let pending = |name: &str, stage| (name.to_owned(), Status::Pending, stage, "");
    let known = known(&sibling, id).await;
    assert_eq!(known[1], pending("b", Stage::Stored));
    assert!(known[0].2 >= Stage::Stored, "{known:?}");
}

/// However much others have under way.
#[tokio::test]
async fn an_orphan_is_found_among_many_that_are_none() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    fixture.die_while_storing().await;
    let write = |key: String| Write {
        key,
        expect: Expect::Anything,
        body: Some(Bytes::new()),
        ttl: Duration::from_secs(3_600),
    };
    let open = (0..1_000).map(|_| write(format!("open/{:016x}/{}", 1, MulticastId::random())));
    let mut writes = vec![write(format!("runner/{:016x}", 1))];
    writes.extend(open);
    let written = fixture.register.write(writes, soon()).await;
    assert!(written.iter().all(Result::is_ok));
    sibling.look_after_once().await;
    assert_eq!(delivery(&mut session).await.1, "x");
}

/// The answer of the ledger was lost when the multicast was taken over: it is nobody else's now.
#[tokio::test]
async fn what_was_taken_over_without_knowing_is_gone_on_with() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    fixture.die_while_storing().await;
    sibling.say_alive().await;
    let lost = Fate::Lose(unavailable(Applied::Unknown));
    fixture.register.script.next(Op::Write, Fate::Pass);
    fixture.register.script.next(Op::Write, lost);
    sibling.look_after_once().await;
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 1, "it was not told");
    sibling.look_after_once().await;
    assert_eq!(delivery(&mut session).await.1, "x");
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 2);
}

/// Whoever stops a multicast asks the runner that sends it now.
#[tokio::test]
async fn what_was_taken_over_is_cancelled_where_it_is_sent() {
    let fixture = fixture();
    let (heir, other) = (fixture.sibling(), fixture.sibling());
    fixture.register(&["a"]).await;
    fixture.inboxes.script.always(Op::Enqueue, Fate::Hang);
    let mut following = fixture
        .coordinator
        .multicast_stream(stored("x"), soon())
        .await
        .unwrap();
    let id = started(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, 1).await;
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(11));
    heir.say_alive().await;
    let go = Arc::new(Notify::new());
    fixture.inboxes.script.always(Op::Enqueue, Fate::Wait(go.clone()));
    let taking = tokio::spawn(async move { heir.look_after_once().await });
    fixture.inboxes.script.reached(Op::Enqueue, 2).await;
    let shortly = tokio::time::Instant::now() + Duration::from_millis(300);
    let cancelled = other.cancel_multicast(id, shortly).await;
    // It is still being stored, so nobody says that it is over.
    assert!(matches!(cancelled, Err(Error::DeadlineExceeded)), "{cancelled:?}");
    go.notify_one();
    taking.await.unwrap();
    let cancelled = other.cancel_multicast(id, soon()).await.unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled);
}

/// Whoever is told that it is cancelled may rely on that, whichever runner ends then.
#[tokio::test]
async fn what_is_cancelled_is_not_gone_on_with() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b"]).await;
    let slowly = Multicast {
        pace: Pace {
            per_second: Some(1),
            batch: Some(1),
        },
        ..stored("x")
    };
    let mut following = fixture
        .coordinator
        .multicast_stream(slowly, soon())
        .await
        .unwrap();
    let id = started(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, 1).await;
    let cancelled = fixture.coordinator.cancel_multicast(id, soon()).await.unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled);
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(11));
    sibling.look_after_once().await;
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 1);
    assert_eq!(known(&sibling, id).await[1].3, "CANCELLED");
}

#[tokio::test]
async fn what_a_dead_runner_has_begun_can_be_cancelled_before_it_is_taken_over() {
    let fixture = fixture();
    let (heir, other) = (fixture.sibling(), fixture.sibling());
    fixture.register(&["a"]).await;
    let id = fixture.die_while_storing().await;
    let cancelled = other.cancel_multicast(id, soon()).await.unwrap();
    assert_eq!(cancelled.phase, Phase::Cancelled);
    heir.look_after_once().await;
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), 1);
    // It may have been stored, as far as anybody knows.
    assert_eq!(
        known(&other, id).await,
        one("a", Status::Timeout, Stage::Resolved, "NOT_CONFIRMED")
    );
}

/// Also by whoever takes it over: that a multicast is to be sent slowly is no matter of who sends it.
#[tokio::test]
async fn what_is_sent_slowly_is_gone_on_with_as_slowly() {
    const TARGETS: usize = 4;
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a", "b", "c", "d"]).await;
    let slowly = Multicast {
        pace: Pace {
            // So that one goes at a time.
            per_second: Some(10),
            batch: None,
        },
        ..stored("x")
    };
    let mut following = fixture
        .coordinator
        .multicast_stream(slowly, soon())
        .await
        .unwrap();
    let id = started(&mut following).await;
    fixture.inboxes.script.reached(Op::Enqueue, 1).await;
    fixture.coordinator.end_abruptly().await;
    let before = fixture.inboxes.script.count(Op::Enqueue);
    assert!(before < TARGETS, "it was not sent slowly");
    fixture.clock.advance(Duration::from_secs(11));
    sibling.look_after_once().await;
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue) - before, TARGETS);
    let known = known(&sibling, id).await;
    assert!(known.iter().all(|target| target.2 == Stage::Stored), "{known:?}");
}

/// All runners may have been away for a while.
#[tokio::test]
async fn what_was_begun_is_finished_as_long_as_storing_again_is_noticed() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    fixture.die_while_storing().await;
    fixture.clock.advance(Duration::from_secs(100));
    let sibling = fixture.sibling();
    sibling.look_after_once().await;
    let mut session = sibling.subscribe("a", None, soon()).await.unwrap();
    assert_eq!(delivery(&mut session).await.1, "x");
}

#[tokio::test]
async fn what_nobody_can_go_on_with_is_over() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let id = fixture.die_while_storing().await;
    fixture.clock.advance(Duration::from_secs(600));
    let sibling = fixture.sibling();
    sibling.look_after_once().await;
    assert_eq!(
        known(&sibling, id).await,
        one("a", Status::Timeout, Stage::Resolved, "UNKNOWN_OUTCOME")
    );
}

/// A target that is said not to have been stored for is not stored for by whoever goes on with the multicast.
#[tokio::test]
async fn what_is_said_not_to_be_stored_is_not_stored_later() {
    let fixture = fixture_with(InboxLimits {
        max_messages: 1,
        ..InboxLimits::default()
    });
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let first = Multicast {
        // Of this one all is in the ledger when it ends.
        idempotency_key: Some("k".to_owned()),
        ..stored("1")
    };
    fixture.coordinator.multicast(first, soon()).await.unwrap();
    let report = fixture.coordinator.multicast(stored("2"), soon()).await.unwrap();
    assert_eq!(told(&report)[0].3, "INBOX_FULL");
    fixture.coordinator.end_abruptly().await;
    let before = fixture.inboxes.script.count(Op::Enqueue);
    fixture.clock.advance(Duration::from_secs(11));
    sibling.look_after_once().await;
    assert_eq!(fixture.inboxes.script.count(Op::Enqueue), before);
}

/// What was sent once is not sent again when its runner ended, and nobody claims to know how far that came.
#[tokio::test]
async fn what_a_dead_runner_sent_once_is_not_known() {
    let fixture = fixture();
    let sibling = fixture.sibling();
    fixture.register(&["a"]).await;
    let once = fixture.give_up_while_publishing().await;
    fixture.coordinator.end_abruptly().await;
    fixture.clock.advance(Duration::from_secs(11));
    let again = sibling.multicast(once, soon()).await.unwrap();
    assert_eq!(
        told(&again),
        one("a", Status::Timeout, Stage::Resolved, "UNKNOWN_OUTCOME")
    );
    assert_eq!(fixture.broker.batches().len(), 1);
}

/// What a runner may have begun without knowing is not left half done while it lives.
#[tokio::test]
async fn what_may_have_been_begun_is_finished() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.session("a").await;
    fixture.coordinator.say_alive().await;
    let ledger = &fixture.register.script;
    ledger.next(Op::Write, Fate::Pass);
    // That it is begun is written down, and the answer to that is lost; then it cannot be taken back.
    ledger.next(Op::Write, Fate::Lose(unavailable(Applied::Unknown)));
    ledger.next(Op::Write, Fate::Refuse(unavailable(Applied::No)));
    let doubtful = fixture.coordinator.multicast(stored("x"), soon()).await;
    let Err(Error::Slot(error)) = doubtful else {
        panic!("{doubtful:?}")
    };
    assert_eq!(error.applied(), Applied::Unknown);
    fixture.coordinator.look_after_once().await;
    assert_eq!(delivery(&mut session).await.1, "x");
}

/// Whoever gives a call up while it is sent has not taken the multicast back.
#[tokio::test]
async fn what_is_given_up_while_it_is_stored_is_gone_on_with() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let mut session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    fixture.inboxes.script.next(Op::Enqueue, Fate::Hang);
    let coordinator = fixture.coordinator.clone();
    let sending = tokio::spawn(async move { coordinator.multicast(stored("x"), soon()).await });
    fixture.inboxes.script.reached(Op::Enqueue, 1).await;
    sending.abort();
    let _ = sending.await;
    fixture.coordinator.look_after_once().await;
    assert_eq!(delivery(&mut session).await.1, "x");
}

/// Nothing is claimed of what was being sent once, and it does not stay under way for ever.
#[tokio::test]
async fn what_is_given_up_while_it_is_sent_once_is_over() {
    let fixture = fixture();
    fixture.register(&["a"]).await;
    let once = fixture.give_up_while_publishing().await;
    let again = fixture.coordinator.multicast(once, soon()).await.unwrap();
    assert_eq!((again.replayed, again.phase), (true, Phase::Sent));
    assert_eq!(
        told(&again),
        one("a", Status::Timeout, Stage::Resolved, "UNKNOWN_OUTCOME")
    );
}
