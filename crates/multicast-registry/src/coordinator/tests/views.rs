//! The view: who shares a fetch, who waits for whom, and what a new epoch changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use prism_filter::Filter;
use prism_slot::{Applied, Error as SlotError, Renew, Revision, memory::ManualClock};
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{Coordinator, Enumerate, Error, Page, Register, Update},
    Fixture, fixture, names, request, slot_error,
};
use crate::{
    config::ReadConsistency,
    testing::{Fate, Op, Store, id, soon, unavailable},
};

fn read(coordinator: &Coordinator, deadline: Instant) -> tokio::task::JoinHandle<Result<Page, Error>> {
    let coordinator = coordinator.clone();
    tokio::spawn(async move { coordinator.enumerate(Enumerate::default(), deadline).await })
}

/// Holds the next fetch after it has seen the store, and returns what lets it go and its reader.
async fn held_fetch(fixture: &Fixture) -> (Arc<Notify>, tokio::task::JoinHandle<Result<Page, Error>>) {
    let (hold, fetches) = (Arc::new(Notify::new()), fixture.script().count(Op::Sync));
    fixture.script().next(Op::Sync, Fate::Late(hold.clone()));
    let reader = read(&fixture.coordinator, soon());
    fixture.script().reached(Op::Sync, fetches + 1).await;
    (hold, reader)
}

/// A fetch that was under way when a reader came may have missed what was acknowledged before the
/// reader came; one that began after it cannot.
#[tokio::test(start_paused = true)]
async fn a_reader_shares_only_a_fetch_that_began_after_it_came() {
    let fixture = fixture(|_| {});
    fixture.register("early", "{}").await;
    fixture.names(Filter::new()).await;
    let (hold, first) = held_fetch(&fixture).await;
    fixture.register("acknowledged", "{}").await;
    let fetches = fixture.script().count(Op::Sync);
    let readers: Vec<_> = (0..10).map(|_| read(&fixture.coordinator, soon())).collect();
    tokio::task::yield_now().await;
    hold.notify_one();
    assert!(first.await.unwrap().is_ok());
    for page in join_all(readers).await {
        assert_eq!(names(&page.unwrap().unwrap()), ["acknowledged", "early"]);
    }
    let shared = fixture.script().count(Op::Sync) - fetches;
    assert_eq!(shared, 1, "ten readers, one fetch");
}

/// A caller that gives up early takes nobody with it, not even those who would have shared its fetch.
#[tokio::test(start_paused = true)]
async fn an_impatient_reader_fails_alone() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    fixture.names(Filter::new()).await;
    let (hold, first) = held_fetch(&fixture).await;
    let (fetches, again) = (fixture.script().count(Op::Sync), Arc::new(Notify::new()));
    fixture.script().next(Op::Sync, Fate::Hang);
    fixture.script().next(Op::Sync, Fate::Wait(again.clone()));
    let impatient = read(&fixture.coordinator, Instant::now() + Duration::from_millis(50));
    tokio::task::yield_now().await;
    let patient = read(&fixture.coordinator, soon());
    tokio::task::yield_now().await;
    hold.notify_one();
    assert!(first.await.unwrap().is_ok());
    let error = impatient.await.unwrap().unwrap_err();
    assert!(matches!(slot_error(error), SlotError::Timeout { .. }));
    fixture.script().reached(Op::Sync, fetches + 2).await;
    again.notify_one();
    assert_eq!(names(&patient.await.unwrap().unwrap()), ["a"]);
}

/// Those who wait for a dead store fail together, instead of each finding out in turn.
#[tokio::test(start_paused = true)]
async fn readers_that_wait_together_fail_together() {
    let fixture = fixture(|_| {});
    fixture.names(Filter::new()).await;
    let (hold, first) = held_fetch(&fixture).await;
    let lost = unavailable(Applied::No);
    fixture.script().always(Op::Sync, Fate::Refuse(lost.clone()));
    let fetches = fixture.script().count(Op::Sync);
    let readers: Vec<_> = (0..10).map(|_| read(&fixture.coordinator, soon())).collect();
    tokio::task::yield_now().await;
    hold.notify_one();
    assert!(first.await.unwrap().is_ok());
    for outcome in join_all(readers).await {
        assert_eq!(slot_error(outcome.unwrap().unwrap_err()), lost);
    }
    assert_eq!(fixture.script().count(Op::Sync) - fetches, 1);
}

/// Whoever reads while nothing happens has nobody asked, and misses nothing that did.
#[tokio::test(start_paused = true)]
async fn a_slot_that_knows_where_it_stands_is_not_asked() {
    let fixture = fixture(|_| {});
    fixture.store.know_head();
    for (number, expected) in [vec!["a"], vec!["a", "b"]].iter().enumerate() {
        fixture.register(expected[number], "{}").await;
        assert_eq!(fixture.names(Filter::new()).await, *expected);
        let asked = fixture.script().count(Op::Sync);
        for _ in 0..10 {
            assert_eq!(fixture.names(Filter::new()).await, *expected);
        }
        assert_eq!(fixture.script().count(Op::Sync), asked);
    }
}

