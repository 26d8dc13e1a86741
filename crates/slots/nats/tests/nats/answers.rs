//! Consumers that listen at the broker themselves, and acknowledge by replying.

use std::sync::Arc;

use async_nats::{Client, Subject};
use bytes::Bytes;
use futures::StreamExt;
use prism_slot::{Arrival, Kind, Message, Messaging, MulticastId, Outcome, Post};
use prism_slot_nats::{NatsMessaging, escape};
use prism_testkit::{FaultProxy, NatsServer, eventually};
use tokio::time::timeout;

use crate::{LONG, SHORT, config, identity, message, open, plain, soon, subscribe};

/// A message whose answers are to come to `post`.
fn answerable(post: &Post) -> Arc<Message> {
    Arc::new(Message {
        receipts: Some(post.address().clone()),
        ..(*message("hello")).clone()
    })
}

async fn arrival(post: &mut Post) -> Arrival {
    timeout(LONG, post.next()).await.unwrap().unwrap()
}

fn answer(multicast: MulticastId, name: &str, body: &'static str) -> Arrival {
    Arrival::Answer {
        multicast,
        identity: identity(name),
        body: Bytes::from_static(body.as_bytes()),
    }
}

/// What says that everything before it has been looked at.
async fn nothing_more(slot: &NatsMessaging, post: &mut Post) {
    slot.probe(soon()).await.unwrap();
    let last = slot.send(post.address(), "last".into(), soon()).await;
    assert_eq!(last, Outcome::Accepted);
    assert_eq!(arrival(post).await, Arrival::Note("last".into()));
}

async fn send(client: &Client, subject: &str, body: &'static str) {
    let subject = Subject::from(subject);
    client.publish(subject, body.into()).await.unwrap();
    echo(client).await;
}

