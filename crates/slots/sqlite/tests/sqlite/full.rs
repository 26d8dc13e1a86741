//! A disk that is full: nothing is called stored that was not, nothing that was stored is lost, and it goes on by itself
//! when there is room again.

use std::{collections::BTreeSet, process::Command, sync::Arc, time::Duration};

use futures::future::join_all;
use prism_slot::{
    Address, Applied, Cause, DurableInbox, Enqueued, Error, Message, MulticastId, Register, RegistryStore,
    Renew, Revision, Scan, Settled, Timestamp, Ttl, Unregister, Verdict, memory::ManualClock,
};
use prism_slot_sqlite::{InboxConfig, SqliteInbox, SqliteRegistry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    child::{Running, Task, command, listen, say},
    disk::Disk,
    support::*,
};

/// What is there of a message that was stored for many.
async fn depth(slot: &SqliteInbox) -> u64 {
    slot.depth(None, deadline()).await.unwrap().messages
}

async fn store_all(slot: &SqliteInbox, to: &[Address], message: &Arc<Message>) -> Vec<Enqueued> {
    slot.enqueue(to, message.clone(), terms(), deadline()).await
}

#[tokio::test]
async fn a_file_that_may_not_grow_refuses_and_leaves_nothing_behind() {
    let place = Place::fast();
    let config = InboxConfig {
        max_size: Some(1 << 20),
        ..inbox_config(&place.path)
    };
    let slot = SqliteInbox::open(NAMESPACE, config, roomy()).await.unwrap();
    let many: Vec<Address> = (0..500)
        .map(|number| address(&format!("many-{number}")))
        .collect();
    let mut stored = Vec::new();
    // First what is large, until there is no room for it, then for many, until there is none for those.
    let refusal = loop {
        let large = message(vec![1; 20_000]);
        match store(&slot, "a", &large).await {
            STORED => stored.push(large.multicast),
            refusal => break refusal,
        }
    };
    let Enqueued::NotStored(why) = refusal else {
        panic!("{refusal:?}")
    };
    assert!(why.contains("max_size") && why.contains("prism.db"), "{why}");
    let mut expected = stored.len() as u64;
    assert_eq!(depth(&slot).await, expected);
    loop {
        let outcomes = store_all(&slot, &many, &message("x")).await;
        if outcomes.iter().all(|outcome| *outcome == STORED) {
            expected += 500;
            continue;
        }
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Enqueued::NotStored(_))),
            "all of a call, or nothing: {outcomes:?}"
        );
        break;
    }
    assert_eq!(depth(&slot).await, expected, "nothing of what was refused");
    // What was stored comes, and makes room when it has gone.
    let there = delivered(&slot, "a", 1).await;
    assert_eq!(
        there.iter().map(|(multicast, _)| *multicast).collect::<Vec<_>>(),
        stored
    );
    let acks = stored
        .iter()
        .map(|multicast| (*multicast, Verdict::Ack))
        .collect();
    let settled = slot.settle(&consumer("a", 1), acks, deadline()).await.unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Done));
    assert_eq!(store(&slot, "a", &message(vec![1; 20_000])).await, STORED);
    // No half of a call that was refused is in the way later on.
    let after = message("after");
    let outcomes = store_all(&slot, &many, &after).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED), "{outcomes:?}");
    let last = delivered(&slot, "many-499", 1).await;
    assert_eq!(
        last.last().map(|(multicast, _)| *multicast),
        Some(after.multicast)
    );
}

