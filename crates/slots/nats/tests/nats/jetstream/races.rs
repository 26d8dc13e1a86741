//! Several runners at one inbox.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::join_all;
use prism_slot::{
    Delivery, Discarded, DurableInbox, Error, Fetch, InboxLimits, MulticastId, Priority, Settled, Terms,
    Verdict,
};
use prism_slot_nats::JetStreamInbox;
use prism_testkit::{NatsServer, eventually};

use super::{STORED, address, all, config, consumer, message, open, store, take, terms};
use crate::{identity, soon};

/// Sessions take over from one another in the middle of everything: each attempt is handed out once.
#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_is_handed_out_twice() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slots = [
        open(&server.url()).await,
        open(&server.url()).await,
        open(&server.url()).await,
    ];
    for number in 0..30 {
        assert_eq!(
            store(&slots[0], "a", &message(&number.to_string()), soon()).await,
            STORED
        );
    }
    let few = Fetch {
        max_messages: 7,
        ack_timeout: Duration::from_millis(1),
        ..all()
    };
    let working = (0..24_u64).map(|number| {
        let (slot, consumer) = (
            &slots[usize::try_from(number % 3).unwrap()],
            consumer("a", number / 2),
        );
        async move {
            let mut handed_out = Vec::new();
            if slot.open(&consumer, soon()).await.is_err() {
                return handed_out;
            }
            for _ in 0..5 {
                match slot.fetch(&consumer, few, soon()).await {
                    Ok(fetched) => handed_out.extend(fetched.deliveries),
                    Err(Error::Fenced(_)) => break,
                    Err(error) => panic!("{error:?}"),
                }
            }
            handed_out
        }
    });
    let handed_out: Vec<_> = join_all(working).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = handed_out
        .iter()
        .map(|delivery| (delivery.message.multicast, delivery.attempt))
        .collect();
    assert_eq!(distinct.len(), handed_out.len());
    assert!(handed_out.len() > 30, "{}", handed_out.len());
}

/// One runner forgets nothing that another one has changed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_remembers_is_never_taken_for_what_is() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let (first, second) = (message("1"), message("2"));
    store(&one, "a", &first, soon()).await;
    assert_eq!(take(&one, "a", 1).await.len(), 1);
    assert_eq!(take(&other, "a", 2).await[0].attempt, 2);
    let fenced = Err(Error::Fenced(identity("a")));
    let ack = vec![(first.multicast, Verdict::Ack)];
    assert_eq!(
        one.fetch(&consumer("a", 1), all(), soon()).await.map(drop),
        fenced
    );
    // Also where there is nothing to hand out, and nothing to say.
    assert_eq!(
        one.settle(&consumer("a", 1), Vec::new(), soon()).await.map(drop),
        fenced
    );
    assert_eq!(
        one.settle(&consumer("a", 1), ack.clone(), soon()).await.map(drop),
        fenced
    );
    let settled = other.settle(&consumer("a", 2), ack, soon()).await;
    assert_eq!(settled.as_deref(), Ok(&[Settled::Done][..]));
    store(&other, "a", &second, soon()).await;
    assert_eq!(take(&one, "a", 3).await.len(), 1);
    let earlier = other.fetch(&consumer("a", 2), all(), soon()).await;
    assert_eq!(earlier.map(drop), fenced);
}

/// Either it is handed out, or it is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_both_handed_out_and_taken_back() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let mut outcomes = HashMap::<bool, u32>::new();
    for round in 0..60 {
        let name = format!("id-{round}");
        let sent = message("x");
        store(&one, &name, &sent, soon()).await;
        // Sometimes nobody was ever there.
        if round % 3 > 0 {
            one.open(&consumer(&name, 1), soon()).await.unwrap();
        }
        let consuming = async {
            if round % 3 == 0 {
                one.open(&consumer(&name, 1), soon()).await.unwrap();
            }
            one.fetch(&consumer(&name, 1), all(), soon())
                .await
                .unwrap()
                .deliveries
                .len()
        };
        let names = [identity(&name)];
        let (handed_out, cancelled) = tokio::join!(consuming, other.cancel(sent.multicast, &names, soon()));
        let cancelled = cancelled[0].clone().unwrap();
        assert_eq!(handed_out, usize::from(!cancelled), "round {round}");
        *outcomes.entry(cancelled).or_default() += 1;
    }
    println!("{outcomes:?}");
}

