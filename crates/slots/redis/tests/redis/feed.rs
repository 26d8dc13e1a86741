//! The feed: kept within its limits, exactly; held for those who scan; bounded answers.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prism_slot::{Cause, Error, Put, Register, RegistryStore, RequestId, Revision, Scan, Unregister};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{RedisServer, eventually};
use serde_json::json;

use super::support::*;

async fn kept(admin: &Admin) -> u64 {
    admin.run(&["XLEN", &key("feed")]).await.as_u64().unwrap()
}

async fn write(slot: &RedisRegistry, from: u64, count: u64) {
    let batch = (from..from + count)
        .map(|number| request(&format!("id-{number}")))
        .collect::<Vec<_>>();
    for part in batch.chunks(100) {
        assert!(
            slot.register(call(), part.to_vec())
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cut_by_count_to_the_last_one_allowed() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "feed_max_changes": 64 })).await;
    let admin = Admin::to(server.addr()).await;
    write(&slot, 0, 300).await;
    assert_eq!(kept(&admin).await, 64);
    assert_eq!(history(&slot, Revision(236)).await.len(), 64);
    let gone = slot.sync(call(), Revision(235), 10).await;
    assert_eq!(gone, Err(Error::Compacted { up_to: Revision(236) }));
    let ahead = slot.sync(call(), Revision(301), 10).await;
    assert_eq!(
        ahead,
        Err(Error::Compacted { up_to: Revision(236) }),
        "of another history"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cut_by_bytes() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "feed_max_bytes": "20KiB" })).await;
    let admin = Admin::to(server.addr()).await;
    for number in 0..60 {
        let metadata = Bytes::from(vec![b'x'; 1_000]);
        register(
            &slot,
            Register {
                metadata,
                ..request(&format!("id-{number}"))
            },
        )
        .await
        .unwrap();
    }
    let kept = kept(&admin).await;
    assert!(
        (17..=19).contains(&kept),
        "{kept} changes of about 1,120 bytes in 20 KiB"
    );
    assert_eq!(history(&slot, Revision(60 - kept)).await.len() as u64, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cut_by_age() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "feed_max_age": "1s" })).await;
    let admin = Admin::to(server.addr()).await;
    write(&slot, 0, 10).await;
    assert_eq!(kept(&admin).await, 10);
    eventually(
        SOON,
        "old changes are dropped while the namespace is served",
        || async {
            assert!(slot.sync(call(), head(&slot).await.revision, 10).await.is_ok());
            kept(&admin).await == 0
        },
    )
    .await;
    let gone = slot.sync(call(), Revision(9), 10).await;
    assert_eq!(gone, Err(Error::Compacted { up_to: Revision(10) }));
    write(&slot, 10, 1).await;
    assert_eq!(history(&slot, Revision(10)).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_holds_it_within_bounds_and_for_a_while() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "feed_max_changes": 16 })).await;
    write(&slot, 0, 20).await;
    let scan = |millis| Scan {
        cursor: None,
        limit: 10,
        hold: Duration::from_millis(millis),
    };
    let begun = slot.scan(call(), scan(60_000)).await.unwrap().head.revision;
    write(&slot, 20, 40).await;
    assert_eq!(history(&slot, begun).await.len(), 40, "held beyond 16");
    write(&slot, 60, 60).await;
    let gone = slot.sync(call(), begun, 10).await;
    assert!(
        matches!(gone, Err(Error::Compacted { .. })),
        "not without end: {gone:?}"
    );

    let slot = RedisRegistry::open("other", config(server.addr(), json!({ "feed_max_changes": 16 })))
        .await
        .unwrap();
    write(&slot, 0, 20).await;
    let begun = slot.scan(call(), scan(200)).await.unwrap().head.revision;
    write(&slot, 20, 30).await;
    assert!(slot.sync(call(), begun, 10).await.is_ok());
    eventually(SOON, "the hold ends", || async {
        matches!(slot.sync(call(), begun, 10).await, Err(Error::Compacted { .. }))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded_by_size() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let metadata = Bytes::from(vec![b'x'; 60_000]);
    let batch = (0..100).map(|number| Register {
        metadata: metadata.clone(),
        ..request(&format!("id-{number:03}"))
    });
    let written = slot.register(call(), batch.collect()).await;
    let revisions: Vec<u64> = written
        .into_iter()
        .map(|result| result.unwrap().position.revision.0)
        .collect();
    assert_eq!(
        revisions,
        (1..=100).collect::<Vec<_>>(),
        "several calls, and still in order"
    );
    let first = slot.sync(call(), Revision::ZERO, 1_000).await.unwrap();
    assert!(
        first.more && (1..60).contains(&first.changes.len()),
        "{}",
        first.changes.len()
    );
    let names: Vec<String> = history(&slot, Revision::ZERO)
        .await
        .iter()
        .map(|change| change.record.identity.to_string())
        .collect();
    assert_eq!(names.len(), 100);
    assert!(names.is_sorted(), "in the order of the batch: {names:?}");
    let scan = Scan {
        cursor: None,
        limit: 1_000,
        hold: Duration::ZERO,
    };
    let page = slot.scan(call(), scan).await.unwrap();
    assert!(page.records.len() <= 60, "{}", page.records.len());
}

/// What a view does: scan while others write, then follow the feed from where the scan began.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_and_the_feed_after_it_give_every_record() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    write(&slot, 0, 3_000).await;
    let writing = async {
        for number in 0..400_u64 {
            let identity = identity(&format!("id-{}", number * 7 % 3_000));
            match number % 3 {
                0 => {
                    let gone = Unregister {
                        identity,
                        generation: None,
                    };
                    slot.unregister(call(), gone).await.unwrap();
                }
                1 => {
                    let _ = register(&slot, request(&format!("new-{number}"))).await.unwrap();
                }
                _ => {
                    let if_revision = match get(&slot, identity.as_str()).await {
                        Some(record) => record.revision,
                        None => continue,
                    };
                    let put = Put {
                        identity,
                        metadata: format!("{{\"n\":{number}}}").into(),
                        if_revision,
                        generation: None,
                        request: RequestId::next(),
                    };
                    slot.put(call(), put).await.unwrap();
                }
            }
        }
    };
    let scanning = async {
        let (mut view, mut cursor, mut begun) = (BTreeMap::new(), None, None);
        loop {
            let hold = Duration::from_secs(10);
            let page = slot
                .scan(
                    call(),
                    Scan {
                        cursor,
                        limit: 100,
                        hold,
                    },
                )
                .await
                .unwrap();
            begun.get_or_insert(page.head.revision);
            view.extend(
                page.records
                    .into_iter()
                    .map(|record| (record.identity.clone(), record)),
            );
            cursor = page.next;
            if cursor.is_none() {
                return (view, begun.unwrap());
            }
        }
    };
    let ((), (mut view, begun)) = tokio::join!(writing, scanning);
    for change in history(&slot, begun).await {
        let identity = change.record.identity.clone();
        if change.cause.removes() {
            view.remove(&identity);
        } else if view
            .get(&identity)
            .is_none_or(|known| known.revision < change.revision)
        {
            view.insert(identity, change.record);
        }
    }
    let mut expected = BTreeMap::new();
    for change in history(&slot, Revision::ZERO).await {
        if change.cause.removes() {
            expected.remove(&change.record.identity);
        } else {
            expected.insert(change.record.identity.clone(), change.record);
        }
    }
    assert!(expected.len() > 2_800 && view == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_due_leases_are_expired_in_bounded_steps() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    for part in 0..5 {
        let batch = (0..100)
            .map(|number| leased(&format!("id-{part}-{number}"), 300))
            .collect();
        assert!(slot.register(call(), batch).await.iter().all(Result::is_ok));
    }
    tokio::time::sleep(Duration::from_millis(350)).await;
    // All in the way of one more, and more than one step expires.
    let one_more = Register {
        max_identities: 1,
        ..request("one-more")
    };
    let registered = register(&slot, one_more).await.unwrap();
    assert_eq!(registered.position.revision, Revision(1_001));
    let changes = history(&slot, Revision(500)).await;
    let expired = changes.iter().filter(|change| change.cause == Cause::Expired);
    assert_eq!(expired.count(), 500);

    let batch = (0..300)
        .map(|number| leased(&format!("id-{number}"), 100))
        .collect();
    assert!(slot.register(call(), batch).await.iter().all(Result::is_ok));
    tokio::time::sleep(Duration::from_millis(150)).await;
    let first = slot.sync(call(), Revision(1_301), 1_000).await.unwrap();
    assert!(first.more && first.changes.len() < 300, "{}", first.changes.len());
    assert_eq!(history(&slot, Revision(1_301)).await.len(), 300);
}

/// However many writes of one call find due leases in their way.
#[tokio::test(flavor = "multi_thread")]
async fn one_call_expires_no_more_than_one_step() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let batch = (0..3_000)
        .map(|number| leased(&format!("id-{number}"), 1_000))
        .collect();
    assert!(slot.register(call(), batch).await.iter().all(Result::is_ok));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // The quota has been lowered meanwhile, so that every one of them has to make room.
    let late = (0..100).map(|number| Register {
        max_identities: 200,
        ..request(&format!("late-{number}"))
    });
    admin.run(&["CONFIG", "RESETSTAT"]).await;
    assert!(
        slot.register(call(), late.collect())
            .await
            .iter()
            .all(Result::is_ok)
    );
    let calls = admin.info("commandstats", "cmdstat_fcall").await;
    let calls: u64 = calls["calls=".len()..]
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(calls >= 2_800 / 128, "{calls} calls expired 2,800 leases");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_many_due_leases_expires_them_in_steps() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let batch = |ttl| {
        (0..500)
            .map(move |number| leased(&format!("id-{ttl}-{number}"), ttl))
            .collect()
    };
    for ttl in [300, 60_000] {
        assert!(slot.register(call(), batch(ttl)).await.iter().all(Result::is_ok));
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let names = (0..500).flat_map(|number| [300, 60_000].map(|ttl| identity(&format!("id-{ttl}-{number}"))));
    admin.run(&["CONFIG", "RESETSTAT"]).await;
    let ends = slot.leases(call(), names.collect()).await.unwrap();
    for (number, end) in ends.iter().enumerate() {
        assert_eq!(end.is_some(), number % 2 == 1, "{number}");
    }
    let calls = admin.info("commandstats", "cmdstat_fcall").await;
    assert!(calls.starts_with("calls=4,"), "500 in steps of 128: {calls}");
    assert_eq!(history(&slot, Revision(1_000)).await.len(), 500);
}
