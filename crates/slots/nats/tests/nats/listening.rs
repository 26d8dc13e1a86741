//! Listeners hear everything, or hear that something is missing.

use std::time::Duration;

use prism_slot::{GapReason, Messaging, Outcome, Received};
use prism_slot_nats::{Config, NatsMessaging};
use prism_testkit::{FaultProxy, NatsServer, eventually};
use tokio::time::{Instant, timeout};

use crate::{LONG, SHORT, config, hears, identity, is_not_sent, listen, message, next, open, publish, soon};

const RECONNECTED: Received = Received::Gap {
    dropped: 0,
    reason: GapReason::Reconnected,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_survives_its_broker() {
    let mut server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let (mut one, mut other) = (listen(&slot, "one").await, listen(&slot, "other").await);
    assert_eq!(publish(&slot, "one", "before").await, Outcome::Accepted);
    hears(&mut one, "before").await;
    for round in 1..=3 {
        server.restart().await.unwrap();
        // Also the one for whom nothing was published.
        assert_eq!(next(&mut one).await, RECONNECTED);
        assert_eq!(next(&mut other).await, RECONNECTED);
        eventually(LONG, "the other connection is back, too", || async {
            slot.probe(soon()).await.is_ok()
        })
        .await;
        assert_eq!(publish(&slot, "one", "after").await, Outcome::Accepted);
        hears(&mut one, "after").await;
        // Of two connections: the other one publishes.
        assert_eq!(slot.statistics().reconnections, 2 * round);
    }
    assert!(
        timeout(SHORT, other.next()).await.is_err(),
        "one gap a reconnection"
    );
}

/// What was published through others while the connection was down is lost; the gap stands before
/// everything that is heard after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_comes_before_what_follows_it() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let (slot, steady) = (
        open(&format!("nats://{}", proxy.addr())).await,
        open(&server.url()).await,
    );
    let mut listener = listen(&slot, "a").await;
    for _ in 0..20 {
        proxy.refuse().await;
        proxy.cut();
        eventually(LONG, "the broker notices", || async {
            publish(&steady, "a", "missed").await == Outcome::NoSubscriber
        })
        .await;
        proxy.accept().await.unwrap();
        eventually(LONG, "the listener is back", || async {
            publish(&steady, "a", "heard").await == Outcome::Accepted
        })
        .await;
        loop {
            match next(&mut listener).await {
                // Sent before the broker had noticed.
                Received::Message(message) => assert_eq!(message.payload, "missed"),
                gap => break assert_eq!(gap, RECONNECTED),
            }
        }
        hears(&mut listener, "heard").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_misses_exactly_what_its_gaps_say() {
    let server = NatsServer::start().await.unwrap();
    let narrow = Config {
        listener_queue: 8,
        ..config(&server.url())
    };
    let slot = NatsMessaging::open("test", "test.multicast", narrow)
        .await
        .unwrap();
    let mut slow = listen(&slot, "slow").await;
    let (mut sent, mut expected, mut missed) = (0_u64, 0, 0);
    for burst in [100, 1, 50, 9, 300] {
        for _ in 0..burst {
            assert_eq!(publish(&slot, "slow", &sent.to_string()).await, Outcome::Accepted);
            sent += 1;
        }
        while expected < sent {
            match next(&mut slow).await {
                Received::Message(message) => {
                    assert_eq!(message.payload, expected.to_string());
                    expected += 1;
                }
                Received::Gap { dropped, reason } => {
                    assert_eq!(reason, GapReason::SlowConsumer);
                    expected += dropped;
                    missed += dropped;
                }
            }
        }
        assert_eq!(expected, sent);
    }
    assert!(missed > 0);
}

/// A publish through any other connection reaches a listener from the moment `listen` returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_listens_when_listen_returns() {
    let server = NatsServer::start().await.unwrap();
    let (here, there) = (open(&server.url()).await, open(&server.url()).await);
    for round in 0..200 {
        let name = format!("id-{round}");
        let _listener = listen(&here, &name).await;
        assert_eq!(
            publish(&there, &name, "x").await,
            Outcome::Accepted,
            "round {round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_listener_is_gone() {
    let server = NatsServer::start().await.unwrap();
    let (here, there) = (open(&server.url()).await, open(&server.url()).await);
    for publisher in [&here, &there] {
        drop(listen(&here, "a").await);
        eventually(LONG, "nobody listens", || async {
            publish(publisher, "a", "x").await == Outcome::NoSubscriber
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_everything() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let mut listener = listen(&slot, "a").await;
    assert_eq!(publish(&slot, "a", "waiting").await, Outcome::Accepted);
    hears(&mut listener, "waiting").await;
    slot.close().await;
    assert_eq!(timeout(LONG, listener.next()).await.unwrap(), None);
    assert!(is_not_sent(&publish(&slot, "a", "x").await));
    assert!(slot.probe(soon()).await.is_err());
    assert!(slot.listen(&identity("a"), soon()).await.is_err());
    slot.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_does_not_wait_for_a_dead_broker() {
    let mut server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let mut listener = listen(&slot, "a").await;
    server.freeze().unwrap();
    let targets = [identity("a")];
    let publishing = slot.publish_batch(&targets, message("x"), soon());
    let closing = async {
        let begun = Instant::now();
        slot.close().await;
        assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    };
    let (outcomes, ()) = tokio::join!(timeout(LONG, publishing), closing);
    assert_ne!(outcomes.unwrap(), [Outcome::Accepted]);
    assert_eq!(listener.next().await, None);
}

/// Nobody waits for what does not come any more; whoever listens anew is told why it cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_ends_listeners_and_posts() {
    let mut server = NatsServer::start().await.unwrap();
    let limited = Config {
        max_reconnects: 3,
        reconnect_wait: Duration::from_millis(5),
        ..config(&server.url())
    };
    let slot = NatsMessaging::open("test", "test.multicast", limited)
        .await
        .unwrap();
    let (mut listener, mut post) = (listen(&slot, "a").await, slot.post(soon()).await.unwrap());
    assert_eq!(publish(&slot, "a", "before").await, Outcome::Accepted);
    server.stop();
    let ends = async {
        hears(&mut listener, "before").await;
        assert_eq!(listener.next().await, None);
        assert_eq!(post.next().await, None);
    };
    timeout(LONG, ends).await.expect("both end");
    eventually(LONG, "it is told why", || async {
        let refused = slot.listen(&identity("a"), soon()).await.unwrap_err();
        refused.to_string().contains("gave up connecting")
    })
    .await;
    assert!(slot.post(soon()).await.is_err());
    timeout(LONG, slot.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_slot_ends_its_listeners() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let mut listener = listen(&slot, "a").await;
    drop(slot);
    assert_eq!(timeout(LONG, listener.next()).await.unwrap(), None);
}
