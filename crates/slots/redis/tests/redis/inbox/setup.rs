//! What is refused, at open and later, and what goes on.

use prism_slot::{DurableInbox, Enqueued, Error, InboxLimits, Verdict};
use prism_slot_redis::RedisInbox;
use prism_testkit::RedisServer;
use serde_json::json;

use super::{
    super::support::Admin,
    layout::{keys, number, stream_of},
    *,
};

/// Whatever of it a later version wrote.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_wrote_is_refused_and_left_alone() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let sent = message("x");
    store(&slot, "a", &sent).await;
    let consumer = consume(&slot, "a", 1).await;
    for (part, later) in [("head", &b"\x03"[..]), ("body", b"\x02")] {
        let later = fred::types::Value::Bytes(bytes::Bytes::from_static(later));
        let name = match part {
            "head" => key("head"),
            _ => keys(&admin)
                .await
                .into_iter()
                .find(|name| name.contains("body:"))
                .unwrap(),
        };
        let before = admin.run(&["GET", &name]).await;
        let change = vec![name.as_str().into(), 0.into(), later];
        admin.run_bytes("SETRANGE", change).await.unwrap();
        let refused = slot.fetch(&consumer, all(), soon()).await.unwrap_err();
        assert!(matches!(refused, Error::Unreadable { .. }), "{part}: {refused:?}");
        assert!(
            refused.to_string().contains("upgrade this runner"),
            "{part}: {refused}"
        );
        admin
            .run_bytes("SET", vec![name.as_str().into(), before])
            .await
            .unwrap();
    }
    admin.run(&["HSET", &key("sessions"), "b", "\u{2}later"]).await;
    let refused = slot.open(&super::consumer("b", 9), soon()).await.unwrap_err();
    assert!(matches!(refused, Error::Unreadable { .. }), "{refused:?}");
    admin
        .run(&[
            "HSET",
            &key(&format!("message:{}", sent.multicast)),
            "c",
            "\u{2}later",
        ])
        .await;
    let outcome = store(&slot, "c", &sent).await;
    assert!(
        !matches!(outcome, Enqueued::Stored { .. } | Enqueued::Duplicate),
        "{outcome:?}"
    );
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 1);
}

/// It did not count how many messages there are, by which inboxes are known not to be full.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_the_version_before_is_read() {
    let server = RedisServer::start().await.unwrap();
    let limits = InboxLimits {
        max_messages: 2,
        ..InboxLimits::default()
    };
    let slot = open_with(server.addr(), json!({}), limits).await;
    let admin = Admin::to(server.addr()).await;
    assert_eq!(store(&slot, "a", &message("1")).await, STORED);
    assert_eq!(store(&slot, "a", &message("2")).await, STORED);
    let head = admin.run(&["GET", &key("head")]).await.into_bytes().unwrap();
    let before = [b"\x01", &head[1..69], &head[77..]].concat();
    let change = vec![key("head").into(), fred::types::Value::Bytes(before.into())];
    admin.run_bytes("SET", change).await.unwrap();
    assert_eq!(store(&slot, "a", &message("3")).await, Enqueued::Full);
    assert_eq!(store(&slot, "b", &message("3")).await, STORED);
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_somebody_else_fails_alone() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    admin.run(&["SET", &stream_of("b"), "mine"]).await;
    let sent = message("x");
    let to = ["a", "b", "c"].map(address);
    let outcomes = slot.enqueue(&to, sent, terms(), soon()).await;
    assert!(
        matches!(
            &outcomes[..],
            [
                Enqueued::Stored { .. },
                Enqueued::NotStored(_),
                Enqueued::Stored { .. }
            ]
        ),
        "{outcomes:?}"
    );
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_keep_the_promises_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    let refused = RedisInbox::open(
        NAMESPACE,
        config(server.addr(), json!({})),
        InboxLimits::default(),
    )
    .await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Misconfigured {
                backend: "redis-stream",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("`noeviction`"), "{refused}");

    // Two namespaces whose names and prefixes add up to the same.
    let server = RedisServer::start().await.unwrap();
    let limits = InboxLimits::default();
    let one = config(server.addr(), json!({ "prefix": "a" }));
    RedisInbox::open("bc", one, limits).await.unwrap();
    let other = config(server.addr(), json!({ "prefix": "ab" }));
    let refused = RedisInbox::open("c", other, limits).await.unwrap_err();
    assert!(refused.to_string().contains("`bc`"), "{refused}");
}

/// Before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn every_missing_permission_is_named_at_open() {
    let server = RedisServer::start().await.unwrap();
    let admin = Admin::to(server.addr()).await;
    let user = ["ACL", "SETUSER", "runner", "reset", "on", ">secret", "~{prism:*"];
    let needed = [
        "+fcall",
        "+function|load",
        "+info",
        "+ping",
        "+client|id",
        "+cluster|info",
        "+get",
        "+set",
        "+mget",
        "+getrange",
        "+exists",
        "+unlink",
        "+time",
        "+@hash",
        "+@sortedset",
        "+@stream",
        "+@list",
    ];
    let login = || {
        config(
            server.addr(),
            json!({ "username": "runner", "password": "secret" }),
        )
    };
    for missing in [
        "fcall",
        "mget",
        "getrange",
        "exists",
        "unlink",
        "hincrby",
        "zunionstore",
        "xadd",
        "xdel",
        "lpop",
    ] {
        let change = format!("-{missing}");
        admin.run(&[&user[..], &needed, &[&change]].concat()).await;
        let refused = RedisInbox::open(NAMESPACE, login(), InboxLimits::default())
            .await
            .unwrap_err();
        let said = refused.to_string().to_lowercase();
        assert!(
            said.contains(missing) || said.contains("permissions to run"),
            "{said}"
        );
        assert_eq!(number(&admin, &["DBSIZE"]).await, 0, "without {missing}");
    }
    admin.run(&[&user[..], &needed].concat()).await;
    let slot = RedisInbox::open(NAMESPACE, login(), InboxLimits::default())
        .await
        .unwrap();
    let sent = message("x");
    assert_eq!(store(&slot, "a", &sent).await, STORED);
    let consumer = consume(&slot, "a", 1).await;
    assert_eq!(fetch(&slot, &consumer).await.deliveries.len(), 1);
    let reason = String::new();
    settle(&slot, &consumer, &sent, Verdict::Term { reason }).await;
    let consumer = consume(&slot, "a", 2).await;
    assert_eq!(fetch(&slot, &consumer).await.deliveries.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_refuses_what_grows_and_nothing_else() {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let (kept, acked) = (message("kept"), message("acked"));
    store(&slot, "a", &kept).await;
    store(&slot, "a", &acked).await;
    admin.run(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let outcome = store(&slot, "a", &message("x")).await;
    assert!(
        matches!(&outcome, Enqueued::NotStored(why) if why.contains("OOM")),
        "{outcome:?}"
    );
    let consumer = consume(&slot, "a", 1).await;
    assert_eq!(texts(&fetch(&slot, &consumer).await), ["kept", "acked"]);
    settle(&slot, &consumer, &acked, Verdict::Ack).await;
    assert_eq!(slot.depth(None, soon()).await.unwrap().messages, 1);
    admin.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(store(&slot, "a", &message("x")).await, STORED);
}
