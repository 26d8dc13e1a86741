//! Files that are replaced, put back, moved or removed, and what of that is a loss.

use std::{fs, time::Duration};

use prism_slot::{
    Call, DeadId, DeadQuery, DurableInbox, Error, Expect, Ledger, Position, RegistryStore, Revision, Verdict,
    Write, Wrote,
};
use prism_slot_sqlite::{SqliteLedger, SqliteRegistry};
use rusqlite::Connection;

use super::support::*;

/// A backup as it is made of a file in use.
fn back_up(place: &Place) -> std::path::PathBuf {
    let copy = place.directory.path().join("backup.db");
    let from = Connection::open(&place.path).unwrap();
    from.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    copy
}

async fn is_a_new_epoch(slot: &SqliteRegistry, before: Position, kept: &str, lost: &str) {
    let now = head(slot).await;
    assert_ne!(now.epoch, before.epoch);
    let of_before = Call {
        epoch: Some(before.epoch),
        ..call()
    };
    let refused = slot.sync(of_before, Revision::ZERO, 10).await;
    assert_eq!(refused, Err(Error::EpochChanged { current: now.epoch }));
    let compacted = slot.sync(call(), Revision::ZERO, 10).await;
    assert_eq!(
        compacted,
        Err(Error::Compacted { up_to: now.revision }),
        "what led here is not told"
    );
    assert!(slot.get(call(), identity(kept)).await.unwrap().record.is_some());
    assert!(slot.get(call(), identity(lost)).await.unwrap().record.is_none());
}

#[tokio::test]
async fn a_restart_is_none() {
    let place = Place::fast();
    let mut before = None;
    for round in 1..4 {
        let slot = registry(&place.path).await;
        let position = register(&slot, request(&format!("id-{round}")))
            .await
            .unwrap()
            .position;
        let first = *before.get_or_insert(position);
        assert_eq!(
            (position.epoch, position.revision),
            (first.epoch, Revision(round))
        );
        slot.close().await;
    }
}

#[tokio::test]
async fn a_backup_that_was_put_back_begins_a_new_epoch() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    register(&slot, request("kept")).await.unwrap();
    let copy = back_up(&place);
    let before = register(&slot, request("lost")).await.unwrap().position;
    slot.close().await;
    // Into the same file, so that nothing but its content is another one.
    fs::write(&place.path, fs::read(copy).unwrap()).unwrap();
    let slot = registry(&place.path).await;
    is_a_new_epoch(&slot, before, "kept", "lost").await;
    let now = head(&slot).await;
    slot.close().await;
    assert_eq!(head(&registry(&place.path).await).await, now, "and only one");
}

/// What a file gives to an entry of the ledger, and to a dead letter, both new. Nobody has it open before or after.
async fn numbers(place: &Place) -> (u64, DeadId) {
    let ledger = SqliteLedger::open(NAMESPACE, inbox_config(&place.path));
    let (ledger, slot) = (ledger.await.unwrap(), inbox(&place.path).await);
    let write = Write {
        key: "k".into(),
        expect: Expect::Anything,
        body: Some("x".into()),
        ttl: Duration::from_secs(60),
    };
    let Ok(Wrote::Done(version)) = ledger.write(vec![write], deadline()).await.remove(0) else {
        panic!("it is not written")
    };
    let dies = message("dies");
    store(&slot, "a", &dies).await;
    // They grow, so the session is a later one each time.
    delivered(&slot, "a", version).await;
    let term = Verdict::Term {
        reason: String::new(),
    };
    let verdicts = vec![(dies.multicast, term)];
    slot.settle(&consumer("a", version), verdicts, deadline())
        .await
        .unwrap();
    let query = DeadQuery {
        limit: 100,
        ..DeadQuery::default()
    };
    let page = slot.dead_letters(query, deadline()).await.unwrap();
    ledger.close().await;
    slot.close().await;
    (version, page.letters.last().unwrap().id)
}

