//! What this slot costs beside the least that NATS itself costs, measured in turn. Run with
//! `cargo test --release -p prism-slot-nats --test nats floors -- --ignored --nocapture --test-threads 1`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use prism_slot::{
    Address, Consumer, DurableInbox, Enqueued, Epoch, Fetch, Holder, Identity, InboxLimits, Message,
    Messaging, MulticastId, Outcome, Priority, Settled, Terms, Verdict,
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox};
use prism_testkit::NatsServer;

use crate::{identities, open, plain, soon, subscribe};

const TARGETS: usize = 1_000;
const ROUNDS: usize = 200;

/// The middle one.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn consumers(server: &NatsServer, targets: &[Identity]) -> Vec<tokio::task::JoinHandle<()>> {
    let client = plain(server).await;
    let mut consumers = Vec::new();
    for target in targets {
        let mut consumer = subscribe(&client, &format!("test.multicast.test.{target}")).await;
        consumers.push(tokio::spawn(
            async move { while consumer.next().await.is_some() {} },
        ));
    }
    consumers
}

async fn raw(client: &Client, subjects: &[String]) -> Duration {
    let mut headers = HeaderMap::new();
    headers.insert(
        "Prism-Multicast",
        "v=1;id=00000000000000000000000000000007;at=1700000000123",
    );
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    let began = Instant::now();
    for subject in subjects {
        client
            .publish_with_headers(subject.clone(), headers.clone(), vec![0; 100].into())
            .await
            .unwrap();
    }
    client.publish(inbox, "".into()).await.unwrap();
    echo.next().await.unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn floors_of_publishing() {
    let server = NatsServer::start().await.unwrap();
    let slot = open(&server.url()).await;
    let targets = identities(TARGETS);
    let _consumers = consumers(&server, &targets).await;
    let client = plain(&server).await;
    let subjects: Vec<String> = targets
        .iter()
        .map(|target| format!("test.multicast.test.{target}"))
        .collect();
    let post = slot.post(soon()).await.unwrap();
    let bare = Arc::new(Message::new(MulticastId(7), vec![0; 100]));
    let asked = Arc::new(Message {
        receipts: Some(post.address().clone()),
        ..(*bare).clone()
    });
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(raw(&client, &subjects).await);
        for (times, message) in times[1..].iter_mut().zip([&bare, &asked]) {
            let began = Instant::now();
            let outcomes = slot.publish_batch(&targets, message.clone(), soon()).await;
            times.push(began.elapsed());
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted));
        }
    }
    let [raw, bare, asked] = times.each_mut().map(|times| median(times).as_secs_f64() * 1e6);
    println!(
        "{TARGETS} targets: raw {raw:.0} us, ours {bare:.0} us ({:.2}), with answers {asked:.0} us ({:.2})",
        bare / raw,
        asked / raw
    );
}

/// Stores a message at each subject, with nothing around it, and waits for the server's word on each.
async fn raw_stored(client: &Client, subjects: &[String], headers: Option<&HeaderMap>) -> Duration {
    let inbox = client.new_inbox();
    let mut acks = client.subscribe(format!("{inbox}.*")).await.unwrap();
    client.flush().await.unwrap();
    let began = Instant::now();
    for (number, subject) in subjects.iter().enumerate() {
        let (subject, reply) = (subject.clone(), format!("{inbox}.{number}"));
        match headers {
            Some(headers) => {
                let mut headers = headers.clone();
                headers.insert("Nats-Msg-Id", format!("{}.{number}", rand::random::<u128>()));
                client
                    .publish_with_reply_and_headers(subject, reply, headers, vec![0; 100].into())
                    .await
                    .unwrap();
            }
            None => client
                .publish_with_reply(subject, reply, vec![0; 100].into())
                .await
                .unwrap(),
        }
    }
    for _ in subjects {
        let ack = acks.next().await.unwrap();
        assert!(ack.payload.starts_with(b"{\"stream\""), "{ack:?}");
    }
    began.elapsed()
}

