//! Inboxes and ledgers in a cluster.

use prism_slot::{DurableInbox, Enqueued, Expect, InboxLimits, Ledger, Write};
use prism_slot_redis::{InboxConfig, RedisInbox, RedisLedger};
use serde_json::json;

use super::{
    super::{support::Admin, topology::cluster},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn inboxes_and_ledgers_live_on_every_node_of_a_cluster() {
    let nodes = cluster(3).await;
    for number in 0..6 {
        let settings =
            json!({ "address": nodes[number % 3].addr().to_string(), "cluster": true, "pool_size": 1 });
        let config: InboxConfig = serde_json::from_value(settings).unwrap();
        let namespace = format!("namespace-{number}");
        let ledger = RedisLedger::open(&namespace, config.connection()).await.unwrap();
        let inbox = RedisInbox::open(&namespace, config, InboxLimits::default())
            .await
            .unwrap();
        let sent = message("hello");
        let outcomes = inbox
            .enqueue(&addresses(300), sent.clone(), terms(), soon())
            .await;
        assert!(outcomes.iter().all(|outcome| *outcome == STORED));
        let consumer = consume(&inbox, "id-00007", 1).await;
        assert_eq!(fetch(&inbox, &consumer).await.deliveries[0].message, sent);
        let write = Write {
            key: "open/1".to_owned(),
            expect: Expect::Absent,
            body: Some("x".into()),
            ttl: SOON,
        };
        assert!(ledger.write(vec![write], soon()).await[0].is_ok());
        let read = ledger.read(vec!["open/1".to_owned()], soon()).await.unwrap();
        assert!(read[0].is_some());
    }
}

/// Its keys go one by one: a call that would find some of them here and some there does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_on_the_move_is_whole_or_not_there() {
    let nodes = cluster(2).await;
    let settings =
        json!({ "address": nodes[0].addr().to_string(), "cluster": true, "pool_size": 1, "max_retries": 0 });
    let config: InboxConfig = serde_json::from_value(settings).unwrap();
    let inbox = RedisInbox::open(NAMESPACE, config, InboxLimits::default())
        .await
        .unwrap();
    assert_eq!(store(&inbox, "a", &message("x")).await, STORED);
    let mut admins = Vec::new();
    for node in &nodes {
        admins.push(Admin::to(node.addr()).await);
    }
    let head = key("head");
    let keyslot = admins[0]
        .run(&["CLUSTER", "KEYSLOT", &head])
        .await
        .as_string()
        .unwrap();
    let owner = usize::from(admins[0].try_run(&["GET", &head]).await.is_err());
    let heir = admins[1 - owner]
        .run(&["CLUSTER", "MYID"])
        .await
        .as_string()
        .unwrap();
    let its_id = admins[owner].run(&["CLUSTER", "MYID"]).await.as_string().unwrap();
    admins[1 - owner]
        .run(&["CLUSTER", "SETSLOT", &keyslot, "IMPORTING", &its_id])
        .await;
    admins[owner]
        .run(&["CLUSTER", "SETSLOT", &keyslot, "MIGRATING", &heir])
        .await;
    // Of a new identity nothing is there, so that its keys are taken to be at the other node.
    let refused = store(&inbox, "b", &message("x")).await;
    assert!(!matches!(refused, Enqueued::Stored { .. }), "{refused:?}");
    admins[owner]
        .run(&["CLUSTER", "SETSLOT", &keyslot, "STABLE"])
        .await;
    let depth = inbox.depth(None, soon()).await.unwrap();
    assert_eq!(depth.messages, 1, "nothing was done by halves");
    assert_eq!(store(&inbox, "b", &message("x")).await, STORED);
}
