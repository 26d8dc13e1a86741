//! Stored messages as users have them: on every durability backend, through the proxy and two runners.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::{
    Proxy, Runner,
    calls::{next_message, reaches, register, stored},
};
use prism_client::{Client, DeliverySemantics, Filter, MulticastRequest, Stage, Status};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A system whose namespace `test` stores messages, and what keeps it running.
struct Durable {
    proxy: Proxy,
    runners: Vec<Runner>,
    _redis: RedisServer,
    _nats: NatsServer,
}

impl Durable {
    async fn start(durability: impl FnOnce(&RedisServer, &NatsServer) -> Value) -> Result<Self> {
        let aof = ["--appendonly", "yes", "--appendfsync", "always"];
        let redis = RedisServer::start_with(&aof).await?;
        let nats = NatsServer::start_with_jetstream().await?;
        let mut namespace = integration::shared_namespace("test", &redis, &nats);
        namespace["slots"]["durability"] = durability(&redis, &nats);
        namespace["behavior"] = json!({ "ack_timeout": "1s", "max_deliver": 3 });
        let proxy = Proxy::start(&[namespace]).await?;
        let mut runners = Vec::new();
        for _ in 0..2 {
            runners.push(Runner::under(proxy.control).await?);
        }
        proxy.wait_for_runners("test", 2).await;
        Ok(Self {
            proxy,
            runners,
            _redis: redis,
            _nats: nats,
        })
    }

    async fn on_jetstream() -> Result<Self> {
        Self::start(|_, nats| json!({ "backend": "nats", "config": { "servers": [nats.url()] } })).await
    }

    async fn on_redis_streams() -> Result<Self> {
        Self::start(|redis, _| {
            json!({ "backend": "redis-stream", "config": { "address": redis.addr().to_string() } })
        })
        .await
    }

    fn client(&self) -> Result<Client> {
        self.proxy.client("test")
    }
}

/// What is sent while nobody is there waits, comes in order, comes again until it is acknowledged, and its sender
/// can see that.
async fn messages_wait(system: &Durable) -> Result<()> {
    let client = system.client()?;
    register(&client, &["a"]).await?;
    let first = client.registry.multicast(stored("1")).await?;
    assert_eq!((first.pending_count, first.statuses[0].stage), (1, Stage::Stored));
    let second = client.registry.multicast(stored("2")).await?;
    let mut session = client.registry.subscribe("a").await?;
    let (one, two) = (
        next_message(&mut session).await?,
        next_message(&mut session).await?,
    );
    assert_eq!((&one.payload[..], &two.payload[..]), (&b"1"[..], &b"2"[..]));
    assert!(one.stored && one.attempt == 1, "{one:?}");
    one.ack().await?;
    reaches(&client, &first.multicast_id, Stage::Acked).await;
    let again = next_message(&mut session).await?;
    assert_eq!((&again.delivery_id, again.attempt), (&two.delivery_id, 2));
    again.ack().await?;
    reaches(&client, &second.multicast_id, Stage::Acked).await;
    Ok(())
}

/// A multicast that waits for acknowledgments gets those of live sessions on either runner.
async fn acknowledgments_come_home(system: &Durable) -> Result<()> {
    let client = system.client()?;
    let names: Vec<String> = (0..20).map(|number| format!("live-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    register(&client, &names).await?;
    let mut consumers = Vec::new();
    for name in &names {
        let mut session = client.registry.subscribe(*name).await?;
        consumers.push(tokio::spawn(async move {
            let message = next_message(&mut session).await?;
            let said = message.ack().await?;
            // The words of a session go out as it is read.
            tokio::select! {
                settled = said.settled() => settled.map(drop)?,
                _ = session.next() => {}
            }
            anyhow::Ok(())
        }));
    }
    let acked = MulticastRequest {
        filter: Some(Filter::new().starts_with("$identity", "live-")),
        require: Some(Stage::Acked),
        timeout: Some(Duration::from_secs(4)),
        ..stored("x")
    };
    let report = client.registry.multicast(acked).await?;
    ensure!(report.delivered_count == 20, "{report:?}");
    consumers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// The same key is the same multicast, also when the runner that made it was killed meanwhile.
async fn repeated_calls_survive_a_kill(mut system: Durable) -> Result<()> {
    let client = system.client()?;
    register(&client, &["b"]).await?;
    let once = MulticastRequest {
        filter: Some(Filter::new().eq("$identity", "b")),
        delivery: Some(DeliverySemantics::ExactlyOnce),
        idempotency_key: Some("order-7".to_owned()),
        ..stored("once")
    };
    let first = client.registry.multicast(once.clone()).await?;
    // One after the other, so that whichever made it is gone once.
    for _ in 0..2 {
        drop(system.runners.remove(0));
        system.proxy.wait_for_runners("test", 1).await;
        system.runners.push(Runner::under(system.proxy.control).await?);
        system.proxy.wait_for_runners("test", 2).await;
        let again = client.registry.multicast(once.clone()).await?;
        assert_eq!((&again.multicast_id, again.replayed), (&first.multicast_id, true));
        assert_eq!(again.statuses[0].status, Status::Pending);
    }
    let mut session = client.registry.subscribe("b").await?;
    let message = next_message(&mut session).await?;
    assert_eq!(message.multicast_id, first.multicast_id);
    message.ack().await?;
    reaches(&client, &first.multicast_id, Stage::Acked).await;
    let more = timeout(Duration::from_millis(1_500), next_message(&mut session)).await;
    assert!(more.is_err(), "{more:?}");
    Ok(())
}

#[tokio::test]
async fn messages_wait_on_jetstream() -> Result<()> {
    let system = Durable::on_jetstream().await?;
    messages_wait(&system).await?;
    acknowledgments_come_home(&system).await?;
    repeated_calls_survive_a_kill(system).await
}

#[tokio::test]
async fn messages_wait_on_redis_streams() -> Result<()> {
    let system = Durable::on_redis_streams().await?;
    messages_wait(&system).await?;
    acknowledgments_come_home(&system).await?;
    repeated_calls_survive_a_kill(system).await
}

/// A single binary with a file: what was stored is there after a kill, and so is who is registered.
#[tokio::test]
async fn a_single_box_loses_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = json!({ "backend": "sqlite", "config": { "path": directory.path().join("prism.db") } });
    let namespace = json!({
        "name": "test",
        "pattern": "multicast-registry",
        "slots": { "registry": file, "messaging": "memory", "durability": file },
        "behavior": { "ack_timeout": "1s" },
    });
    let config = json!({ "namespaces": [namespace] });
    let proxy = Proxy::start_with(&config, &["--embedded"]).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    register(&client, &["a"]).await?;
    let sent = client.registry.multicast(stored("kept")).await?;
    drop((client, proxy));
    let proxy = Proxy::start_with(&config, &["--embedded"]).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    let mut session = client.registry.subscribe("a").await?;
    let message = next_message(&mut session).await?;
    assert_eq!(message.payload[..], b"kept"[..]);
    message.ack().await?;
    reaches(&client, &sent.multicast_id, Stage::Acked).await;
    Ok(())
}