/// With nobody calling, the slot is still asked at least once a second: the lease clock needs that, and
/// that is how the dead expire.
#[tokio::test(start_paused = true)]
async fn the_slot_is_asked_at_least_once_a_second() {
    let fixture = fixture(|_| {});
    fixture.names(Filter::new()).await;
    let before = fixture.script().count(Op::Sync);
    for second in 1..=30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = fixture.script().count(Op::Sync) - before;
        assert!(
            (second..=second * 3).contains(&asked),
            "{asked} times in {second} s"
        );
    }
}

/// Also while the store is slow to fail.
#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_again_as_soon_as_it_failed() {
    let fixture = fixture(|_| {});
    fixture.names(Filter::new()).await;
    let before = fixture.script().count(Op::Sync);
    fixture.script().always(Op::Sync, Fate::Hang);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = fixture.script().count(Op::Sync) - before;
    assert!((10..=60).contains(&asked), "each attempt has its end: {asked}");
}

/// A store that always has more to tell keeps no caller longer than that caller's time, and the view's own
/// task comes round.
#[tokio::test]
async fn a_history_without_end_is_followed_for_a_while() {
    let fixture = fixture(|_| {});
    fixture.names(Filter::new()).await;
    fixture.store.never_end();
    let deadline = Instant::now() + Duration::from_millis(100);
    let others = tokio::spawn(tokio::time::sleep_until(deadline));
    let outcome = fixture
        .coordinator
        .enumerate(Enumerate::default(), deadline)
        .await;
    assert!(matches!(
        slot_error(outcome.unwrap_err()),
        SlotError::Timeout { .. }
    ));
    assert!(
        deadline.elapsed() < Duration::from_secs(3),
        "others had no turn for {:?}",
        deadline.elapsed()
    );
    others.await.unwrap();
    fixture.coordinator.close().await;
}

/// A history with a hole in it is not followed.
#[tokio::test]
async fn a_gap_in_history_builds_the_view_anew() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    fixture.names(Filter::new()).await;
    for name in ["b", "c", "d"] {
        fixture.register(name, "{}").await;
    }
    let scans = fixture.script().count(Op::Scan);
    fixture.store.skip_a_change();
    assert_eq!(fixture.names(Filter::new()).await, ["a", "b", "c", "d"]);
    assert_eq!(fixture.script().count(Op::Scan), scans + 1);
}

/// What was given out in an epoch that ended is refused as such, and never taken for something else.
#[tokio::test]
async fn what_is_of_an_ended_epoch_is_refused_as_such() {
    let fixture = fixture(|_| {});
    let mut held = None;
    for name in ["a", "b", "c"] {
        held = Some(fixture.register(name, "{}").await);
    }
    let held = held.unwrap();
    let first = Enumerate {
        limit: 1,
        ..Default::default()
    };
    let cursor = fixture
        .coordinator
        .enumerate(first.clone(), soon())
        .await
        .unwrap()
        .next;
    // As a store that lost everything: the same name, another history, and the same names in it.
    let emptied = Store::new(Arc::new(ManualClock::new(prism_slot::Timestamp(
        1_800_000_000_000,
    ))));
    fixture.coordinator.replace_registry(emptied);
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    let current = fixture.coordinator.directory().head().epoch;
    assert_ne!(current, held.position.epoch);

    let paged = Enumerate {
        cursor: cursor.clone(),
        ..first.clone()
    };
    let other_epoch = Error::OtherEpoch { current };
    assert_eq!(
        fixture.coordinator.enumerate(paged, soon()).await.unwrap_err(),
        other_epoch
    );
    for consistency in [ReadConsistency::Stale, ReadConsistency::Consistent] {
        let request = Enumerate {
            min_position: Some(held.position),
            consistency: Some(consistency),
            ..Default::default()
        };
        assert_eq!(
            fixture.coordinator.enumerate(request, soon()).await.unwrap_err(),
            other_epoch
        );
    }
    let stale = |error| matches!(slot_error(error), SlotError::StaleGeneration { .. });
    let generation = Some(held.generation);
    let lease = Renew {
        identity: id("c"),
        generation,
    };
    let renewed = fixture.coordinator.renew(vec![lease], soon()).await.unwrap();
    assert!(stale(renewed.into_iter().next().unwrap().unwrap_err()));
    assert!(stale(
        fixture
            .coordinator
            .unregister("c", generation, soon())
            .await
            .unwrap_err()
    ));
    assert!(stale(
        fixture
            .coordinator
            .subscribe("c", generation, soon())
            .await
            .unwrap_err()
    ));
    let update = Update {
        identity: id("c"),
        patch: Default::default(),
        generation,
        if_revision: None,
    };
    assert!(stale(
        fixture.coordinator.update(update, soon()).await.unwrap_err()
    ));
    assert_eq!(
        fixture.names(Filter::new()).await,
        ["a", "b", "c"],
        "nothing of that did anything"
    );
}

