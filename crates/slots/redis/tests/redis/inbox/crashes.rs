//! The server is killed at some moment, and what it had promised to keep is there afterwards.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use prism_slot::{DurableInbox, Enqueued, Error, InboxLimits, Settled, Verdict};
use prism_slot_redis::RedisInbox;
use prism_testkit::{RedisServer, eventually, seed};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::*;

const INBOXES: usize = 8;
const KILLS: usize = 6;

/// What was said of a message for an inbox.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Stored,
    NotStored,
    Unknown,
    /// It was acknowledged, perhaps.
    Acknowledging,
    Acknowledged,
}

/// What all callers were told.
#[derive(Default)]
struct Told {
    messages: Mutex<BTreeMap<(usize, u128), Said>>,
    /// The highest attempt that was seen.
    attempts: Mutex<BTreeMap<(usize, u128), u32>>,
    stop: AtomicBool,
}

fn name(inbox: usize) -> String {
    format!("id-{inbox}")
}

impl Told {
    fn say(&self, inbox: usize, id: u128, said: Said) {
        self.messages.lock().insert((inbox, id), said);
    }

    /// Stores in all inboxes, as long as it may.
    async fn store(&self, slot: &RedisInbox) {
        let to: Vec<Address> = (0..INBOXES).map(|inbox| address(&name(inbox))).collect();
        while !self.stop.load(Ordering::Relaxed) {
            let sent = message("x");
            for inbox in 0..INBOXES {
                self.say(inbox, sent.multicast.0, Said::Unknown);
            }
            let limit = Duration::from_millis(700);
            let outcomes = slot.enqueue(&to, sent.clone(), terms(), within(limit)).await;
            for (inbox, outcome) in outcomes.into_iter().enumerate() {
                let said = match outcome {
                    Enqueued::Stored { .. } => Said::Stored,
                    Enqueued::NotStored(_) => Said::NotStored,
                    Enqueued::Unknown(_) => Said::Unknown,
                    other => panic!("{other:?}"),
                };
                // Somebody may have had it in hand already.
                let mut messages = self.messages.lock();
                let known = messages.entry((inbox, sent.multicast.0)).or_insert(said);
                if *known == Said::Unknown {
                    *known = said;
                }
            }
        }
    }

