//! Writes that share calls are still each on their own.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prism_slot::{
    Applied, Call, Epoch, Error, Put, Register, RegistryStore, Renew, RequestId, Revision, Unregister,
};
use prism_testkit::RedisServer;
use serde_json::json;
use tokio::time::Instant;

use super::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_register_at_once_under_a_quota_of_a_hundred() {
    let server = RedisServer::start().await.unwrap();
    let slots = [open(server.addr()).await, open(server.addr()).await];
    let attempts = (0..1_000).map(|number| {
        let slot = &slots[number % 2];
        register(
            slot,
            Register {
                max_identities: 100,
                ..request(&format!("id-{number}"))
            },
        )
    });
    let results = join_all(attempts).await;
    let refused = Err(Error::QuotaExceeded { limit: 100 });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    assert_eq!(results.iter().filter(|result| **result == refused).count(), 900);
    assert_eq!(head(&slots[0]).await.revision, Revision(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_write_in_one_group_gets_its_own_answer() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "group_calls": 1 })).await;
    let batch = (0..40)
        .map(|number| leased(&format!("id-{number}"), 60_000))
        .collect();
    assert!(slot.register(call(), batch).await.iter().all(Result::is_ok));
    let calls = (0..40_u64).map(|number| {
        let (slot, identity) = (&slot, identity(&format!("id-{number}")));
        let generation = None;
        async move {
            match number % 4 {
                0 => {
                    let renewed = slot.renew(call(), vec![Renew { identity, generation }]).await;
                    assert!(renewed[0].as_ref().unwrap().expires_at.is_some());
                }
                1 => assert!(
                    slot.unregister(call(), Unregister { identity, generation })
                        .await
                        .unwrap()
                        .existed
                ),
                2 => {
                    let refused = register(slot, request(identity.as_str())).await;
                    assert_eq!(refused, Err(Error::AlreadyExists(identity)));
                }
                _ => {
                    let put = Put {
                        identity: identity.clone(),
                        metadata: format!("{number}").into(),
                        if_revision: Revision(number + 1),
                        generation,
                        request: RequestId::next(),
                    };
                    let record = slot.put(call(), put).await.unwrap();
                    assert_eq!(
                        (record.identity.clone(), &record.metadata[..]),
                        (identity, number.to_string().as_bytes())
                    );
                }
            }
        }
    });
    join_all(calls).await;
    assert_eq!(history(&slot, Revision(40)).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_different_epochs_do_not_share_a_fate() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "group_calls": 1 })).await;
    let current = head(&slot).await.epoch;
    let calls = (0..200).map(|number| {
        let (slot, epoch) = (
            &slot,
            if number % 2 == 0 {
                current
            } else {
                Epoch(current.0 ^ 1)
            },
        );
        async move { register_in(slot, in_epoch(epoch), request(&format!("id-{number}"))).await }
    });
    for (number, result) in join_all(calls).await.into_iter().enumerate() {
        if number % 2 == 0 {
            assert!(result.is_ok(), "{result:?}");
        } else {
            assert_eq!(result, Err(Error::EpochChanged { current }));
        }
    }
    assert_eq!(head(&slot).await.revision, Revision(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_deadline_does_not_wait_for_a_short_one_and_the_other_way_round() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "read_timeout": "5s", "group_calls": 1 })).await;
    server.freeze().unwrap();
    let occupied = register(&slot, request("first"));
    let mixed = async {
        let calls = (0..20).map(|number| {
            let limit = Duration::from_millis(if number % 2 == 0 { 200 } else { 4_000 });
            let slot = &slot;
            async move {
                let started = Instant::now();
                let result = register_in(slot, within(limit), request(&format!("id-{number}"))).await;
                (number % 2 == 0, started.elapsed(), result)
            }
        });
        join_all(calls).await
    };
    let thaw = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.thaw().unwrap();
    };
    let (first, mixed, ()) = tokio::join!(occupied, mixed, thaw);
    assert!(first.is_ok(), "{first:?}");
    for (short, took, result) in mixed {
        if short {
            assert_eq!(
                result,
                Err(Error::Timeout {
                    backend: "redis",
                    applied: Applied::No
                })
            );
            assert!(took < Duration::from_millis(450), "{took:?}");
        } else {
            assert!(result.is_ok(), "{result:?}");
        }
    }
    assert_eq!(head(&slot).await.revision, Revision(11));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let mut server = RedisServer::start().await.unwrap();
    let small = json!({ "queue_max_writes": 128, "group_calls": 1, "read_timeout": "5s" });
    let slot = open_with(server.addr(), small).await;
    server.freeze().unwrap();
    let calls = (0..400).map(|number| {
        let slot = &slot;
        async move {
            let started = Instant::now();
            let result = register(slot, request(&format!("id-{number}"))).await;
            (result, started.elapsed())
        }
    });
    let thaw = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.thaw().unwrap();
    };
    let (results, ()) = tokio::join!(join_all(calls), thaw);
    let (done, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(|(result, _)| result.is_ok());
    assert!((128..=257).contains(&done.len()), "{} were taken", done.len());
    for (result, took) in refused {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable { message, .. } if message.contains("slow down")),
            "{error:?}"
        );
        assert_eq!(error.applied(), Applied::No);
        assert!(took < Duration::from_millis(250), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_refuses_what_grows_and_nothing_else() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "group_calls": 1 })).await;
    let admin = Admin::to(server.addr()).await;
    let metadata = Bytes::from(vec![b'x'; 10_000]);
    for name in ["a", "b", "c"] {
        let request = Register {
            metadata: metadata.clone(),
            ..leased(name, 60_000)
        };
        register(&slot, request).await.unwrap();
    }
    admin.run(&["CONFIG", "SET", "maxmemory", "1mb"]).await;

    let generation = None;
    let grow = |name: &str| Register {
        metadata: metadata.clone(),
        ..request(name)
    };
    // The first occupies the only call, so that the others share one.
    let (first, refused, renewed, gone, read) = tokio::join!(
        register(&slot, grow("d")),
        register(&slot, grow("e")),
        slot.renew(
            call(),
            vec![Renew {
                identity: identity("a"),
                generation
            }]
        ),
        slot.unregister(
            call(),
            Unregister {
                identity: identity("b"),
                generation
            }
        ),
        slot.get(call(), identity("c")),
    );
    for refused in [first.unwrap_err(), refused.unwrap_err()] {
        assert!(
            matches!(&refused, Error::Unavailable { message, .. } if message.contains("OOM")),
            "{refused:?}"
        );
        assert_eq!(refused.applied(), Applied::No);
    }
    assert!(renewed[0].is_ok(), "{renewed:?}");
    assert!(gone.unwrap().existed);
    assert!(read.unwrap().record.is_some());
    assert!(slot.sync(call(), Revision::ZERO, 10).await.is_ok());
    assert_eq!(
        head(&slot).await.revision,
        Revision(4),
        "a refused write left nothing"
    );

    admin.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(register(&slot, grow("d")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_disturb_its_group() {
    let server = RedisServer::start().await.unwrap();
    let slot = open_with(server.addr(), json!({ "group_calls": 1 })).await;
    for round in 0..20 {
        let impatient = (0..50).map(|number| {
            let gone = register(&slot, request(&format!("gone-{round}-{number}")));
            tokio::time::timeout(Duration::from_micros(number * 20), gone)
        });
        let patient = (0..50).map(|number| register(&slot, request(&format!("stays-{round}-{number}"))));
        let (_, stayed) = tokio::join!(join_all(impatient), join_all(patient));
        assert!(stayed.iter().all(Result::is_ok));
    }
    assert!(head(&slot).await.revision >= Revision(1_000));
}

/// While it waits for its turn.
#[tokio::test(flavor = "multi_thread")]
async fn the_write_of_a_caller_that_has_gone_is_not_sent() {
    let mut server = RedisServer::start().await.unwrap();
    let one_by_one = json!({ "group_calls": 1, "group_max_writes": 1, "read_timeout": "10s" });
    let slot = open_with(server.addr(), one_by_one).await;
    server.freeze().unwrap();
    // Whoever comes while the first call is being made up goes with it.
    let under_way = || tokio::time::sleep(Duration::from_millis(200));
    let first = register(&slot, request("first"));
    let gone = async {
        under_way().await;
        let waiting = register(&slot, request("gone"));
        let waited = tokio::time::timeout(Duration::from_millis(100), waiting).await;
        assert!(waited.is_err());
        server.thaw().unwrap();
    };
    let second = async {
        under_way().await;
        register(&slot, request("second")).await
    };
    let (first, (), second) = tokio::join!(first, gone, second);
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(get(&slot, "gone").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_too_late_is_not_sent() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let past = Call {
        epoch: None,
        deadline: Instant::now(),
    };
    let late = Error::Timeout {
        backend: "redis",
        applied: Applied::No,
    };
    assert_eq!(register_in(&slot, past, request("a")).await, Err(late.clone()));
    assert_eq!(slot.get(past, identity("a")).await, Err(late));
    assert_eq!(head(&slot).await.revision, Revision::ZERO);
    assert!(slot.register(call(), Vec::new()).await.is_empty());
    assert!(slot.renew(call(), Vec::new()).await.is_empty());
    assert!(slot.leases(call(), Vec::new()).await.unwrap().is_empty());
}

/// Far more than one call carries, and more than may wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_batch_is_done_in_its_order() {
    const MANY: u64 = 20_000;
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let names: Vec<_> = (0..MANY)
        .map(|number| identity(&format!("id-{number}")))
        .collect();
    let batch = (0..MANY).map(|number| leased(&format!("id-{number}"), 600_000));
    let results = slot
        .register(within(Duration::from_secs(60)), batch.collect())
        .await;
    let revisions = results
        .iter()
        .map(|result| result.as_ref().unwrap().position.revision.0);
    assert!(revisions.eq(1..=MANY), "in the order of the batch");

    let renewals = names.iter().cloned().map(|identity| Renew {
        identity,
        generation: None,
    });
    let renewed = slot
        .renew(within(Duration::from_secs(60)), renewals.collect())
        .await;
    let ends = slot.leases(within(Duration::from_secs(60)), names).await.unwrap();
    assert_eq!((renewed.len(), ends.len()), (MANY as usize, MANY as usize));
    for (renewed, end) in renewed.iter().zip(ends) {
        // As long as the wall clock does what the lease clock does, which it may not on the millisecond.
        let apart = renewed.as_ref().unwrap().expires_at.unwrap().0 - end.unwrap().0;
        assert!(
            apart.abs() < 1_000,
            "{apart} ms between the end of a lease and itself"
        );
    }
}

/// Redis looks at its memory when a call begins: what runs out within it is used all the same.
#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_within_a_call_leaves_no_half_of_it() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let admin = Admin::to(server.addr()).await;
    let used: u64 = admin.info("memory", "used_memory").await.parse().unwrap();
    admin
        .run(&["CONFIG", "SET", "maxmemory", &(used + (1 << 20)).to_string()])
        .await;
    let batch = (0..400).map(|number| Register {
        metadata: Bytes::from(vec![b'x'; 16_000]),
        ..leased(&format!("id-{number}"), 60_000)
    });
    let results = slot.register(call(), batch.collect()).await;
    let done = results.iter().take_while(|result| result.is_ok()).count();
    assert!((1..400).contains(&done), "{done} of 400 were registered");
    for refused in &results[done..] {
        let error = refused.as_ref().unwrap_err();
        assert!(error.to_string().contains("OOM"), "{error}");
        assert_eq!(error.applied(), Applied::No);
    }
    assert_eq!(head(&slot).await.revision, Revision(done as u64));
    assert_eq!(history(&slot, Revision::ZERO).await.len(), done);
    for (part, size) in [("records", "HLEN"), ("terms", "HLEN"), ("leases", "ZCARD")] {
        assert_eq!(
            admin.run(&[size, &key(part)]).await.as_u64(),
            Some(done as u64),
            "{part}"
        );
    }
}
