//! A million identities: what they take, and what asking for a few of them costs.
//!
//! The floor of each row is its aim, except where another measurement of the same run stands beside it.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use multicast_registry::{Config, Coordinator, Enumerate, Multicast, Register, schema::Schema};
use prism_filter::{Document, Filter};
use prism_slot::{
    Call, DynRegistryStore, Identity, Mode, Owner, RegistryStore, RequestId,
    memory::{MemoryMessaging, MemoryRegistry},
};
use prism_slot_redis::RedisRegistry;
use prism_testkit::RedisServer;
use serde_json::json;

use crate::report::{Better, Report, median, percentile};

const MILLION: usize = 1_000_000;
const SAMPLES: usize = 300;

const ROWS: [&str; 7] = [
    "enumerate_100_of_1m_p99",
    "count_50k_of_1m",
    "write_p99_under_reads_1m",
    "resolve_1000_of_100k",
    "enumerate_10_of_1000",
    "hydrate_1m_redis",
    "memory_per_identity_1m",
];

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if ROWS[..3].iter().any(|row| report.wants(row)) {
        million_in_memory(report).await?;
    }
    if report.wants(ROWS[3]) {
        resolve(report).await?;
    }
    if report.wants(ROWS[4]) {
        few_of_a_thousand(report).await?;
    }
    if ROWS[5..].iter().any(|row| report.wants(row)) {
        hydrate(report).await?;
    }
    Ok(())
}

/// About 200 bytes, three fields of which are indexed: `group` has 100 of each value in a million, `site`
/// 50,000, `level` 10,000.
fn metadata(number: usize) -> String {
    format!(
        r#"{{"group":"g-{:05}","site":"site-{:02}","level":{},"status":"online","firmware":"2.4.1","model":"sensor-x","tags":["edge","beta"],"weight":12.5,"owner":"team-edge","region":"eu-central","note":"0123456789"}}"#,
        number % 10_000,
        number % 20,
        number % 100,
    )
}

fn config() -> Result<Config> {
    let schema = json!({
        "group": { "type": "string", "index": true },
        "site": { "type": "string", "index": true },
        "level": { "type": "number", "index": true },
    });
    let mut config = Config::named("bench");
    config.behavior.max_identities = 10_000_000;
    config.schema = Some(Schema::read(&schema).context("the schema")?);
    Ok(config)
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(120)
}

async fn in_memory(count: usize) -> Result<Coordinator> {
    let registry: Arc<dyn DynRegistryStore> = Arc::new(MemoryRegistry::new(Default::default()));
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = Coordinator::new(config()?, registry, messaging, None);
    for number in 0..count {
        let document = Document::from_json(metadata(number).as_bytes())?;
        let request = Register::new(format!("device-{number:07}"), document)?;
        coordinator.register(request, soon()).await?;
    }
    settled(&coordinator, count).await?;
    Ok(coordinator)
}

