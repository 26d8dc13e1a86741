//! What other clients of the broker see, and what they can do.

use async_nats::{HeaderMap, Subject};
use futures::StreamExt;
use prism_slot::{GapReason, Kind, Listener, Message, Messaging, Outcome, Received};
use prism_slot_nats::NatsMessaging;
use prism_testkit::{NatsServer, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    LONG, SHORT, all, hears, identities, identity, listen, message, next, open, plain, publish, soon,
    subscribe,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_client_understands_a_message() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    for (name, subject) in [
        ("user-alice-session-1", "test.multicast.test.user-alice-session-1"),
        ("a.b *", "test.multicast.test.a%2Eb%20%2A"),
    ] {
        let mut subscriber = subscribe(&client, subject).await;
        let sent = message("hello");
        let outcomes = slot.publish_batch(&[identity(name)], sent.clone(), soon()).await;
        assert_eq!(outcomes, [Outcome::Accepted]);
        let received = timeout(LONG, subscriber.next()).await.unwrap().unwrap();
        assert_eq!((&*received.subject, &*received.payload), (subject, &b"hello"[..]));
        let headers = received.headers.unwrap();
        let header = |name| headers.get(name).unwrap().to_string();
        let summary = format!("v=1;id={};at=1700000000123", sent.multicast);
        assert_eq!(header("Prism-Multicast"), summary);
        assert_eq!(header("Content-Type"), "text/plain");
        assert!(header("traceparent").starts_with("00-"));
        assert_eq!(headers.len(), 3);
    }
}

/// A consumer of the broker acknowledges by answering, as often and whatever it likes.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_receivers_confuse_nothing() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    let mut subscriber = subscribe(&client, "test.multicast.test.id-1").await;
    let answering = async {
        while let Some(received) = subscriber.next().await {
            let reply = received.reply.unwrap();
            let (group, _) = reply.rsplit_once('.').unwrap();
            for subject in [
                &*reply,
                group,
                &format!("{group}.0"),
                &format!("{group}.99"),
                &format!("{group}.x"),
            ] {
                client
                    .publish(Subject::from(subject), "ack".into())
                    .await
                    .unwrap();
            }
            client.flush().await.unwrap();
        }
    };
    let publishing = async {
        for _ in 0..100 {
            let outcomes = slot.publish_batch(&identities(3), message("x"), soon()).await;
            assert_eq!(
                outcomes,
                [Outcome::NoSubscriber, Outcome::Accepted, Outcome::NoSubscriber]
            );
        }
    };
    tokio::select! {
        () = answering => panic!("the subscription has ended"),
        () = publishing => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_publish_is_dropped_and_counted() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    let mut listener = listen(&slot, "a").await;
    let mut newer = HeaderMap::new();
    newer.insert("Prism-Multicast", "v=2");
    let mut broken = HeaderMap::new();
    broken.insert("Prism-Multicast", "v=1");
    let subject = "test.multicast.test.a";
    client.publish(subject, "boo".into()).await.unwrap();
    client
        .publish_with_headers(subject, newer, "boo".into())
        .await
        .unwrap();
    client
        .publish_with_headers(subject, broken, "boo".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    eventually(LONG, "all are counted", || async {
        let seen = slot.statistics();
        (seen.foreign_messages, seen.unreadable_messages) == (1, 2)
    })
    .await;
    assert_eq!(publish(&slot, "a", "ours").await, Outcome::Accepted);
    hears(&mut listener, "ours").await;
}

/// A stranger who speaks the protocol can send headers that async-nats takes for the end of the connection.
/// That costs this slot's listeners a gap, and nobody else anything: what is published is as certain as ever.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_cannot_be_read_spoil_no_verdict() {
    let server = NatsServer::start().await.unwrap();
    let (slot, elsewhere) = (open(&server.url()).await, open(&server.url()).await);
    let mut listener = listen(&slot, "a").await;
    let _other = listen(&elsewhere, "id-1").await;
    for poison in [
        "NATS/1.0\r\nPrism-Multicast v=1",
        "NATS/1.0 what?",
        "",
        "NATS/1.0\r\n\u{e9}: x",
    ] {
        let publishing = async {
            for _ in 0..50 {
                let outcomes = slot.publish_batch(&identities(3), message("x"), soon()).await;
                let expected = [Outcome::NoSubscriber, Outcome::Accepted, Outcome::NoSubscriber];
                assert_eq!(outcomes, expected, "{poison:?}");
            }
        };
        let ((), ()) = tokio::join!(publishing, send_raw(&server, "test.multicast.test.a", poison));
        let gap = Received::Gap {
            dropped: 0,
            reason: GapReason::Reconnected,
        };
        assert_eq!(next(&mut listener).await, gap, "{poison:?}");
        hears_again(&elsewhere, &mut listener).await;
    }
    assert_eq!(elsewhere.statistics().reconnections, 0);
}

/// Returns once a listener is back. Until the broker notices that the connection before is gone, it accepts messages
/// for that one.
async fn hears_again(elsewhere: &NatsMessaging, listener: &mut Listener) {
    let back = async {
        loop {
            if publish(elsewhere, "a", "heard").await != Outcome::Accepted {
                continue;
            }
            match timeout(SHORT, listener.next()).await {
                Ok(Some(Received::Message(_))) => return,
                Ok(other) => panic!("{other:?} instead of a message"),
                Err(_) => {}
            }
        }
    };
    timeout(LONG, back).await.expect("the listener is not back");
    assert_eq!(publish(elsewhere, "a", "last").await, Outcome::Accepted);
    while let Received::Message(message) = next(listener).await {
        if message.payload == "last" {
            return;
        }
    }
    panic!("a gap after it was back");
}

/// Publishes a message with these headers, however they are, and makes sure that the broker has it.
async fn send_raw(server: &NatsServer, subject: &str, headers: &str) {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let headers = format!("{headers}\r\n\r\n");
    let (size, total) = (headers.len(), headers.len() + 3);
    let words = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB {subject} {size} {total}\r\n{headers}boo\r\nPING\r\n"
    );
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    while timeout(LONG, lines.next_line()).await.unwrap().unwrap().unwrap() != "PONG" {}
}

/// Two runners and a word between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_session_hears_of_it_on_any_runner() {
    let server = NatsServer::start().await.unwrap();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let (mut on_one, mut on_other) = (listen(&one, "a").await, listen(&other, "a").await);
    for (publisher, session_seq) in [(&one, 1), (&other, u64::MAX)] {
        let sent = Message {
            kind: Kind::Superseded { session_seq },
            ..(*message("")).clone()
        };
        let outcomes = publisher
            .publish_batch(&[identity("a")], sent.clone().into(), soon())
            .await;
        assert!(all(&outcomes, |outcome| *outcome == Outcome::Accepted));
        for listener in [&mut on_one, &mut on_other] {
            assert_eq!(next(listener).await, Received::Message(sent.clone().into()));
        }
    }
}
