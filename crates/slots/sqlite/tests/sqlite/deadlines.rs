//! No call outlives its deadline, and none is executed after it.

use std::{path::Path, time::Duration};

use prism_slot::{Applied, Call, DurableInbox, Enqueued, Error, RegistryStore};
use rusqlite::Connection;
use tokio::time::Instant;

use super::support::*;

const SHORT: Duration = Duration::from_millis(300);
const SLACK: Duration = Duration::from_millis(400);

/// Somebody who has the file to himself.
fn lock(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_another_process_end_in_time_and_are_not_executed_later() {
    let place = Place::fast();
    let (slot, registry) = (inbox(&place.path).await, registry(&place.path).await);
    let other = lock(&place.path);
    let short = || Instant::now() + SHORT;
    let to = [address("late")];
    let started = Instant::now();
    let call = Call {
        epoch: None,
        deadline: short(),
    };
    let (registered, stored) = tokio::join!(
        registry.register(call, vec![request("late")]),
        slot.enqueue(&to, message("x"), terms(), short()),
    );
    assert!(started.elapsed() < SHORT + SLACK, "{:?}", started.elapsed());
    let Err(late) = &registered[0] else {
        panic!("{registered:?}")
    };
    assert!(
        matches!(
            late,
            Error::Timeout {
                applied: Applied::No,
                ..
            }
        ),
        "{late:?}"
    );
    assert!(matches!(stored[..], [Enqueued::NotStored(_)]), "{stored:?}");
    // One that has time is executed as soon as the other one has finished; those that were late are not.
    let patient = register(&registry, request("patient"));
    let (patient, ()) = tokio::join!(patient, async {
        tokio::time::sleep(SHORT / 3).await;
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert_eq!(patient.unwrap().position.revision.0, 1);
    assert_eq!(slot.depth(None, deadline()).await.unwrap().messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_locked_file_ends() {
    let place = Place::fast();
    registry(&place.path).await.close().await;
    let other = lock(&place.path);
    let refused = prism_slot_sqlite::SqliteRegistry::open(NAMESPACE, registry_config(&place.path)).await;
    let Err(error) = refused else {
        panic!("it is locked")
    };
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("another process keeps"), "{error}");
    drop(other);
    registry(&place.path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_waits_for_are_not_executed() {
    let place = Place::fast();
    let registry = registry(&place.path).await;
    let other = lock(&place.path);
    let given_up = tokio::time::timeout(SHORT / 3, register(&registry, request("given-up"))).await;
    assert!(given_up.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        register(&registry, request("next"))
            .await
            .unwrap()
            .position
            .revision
            .0,
        1
    );
    assert!(
        registry
            .get(call(), identity("given-up"))
            .await
            .unwrap()
            .record
            .is_none()
    );
}
