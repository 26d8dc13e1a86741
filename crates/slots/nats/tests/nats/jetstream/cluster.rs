//! Three servers that keep everything three times.

use std::time::Duration;

use prism_slot::{
    DurableInbox, Enqueued, Error, Expect, InboxLimits, Ledger, Settled, Verdict, Write, Wrote,
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox, JetStreamLedger};
use prism_testkit::{NatsServer, eventually, eventually_some};
use tokio::time::Instant;

use super::{STORED, addresses, all, config, consumer, message, store, take, terms};
use crate::{cluster::cluster_with, soon};

/// Elections take their time.
pub(super) const ELECTION: Duration = Duration::from_secs(40);
/// Whoever asks a stream that has no leader gets no answer, and asks again.
const ATTEMPT: Duration = Duration::from_secs(2);

fn shortly() -> Instant {
    Instant::now() + ATTEMPT
}

/// Whatever server is gone, what was stored is there, and nothing that was settled comes again.
#[tokio::test(flavor = "multi_thread")]
async fn any_one_server_may_go() {
    let mut nodes = cluster_with("jetstream: enabled").await;
    let replicated = JetStreamConfig {
        servers: nodes.iter().map(NatsServer::url).collect(),
        replicas: 3,
        timeout: Duration::from_secs(5),
        ..config("")
    };
    let slot = eventually_some(ELECTION, "the cluster works", || async {
        let opened = JetStreamInbox::open("test", replicated.clone(), InboxLimits::default()).await;
        opened.ok()
    })
    .await;
    let ledger = JetStreamLedger::open("test", replicated).await.unwrap();
    let (addresses, mut version) = (addresses(100), 0);
    for (round, gone) in (1_u64..).zip(0..nodes.len()) {
        let sent = message(&round.to_string());
        eventually(ELECTION, "all of it is stored", || async {
            let outcomes = slot.enqueue(&addresses, sent.clone(), terms(), shortly()).await;
            outcomes
                .iter()
                .all(|outcome| [STORED, Enqueued::Duplicate].contains(outcome))
        })
        .await;
        version = kept(&ledger, version).await;
        nodes[gone].stop();
        eventually(ELECTION, "the others go on", || async {
            slot.probe(Instant::now() + Duration::from_secs(1)).await.is_ok()
        })
        .await;
        for address in &addresses {
            let again = eventually_some(ELECTION, "it is known", || async {
                match store(&slot, address.identity.as_str(), &sent, shortly()).await {
                    Enqueued::Unknown(_) | Enqueued::NotStored(_) => None,
                    known => Some(known),
                }
            });
            assert_eq!(again.await, Enqueued::Duplicate);
        }
        let name = addresses[0].identity.as_str();
        let deliveries = eventually_some(ELECTION, "it can be fetched", || async {
            let consumer = consumer(name, round);
            slot.open(&consumer, shortly()).await.ok()?;
            let fetched = slot.fetch(&consumer, all(), shortly()).await.ok()?;
            Some(fetched.deliveries).filter(|deliveries| !deliveries.is_empty())
        })
        .await;
        assert_eq!(deliveries.len(), 1, "those before it are settled");
        assert_eq!(deliveries[0].message, sent);
        let verdicts = vec![(sent.multicast, Verdict::Ack)];
        let settled = slot.settle(&consumer(name, round), verdicts, soon()).await;
        assert_eq!(settled.as_deref(), Ok(&[Settled::Done][..]));
        nodes[gone].restart().await.unwrap();
    }
    assert_eq!(
        take(&slot, addresses[1].identity.as_str(), 1).await.len(),
        nodes.len()
    );
}

/// As on one server: what is there is known before it is looked for room.
#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_removes_nothing_from_replicas() {
    let nodes = cluster_with("jetstream: enabled").await;
    let replicated = JetStreamConfig {
        replicas: 3,
        timeout: Duration::from_secs(5),
        ..config(&nodes[0].url())
    };
    let open = async |max_messages| {
        let limits = InboxLimits {
            max_messages,
            ..InboxLimits::default()
        };
        eventually_some(ELECTION, "the cluster works", || async {
            let opened = JetStreamInbox::open("test", replicated.clone(), limits).await;
            opened.ok()
        })
        .await
    };
    let slot = open(3).await;
    let sent = [message("1"), message("2"), message("3")];
    for message in &sent {
        eventually(ELECTION, "it is stored", || async {
            let stored = store(&slot, "a", message, soon()).await;
            [STORED, Enqueued::Duplicate].contains(&stored)
        })
        .await;
    }
    let slot = open(2).await;
    for message in &sent {
        assert_eq!(store(&slot, "a", message, soon()).await, Enqueued::Duplicate);
    }
    for name in ["a", "b"] {
        let expected: &[Enqueued] = match name {
            "a" => &[Enqueued::Full, Enqueued::Full],
            _ => &[STORED, STORED, Enqueued::Full],
        };
        for expected in expected {
            assert_eq!(store(&slot, name, &message("x"), soon()).await, *expected);
        }
    }
    assert_eq!(take(&slot, "a", 1).await.len(), 3);
}

/// Writes an entry that has this version, and reads it back; the version then.
async fn kept(ledger: &JetStreamLedger, version: u64) -> u64 {
    let write = || Write {
        key: "open/a".to_owned(),
        expect: if version == 0 {
            Expect::Absent
        } else {
            Expect::Version(version)
        },
        body: Some("x".into()),
        ttl: Duration::from_secs(600),
    };
    let read = || async {
        let read = ledger.read(vec!["open/a".to_owned()], shortly()).await;
        Ok::<_, Error>(read?.remove(0))
    };
    let before = eventually_some(ELECTION, "the ledger is read", || async { read().await.ok() });
    assert_eq!(before.await.map_or(0, |entry| entry.version), version);
    let Ok(Wrote::Done(done)) = ledger.write(vec![write()], soon()).await.remove(0) else {
        panic!("nobody else writes");
    };
    assert_eq!(read().await.unwrap().map(|entry| entry.version), Some(done));
    let again = ledger.write(vec![write()], soon()).await.remove(0);
    assert!(matches!(again, Ok(Wrote::Conflict(Some(_)))), "{again:?}");
    done
}
