//! An outcome says no more than is known.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prism_slot::{Message, Messaging, MulticastId, Outcome, Received};
use prism_slot_nats::{Config, NatsMessaging};
use prism_testkit::{Direction, FaultProxy, Flow, NatsServer, eventually};
use tokio::time::{Instant, timeout};

use crate::{
    GRACE, LONG, SHORT, all, config, hears, identities, identity, is_not_sent, is_unknown, listen, message,
    open, publish, soon,
};

async fn mixed_batch(config: Config) {
    let server_url = config.servers[0].clone();
    let listening = open(&server_url).await;
    let publishing = NatsMessaging::open("test", "test.multicast", config)
        .await
        .unwrap();
    let targets = identities(1_000);
    let mut listeners = Vec::new();
    for target in targets.iter().step_by(3) {
        listeners.push(listening.listen(target, soon()).await.unwrap());
    }
    for _ in 0..5 {
        let outcomes = publishing.publish_batch(&targets, message("hello"), soon()).await;
        assert_eq!(outcomes.len(), 1_000);
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = if number % 3 == 0 {
                Outcome::Accepted
            } else {
                Outcome::NoSubscriber
            };
            assert_eq!(*outcome, expected, "target {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_targets_are_told_apart() {
    let server = NatsServer::start().await.unwrap();
    mixed_batch(config(&server.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_and_connections_do_not_mix_targets_up() {
    let server = NatsServer::start().await.unwrap();
    let split = Config {
        publish_window: 7,
        connections: 3,
        ..config(&server.url())
    };
    mixed_batch(split).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_batches_do_not_mix_up() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let _listener = listen(&slot, "id-0").await;
    let targets = identities(2);
    let batches = (0..200).map(|_| slot.publish_batch(&targets, message("x"), soon()));
    for outcomes in futures::future::join_all(batches).await {
        assert_eq!(outcomes, [Outcome::Accepted, Outcome::NoSubscriber]);
    }
}

/// What a payload may have beside itself at most does not make it too large for the broker.
#[tokio::test]
async fn the_largest_message_is_taken_with_the_largest_headers() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let mut listener = listen(&slot, "id-0").await;
    // Names that are not sorted travel twice.
    let headers = (0..64)
        .rev()
        .map(|number| (format!("{number:0127}"), "x".to_owned()));
    let large = Message {
        headers: headers.collect(),
        content_type: "x".repeat(256).into(),
        reply_to: Some("x".repeat(256).into()),
        receipts: Some("x".repeat(256).into()),
        ..Message::new(MulticastId::random(), vec![0; slot.capability().max_payload])
    };
    let outcomes = slot
        .publish_batch(&identities(1), Arc::new(large.clone()), soon())
        .await;
    assert_eq!(outcomes, [Outcome::Accepted]);
    let received = timeout(LONG, listener.next()).await.unwrap();
    assert!(matches!(received, Some(Received::Message(message)) if message.headers == large.headers));
}

/// Together they want more room than there is.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_batches_do_not_wait_for_each_other() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let targets = identities(1_500);
    let batches = (0..100).map(|_| slot.publish_batch(&targets, message("x"), soon()));
    for outcomes in futures::future::join_all(batches).await {
        assert!(all(&outcomes, |outcome| *outcome == Outcome::NoSubscriber));
    }
}

/// What async-nats returns Ok for in a black hole stays unknown to us, and nobody waits beyond the
/// deadline, whichever direction is dark.
#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_leaves_everything_unknown() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = open(&format!("nats://{}", proxy.addr())).await;
    let _listener = listen(&slot, "id-0").await;
    let targets = identities(100);
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Flow::Hold);
        let begun = Instant::now();
        let outcomes = slot.publish_batch(&targets, message("lost"), begun + SHORT).await;
        assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
        assert!(all(&outcomes, is_unknown), "{outcomes:?}");
        assert!(slot.probe(Instant::now() + SHORT).await.is_err());
        assert!(
            slot.listen(&identity("late"), Instant::now() + SHORT)
                .await
                .is_err()
        );
        proxy.heal();
        slot.probe(soon()).await.unwrap();
    }
    assert_eq!(publish(&slot, "id-0", "found").await, Outcome::Accepted);
    assert_eq!(publish(&slot, "late", "nobody").await, Outcome::NoSubscriber);
}

/// A broker that takes its time is right all the same; whoever does not give it that knows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_changes_no_outcome() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = open(&format!("nats://{}", proxy.addr())).await;
    let targets = identities(1_500);
    let mut listener = listen(&slot, "id-1").await;
    proxy.set(Direction::ToServer, Flow::Delay(SHORT));
    proxy.set(Direction::ToClient, Flow::Delay(SHORT));
    let begun = Instant::now();
    let outcomes = slot.publish_batch(&targets, message("late"), begun + SHORT).await;
    assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
    assert!(all(&outcomes, |outcome| is_unknown(outcome) || is_not_sent(outcome)));
    assert!(is_unknown(&outcomes[1]), "{:?}", outcomes[1]);
    hears(&mut listener, "late").await;

    let outcomes = slot.publish_batch(&targets, message("in time"), soon()).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = [Outcome::NoSubscriber, Outcome::Accepted][usize::from(number == 1)].clone();
        assert_eq!(*outcome, expected, "target {number}");
    }
    hears(&mut listener, "in time").await;
    let _other = listen(&slot, "id-0").await;
    assert_eq!(publish(&slot, "id-0", "x").await, Outcome::Accepted);
}

