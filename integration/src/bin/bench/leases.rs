//! How soon after its end a lease is seen to have ended: by a watcher, through the proxy, over Redis.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use integration::System;
use prism_client::{Cause, RegisterRequest, WatchEvent, WatchRequest};
use serde_json::json;

use crate::report::{Better, Report, percentile};

const NAME: &str = "expiry_lag_redis";
const LEASES: usize = 10_000;
/// The ends are spread over this time, evenly and in another order than the registrations.
const SPREAD_MS: usize = 20_000;
const SHORTEST_MS: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    if !report.wants(NAME) {
        return Ok(());
    }
    let mut lags = expire_all().await?;
    let (median, most) = (percentile(&mut lags, 0.5), percentile(&mut lags, 1.0));
    // Its aim.
    let floor = 1_000_000.0;
    let more = json!({ "statistic": "p99", "p50": median.round(), "max": most.round(), "leases": LEASES });
    report.row(
        NAME,
        percentile(&mut lags, 0.99),
        "us",
        floor,
        Better::Lower,
        more,
    );
    Ok(())
}

async fn expire_all() -> Result<Vec<Duration>> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let mut watch = client.registry.watch(WatchRequest::default()).await?;
    let lease = |number: usize| RegisterRequest {
        ttl_ms: Some((SHORTEST_MS + number * 7_919 % SPREAD_MS) as u64),
        ..RegisterRequest::new(format!("device-{number:05}"))
    };
    let mut ends = HashMap::new();
    for held in client.registry.register_many((0..LEASES).map(lease)).await? {
        let held = held?;
        ends.insert(held.identity, held.expires_at.context("a lease")?);
    }
    let mut lags = Vec::with_capacity(LEASES);
    while lags.len() < LEASES {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await?;
        let WatchEvent::Left(change) = event.context("the watch is over")?? else {
            continue;
        };
        ensure!(change.cause == Cause::Expired, "{change:?}");
        let end = ends.remove(&change.identity.identity).context("it ends once")?;
        match SystemTime::now().duration_since(end) {
            Ok(lag) => lags.push(lag),
            // Answers say whole milliseconds.
            Err(early) if early.duration() < Duration::from_millis(2) => lags.push(Duration::ZERO),
            Err(early) => bail!("{} ended {:?} early", change.identity.identity, early.duration()),
        }
    }
    Ok(lags)
}