async fn make_stream(client: &Client, name: &str, more: &str) {
    let config =
        format!(r#"{{"name":"{name}","subjects":["{name}.>"],"storage":"file","num_replicas":1{more}}}"#);
    let made = client
        .request(format!("$JS.API.STREAM.CREATE.{name}"), config.into())
        .await
        .unwrap();
    assert!(
        !made.payload.windows(7).any(|part| part == b"\"error\""),
        "{made:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn floors_of_storing() {
    let server = NatsServer::start_with_jetstream().await.unwrap();
    let config = JetStreamConfig {
        servers: vec![server.url()],
        ..JetStreamConfig::default()
    };
    let slot = JetStreamInbox::open("test", config, InboxLimits::default())
        .await
        .unwrap();
    let client = plain(&server).await;
    make_stream(&client, "raw", "").await;
    let like_ours = r#","allow_msg_ttl":true,"discard":"new","discard_new_per_subject":true,"max_msgs_per_subject":1000,"duplicate_window":120000000000"#;
    make_stream(&client, "alike", like_ours).await;
    let subjects = |stream: &str| {
        (0..TARGETS)
            .map(|number| format!("{stream}.id-{number}.1"))
            .collect::<Vec<_>>()
    };
    let (raw, alike) = (subjects("raw"), subjects("alike"));
    let mut headers = HeaderMap::new();
    headers.insert(
        "Prism-Multicast",
        "v=1;id=00000000000000000000000000000007;at=1700000000123",
    );
    headers.insert("Prism-Holder", "00000000000000000000000000000007");
    headers.insert("Nats-TTL", "3600");
    let addresses: Vec<Address> = identities(TARGETS)
        .into_iter()
        .map(|identity| Address {
            identity,
            holder: Holder([7; 16]),
        })
        .collect();
    let terms = Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    };
    let consumers: Vec<Consumer> = addresses
        .iter()
        .map(|address| Consumer {
            address: address.clone(),
            epoch: Epoch(1),
            session_seq: 1,
        })
        .collect();
    futures::future::join_all(consumers.iter().map(|consumer| slot.open(consumer, soon()))).await;
    let fetch = Fetch {
        max_messages: 10,
        max_bytes: 1 << 20,
        ack_timeout: Duration::from_secs(60),
        max_deliver: 10,
    };
    let mut times = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS / 4 {
        times[0].push(raw_stored(&client, &raw, None).await);
        times[1].push(raw_stored(&client, &alike, Some(&headers)).await);
        let message = Arc::new(Message::new(MulticastId::random(), vec![0; 100]));
        let began = Instant::now();
        let outcomes = slot.enqueue(&addresses, message.clone(), terms, soon()).await;
        times[2].push(began.elapsed());
        assert!(
            outcomes
                .iter()
                .all(|outcome| *outcome == Enqueued::Stored { displaced: None })
        );
        let began = Instant::now();
        let fetched = consumers
            .iter()
            .map(|consumer| slot.fetch(consumer, fetch, soon()));
        let fetched = futures::future::join_all(fetched).await;
        times[3].push(began.elapsed());
        assert!(
            fetched
                .iter()
                .all(|fetched| fetched.as_ref().unwrap().deliveries.len() == 1)
        );
        let began = Instant::now();
        let settling = consumers
            .iter()
            .map(|consumer| slot.settle(consumer, vec![(message.multicast, Verdict::Ack)], soon()));
        let settled = futures::future::join_all(settling).await;
        times[4].push(began.elapsed());
        assert!(
            settled
                .iter()
                .all(|settled| settled.as_deref() == Ok(&[Settled::Done]))
        );
    }
    let [raw, alike, ours, fetched, settled] =
        times.each_mut().map(|times| median(times).as_secs_f64() * 1e6);
    println!(
        "{TARGETS} targets: raw stored {raw:.0} us, with the same headers and limits {alike:.0} us, ours {ours:.0} us \
         ({:.2} and {:.2}); fetched {fetched:.0} us, settled {settled:.0} us",
        ours / raw,
        ours / alike
    );
}
