//! The durability slot: what its conformance suite cannot know.

mod bounds;
mod cluster;
mod crashes;
mod faults;
mod layout;
mod oracle;
mod setup;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prism_slot::{
    Address, Consumer, DurableInbox, Enqueued, Epoch, Fetch, Fetched, Holder, InboxLimits, Message,
    MulticastId, Priority, Settled, Terms, Timestamp, Verdict,
};
use prism_slot_redis::{InboxConfig, RedisInbox};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::support::{Admin, NAMESPACE, SOON, identity};

const STORED: Enqueued = Enqueued::Stored { displaced: None };

fn config(addr: SocketAddr, more: Json) -> InboxConfig {
    let mut settings = json!({ "address": addr.to_string() });
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    serde_json::from_value(settings).unwrap()
}

async fn open(addr: SocketAddr) -> RedisInbox {
    open_with(addr, json!({}), InboxLimits::default()).await
}

async fn open_with(addr: SocketAddr, more: Json, limits: InboxLimits) -> RedisInbox {
    RedisInbox::open(NAMESPACE, config(addr, more), limits)
        .await
        .unwrap()
}

fn soon() -> Instant {
    within(Duration::from_secs(5))
}

fn within(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// A key of the namespace's inboxes.
fn key(part: &str) -> String {
    format!("{{prism:{NAMESPACE}}}:inbox:{part}")
}

fn address(name: &str) -> Address {
    Address {
        identity: identity(name),
        holder: Holder([1; 16]),
    }
}

fn addresses(count: usize) -> Vec<Address> {
    (0..count)
        .map(|number| address(&format!("id-{number:05}")))
        .collect()
}

fn consumer(name: &str, session_seq: u64) -> Consumer {
    Consumer {
        address: address(name),
        epoch: Epoch(7),
        session_seq,
    }
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message {
        published_at: Timestamp(1_700_000_000_123),
        receipts: Some("here".into()),
        ..Message::new(MulticastId::random(), text.to_owned())
    })
}

fn terms() -> Terms {
    Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    }
}

fn all() -> Fetch {
    Fetch {
        max_messages: 100,
        max_bytes: 1 << 20,
        ack_timeout: Duration::from_secs(30),
        max_deliver: 10,
    }
}

async fn store(slot: &RedisInbox, name: &str, message: &Arc<Message>) -> Enqueued {
    store_until(slot, name, message, soon()).await
}

async fn store_until(slot: &RedisInbox, name: &str, message: &Arc<Message>, deadline: Instant) -> Enqueued {
    let mut outcomes = slot
        .enqueue(&[address(name)], message.clone(), terms(), deadline)
        .await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// Makes a session the consumer.
async fn consume(slot: &RedisInbox, name: &str, session_seq: u64) -> Consumer {
    let consumer = consumer(name, session_seq);
    slot.open(&consumer, soon()).await.unwrap();
    consumer
}

async fn fetch(slot: &RedisInbox, consumer: &Consumer) -> Fetched {
    slot.fetch(consumer, all(), soon()).await.unwrap()
}

async fn settle(slot: &RedisInbox, consumer: &Consumer, message: &Message, verdict: Verdict) -> Settled {
    let verdicts = vec![(message.multicast, verdict)];
    slot.settle(consumer, verdicts, soon()).await.unwrap()[0]
}

fn texts(fetched: &Fetched) -> Vec<String> {
    let text =
        |delivery: &prism_slot::Delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap();
    fetched.deliveries.iter().map(text).collect()
}

/// Where the clock is in the head: now, and the server's clock at the last call.
const CLOCK: i64 = 1;

/// Sets the clock, and what the server's was when it stood there.
async fn set_clock(admin: &Admin, namespace: &str, now: i64, seen: i64) {
    let fields = [now, seen]
        .map(|time| u64::try_from(time).unwrap().to_be_bytes())
        .concat();
    let head = format!("{{prism:{namespace}}}:inbox:head");
    let arguments = vec![
        head.into(),
        CLOCK.into(),
        fred::types::Value::Bytes(fields.into()),
    ];
    admin.run_bytes("SETRANGE", arguments).await.unwrap();
}

/// Where the clock stands, and what the server's was then.
async fn clock(admin: &Admin) -> (i64, i64) {
    let head = admin.run(&["GET", &key("head")]).await.into_bytes().unwrap();
    let field = |at: usize| i64::from_be_bytes(head[at..at + 8].try_into().unwrap());
    (field(CLOCK as usize), field(CLOCK as usize + 8))
}

/// Lets time go by for the namespace.
async fn pass(admin: &Admin, by: Duration) {
    let (now, seen) = clock(admin).await;
    set_clock(admin, NAMESPACE, now, seen - by.as_millis() as i64).await;
}
