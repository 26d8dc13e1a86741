//! Registering over Redis: group commit, beside the same function called raw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use fred::prelude::*;
use futures::future::try_join_all;
use multicast_registry::{Coordinator, Enumerate};
use prism_slot::{Call, Identity, Mode, Owner, Register, RegistryStore, RequestId, memory::MemoryMessaging};
use prism_slot_redis::{Config, RedisRegistry, raw};
use prism_testkit::RedisServer;
use serde_json::json;

use crate::report::{Better, Report, median};

const ROUND: Duration = Duration::from_millis(1_000);
const ROUNDS: usize = 5;
/// About 200 bytes, as a device or a service instance has.
const METADATA: &[u8] = br#"{"status":"online","room":"lobby","firmware":"2.4.1","site":"fra-12","rack":"b7","model":"sensor-x","tags":["edge","beta"],"weight":12.5,"owner":"team-edge","region":"eu-central","note":"0123456789"}"#;

/// Registrations a second by how many are under way at once. Floor and slot take turns.
pub(crate) async fn run(report: &mut Report) -> Result<()> {
    for in_flight in [1, 64, 1_024] {
        let name = format!("register_redis_{in_flight}");
        if !report.wants(&name) {
            continue;
        }
        let server = RedisServer::start().await?;
        let config: Config = serde_json::from_value(json!({ "address": server.addr().to_string() }))?;
        let pool = raw_pool(&server, config.pool_size).await?;
        let (mut floors, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let _: () = pool.flushall(false).await?;
            floors.push(raw_rate(&pool, &config, in_flight).await?);
            let _: () = pool.flushall(false).await?;
            let registry = Arc::new(RedisRegistry::open("bench", config.clone()).await?);
            ours.push(grouped_rate(&registry, in_flight).await?);
            registry.close().await;
        }
        let (floor, value) = (median(&mut floors), median(&mut ours));
        report.row(&name, value, "calls/s", floor, Better::Higher, json!({}));
        if in_flight == 1_024 {
            report.row(
                "register_redis_1024_grouped",
                value,
                "calls/s",
                floor,
                Better::Higher,
                json!({}),
            );
        }
        pool.quit().await?;
    }
    consistent_reads(report).await
}

/// Consistent reads that share the round trip which makes them so, beside one round trip each.
async fn consistent_reads(report: &mut Report) -> Result<()> {
    const NAME: &str = "consistent_read_redis_1024";
    if !report.wants(NAME) {
        return Ok(());
    }
    let server = RedisServer::start().await?;
    let config: Config = serde_json::from_value(json!({ "address": server.addr().to_string() }))?;
    let registry = Arc::new(RedisRegistry::open("bench", config).await?);
    let messaging = Arc::new(MemoryMessaging::new(Default::default()));
    let coordinator = Coordinator::new(
        multicast_registry::Config::named("bench"),
        registry.clone(),
        messaging,
        None,
    );
    let soon = || tokio::time::Instant::now() + Duration::from_secs(30);
    for number in 0..1_000 {
        let call = Call {
            epoch: None,
            deadline: soon(),
        };
        for result in RegistryStore::register(&*registry, call, vec![request(number)?]).await {
            result?;
        }
    }
    let head = coordinator
        .enumerate(Enumerate::default(), soon())
        .await?
        .position;
    let (mut floors, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (registry, coordinator) = (&registry, &coordinator);
        let alone = rate(1_024, |_| async move {
            let call = Call {
                epoch: Some(head.epoch),
                deadline: soon(),
            };
            RegistryStore::sync(&**registry, call, head.revision, 1).await?;
            Ok(())
        });
        floors.push(alone.await?);
        let shared = rate(1_024, |_| async move {
            let count = Enumerate {
                count_only: true,
                ..Default::default()
            };
            coordinator.enumerate(count, soon()).await?;
            Ok(())
        });
        ours.push(shared.await?);
    }
    let (floor, value) = (median(&mut floors), median(&mut ours));
    report.row(NAME, value, "reads/s", floor, Better::Higher, json!({}));
    coordinator.close().await;
    Ok(())
}

pub(crate) async fn raw_pool(server: &RedisServer, size: usize) -> Result<Pool> {
    let mut builder = Builder::from_config(fred::types::config::Config::from_url(&server.url())?);
    builder.with_connection_config(|connection| {
        connection.max_command_attempts = 1;
        connection.tcp.nodelay = Some(true);
    });
    let pool = builder.build_pool(size)?;
    pool.init().await?;
    let _: String = pool.function_load(true, raw::library()).await?;
    Ok(pool)
}

fn request(number: u64) -> Result<Register> {
    Ok(Register {
        identity: Identity::new(format!("device-{number:07}"))?,
        metadata: Bytes::from_static(METADATA),
        ttl: None,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 10_000_000,
        request: RequestId::next(),
    })
}

async fn raw_rate(pool: &Pool, config: &Config, in_flight: u64) -> Result<f64> {
    rate(in_flight, |number| async move {
        let call = raw::register("bench", config, &request(number)?);
        let _: Value = pool.fcall(call.function, call.keys, call.arguments).await?;
        Ok(())
    })
    .await
}

async fn grouped_rate(registry: &RedisRegistry, in_flight: u64) -> Result<f64> {
    rate(in_flight, |number| async move {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let call = Call {
            epoch: None,
            deadline,
        };
        for result in registry.register(call, vec![request(number)?]).await {
            result?;
        }
        Ok(())
    })
    .await
}

/// Calls a second with so many under way all the time.
async fn rate<F>(in_flight: u64, once: impl Fn(u64) -> F) -> Result<f64>
where
    F: Future<Output = Result<()>>,
{
    let (done, began) = (AtomicU64::new(0), Instant::now());
    let callers = (0..in_flight).map(|_| async {
        while began.elapsed() < ROUND {
            once(done.fetch_add(1, Ordering::Relaxed)).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(callers).await?;
    Ok(done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}
