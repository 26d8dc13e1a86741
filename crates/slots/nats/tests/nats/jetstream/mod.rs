//! Durability on a real JetStream, with faults between.

mod cluster;
mod faults;
mod forgetting;
mod lagging;
mod moves;
mod opening;
mod oracle;
mod races;

use std::{sync::Arc, time::Duration};

use prism_slot::{
    Address, Consumer, Delivery, DurableInbox, Enqueued, Epoch, Fetch, Holder, InboxLimits, Message,
    MulticastId, Priority, Terms,
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox};
use tokio::time::Instant;

use crate::{identity, soon};

const STORED: Enqueued = Enqueued::Stored { displaced: None };

fn config(url: &str) -> JetStreamConfig {
    JetStreamConfig {
        servers: vec![url.to_owned()],
        reconnect_wait: Duration::from_millis(20),
        ..JetStreamConfig::default()
    }
}

async fn open(url: &str) -> JetStreamInbox {
    JetStreamInbox::open("test", config(url), InboxLimits::default())
        .await
        .unwrap()
}

fn address(name: &str) -> Address {
    Address {
        identity: identity(name),
        holder: Holder([7; 16]),
    }
}

fn addresses(count: usize) -> Vec<Address> {
    (0..count)
        .map(|number| address(&format!("id-{number}")))
        .collect()
}

fn consumer(name: &str, session_seq: u64) -> Consumer {
    Consumer {
        address: address(name),
        epoch: Epoch(1),
        session_seq,
    }
}

fn terms() -> Terms {
    Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    }
}

fn all() -> Fetch {
    Fetch {
        max_messages: 1_000,
        max_bytes: 16 << 20,
        ack_timeout: Duration::from_secs(60),
        max_deliver: 1_000,
    }
}

fn message(text: &str) -> Arc<Message> {
    Arc::new(Message::new(MulticastId::random(), text.to_owned()))
}

async fn store(slot: &JetStreamInbox, name: &str, message: &Arc<Message>, deadline: Instant) -> Enqueued {
    let mut outcomes = slot
        .enqueue(&[address(name)], message.clone(), terms(), deadline)
        .await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// Makes a session the consumer and takes everything.
async fn take(slot: &JetStreamInbox, name: &str, session_seq: u64) -> Vec<Delivery> {
    let consumer = consumer(name, session_seq);
    slot.open(&consumer, soon()).await.unwrap();
    slot.fetch(&consumer, all(), soon()).await.unwrap().deliveries
}
