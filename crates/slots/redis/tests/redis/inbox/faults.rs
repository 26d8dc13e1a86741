//! No call outlives its deadline, none is applied twice, and none is called failed that was not.

use std::{collections::BTreeSet, time::Duration};

use prism_slot::{
    Applied, DeadQuery, DurableInbox, Enqueued, Error, Identity, InboxLimits, Redriven, Verdict,
};
use prism_slot_redis::RedisInbox;
use prism_testkit::{Direction, FaultProxy, Flow, RedisServer, eventually, seed};
use serde_json::json;

use super::{super::support::Admin, *};

const SLACK: Duration = Duration::from_millis(400);

struct Behind {
    server: RedisServer,
    proxy: FaultProxy,
    slot: RedisInbox,
}

/// A slot that reaches its server through a proxy.
async fn behind_a_proxy(more: Json) -> Behind {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = open_with(proxy.addr(), more, InboxLimits::default()).await;
    Behind { server, proxy, slot }
}

/// Runs a call that must end by its deadline.
async fn timed<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let result = work.await;
    let took = started.elapsed();
    assert!(took < limit + SLACK, "took {took:?} instead of {limit:?}");
    result
}

async fn working(slot: &RedisInbox) {
    eventually(SOON, "the slot works again", || async {
        store(slot, "probe", &message("probe")).await == STORED
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_leaves_unknown_what_storing_again_finds_out() {
    let Behind { server, proxy, slot } = behind_a_proxy(json!({})).await;
    let direct = open(server.addr()).await;
    let sent = message("x");
    proxy.black_hole();
    let limit = Duration::from_millis(600);
    let lost = timed(limit, store_until(&slot, "a", &sent, within(limit))).await;
    assert!(matches!(lost, Enqueued::Unknown(_)), "{lost:?}");
    proxy.heal();
    working(&slot).await;
    let again = store(&slot, "a", &sent).await;
    assert!(
        matches!(again, Enqueued::Duplicate | Enqueued::Stored { .. }),
        "{again:?}"
    );
    assert_eq!(
        direct.depth(Some(&identity("a")), soon()).await.unwrap().messages,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_told_as_unknown_and_found_as_a_duplicate() {
    let Behind { server, proxy, slot } = behind_a_proxy(json!({ "pool_size": 1 })).await;
    let direct = open(server.addr()).await;
    let sent = message("x");
    proxy.drop_replies();
    let limit = Duration::from_millis(500);
    let lost = timed(limit, store_until(&slot, "a", &sent, within(limit))).await;
    assert!(matches!(lost, Enqueued::Unknown(_)), "{lost:?}");
    assert_eq!(
        direct.depth(None, soon()).await.unwrap().messages,
        1,
        "only the reply was lost"
    );
    proxy.heal();
    proxy.cut();
    working(&slot).await;
    assert_eq!(store(&slot, "a", &sent).await, Enqueued::Duplicate);
    // Also when it has been settled since.
    let consumer = consume(&direct, "a", 1).await;
    fetch(&direct, &consumer).await;
    settle(&direct, &consumer, &sent, Verdict::Ack).await;
    assert_eq!(store(&slot, "a", &sent).await, Enqueued::Duplicate);
}

/// The attempt was counted before the reply that nobody got.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_reply_was_lost_counts() {
    let Behind { server, proxy, slot } = behind_a_proxy(json!({ "pool_size": 1 })).await;
    let direct = open(server.addr()).await;
    store(&slot, "a", &message("x")).await;
    let first = consume(&slot, "a", 1).await;
    proxy.drop_replies();
    let limit = Duration::from_millis(500);
    let lost = timed(limit, slot.fetch(&first, all(), within(limit)))
        .await
        .unwrap_err();
    assert_eq!(lost.applied(), Applied::Unknown, "{lost:?}");
    let second = consume(&direct, "a", 2).await;
    assert_eq!(fetch(&direct, &second).await.deliveries[0].attempt, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_call_ends_while_the_server_is_frozen() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let sent = message("x");
    store(&slot, "a", &sent).await;
    let consumer = consume(&slot, "a", 1).await;
    server.freeze().unwrap();
    let limit = Duration::from_millis(500);
    let until = within(limit);
    let (a, b) = ([identity("a")], [address("b")]);
    let letters = vec![(prism_slot::DeadId(1), address("a"))];
    let outcomes = timed(limit, async {
        let reads = async {
            tokio::join!(
                slot.depth(None, until),
                slot.dead_letters(DeadQuery::default(), until),
                slot.probe(until),
                slot.open(&consumer, until),
            )
        };
        let writes = async {
            tokio::join!(
                slot.enqueue(&b, message("y"), terms(), until),
                slot.fetch(&consumer, all(), until),
                slot.settle(&consumer, vec![(sent.multicast, Verdict::Ack)], until),
                slot.cancel(sent.multicast, &a, until),
                slot.discard(&consumer.address, until),
                slot.redrive(letters, terms(), until),
                slot.sweep(until),
            )
        };
        tokio::join!(reads, writes)
    })
    .await;
    let ((depth, dead, probe, open), (stored, fetched, settled, cancelled, discarded, redriven, swept)) =
        outcomes;
    assert!(matches!(stored[..], [Enqueued::Unknown(_)]), "{stored:?}");
    let errors = [
        depth.err(),
        dead.err(),
        probe.err(),
        open.err(),
        fetched.err(),
        settled.err(),
        cancelled.err(),
        discarded.err(),
        redriven.err(),
        swept.err(),
    ];
    for error in errors {
        let error = error.expect("nothing answers");
        let backend = match error {
            Error::Timeout { backend, .. } | Error::Unavailable { backend, .. } => backend,
            other => panic!("{other:?}"),
        };
        assert_eq!(backend, "redis-stream");
    }
    server.thaw().unwrap();
    working(&slot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_late_is_not_sent() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let late = store_until(&slot, "a", &message("x"), Instant::now()).await;
    assert!(matches!(late, Enqueued::NotStored(_)), "{late:?}");
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 0);
    assert!(slot.enqueue(&[], message("x"), terms(), soon()).await.is_empty());
}

/// What is in which inbox.
async fn found(slot: &RedisInbox, to: &[Address]) -> BTreeSet<Identity> {
    let mut found = BTreeSet::new();
    for address in to {
        if slot
            .depth(Some(&address.identity), soon())
            .await
            .unwrap()
            .messages
            == 1
        {
            found.insert(address.identity.clone());
        }
    }
    found
}

/// The link breaks somewhere in a batch of many calls: each outcome is right for its inbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_within_a_batch_leaves_no_wrong_word() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut random = StdRng::seed_from_u64(seed());
    let Behind { server, proxy, slot } = behind_a_proxy(json!({ "pool_size": 2, "max_retries": 0 })).await;
    let direct = open(server.addr()).await;
    let to = addresses(1_500);
    for direction in [Direction::ToServer, Direction::ToClient, Direction::ToServer] {
        let sent = message("x");
        let size = if direction == Direction::ToServer {
            60_000
        } else {
            1_000
        };
        proxy.set(direction, Flow::CutAfter(random.random_range(1..size)));
        let outcomes = slot.enqueue(&to, sent.clone(), terms(), soon()).await;
        let there = found(&direct, &to).await;
        for (address, outcome) in to.iter().zip(&outcomes) {
            let is_there = there.contains(&address.identity);
            match outcome {
                Enqueued::Stored { .. } => assert!(is_there, "{address:?}"),
                Enqueued::NotStored(_) => assert!(!is_there, "{address:?}"),
                Enqueued::Unknown(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(outcomes.iter().any(|outcome| *outcome != STORED), "it was cut");
        proxy.heal();
        working(&slot).await;
        let again = slot.enqueue(&to, sent, terms(), soon()).await;
        for (address, outcome) in to.iter().zip(&again) {
            let expected = if there.contains(&address.identity) {
                Enqueued::Duplicate
            } else {
                STORED
            };
            assert_eq!(*outcome, expected, "{address:?}");
            assert_eq!(direct.discard(address, soon()).await, Ok(1));
        }
        direct.discard(&address("probe"), soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_clearly_while_the_server_is_down_and_recover_by_themselves() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open_with(
        server.addr(),
        json!({ "pool_timeout": "100ms" }),
        InboxLimits::default(),
    )
    .await;
    let sent = message("x");
    server.stop();
    eventually(SOON, "the loss is noticed", || async {
        matches!(store(&slot, "a", &sent).await, Enqueued::NotStored(_))
    })
    .await;
    let limit = Duration::from_millis(800);
    let refused = timed(limit, store(&slot, "a", &sent)).await;
    let Enqueued::NotStored(why) = &refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains(&server.addr().to_string()), "{why}");
    server.restart().await.unwrap();
    working(&slot).await;
    assert_eq!(store(&slot, "a", &sent).await, STORED);
}

/// Everything is gone: whoever has a session finds out, and begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_vanishes_under_a_session_fences_it_until_it_opens_again() {
    let mut server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    for way in ["flush", "restart"] {
        let (kept, dying) = (message("kept"), message("dying"));
        store(&slot, "a", &kept).await;
        store(&slot, "a", &dying).await;
        let (earlier, consumer) = (super::consumer("a", 4), consume(&slot, "a", 5).await);
        assert_eq!(texts(&fetch(&slot, &consumer).await), ["kept", "dying"]);
        let reason = String::new();
        settle(&slot, &consumer, &dying, Verdict::Term { reason }).await;
        match way {
            "flush" => drop(Admin::to(server.addr()).await.run(&["FLUSHALL"]).await),
            _ => server.restart().await.unwrap(),
        }
        working(&slot).await;
        let fenced = Err(Error::Fenced(identity("a")));
        assert_eq!(
            slot.fetch(&consumer, all(), soon()).await.map(drop),
            fenced,
            "{way}"
        );
        let verdicts = vec![(kept.multicast, Verdict::Ack)];
        assert_eq!(
            slot.settle(&consumer, verdicts, soon()).await.map(drop),
            fenced,
            "{way}"
        );
        let letters = vec![(prism_slot::DeadId(1), address("a"))];
        assert_eq!(
            slot.redrive(letters, terms(), soon()).await,
            Ok(vec![Redriven::Gone]),
            "{way}"
        );
        // Nobody remembers who was later, so an earlier one gets it first; the later one takes it back.
        slot.open(&earlier, soon()).await.unwrap();
        slot.open(&consumer, soon()).await.unwrap();
        assert_eq!(slot.open(&earlier, soon()).await, fenced, "{way}");
        assert_eq!(fetch(&slot, &consumer).await.deliveries, [], "{way}");
        assert_eq!(store(&slot, "a", &kept).await, STORED, "nor what was stored");
        assert_eq!(texts(&fetch(&slot, &consumer).await), ["kept"], "{way}");
        settle(&slot, &consumer, &kept, Verdict::Ack).await;
        slot.discard(&consumer.address, soon()).await.unwrap();
    }
}

/// What never is answered must not be sent again by the client itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_without_functions_loads_them_again() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let admin = Admin::to(server.addr()).await;
    for _ in 0..3 {
        admin.run(&["FUNCTION", "FLUSH"]).await;
        assert_eq!(store(&slot, "a", &message("x")).await, STORED);
    }
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_slot_refuses_and_leaves_no_connection() {
    let server = RedisServer::start().await.unwrap();
    let slot = open(server.addr()).await;
    let admin = Admin::to(server.addr()).await;
    assert_eq!(
        admin.info("clients", "connected_clients").await,
        "5",
        "none waits for changes"
    );
    slot.close().await;
    let refused = store(&slot, "a", &message("x")).await;
    assert!(
        matches!(&refused, Enqueued::NotStored(why) if why.contains("closed")),
        "{refused:?}"
    );
    eventually(SOON, "its connections are gone", || async {
        admin.info("clients", "connected_clients").await == "1"
    })
    .await;
}
