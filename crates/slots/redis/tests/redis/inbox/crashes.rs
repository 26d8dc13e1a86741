//! The server ends, and an inbox is as it was afterwards.

use prism_slot::{DurableInbox, Enqueued, Error, InboxLimits, Verdict};
use prism_testkit::{RedisServer, eventually};
use serde_json::json;

use super::*;

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
