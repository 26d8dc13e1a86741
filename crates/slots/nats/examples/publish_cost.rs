//! What a batch costs over the raw client library.
//!
//! For 10, 100 and 1,000 targets, each with a live subscriber (a plain one, in this process, on another
//! connection), it measures the slot's `publish_batch` and two floors in turn: publishing to the same subjects with reply subjects through
//! async-nats and waiting for the same echo, once with the bare payload and once with the headers that
//! the slot sends. Printed are the medians in microseconds, and the ratios to both floors.
//!
//! ```text
//! cargo run --release -p prism-slot-nats --example publish_cost [rounds [connections]]
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement, not a service"
)]

use std::{sync::Arc, time::Duration};

use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use prism_slot::{Identity, Kind, Message, Messaging, MulticastId, Outcome, Timestamp};
use prism_slot_nats::{Config, NatsMessaging};
use prism_testkit::NatsServer;
use tokio::{task::JoinSet, time::Instant};

/// What the subjects of the namespace `bench` begin with.
const SUBJECTS: &str = "prism.multicast.bench";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(300), |text| text.parse())?;
    let connections = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let server = NatsServer::start().await?;
    let config = Config {
        servers: vec![server.url()],
        connections,
        ..Config::default()
    };
    let receiving = async_nats::connect(server.url()).await?;
    let slot = NatsMessaging::open("bench", "prism.multicast", config).await?;
    let floor = Floor::new(async_nats::connect(server.url()).await?).await?;
    println!(
        "{:>7} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "targets", "slot", "bare", "headers", "/bare", "/headers"
    );
    for count in [10, 100, 1_000] {
        let targets: Vec<Identity> = (0..count)
            .map(|number| Identity::new(format!("user-{number}")))
            .collect::<Result<_, _>>()?;
        let mut readers = JoinSet::new();
        for target in &targets {
            readers.spawn(drain(receiving.subscribe(format!("{SUBJECTS}.{target}")).await?));
        }
        known_to_the_broker(&receiving).await?;
        measure(&slot, floor.clone(), &targets, rounds).await;
    }
    Ok(())
}

/// A flush would not do: it is local to the client library.
async fn known_to_the_broker(client: &Client) -> anyhow::Result<()> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    echo.next().await;
    Ok(())
}

async fn drain(mut subscriber: Subscriber) {
    while subscriber.next().await.is_some() {}
}

async fn measure(slot: &NatsMessaging, mut floor: Floor, targets: &[Identity], rounds: usize) {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        times[0].push(ours(slot, targets).await);
        times[1].push(floor.publish(targets, None).await);
        times[2].push(floor.publish(targets, Some(&headers())).await);
    }
    let [ours, bare, headers] = times.map(median);
    println!(
        "{:>7} {ours:>10.0} {bare:>10.0} {headers:>10.0} {:>8.2} {:>8.2}",
        targets.len(),
        ours / bare,
        ours / headers
    );
}

async fn ours(slot: &NatsMessaging, targets: &[Identity]) -> Duration {
    let message = Arc::new(Message {
        multicast: MulticastId::random(),
        kind: Kind::Payload,
        payload: Bytes::from_static(&[b'x'; 100]),
        content_type: "application/octet-stream".into(),
        published_at: Timestamp::now(),
        headers: Vec::new(),
    });
    let begun = Instant::now();
    let outcomes = slot
        .publish_batch(targets, message, begun + Duration::from_secs(10))
        .await;
    let took = begun.elapsed();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted));
    took
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let summary = format!("v=1;id={};at={}", MulticastId::random(), Timestamp::now().0);
    headers.insert("Prism-Multicast", summary);
    headers
}

#[derive(Clone)]
struct Floor {
    client: Client,
    inbox: String,
    arrivals: Arc<tokio::sync::Mutex<Subscriber>>,
}

impl Floor {
    async fn new(client: Client) -> anyhow::Result<Self> {
        let inbox = client.new_inbox();
        let arrivals = client.subscribe(format!("{inbox}.>")).await?;
        Ok(Self {
            client,
            inbox,
            arrivals: Arc::new(arrivals.into()),
        })
    }

    async fn publish(&mut self, targets: &[Identity], headers: Option<&HeaderMap>) -> Duration {
        let mut arrivals = self.arrivals.lock().await;
        let begun = Instant::now();
        for (number, target) in targets.iter().enumerate() {
            let (subject, reply) = (format!("{SUBJECTS}.{target}"), format!("{}.{number}", self.inbox));
            let payload = Bytes::from_static(&[b'x'; 100]);
            match headers {
                None => self
                    .client
                    .publish_with_reply(subject, reply, payload)
                    .await
                    .unwrap(),
                Some(headers) => {
                    let publish =
                        self.client
                            .publish_with_reply_and_headers(subject, reply, headers.clone(), payload);
                    publish.await.unwrap();
                }
            }
        }
        self.client
            .publish(format!("{}.echo", self.inbox), Bytes::new())
            .await
            .unwrap();
        // Nobody answers: every target has a subscriber.
        arrivals.next().await.unwrap();
        begun.elapsed()
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
