//! Sessions: who listens, for which registration, and until when.

use std::{sync::Arc, time::Duration};

use prism_filter::Filter;
use prism_slot::{Error as SlotError, Outcome};
use tokio::sync::Notify;

use super::{
    super::{Closed, Multicast, Register, Session, SessionEvent},
    fixture, request, slot_error,
};
use crate::testing::{Fate, Op, id, soon};

/// What a session is handed next.
async fn next(session: &mut Session) -> Option<Result<SessionEvent, Closed>> {
    let next = tokio::time::timeout(Duration::from_secs(5), session.next());
    next.await.expect("the session is handed something")
}

#[tokio::test]
async fn a_newer_session_takes_over_wherever_it_is() {
    let fixture = fixture(|_| {});
    let sibling = fixture.sibling();
    fixture.register("a", "{}").await;
    let mut first = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    let mut second = sibling.subscribe("a", None, soon()).await.unwrap();
    assert_eq!(
        next(&mut first).await,
        Some(Err(Closed::Superseded)),
        "told across runners"
    );
    assert_eq!(next(&mut first).await, None);
    let third = sibling.subscribe("a", None, soon()).await.unwrap();
    assert_eq!(
        next(&mut second).await,
        Some(Err(Closed::Superseded)),
        "and on the same one"
    );
    assert!(third.claim().session_seq > second.claim().session_seq);
    drop((first, second));
    assert_eq!(
        (fixture.coordinator.session_count(), sibling.session_count()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_session_ends_with_its_registration() {
    let fixture = fixture(|_| {});
    let open = async |name: &str| {
        let leased = Register {
            ttl: Some(Duration::from_secs(1)),
            ..request(name, "{}")
        };
        fixture.coordinator.register(leased, soon()).await.unwrap();
        fixture.coordinator.subscribe(name, None, soon()).await.unwrap()
    };
    let mut removed = open("removed").await;
    fixture
        .coordinator
        .unregister("removed", None, soon())
        .await
        .unwrap();
    assert_eq!(next(&mut removed).await, Some(Err(Closed::Unregistered)));

    let mut replaced = open("replaced").await;
    let taken = Register {
        replace: true,
        ..request("replaced", "{}")
    };
    fixture.coordinator.register(taken, soon()).await.unwrap();
    assert_eq!(next(&mut replaced).await, Some(Err(Closed::Replaced)));

    let mut expired = open("expired").await;
    fixture.clock.advance(Duration::from_millis(1_001));
    assert_eq!(
        next(&mut expired).await,
        Some(Err(Closed::Expired)),
        "noticed by the ticking view"
    );

    let mut drained = open("drained").await;
    fixture.coordinator.close_sessions();
    assert_eq!(next(&mut drained).await, Some(Err(Closed::Draining)));
}

#[tokio::test]
async fn a_session_belongs_to_a_registration() {
    let fixture = fixture(|_| {});
    let subscribe = async |generation| fixture.coordinator.subscribe("a", generation, soon()).await;
    assert_eq!(
        slot_error(subscribe(None).await.unwrap_err()),
        SlotError::NotFound(id("a"))
    );
    let held = fixture.register("a", "{}").await;
    let replaced = Register {
        replace: true,
        ..request("a", "{}")
    };
    fixture.coordinator.register(replaced, soon()).await.unwrap();
    let stale = slot_error(subscribe(Some(held.generation)).await.unwrap_err());
    assert!(matches!(stale, SlotError::StaleGeneration { .. }));
    assert_eq!(
        fixture.coordinator.session_count(),
        0,
        "a failed subscription leaves nothing behind"
    );
}

/// Claims may be noted in another order than they were made; the newest stays all the same.
#[tokio::test]
async fn the_newest_claim_stays_whichever_is_noted_last() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    // The word between runners would do it as well; here it gets lost.
    for _ in 0..2 {
        fixture.broker.judge(|_| vec![Outcome::Accepted]);
    }
    let hold = Arc::new(Notify::new());
    fixture.script().next(Op::Claim, Fate::Late(hold.clone()));
    let coordinator = fixture.coordinator.clone();
    let first = tokio::spawn(async move { coordinator.subscribe("a", None, soon()).await });
    fixture.script().reached(Op::Claim, 1).await;
    let mut second = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    hold.notify_one();
    let mut first = first.await.unwrap().unwrap();
    assert!(first.claim().session_seq < second.claim().session_seq);
    assert_eq!(next(&mut first).await, Some(Err(Closed::Superseded)));
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert!(matches!(
        next(&mut second).await,
        Some(Ok(SessionEvent::Message(_)))
    ));
}

/// A registration that is replaced while its new holder subscribes: the session is the new one's.
#[tokio::test]
async fn a_replacement_during_the_claim_does_not_end_the_session() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let hold = Arc::new(Notify::new());
    fixture.script().next(Op::Claim, Fate::Wait(hold.clone()));
    let coordinator = fixture.coordinator.clone();
    let opening = tokio::spawn(async move { coordinator.subscribe("a", None, soon()).await });
    fixture.script().reached(Op::Claim, 1).await;
    let replaced = fixture
        .coordinator
        .register(
            Register {
                replace: true,
                ..request("a", "{}")
            },
            soon(),
        )
        .await
        .unwrap();
    fixture.names(Filter::new()).await;
    hold.notify_one();
    let mut session = opening.await.unwrap().unwrap();
    assert_eq!(session.claim().generation, replaced.generation);
    let report = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert_eq!(report.delivered(), 1);
    assert!(matches!(
        next(&mut session).await,
        Some(Ok(SessionEvent::Message(_)))
    ));
}

/// A registration that goes away while the claim's answer is on its way: the view has followed past
/// that, and will not say it again.
#[tokio::test]
async fn a_removal_during_the_claim_ends_the_session() {
    for replace in [false, true] {
        let fixture = fixture(|_| {});
        fixture.register("a", "{}").await;
        let hold = Arc::new(Notify::new());
        fixture.script().next(Op::Claim, Fate::Late(hold.clone()));
        let coordinator = fixture.coordinator.clone();
        let opening = tokio::spawn(async move { coordinator.subscribe("a", None, soon()).await });
        fixture.script().reached(Op::Claim, 1).await;
        fixture.coordinator.unregister("a", None, soon()).await.unwrap();
        if replace {
            fixture.register("a", "{}").await;
        }
        fixture.names(Filter::new()).await;
        hold.notify_one();
        let mut session = opening.await.unwrap().unwrap();
        let expected = if replace {
            Closed::Replaced
        } else {
            Closed::Unregistered
        };
        assert_eq!(next(&mut session).await, Some(Err(expected)));
    }
}

/// A view that is behind learns of the replacements before the one that the session belongs to.
#[tokio::test(start_paused = true)]
async fn older_replacements_do_not_end_a_newer_session() {
    let fixture = fixture(|_| {});
    fixture.names(Filter::new()).await;
    for _ in 0..3 {
        let taken = Register {
            replace: true,
            ..request("a", "{}")
        };
        fixture.coordinator.register(taken, soon()).await.unwrap();
    }
    let mut session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    fixture.names(Filter::new()).await;
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert!(matches!(
        next(&mut session).await,
        Some(Ok(SessionEvent::Message(_)))
    ));
}

/// What happens to a session when its identity registers again, as the same session and as another.
#[tokio::test]
async fn a_session_outlives_renewals_and_updates() {
    let fixture = fixture(|_| {});
    let mine = |metadata| Register {
        session: Some(prism_slot::SessionId([7; 16])),
        ..request("a", metadata)
    };
    fixture.coordinator.register(mine("{}"), soon()).await.unwrap();
    let mut session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    for metadata in ["{}", r#"{"n":1}"#] {
        fixture
            .coordinator
            .register(mine(metadata), soon())
            .await
            .unwrap();
    }
    fixture.names(Filter::new()).await;
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert!(matches!(
        next(&mut session).await,
        Some(Ok(SessionEvent::Message(_)))
    ));
}

/// A claim that was certainly not made is made again; what the client asked for was a session, not an
/// epoch.
#[tokio::test]
async fn a_refused_claim_is_made_again() {
    let fixture = fixture(|_| {});
    let held = fixture.register("a", "{}").await;
    let refused = crate::testing::unavailable(prism_slot::Applied::No);
    fixture.script().next(Op::Claim, Fate::Refuse(refused));
    let current = held.position.epoch;
    fixture
        .script()
        .next(Op::Claim, Fate::Refuse(SlotError::EpochChanged { current }));
    assert!(fixture.coordinator.subscribe("a", None, soon()).await.is_ok());
    assert_eq!(fixture.script().count(Op::Claim), 3);
}

/// Subscribing that is given up half-way leaves nobody listening.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_was_given_up_leaves_nothing_behind() {
    for (op, on_broker) in [(Op::Claim, false), (Op::Listen, true), (Op::Publish, true)] {
        let fixture = fixture(|_| {});
        fixture.register("a", "{}").await;
        let script = if on_broker {
            &fixture.broker.script
        } else {
            fixture.script()
        };
        script.next(op, Fate::Hang);
        let opening = fixture.coordinator.subscribe("a", None, soon());
        let given_up = tokio::time::timeout(Duration::from_millis(100), opening).await;
        assert!(given_up.is_err(), "{op:?}");
        assert_eq!(fixture.coordinator.session_count(), 0, "{op:?}");
        let report = fixture
            .coordinator
            .multicast(Multicast::default(), soon())
            .await
            .unwrap();
        assert_eq!(report.targets.get(0).unwrap().reason(), "NO_SUBSCRIBER", "{op:?}");
    }
}
