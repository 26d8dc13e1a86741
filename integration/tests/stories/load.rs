//! Load on the whole system, counted where it arrives, and scenarios.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use integration::{Proxy, System};
use prism_client::EnumerateRequest;
use prism_testkit::Process;
use serde_json::{Value, json};

const A_WHILE: Duration = Duration::from_secs(60);

/// What the command line told about a namespace, in JSON. It must have succeeded.
async fn probe(proxy: &Proxy, namespace: &str, line: &[&str]) -> Result<Value> {
    let endpoint = proxy.data.to_string();
    let always = ["--endpoint", &endpoint, "-n", namespace, "-o", "json"];
    let line: Vec<_> = always.iter().chain(line).copied().collect();
    let mut process = Process::spawn("prism-probe", &line, &[])?;
    let status = process.wait(A_WHILE).await?;
    let (told, talk) = (process.stdout().join("\n"), process.stderr().join("\n"));
    ensure!(status.success(), "{line:?}: {status}\n{told}\n{talk}");
    serde_json::from_str(&told).with_context(|| format!("{told}\n{talk}"))
}

/// Everything in one small run, over Redis and NATS, through proxy and runner.
#[tokio::test]
async fn what_a_load_multicasts_is_received_by_its_own_subscribers() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let line = [
        "load",
        "mixed",
        "--rate",
        "40",
        "--duration",
        "3s",
        "--status",
        "online",
    ];
    let told = probe(&system.proxy, "test", &line).await?;
    let delivery = &told["delivery"];
    assert_eq!(delivery["percent"], 100.0, "{told}");
    assert!(delivery["targets"].as_u64() > Some(0), "{told}");
    for nothing in [
        "missing",
        "false_claims",
        "false_failures",
        "duplicates",
        "unlisted",
    ] {
        assert_eq!(delivery[nothing], 0, "{nothing}: {told}");
    }
    assert_eq!(delivery["claimed"]["delivered"], delivery["received"], "{told}");
    assert_eq!(
        (&told["begun"], &told["missed"], &told["left"]),
        (&120.into(), &0.into(), &0.into())
    );
    let rest = system
        .client()?
        .registry
        .enumerate(EnumerateRequest::default())
        .await?;
    assert_eq!(rest.total_count, 0);
    Ok(())
}

/// Whoever listens acknowledges, or it would get no more than it may have unacknowledged.
#[tokio::test]
async fn what_a_load_has_stored_is_received_and_acknowledged() -> Result<()> {
    let namespace = json!({
        "name": "test",
        "pattern": "multicast-registry",
        "slots": {
            "registry": { "backend": "memory" },
            "messaging": { "backend": "memory" },
            "durability": { "backend": "memory" },
        },
        "behavior": { "delivery": "at-least-once", "max_unacked": 8 },
    });
    let proxy = Proxy::start_with(&json!({ "namespaces": [namespace] }), &["--embedded"]).await?;
    proxy.wait_for_runners("test", 1).await;
    let mixed = [
        "load",
        "mixed",
        "--rate",
        "100",
        "--duration",
        "3s",
        "--subscribers",
        "5",
    ];
    let told = probe(&proxy, "test", &mixed).await?;
    assert_eq!(told["delivery"]["percent"], 100.0, "{told}");
    ensure!(told["delivery"]["received"].as_u64() > Some(5 * 8), "{told}");
    assert_eq!(told["delivery"]["duplicates"], 0, "{told}");
    // What is on its way has not failed.
    assert_eq!(told["delivery"]["reasons"], json!({}), "{told}");

    let acked = ["--delivery", "exactly-once", "--require", "acked"];
    let line: Vec<_> = mixed.into_iter().chain(acked).collect();
    let told = probe(&proxy, "test", &line).await?;
    let delivery = &told["delivery"];
    assert_eq!(delivery["claimed"]["delivered"], delivery["received"], "{told}");
    Ok(())
}

#[tokio::test]
async fn every_other_load_comes_to_its_end_on_a_whole_system() -> Result<()> {
    let system = System::on_redis_and_nats(2).await?;
    for line in [
        &[
            "load",
            "fanout",
            "--subscribers",
            "150",
            "--targets",
            "10,150",
            "--rounds",
            "3",
        ][..],
        &["load", "storm", "--users", "150"],
        &[
            "load",
            "presence",
            "--users",
            "200",
            "--ttl",
            "10",
            "--rooms",
            "20",
            "--duration",
            "5s",
        ],
    ] {
        let told = probe(&system.proxy, "test", line).await?;
        assert_eq!(told["delivery"]["percent"], 100.0, "{told}");
        assert_eq!(told["left"], 0, "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn the_example_scenario_comes_true() -> Result<()> {
    comes_true(&Proxy::embedded().await?, "default", "presence.yaml").await
}

#[tokio::test]
async fn the_example_of_stored_delivery_comes_true() -> Result<()> {
    let config = json!({ "namespaces": [{
        "name": "workshop",
        "pattern": "multicast-registry",
        "slots": { "registry": "memory", "messaging": "memory", "durability": "memory" },
    }] });
    let proxy = Proxy::start_with(&config, &["--embedded"]).await?;
    comes_true(&proxy, "workshop", "delivery.yaml").await
}

async fn comes_true(proxy: &Proxy, namespace: &str, example: &str) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/scenarios")
        .join(example);
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("report.xml");
    let (file, report) = (file.display().to_string(), report.display().to_string());
    let told = probe(proxy, namespace, &["scenario", "run", &file, "--junit", &report]).await?;
    assert_eq!(told["passed"], true, "{told}");
    let steps = told["steps"].as_array().context("no steps")?.len();
    let report = fs::read_to_string(report)?;
    ensure!(report.contains(&format!("tests=\"{steps}\"")), "{report}");
    Ok(())
}
