//! Multicasts that are stored, beside raw writes of the same messages that the backend acknowledges.
//!
//! The registry is in memory, so what is compared is storing, with resolving the targets, writing down what is
//! begun and telling the sessions on top of ours. Nobody listens: what is stored waits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use fred::prelude::*;
use futures::future::{join_all, try_join_all};
use multicast_registry::{Config, Coordinator, Delivery, Durability, Multicast, Register};
use prism_filter::Document;
use prism_slot::{
    InboxLimits, MulticastId,
    memory::{MemoryMessaging, MemoryRegistry},
};
use prism_slot_nats::{JetStreamConfig, JetStreamInbox, JetStreamLedger, NatsMessaging};
use prism_slot_redis::{InboxConfig, RedisInbox, RedisLedger};
use prism_slot_sqlite::{SqliteInbox, SqliteLedger};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::json;

use crate::report::{Better, Report, percentile};

const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 200]);
const TARGETS: usize = 1_000;
const ROUNDS: usize = 200;
const WARM_UP: usize = 10;
const NAMESPACE: &str = "users";

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if report.wants("multicast_1000_jetstream") {
        jetstream(report).await?;
    }
    if report.wants("multicast_1000_redis_streams") {
        redis_streams(report).await?;
    }
    if report.wants("store_sqlite") {
        sqlite(report).await?;
    }
    Ok(())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user-{number:06}")).collect()
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}

fn limits() -> InboxLimits {
    InboxLimits {
        max_messages: 100_000,
        ..InboxLimits::default()
    }
}

