//! Watchers see every change once and in order, whatever is killed on the way.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use integration::{PATIENCE, System};
use prism_client::{Client, Filter, RegisterRequest, UpdateRequest, Watch, WatchEvent, WatchRequest};
use prism_testkit::{Process, Signal};
use serde_json::{Value, json};

fn online() -> WatchRequest {
    WatchRequest {
        filter: Some(Filter::new().eq("status", "online")),
        ..Default::default()
    }
}

async fn put(client: &Client, name: &str, metadata: Value) -> Result<()> {
    let request = RegisterRequest {
        metadata,
        replace: true,
        ..RegisterRequest::new(name)
    };
    client.registry.register(request).await?;
    Ok(())
}

async fn next(watch: &mut Watch) -> Result<WatchEvent> {
    let event = tokio::time::timeout(PATIENCE, watch.next()).await;
    Ok(event.context("nothing is told")?.context("the watch is over")??)
}

/// The next event that is no bookmark, in a few words.
async fn told(watch: &mut Watch) -> Result<String> {
    loop {
        return Ok(match next(watch).await? {
            WatchEvent::Present(identity) => format!("{} is there", identity.identity),
            WatchEvent::Entered(change) => {
                format!("{} entered: {:?}", change.identity.identity, change.cause)
            }
            WatchEvent::Updated(change) => {
                format!("{} updated: {:?}", change.identity.identity, change.cause)
            }
            WatchEvent::Left(change) => format!("{} left: {:?}", change.identity.identity, change.cause),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Restarted => "restarted".to_owned(),
        });
    }
}

#[tokio::test]
async fn a_watcher_is_told_who_is_there_and_what_changes() -> Result<()> {
    let system = System::on_memory().await?;
    let client = system.client()?;
    put(&client, "a", json!({"status": "online"})).await?;
    let mut watch = client.registry.watch(online()).await?;
    assert_eq!(told(&mut watch).await?, "a is there");
    put(&client, "b", json!({"status": "away"})).await?;
    put(&client, "b", json!({"status": "online"})).await?;
    assert_eq!(told(&mut watch).await?, "b entered: Updated");
    let patch = UpdateRequest {
        identity: "b".into(),
        patch: json!({"n": 1}),
        ..Default::default()
    };
    client.registry.update(patch).await?;
    assert_eq!(told(&mut watch).await?, "b updated: Updated");
    client.registry.unregister("a").await?;
    assert_eq!(told(&mut watch).await?, "a left: Unregistered");
    let lease = RegisterRequest {
        metadata: json!({"status": "online"}),
        ttl_ms: Some(300),
        ..RegisterRequest::new("c")
    };
    client.registry.register(lease).await?;
    assert_eq!(told(&mut watch).await?, "c entered: Registered");
    // A renewal is no change.
    client.registry.renew(["c"]).await?;
    assert_eq!(told(&mut watch).await?, "c left: Expired");
    Ok(())
}

/// Two runners on one Redis, of which now one and now the other is killed, and the proxy in between: whoever
/// watches is told each of a thousand changes once, in the order of writing.
#[tokio::test]
async fn a_watch_outlives_runners_and_the_proxy() -> Result<()> {
    const CHANGES: u64 = 1_000;
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(client.registry.watch(online()).await?);
    }
    let writer = {
        let client = client.clone();
        tokio::spawn(async move {
            for number in 0..CHANGES {
                // Until it is known to be written; the same session writes the same once.
                let name = format!("id-{number:04}");
                while put(&client, &name, json!({"status": "online"})).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
    };
    let readers: Vec<_> = watches
        .into_iter()
        .map(|watch| tokio::spawn(read(watch, CHANGES)))
        .collect();
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let mut killed = system.runners.remove(0);
        killed.process.signal(Signal::KILL)?;
        system.proxy.wait_for_runners("test", 1).await;
        let another = integration::Runner::under(system.proxy.control).await?;
        system.runners.push(another);
        if round == 1 {
            system.proxy = system.proxy.restart().await?;
        }
        system.proxy.wait_for_runners("test", 2).await;
    }
    tokio::time::timeout(PATIENCE * 4, writer).await??;
    for reader in readers {
        tokio::time::timeout(PATIENCE * 4, reader).await???;
    }
    Ok(())
}

/// Reads until everybody is there; nobody may enter twice or out of order.
async fn read(mut watch: Watch, count: u64) -> Result<()> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = 0;
    while (seen.len() as u64) < count {
        let entered = match next(&mut watch).await? {
            WatchEvent::Entered(change) => change,
            WatchEvent::Updated(change) => {
                // A write whose answer was lost was made again.
                if change.position.revision <= last {
                    bail!("{change:?} after {last}");
                }
                last = change.position.revision;
                continue;
            }
            WatchEvent::Bookmark(at) if at.revision >= last => {
                last = at.revision;
                continue;
            }
            other => bail!("{other:?} after {last}"),
        };
        let at = entered.position.revision;
        if at <= last {
            bail!("{entered:?} after {last}");
        }
        if let Some(before) = seen.insert(entered.identity.identity.clone(), at) {
            bail!("{entered:?} entered at {before} already");
        }
        last = at;
    }
    let in_order: Vec<_> = seen.values().copied().collect();
    assert!(in_order.is_sorted(), "in the order of writing");
    Ok(())
}

/// The program that an operator would use.
#[tokio::test]
async fn a_watch_is_shown_and_can_be_gone_on_with() -> Result<()> {
    let system = System::on_memory().await?;
    let client = system.client()?;
    put(&client, "a", json!({"status": "online"})).await?;
    let endpoint = system.proxy.data.to_string();
    let probe = |options: &[&str]| {
        let mut line = vec![
            "--endpoint",
            &endpoint,
            "--namespace",
            "test",
            "-o",
            "json",
            "multicast",
            "watch",
        ];
        line.extend(options);
        Process::spawn("prism-probe", &line, &[])
    };
    let filter = r#"{"status": "online"}"#;
    let mut first = probe(&["--filter", filter, "--count", "2"])?;
    first.stdout_line("BOOKMARK", PATIENCE).await?;
    put(&client, "b", json!({"status": "online"})).await?;
    assert_eq!(first.wait(PATIENCE).await?.code(), Some(0));
    let lines: Vec<Value> = first
        .stdout()
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    let last = lines.last().context("a line")?;
    assert_eq!(
        (&last["identity"]["identity"], &last["kind"]),
        (&json!("b"), &json!("ENTER"))
    );
    let epoch: u64 = last["position"]["epoch"].as_str().context("an epoch")?.parse()?;
    let revision = last["position"]["revision"].as_str().context("a revision")?;

    client.registry.unregister("a").await?;
    let from = format!("{epoch:016x}/{revision}");
    let mut second = probe(&["--filter", filter, "--count", "1", "--resume-from", &from])?;
    assert_eq!(second.wait(PATIENCE).await?.code(), Some(0));
    let shown = second.stdout().join("\n");
    assert!(shown.contains("LEAVE") && shown.contains("\"a\""), "{shown}");
    Ok(())
}
