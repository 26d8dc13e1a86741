//! What breaks, how that looks from outside, and that it mends.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use integration::{PATIENCE, Proxy, Runner, START_LIMIT, System, shared_namespace_at};
use prism_client::{Client, EnumerateRequest, Event, MulticastRequest, Reason, RegisterRequest, Status};
use prism_testkit::{FaultProxy, NatsServer, RedisServer, Signal, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

/// Longer than any call may take: its deadline is five seconds.
const CALL_LIMIT: Duration = Duration::from_secs(7);

/// Calls that go on until they are told to stop, and what became of them.
struct Traffic {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<BTreeMap<String, u64>>>,
}

impl Traffic {
    /// `width` callers, each registering, reading and enumerating in turn.
    fn start(client: &Client, width: usize) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = |number: usize| {
            let (client, stop, calls) = (client.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut failures = BTreeMap::new();
                for round in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    let identity = format!("caller-{number}-{}", round % 20);
                    let outcome = match round % 3 {
                        0 => {
                            let request = RegisterRequest {
                                replace: true,
                                ..RegisterRequest::new(identity)
                            };
                            client.registry.register(request).await.map(drop)
                        }
                        1 => client
                            .registry
                            .enumerate(EnumerateRequest::default())
                            .await
                            .map(drop),
                        _ => client.registry.unregister(identity).await.map(drop),
                    };
                    assert!(began.elapsed() < CALL_LIMIT, "a call took {:?}", began.elapsed());
                    calls.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = outcome {
                        let call = ["register", "enumerate", "unregister"][(round % 3) as usize];
                        let failure = format!("{:?} {} {call}", error.code(), error.reason_text());
                        *failures.entry(failure).or_default() += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                failures
            })
        };
        let tasks = (0..width).map(caller).collect();
        Self { stop, calls, tasks }
    }

    /// Waits until this many further calls have been made.
    async fn more(&self, calls: u64) {
        let goal = self.calls.load(Ordering::Relaxed) + calls;
        let enough = async || self.calls.load(Ordering::Relaxed) >= goal;
        eventually(START_LIMIT, "traffic goes on", enough).await;
    }

    /// Ends the traffic; how often each failure was seen.
    async fn stop(self) -> Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for task in self.tasks {
            for (failure, count) in tokio::time::timeout(CALL_LIMIT, task).await?? {
                *all.entry(failure).or_default() += count;
            }
        }
        Ok(all)
    }
}

async fn wait_until_served(client: &Client) {
    let works = async || {
        client
            .registry
            .enumerate(EnumerateRequest::default())
            .await
            .is_ok()
    };
    eventually(START_LIMIT, "calls are served again", works).await;
}

/// Only refusals that a client can act on, none that hides what happened.
fn assert_clear(failures: &BTreeMap<String, u64>) {
    for failure in failures.keys() {
        let clear = ["Unavailable", "DeadlineExceeded"]
            .iter()
            .any(|code| failure.starts_with(code));
        assert!(clear, "{failures:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_was_killed_comes_back_to_its_runners() -> Result<()> {
    let mut system = System::on_memory().await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("kept")).await?;
    let traffic = Traffic::start(&client, 4);
    traffic.more(50).await;
    system.proxy = system.proxy.restart().await?;
    wait_until_served(&client).await;
    traffic.more(50).await;
    let failures = traffic.stop().await?;
    assert_clear(&failures);
    assert!(
        client.registry.get("kept").await.is_ok(),
        "the runner's data plane never stopped"
    );
    let configured = system.runners[0].process.stderr();
    let configured = configured
        .iter()
        .filter(|line| line.contains("coordinator initialized"))
        .count();
    assert_eq!(configured, 1, "what had not changed was not initialized again");
    Ok(())
}

#[tokio::test]
async fn a_killed_runners_work_goes_to_the_other_one() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let traffic = Traffic::start(&client, 4);
    traffic.more(50).await;
    system.runners.remove(0).process.signal(Signal::KILL)?;
    traffic.more(200).await;
    let failures = traffic.stop().await?;
    assert_clear(&failures);
    let lost: u64 = failures.values().sum();
    assert!(
        lost <= 4 * 2,
        "only calls that were under way may fail, not {failures:?}"
    );
    system.proxy.wait_for_runners("test", 1).await;
    Ok(())
}

