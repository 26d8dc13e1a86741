//! The ledger: what its conformance suite cannot know.

use std::{net::SocketAddr, time::Duration};

use fred::types::Value;
use futures::future::join_all;
use prism_slot::{Entry, Error, Expect, Ledger, Write, Wrote};
use prism_slot_redis::{ConnectionConfig, RedisLedger};
use prism_testkit::{RedisServer, eventually};
use serde_json::json;
use tokio::time::Instant;

use super::support::{Admin, NAMESPACE, SOON};

async fn open(addr: SocketAddr) -> RedisLedger {
    let config: ConnectionConfig =
        serde_json::from_value(json!({ "address": addr.to_string(), "max_retries": 0 })).unwrap();
    RedisLedger::open(NAMESPACE, config).await.unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn key(part: &str) -> String {
    format!("{{prism:{NAMESPACE}}}:ledger:{part}")
}

fn write(key: &str, text: &str, expect: Expect) -> Write {
    Write {
        key: key.to_owned(),
        expect,
        body: Some(text.to_owned().into()),
        ttl: Duration::from_secs(3_600),
    }
}

async fn put(ledger: &RedisLedger, write: Write) -> Result<Wrote, Error> {
    ledger.write(vec![write], soon()).await.remove(0)
}

async fn get(ledger: &RedisLedger, key: &str) -> Option<Entry> {
    ledger.read(vec![key.to_owned()], soon()).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_each_change_is_kept() {
    let server = RedisServer::start().await.unwrap();
    let (one, other) = (open(server.addr()).await, open(server.addr()).await);
    put(&one, write("count", "0", Expect::Absent)).await.unwrap();
    let writers = (0..20).map(|number| {
        let ledger = if number % 2 == 0 { &one } else { &other };
        async move {
            for _ in 0..10 {
                loop {
                    let entry = get(ledger, "count").await.unwrap();
                    let count: u32 = std::str::from_utf8(&entry.body).unwrap().parse().unwrap();
                    let next = write("count", &(count + 1).to_string(), Expect::Version(entry.version));
                    if let Wrote::Done(_) = put(ledger, next).await.unwrap() {
                        break;
                    }
                }
            }
        }
    });
    join_all(writers).await;
    assert_eq!(get(&one, "count").await.unwrap().body, "200");
}

/// Nothing is left of what has ended, and nothing that has not is lost from the list.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_forgotten() {
    let server = RedisServer::start().await.unwrap();
    let (ledger, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let brief = |number: usize| Write {
        ttl: Duration::from_millis(100),
        ..write(&format!("brief/{number:04}"), "x", Expect::Absent)
    };
    for outcome in ledger.write((0..1_000).map(brief).collect(), soon()).await {
        assert!(matches!(outcome, Ok(Wrote::Done(_))), "{outcome:?}");
    }
    put(&ledger, write("stays", "x", Expect::Absent)).await.unwrap();
    eventually(SOON, "they have ended", || async {
        get(&ledger, "brief/0999").await.is_none()
    })
    .await;
    let listed = ledger.list(String::new(), None, 10, soon()).await.unwrap();
    assert_eq!((listed.keys, listed.more), (vec!["stays".to_owned()], false));
    let again = (0..1_000).map(|number| write(&format!("long/{number:04}"), "x", Expect::Absent));
    for outcome in ledger.write(again.collect(), soon()).await {
        assert!(matches!(outcome, Ok(Wrote::Done(_))), "{outcome:?}");
    }
    for part in ["keys", "ends"] {
        let count = admin.run(&["ZCARD", &key(part)]).await.as_u64();
        assert_eq!(count, Some(1_001), "{part}");
    }
    let all = ledger
        .list("long/".to_owned(), None, 2_000, soon())
        .await
        .unwrap();
    assert_eq!((all.keys.len(), all.more), (1_000, false));
    let gone = Write {
        body: None,
        ..write("stays", "", Expect::Anything)
    };
    assert_eq!(put(&ledger, gone).await, Ok(Wrote::Done(0)));
    assert_eq!(admin.run(&["ZCARD", &key("keys")]).await.as_u64(), Some(1_000));
}

/// More than one answer carries.
#[tokio::test(flavor = "multi_thread")]
async fn large_entries_are_read_in_parts() {
    let server = RedisServer::start_with(&["--slowlog-log-slower-than", "20000"])
        .await
        .unwrap();
    let (ledger, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    let text = "x".repeat(700_000);
    let keys: Vec<String> = (0..20).map(|number| format!("large/{number}")).collect();
    let writes = keys.iter().map(|key| write(key, &text, Expect::Absent)).collect();
    assert!(ledger.write(writes, soon()).await.iter().all(Result::is_ok));
    admin.run(&["CONFIG", "RESETSTAT"]).await;
    let read = ledger.read(keys, soon()).await.unwrap();
    assert!(read.iter().all(|entry| entry.as_ref().unwrap().body == text));
    let stats = admin.info("commandstats", "cmdstat_fcall").await;
    assert!(stats.starts_with("calls=10,"), "two at a time: {stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_wrote_is_refused_and_left_alone() {
    let server = RedisServer::start().await.unwrap();
    let (ledger, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    put(&ledger, write("a", "x", Expect::Absent)).await.unwrap();
    let later = || Value::Bytes(bytes::Bytes::from_static(b"\x02"));
    for name in [key("entry:a"), key("head")] {
        let change = vec![name.as_str().into(), 0.into(), later()];
        admin.run_bytes("SETRANGE", change).await.unwrap();
        let refused = put(&ledger, write("a", "y", Expect::Absent)).await.unwrap_err();
        assert!(matches!(refused, Error::Unreadable { .. }), "{name}: {refused:?}");
    }
    let read = ledger.read(vec!["a".to_owned()], soon()).await.unwrap_err();
    assert!(read.to_string().contains("upgrade this runner"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_few_permissions_and_is_told_which() {
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
        "+getrange",
        "+exists",
        "+unlink",
        "+time",
        "+@sortedset",
    ];
    let login = || -> ConnectionConfig {
        let address = server.addr().to_string();
        serde_json::from_value(json!({ "address": address, "username": "runner", "password": "secret" }))
            .unwrap()
    };
    admin.run(&[&user[..], &needed, &["-zrem"]].concat()).await;
    let refused = RedisLedger::open(NAMESPACE, login())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("`zrem`"), "{refused}");
    admin.run(&[&user[..], &needed].concat()).await;
    let ledger = RedisLedger::open(NAMESPACE, login()).await.unwrap();
    put(&ledger, write("a", "x", Expect::Absent)).await.unwrap();
    assert_eq!(
        ledger.list(String::new(), None, 1, soon()).await.unwrap().keys,
        ["a"]
    );
}