/// Waits until everything has been followed.
async fn settled(coordinator: &Coordinator, count: usize) -> Result<()> {
    let began = Instant::now();
    while coordinator.directory().len() < count {
        ensure!(
            began.elapsed() < Duration::from_secs(120),
            "the view does not get there"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn time<T>(mut once: impl AsyncFnMut(usize) -> Result<T>) -> Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for number in 0..SAMPLES + SAMPLES / 10 {
        let began = Instant::now();
        black_box(once(number).await?);
        if number >= SAMPLES / 10 {
            samples.push(began.elapsed());
        }
    }
    Ok(samples)
}

async fn million_in_memory(report: &mut Report) -> Result<()> {
    let coordinator = in_memory(MILLION).await?;
    let mut samples = time(async |number| {
        let filter = Filter::new().eq("group", format!("g-{:05}", number * 7 % 10_000));
        let page = coordinator.enumerate(
            Enumerate {
                filter: Some(filter),
                limit: 100,
                ..Default::default()
            },
            soon(),
        );
        let page = page.await?;
        ensure!((page.rows.len(), page.total) == (100, 100), "{}", page.total);
        Ok(page)
    })
    .await?;
    let aim = 1_000.0;
    report.row(
        ROWS[0],
        percentile(&mut samples, 0.99),
        "us",
        aim,
        Better::Lower,
        json!({ "statistic": "p99" }),
    );

    let mut samples = time(async |number| {
        let filter = Filter::new().eq("site", format!("site-{:02}", number % 20));
        let count = coordinator.enumerate(
            Enumerate {
                filter: Some(filter),
                count_only: true,
                ..Default::default()
            },
            soon(),
        );
        let count = count.await?;
        ensure!(count.total == 50_000, "{}", count.total);
        Ok(count)
    })
    .await?;
    let aim = 5_000.0;
    report.row(
        ROWS[1],
        percentile(&mut samples, 0.99),
        "us",
        aim,
        Better::Lower,
        json!({ "statistic": "p99" }),
    );
    under_reads(report, &coordinator).await
}

/// Writes alone, and beside reads that look at every identity.
async fn under_reads(report: &mut Report, coordinator: &Coordinator) -> Result<()> {
    let write = |coordinator: Coordinator| async move {
        tokio::spawn(async move {
            let mut samples = Vec::new();
            for number in 0..3_000 {
                let request = Register {
                    replace: true,
                    ..Register::new(
                        format!("device-{number:07}"),
                        Document::from_json(metadata(number + 1).as_bytes())?,
                    )?
                };
                let began = Instant::now();
                coordinator.register(request, soon()).await?;
                samples.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(samples)
        })
        .await?
    };
    let mut alone = write(coordinator.clone()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (coordinator, stop) = (coordinator.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let large = Enumerate {
                    filter: Some(Filter::new().contains("note", "345")),
                    ..Default::default()
                };
                let page = coordinator.enumerate(large, soon()).await?;
                ensure!(page.total == MILLION as u64, "{}", page.total);
            }
            Ok(())
        })
    };
    let beside = write(coordinator.clone()).await;
    stop.store(true, Ordering::Relaxed);
    reader.await??;
    let mut beside = beside?;
    let (value, floor) = (percentile(&mut beside, 0.99), percentile(&mut alone, 0.99));
    let more = json!({ "statistic": "p99", "max": percentile(&mut beside, 1.0), "max_alone": percentile(&mut alone, 1.0) });
    report.row(ROWS[2], value, "us", floor, Better::Lower, more);
    Ok(())
}

async fn resolve(report: &mut Report) -> Result<()> {
    let coordinator = in_memory(100_000).await?;
    let mut samples = time(async |number| {
        let request = Multicast {
            filter: Some(Filter::new().eq("level", (number % 100) as u32)),
            ..Default::default()
        };
        let (_, targets) = coordinator.resolve(&request, soon()).await?;
        ensure!(targets.len() == 1_000, "{}", targets.len());
        Ok(targets)
    })
    .await?;
    report.row(
        ROWS[3],
        percentile(&mut samples, 0.5),
        "us",
        200.0,
        Better::Lower,
        json!({ "statistic": "p50" }),
    );
    Ok(())
}

async fn few_of_a_thousand(report: &mut Report) -> Result<()> {
    let coordinator = in_memory(1_000).await?;
    let mut samples = time(async |number| {
        let filter = Filter::new().eq("level", (number % 100) as u32);
        let page = coordinator.enumerate(
            Enumerate {
                filter: Some(filter),
                ..Default::default()
            },
            soon(),
        );
        let page = page.await?;
        ensure!(page.rows.len() == 10, "{}", page.rows.len());
        Ok(page)
    })
    .await?;
    report.row(
        ROWS[4],
        percentile(&mut samples, 0.5),
        "us",
        10.0,
        Better::Lower,
        json!({ "statistic": "p50" }),
    );
    Ok(())
}

/// From a Redis that holds a million to a view of them, and what that adds to the process.
async fn hydrate(report: &mut Report) -> Result<()> {
    let server = RedisServer::start().await?;
    let slot: prism_slot_redis::Config =
        serde_json::from_value(json!({ "address": server.addr().to_string(), "read_timeout": "10s" }))?;
    let registry = Arc::new(RedisRegistry::open("bench", slot.clone()).await?);
    fill(&registry).await?;
    let bytes: usize = (0..MILLION).map(|number| metadata(number).len()).sum();
    let mut seconds = Vec::new();
    let mut taken = 0;
    for _ in 0..3 {
        let registry: Arc<dyn DynRegistryStore> = Arc::new(RedisRegistry::open("bench", slot.clone()).await?);
        let messaging = Arc::new(MemoryMessaging::new(Default::default()));
        let (before, began) = (resident()?, Instant::now());
        let coordinator = Coordinator::new(config()?, registry, messaging, None);
        coordinator.directory().ready(soon()).await?;
        seconds.push(began.elapsed().as_secs_f64());
        ensure!(
            coordinator.directory().len() == MILLION,
            "{}",
            coordinator.directory().len()
        );
        if taken == 0 {
            taken = resident()?.saturating_sub(before);
        }
        coordinator.close().await;
    }
    if report.wants(ROWS[5]) {
        report.row(ROWS[5], median(&mut seconds), "s", 12.0, Better::Lower, json!({}));
    }
    if report.wants(ROWS[6]) {
        let over = taken.saturating_sub(bytes) as f64 / MILLION as f64;
        let more = json!({ "metadata_bytes": bytes / MILLION });
        report.row(ROWS[6], over, "bytes", 600.0, Better::Lower, more);
    }
    RegistryStore::close(&*registry).await;
    Ok(())
}

async fn fill(registry: &Arc<RedisRegistry>) -> Result<()> {
    const BATCH: usize = 128;
    const CALLERS: usize = 16;
    let caller = |first: usize| async move {
        for start in (first * BATCH..MILLION).step_by(BATCH * CALLERS) {
            let batch = (start..(start + BATCH).min(MILLION)).map(|number| {
                Ok(prism_slot::Register {
                    identity: Identity::new(format!("device-{number:07}"))?,
                    metadata: Bytes::from(metadata(number)),
                    ttl: None,
                    mode: Mode::Create,
                    owner: Owner::default(),
                    max_identities: 10_000_000,
                    request: RequestId::next(),
                })
            });
            let call = Call {
                epoch: None,
                deadline: soon(),
            };
            for result in RegistryStore::register(&**registry, call, batch.collect::<Result<_>>()?).await {
                result?;
            }
        }
        anyhow::Ok(())
    };
    try_join_all((0..CALLERS).map(caller)).await?;
    Ok(())
}

/// How much memory the process has, in bytes.
fn resident() -> Result<usize> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: usize = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?
        .trim()
        .parse()?;
    Ok(kilobytes << 10)
}
