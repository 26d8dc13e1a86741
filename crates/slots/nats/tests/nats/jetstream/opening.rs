//! Opening durability: what is needed, and what is said where it is not there.

use std::time::Duration;

use bytes::Bytes;
use prism_slot::{
    DurableInbox, Enqueued, Error, InboxLimits, Ledger, Message, MulticastId, Overflow, Settled, Verdict,
    capability::Survives,
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox, JetStreamLedger, Storage};
use prism_testkit::{NatsServer, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use super::{STORED, address, all, config, consumer, message, open, store, take};
use crate::{LONG, identity, plain, soon};

async fn misconfigured(config: JetStreamConfig, parts: &[&str]) {
    let inbox = JetStreamInbox::open("test", config.clone(), InboxLimits::default()).await;
    let ledger = JetStreamLedger::open("test", config).await;
    for error in [inbox.unwrap_err(), ledger.unwrap_err()] {
        assert!(matches!(error, Error::Misconfigured { .. }), "{error:?}");
        let said = error.to_string();
        for part in parts {
            assert!(said.contains(part), "`{said}` does not say `{part}`");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_told_how_to_enable_it() {
    let server = NatsServer::start().await.unwrap();
    misconfigured(config(&server.url()), &["JetStream is not enabled", "`-js`"]).await;
}

/// As an old server greets.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_is_refused_with_both_versions() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let info =
                    r#"{"server_id":"x","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576}"#;
                write
                    .write_all(format!("INFO {info}\r\n").as_bytes())
                    .await
                    .unwrap();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("PING") && write.write_all(b"PONG\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    misconfigured(config(&url), &["2.9.10", "2.11 or newer"]).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_not_use_jetstream_is_told_what_to_allow() {
    for allowed in [r#""_INBOX.>""#, r#""_INBOX.>", "$JS.API.>""#] {
        let rules = format!(
            "jetstream: enabled, authorization {{ users: [{{ user: u, password: p, permissions: {{ publish: [{allowed}] }} }}] }}"
        );
        let server = NatsServer::start_with(&rules).await.unwrap();
        let config = JetStreamConfig {
            timeout: Duration::from_secs(1),
            ..config(&server.url().replace("://", "://u:p@"))
        };
        misconfigured(config, &["$JS.API.>", "prism.queue.test.>", "_INBOX.>"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_cannot_do_is_said_in_their_words() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let replicated = JetStreamConfig {
        replicas: 3,
        ..config(&server.url())
    };
    misconfigured(replicated, &["replicas > 1 not supported"]).await;
    JetStreamLedger::open("test", config(&server.url()))
        .await
        .unwrap();
    let slot = open(&server.url()).await;
    assert_eq!(slot.capability().survives, Survives::BackendRestart);
    let in_memory = JetStreamConfig {
        storage: Storage::Memory,
        ..config(&server.url())
    };
    misconfigured(in_memory, &["`storage`", "-"]).await;
}

/// The next opening's limits hold, for both.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_limits_hold() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let limited = |max_messages, overflow| InboxLimits {
        max_messages,
        overflow,
        ..InboxLimits::default()
    };
    let open = async |limits| {
        JetStreamInbox::open("test", config(&server.url()), limits)
            .await
            .unwrap()
    };
    let first = open(limited(2, Overflow::Reject)).await;
    for expected in [STORED, STORED, Enqueued::Full] {
        assert_eq!(store(&first, "a", &message("x"), soon()).await, expected);
    }
    let second = open(limited(3, Overflow::Reject)).await;
    for slot in [&first, &second] {
        slot.probe(soon()).await.unwrap();
    }
    assert_eq!(store(&first, "a", &message("x"), soon()).await, STORED);
    assert_eq!(store(&second, "a", &message("x"), soon()).await, Enqueued::Full);
    let third = open(limited(3, Overflow::DropOldest)).await;
    assert_eq!(store(&first, "a", &message("newest"), soon()).await, STORED);
    assert_eq!(texts(&third, "a", 1).await, ["x", "x", "newest"]);
}

/// What is over it stays, and is in the way of what is new; the server is told when it would remove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_of_the_next_opening_removes_nothing() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let client = plain(&server).await;
    let told = async || {
        let subject = "$JS.API.STREAM.INFO.prism%2Equeue%-test%-messages";
        let info = client.request(subject, "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        info["config"]["max_msgs_per_subject"].as_u64().unwrap()
    };
    let open = async |max_messages| {
        let limits = InboxLimits {
            max_messages,
            ..InboxLimits::default()
        };
        JetStreamInbox::open("test", config(&server.url()), limits)
            .await
            .unwrap()
    };
    let higher = open(9).await;
    for text in ["1", "2", "3"] {
        assert_eq!(store(&higher, "a", &message(text), soon()).await, STORED);
    }
    for _ in 0..2 {
        let lower = open(2).await;
        assert_eq!(told().await, 9);
        assert_eq!(store(&lower, "a", &message("x"), soon()).await, Enqueued::Full);
        assert_eq!(texts(&lower, "a", 1).await, ["1", "2", "3"]);
        for expected in [STORED, STORED, Enqueued::Full] {
            assert_eq!(store(&lower, "b", &message("x"), soon()).await, expected);
        }
        lower.discard(&address("b"), soon()).await.unwrap();
        lower.close().await;
    }
    higher.discard(&address("a"), soon()).await.unwrap();
    for text in ["1", "2"] {
        for name in ["c", "d", "e"] {
            assert_eq!(store(&higher, name, &message(text), soon()).await, STORED);
        }
    }
    // Others could store more until the server is told.
    open(3).await;
    assert_eq!(told().await, 9);
    open(4).await;
    assert_eq!(told().await, 4);
    for expected in [STORED, STORED, Enqueued::Full] {
        assert_eq!(store(&higher, "c", &message("x"), soon()).await, expected);
    }
}

/// What is handed out of an inbox.
async fn texts(slot: &JetStreamInbox, name: &str, session_seq: u64) -> Vec<Bytes> {
    let deliveries = take(slot, name, session_seq).await.into_iter();
    deliveries
        .map(|delivery| delivery.message.payload.clone())
        .collect()
}

/// Also those who work on an inbox go on: whoever was fenced stays so.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_removed_is_made_again() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    let client = plain(&server).await;
    for round in 1..4_u64 {
        for number in 0..5 {
            let sent = message(&format!("{round}.{number}"));
            eventually(LONG, "it is stored", || async {
                store(&slot, "a", &sent, soon()).await == STORED
            })
            .await;
        }
        let deliveries = take(&slot, "a", round).await;
        assert_eq!(deliveries.len(), 5);
        assert!(deliveries.iter().all(|delivery| delivery.attempt == 1));
        let gone = client
            .request("$JS.API.STREAM.DELETE.prism%2Equeue%-test%-messages", "".into())
            .await
            .unwrap();
        assert!(gone.payload.windows(7).any(|part| part == b"success"));
    }
    let earlier = slot.open(&consumer("a", 1), soon()).await;
    assert!(matches!(earlier, Err(Error::Fenced(_))), "{earlier:?}");
}

/// Each goes on with what the other has done, whoever has made them again.
#[tokio::test(flavor = "multi_thread")]
async fn runners_agree_on_streams_that_a_server_has_lost() {
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    for slot in [&one, &other] {
        let sent = message("lost");
        assert_eq!(store(slot, "a", &sent, soon()).await, STORED);
        assert_eq!(take(slot, "a", 1).await.len(), 1);
        slot.settle(&consumer("a", 1), acked(&sent), soon())
            .await
            .unwrap();
    }
    server.restart_empty().await.unwrap();
    for (worker, settler) in [(&other, &one), (&one, &other)] {
        let sent = message("new");
        eventually(LONG, "it is stored", || async {
            store(&one, "a", &sent, soon()).await == STORED
        })
        .await;
        // All that was lost has been made again by one of them, both are connected, and none has looked at what is the
        // other's.
        for (name, slot) in [("b", &one), ("c", &other)] {
            eventually(LONG, "it works", || async {
                slot.open(&consumer(name, 1), soon()).await.is_ok()
            })
            .await;
        }
        assert_eq!(take(worker, "a", 1).await.len(), 1);
        let settled = settler.settle(&consumer("a", 1), acked(&sent), soon()).await;
        assert_eq!(settled.as_deref(), Ok(&[Settled::Done][..]));
        assert_eq!(take(worker, "a", 1).await.len(), 0);
    }
}

/// Nobody's connection was lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn runners_agree_on_a_stream_that_somebody_has_removed() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let client = plain(&server).await;
    client
        .request("$JS.API.STREAM.DELETE.prism%2Equeue%-test%-messages", "".into())
        .await
        .unwrap();
    let sent = message("new");
    eventually(LONG, "it is stored", || async {
        store(&one, "a", &sent, soon()).await == STORED
    })
    .await;
    assert_eq!(take(&one, "a", 1).await.len(), 1);
    let depth = other.depth(Some(&identity("a")), soon()).await.unwrap();
    assert_eq!(depth.out, Some(1));
    let settled = other.settle(&consumer("a", 1), acked(&sent), soon()).await;
    assert_eq!(settled.as_deref(), Ok(&[Settled::Done][..]));
}

fn acked(message: &Message) -> Vec<(MulticastId, Verdict)> {
    vec![(message.multicast, Verdict::Ack)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_in_memory_outlives_the_runner_and_not_the_server() {
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let in_memory = JetStreamConfig {
        storage: Storage::Memory,
        ..config(&server.url())
    };
    let open = async || {
        let opened = JetStreamInbox::open("test", in_memory.clone(), InboxLimits::default()).await;
        opened.unwrap()
    };
    let slot = open().await;
    assert_eq!(slot.capability().survives, Survives::RunnerRestart);
    let ledger = JetStreamLedger::open("test", in_memory.clone()).await.unwrap();
    assert_eq!(ledger.capability().survives, Survives::RunnerRestart);
    assert_eq!(store(&slot, "a", &message("kept"), soon()).await, STORED);
    slot.close().await;
    let again = open().await;
    assert_eq!(take(&again, "a", 1).await.len(), 1);
    server.restart().await.unwrap();
    let sent = message("new");
    eventually(LONG, "the slot works again", || async {
        matches!(
            store(&again, "a", &sent, soon()).await,
            STORED | Enqueued::Duplicate
        )
    })
    .await;
    // The session went with the server.
    assert!(again.fetch(&consumer("a", 1), all(), soon()).await.is_err());
    assert_eq!(take(&again, "a", 2).await.len(), 1);
}