#[tokio::test]
async fn what_makes_room_is_not_refused_with_what_needs_it() {
    let place = Place::fast();
    let config = InboxConfig {
        max_size: Some(1 << 20),
        ..inbox_config(&place.path)
    };
    let slot = SqliteInbox::open(NAMESPACE, config, roomy()).await.unwrap();
    let mut stored = Vec::new();
    while let large = message(vec![1; 20_000])
        && store(&slot, "a", &large).await == STORED
    {
        stored.push(large.multicast);
    }
    delivered(&slot, "a", 1).await;
    // Everything at the same time, so that it shares a transaction.
    let other = rusqlite::Connection::open(&place.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let acks = stored.iter().take(10).map(|multicast| {
        let (slot, verdict) = (&slot, vec![(*multicast, Verdict::Ack)]);
        async move { slot.settle(&consumer("a", 1), verdict, deadline()).await }
    });
    let large: Vec<_> = (0..10).map(|_| message(vec![2; 900_000])).collect();
    let stores = large.iter().map(|large| store(&slot, "b", large));
    let (settled, refused, ()) = tokio::join!(join_all(acks), join_all(stores), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert!(
        settled.iter().all(|settled| *settled == Ok(vec![Settled::Done])),
        "{settled:?}"
    );
    assert!(
        refused
            .iter()
            .all(|refused| matches!(refused, Enqueued::NotStored(_))),
        "{refused:?}"
    );
    assert_eq!(depth(&slot).await, stored.len() as u64 - 10);
    assert_eq!(store(&slot, "a", &message(vec![1; 20_000])).await, STORED);
}

fn limit_files(size: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: size,
            maximum,
        },
    )
    .unwrap();
}

/// The child: its files may not grow for a while, so that commits fail and not calls.
pub(super) async fn full(task: Task) {
    let slot = inbox(&task.path).await;
    let mut stored: BTreeSet<u128> = BTreeSet::new();
    for _ in 0..20 {
        let message = message(vec![1; 2_000]);
        assert_eq!(store(&slot, "a", &message).await, STORED);
        stored.insert(message.multicast.0);
    }
    // There are pages for all of it, so that nothing but the log has to grow.
    let many: Vec<_> = (0..12).map(|_| message(vec![2; 100_000])).collect();
    for message in &many {
        assert_eq!(store(&slot, "b", message).await, STORED);
    }
    for message in &many {
        let cancelled = slot.cancel(message.multicast, &[identity("b")], deadline()).await;
        assert_eq!(cancelled, vec![Ok(true)]);
    }
    let other = rusqlite::Connection::open(&task.path).unwrap();
    for round in 0..5 {
        // With less in the log than what is to be stored takes there.
        other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let small = message(vec![1; 2_000]);
        assert_eq!(store(&slot, "a", &small).await, STORED);
        stored.insert(small.multicast.0);
        let log = std::fs::metadata(beside(&task.path, "-wal")).unwrap().len();
        limit_files(Some(log + round * 700));
        let messages: Vec<_> = (0..10).map(|_| message(vec![2; 100_000])).collect();
        let outcomes = join_all(messages.iter().map(|message| store(&slot, "a", message))).await;
        for outcome in outcomes {
            let Enqueued::NotStored(why) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(why.contains("prism.db"), "{why}");
        }
        limit_files(None);
        let message = message(vec![3; 2_000]);
        assert_eq!(store(&slot, "a", &message).await, STORED, "there is room again");
        stored.insert(message.multicast.0);
    }
    let there: BTreeSet<u128> = delivered(&slot, "a", 1)
        .await
        .iter()
        .map(|(MulticastId(id), _)| *id)
        .collect();
    assert_eq!(there, stored);
    for multicast in stored {
        say(format_args!("{multicast:032x}"));
    }
}

#[tokio::test]
async fn commits_that_cannot_be_written_are_not_called_stored() {
    let place = Place::new();
    // Without this the system ends a process whose files become too large.
    let mut shell = Command::new("sh");
    let child = command(&std::env::current_exe().unwrap(), "full", &place.path);
    shell
        .arg("-c")
        .arg("trap '' XFSZ; exec \"$0\" \"$@\"")
        .arg(child.get_program())
        .args(child.get_args());
    shell.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (status, said) = tokio::task::spawn_blocking(|| Running::run(shell).wait())
        .await
        .unwrap();
    assert!(status.success(), "the child says why");
    let slot = inbox(&place.path).await;
    let there: Vec<String> = delivered(&slot, "a", 2)
        .await
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    assert_eq!(
        there.iter().collect::<BTreeSet<_>>(),
        said.iter().collect::<BTreeSet<_>>()
    );
    assert!(there.len() >= 25);
}

