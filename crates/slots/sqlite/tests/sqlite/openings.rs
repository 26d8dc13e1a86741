//! Several slots, and several openings of each, share a file.

use std::time::Duration;

use prism_slot::{DurableInbox, Error, Expect, Ledger, RegistryStore, Revision, Write, Wrote};
use prism_slot_sqlite::{SqliteInbox, SqliteLedger, SqliteRegistry};

use super::support::*;

#[tokio::test]
async fn all_three_slots_share_a_file_and_end_by_themselves() {
    let place = Place::fast();
    let (registry, slot) = (registry(&place.path).await, inbox(&place.path).await);
    let ledger = SqliteLedger::open(NAMESPACE, inbox_config(&place.path))
        .await
        .unwrap();
    register(&registry, request("a")).await.unwrap();
    registry.close().await;
    let closed = registry.get(call(), identity("a")).await;
    assert!(matches!(closed, Err(Error::Unavailable { .. })), "{closed:?}");
    assert_eq!(store(&slot, "a", &message("x")).await, STORED);
    slot.close().await;
    let write = Write {
        key: "k".into(),
        expect: Expect::Absent,
        body: Some("x".into()),
        ttl: Duration::from_secs(60),
    };
    let wrote = ledger.write(vec![write], deadline()).await.remove(0);
    assert!(matches!(wrote, Ok(Wrote::Done(_))), "{wrote:?}");
    assert!(place.beside("-wal").exists(), "the file is open");
    ledger.close().await;
    assert!(
        !place.beside("-wal").exists(),
        "the last one has closed it, with all that was in the log"
    );
    let again = inbox(&place.path).await;
    assert_eq!(again.depth(None, deadline()).await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_slot_that_is_dropped_has_closed_its_file() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    let registered = register(&slot, request("a")).await.unwrap();
    drop(slot);
    assert!(!place.beside("-wal").exists());
    let again = registry(&place.path).await;
    assert_eq!(head(&again).await, registered.position);
}

#[tokio::test]
async fn an_opening_that_was_given_up_leaves_nothing_open() {
    let place = Place::fast();
    for _ in 0..20 {
        let opening = Box::pin(SqliteRegistry::open(NAMESPACE, registry_config(&place.path)));
        let _ = futures::future::select(opening, Box::pin(tokio::task::yield_now())).await;
    }
    let slot = registry(&place.path).await;
    register(&slot, request("a")).await.unwrap();
    slot.close().await;
    assert!(!place.beside("-wal").exists(), "nobody else has it open");
}

#[tokio::test]
async fn one_name_or_another_lead_to_one_file() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    let link = place.directory.path().join("link.db");
    std::os::unix::fs::symlink(&place.path, &link).unwrap();
    let other = registry(&link).await;
    let registered = register(&slot, request("a")).await.unwrap();
    let told = other.changed(call(), Revision::ZERO).await;
    told.unwrap();
    assert_eq!(head(&other).await, registered.position);
    assert!(!beside(&link, "-wal").exists() && !beside(&link, "-mark").exists());
}

#[tokio::test]
async fn settings_of_the_feed_apply_in_place() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    for number in 0..50 {
        register(&slot, request(&format!("id-{number}"))).await.unwrap();
    }
    assert_eq!(history(&slot, Revision::ZERO).await.len(), 50);
    let mut fewer = registry_config(&place.path);
    fewer.feed_max_changes = 10;
    slot.configure(&fewer);
    for number in 50..60 {
        register(&slot, request(&format!("id-{number}"))).await.unwrap();
    }
    let gone = slot.sync(call(), Revision(49), 100).await;
    assert_eq!(gone, Err(Error::Compacted { up_to: Revision(50) }));
    assert_eq!(history(&slot, Revision(50)).await.len(), 10);
}

#[tokio::test]
async fn what_somebody_scans_stays_in_the_feed_meanwhile() {
    let place = Place::fast();
    let mut few = registry_config(&place.path);
    few.feed_max_changes = 20;
    let slot = SqliteRegistry::open(NAMESPACE, few).await.unwrap();
    let more = async |from: usize, to: usize| {
        for number in from..to {
            register(&slot, request(&format!("id-{number}"))).await.unwrap();
        }
    };
    more(0, 20).await;
    let scan = prism_slot::Scan {
        cursor: None,
        limit: 5,
        hold: Duration::from_secs(30),
    };
    let began = slot.scan(call(), scan).await.unwrap().head;
    more(20, 35).await;
    assert_eq!(
        history(&slot, began.revision).await.len(),
        15,
        "beyond what the settings say"
    );
    more(35, 100).await;
    let gone = slot.sync(call(), began.revision, 1).await;
    assert!(
        matches!(gone, Err(Error::Compacted { .. })),
        "but not without bounds: {gone:?}"
    );
}

#[tokio::test]
async fn a_message_for_many_is_stored_once_and_goes_with_its_last_use() {
    let place = Place::fast();
    let slot = SqliteInbox::open(NAMESPACE, inbox_config(&place.path), roomy())
        .await
        .unwrap();
    let to: Vec<_> = (0..3_000)
        .map(|number| address(&format!("id-{number}")))
        .collect();
    let large = message(vec![9; 1_000_000]);
    let outcomes = slot.enqueue(&to, large.clone(), terms(), deadline()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED));
    let look = rusqlite::Connection::open(&place.path).unwrap();
    let bodies = || {
        look.query_row("SELECT count(*) FROM bodies", (), |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(bodies(), 1);
    let identities: Vec<_> = to.iter().map(|to| to.identity.clone()).collect();
    let cancelled = slot.cancel(large.multicast, &identities[1..], deadline()).await;
    assert!(cancelled.iter().all(|was_there| *was_there == Ok(true)));
    assert_eq!(bodies(), 1);
    let cancelled = slot.cancel(large.multicast, &identities[..1], deadline()).await;
    assert_eq!(cancelled, [Ok(true)]);
    assert_eq!(bodies(), 0);
    assert_eq!(slot.depth(None, deadline()).await.unwrap().messages, 0);
}