/// Those in front of it too, and nothing that waits.
#[tokio::test(flavor = "multi_thread")]
async fn many_acknowledged_at_once_leave_the_others() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    let sent: Vec<_> = (0..60).map(|number| message(&number.to_string())).collect();
    for (number, message) in sent.iter().enumerate() {
        let priority = [Priority::High, Priority::Normal, Priority::Low][number % 3];
        let terms = Terms { priority, ..terms() };
        let outcomes = slot
            .enqueue(&[address("a")], message.clone(), terms, soon())
            .await;
        assert_eq!(outcomes, [STORED]);
    }
    let fetch = Fetch {
        max_messages: 50,
        ..all()
    };
    slot.open(&consumer("a", 1), soon()).await.unwrap();
    let fetched = slot.fetch(&consumer("a", 1), fetch, soon()).await.unwrap();
    let kept: Vec<MulticastId> = [3, 25, 41]
        .map(|number| fetched.deliveries[number].message.multicast)
        .into();
    let verdicts: Vec<_> = fetched
        .deliveries
        .iter()
        .map(|delivery| delivery.message.multicast)
        .filter(|multicast| !kept.contains(multicast))
        .map(|multicast| (multicast, Verdict::Ack))
        .collect();
    let settled = slot.settle(&consumer("a", 1), verdicts, soon()).await.unwrap();
    assert!(settled.len() == 47 && settled.iter().all(|settled| *settled == Settled::Done));
    let depth = slot.depth(Some(&identity("a")), soon()).await.unwrap();
    assert_eq!((depth.messages, depth.out), (13, Some(3)));
    let again: HashSet<MulticastId> = take(&slot, "a", 2)
        .await
        .iter()
        .map(|delivery| delivery.message.multicast)
        .collect();
    assert_eq!(again.len(), 13);
    assert!(kept.iter().all(|multicast| again.contains(multicast)));
}

/// A record has room for so much; what waits for room is neither passed over nor kept from it by what was cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_record_loses_nothing() {
    // Room for 51 messages.
    let server = NatsServer::start_with("jetstream: enabled, max_payload: 8192")
        .await
        .unwrap();
    let slot = open(&server.url()).await;
    let (name, consumer) = ([identity("a")], consumer("a", 1));
    slot.open(&consumer, soon()).await.unwrap();
    let (waits, cancelled) = (message("waits"), message("cancelled"));
    for message in [&waits, &cancelled] {
        assert_eq!(store(&slot, "a", message, soon()).await, STORED);
    }
    let taken_back = slot.cancel(cancelled.multicast, &name, soon()).await;
    assert_eq!(taken_back, [Ok(true)]);
    let urgent = Terms {
        priority: Priority::High,
        ..terms()
    };
    for number in 0..60 {
        let sent = message(&number.to_string());
        let outcomes = slot.enqueue(&[address("a")], sent, urgent, soon()).await;
        assert_eq!(outcomes, [STORED]);
    }
    let fetch = Fetch {
        max_messages: 50,
        ..all()
    };
    let first = slot.fetch(&consumer, fetch, soon()).await.unwrap();
    assert_eq!((first.deliveries.len(), first.more), (50, true));
    let full = slot.fetch(&consumer, fetch, soon()).await.unwrap();
    assert_eq!((full.deliveries.len(), full.more), (0, false));
    let acked = |deliveries: &[Delivery]| -> Vec<_> {
        let multicasts = deliveries.iter().map(|delivery| delivery.message.multicast);
        multicasts.map(|multicast| (multicast, Verdict::Ack)).collect()
    };
    slot.settle(&consumer, acked(&first.deliveries), soon())
        .await
        .unwrap();
    let rest = slot.fetch(&consumer, fetch, soon()).await.unwrap().deliveries;
    assert_eq!(rest.len(), 11);
    assert_eq!(rest[10].message, waits);
    slot.settle(&consumer, acked(&rest), soon()).await.unwrap();

    assert_eq!(store(&slot, "a", &message("waits, too"), soon()).await, STORED);
    let mut refused = 0;
    for number in 0..60 {
        let sent = message(&number.to_string());
        assert_eq!(store(&slot, "a", &sent, soon()).await, STORED);
        refused += u32::from(slot.cancel(sent.multicast, &name, soon()).await[0].is_err());
    }
    assert!((30..40).contains(&refused), "{refused}");
    let rest = slot.fetch(&consumer, fetch, soon()).await.unwrap().deliveries;
    assert_eq!(&*rest[0].message.payload, b"waits, too");
}

