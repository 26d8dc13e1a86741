//! Replicas that lag: what they do not have is not gone.

use std::time::Duration;

use futures::future::join_all;
use prism_slot::{DeadQuery, Delivery, DurableInbox, InboxLimits, Redriven, Settled, Verdict};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox};
use prism_testkit::{eventually, eventually_some};
use serde_json::{Value, json};

use super::{STORED, address, all, cluster::ELECTION, config, consumer, message, store, terms};
use crate::{cluster::cluster_with, identity, soon};

/// How many of those who are asked lag, besides one that does not.
const LAGGING: usize = 6;

async fn ask(client: &async_nats::Client, subject: String, body: &Value) -> Value {
    let body = serde_json::to_vec(body).unwrap().into();
    let answer = client.request(subject, body).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Has direct questions to a stream answered by those who have nothing of it yet, too: mirrors that miss everything stand
/// for replicas that are behind.
async fn lag(client: &async_nats::Client, stream: &str) {
    let stream = format!("prism%2Equeue%-test%-{stream}");
    for number in 0..LAGGING {
        let name = format!("{stream}-{number}");
        let mirror = json!({
            "name": name, "num_replicas": 3, "mirror_direct": true,
            "mirror": { "name": stream, "filter_subject": "prism.queue.test.nothing" },
        });
        eventually(ELECTION, "there is a mirror", || async {
            let made = ask(client, format!("$JS.API.STREAM.CREATE.{name}"), &mirror).await;
            made["error"].is_null() || made["error"]["err_code"] == 10_058
        })
        .await;
    }
    // Whoever has nothing of it answers all that is asked of it, so this ends when they do.
    let missing = json!({ "seq": 1 });
    eventually(ELECTION, "they answer", || async {
        let questions = (0..LAGGING * 4).map(|_| {
            let body = serde_json::to_vec(&missing).unwrap().into();
            client.request(format!("$JS.API.DIRECT.GET.{stream}"), body)
        });
        let answers = join_all(questions).await;
        let is_missing = |answer: &Result<async_nats::Message, _>| {
            answer.as_ref().is_ok_and(|answer| answer.status.is_some())
        };
        answers.iter().filter(|answer| is_missing(answer)).count() > LAGGING * 2
    })
    .await;
}

async fn fetch(slot: &JetStreamInbox, name: &str) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    loop {
        let fetched = slot.fetch(&consumer(name, 1), all(), soon()).await.unwrap();
        deliveries.extend(fetched.deliveries);
        if !fetched.more {
            return deliveries;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_lacks_is_not_gone() {
    let nodes = cluster_with("jetstream: enabled").await;
    let replicated = JetStreamConfig {
        replicas: 3,
        timeout: Duration::from_secs(5),
        ..config(&nodes[0].url())
    };
    let slot = eventually_some(ELECTION, "the cluster works", || async {
        let opened = JetStreamInbox::open("test", replicated.clone(), InboxLimits::default()).await;
        opened.ok()
    })
    .await;
    // Something that there is to ask for.
    let first = message("first");
    eventually(ELECTION, "it is stored", || async {
        store(&slot, "first", &first, soon()).await == STORED
    })
    .await;
    let client = crate::plain(&nodes[0]).await;
    lag(&client, "messages").await;
    for round in 0..4 {
        let name = format!("id-{round}");
        what_is_stored_is_handed_out(&slot, &name).await;
        what_dies_is_a_dead_letter(&slot, &name).await;
        what_comes_before_something_cancelled_is_handed_out(&slot, &name).await;
        let discarded = slot.discard(&address(&name), soon()).await.unwrap();
        assert_eq!(discarded.dropped.len(), 1);
    }
    lag_of_dead_letters(&slot, &client).await;
}

/// Now, and again when it is due again.
async fn what_is_stored_is_handed_out(slot: &JetStreamInbox, name: &str) {
    for text in ["1", "2", "3"] {
        assert_eq!(store(slot, name, &message(text), soon()).await, STORED);
    }
    slot.open(&consumer(name, 1), soon()).await.unwrap();
    for attempt in 1..4 {
        let deliveries = fetch(slot, name).await;
        let attempts: Vec<u32> = deliveries.iter().map(|delivery| delivery.attempt).collect();
        assert_eq!(attempts, [attempt; 3], "{name}");
        let again = Verdict::Nack {
            delay: Duration::ZERO,
        };
        settle(slot, name, &deliveries, &again).await;
    }
}

async fn settle(slot: &JetStreamInbox, name: &str, deliveries: &[Delivery], verdict: &Verdict) {
    let verdicts = deliveries.iter().map(|delivery| delivery.message.multicast);
    let verdicts: Vec<_> = verdicts.map(|multicast| (multicast, verdict.clone())).collect();
    let settled = slot.settle(&consumer(name, 1), verdicts, soon()).await.unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Done));
}

async fn what_dies_is_a_dead_letter(slot: &JetStreamInbox, name: &str) {
    let before = slot.depth(None, soon()).await.unwrap().dead;
    let deliveries = fetch(slot, name).await;
    let dies = Verdict::Term {
        reason: "no".to_owned(),
    };
    settle(slot, name, &deliveries, &dies).await;
    let depth = slot.depth(Some(&identity(name)), soon()).await.unwrap();
    assert_eq!((depth.messages, depth.dead), (0, 3), "{name}");
    assert_eq!(slot.depth(None, soon()).await.unwrap().dead, before + 3);
}

async fn what_comes_before_something_cancelled_is_handed_out(slot: &JetStreamInbox, name: &str) {
    let (first, second) = (message("first"), message("second"));
    for message in [&first, &second] {
        assert_eq!(store(slot, name, message, soon()).await, STORED);
    }
    let cancelled = slot.cancel(second.multicast, &[identity(name)], soon()).await;
    assert_eq!(cancelled, [Ok(true)], "{name}");
    let deliveries = fetch(slot, name).await;
    assert_eq!(deliveries.len(), 1, "{name}");
    assert_eq!(deliveries[0].message, first);
}

/// They are listed, and go back.
async fn lag_of_dead_letters(slot: &JetStreamInbox, client: &async_nats::Client) {
    lag(client, "dead").await;
    let query = DeadQuery {
        identity: Some(identity("id-0")),
        limit: 10,
        ..DeadQuery::default()
    };
    let mut letters = Vec::new();
    loop {
        let after = letters.last().map(|letter: &prism_slot::DeadLetter| letter.id);
        let query = DeadQuery {
            after,
            ..query.clone()
        };
        let page = slot.dead_letters(query, soon()).await.unwrap();
        letters.extend(page.letters);
        if !page.more {
            break;
        }
    }
    assert_eq!(letters.len(), 3);
    let back = letters
        .iter()
        .map(|letter| (letter.id, address("id-0")))
        .collect();
    let redriven = slot.redrive(back, terms(), soon()).await;
    assert_eq!(redriven, Ok(vec![Redriven::Back; 3]));
}
