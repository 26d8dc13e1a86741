//! What was said holds, whatever happens on the way.

use std::{collections::HashMap, time::Duration};

use prism_slot::{DurableInbox, Expect, Ledger, MulticastId, Settled, Verdict, Write, Wrote};
use prism_slot_nats::{JetStreamInbox, JetStreamLedger};
use prism_testkit::{Direction, FaultProxy, Flow, NatsServer, eventually, seed};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{STORED, all, config, consumer, message, open, store, take};
use crate::{LONG, SHORT, soon};

async fn through(proxy: &FaultProxy) -> JetStreamInbox {
    open(&format!("nats://{}", proxy.addr())).await
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
