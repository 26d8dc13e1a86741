//! Multicasting over NATS, beside publishing the same messages raw and waiting for the same barrier.
//!
//! Every target has a live subscriber, plain ones on four connections, for both alike. The registry is
//! in memory: what is compared is the way through the broker, with resolving the targets on top of ours.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use multicast_registry::{Config, Coordinator, Multicast, Register};
use prism_filter::Document;
use prism_slot::{MulticastId, Timestamp, memory::MemoryRegistry};
use prism_slot_nats::NatsMessaging;
use prism_testkit::NatsServer;
use serde_json::json;
use tokio::task::JoinSet;

use crate::report::{Better, Report, percentile};

const PREFIX: &str = "bench";
/// Where the slot publishes for the namespace `users`.
const TOPICS: &str = "bench.users";
const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 100]);
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    for targets in [10, 100, 1_000] {
        let name = format!("multicast_{targets}_nats");
        if report.wants(&name) {
            multicast(report, &name, targets).await?;
        }
    }
    Ok(())
}

async fn multicast(report: &mut Report, name: &str, count: usize) -> Result<()> {
    let server = NatsServer::start().await?;
    let names: Vec<String> = (0..count).map(|number| format!("user-{number:04}")).collect();
    let coordinator = coordinator(&server, &names).await?;
    let _readers = readers(&server, &names).await?;
    let mut floor = Floor::new(&server).await?;
    let mut times = [const { Vec::new() }; 3];
    for round in 0..WARM_UP + ROUNDS {
        let taken = [
            ours(&coordinator, count).await?,
            floor.publish(&names, Some(headers())).await?,
            floor.publish(&names, None).await?,
        ];
        if round >= WARM_UP {
            times
                .iter_mut()
                .zip(taken)
                .for_each(|(times, taken)| times.push(taken));
        }
    }
    coordinator.close().await;
    let [value, floor, bare] = times.each_mut().map(|times| percentile(times, 0.5));
    let more = json!({ "floor_without_headers": bare, "p99": percentile(&mut times[0], 0.99) });
    report.row(name, value, "us", floor, Better::Lower, more);
    Ok(())
}

async fn coordinator(server: &NatsServer, names: &[String]) -> Result<Coordinator> {
    let config = serde_json::from_value(json!({ "servers": [server.url()] }))?;
    let messaging = NatsMessaging::open("users", PREFIX, config).await?;
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let coordinator = Coordinator::new(Config::named("users"), registry, Arc::new(messaging), None);
    for name in names {
        let request = Register::new(name, Document::from_json(br#"{"status":"online"}"#)?)?;
        coordinator.register(request, soon()).await?;
    }
    Ok(coordinator)
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(10)
}

/// One plain subscriber a target; returns once the broker knows them all.
async fn readers(server: &NatsServer, names: &[String]) -> Result<JoinSet<()>> {
    let mut readers = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(async_nats::connect(server.url()).await?);
    }
    for (number, name) in names.iter().enumerate() {
        let connection = &connections[number % connections.len()];
        let mut subscriber = connection.subscribe(format!("{TOPICS}.{name}")).await?;
        readers.spawn(async move { while subscriber.next().await.is_some() {} });
    }
    for connection in &connections {
        // A flush would not do: it is local to the client library.
        let inbox = connection.new_inbox();
        let mut echo = connection.subscribe(inbox.clone()).await?;
        connection.publish(inbox, Bytes::new()).await?;
        echo.next().await.context("no echo")?;
    }
    Ok(readers)
}

async fn ours(coordinator: &Coordinator, targets: usize) -> Result<Duration> {
    let request = Multicast {
        payload: PAYLOAD,
        ..Default::default()
    };
    let began = Instant::now();
    let report = coordinator.multicast(request, soon()).await?;
    let took = began.elapsed();
    ensure!(
        report.delivered() == targets,
        "delivered {} of {targets}",
        report.delivered()
    );
    Ok(took)
}

/// The same header as the slot's.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let summary = format!("v=1;id={};at={}", MulticastId::random(), Timestamp::now().0);
    headers.insert("Prism-Multicast", summary);
    headers
}

struct Floor {
    client: Client,
    inbox: String,
    arrivals: Subscriber,
}

impl Floor {
    async fn new(server: &NatsServer) -> Result<Self> {
        let client = async_nats::connect(server.url()).await?;
        let inbox = client.new_inbox();
        let arrivals = client.subscribe(format!("{inbox}.>")).await?;
        Ok(Self {
            client,
            inbox,
            arrivals,
        })
    }

    async fn publish(&mut self, names: &[String], headers: Option<HeaderMap>) -> Result<Duration> {
        let began = Instant::now();
        for (number, name) in names.iter().enumerate() {
            let (subject, reply) = (format!("{TOPICS}.{name}"), format!("{}.{number}", self.inbox));
            let client = &self.client;
            match headers.clone() {
                None => client.publish_with_reply(subject, reply, PAYLOAD).await?,
                Some(headers) => {
                    client
                        .publish_with_reply_and_headers(subject, reply, headers, PAYLOAD)
                        .await?;
                }
            }
        }
        self.client
            .publish(format!("{}.echo", self.inbox), Bytes::new())
            .await?;
        // Nobody else answers: every target has a subscriber.
        self.arrivals.next().await.context("no echo")?;
        Ok(began.elapsed())
    }
}
