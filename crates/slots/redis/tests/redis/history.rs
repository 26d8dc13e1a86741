//! Whatever makes Redis forget begins a new epoch, and nothing that is gone is served.

use std::time::Duration;

use prism_slot::{Applied, Cause, Error, Mode, Register, RegistryStore, Revision, Scan};
use prism_testkit::{FaultProxy, RedisServer, eventually, eventually_some};
use serde_json::json;

use super::support::*;

/// Waits until the slot has found its way back to the server.
async fn back(slot: &prism_slot_redis::RedisRegistry) {
    eventually(SOON, "the slot works again", || async {
        slot.get(call(), identity("nobody")).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_a_new_epoch() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let before = register(&slot, leased("a", 60_000)).await.unwrap();
    let admin = Admin::to(server.addr()).await;
    admin.run(&["FLUSHALL"]).await;

    let refused = register_in(&slot, in_epoch(before.position.epoch), request("b")).await;
    let Err(Error::EpochChanged { current }) = refused else {
        panic!("{refused:?}")
    };
    assert_ne!(current, before.position.epoch);
    let read = slot.get(in_epoch(current), identity("a")).await.unwrap();
    assert_eq!((read.record, read.head.revision), (None, Revision::ZERO));
    let after = register_in(&slot, in_epoch(current), request("a")).await.unwrap();
    assert_eq!(after.position.revision, Revision(1));
    assert_ne!(after.generation, before.generation);
}

/// After a crash acknowledged writes may be missing, whatever is on disk; after an orderly end nobody
/// can tell that it was one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_persistence_keeps_the_records_and_begins_a_new_epoch() {
    for orderly in [false, true] {
        let options = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "3600 1",
        ];
        let mut server = RedisServer::start_with(&options).await.unwrap();
        let slot = open(server.addr()).await;
        let before = register(&slot, leased("a", 60_000)).await.unwrap();
        register(&slot, request("b")).await.unwrap();
        if orderly {
            server.terminate().await.unwrap();
        }
        server.restart().await.unwrap();
        back(&slot).await;

        let read = slot.get(call(), identity("a")).await.unwrap();
        let record = read.record.expect("the record is on disk");
        assert_eq!(
            record.generation, before.generation,
            "the registration is the same"
        );
        assert_ne!(read.head.epoch, before.position.epoch, "orderly: {orderly}");
        assert_eq!(read.head.revision, Revision(2), "revisions go on");
        let gone = slot.sync(call(), Revision(1), 10).await;
        assert_eq!(gone, Err(Error::Compacted { up_to: Revision(2) }));

        let renewed = slot
            .renew(
                call(),
                vec![prism_slot::Renew {
                    identity: identity("a"),
                    generation: Some(before.generation),
                }],
            )
            .await;
        assert!(renewed[0].is_ok(), "{renewed:?}");
        let next = register(&slot, request("c")).await.unwrap();
        assert_eq!(next.position.revision, Revision(3));
        assert_eq!(history(&slot, Revision(2)).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_a_loss_and_not_half_a_registry() {
    for part in ["head", "records", "terms", "leases"] {
        let server = RedisServer::start().await.unwrap();
        let slot = open(server.addr()).await;
        let before = register(&slot, leased("a", 60_000)).await.unwrap();
        register(&slot, request("b")).await.unwrap();
        let admin = Admin::to(server.addr()).await;
        admin.run(&["DEL", &key(part)]).await;

        let refused = slot.get(in_epoch(before.position.epoch), identity("a")).await;
        assert!(
            matches!(refused, Err(Error::EpochChanged { .. })),
            "without {part}: {refused:?}"
        );
        assert_eq!(get(&slot, "a").await, None, "without {part}");
        assert_eq!(get(&slot, "b").await, None, "without {part}");
        assert!(
            register(&slot, leased("a", 60_000)).await.is_ok(),
            "without {part}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_feed_is_compacted_and_no_loss() {
    for (part, command) in [("feed", "DEL"), ("marks", "DEL"), ("feed", "XTRIM")] {
        let server = RedisServer::start().await.unwrap();
        let slot = open_with(server.addr(), json!({ "feed_max_changes": 100 })).await;
        for number in 0..5 {
            register(&slot, request(&format!("id-{number}"))).await.unwrap();
        }
        let epoch = head(&slot).await.epoch;
        let admin = Admin::to(server.addr()).await;
        let words = if command == "DEL" {
            vec!["DEL"]
        } else {
            vec!["XTRIM"]
        };
        let key = key(part);
        let tail: &[&str] = if command == "DEL" { &[] } else { &["MAXLEN", "2"] };
        admin.run(&[&words[..], &[key.as_str()], tail].concat()).await;

        let gone = slot.sync(in_epoch(epoch), Revision(2), 10).await;
        assert_eq!(
            gone,
            Err(Error::Compacted { up_to: Revision(5) }),
            "{command} {part}"
        );
        assert!(get(&slot, "id-0").await.is_some());
        register(&slot, request("next")).await.unwrap();
        assert_eq!(history(&slot, Revision(5)).await.len(), 1, "{command} {part}");
    }
}

/// The primary dies with writes that its replica never saw.
#[tokio::test(flavor = "multi_thread")]
async fn the_promotion_of_an_older_replica_is_a_new_epoch() {
    let mut primary = RedisServer::start().await.unwrap();
    let link = FaultProxy::start(primary.addr()).await.unwrap();
    let replica = RedisServer::start_replica_of(link.addr()).await.unwrap();
    let slot = open(primary.addr()).await;
    let early = register(&slot, request("early")).await.unwrap();
    let (to_primary, to_replica) = (Admin::to(primary.addr()).await, Admin::to(replica.addr()).await);
    let copied = || async {
        let state = to_replica.info("replication", "master_link_status").await;
        let ours = to_primary.info("replication", "master_repl_offset").await;
        state == "up" && to_replica.info("replication", "slave_repl_offset").await == ours
    };
    eventually(SOON, "the replica has a copy", copied).await;

    link.black_hole();
    let late = register(&slot, request("late")).await.unwrap();
    let replace = Register {
        mode: Mode::Replace,
        ..request("early")
    };
    let replaced = register(&slot, replace).await.unwrap();
    primary.stop();
    link.cut();
    to_replica.run(&["REPLICAOF", "NO", "ONE"]).await;

    let promoted = open(replica.addr()).await;
    let refused = register_in(&promoted, in_epoch(late.position.epoch), request("x")).await;
    assert!(matches!(refused, Err(Error::EpochChanged { .. })), "{refused:?}");
    let read = promoted.get(call(), identity("late")).await.unwrap();
    assert_eq!(read.record, None);
    assert_ne!(read.head.epoch, early.position.epoch);
    let survivor = get(&promoted, "early").await.expect("was copied");
    assert_eq!(survivor.generation, early.generation);
    assert_ne!(survivor.generation, replaced.generation);
    let anew = register(&promoted, request("late")).await.unwrap();
    assert_eq!(anew.position.revision, late.position.revision, "the same number");
    assert_ne!(anew.position, late.position, "in another history");
}

/// A server is given another name when its first replica comes, and when its last one has been away for long. It has
/// everything still.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_come_and_go_change_nothing() {
    let primary = RedisServer::start_with(&["--repl-backlog-ttl", "1"])
        .await
        .unwrap();
    let slot = open(primary.addr()).await;
    let admin = Admin::to(primary.addr()).await;
    let mut written = vec![register(&slot, request("a")).await.unwrap().position];
    let name = async || admin.info("replication", "master_replid").await;
    for round in 0..2 {
        let before = name().await;
        let replica = RedisServer::start_replica_of(primary.addr()).await.unwrap();
        eventually(SOON, "it has a replica", || async { name().await != before }).await;
        let epoch = written[0].epoch;
        let there = register_in(&slot, in_epoch(epoch), request(&format!("there-{round}"))).await;
        written.push(there.unwrap().position);
        let before = name().await;
        drop(replica);
        eventually(SOON, "its replica is given up", || async {
            name().await != before
        })
        .await;
        let gone = register_in(&slot, in_epoch(epoch), request(&format!("gone-{round}"))).await;
        written.push(gone.unwrap().position);
    }
    let revisions: Vec<Revision> = history(&slot, Revision::ZERO)
        .await
        .iter()
        .map(|change| change.revision)
        .collect();
    assert_eq!(
        revisions,
        written
            .iter()
            .map(|position| position.revision)
            .collect::<Vec<_>>(),
        "and the feed is whole"
    );
}

/// A server that was primary, became a replica of one that knew less, and is primary again: the same
/// process, which has seen the same head before.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_returns_with_less_is_a_new_epoch() {
    for is_late in [false, true] {
        returns_with_less(is_late).await;
    }
}

/// Perhaps nobody asks it before it has forgotten that it was a replica.
async fn returns_with_less(is_late: bool) {
    let (one, other) = (
        RedisServer::start_with(&["--repl-backlog-ttl", "1"])
            .await
            .unwrap(),
        RedisServer::start().await.unwrap(),
    );
    let (to_one, to_other) = (Admin::to(one.addr()).await, Admin::to(other.addr()).await);
    let slot = open(one.addr()).await;
    register(&slot, request("early")).await.unwrap();
    let (host, port) = (one.addr().ip().to_string(), one.addr().port().to_string());
    let follow = async |who: &Admin, host: &str, port: &str| {
        who.run(&["REPLICAOF", host, port]).await;
        eventually(SOON, "it has a copy", || async {
            who.info("replication", "master_link_status").await == "up"
        })
        .await;
    };
    follow(&to_other, &host, &port).await;
    to_other.run(&["REPLICAOF", "NO", "ONE"]).await;
    let late = register(&slot, request("late")).await.unwrap();
    let other_port = other.addr().port().to_string();
    follow(&to_one, &host, &other_port).await;
    to_one.run(&["REPLICAOF", "NO", "ONE"]).await;
    if is_late {
        eventually(SOON, "it has forgotten that", || async {
            to_one.info("replication", "second_repl_offset").await == "-1"
        })
        .await;
    }

    let refused = slot.get(in_epoch(late.position.epoch), identity("late")).await;
    assert!(matches!(refused, Err(Error::EpochChanged { .. })), "{refused:?}");
    assert_eq!(get(&slot, "late").await, None);
    assert!(get(&slot, "early").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_removed_under_traffic_are_loaded_again() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let admin = Admin::to(server.addr()).await;
    let flushing = async {
        for _ in 0..60 {
            admin.run(&["FUNCTION", "FLUSH"]).await;
            admin.run(&["SCRIPT", "FLUSH"]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let writers = (0..8).map(|writer| {
        let slot = &slot;
        async move {
            for number in 0..150 {
                register(slot, request(&format!("id-{writer}-{number}")))
                    .await
                    .unwrap();
                assert!(get(slot, &format!("id-{writer}-{number}")).await.is_some());
            }
        }
    });
    tokio::join!(flushing, futures::future::join_all(writers));
    let changes = history(&slot, Revision::ZERO).await;
    assert_eq!(changes.len(), 8 * 150, "every write was applied once");
    assert!(changes.iter().all(|change| change.cause == Cause::Registered));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_wrote_is_refused_and_left_alone() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    register(&slot, request("a")).await.unwrap();
    let admin = Admin::to(server.addr()).await;
    let stored = admin.run(&["HGET", &key("records"), "a"]).await;
    let mut later = stored.into_bytes().unwrap().to_vec();
    later[0] = 2;
    let arguments = vec![
        key("records").into(),
        "a".into(),
        fred::types::Value::Bytes(later.clone().into()),
    ];
    admin.run_bytes("HSET", arguments).await.unwrap();

    let replace = Register {
        mode: Mode::Replace,
        ..request("a")
    };
    let get = slot.get(call(), identity("a")).await.unwrap_err();
    let over = register(&slot, replace).await.unwrap_err();
    let scan = Scan {
        cursor: None,
        limit: 10,
        hold: Duration::ZERO,
    };
    let scanned = slot.scan(call(), scan).await.unwrap_err();
    for refused in [get, over, scanned] {
        assert!(matches!(refused, Error::Unreadable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("upgrade"), "{refused}");
    }
    let after = admin.run(&["HGET", &key("records"), "a"]).await;
    assert_eq!(after.into_bytes().unwrap(), later);
    assert!(
        register(&slot, request("b")).await.is_ok(),
        "others are not concerned"
    );

    admin.run(&["SETRANGE", &key("head"), "0", "\u{2}"]).await;
    let refused = register(&slot, request("c")).await.unwrap_err();
    assert!(matches!(refused, Error::Unreadable { .. }), "{refused:?}");
    let reopened = prism_slot_redis::RedisRegistry::open(NAMESPACE, config(server.addr(), json!({}))).await;
    assert!(matches!(reopened.unwrap_err(), Error::Unreadable { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_kind_refuses_the_call_before_it_writes() {
    for part in ["records", "terms", "leases", "feed", "marks", "head"] {
        let server = RedisServer::start().await.unwrap();
        let admin = Admin::to(server.addr()).await;
        let slot = open(server.addr()).await;
        let head = admin.run(&["GET", &key("head")]).await;
        admin.run(&["DEL", &key(part)]).await;
        admin.run(&["SADD", &key(part), "x"]).await;
        let refused = register(&slot, leased("a", 60_000)).await.unwrap_err();
        assert!(
            matches!(refused, Error::Misconfigured { .. }),
            "{part}: {refused:?}"
        );
        assert!(refused.to_string().contains("`prefix`"), "{part}: {refused}");
        assert_eq!(refused.applied(), Applied::No);
        if part != "head" {
            assert_eq!(admin.run(&["GET", &key("head")]).await, head, "{part}");
        }
        let left = admin.run(&["DBSIZE"]).await.as_u64().unwrap();
        assert_eq!(
            left,
            if part == "head" { 1 } else { 2 },
            "{part}: nothing was written"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_under_one_name_are_told_apart() {
    let server = RedisServer::start().await.unwrap();
    let open = async |prefix: &str, namespace: &str| {
        let config = config(server.addr(), json!({ "prefix": prefix }));
        prism_slot_redis::RedisRegistry::open(namespace, config).await
    };
    let one = open("a:", "bc").await.unwrap();
    register(&one, request("x")).await.unwrap();
    let refused = open("a:b", "c").await.unwrap_err();
    assert!(refused.to_string().contains("namespace `bc`"), "{refused}");
    let other = open("a:", "bcd").await.unwrap();
    assert_eq!(get(&other, "x").await, None);
    let found = eventually_some(SOON, "the first is there", || async { get(&one, "x").await }).await;
    assert_eq!(found.identity, identity("x"));
}

/// Whatever may fail in the middle of a write, views do not keep what the records do not hold.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_write_is_not_served() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    register(&slot, request("a")).await.unwrap();
    let epoch = head(&slot).await.epoch;
    let admin = Admin::to(server.addr()).await;
    // A permission that is taken away at runtime: the change goes into the feed and the record does not.
    admin.run(&["ACL", "SETUSER", "default", "-hset"]).await;
    let broken = register(&slot, request("b")).await.unwrap_err();
    assert_eq!(broken.applied(), Applied::Unknown, "{broken:?}");
    assert!(broken.to_string().contains("can't run"), "{broken}");
    admin.run(&["ACL", "SETUSER", "default", "+hset"]).await;

    assert_eq!(get(&slot, "b").await, None);
    let gone = slot.sync(in_epoch(epoch), Revision(1), 10).await;
    assert_eq!(
        gone,
        Err(Error::Compacted { up_to: Revision(2) }),
        "views start over"
    );
    assert!(register(&slot, request("b")).await.is_ok());
    let scan = Scan {
        cursor: None,
        limit: 10,
        hold: Duration::ZERO,
    };
    assert_eq!(slot.scan(in_epoch(epoch), scan).await.unwrap().records.len(), 2);
}

/// By an operator, from a copy: nothing tells it from the right one, until the stream refuses a revision that
/// it has seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_was_put_back_does_not_stop_the_feed() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "feed_max_changes": 4 })).await;
    let admin = Admin::to(server.addr()).await;
    let again = || Register {
        mode: Mode::Replace,
        ..request("a")
    };
    for _ in 0..4 {
        register(&slot, again()).await.unwrap();
    }
    let head = admin.run(&["GET", &key("head")]).await;
    for _ in 0..4 {
        register(&slot, again()).await.unwrap();
    }
    admin
        .run_bytes("SET", vec![key("head").into(), head])
        .await
        .unwrap();
    let after = register(&slot, again()).await.unwrap();
    assert_eq!(after.position.revision, Revision(5));
    assert_eq!(history(&slot, Revision(4)).await.len(), 1);
    let ahead = slot.sync(call(), Revision(8), 10).await;
    assert!(matches!(ahead, Err(Error::Compacted { .. })), "{ahead:?}");
}