#[tokio::test]
async fn a_standby_takes_over_on_memory_slots() -> Result<()> {
    let mut system = System::on_memory().await?;
    let second = Runner::under(system.proxy.control).await?;
    eventually(PATIENCE, "the second runner is there", async || {
        let runners = system
            .proxy
            .admin_json("/api/v1/runners")
            .await
            .unwrap_or_default();
        runners
            .get("runners")
            .unwrap_or(&runners)
            .as_array()
            .is_some_and(|runners| runners.len() == 2)
    })
    .await;
    system.proxy.wait_for_runners("test", 1).await;
    let client = system.client()?;
    let before = client.registry.register(RegisterRequest::new("a")).await?;
    system.runners.remove(0).process.signal(Signal::KILL)?;
    system.runners.push(second);
    wait_until_served(&client).await;
    let gone = client.registry.get("a").await.unwrap_err();
    assert_eq!(
        gone.reason(),
        Some(Reason::NotRegistered),
        "another memory knows nothing of it"
    );
    let after = client.registry.register(RegisterRequest::new("a")).await?;
    assert_ne!(
        before.position.epoch, after.position.epoch,
        "and says so by a new epoch"
    );
    Ok(())
}

#[tokio::test]
async fn sessions_on_two_runners_are_reached_through_either() -> Result<()> {
    let system = System::on_redis_and_nats(2).await?;
    let clients = [
        system.runners[0].client("test")?,
        system.runners[1].client("test")?,
    ];
    let mut sessions = Vec::new();
    for (client, name) in clients.iter().zip(["on-first", "on-second"]) {
        client.registry.register(RegisterRequest::new(name)).await?;
        let mut session = client.registry.subscribe(name).await?;
        assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));
        sessions.push(session);
    }
    for (client, text) in clients.iter().zip(["through the first", "through the second"]) {
        let request = MulticastRequest {
            payload: text.into(),
            ..Default::default()
        };
        let sent = client.registry.multicast(request).await?;
        assert_eq!((sent.target_count, sent.delivered_count), (2, 2), "{text}");
        for session in &mut sessions {
            match tokio::time::timeout(PATIENCE, session.next()).await? {
                Some(Ok(Event::Message(message))) => assert_eq!(&message.payload[..], text.as_bytes()),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn redis_may_stop_and_come_back() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let traffic = Traffic::start(&client, 4);
    traffic.more(50).await;
    let redis = system.redis.as_mut().expect("on redis");
    redis.stop();
    traffic.more(20).await;
    redis.restart_empty().await?;
    wait_until_served(&client).await;
    traffic.more(50).await;
    let failures = traffic.stop().await?;
    assert_clear(&failures);
    assert!(!failures.is_empty(), "an outage is not hidden");
    client
        .registry
        .register(RegisterRequest {
            replace: true,
            ..RegisterRequest::new("after")
        })
        .await?;
    assert!(
        system
            .runners
            .iter_mut()
            .all(|runner| runner.process.signal(Signal::CONT).is_ok()),
        "none restarted"
    );
    Ok(())
}

#[tokio::test]
async fn nats_may_stop_and_come_back() -> Result<()> {
    let mut system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let mut session = client.registry.subscribe("a").await?;
    assert!(matches!(session.next().await, Some(Ok(Event::Opened(_)))));
    let multicast = |timeout| MulticastRequest {
        timeout: Some(timeout),
        ..Default::default()
    };

    system.nats.as_mut().expect("on nats").stop();
    let began = Instant::now();
    let sent = client
        .registry
        .multicast(multicast(Duration::from_millis(500)))
        .await?;
    assert!(began.elapsed() < CALL_LIMIT);
    assert_eq!(sent.delivered_count, 0, "nothing is claimed: {:?}", sent.statuses);
    assert!(matches!(
        sent.statuses[0].status,
        Status::Failed | Status::Timeout
    ));

    system.nats.as_mut().expect("on nats").restart().await?;
    eventually(START_LIMIT, "multicasts are delivered again", async || {
        let sent = client.registry.multicast(multicast(Duration::from_secs(1))).await;
        sent.is_ok_and(|sent| sent.delivered_count == 1)
    })
    .await;
    let mut gap = false;
    loop {
        match tokio::time::timeout(PATIENCE, session.next()).await? {
            Some(Ok(Event::Gap(_))) => gap = true,
            Some(Ok(Event::Opened(_))) => {}
            Some(Ok(Event::Message(_))) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(gap, "the session is told that messages may be missing");
    Ok(())
}

/// A frozen store, a black-holed broker: every call ends within its deadline.
#[tokio::test]
async fn nothing_hangs_when_a_backend_does() -> Result<()> {
    let (mut redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let dark = FaultProxy::start(nats.addr()).await?;
    let proxy = Proxy::start(&[shared_namespace_at("test", redis.addr(), dark.addr())]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;

    dark.black_hole();
    let began = Instant::now();
    let request = MulticastRequest {
        timeout: Some(Duration::from_millis(700)),
        ..Default::default()
    };
    let sent = client.registry.multicast(request).await?;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(
        (sent.delivered_count, sent.timeout_count),
        (0, 1),
        "{:?}",
        sent.statuses
    );
    dark.heal();

    redis.freeze()?;
    let hurried = client.registry.with_timeout(Duration::from_millis(700));
    let began = Instant::now();
    let error = hurried.register(RegisterRequest::new("b")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(matches!(
        error.code(),
        prism_client::Code::DeadlineExceeded | prism_client::Code::Unavailable
    ));
    redis.thaw()?;
    wait_until_served(&client).await;
    Ok(())
}

/// A proxy that accepts and says nothing.
#[tokio::test]
async fn a_mute_proxy_does_not_hold_its_clients() -> Result<()> {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let client = integration::client_of(mute.local_addr()?, "test")?;
    let hurried = client.registry.with_timeout(Duration::from_millis(300));
    let began = Instant::now();
    assert!(hurried.get("a").await.is_err());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    Ok(())
}

/// A runner is told to end while calls arrive, and none of them fails.
#[tokio::test]
async fn a_runner_drains_without_failing_a_call() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let traffic = Traffic::start(&client, 8);
    traffic.more(100).await;
    let mut leaving = system.runners.remove(0);
    leaving.process.signal(Signal::TERM)?;
    let status = leaving.process.wait(START_LIMIT).await?;
    assert!(status.success(), "{status}");
    traffic.more(200).await;
    assert_eq!(traffic.stop().await?, BTreeMap::new());
    Ok(())
}

/// Packets go nowhere, connections stay open: noticed within 15 seconds. The runner keeps its routes as
/// long as its data endpoint answers.
#[tokio::test]
async fn a_half_open_control_link_is_noticed() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let link = FaultProxy::start(system.proxy.control).await?;
    let _second = Runner::under(link.addr()).await?;
    system.proxy.wait_for_runners("test", 2).await;
    let connected = async || {
        let listed = system
            .proxy
            .admin_json("/api/v1/runners")
            .await
            .unwrap_or_default();
        let runners = listed["runners"].as_array().cloned().unwrap_or_default();
        runners
            .iter()
            .filter(|runner| runner["connected"] == true)
            .count()
    };
    link.black_hole();
    let began = Instant::now();
    eventually(START_LIMIT, "the proxy gives the link up", async || {
        connected().await == 1
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let client = system.client()?;
    for _ in 0..20 {
        client.registry.enumerate(EnumerateRequest::default()).await?;
    }
    link.heal();
    eventually(START_LIMIT, "the runner is back", async || connected().await == 2).await;
    Ok(())
}

/// A namespace whose backend is not there is served, says so, and mends when it comes.
#[tokio::test]
async fn a_backend_that_is_missing_at_the_start_is_found_later() -> Result<()> {
    let (mut redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    redis.stop();
    let proxy = Proxy::start(&[shared_namespace_at("test", redis.addr(), nats.addr())]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    let hurried = client.registry.with_timeout(Duration::from_secs(2));
    let error = hurried.register(RegisterRequest::new("a")).await.unwrap_err();
    assert!(
        matches!(
            error.reason(),
            Some(Reason::BackendUnavailable | Reason::NotReady)
        ),
        "{error:?}"
    );
    redis.restart().await?;
    eventually(START_LIMIT, "the registration succeeds", async || {
        client
            .registry
            .register(RegisterRequest {
                metadata: json!({}),
                ..RegisterRequest::new("a")
            })
            .await
            .is_ok()
    })
    .await;
    Ok(())
}

/// One process for everything, on a laptop.
#[tokio::test]
async fn the_embedded_system_needs_nothing_else() -> Result<()> {
    let proxy = Proxy::embedded().await?;
    proxy.wait_for_runners("default", 1).await;
    let client = proxy.client("default")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let (status, ready) = proxy.admin("/readyz?verbose").await?;
    assert_eq!(status, 200, "{ready}");
    for line in [
        // Once the view has followed.
        "multicast_registry_registered_identities{namespace=\"default\"} 1",
        "prism_proxy_runners_connected 1",
    ] {
        eventually(PATIENCE, line, async || {
            let metrics = proxy.admin("/metrics").await;
            metrics.is_ok_and(|(_, metrics)| metrics.lines().any(|other| other == line))
        })
        .await;
    }
    Ok(())
}
