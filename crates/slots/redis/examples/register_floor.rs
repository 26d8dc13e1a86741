//! What group commit makes of registering, beside the same function called raw through fred.
//!
//! `cargo run --release -p prism-slot-redis --features raw --example register_floor`
//!
//! Starts a Redis of its own. Each line is the median of several rounds in which both take turns; `µs` is
//! what a registration costs Redis itself. An
//! argument with further settings as JSON shows what they change: `-- '{"group_calls": 4}'`.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use fred::{
    prelude::*,
    types::{ClusterHash, CustomCommand, InfoKind},
};
use futures::future::join_all;
use prism_slot::{Call, Identity, Mode, Owner, Register, RegistryStore, RequestId, Ttl};
use prism_slot_redis::{Config, RedisRegistry, raw};
use prism_testkit::RedisServer;
use tokio::time::Instant;

const ROUND: Duration = Duration::from_millis(750);
const ROUNDS: usize = 5;
const METADATA: &[u8] = br#"{"status":"online","room":"lobby","firmware":"2.4.1","site":"fra-12","rack":"b7","model":"sensor-x","tags":["edge","beta"],"weight":12.5,"owner":"team-edge","region":"eu-central","note":"0123456789"}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = RedisServer::start().await?;
    let mut settings: serde_json::Value = match std::env::args().nth(1) {
        Some(text) => serde_json::from_str(&text)?,
        None => serde_json::json!({}),
    };
    settings["address"] = server.addr().to_string().into();
    let config: Config = serde_json::from_value(settings)?;
    let pool = raw_pool(&server, config.pool_size).await?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "in flight   lease      raw/s       µs   grouped/s      µs   ratio"
    )?;
    for lease in [None, Ttl::from_millis(60_000)] {
        for in_flight in [1, 64, 1_024] {
            let (mut floors, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                reset(&pool).await?;
                let rate = raw_rate(&pool, &config, in_flight, lease).await?;
                floors.push((rate, server_micros(&pool).await?));
                reset(&pool).await?;
                let registry = Arc::new(RedisRegistry::open("bench", config.clone()).await?);
                let rate = grouped_rate(&registry, in_flight, lease).await?;
                ours.push((rate, server_micros(&pool).await?));
                registry.close().await;
            }
            let lease = if lease.is_some() { "yes" } else { "no" };
            let ((floor, alone), (ours, grouped)) = (median(floors), median(ours));
            writeln!(
                out,
                "{in_flight:>9} {lease:>7} {floor:>10.0} {alone:>8.1} {ours:>11.0} {grouped:>7.1} {:>7.2}",
                ours / floor
            )?;
        }
    }
    Ok(())
}

async fn reset(pool: &Pool) -> anyhow::Result<()> {
    let _: () = pool.flushall(false).await?;
    let command = CustomCommand::new("CONFIG", ClusterHash::Random, false);
    let _: () = pool.custom(command, vec!["RESETSTAT"]).await?;
    Ok(())
}

/// What one registration cost the server since the reset, in microseconds.
async fn server_micros(pool: &Pool) -> anyhow::Result<f64> {
    let stats: String = pool.info(Some(InfoKind::CommandStats)).await?;
    let field = |command: &str, name: &str| {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")))?;
        let value = line
            .split(',')
            .find_map(|part| part.strip_prefix(&format!("{name}=")))?;
        value.parse::<f64>().ok()
    };
    let micros = field("fcall", "usec").zip(field("xadd", "calls"));
    let (micros, registered) = micros.context("there is nothing in the statistics")?;
    Ok(micros / registered)
}

fn request(number: u64, ttl: Option<Ttl>) -> anyhow::Result<Register> {
    Ok(Register {
        identity: Identity::new(format!("device-{number:07}"))?,
        metadata: Bytes::from_static(METADATA),
        ttl,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 10_000_000,
        request: RequestId::next(),
    })
}

async fn raw_pool(server: &RedisServer, size: usize) -> anyhow::Result<Pool> {
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

async fn raw_rate(pool: &Pool, config: &Config, in_flight: u64, ttl: Option<Ttl>) -> anyhow::Result<f64> {
    let (pool, config) = (pool.clone(), config.clone());
    rate(in_flight, move |number| {
        let (pool, config) = (pool.clone(), config.clone());
        async move {
            let call = raw::register("bench", &config, &request(number, ttl)?);
            let _: Value = pool.fcall(call.function, call.keys, call.arguments).await?;
            Ok(())
        }
    })
    .await
}

async fn grouped_rate(
    registry: &Arc<RedisRegistry>,
    in_flight: u64,
    ttl: Option<Ttl>,
) -> anyhow::Result<f64> {
    let registry = registry.clone();
    rate(in_flight, move |number| {
        let registry = registry.clone();
        async move {
            let call = Call {
                epoch: None,
                deadline: Instant::now() + Duration::from_secs(5),
            };
            for result in registry.register(call, vec![request(number, ttl)?]).await {
                result?;
            }
            Ok(())
        }
    })
    .await
}

/// Registrations a second with so many under way all the time.
async fn rate<F, C>(in_flight: u64, once: F) -> anyhow::Result<f64>
where
    F: Fn(u64) -> C + Clone + Send + 'static,
    C: Future<Output = anyhow::Result<()>> + Send,
{
    let done = Arc::new(AtomicU64::new(0));
    let (started, end) = (Instant::now(), Instant::now() + ROUND);
    let workers = (0..in_flight).map(|_| {
        let (once, done) = (once.clone(), done.clone());
        tokio::spawn(async move {
            while Instant::now() < end {
                once(done.fetch_add(1, Ordering::Relaxed)).await?;
            }
            anyhow::Ok(())
        })
    });
    for worker in join_all(workers).await {
        worker??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// The one in the middle, by rate.
fn median(mut values: Vec<(f64, f64)>) -> (f64, f64) {
    values.sort_by(|one, other| one.0.total_cmp(&other.0));
    values[values.len() / 2]
}
