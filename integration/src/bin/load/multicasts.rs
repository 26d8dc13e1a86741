//! What multicasts cost, to ten targets and to a hundred thousand, until they are answered.
//!
//! In one process with the registry in memory, so that the curves differ by what carries or stores the messages. In
//! memory every target has a session that counts what it gets; over NATS one subscription counts what comes for
//! all of them; what is stored waits, and is counted as stored.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use integration::Counter;
use multicast_registry::{
    Config, Coordinator, Delivery, Multicast, Register, Session, SessionEvent, schema::Schema,
};
use prism_filter::{Document, Filter};
use prism_slot::memory::MemoryRegistry;
use serde_json::json;
use tokio::{task::unconstrained, time::Instant as Deadline};

use crate::{
    backends::{Backend, NAMESPACE, PREFIX},
    chart::{BLUE, Chart, GREEN, Line, ORANGE, PURPLE, RED},
};

/// How many targets, and how often.
const SIZES: [(usize, usize); 5] = [(10, 101), (100, 101), (1_000, 51), (10_000, 15), (100_000, 5)];
const ALL: usize = 100_000;
const WARM_UP: usize = 3;
const PAYLOAD: &[u8] = &[b'x'; 200];
const PATIENCE: Duration = Duration::from_secs(60);
const CHART: Chart = Chart {
    title: "Multicasts by the number of targets",
    across: "targets",
    up: "microseconds until answered, in process",
    from: (8.0, 1.0),
    to: (130_000.0, 30_000_000.0),
    ring: "slowest",
};

pub(crate) async fn run(path: &Path) -> Result<()> {
    crate::heading("targets", "slowest us");
    let mut lines = Vec::new();
    for (name, color) in [
        ("memory", BLUE),
        ("NATS", GREEN),
        ("JetStream", RED),
        ("Redis Streams", PURPLE),
        ("SQLite", ORANGE),
    ] {
        let backend = match name {
            "memory" => Backend::memory(),
            "NATS" => Backend::nats().await?,
            "JetStream" => Backend::jetstream().await?,
            "Redis Streams" => Backend::redis_streams().await?,
            _ => Backend::sqlite().await?,
        };
        let mut line = Line::new(name, color);
        curve(backend, &mut line)
            .await
            .with_context(|| format!("multicasts over {name}"))?;
        lines.push(line);
    }
    CHART.draw(&lines, path)
}

async fn curve(backend: Backend, line: &mut Line) -> Result<()> {
    let coordinator = coordinator(&backend).await?;
    let mut far_end = FarEnd::of(&backend, &coordinator).await?;
    for (targets, rounds) in SIZES {
        let mut micros = Vec::with_capacity(rounds);
        for round in 0..WARM_UP + rounds {
            let took = multicast(&coordinator, &mut far_end, targets).await?;
            if round >= WARM_UP {
                micros.push(took.as_secs_f64() * 1e6);
            }
        }
        micros.sort_unstable_by(f64::total_cmp);
        line.point(targets, micros[rounds / 2], micros[rounds - 1]);
    }
    coordinator.close().await;
    Ok(())
}

fn soon() -> Deadline {
    Deadline::now() + PATIENCE
}

async fn coordinator(backend: &Backend) -> Result<Coordinator> {
    let mut config = Config::named(NAMESPACE);
    config.behavior.max_identities = 10_000_000;
    let schema = json!({ "number": { "type": "number", "index": true } });
    config.schema = Some(Schema::read(&schema).context("the schema")?);
    let registry = Arc::new(MemoryRegistry::new(Default::default()));
    let (messaging, durability) = (backend.messaging.clone(), backend.durability.clone());
    let coordinator = Coordinator::new(config, registry, messaging, durability);
    for number in 0..ALL {
        let metadata = Document::from_value(&json!({ "number": number }))?;
        coordinator
            .register(Register::new(name(number), metadata)?, soon())
            .await?;
    }
    Ok(coordinator)
}

fn name(number: usize) -> String {
    format!("device-{number:06}")
}

async fn multicast(coordinator: &Coordinator, far_end: &mut FarEnd, targets: usize) -> Result<Duration> {
    let delivery = match far_end {
        FarEnd::Stored => Delivery::AtLeastOnce,
        FarEnd::Sessions(_) | FarEnd::Subscription(..) => Delivery::AtMostOnce,
    };
    let request = Multicast {
        filter: Some(Filter::new().lt("number", targets as u32)),
        payload: PAYLOAD.into(),
        delivery: Some(delivery),
        ..Default::default()
    };
    let began = Instant::now();
    let report = coordinator.multicast(request, soon()).await?;
    let took = began.elapsed();
    let reached = match delivery {
        Delivery::AtMostOnce => report.tally.delivered,
        _ => report.tally.pending,
    };
    ensure!(reached == targets, "{:?} of {targets}", report.tally);
    far_end.received(targets).await?;
    Ok(took)
}

/// Where it is counted what arrived.
enum FarEnd {
    /// One of each identity.
    Sessions(Vec<Session>),
    /// One to the topics of all.
    Subscription(Counter),
    /// Nobody listens.
    Stored,
}

impl FarEnd {
    async fn of(backend: &Backend, coordinator: &Coordinator) -> Result<Self> {
        if backend.durability.is_some() {
            return Ok(Self::Stored);
        }
        if let Some(nats) = &backend.nats {
            let counter = Counter::subscribe(nats, &format!("{PREFIX}.{NAMESPACE}"), "device-").await?;
            return Ok(Self::Subscription(counter));
        }
        let mut sessions = Vec::with_capacity(ALL);
        for number in 0..ALL {
            sessions.push(coordinator.subscribe(name(number), None, soon()).await?);
        }
        Ok(Self::Sessions(sessions))
    }

    /// Fails unless so many have arrived, and no more.
    async fn received(&mut self, targets: usize) -> Result<()> {
        match self {
            Self::Stored => Ok(()),
            Self::Sessions(sessions) => sessions
                .iter_mut()
                .enumerate()
                .try_for_each(|(number, session)| got(session, number, usize::from(number < targets))),
            Self::Subscription(counter) => counter.more(targets, PATIENCE).await,
        }
    }
}

/// Fails unless so many wait in the session of that number.
fn got(session: &mut Session, number: usize, expected: usize) -> Result<()> {
    let mut count = 0;
    // Else the runtime has it wait for its turn after a hundred.
    while let Some(event) = unconstrained(session.next()).now_or_never() {
        let event = event.context("a session has ended")??;
        ensure!(matches!(event, SessionEvent::Message(_)), "{event:?}");
        count += 1;
    }
    ensure!(count == expected, "`{}` got {count}", name(number));
    Ok(())
}
