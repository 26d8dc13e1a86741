//! Everything out of one namespace and into another one.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use integration::{PATIENCE, Proxy, Runner, http_get, memory_namespace, shared_namespace};
use prism_testkit::{NatsServer, Process, RedisServer, Signal, eventually};
use serde_json::{Value, json};

const COUNT: usize = 20_000;
const A_WHILE: Duration = Duration::from_secs(60);

fn devices() -> String {
    let line = |number: usize| {
        let mut line = json!({
            "identity": format!("device é {number:05}"),
            "metadata": {
                "firmware": format!("1.{}.0", number % 7),
                "battery": (number as f64 + 0.5) / COUNT as f64,
                "tags": [number % 3, null, { "rack": [] }],
            },
        });
        match number % 3 {
            0 => line["ttl_seconds"] = json!(3_600 + number),
            1 => line["ttl_ms"] = json!(3_600_001 + 1_000 * number),
            _ => {}
        }
        format!("{line}\n")
    };
    (0..COUNT).map(line).collect()
}

/// What is registered, but for times and for how the members of objects are ordered.
fn registered(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line)?;
        let members = line.as_object_mut().context("a line that is no object")?;
        members.retain(|name, _| !name.ends_with("_at"));
        anyhow::Ok(line)
    };
    text.lines().map(line).collect()
}

/// A command in a namespace that speaks JSON, and its summary.
struct Probe<'a> {
    proxy: &'a Proxy,
    namespace: &'a str,
}

impl Probe<'_> {
    fn spawn(&self, line: &[&str]) -> Result<Process> {
        let endpoint = self.proxy.data.to_string();
        let always = [
            "-endpoint",
            &endpoint,
            "-n",
            self.namespace,
            "-o",
            "json",
            "multicast",
        ];
        Process::spawn("prism-probe", &[&always[..], line].concat(), &[])
    }

    async fn run(&self, line: &[&str]) -> Result<Value> {
        let mut process = self.spawn(line)?;
        let status = process.wait(A_WHILE).await?;
        anyhow::ensure!(
            status.success(),
            "{line:?}: {:?} {:?}",
            process.stdout(),
            process.stderr()
        );
        summary(&process)
    }
}

fn summary(process: &Process) -> Result<Value> {
    let last = process
        .stdout()
        .pop()
        .with_context(|| format!("nothing is told: {:?}", process.stderr()))?;
    Ok(serde_json::from_str::<Value>(&last)?["summary"].clone())
}

/// Twenty thousand lines into a namespace of two runners, of which one is killed meanwhile and the import is
/// interrupted, out of it, and into another one on other slots: nothing is missing, nothing was registered
/// twice, and everything is as it was.
#[tokio::test]
async fn everything_goes_out_and_in_again() -> Result<()> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let mut namespaces = [shared_namespace("one", &redis, &nats), memory_namespace("two")];
    for namespace in &mut namespaces {
        namespace["behavior"] = json!({ "max_identities": COUNT });
    }
    let proxy = Proxy::start(&namespaces).await?;
    let mut runners = vec![
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("one", 2).await;
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name);
    let paths = ["in.jsonl", "one.jsonl", "two.jsonl"].map(file);
    let [all, one, two] = [&paths[0], &paths[1], &paths[2]].map(|path| path.to_str().unwrap_or_default());
    fs::write(all, devices())?;
    let (first, second) = (
        Probe {
            proxy: &proxy,
            namespace: "one",
        },
        Probe {
            proxy: &proxy,
            namespace: "two",
        },
    );

    let client = proxy.client("one")?;
    let mut import = first.spawn(&["import", all])?;
    eventually(PATIENCE, "some are registered", async || {
        let request = prism_client::EnumerateRequest {
            count_only: true,
            ..Default::default()
        };
        client
            .registry
            .enumerate(request)
            .await
            .is_ok_and(|page| page.total_count > 0)
    })
    .await;
    drop(runners.pop());
    import.signal(Signal::INT)?;
    let status = import.wait(A_WHILE).await?;
    let mut told = summary(&import)?;
    println!("{status}, {told}");
    assert_ne!(status.code(), Some(1), "{:?}", import.stderr());
    if !status.success() {
        let (through, session) = (told["through"].to_string(), told["session"].clone());
        let session = session.as_str().context("no session")?;
        told = first
            .run(&["import", all, "--skip", &through, "--session", session])
            .await?;
        println!("then {told}");
    }
    assert_eq!((&told["through"], &told["refused"]), (&json!(COUNT), &json!(0)));

    let told = first.run(&["export", one]).await?;
    assert_eq!(
        (&told["exported"], &told["one_position"]),
        (&json!(COUNT), &json!(true))
    );
    // One write each: a second one would have a revision of its own.
    let revision = told["position"].as_str().and_then(|at| at.split('/').nth(1));
    assert_eq!(revision, Some(COUNT.to_string().as_str()));
    let told = second.run(&["import", one]).await?;
    assert_eq!(told["registered"], json!(COUNT));
    second.run(&["export", two]).await?;
    let (one, two) = (registered(&paths[1])?, registered(&paths[2])?);
    assert_eq!(one.len(), COUNT);
    assert!(one == two, "what came out is not what went in");
    let mut expected = registered(&paths[0])?;
    for line in &mut expected {
        // What is left to the namespace is no lease, here.
        if line.get("ttl_ms").is_none() && line.get("ttl_seconds").is_none() {
            line["ttl_seconds"] = json!(0);
        }
    }
    for (line, expected) in one.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
    Ok(())
}

/// An import into a namespace that limits its callers takes longer, and nothing of it is refused.
#[tokio::test]
async fn an_import_is_as_fast_as_the_namespace_allows() -> Result<()> {
    const LINES: usize = 400;
    let mut namespace = memory_namespace("one");
    namespace["behavior"] = json!({ "caller_writes": "100/s" });
    let proxy = Proxy::start(&[namespace]).await?;
    let runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("one", 1).await;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("in.jsonl");
    let lines: String = devices()
        .lines()
        .take(LINES)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&path, lines)?;
    let probe = Probe {
        proxy: &proxy,
        namespace: "one",
    };
    // A call has less time than all of them take, so that some have to come again.
    let line = ["import", path.to_str().unwrap_or_default(), "-deadline", "1500ms"];
    let told = probe.run(&line).await?;
    assert_eq!(
        (&told["registered"], &told["refused"]),
        (&json!(LINES), &json!(0))
    );
    let (_, metrics) = http_get(runner.health, "/metrics").await?;
    let limited = "multicast_registry_rate_limited_total{namespace=\"one\"} ";
    let limited = metrics.lines().find_map(|line| line.strip_prefix(limited));
    assert_ne!(limited, Some("0"), "{metrics}");
    Ok(())
}
