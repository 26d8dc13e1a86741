//! What was said holds, whatever happens on the way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use prism_slot::{
    Address, DurableInbox, Enqueued, Expect, Ledger, Message, MulticastId, Settled, Verdict, Write, Wrote,
};
use prism_slot_nats::{JetStreamInbox, JetStreamLedger};
use prism_testkit::{Direction, FaultProxy, Flow, NatsServer, eventually, seed};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{STORED, addresses, all, config, consumer, message, open, store, take, terms};
use crate::{GRACE, LONG, SHORT, soon};

async fn through(proxy: &FaultProxy) -> JetStreamInbox {
    open(&format!("nats://{}", proxy.addr())).await
}

/// What one store of a message in many inboxes said of each.
type Said = Vec<(Arc<Message>, Vec<Address>, Vec<Enqueued>)>;

/// Stores what is not known again, until it is, and holds what was said against what is there.
async fn holds(said: Said, slot: &JetStreamInbox) {
    let mut expected: HashMap<String, Vec<MulticastId>> = HashMap::new();
    for (message, addresses, outcomes) in said {
        for (address, outcome) in addresses.iter().zip(outcomes) {
            let name = address.identity.as_str();
            let is_there = match outcome {
                Enqueued::Stored { .. } => true,
                Enqueued::Unknown(_) => {
                    resolved(slot, name, &message).await;
                    true
                }
                Enqueued::NotStored(_) => false,
                other => panic!("{other:?} of a message that was not stored before"),
            };
            if is_there {
                expected
                    .entry(name.to_owned())
                    .or_default()
                    .push(message.multicast);
            } else {
                expected.entry(name.to_owned()).or_default();
            }
        }
    }
    for (name, mut expected) in expected {
        let mut found: Vec<MulticastId> = take(slot, &name, 1)
            .await
            .iter()
            .map(|delivery| delivery.message.multicast)
            .collect();
        expected.sort_by_key(|multicast| multicast.0);
        found.sort_by_key(|multicast| multicast.0);
        assert_eq!(found, expected, "{name}");
    }
}

/// Stores a message that may have been stored before.
async fn resolved(slot: &JetStreamInbox, name: &str, message: &Arc<Message>) {
    eventually(LONG, "it is known", || async {
        match store(slot, name, message, soon()).await {
            STORED | Enqueued::Duplicate => true,
            Enqueued::Unknown(_) | Enqueued::NotStored(_) => false,
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_leaves_stores_unknown_and_calls_end_in_time() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slot = through(&proxy).await;
    let mut said = Said::new();
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Flow::Hold);
        let (message, addresses) = (message("lost"), addresses(100));
        let begun = Instant::now();
        let outcomes = slot
            .enqueue(&addresses, message.clone(), terms(), begun + SHORT)
            .await;
        assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Enqueued::Unknown(_))),
            "{outcomes:?}"
        );
        said.push((message, addresses, outcomes));
        let begun = Instant::now();
        let deadline = begun + SHORT;
        let consumer = consumer("id-0", 1);
        let (open, fetch, probe) = tokio::join!(
            slot.open(&consumer, deadline),
            slot.fetch(&consumer, all(), deadline),
            slot.probe(deadline)
        );
        assert!(open.is_err() && fetch.is_err() && probe.is_err());
        assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
        proxy.heal();
        eventually(LONG, "the slot works again", || async {
            slot.probe(soon()).await.is_ok()
        })
        .await;
    }
    holds(said, &slot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_leaves_stores_unknown() {
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    server.freeze().unwrap();
    let (message, addresses) = (message("lost"), addresses(10));
    let begun = Instant::now();
    let outcomes = slot
        .enqueue(&addresses, message.clone(), terms(), begun + SHORT)
        .await;
    assert!(begun.elapsed() < SHORT + GRACE, "{:?}", begun.elapsed());
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Enqueued::Unknown(_))),
        "{outcomes:?}"
    );
    server.thaw().unwrap();
    holds(vec![(message, addresses, outcomes)], &slot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_in_the_middle_loses_nothing_that_was_stored() {
    let mut random = StdRng::seed_from_u64(seed());
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let (slot, steady) = (through(&proxy).await, open(&server.url()).await);
    let mut said = Said::new();
    for _ in 0..8 {
        let (message, addresses) = (message(&"x".repeat(2_000)), addresses(1_500));
        let pause = Duration::from_micros(random.random_range(0..20_000));
        let (outcomes, ()) = tokio::join!(
            slot.enqueue(&addresses, message.clone(), terms(), soon()),
            async {
                sleep(pause).await;
                proxy.cut();
            }
        );
        said.push((message, addresses, outcomes));
        eventually(LONG, "the slot works again", || async {
            slot.probe(soon()).await.is_ok()
        })
        .await;
    }
    let unknown = said.iter().flat_map(|(_, _, outcomes)| outcomes);
    let unknown = unknown
        .filter(|outcome| matches!(outcome, Enqueued::Unknown(_)))
        .count();
    assert!(unknown > 0, "no cut hit anything");
    holds(said, &steady).await;
}

/// Whatever was acknowledged is in the server's files.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_keeps_what_it_acknowledged() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    let mut said = Said::new();
    for _ in 0..5 {
        let (message, addresses) = (message(&"x".repeat(500)), addresses(1_000));
        let pause = Duration::from_micros(random.random_range(0..15_000));
        let (outcomes, ()) = tokio::join!(
            slot.enqueue(&addresses, message.clone(), terms(), soon()),
            async {
                sleep(pause).await;
                server.stop();
            }
        );
        said.push((message, addresses, outcomes));
        server.restart().await.unwrap();
        eventually(LONG, "the slot works again", || async {
            slot.probe(soon()).await.is_ok()
        })
        .await;
    }
    holds(said, &slot).await;
}

