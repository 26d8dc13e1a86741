//! What cannot be used is refused at once, with the path and what to do, and stays as it is.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
};

use prism_slot::{DurableInbox, Enqueued, Error, RegistryStore};
use prism_slot_sqlite::{SqliteInbox, SqliteRegistry};
use rusqlite::Connection;

use super::{
    child::{Running, Task, command, say},
    support::*,
};

async fn refusal(path: &Path) -> Error {
    match SqliteRegistry::open(NAMESPACE, registry_config(path)).await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

/// Refused for good, saying which file and what to do.
async fn refused(path: &Path, advice: &str) {
    let error = refusal(path).await;
    assert!(
        matches!(error, Error::Misconfigured { .. } | Error::Unreadable { .. }),
        "{error:?}"
    );
    let told = error.to_string();
    let name = path.file_name().map_or("`path`", |name| name.to_str().unwrap());
    assert!(told.contains(advice) && told.contains(name), "{told}");
    let of_inbox = SqliteInbox::open(NAMESPACE, inbox_config(path), roomy()).await;
    assert_eq!(of_inbox.map(drop), Err(error));
}

#[tokio::test]
async fn places_that_are_none_are_refused() {
    let place = Place::fast();
    refused(
        &place.directory.path().join("missing/prism.db"),
        "does not exist; make it",
    )
    .await;
    refused(place.directory.path(), "is a directory").await;
    refused(&place.directory.path().join("x").join(".."), "`path`").await;
}

#[tokio::test]
async fn files_of_others_are_refused_and_stay_as_they_are() {
    let place = Place::fast();
    let text = place.directory.path().join("notes.txt");
    fs::write(&text, "all that I know ".repeat(1_000)).unwrap();
    let foreign = place.directory.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    for (path, advice) in [
        (&text, "set another `path`"),
        (&foreign, "belongs to another program"),
    ] {
        let before = fs::read(path).unwrap();
        refused(path, advice).await;
        assert_eq!(fs::read(path).unwrap(), before);
        assert!(!beside(path, "-mark").exists() && !beside(path, "-wal").exists());
    }
}

/// Does something to a file that nobody has open.
async fn with_file(path: &Path, sql: &str) {
    registry(path).await.close().await;
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn later_versions_are_refused() {
    let place = Place::fast();
    with_file(&place.path, "PRAGMA user_version = 2").await;
    let error = refusal(&place.path).await;
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("later version"), "{error}");
    with_file_version_back(&place.path);
    let slot = registry(&place.path).await;
    register(&slot, request("a")).await.unwrap();
    slot.close().await;
    let later = "UPDATE records SET body = CAST(x'02' || substr(body, 2) AS BLOB)";
    Connection::open(&place.path)
        .unwrap()
        .execute_batch(later)
        .unwrap();
    let slot = registry(&place.path).await;
    let Err(error) = slot.get(call(), identity("a")).await else {
        panic!("it is of a later format")
    };
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("later version") && error.to_string().contains("`a`"),
        "{error}"
    );
    assert_eq!(slot.probe(deadline()).await, Ok(()), "all else goes on");
}

fn with_file_version_back(path: &Path) {
    Connection::open(path)
        .unwrap()
        .execute_batch("PRAGMA user_version = 1")
        .unwrap();
}

#[tokio::test]
async fn damage_is_told_and_not_served() {
    let place = Place::fast();
    let slot = registry(&place.path).await;
    for number in 0..500 {
        register(&slot, request(&format!("id-{number}"))).await.unwrap();
    }
    slot.close().await;
    let mut bytes = fs::read(&place.path).unwrap();
    // All pages but the first one, which says that this is a database of ours.
    bytes[4_096..].fill(0xa5);
    fs::write(&place.path, bytes).unwrap();
    let error = match SqliteRegistry::open(NAMESPACE, registry_config(&place.path)).await {
        Ok(slot) => slot.get(call(), identity("id-1")).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("damaged") && error.to_string().contains("backup"),
        "{error}"
    );
}

#[tokio::test]
async fn a_call_that_fails_halfway_leaves_nothing() {
    let place = Place::fast();
    let slot = inbox(&place.path).await;
    assert_eq!(store(&slot, "b", &message("x")).await, STORED);
    let damage = "UPDATE inboxes SET body = x'01' WHERE identity = 'b' AND part = x'00'";
    Connection::open(&place.path)
        .unwrap()
        .execute_batch(damage)
        .unwrap();
    let (to, both) = (["a", "b"].map(address), message("both"));
    // Others, before and after it in the same transaction, are not concerned.
    let (before, failed, after) = tokio::join!(
        async { store(&slot, "c", &message("before")).await },
        slot.enqueue(&to, both.clone(), terms(), deadline()),
        async { store(&slot, "c", &message("after")).await },
    );
    assert_eq!((before, after), (STORED, STORED));
    assert!(
        failed
            .iter()
            .all(|outcome| matches!(outcome, Enqueued::NotStored(_))),
        "{failed:?}"
    );
    assert_eq!(delivered(&slot, "a", 1).await, []);
    assert_eq!(slot.depth(None, deadline()).await.unwrap().messages, 3);
    assert_eq!(store(&slot, "a", &both).await, STORED, "it never was there");
}

/// The child: somebody who may not write.
pub(super) async fn stranger(task: Task) {
    say(refusal(&task.path).await);
}

#[tokio::test]
async fn files_that_cannot_be_written_are_refused() {
    let place = Place::fast();
    registry(&place.path).await.close().await;
    let directory = place.directory.path();
    // The program, where anybody can read it.
    let program = directory.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = command(&program, "stranger", &place.path);
    child.current_dir(directory);
    if rustix::process::geteuid().is_root() {
        // Permissions mean nothing to it.
        child.uid(65_534).gid(65_534);
    }
    let told = tokio::task::spawn_blocking(|| Running::run(child).line())
        .await
        .unwrap();
    assert!(
        told.contains("cannot be used") && told.contains("write permission"),
        "{told}"
    );
}

#[tokio::test]
async fn a_large_number_of_namespaces_is_apart() {
    let place = Place::fast();
    for name in ["a", "A", "a'b", "a b", "ä", "", &"x".repeat(300)] {
        let slot = SqliteInbox::open(name, inbox_config(&place.path), roomy())
            .await
            .unwrap();
        assert_eq!(slot.depth(None, deadline()).await.unwrap().messages, 0, "{name}");
        assert_eq!(store(&slot, "a", &message("x")).await, STORED);
        slot.close().await;
    }
}