/// A runner that has not noticed the new epoch goes on with the pages that another one has begun in it.
#[tokio::test(start_paused = true)]
async fn a_runner_that_is_behind_takes_a_cursor_of_a_new_epoch() {
    let fixture = fixture(|_| {});
    let behind = fixture.sibling();
    fixture.register("before", "{}").await;
    read(&behind, soon()).await.unwrap().unwrap();
    let ended = behind.directory().head().epoch;
    let emptied = Store::new(Arc::new(ManualClock::new(prism_slot::Timestamp(
        1_800_000_000_000,
    ))));
    fixture.coordinator.replace_registry(emptied.clone());
    behind.replace_registry(emptied.clone());
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    let first = Enumerate {
        limit: 1,
        ..Default::default()
    };
    let page = fixture
        .coordinator
        .enumerate(first.clone(), soon())
        .await
        .unwrap();
    assert_eq!(names(&page), ["a"]);
    let second = Enumerate {
        cursor: page.next.clone(),
        limit: 2,
        ..first.clone()
    };
    // Where the store does not answer, nobody knows.
    let lost = unavailable(Applied::No);
    assert_eq!(behind.directory().head().epoch, ended, "it has not noticed yet");
    emptied.script.next(Op::Sync, Fate::Refuse(lost.clone()));
    let unknown = behind.enumerate(second.clone(), soon()).await;
    assert_eq!(slot_error(unknown.unwrap_err()), lost);
    assert_eq!(behind.directory().head().epoch, ended, "it has not noticed yet");
    let rest = behind.enumerate(second, soon()).await.unwrap();
    assert_eq!((names(&rest), rest.total), (vec!["b".into(), "c".into()], 3));
    assert_eq!(rest.position, page.position);
}

/// However many registrations go at once, readers come in between while what is left of them is given up.
#[tokio::test(start_paused = true)]
async fn what_is_past_is_given_up_in_pieces() {
    const COUNT: usize = 10_000;
    let fixture = fixture(|config| {
        config.behavior.max_identities = COUNT as u64;
        config.behavior.ttl_default = Some(Duration::from_secs(10));
    });
    for number in 0..COUNT {
        fixture.register(&format!("id-{number}"), "{}").await;
    }
    for _ in 0..10 {
        fixture.clock.advance(Duration::from_secs(2));
        fixture.names(Filter::new()).await;
    }
    let directory = fixture.coordinator.directory().clone();
    let kept = || directory.read(|view| view.closed().len());
    assert_eq!(kept(), COUNT);
    let mut settings = fixture.coordinator.config().directory();
    settings.horizon.age = Duration::ZERO;
    directory.configure(settings);
    let (mut before, mut most) = (COUNT, 0);
    while before > 0 {
        let now = kept();
        most = most.max(before - now);
        before = now;
        tokio::task::yield_now().await;
    }
    assert!(most <= 2_048, "{most} at once");
}

/// A generation fences its holder out of everything once somebody else holds the identity.
#[tokio::test]
async fn a_replaced_generation_is_fenced_out() {
    let fixture = fixture(|_| {});
    let before = fixture.register("a", "{}").await;
    let replaced = Register {
        replace: true,
        ..request("a", r#"{"new":true}"#)
    };
    let after = fixture.coordinator.register(replaced, soon()).await.unwrap();
    assert_ne!(before.generation, after.generation);
    let attempts = |generation| {
        let coordinator = fixture.coordinator.clone();
        async move {
            let lease = Renew {
                identity: id("a"),
                generation,
            };
            let update = Update {
                identity: id("a"),
                patch: Default::default(),
                generation,
                if_revision: None,
            };
            let renewed = coordinator.renew(vec![lease], soon()).await.unwrap();
            [
                renewed.into_iter().next().unwrap().is_ok(),
                coordinator.update(update, soon()).await.is_ok(),
                coordinator.subscribe("a", generation, soon()).await.is_ok(),
                coordinator.unregister("a", generation, soon()).await.is_ok(),
            ]
        }
    };
    assert_eq!(attempts(Some(before.generation)).await, [false; 4]);
    assert_eq!(attempts(Some(after.generation)).await, [true; 4]);
}

/// A renewal moves a lease and nothing else; as the same session, registering again is one.
#[tokio::test]
async fn renewals_use_no_revision() {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_secs(60)));
    let mine = Register {
        session: Some(prism_slot::SessionId([1; 16])),
        ..request("a", r#"{"n":1}"#)
    };
    let first = fixture.coordinator.register(mine.clone(), soon()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    for replace in [false, true] {
        let again = Register {
            replace,
            ..mine.clone()
        };
        let again = fixture.coordinator.register(again, soon()).await.unwrap();
        assert_eq!(
            (again.generation, again.position),
            (first.generation, first.position)
        );
        assert!(again.expires_at > first.expires_at);
    }
    let lease = Renew {
        identity: id("a"),
        generation: None,
    };
    fixture
        .coordinator
        .renew(vec![lease.clone(), lease], soon())
        .await
        .unwrap();
    let page = fixture
        .coordinator
        .enumerate(Enumerate::default(), soon())
        .await
        .unwrap();
    assert_eq!(page.position.revision, Revision(1));
    let revisions: BTreeSet<_> = page.rows.iter().map(|row| row.revision()).collect();
    assert_eq!(revisions, [Revision(1)].into());
}
