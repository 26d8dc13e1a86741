//! A single box with its file: a hundred thousand registrations and as many stored messages, a kill, and how soon all
//! of it is served again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use integration::{Runner, START_LIMIT, http_get};
use prism_client::{Client, DeliverySemantics, EnumerateRequest, Event, MulticastRequest, RegisterRequest};
use prism_testkit::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    report::{Better, Report, median},
    usage::{Usage, mebibytes},
};

const NAME: &str = "sqlite_ready_after_kill";
const COUNT: usize = 100_000;
const BATCH: usize = 5_000;
const KILLS: usize = 5;
/// In seconds.
const AIM: f64 = 2.0;
/// Every so-manyth has its message fetched in the end.
const SAMPLE: usize = 500;
const PAYLOAD: &str = "kept";
/// For a call about all of them.
const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn run(report: &mut Report) {
    report.attempt(NAME, measure).await;
}

async fn measure(report: &mut Report) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let config = configuration(directory.path())?;
    let mut runner = start(&config).await?;
    runner.ready().await;
    fill(&client(&runner)?).await?;
    let mut seconds = Vec::new();
    for _ in 0..KILLS {
        runner.process.signal(Signal::KILL)?;
        runner.process.wait(START_LIMIT).await?;
        let began = Instant::now();
        runner = start(&config).await?;
        until_all_are_there(&client(&runner)?, began).await?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    runner.ready().await;
    all_wait(&runner).await?;
    let fetched = fetch_some(&client(&runner)?).await?;
    let usage = Usage::of(runner.process.pid())?;
    let most = seconds.iter().copied().fold(0.0, f64::max);
    let more = json!({
        "statistic": "median", "max": most, "kills": KILLS, "identities": COUNT, "messages": COUNT, "fetched": fetched,
        "rss_peak_mib": mebibytes(usage.peak),
    });
    report.row(NAME, median(&mut seconds), "s", AIM, Better::Lower, more);
    Ok(())
}

fn configuration(directory: &Path) -> Result<String> {
    let file = json!({ "backend": "sqlite", "config": { "path": directory.join("prism.db") } });
    let namespace = json!({
        "name": "test",
        "pattern": "multicast-registry",
        "slots": { "registry": file, "messaging": "memory", "durability": file },
        "behavior": { "max_identities": 1_000_000 },
    });
    let path = directory.join("runner.yaml");
    // JSON is YAML.
    std::fs::write(&path, json!({ "namespaces": [namespace] }).to_string())?;
    Ok(path.display().to_string())
}

async fn start(config: &str) -> Result<Runner> {
    Runner::start(&["-config", config], &[]).await
}

fn client(runner: &Runner) -> Result<Client> {
    let client = Client::builder()
        .endpoint(runner.data.to_string())
        .namespace("test");
    Ok(client.attempts(1).timeout(LONG).connect_lazy()?)
}

fn name(number: usize) -> String {
    format!("device-{number:06}")
}

async fn fill(client: &Client) -> Result<()> {
    for first in (0..COUNT).step_by(BATCH) {
        let requests = (first..first + BATCH).map(|number| RegisterRequest {
            metadata: json!({ "status": "online", "number": number, "firmware": "2.4.1", "site": "site-07" }),
            ..RegisterRequest::new(name(number))
        });
        for registered in client.registry.register_many(requests).await? {
            registered?;
        }
    }
    let request = MulticastRequest {
        payload: PAYLOAD.into(),
        delivery: Some(DeliverySemantics::AtLeastOnce),
        ..Default::default()
    };
    let told = client.registry.multicast(request).await?;
    ensure!(
        told.pending_count == COUNT as u64,
        "stored {}",
        told.pending_count
    );
    Ok(())
}

/// Asks until the answer is everybody.
async fn until_all_are_there(client: &Client, began: Instant) -> Result<()> {
    let request = EnumerateRequest {
        count_only: true,
        ..Default::default()
    };
    loop {
        match client.registry.enumerate(request.clone()).await {
            Ok(page) => {
                ensure!(page.total_count == COUNT as u64, "{} are there", page.total_count);
                return Ok(());
            }
            Err(error) if began.elapsed() > START_LIMIT => {
                return Err(error).context("it does not come back");
            }
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Waits until the runner says how many messages wait, and fails unless those are all.
async fn all_wait(runner: &Runner) -> Result<()> {
    let began = Instant::now();
    loop {
        let (_, page) = http_get(runner.health, "/metrics").await?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("multicast_registry_inbox_messages{"));
        let count = line
            .and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0);
        if count > 0.0 {
            ensure!(count == COUNT as f64, "{count} messages wait");
            return Ok(());
        }
        ensure!(
            began.elapsed() < LONG,
            "the runner does not tell how many messages wait"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// How many identities were looked at: each has its message.
async fn fetch_some(client: &Client) -> Result<usize> {
    let fetch = |number: usize| async move {
        let mut session = client.registry.subscribe(name(number)).await?;
        loop {
            let event = timeout(START_LIMIT, session.next()).await.context("no message")?;
            match event.context("the session has ended")?? {
                Event::Opened(_) => {}
                Event::Message(message) => {
                    ensure!(message.payload == PAYLOAD, "another message");
                    return Ok(());
                }
                Event::Gap(gap) => ensure!(false, "a gap: {gap:?}"),
            }
        }
    };
    let all = try_join_all((0..COUNT).step_by(SAMPLE).map(fetch)).await?;
    Ok(all.len())
}
