//! What this slot costs beside the least that NATS itself costs, measured in turn. Run with
//! `cargo test --release -p prism-slot-nats --test nats floors -- --ignored --nocapture --test-threads 1`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use prism_slot::{Identity, Message, Messaging, MulticastId, Outcome};
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
