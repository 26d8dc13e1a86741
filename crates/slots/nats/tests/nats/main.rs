//! The slot on a real broker, with faults between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first surprise"
)]

mod answers;
mod cluster;
mod floors;
mod jetstream;
mod listening;
mod opening;
mod outcomes;
mod wire;

use std::{sync::Arc, time::Duration};

use async_nats::Subject;
use bytes::Bytes;
use futures::StreamExt;
use prism_slot::{Identity, Listener, Message, Messaging, MulticastId, Outcome, Received, Timestamp};
use prism_slot_nats::{Config, NatsMessaging};
use prism_testkit::NatsServer;
use tokio::time::{Instant, timeout};

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(10);
/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(300);
/// How much later than its deadline a call may return on a busy machine.
const GRACE: Duration = Duration::from_millis(400);

fn soon() -> Instant {
    Instant::now() + LONG
}

fn config(url: &str) -> Config {
    Config {
        servers: vec![url.to_owned()],
        reconnect_wait: Duration::from_millis(20),
        ..Config::default()
    }
}

async fn open(url: &str) -> NatsMessaging {
    NatsMessaging::open("test", "test.multicast", config(url))
        .await
        .unwrap()
}

fn identity(name: impl AsRef<str>) -> Identity {
    Identity::new(name).unwrap()
}

fn identities(count: usize) -> Vec<Identity> {
    (0..count)
        .map(|number| identity(format!("id-{number}")))
        .collect()
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        content_type: "text/plain".into(),
        published_at: Timestamp(1_700_000_000_123),
        headers: vec![(
            "traceparent".into(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        )],
        ..Message::new(MulticastId::random(), text.to_owned())
    })
}

async fn listen(slot: &NatsMessaging, name: &str) -> Listener {
    slot.listen(&identity(name), soon()).await.unwrap()
}

async fn publish(slot: &NatsMessaging, name: &str, text: &str) -> Outcome {
    let mut outcomes = slot.publish_batch(&[identity(name)], message(text), soon()).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

async fn next(listener: &mut Listener) -> Received {
    timeout(LONG, listener.next())
        .await
        .expect("nothing was received")
        .expect("the listener has ended")
}

async fn hears(listener: &mut Listener, text: &str) {
    match next(listener).await {
        Received::Message(message) => assert_eq!(message.payload, text.as_bytes()),
        gap @ Received::Gap { .. } => panic!("{gap:?} instead of `{text}`"),
    }
}

fn all(outcomes: &[Outcome], expected: impl Fn(&Outcome) -> bool) -> bool {
    !outcomes.is_empty() && outcomes.iter().all(expected)
}

fn is_unknown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(_))
}

fn is_not_sent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotSent(_))
}

async fn plain(server: &NatsServer) -> async_nats::Client {
    async_nats::connect(server.url()).await.unwrap()
}

/// Subscribes and makes sure that the broker knows.
async fn subscribe(client: &async_nats::Client, subject: &str) -> async_nats::Subscriber {
    let subscriber = client.subscribe(Subject::from(subject)).await.unwrap();
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, Bytes::new()).await.unwrap();
    timeout(LONG, echo.next()).await.unwrap().unwrap();
    subscriber
}