/// A consumer that takes and gives back while links are cut and the server is killed: no attempt is handed out twice,
/// and an acknowledged message never again.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_never_go_back() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let slots = [through(&proxy).await, open(&server.url()).await];
    let sent: Vec<_> = (0..20).map(|number| message(&number.to_string())).collect();
    for message in &sent {
        assert_eq!(store(&slots[1], "a", message, soon()).await, STORED);
    }
    let mut attempts: HashMap<MulticastId, u32> = HashMap::new();
    let mut acked: Vec<MulticastId> = Vec::new();
    for round in 1..40_u64 {
        let (slot, consumer) = (&slots[random.random_range(0..2_usize)], consumer("a", round));
        eventually(LONG, "the slot works again", || async {
            slot.probe(soon()).await.is_ok()
        })
        .await;
        let disturbance = random.random_range(0..4_u32);
        let pause = Duration::from_micros(random.random_range(0..3_000));
        let working = async {
            if slot.open(&consumer, Instant::now() + SHORT).await.is_err() {
                return Vec::new();
            }
            let fetched = slot.fetch(&consumer, all(), Instant::now() + SHORT).await;
            fetched.map_or_else(|_| Vec::new(), |fetched| fetched.deliveries)
        };
        let (deliveries, ()) = tokio::join!(working, async {
            sleep(pause).await;
            match disturbance {
                0 => proxy.cut(),
                1 => server.stop(),
                2 => proxy.black_hole(),
                _ => {}
            }
        });
        proxy.heal();
        if disturbance == 1 {
            server.restart().await.unwrap();
        }
        for delivery in deliveries {
            let multicast = delivery.message.multicast;
            let before = attempts.insert(multicast, delivery.attempt).unwrap_or_default();
            assert!(
                delivery.attempt > before,
                "round {round}: {} after {before}",
                delivery.attempt
            );
            assert!(
                !acked.contains(&multicast),
                "round {round}: handed out after it was settled"
            );
            if random.random_bool(0.1) {
                let verdicts = vec![(multicast, Verdict::Ack)];
                let settled = slot.settle(&consumer, verdicts, Instant::now() + SHORT).await;
                if settled.as_deref() == Ok(&[Settled::Done]) {
                    acked.push(multicast);
                }
            }
        }
    }
    eventually(LONG, "all is well", || async {
        slots[1].probe(soon()).await.is_ok()
    })
    .await;
    let left: Vec<MulticastId> = take(&slots[1], "a", 100)
        .await
        .iter()
        .map(|delivery| delivery.message.multicast)
        .collect();
    assert!(left.iter().all(|multicast| !acked.contains(multicast)));
    assert!(left.len() + acked.len() <= sent.len());
    assert!(
        attempts.values().any(|attempt| *attempt > 3),
        "hardly anything was fetched: {attempts:?}"
    );
}

/// Of a write whose answer was lost, reading tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_write_without_an_answer_is_unknown_and_an_answered_one_is_there() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut server = NatsServer::start_with_jetstream().await.unwrap();
    let proxy = FaultProxy::start(server.addr()).await.unwrap();
    let ledger = JetStreamLedger::open("test", config(&format!("nats://{}", proxy.addr())))
        .await
        .unwrap();
    let mut version = 0;
    let mut body = Vec::new();
    for round in 0..30_u8 {
        let expect = if version == 0 {
            Expect::Absent
        } else {
            Expect::Version(version)
        };
        let write = Write {
            key: "open/a".to_owned(),
            expect,
            body: Some(vec![round].into()),
            ttl: Duration::from_secs(600),
        };
        let disturbance = random.random_range(0..4_u32);
        let pause = Duration::from_micros(random.random_range(0..1_500));
        let (mut written, ()) = tokio::join!(ledger.write(vec![write], Instant::now() + SHORT), async {
            sleep(pause).await;
            match disturbance {
                0 => proxy.cut(),
                1 => server.stop(),
                2 => proxy.set(Direction::ToClient, Flow::Hold),
                _ => {}
            }
        });
        proxy.heal();
        if disturbance == 1 {
            server.restart().await.unwrap();
        }
        let read = prism_testkit::eventually_some(LONG, "it can be read", || async {
            ledger.read(vec!["open/a".to_owned()], soon()).await.ok()
        });
        let found = read.await.remove(0);
        let found_version = found.as_ref().map_or(0, |entry| entry.version);
        let found_body = found.map(|entry| entry.body.to_vec()).unwrap_or_default();
        match written.remove(0) {
            Ok(Wrote::Done(done)) => assert_eq!((found_version, &found_body), (done, &vec![round])),
            Ok(conflict @ Wrote::Conflict(_)) => panic!("{conflict:?} with nobody else there"),
            Err(error) if error.applied() == prism_slot::Applied::No => {
                assert_eq!((found_version, &found_body), (version, &body), "{error:?}");
            }
            Err(_) => assert!([&vec![round], &body].contains(&&found_body)),
        }
        (version, body) = (found_version, found_body);
    }
    assert!(version > 0);
}
