//! No call outlives its deadline, none is applied twice, and none is called failed that was not.

use std::time::Duration;

use prism_slot::{Applied, DurableInbox, Enqueued, Error, InboxLimits, Redriven, Verdict};
use prism_slot_redis::RedisInbox;
use prism_testkit::{Direction, FaultProxy, Flow, RedisServer, eventually};
use serde_json::json;

use super::{
    super::support::Admin,
    bounds::{fill, of_another},
    *,
};

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

/// A cancellation for many takes several calls. What one fails with hides nothing of those before and after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_is_cut_in_one_call_tells_of_the_others() {
    const CALL: usize = 128;
    let Behind { server, proxy, slot } = behind_a_proxy(json!({ "pool_size": 1 })).await;
    let direct = open(server.addr()).await;
    let (to, sent) = (addresses(3 * CALL), message("x"));
    let outcomes = direct.enqueue(&to, sent.clone(), terms(), soon()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == STORED));
    let identities: Vec<_> = to.iter().map(|to| to.identity.clone()).collect();
    // One that takes nothing says how much is asked.
    let before = proxy.forwarded(Direction::ToServer);
    let none = slot
        .cancel(message("y").multicast, &identities[..CALL], soon())
        .await;
    assert_eq!(none, vec![Ok(false); CALL]);
    let size = proxy.forwarded(Direction::ToServer) - before;
    proxy.set(Direction::ToServer, Flow::CutAfter(size + size / 2));
    let told = slot.cancel(sent.multicast, &identities, soon()).await;
    let is_failed = |told: &prism_slot::Result<bool>| {
        told.as_ref()
            .is_err_and(|error| error.applied() == Applied::Unknown)
    };
    assert_eq!(told[..CALL], vec![Ok(true); CALL]);
    assert!(told[CALL..2 * CALL].iter().all(is_failed), "{told:?}");
    assert_eq!(told[2 * CALL..], vec![Ok(true); CALL]);
    let left = direct.cancel(sent.multicast, &identities, soon()).await;
    let left = left.into_iter().filter(|told| *told == Ok(true)).count();
    assert_eq!(left, CALL);
}

/// An opening takes several calls where the inbox was somebody else's. Whichever reply is lost, asking again is answered
/// as the first time: a session does not lose its inbox to itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_whose_replies_are_lost_ends_well() {
    let Behind { server, proxy, slot } = behind_a_proxy(json!({ "pool_size": 1 })).await;
    let direct = open(server.addr()).await;
    let mut size = 0;
    // All its replies arrive, which says how much they are; then another one of them does not.
    for lost in (0..200).step_by(9) {
        let name = format!("id-{lost}");
        fill(&direct, &address(&name), 300, terms()).await;
        let mut other = consumer(&name, 2);
        other.address = of_another(other.address);
        let before = proxy.forwarded(Direction::ToClient);
        if lost > 0 {
            proxy.set(Direction::ToClient, Flow::CutAfter(size - lost));
        }
        slot.open(&other, soon()).await.unwrap();
        assert_eq!(fetch(&direct, &other).await.deliveries, []);
        if lost == 0 {
            size = proxy.forwarded(Direction::ToClient) - before;
        } else if lost + 9 > size {
            return;
        }
    }
    panic!("{size} bytes are more than was reckoned with");
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