    /// Takes messages out and acknowledges some, as long as it may.
    async fn consume(&self, slot: &RedisInbox, inbox: usize, mut random: StdRng) {
        let consumer = consumer(&name(inbox), 1);
        let hasty = Fetch {
            max_messages: 5,
            ack_timeout: Duration::from_millis(50),
            max_deliver: u32::MAX,
            ..all()
        };
        let limit = || within(Duration::from_millis(700));
        while !self.stop.load(Ordering::Relaxed) {
            let fetched = match slot.fetch(&consumer, hasty, limit()).await {
                Ok(fetched) => fetched,
                Err(Error::Fenced(_)) => {
                    let _ = slot.open(&consumer, limit()).await;
                    continue;
                }
                Err(_) => continue,
            };
            for delivery in &fetched.deliveries {
                let id = delivery.message.multicast;
                self.seen(inbox, id.0, delivery.attempt);
                if random.random_bool(0.5) {
                    continue;
                }
                self.say(inbox, id.0, Said::Acknowledging);
                let settled = slot.settle(&consumer, vec![(id, Verdict::Ack)], limit()).await;
                if settled.is_ok_and(|settled| settled == [Settled::Done]) {
                    self.say(inbox, id.0, Said::Acknowledged);
                }
            }
            if fetched.deliveries.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn seen(&self, inbox: usize, id: u128, attempt: u32) {
        let said = self.messages.lock().get(&(inbox, id)).copied();
        assert_ne!(said, Some(Said::NotStored), "it was said not to be stored");
        assert_ne!(said, Some(Said::Acknowledged), "it was acknowledged");
        let before = self.attempts.lock().insert((inbox, id), attempt);
        assert!(
            before.is_none_or(|before| attempt > before),
            "{before:?}, then {attempt}"
        );
    }

    /// Compares with what is there, and finds out what was unknown.
    async fn check(&self, slot: &RedisInbox) {
        for inbox in 0..INBOXES {
            let consumer = consume(slot, &name(inbox), 2).await;
            let mut there = BTreeMap::new();
            loop {
                // However often it was handed out.
                let fetch = Fetch {
                    max_deliver: u32::MAX,
                    ..all()
                };
                let fetched = slot.fetch(&consumer, fetch, soon()).await.unwrap();
                for delivery in &fetched.deliveries {
                    let id = delivery.message.multicast.0;
                    self.seen(inbox, id, delivery.attempt);
                    assert_eq!(there.insert(id, delivery.message.clone()), None);
                }
                if !fetched.more {
                    break;
                }
            }
            let said = self.messages.lock().clone();
            for ((_, id), said) in said.into_iter().filter(|((whose, _), _)| *whose == inbox) {
                match said {
                    Said::Stored => assert!(there.contains_key(&id), "what was stored is gone"),
                    Said::NotStored => assert!(!there.contains_key(&id)),
                    _ => {}
                }
            }
            for sent in there.into_values() {
                assert_eq!(store(slot, &name(inbox), &sent).await, Enqueued::Duplicate);
            }
        }
    }
}

/// Redis writes to its disk before it answers.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_outlives_kills_at_any_moment() {
    let mut random = StdRng::seed_from_u64(seed());
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = RedisServer::start_with(&options).await.unwrap();
    let limits = InboxLimits {
        max_messages: 1_000_000,
        ..InboxLimits::default()
    };
    let slot = open_with(server.addr(), json!({ "pool_timeout": "200ms" }), limits).await;
    let told = Told::default();
    let kill = async {
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(random.random_range(50..400))).await;
            server.restart().await.unwrap();
            eventually(SOON, "the slot works again", || async {
                slot.probe(soon()).await.is_ok()
            })
            .await;
        }
        told.stop.store(true, Ordering::Relaxed);
    };
    let consumers = (0..INBOXES).map(|inbox| told.consume(&slot, inbox, StdRng::seed_from_u64(inbox as u64)));
    let consumers = futures::future::join_all(consumers);
    tokio::join!(kill, told.store(&slot), told.store(&slot), consumers);
    let count = |wanted: Said| {
        told.messages
            .lock()
            .values()
            .filter(|said| **said == wanted)
            .count()
    };
    assert!(
        count(Said::Stored) + count(Said::Acknowledged) > 100,
        "it got somewhere"
    );
    told.check(&slot).await;
}

/// The time that the server was down counts: what lived no longer than that is gone, and told.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_outlives_a_restart_as_it_was() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut server = RedisServer::start_with(&options).await.unwrap();
    let slot = open_with(server.addr(), json!({}), InboxLimits::default()).await;
    let (acked, out, dead, waiting) = (
        message("acked"),
        message("out"),
        message("dead"),
        message("waiting"),
    );
    for sent in [&acked, &out, &dead] {
        store(&slot, "a", sent).await;
    }
    let consumer = consume(&slot, "a", 3).await;
    assert_eq!(fetch(&slot, &consumer).await.deliveries.len(), 3);
    settle(&slot, &consumer, &acked, Verdict::Ack).await;
    let reason = "no".to_owned();
    settle(&slot, &consumer, &dead, Verdict::Term { reason }).await;
    store(&slot, "a", &waiting).await;
    server.restart().await.unwrap();
    eventually(SOON, "the slot works again", || async {
        slot.probe(soon()).await.is_ok()
    })
    .await;
    assert_eq!(
        texts(&fetch(&slot, &consumer).await),
        ["waiting"],
        "it still is the consumer"
    );
    let depth = slot.depth(Some(&identity("a")), soon()).await.unwrap();
    assert_eq!((depth.messages, depth.out, depth.dead), (2, Some(2), 1));
    assert_eq!(store(&slot, "a", &acked).await, Enqueued::Duplicate);
    let earlier = slot.open(&super::consumer("a", 2), soon()).await;
    assert_eq!(earlier, Err(Error::Fenced(identity("a"))));
    let next = consume(&slot, "a", 4).await;
    let fetched = fetch(&slot, &next).await;
    let attempts: Vec<_> = fetched
        .deliveries
        .iter()
        .map(|delivery| delivery.attempt)
        .collect();
    assert_eq!(
        (texts(&fetched), attempts),
        (vec!["out".into(), "waiting".into()], vec![2, 2])
    );
}