/// Whoever remembers a number of what is lost meets nothing else under it.
#[tokio::test]
async fn numbers_of_what_is_lost_are_not_given_again() {
    let place = Place::fast();
    numbers(&place).await;
    let copy = back_up(&place);
    let mut before = numbers(&place).await;
    fs::write(&place.path, fs::read(copy).unwrap()).unwrap();
    for what in ["put back", "made anew"] {
        let after = numbers(&place).await;
        assert!(
            after.0 > before.0 && after.1 > before.1,
            "{what}: {before:?} {after:?}"
        );
        before = after;
        fs::remove_file(&place.path).unwrap();
    }
}

#[tokio::test]
async fn a_file_that_came_without_its_mark_begins_a_new_epoch() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    let before = register(&slot, request("kept")).await.unwrap().position;
    slot.close().await;
    fs::remove_file(place.beside("-mark")).unwrap();
    is_a_new_epoch(&registry(&place.path).await, before, "kept", "nobody").await;
}

#[tokio::test]
async fn a_log_that_was_lost_is_noticed() {
    let (place, other) = (Place::fast(), Place::fast());
    let slot = registry(&place.path).await;
    register(&slot, request("kept")).await.unwrap();
    slot.close().await;
    let slot = registry(&place.path).await;
    let before = register(&slot, request("lost")).await.unwrap().position;
    // A copy of the file as it is now, with its mark, and without its log.
    for (from, to) in [
        (&place.path, &other.path),
        (&place.beside("-mark"), &other.beside("-mark")),
    ] {
        fs::copy(from, to).unwrap();
    }
    is_a_new_epoch(&registry(&other.path).await, before, "kept", "lost").await;
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_open_is_noticed() {
    let place = Place::fast();
    let (slot, messages) = (registry(&place.path).await, inbox(&place.path).await);
    register(&slot, request("kept")).await.unwrap();
    let copy = back_up(&place);
    let before = register(&slot, request("lost")).await.unwrap().position;
    assert_eq!(store(&messages, "a", &message("lost")).await, STORED);
    fs::rename(copy, &place.path).unwrap();
    is_a_new_epoch(&slot, before, "kept", "lost").await;
    assert_eq!(messages.depth(None, deadline()).await.unwrap().messages, 0);
    assert_eq!(store(&messages, "a", &message("x")).await, STORED, "and works");
}

#[tokio::test]
async fn a_log_of_another_file_is_not_taken_for_its_own() {
    let (place, other) = (Place::fast(), Place::fast());
    let slot = registry(&other.path).await;
    register(&slot, request("theirs")).await.unwrap();
    slot.close().await;
    let slot = registry(&place.path).await;
    register(&slot, request("ours")).await.unwrap();
    // As after a crash: the log is there, and then another file takes the place of the one that it was written for.
    let log = fs::read(place.beside("-wal")).unwrap();
    slot.close().await;
    fs::write(place.beside("-wal"), log).unwrap();
    fs::rename(&other.path, &place.path).unwrap();
    let refused = SqliteRegistry::open(NAMESPACE, registry_config(&place.path)).await;
    let Err(error) = refused else {
        panic!("it was opened")
    };
    assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
    assert!(error.to_string().contains("was written for"), "{error}");
    fs::remove_file(place.beside("-wal")).unwrap();
    let slot = registry(&place.path).await;
    assert!(
        slot.get(call(), identity("theirs"))
            .await
            .unwrap()
            .record
            .is_some()
    );
    assert!(slot.get(call(), identity("ours")).await.unwrap().record.is_none());
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_is_not_made_anew() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    register(&slot, request("a")).await.unwrap();
    let aside = place.directory.path().join("aside.db");
    fs::rename(&place.path, &aside).unwrap();
    for _ in 0..2 {
        let Err(error) = slot.get(call(), identity("a")).await else {
            panic!("it is gone")
        };
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("put it back"), "{error}");
    }
    fs::rename(&aside, &place.path).unwrap();
    assert!(slot.get(call(), identity("a")).await.unwrap().record.is_some());
}