async fn coordinator(
    messaging: Arc<dyn prism_slot::DynMessaging>,
    durability: Durability,
    count: usize,
) -> Result<Coordinator> {
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let mut config = Config::named(NAMESPACE);
    config.behavior.max_identities = 1_000_000;
    let coordinator = Coordinator::new(config, registry, messaging, Some(durability));
    for name in names(count) {
        let request = Register::new(name, Document::from_json(br#"{"status":"online"}"#)?)?;
        coordinator.register(request, soon()).await?;
    }
    Ok(coordinator)
}

async fn ours(coordinator: &Coordinator, targets: usize) -> Result<Duration> {
    let request = Multicast {
        payload: PAYLOAD,
        delivery: Some(Delivery::AtLeastOnce),
        ..Default::default()
    };
    let began = Instant::now();
    let report = coordinator.multicast(request, soon()).await?;
    let took = began.elapsed();
    ensure!(
        report.tally.pending == targets,
        "stored for {:?} of {targets}",
        report.tally
    );
    Ok(took)
}

/// Ours and the floor in turn; the medians.
fn row(report: &mut Report, name: &str, mut ours: Vec<Duration>, mut floor: Vec<Duration>) {
    let (value, p99) = (percentile(&mut ours, 0.5), percentile(&mut ours, 0.99));
    let more = json!({ "p99": p99, "targets": TARGETS });
    report.row(
        name,
        value,
        "us",
        percentile(&mut floor, 0.5),
        Better::Lower,
        more,
    );
}

async fn jetstream(report: &mut Report) -> Result<()> {
    let server = NatsServer::start_with_jetstream().await?;
    let config: JetStreamConfig = serde_json::from_value(json!({ "servers": [server.url()] }))?;
    let messaging = serde_json::from_value(json!({ "servers": [server.url()] }))?;
    let messaging = NatsMessaging::open(NAMESPACE, "bench", messaging).await?;
    let durability = Durability {
        inbox: Some(Arc::new(
            JetStreamInbox::open(NAMESPACE, config.clone(), limits()).await?,
        )),
        ledger: Arc::new(JetStreamLedger::open(NAMESPACE, config).await?),
    };
    let coordinator = coordinator(Arc::new(messaging), durability, TARGETS).await?;
    let raw = RawStream::open(&server).await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let taken = (ours(&coordinator, TARGETS).await?, raw.publish().await?);
        if round >= WARM_UP {
            with.push(taken.0);
            without.push(taken.1);
        }
    }
    coordinator.close().await;
    row(report, "multicast_1000_jetstream", with, without);
    Ok(())
}

/// The same messages published to a stream of their own, and each acknowledged by the server.
struct RawStream {
    context: jetstream::Context,
    subjects: Vec<String>,
}

impl RawStream {
    async fn open(server: &NatsServer) -> Result<Self> {
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        let config = jetstream::stream::Config {
            name: "RAW".to_owned(),
            subjects: vec!["raw.>".to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await?;
        let subjects = names(TARGETS).into_iter().map(|name| format!("raw.{name}"));
        Ok(Self {
            context,
            subjects: subjects.collect(),
        })
    }

    async fn publish(&self) -> Result<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("Prism-Multicast", format!("v=1;id={}", MulticastId::random()));
        let began = Instant::now();
        let mut acks = Vec::with_capacity(TARGETS);
        for subject in &self.subjects {
            let published = self
                .context
                .publish_with_headers(subject.clone(), headers.clone(), PAYLOAD);
            acks.push(published.await?);
        }
        try_join_all(acks.into_iter().map(IntoFuture::into_future)).await?;
        Ok(began.elapsed())
    }
}

async fn redis_streams(report: &mut Report) -> Result<()> {
    let server = RedisServer::start().await?;
    let config: InboxConfig = serde_json::from_value(json!({ "address": server.addr().to_string() }))?;
    let durability = Durability {
        ledger: Arc::new(RedisLedger::open(NAMESPACE, config.connection()).await?),
        inbox: Some(Arc::new(RedisInbox::open(NAMESPACE, config, limits()).await?)),
    };
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = coordinator(messaging, durability, TARGETS).await?;
    let raw = Builder::from_config(fred::prelude::Config::from_url(&format!(
        "redis://{}",
        server.addr()
    ))?);
    let raw = raw.build()?;
    raw.init().await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let taken = (ours(&coordinator, TARGETS).await?, add(&raw).await?);
        if round >= WARM_UP {
            with.push(taken.0);
            without.push(taken.1);
        }
    }
    coordinator.close().await;
    raw.quit().await?;
    row(report, "multicast_1000_redis_streams", with, without);
    Ok(())
}

/// The same messages added to a stream each, in one pipeline.
async fn add(raw: &Client) -> Result<Duration> {
    let keys: Vec<String> = names(TARGETS)
        .into_iter()
        .map(|name| format!("raw:{name}"))
        .collect();
    let began = Instant::now();
    let pipeline = raw.pipeline();
    for key in &keys {
        let _: () = pipeline
            .xadd(
                key,
                false,
                None,
                "*",
                vec![("m", fred::types::Value::Bytes(PAYLOAD))],
            )
            .await?;
    }
    let added: Vec<fred::types::Value> = pipeline.all().await?;
    ensure!(added.len() == TARGETS, "{} were added", added.len());
    Ok(began.elapsed())
}

/// Receipts a second for multicasts to a thousand inboxes each, several under way, with full sync; and how soon
/// everything is there after the process was killed.
async fn sqlite(report: &mut Report) -> Result<()> {
    const UNDER_WAY: usize = 8;
    const EACH: usize = 12;
    let directory = tempfile::tempdir()?;
    let config = serde_json::from_value(json!({ "path": directory.path().join("bench.db") }))?;
    let config: prism_slot_sqlite::InboxConfig = config;
    let durability = Durability {
        inbox: Some(Arc::new(
            SqliteInbox::open(NAMESPACE, config.clone(), limits()).await?,
        )),
        ledger: Arc::new(SqliteLedger::open(NAMESPACE, config).await?),
    };
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = coordinator(messaging, durability, TARGETS).await?;
    ours(&coordinator, TARGETS).await?;
    let began = Instant::now();
    let senders = (0..UNDER_WAY).map(|_| async {
        for _ in 0..EACH {
            ours(&coordinator, TARGETS).await?;
        }
        anyhow::Ok(())
    });
    let outcomes: Result<Vec<()>> = join_all(senders).await.into_iter().collect();
    outcomes.context("a multicast failed")?;
    let rate = (UNDER_WAY * EACH * TARGETS) as f64 / began.elapsed().as_secs_f64();
    coordinator.close().await;
    // The floor is the aim.
    report.row(
        "store_sqlite",
        rate,
        "receipts/s",
        50_000.0,
        Better::Higher,
        json!({}),
    );
    Ok(())
}
