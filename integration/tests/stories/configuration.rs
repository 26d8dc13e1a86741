//! Configurations that change while clients call.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::Result;
use integration::{PATIENCE, Proxy, Runner, System, http_get, memory_namespace};
use prism_client::{EnumerateRequest, Event, MulticastRequest, Reason, RegisterRequest};
use prism_testkit::eventually;
use serde_json::json;

#[tokio::test]
async fn a_second_namespace_is_pushed_at_runtime() -> Result<()> {
    let system = System::on_memory().await?;
    let test = system.client()?;
    test.registry.register(RegisterRequest::new("a")).await?;
    let fleet = system.proxy.client("fleet")?;
    let unknown = fleet.registry.get("a").await.unwrap_err();
    assert_eq!(unknown.reason(), Some(Reason::UnknownNamespace));

    system
        .proxy
        .configure(&[memory_namespace("test"), memory_namespace("fleet")])?;
    system.proxy.wait_for_runners("fleet", 1).await;
    fleet.registry.register(RegisterRequest::new("b")).await?;
    assert!(
        test.registry.get("a").await.is_ok(),
        "the first namespace was left alone"
    );
    assert_eq!(
        fleet.registry.get("a").await.unwrap_err().reason(),
        Some(Reason::NotRegistered)
    );

    system.proxy.configure(&[memory_namespace("test")])?;
    eventually(PATIENCE, "the second namespace is taken away", async || {
        fleet
            .registry
            .get("b")
            .await
            .is_err_and(|error| error.reason() == Some(Reason::UnknownNamespace))
    })
    .await;
    assert!(test.registry.get("a").await.is_ok());
    Ok(())
}

/// A file with a mistake changes nothing; neither does a file that the runner refuses.
#[tokio::test]
async fn a_bad_configuration_leaves_the_good_one_serving() -> Result<()> {
    let system = System::on_memory().await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;

    std::fs::write(
        &system.proxy.config,
        "namespaces:\n  - name: test\n    pattern: multicast-registry\n    slotz: {}\n",
    )?;
    let said = system.proxy.process.stderr_line("slotz", PATIENCE).await?;
    assert!(said.contains(":4:"), "the line is named: {said}");
    assert!(client.registry.get("a").await.is_ok());

    let mut refused = memory_namespace("test");
    refused["slots"]["registry"] = json!({ "backend": "memory", "interfaces": ["QueueInterface"] });
    system.proxy.configure(&[refused])?;
    eventually(PATIENCE, "the refusal is shown, with slot and key", async || {
        let listed = system
            .proxy
            .admin_json("/api/v1/namespaces")
            .await
            .unwrap_or_default()
            .to_string();
        listed.contains("slot `registry`: key `interfaces`")
    })
    .await;
    assert!(
        client.registry.get("a").await.is_ok(),
        "the last good one keeps serving"
    );

    let mut better = memory_namespace("test");
    better["behavior"] = json!({ "max_identities": 1 });
    system.proxy.configure(&[better])?;
    let number = AtomicU64::new(0);
    eventually(PATIENCE, "the next good one is taken", async || {
        let name = format!("another-{}", number.fetch_add(1, Ordering::Relaxed));
        let another = RegisterRequest::new(name);
        let full = client.registry.register(another).await;
        full.is_err_and(|error| error.reason() == Some(Reason::QuotaExceeded))
    })
    .await;
    assert!(client.registry.get("a").await.is_ok(), "and kept the data");
    Ok(())
}