/// A registry on a disk, and its clock.
async fn on_clock(disk: &Disk, clock: &Arc<ManualClock>) -> SqliteRegistry {
    SqliteRegistry::open_with_clock(NAMESPACE, registry_config(&disk.path), clock.clone())
        .await
        .unwrap()
}

fn leased(name: &str, seconds: u64) -> Register {
    Register {
        ttl: Ttl::from_millis(seconds * 1_000),
        ..request(name)
    }
}

/// The lease clock goes on where it cannot be written down, and nobody who reads is told of it.
#[tokio::test]
async fn a_full_disk_is_read_as_before() {
    let Some(disk) = Disk::new(16) else { return };
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let (slot, messages) = (on_clock(&disk, &clock).await, inbox(&disk.path).await);
    for request in [leased("soon", 30), leased("late", 600), request("never")] {
        register(&slot, request).await.unwrap();
    }
    assert_eq!(store(&messages, "a", &message("x")).await, STORED);
    // Not even the room that is kept for others is left.
    std::fs::remove_file(beside(&disk.path, "-spare")).unwrap();
    disk.fill();
    let leases = || slot.leases(call(), ["soon", "late"].map(identity).into());
    let before = leases().await.unwrap();
    for _ in 0..29 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(leases().await.unwrap(), before);
        assert_eq!(history(&slot, Revision::ZERO).await.len(), 3);
    }
    let scan = Scan {
        cursor: None,
        limit: 10,
        hold: Duration::from_secs(30),
    };
    assert_eq!(slot.scan(call(), scan).await.unwrap().records.len(), 3);
    assert_eq!(depth(&messages).await, 1);
    let large = Register {
        metadata: vec![b'x'; 200_000].into(),
        ..request("large")
    };
    let refused = register(&slot, large).await;
    assert!(
        matches!(&refused, Err(Error::Unavailable { applied: Applied::No, message, .. }) if message.contains("prism.db")),
        "{refused:?}"
    );
    // Who has gone is not served, though it cannot be written that he has.
    clock.advance(Duration::from_secs(1));
    assert_eq!(leases().await.unwrap(), [None, before[1]]);
    assert_eq!(history(&slot, Revision::ZERO).await.len(), 3);
    disk.clear();
    clock.advance(Duration::from_millis(1_500));
    let told = history(&slot, Revision(3)).await;
    assert_eq!(
        told.iter()
            .map(|change| (change.cause, change.record.identity.as_str()))
            .collect::<Vec<_>>(),
        [(Cause::Expired, "soon")]
    );
}

/// Somebody leaves, and somebody stays.
async fn unregister_and_renew(slot: &SqliteRegistry, leaves: &str, stays: &str) {
    let unregister = Unregister {
        identity: identity(leaves),
        generation: None,
    };
    let left = slot.unregister(call(), unregister).await;
    assert!(left.as_ref().is_ok_and(|left| left.existed), "{left:?}");
    let renew = Renew {
        identity: identity(stays),
        generation: None,
    };
    let renewed = slot.renew(call(), vec![renew]).await.remove(0);
    assert!(renewed.is_ok(), "{renewed:?}");
}

