//! Runners that the proxy starts itself, from the plugin's manifest.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use integration::{PATIENCE, Proxy, START_LIMIT, memory_namespace};
use prism_client::RegisterRequest;
use prism_testkit::{Signal, eventually, eventually_some};
use serde_json::{Value, json};

fn supervised(arguments: &[&str]) -> Value {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-manifest.yaml");
    json!({
        "runners": [{ "manifest": manifest, "args": arguments, "env": { "RUST_LOG": "debug" } }],
        "namespaces": [memory_namespace("test")],
    })
}

const ON_LOOPBACK: [&str; 2] = ["-data-addr", "127.0.0.1:0"];

/// The process that serves, as it named itself.
async fn serving_pid(proxy: &Proxy) -> Option<u64> {
    let listed = proxy.admin_json("/api/v1/runners").await.ok()?;
    let runners = listed["runners"].as_array()?;
    let serving = runners
        .iter()
        .find(|runner| runner["namespaces"][0]["role"] == "serving")?;
    serving["process_id"].as_u64()
}

fn lives(pid: u64) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn kill(pid: u64) -> Result<()> {
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(killed.success(), "cannot kill {pid}");
    Ok(())
}

fn count(proxy: &Proxy, text: &str) -> usize {
    let lines = proxy.process.stderr();
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_killed_runner_is_started_again_and_ends_with_the_proxy() -> Result<()> {
    let mut proxy = Proxy::start_with(&supervised(&ON_LOOPBACK), &[]).await?;
    let client = proxy.client("test")?;
    let first = eventually_some(START_LIMIT, "it serves", async || serving_pid(&proxy).await).await;
    client.registry.register(RegisterRequest::new("a")).await?;
    proxy
        .process
        .stderr_line("coordinator ready", PATIENCE)
        .await
        .context("what it says is passed on")?;

    kill(first)?;
    let second = eventually_some(START_LIMIT, "another one serves", async || {
        serving_pid(&proxy).await.filter(|pid| *pid != first)
    })
    .await;
    client.registry.register(RegisterRequest::new("b")).await?;
    let (_, metrics) = proxy.admin("/metrics").await?;
    let restarts = "prism_proxy_runner_restarts_total{pattern=\"multicast-registry\"} 1";
    assert!(metrics.contains(restarts), "{metrics}");
    assert_eq!(
        count(&proxy, "runner started"),
        2,
        "once at the start, once after the kill"
    );

    proxy.process.signal(Signal::TERM)?;
    let status = proxy.process.wait(START_LIMIT).await?;
    assert_eq!(status.code(), Some(0), "{:?}", proxy.process.stderr());
    assert!(!lives(first) && !lives(second));
    proxy
        .process
        .stderr_line("runner ended", PATIENCE)
        .await
        .context("the second one ended in order")?;
    Ok(())
}

/// Also when the proxy had no time to tell them.
#[tokio::test]
async fn a_supervised_runner_does_not_outlive_a_proxy_that_was_killed() -> Result<()> {
    let mut proxy = Proxy::start_with(&supervised(&ON_LOOPBACK), &[]).await?;
    let first = eventually_some(START_LIMIT, "it serves", async || serving_pid(&proxy).await).await;
    proxy.process.signal(Signal::KILL)?;
    eventually(START_LIMIT, "the runner has ended", async || !lives(first)).await;
    let proxy = proxy.restart().await?;
    let client = proxy.client("test")?;
    eventually_some(START_LIMIT, "another one serves", async || {
        serving_pid(&proxy).await
    })
    .await;
    client.registry.register(RegisterRequest::new("a")).await?;
    let listed = proxy.admin_json("/api/v1/runners").await?;
    assert_eq!(listed["runners"].as_array().map(Vec::len), Some(1), "{listed}");
    Ok(())
}

/// A runner that cannot start is tried again after longer and longer pauses, and says why each time.
#[tokio::test]
async fn a_runner_that_cannot_start_makes_no_storm() -> Result<()> {
    let arguments = ["-config", "/nowhere.yaml"];
    let mut proxy = Proxy::start_with(&supervised(&arguments), &[]).await?;
    let began = std::time::Instant::now();
    eventually(START_LIMIT, "the third pause", async || {
        count(&proxy, "runner did not end in order") >= 3
    })
    .await;
    // Two pauses of at least an eighth of a second.
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    proxy
        .process
        .stderr_line("/nowhere.yaml", PATIENCE)
        .await
        .context("what it says is passed on")?;
    let (status, ready) = proxy.admin("/readyz?verbose").await?;
    assert_eq!(status, 200, "the proxy itself is well: {ready}");
    assert!(ready.contains("namespace test has no runner"), "{ready}");
    let error = proxy.client("test")?.registry.get("a").await.unwrap_err();
    assert_eq!(error.reason(), Some(prism_client::Reason::NoRunner), "{error:?}");
    // At the end a pause is not waited out, and a runner that had failed before is no failure of the end.
    proxy.process.signal(Signal::TERM)?;
    assert_eq!(proxy.process.wait(START_LIMIT).await?.code(), Some(0));
    Ok(())
}