/// More than async-nats queues, with nobody reading: what it would not take was certainly not sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_library_does_not_take_is_not_sent() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = open(&format!("nats://{}", proxy.addr())).await;
    proxy.black_hole();
    let bulky = Message {
        payload: Bytes::from(vec![0; 64 << 10]),
        ..(*message("")).clone()
    };
    let begun = Instant::now();
    let outcomes = slot
        .publish_batch(&identities(8_000), bulky.into(), begun + SHORT)
        .await;
    assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
    let unknown = outcomes.iter().take_while(|outcome| is_unknown(outcome)).count();
    assert!(unknown > 0 && unknown < 8_000, "{unknown}");
    assert!(all(&outcomes[unknown..], is_not_sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_nothing_is_sent_and_nobody_waits() {
    let mut server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    server.stop();
    let targets = identities(10_000);
    eventually(LONG, "the loss is noticed", || async {
        slot.probe(Instant::now() + SHORT)
            .await
            .is_err_and(|error| error.to_string().contains("not connected"))
    })
    .await;
    let begun = Instant::now();
    let outcomes = slot.publish_batch(&targets, message("x"), soon()).await;
    assert!(begun.elapsed() < GRACE, "{:?}", begun.elapsed());
    assert_eq!(outcomes.len(), targets.len());
    assert!(all(&outcomes, is_not_sent));
    let refused = slot.listen(&identity("a"), soon()).await.unwrap_err();
    assert!(refused.to_string().contains("not connected"), "{refused}");
    server.restart().await.unwrap();
    eventually(LONG, "the slot works again", || async {
        slot.probe(soon()).await.is_ok()
    })
    .await;
    assert_eq!(publish(&slot, "id-0", "x").await, Outcome::NoSubscriber);
}

/// The first half of a batch is lost with its connection, the second half and the echo would go through
/// the next one. The echo must not be taken as a confirmation of the first half.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconnection_in_the_middle_confirms_nothing() {
    let server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let elsewhere = open(&server.url()).await;
    let slot = open(&format!("nats://{}", proxy.addr())).await;
    let targets = identities(400);
    let mut listeners = Vec::new();
    for target in &targets {
        listeners.push(elsewhere.listen(target, soon()).await.unwrap());
    }
    for round in 0..5 {
        proxy.set(Direction::ToServer, Flow::Hold);
        // More than all buffers on the way hold, so that the batch waits in the middle.
        let bulky = Message {
            payload: Bytes::from(vec![0; 256 << 10]),
            ..(*message("")).clone()
        };
        let before = proxy.accepted();
        let (outcomes, ()) = tokio::join!(slot.publish_batch(&targets, bulky.into(), soon()), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            proxy.heal();
            proxy.cut();
        });
        assert!(
            all(&outcomes, |outcome| is_unknown(outcome) || is_not_sent(outcome)),
            "round {round}"
        );
        assert!(is_unknown(&outcomes[0]), "{:?}", outcomes[0]);
        eventually(LONG, "there is a new connection", || async {
            proxy.accepted() > before && slot.probe(soon()).await.is_ok()
        })
        .await;
    }
}

/// Nothing comes back for a message that the broker refuses, no "no responders" either. Here the login may not
/// even ask for the rules.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_not_accepted() {
    let rules = r#"authorization { users: [{ user: u, password: p, permissions: {
        publish: { allow: ["_INBOX.>", "test.>"], deny: ["test.multicast.test.secret"] }
    } }] }"#;
    let server = NatsServer::start_with(rules).await.unwrap();
    for _ in 0..10 {
        let slot = open(&server.url().replace("://", "://u:p@")).await;
        assert_eq!(
            slot.statistics().broker_errors,
            0,
            "not to be told the rules is no error"
        );
        for complaints in 1..4 {
            assert_eq!(publish(&slot, "public", "x").await, Outcome::NoSubscriber);
            let outcome = publish(&slot, "secret", "x").await;
            assert!(is_unknown(&outcome), "{outcome:?}");
            assert_eq!(slot.statistics().broker_errors, complaints);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_is_not_sent() {
    let server = NatsServer::start_with("max_payload: 64KB").await.unwrap();
    let slot = open(&server.url()).await;
    assert_eq!(slot.capability().max_payload, (64 << 10) - (20 << 10));
    let _listener = listen(&slot, "id-0").await;
    let large = Message {
        payload: Bytes::from(vec![0; 64 << 10]),
        ..(*message("")).clone()
    };
    let headed = Message {
        headers: vec![("Nats-Trace-Only".into(), "true".into())],
        ..(*message("")).clone()
    };
    for refused in [large, headed] {
        let outcomes = slot.publish_batch(&identities(3), refused.into(), soon()).await;
        assert!(all(&outcomes, is_not_sent), "{outcomes:?}");
    }
    assert_eq!(slot.publish_batch(&[], message("nobody"), soon()).await, []);
    assert_eq!(publish(&slot, "id-0", "fits").await, Outcome::Accepted);
}