/// Returns when the broker has processed what this client sent.
async fn echo(client: &Client) {
    drop(subscribe(client, &client.new_inbox()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn replying_to_a_message_acknowledges_it() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    let long = "é".repeat(128);
    let names = ["a", "b.c", "* >", "user $1;%", &long];
    let mut consumers = Vec::new();
    for name in names {
        let subject = format!("test.multicast.test.{}", escape(name));
        consumers.push(subscribe(&client, &subject).await);
    }
    let mut post = slot.post(soon()).await.unwrap();
    let sent = answerable(&post);
    let targets = names.map(identity);
    let outcomes = slot.publish_batch(&targets, sent.clone(), soon()).await;
    assert_eq!(outcomes, [const { Outcome::Accepted }; 5]);
    for (name, consumer) in names.iter().zip(&mut consumers) {
        let received = timeout(LONG, consumer.next()).await.unwrap().unwrap();
        assert_eq!(received.payload, "hello");
        assert!(received.headers.unwrap().get("traceparent").is_some());
        for body in ["", "thanks"] {
            let reply = received.reply.clone().unwrap();
            client.publish(reply, body.into()).await.unwrap();
            assert_eq!(arrival(&mut post).await, answer(sent.multicast, name, body));
        }
    }
    nothing_more(&slot, &mut post).await;
}

/// The identity is known by a tag that its consumer alone was given.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_for_somebody_else() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    let mut eve = subscribe(&client, "test.multicast.test.eve").await;
    let _alice = subscribe(&client, "test.multicast.test.alice").await;
    let mut post = slot.post(soon()).await.unwrap();
    let sent = answerable(&post);
    let targets = ["eve", "alice"].map(identity);
    slot.publish_batch(&targets, sent.clone(), soon()).await;
    let reply = timeout(LONG, eve.next()).await.unwrap().unwrap().reply.unwrap();
    let (group, own) = reply.rsplit_once('.').unwrap();
    let (inbox, number) = group.rsplit_once('.').unwrap();
    let (_, tag) = own.split_once('-').unwrap();
    let next = number.parse::<u64>().unwrap() + 1;
    for forged in [
        format!("{group}.1-{tag}"),
        format!("{group}.1"),
        format!("{group}.0"),
        format!("{group}.7-{tag}"),
        format!("{inbox}.{next}.{own}"),
        format!("{inbox}.0.0-0"),
        format!("{group}.x-y"),
        inbox.to_owned(),
    ] {
        send(&client, &forged, "forged").await;
    }
    nothing_more(&slot, &mut post).await;
    send(&client, &reply, "own").await;
    assert_eq!(arrival(&mut post).await, answer(sent.multicast, "eve", "own"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_waits_for_go_nowhere() {
    let server = NatsServer::start().await.unwrap();
    let (slot, elsewhere) = (open(&server.url()).await, open(&server.url()).await);
    let client = plain(&server).await;
    let mut consumer = subscribe(&client, "test.multicast.test.a").await;
    let mut post = slot.post(soon()).await.unwrap();
    let (gone, foreign) = (
        slot.post(soon()).await.unwrap(),
        elsewhere.post(soon()).await.unwrap(),
    );
    let unasked = message("unasked");
    let sent = [unasked, answerable(&gone), answerable(&foreign)];
    drop(gone);
    for message in sent {
        let outcomes = slot.publish_batch(&[identity("a")], message, soon()).await;
        assert_eq!(outcomes, [Outcome::Accepted]);
        let reply = timeout(LONG, consumer.next()).await.unwrap().unwrap().reply;
        send(&client, &reply.unwrap(), "").await;
    }
    nothing_more(&slot, &mut post).await;
    // A target without a consumer is answered by the broker, which is no answer.
    let outcomes = slot
        .publish_batch(&[identity("nobody")], answerable(&post), soon())
        .await;
    assert_eq!(outcomes, [Outcome::NoSubscriber]);
    nothing_more(&slot, &mut post).await;
    slot.close().await;
    assert_eq!(timeout(LONG, post.next()).await.unwrap(), None);
}

/// As the crate's documentation says how.
#[tokio::test(flavor = "multi_thread")]
async fn words_between_runners_are_told_from_data() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    let mut consumer = subscribe(&client, "test.multicast.test.a").await;
    for (kind, is_data) in [
        (Kind::Payload, true),
        (Kind::Superseded { session_seq: 7 }, false),
    ] {
        let sent = Message {
            kind,
            reply_to: Some(";superseded=1".into()),
            ..(*message("")).clone()
        };
        slot.publish_batch(&[identity("a")], sent.into(), soon()).await;
        let received = timeout(LONG, consumer.next()).await.unwrap().unwrap();
        let headers = received.headers.unwrap();
        let about = headers.get("Prism-Multicast").unwrap().as_str();
        let is_word = about.contains(";superseded=");
        assert_eq!(!is_word, is_data, "{about}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_cannot_be_sent_say_so() {
    let mut server = NatsServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = NatsMessaging::open(
        "test",
        "test.multicast",
        config(&format!("nats://{}", proxy.addr())),
    )
    .await
    .unwrap();
    let other = NatsMessaging::open("other", "test.multicast", config(&server.url()))
        .await
        .unwrap();
    let (post, foreign) = (
        slot.post(soon()).await.unwrap(),
        other.post(soon()).await.unwrap(),
    );
    for address in ["$JS.API.INFO", "test.multicast.test.a", foreign.address(), ""] {
        let sent = slot.send(address, Bytes::new(), soon()).await;
        assert!(matches!(sent, Outcome::NotSent(_)), "{address}: {sent:?}");
    }
    proxy.black_hole();
    let sent = slot
        .send(post.address(), Bytes::new(), tokio::time::Instant::now() + SHORT)
        .await;
    assert!(matches!(sent, Outcome::Unknown(_)), "{sent:?}");
    proxy.heal();
    server.stop();
    eventually(LONG, "the loss is noticed", || async {
        matches!(
            slot.send(post.address(), Bytes::new(), soon()).await,
            Outcome::NotSent(_)
        )
    })
    .await;
    server.restart().await.unwrap();
    eventually(LONG, "the post is back", || async {
        slot.send(post.address(), Bytes::new(), soon()).await == Outcome::Accepted
    })
    .await;
}

/// Many at once share a connection.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_notes_all_arrive() {
    let server = NatsServer::start().await.unwrap();
    let (slot, elsewhere) = (open(&server.url()).await, open(&server.url()).await);
    let mut post = elsewhere.post(soon()).await.unwrap();
    for _ in 0..4 {
        let sending = (0..200_u8).map(|number| slot.send(post.address(), vec![number].into(), soon()));
        let outcomes = futures::future::join_all(sending).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted));
        let mut arrived = Vec::new();
        for _ in 0..200 {
            match arrival(&mut post).await {
                Arrival::Note(note) => arrived.push(note[0]),
                other => panic!("{other:?}"),
            }
        }
        arrived.sort_unstable();
        assert_eq!(arrived, (0..200).collect::<Vec<_>>());
    }
    assert_eq!(post.lost(), 0);
}