/// One inbox has no room to take anything back; the others have, and are told of for themselves.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_is_told_where_one_inbox_refuses() {
    let server = NatsServer::start_with("jetstream: enabled, max_payload: 8192")
        .await
        .unwrap();
    let slot = open(&server.url()).await;
    slot.open(&consumer("full", 1), soon()).await.unwrap();
    assert_eq!(store(&slot, "full", &message("waits"), soon()).await, STORED);
    let full = [identity("full")];
    loop {
        let sent = message("x");
        assert_eq!(store(&slot, "full", &sent, soon()).await, STORED);
        if slot.cancel(sent.multicast, &full, soon()).await[0].is_err() {
            break;
        }
    }
    let (sent, names) = (message("y"), ["a", "full", "b"]);
    let outcomes = slot
        .enqueue(&names.map(address), sent.clone(), terms(), soon())
        .await;
    assert_eq!(outcomes, [STORED; 3]);
    let told = slot.cancel(sent.multicast, &names.map(identity), soon()).await;
    assert_eq!((&told[0], &told[2]), (&Ok(true), &Ok(true)));
    assert!(told[1].is_err(), "{told:?}");
}

/// Together they want more room than there is.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_stores_do_not_wait_for_each_other() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    let addresses = super::addresses(2_500);
    let storing = (0..8).map(|number| {
        let message = message(&number.to_string());
        slot.enqueue(&addresses, message, terms(), soon())
    });
    for outcomes in join_all(storing).await {
        let stored = outcomes.iter().filter(|outcome| **outcome == STORED).count();
        assert_eq!(stored, addresses.len());
    }
}

/// A runner that is not upgraded yet removes nothing that it does not understand.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_has_stored_stays() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = open(&server.url()).await;
    store(&slot, "a", &message("1"), soon()).await;
    let client = crate::plain(&server).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Prism-Multicast", "v=2;everything=new");
    let subject = "prism.queue.test.m.a.1";
    client
        .publish_with_headers(subject, headers, "2".into())
        .await
        .unwrap();
    client
        .publish(subject, "no message of ours".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let name = identity("a");
    eventually(crate::LONG, "all of them are there", || async {
        slot.depth(Some(&name), soon()).await.unwrap().messages == 3
    })
    .await;
    slot.open(&consumer("a", 1), soon()).await.unwrap();
    let fetched = slot.fetch(&consumer("a", 1), all(), soon()).await;
    assert!(
        matches!(&fetched, Err(Error::Unreadable { message, .. }) if message.contains("upgrade")),
        "{fetched:?}"
    );
    assert_eq!(slot.depth(Some(&name), soon()).await.unwrap().messages, 3);
}

/// An identity that nobody uses leaves nothing in the streams but its messages.
#[tokio::test(flavor = "multi_thread")]
async fn idle_identities_cost_nothing() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let slot = JetStreamInbox::open("test", config(&server.url()), InboxLimits::default())
        .await
        .unwrap();
    let client = crate::plain(&server).await;
    let records = async || {
        let info = client
            .request("$JS.API.STREAM.INFO.prism%2Equeue%-test%-sessions", "".into())
            .await
            .unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        (
            info["state"]["messages"].as_u64().unwrap(),
            info["state"]["consumer_count"].as_u64().unwrap(),
        )
    };
    let sent = message("x");
    let addresses = super::addresses(50);
    slot.enqueue(&addresses, sent.clone(), terms(), soon()).await;
    assert_eq!(records().await, (0, 0));
    let names: Vec<_> = addresses.iter().map(|address| address.identity.clone()).collect();
    let cancelled = slot.cancel(sent.multicast, &names, soon()).await;
    assert!(cancelled.iter().all(|cancelled| *cancelled == Ok(true)));
    assert_eq!(records().await, (0, 0));
    take(&slot, "a", 1).await;
    assert_eq!(records().await, (1, 0));
    assert_eq!(
        slot.discard(&address("a"), soon()).await,
        Ok(Discarded::default())
    );
    assert_eq!(records().await, (0, 0));
}