/// A changed limit reaches a thousand live sessions without disturbing any.
#[tokio::test]
async fn sessions_survive_a_change_of_limits() -> Result<()> {
    const SESSIONS: usize = 1_000;
    let system = System::on_memory().await?;
    let client = system.client()?;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let name = format!("session-{number:04}");
        client.registry.register(RegisterRequest::new(&name)).await?;
        let mut session = client.registry.subscribe(name.as_str()).await?;
        assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));
        sessions.push(session);
    }
    let mut changed = memory_namespace("test");
    changed["behavior"] = json!({ "max_identities": SESSIONS });
    system.proxy.configure(&[changed])?;
    eventually(PATIENCE, "the new limit holds", async || {
        let full = client.registry.register(RegisterRequest::new("one more")).await;
        if full.is_ok() {
            let _ = client.registry.unregister("one more").await;
        }
        full.is_err_and(|error| error.reason() == Some(Reason::QuotaExceeded))
    })
    .await;
    let sent = client.registry.multicast(MulticastRequest {
        payload: b"still here".into(),
        ..Default::default()
    });
    let sent = sent.await?;
    assert_eq!(
        (sent.target_count, sent.delivered_count),
        (SESSIONS as u64, SESSIONS as u64)
    );
    for session in &mut sessions {
        let event = tokio::time::timeout(PATIENCE, session.next()).await?;
        assert!(matches!(event, Some(Ok(Event::Message(_)))), "{event:?}");
    }
    Ok(())
}

/// Data that would be left behind is not left behind silently.
#[tokio::test]
async fn a_move_to_other_data_is_refused_unless_asked_for() -> Result<()> {
    let (redis, nats) = tokio::try_join!(
        prism_testkit::RedisServer::start(),
        prism_testkit::NatsServer::start()
    )?;
    let proxy = Proxy::start(&[memory_namespace("test")]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;

    let mut moved = integration::shared_namespace("test", &redis, &nats);
    proxy.configure(std::slice::from_ref(&moved))?;
    eventually(PATIENCE, "the refusal is shown", async || {
        proxy
            .admin_json("/api/v1/namespaces")
            .await
            .unwrap_or_default()
            .to_string()
            .contains("on_move")
    })
    .await;
    assert!(client.registry.get("a").await.is_ok());

    moved["on_move"] = json!("discard");
    proxy.configure(&[moved])?;
    eventually(PATIENCE, "the namespace starts over", async || {
        let page = client.registry.enumerate(EnumerateRequest::default()).await;
        page.is_ok_and(|page| page.total_count == 0)
    })
    .await;
    client.registry.register(RegisterRequest::new("b")).await?;
    Ok(())
}

/// Without a proxy, from a file; then from the environment.
#[tokio::test]
async fn a_runner_serves_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("one.yaml");
    std::fs::write(&file, "slots: { registry: memory, messaging: memory }\n")?;
    let runner = Runner::start(
        &["-config", &file.display().to_string()],
        &[("NAMESPACE", "solo")],
    )
    .await?;
    let client = runner.client("solo")?;
    runner.ready().await;
    client.registry.register(RegisterRequest::new("a")).await?;
    let (status, health) = http_get(runner.health, "/health").await?;
    assert_eq!(status, 200, "{health}");
    let registered = "multicast_registry_registered_identities{namespace=\"solo\"} 1";
    eventually(PATIENCE, "the view has followed", async || {
        http_get(runner.health, "/metrics")
            .await
            .is_ok_and(|(_, metrics)| metrics.contains(registered))
    })
    .await;

    let environment = [("REGISTRY_BACKEND", "memory"), ("NAMESPACE", "from-environment")];
    let runner = Runner::start(&[], &environment).await?;
    runner.ready().await;
    runner
        .client("from-environment")?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    Ok(())
}

/// What cannot be started says why, and ends at once.
#[tokio::test]
async fn a_runner_that_cannot_start_says_why() -> Result<()> {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let taken = taken.local_addr()?.to_string();
    let cases: [(&[&str], &str); 3] = [
        (&["-config", "/nowhere.yaml"], "/nowhere.yaml"),
        (
            &["-proxy-addr", "localhost:1", "-data-addr", &taken],
            "cannot listen",
        ),
        (&[], "nothing to serve"),
    ];
    for (arguments, expected) in cases {
        let mut process = prism_testkit::Process::spawn("multicast-registry-runner", arguments, &[])?;
        let status = process.wait(Duration::from_secs(10)).await?;
        assert!(!status.success());
        let said = process.stderr().join("\n");
        assert!(said.contains(expected), "{said}");
    }
    Ok(())
}
