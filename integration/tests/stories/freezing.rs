//! Processes that are there and do nothing: their connections stay open, and only silence tells.

use std::time::{Duration, Instant};

use anyhow::Result;
use integration::{Proxy, Runner, START_LIMIT, System, memory_namespace, shared_namespace};
use prism_client::{Applied, Code, Reason, RegisterRequest};
use prism_testkit::{NatsServer, RedisServer, Signal, eventually};

/// Within which a link that leads nowhere has to be noticed, at both ends.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_runner_notices_that_its_proxy_is_frozen() -> Result<()> {
    let mut system = System::on_memory().await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let runner = &system.runners[0];
    let direct = runner.client("test")?;

    system.proxy.process.freeze()?;
    let began = Instant::now();
    runner
        .process
        .stderr_line("the proxy was silent", START_LIMIT)
        .await?;
    assert!(began.elapsed() < NOTICED_WITHIN, "{:?}", began.elapsed());
    assert!(
        direct.registry.get("a").await.is_ok(),
        "its data endpoint serves on"
    );

    system.proxy.process.thaw()?;
    eventually(START_LIMIT, "the runner is back", async || {
        count(&runner.process.stderr(), "registered with the proxy") >= 2
    })
    .await;
    eventually(START_LIMIT, "calls go through", async || {
        client.registry.get("a").await.is_ok()
    })
    .await;
    let said = runner.process.stderr();
    assert_eq!(
        count(&said, "coordinator initialized"),
        1,
        "nothing was configured anew"
    );
    assert_eq!(count(&said, "coordinator ready"), 1, "nothing was started anew");
    let runners = system.proxy.admin_json("/api/v1/runners").await?;
    assert_eq!(
        runners["runners"].as_array().map(Vec::len),
        Some(1),
        "as itself: {runners}"
    );
    Ok(())
}

#[tokio::test]
async fn a_proxy_notices_that_a_runner_is_frozen() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("test")]).await?;
    let mut owner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let standby = Runner::under(proxy.control).await?;
    standby
        .process
        .stderr_line("registered with the proxy", START_LIMIT)
        .await?;

    owner.process.freeze()?;
    let began = Instant::now();
    // A call that is with the frozen one ends by its own deadline, or sooner when the runner is given up.
    let hurried = client.registry.with_timeout(Duration::from_secs(1));
    let error = hurried.get("a").await.unwrap_err();
    assert!(
        matches!(error.code(), Code::DeadlineExceeded | Code::Unavailable),
        "{error:?}"
    );
    let patient = client.registry.with_timeout(Duration::from_secs(60));
    let waiting = tokio::spawn(async move { patient.register(RegisterRequest::new("b")).await });

    standby
        .process
        .stderr_line("coordinator ready", START_LIMIT)
        .await?;
    assert!(began.elapsed() < NOTICED_WITHIN, "{:?}", began.elapsed());
    let lost = waiting.await?.unwrap_err();
    assert_eq!(lost.reason(), Some(Reason::RunnerLost), "{lost:?}");
    eventually(START_LIMIT, "another memory answers", async || {
        let gone = client.registry.get("a").await;
        gone.is_err_and(|gone| gone.reason() == Some(Reason::NotRegistered))
    })
    .await;

    // It comes back to find that another has taken over, and lets go.
    owner.process.thaw()?;
    owner
        .process
        .stderr_line("the namespace was taken away", START_LIMIT)
        .await?;
    proxy.wait_for_runners("test", 1).await;
    client.registry.register(RegisterRequest::new("c")).await?;
    assert!(standby.client("test")?.registry.get("c").await.is_ok());
    Ok(())
}

/// A runner dies with a call in its hands: nobody knows what became of it, and that is what is said.
#[tokio::test]
async fn a_call_whose_runner_dies_may_have_been_applied() -> Result<()> {
    let (mut redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let proxy = Proxy::start(&[shared_namespace("test", &redis, &nats)]).await?;
    let mut runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    redis.freeze()?;
    let calling = tokio::spawn(async move { client.registry.register(RegisterRequest::new("b")).await });
    let under_way = "prism_proxy_calls_in_flight 1\n";
    eventually(START_LIMIT, "the call is under way", async || {
        proxy
            .admin("/metrics")
            .await
            .is_ok_and(|(_, metrics)| metrics.contains(under_way))
    })
    .await;
    runner.process.signal(Signal::KILL)?;
    let lost = calling.await?.unwrap_err();
    assert_eq!(
        (lost.code(), lost.reason()),
        (Code::Unavailable, Some(Reason::RunnerLost)),
        "{lost:?}"
    );
    assert_eq!(lost.applied(), Applied::Unknown, "{lost:?}");
    redis.thaw()?;
    Ok(())
}
