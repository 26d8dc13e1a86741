//! A registry slot that fails: what is tried again, what is not, and what is said to have happened.

use std::time::Duration;

use prism_filter::Document;
use prism_slot::{Applied, Epoch, Error as SlotError, Renew, Revision};
use tokio::time::Instant;

use super::{
    super::{Error, Update},
    fixture, request, slot_error,
};
use crate::testing::{Fate, Op, id, soon, unavailable};

fn lost() -> SlotError {
    SlotError::Timeout {
        backend: "double",
        applied: Applied::Unknown,
    }
}

fn update(patch: &str) -> Update {
    Update {
        identity: id("a"),
        patch: Document::from_json(patch.as_bytes()).unwrap(),
        generation: None,
        if_revision: None,
    }
}

/// Registering or removing twice is not the same as once, so whoever asked is told that nobody knows.
#[tokio::test]
async fn a_lost_reply_is_not_tried_again_where_that_could_apply_it_twice() {
    let fixture = fixture(|_| {});
    fixture.script().next(Op::Register, Fate::Lose(lost()));
    let error = fixture
        .coordinator
        .register(request("a", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(error).applied(), Applied::Unknown);
    assert_eq!(fixture.script().count(Op::Register), 1);

    fixture.script().next(Op::Unregister, Fate::Lose(lost()));
    let error = fixture
        .coordinator
        .unregister("a", None, soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(error).applied(), Applied::Unknown);
    assert_eq!(fixture.script().count(Op::Unregister), 1);
    assert!(
        fixture.names(Default::default()).await.is_empty(),
        "it was applied"
    );

    fixture.script().next(Op::Renew, Fate::Lose(lost()));
    let lease = Renew {
        identity: id("a"),
        generation: None,
    };
    let results = fixture.coordinator.renew(vec![lease], soon()).await.unwrap();
    let error = results.into_iter().next().unwrap().unwrap_err();
    assert_eq!(slot_error(error).applied(), Applied::Unknown);
}

/// An update is written under a revision, and so may be repeated: it finds its own write.
#[tokio::test]
async fn a_lost_reply_of_an_update_is_found_again() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    fixture.script().next(Op::Put, Fate::Lose(lost()));
    let updated = fixture
        .coordinator
        .update(update(r#"{"n":1}"#), soon())
        .await
        .unwrap();
    assert_eq!(updated.revision, Revision(2), "applied once");
    assert_eq!(fixture.script().count(Op::Put), 2);
}

/// After an attempt of unknown outcome, nothing that the second one meets proves that the first one was
/// not applied: it may have been, and overwritten since.
#[tokio::test]
async fn what_a_repeated_update_meets_proves_nothing_of_the_first() {
    let fixture = fixture(|_| {});
    let held = fixture.register("a", "{}").await;
    let met = [
        SlotError::NotFound(id("a")),
        SlotError::StaleGeneration {
            identity: id("a"),
            current: held.generation,
        },
        SlotError::Conflict {
            identity: id("a"),
            current: Revision(9),
        },
        SlotError::Misconfigured {
            backend: "double",
            message: "the test wants it so".to_owned(),
        },
    ];
    for error in met {
        fixture.script().next(Op::Put, Fate::Lose(lost()));
        fixture.script().next(Op::Put, Fate::Refuse(error.clone()));
        let outcome = fixture.coordinator.update(update(r#"{"n":1}"#), soon()).await;
        let told = slot_error(outcome.unwrap_err());
        assert_eq!(told.applied(), Applied::Unknown, "after {error:?}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_applied_is_tried_again_after_a_pause() {
    let fixture = fixture(|_| {});
    fixture.names(Default::default()).await;
    let refused = unavailable(Applied::No);
    for _ in 0..3 {
        fixture.script().next(Op::Register, Fate::Refuse(refused.clone()));
    }
    let started = Instant::now();
    fixture.register("a", "{}").await;
    assert_eq!(fixture.script().count(Op::Register), 4);
    assert!(
        started.elapsed() >= Duration::from_millis(30),
        "{:?}",
        started.elapsed()
    );

    fixture
        .script()
        .always(Op::Register, Fate::Refuse(refused.clone()));
    let error = fixture
        .coordinator
        .register(request("b", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(error), refused, "but not for ever");
    assert_eq!(fixture.script().count(Op::Register), 8);
}

/// What a store does that was restarted with nothing kept.
#[tokio::test(start_paused = true)]
async fn a_store_may_come_back_with_another_epoch_at_the_last_attempt() {
    let fixture = fixture(|_| {});
    fixture.names(Default::default()).await;
    let current = fixture.register("b", "{}").await.position.epoch;
    for _ in 0..3 {
        fixture
            .script()
            .next(Op::Register, Fate::Refuse(unavailable(Applied::No)));
    }
    fixture
        .script()
        .next(Op::Register, Fate::Refuse(SlotError::EpochChanged { current }));
    let deadline = Instant::now() + Duration::from_secs(60);
    fixture
        .coordinator
        .register(request("a", "{}"), deadline)
        .await
        .unwrap();
}

/// Two servers behind one address, each with an epoch of its own.
#[tokio::test]
async fn an_epoch_that_goes_back_and_forth_is_not_followed_for_ever() {
    let fixture = fixture(|_| {});
    fixture.names(Default::default()).await;
    let other = SlotError::EpochChanged { current: Epoch(1) };
    fixture.script().always(Op::Register, Fate::Refuse(other.clone()));
    let error = fixture
        .coordinator
        .register(request("a", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(error), other);
    assert!(fixture.script().count(Op::Register) <= 4);
}

/// Updates of others that keep getting in between are met with patience, up to the deadline.
#[tokio::test(start_paused = true)]
async fn a_contended_update_ends_with_its_deadline() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let conflict = SlotError::Conflict {
        identity: id("a"),
        current: Revision(9),
    };
    fixture.script().always(Op::Put, Fate::Refuse(conflict));
    let deadline = Instant::now() + Duration::from_secs(1);
    let error = fixture
        .coordinator
        .update(update("{}"), deadline)
        .await
        .unwrap_err();
    assert_eq!(error, Error::DeadlineExceeded);
    assert!(Instant::now() <= deadline + Duration::from_millis(1));
    let attempts = fixture.script().count(Op::Put);
    assert!(
        (10..200).contains(&attempts),
        "paced, not in a busy loop: {attempts}"
    );
}

#[tokio::test]
async fn a_slot_that_leaves_results_out_is_not_believed() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    fixture.store.forget_results();
    let leases = ["a", "b"].map(|name| Renew {
        identity: id(name),
        generation: None,
    });
    let results = fixture.coordinator.renew(leases.into(), soon()).await.unwrap();
    assert_eq!(results.len(), 2);
    let error = fixture
        .coordinator
        .register(request("b", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(error).applied(), Applied::Unknown);
}