/// Stores until there is no room for more.
async fn store_all_there_is_room_for(slot: &SqliteInbox, name: &str) -> Vec<MulticastId> {
    let mut stored = Vec::new();
    loop {
        let large = message(vec![1; 200_000]);
        match store(slot, name, &large).await {
            STORED => stored.push(large.multicast),
            Enqueued::NotStored(why) => {
                assert!(why.contains("free space"), "{why}");
                return stored;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// However full the disk is, and whoever takes what little becomes free: consumers drain the file, and whoever wants to
/// leaves. What they leave is room for others.
#[tokio::test]
async fn what_makes_room_goes_on_on_a_full_disk() {
    let Some(disk) = Disk::new(16) else { return };
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let (slot, messages) = (on_clock(&disk, &clock).await, inbox(&disk.path).await);
    let names: Vec<String> = (0..500).map(|number| format!("id-{number}")).collect();
    let all = names.iter().map(|name| leased(name, 600)).collect();
    let registered = slot.register(call(), all).await;
    assert!(registered.iter().all(Result::is_ok));
    let stored = store_all_there_is_room_for(&messages, "a").await;
    assert!(stored.len() > 20, "{}", stored.len());
    disk.fill();
    let there = delivered(&messages, "a", 1).await;
    assert!(there.iter().map(|(multicast, _)| multicast).eq(&stored));
    for (multicast, name) in stored.iter().zip(&names) {
        let ack = vec![(*multicast, Verdict::Ack)];
        let settled = messages.settle(&consumer("a", 1), ack, deadline()).await;
        assert_eq!(settled, Ok(vec![Settled::Done]));
        unregister_and_renew(&slot, name, "id-499").await;
        clock.advance(Duration::from_secs(1));
        disk.fill();
    }
    assert_eq!(depth(&messages).await, 0);
    let again = store_all_there_is_room_for(&messages, "a").await;
    assert!(
        again.len() >= stored.len() / 2,
        "{} of {}",
        again.len(),
        stored.len()
    );
}

#[tokio::test]
async fn a_file_on_a_full_disk_is_opened_again() {
    let Some(disk) = Disk::new(16) else { return };
    let (slot, messages) = (registry(&disk.path).await, inbox(&disk.path).await);
    for name in ["a", "b", "c"] {
        register(&slot, leased(name, 600)).await.unwrap();
    }
    let kept = message("kept");
    assert_eq!(store(&messages, "a", &kept).await, STORED);
    let before = head(&slot).await;
    slot.close().await;
    messages.close().await;
    disk.fill();
    let (slot, messages) = (registry(&disk.path).await, inbox(&disk.path).await);
    assert_eq!(head(&slot).await, before);
    unregister_and_renew(&slot, "a", "b").await;
    assert_eq!(delivered(&messages, "a", 2).await, [(kept.multicast, 1)]);
    let large = message(vec![1; 6 << 20]);
    let refused = store(&messages, "a", &large).await;
    assert!(matches!(refused, Enqueued::NotStored(_)), "{refused:?}");
    disk.clear();
    // It takes as much again in the log, and as much is kept.
    assert_eq!(store(&messages, "a", &message(vec![1; 2 << 20])).await, STORED);
}

/// The child: goes on knocking until it is told to end, and says how much was stored.
pub(super) async fn producer(task: Task) {
    let slot = inbox(&task.path).await;
    let told = tokio::task::spawn_blocking(listen);
    let mut stored = 0;
    while !told.is_finished() {
        match store(&slot, "b", &message(vec![2; 100_000])).await {
            STORED => stored += 1,
            refusal => assert!(matches!(refusal, Enqueued::NotStored(_)), "{refusal:?}"),
        }
        if stored == 1 {
            say("stored");
        }
    }
    say(stored);
    slot.close().await;
}

/// Room that a process has given up for its consumers is not for the producers of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_drains_a_full_disk_while_another_one_knocks() {
    let Some(disk) = Disk::new(16) else { return };
    let messages = inbox(&disk.path).await;
    let stored = store_all_there_is_room_for(&messages, "a").await;
    disk.fill();
    let mut child = Running::start("producer", &disk.path);
    delivered(&messages, "a", 1).await;
    for multicast in &stored {
        let ack = vec![(*multicast, Verdict::Ack)];
        let settled = messages.settle(&consumer("a", 1), ack, deadline()).await;
        assert_eq!(settled, Ok(vec![Settled::Done]));
    }
    assert_eq!(child.line(), "stored", "there is room for others");
    child.tell("end");
    let (status, said) = tokio::task::spawn_blocking(|| child.wait()).await.unwrap();
    assert!(status.success());
    let said: u64 = said.last().unwrap().parse().unwrap();
    assert_eq!(depth(&messages).await, said);
}
