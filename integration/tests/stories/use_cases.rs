//! The four use cases of RFC-017, with their schemas as written there: on memory, and on Redis and NATS
//! with two runners.

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use integration::{PATIENCE, Proxy, Runner, memory_namespace, shared_namespace};
use prism_client::{
    Client, EnumerateRequest, Event, Filter, MulticastRequest, Reason, RegisterRequest, Subscription,
};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::{Value, json};

/// Runs a story in a namespace with the configuration of a use case, on each kind of backend.
async fn on_every_backend(
    written: &str,
    story: impl Fn(Client) -> BoxFuture<'static, Result<()>>,
) -> Result<()> {
    let written: Value = serde_saphyr::from_str(written)?;
    let configured = |mut namespace: Value| {
        for (key, value) in written.as_object().into_iter().flatten() {
            namespace[key] = value.clone();
        }
        namespace
    };
    let proxy = Proxy::start(&[configured(memory_namespace("test"))]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    story(proxy.client("test")?).await.context("on memory")?;

    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let proxy = Proxy::start(&[configured(shared_namespace("test", &redis, &nats))]).await?;
    let _runners = [
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("test", 2).await;
    story(proxy.client("test")?).await.context("on redis and nats")
}

async fn register(client: &Client, identity: &str, metadata: Value) -> Result<(), prism_client::Error> {
    let request = RegisterRequest {
        metadata,
        ttl: Some(30),
        ..RegisterRequest::new(identity)
    };
    client.registry.register(request).await.map(drop)
}

/// The field that a registration is refused for.
async fn refused(client: &Client, metadata: Value) -> String {
    let error = register(client, "refused", metadata).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::InvalidMetadata), "{error}");
    error.field().unwrap_or_default().to_owned()
}

async fn names(client: &Client, filter: Value) -> Result<Vec<String>> {
    let filter = Filter::parse_json(&filter, &prism_filter::Limits::default())?;
    let request = EnumerateRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let page = client.registry.enumerate(request).await?;
    Ok(page.into_iter().map(|found| found.identity).collect())
}

async fn listen(client: &Client, identity: &str) -> Result<Subscription> {
    let mut session = client.registry.subscribe(identity).await?;
    let opened = tokio::time::timeout(PATIENCE, session.next()).await?;
    anyhow::ensure!(matches!(opened, Some(Ok(Event::Opened(_)))), "{opened:?}");
    Ok(session)
}

/// Sends to those that match, of whom so many listen.
async fn send(client: &Client, filter: Value, message: Value) -> Result<(u64, u64)> {
    let request = MulticastRequest {
        filter: Some(Filter::parse_json(&filter, &prism_filter::Limits::default())?),
        payload: serde_json::to_vec(&message)?,
        ..Default::default()
    };
    let sent = client.registry.multicast(request).await?;
    Ok((sent.target_count, sent.delivered_count))
}

async fn heard(session: &mut Subscription) -> Result<Value> {
    match tokio::time::timeout(PATIENCE, session.next()).await? {
        Some(Ok(Event::Message(message))) => Ok(message.json()?),
        other => anyhow::bail!("no message but {other:?}"),
    }
}

#[tokio::test]
async fn microservice_coordination() -> Result<()> {
    let written =
        include_str!("../../../crates/multicast-registry/fixtures/specification/rfc-use-case-services.yaml");
    on_every_backend(written, |client| {
        Box::pin(async move {
            let instance = |service: &str, health: &str| {
                json!({
                    "service_name": service,
                    "version": "2.3.1",
                    "endpoint": "http://10.1.2.42:8080",
                    "health_status": health,
                    "capabilities": ["credit-card", "paypal", "stripe"],
                })
            };
            let payment = "payment-service-instance-42";
            register(&client, payment, instance("payment-service", "healthy")).await?;
            register(
                &client,
                "payment-service-instance-43",
                instance("payment-service", "degraded"),
            )
            .await?;
            register(
                &client,
                "cart-service-instance-1",
                instance("cart-service", "healthy"),
            )
            .await?;
            assert_eq!(
                refused(&client, instance("x", "fine")).await,
                "metadata.health_status"
            );
            assert_eq!(
                refused(&client, json!({ "capabilities": ["a", 1] })).await,
                "metadata.capabilities[1]"
            );
            let healthy = json!({ "service_name": "payment-service", "health_status": "healthy" });
            assert_eq!(names(&client, healthy).await?, [payment]);
            assert_eq!(
                names(&client, json!({ "capabilities.contains": "paypal" }))
                    .await?
                    .len(),
                3
            );
            let mut session = listen(&client, payment).await?;
            let update = json!({ "type": "config_update", "feature_flags": { "new-checkout": true } });
            assert_eq!(
                send(&client, json!({ "service_name": "*" }), update.clone()).await?,
                (3, 1)
            );
            assert_eq!(heard(&mut session).await?, update);
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn iot_command_and_control() -> Result<()> {
    let written =
        include_str!("../../../crates/multicast-registry/fixtures/specification/rfc-use-case-devices.yaml");
    on_every_backend(written, |client| {
        Box::pin(async move {
            let device = |level: f64, firmware: &str| {
                json!({
                    "device_type": "sensor",
                    "location": { "lat": 37.7749, "lon": -122.4194, "building": "HQ" },
                    "firmware_version": firmware,
                    "battery_level": level,
                    "last_seen": "2026-01-02T03:04:05Z",
                    // Not in the schema, and welcome.
                    "capabilities": ["temperature", "humidity"],
                })
            };
            let sensor = "sensor-temp-floor2-room5";
            register(&client, sensor, device(0.78, "1.0.3")).await?;
            register(&client, "sensor-temp-floor2-room6", device(0.15, "1.0.4")).await?;
            register(&client, "sensor-temp-floor3-room1", device(0.9, "2.1.0")).await?;
            assert_eq!(
                refused(&client, json!({ "location": { "lat": 91, "lon": 0 } })).await,
                "metadata.location"
            );
            assert_eq!(
                refused(&client, json!({ "battery_level": "full" })).await,
                "metadata.battery_level"
            );
            assert_eq!(
                refused(&client, json!({ "last_seen": "yesterday" })).await,
                "metadata.last_seen"
            );
            assert_eq!(
                refused(&client, json!({ "device_type": "toaster" })).await,
                "metadata.device_type"
            );
            let weak = json!({ "location.building": "HQ", "battery_level.lt": 0.2 });
            assert_eq!(names(&client, weak).await?, ["sensor-temp-floor2-room6"]);
            let mut session = listen(&client, sensor).await?;
            let command = json!({ "command": "update_firmware", "url": "https://updates.example/1.1" });
            let old = json!({ "firmware_version.startswith": "1.0" });
            assert_eq!(send(&client, old, command.clone()).await?, (2, 1));
            assert_eq!(heard(&mut session).await?, command);
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn presence_system() -> Result<()> {
    let written =
        include_str!("../../../crates/multicast-registry/fixtures/specification/rfc-use-case-presence.yaml");
    on_every_backend(written, |client| {
        Box::pin(async move {
            let user = |name: &str, room: &str, status: &str| {
                json!({
                    "user_id": name,
                    "display_name": name,
                    "status": status,
                    "current_room": room,
                    "client_version": "web-2.0",
                    "last_activity": 1_767_323_045_000_i64,
                })
            };
            let alice = "user-alice-session-abc123";
            register(&client, alice, user("alice", "engineering", "online")).await?;
            register(&client, "user-bob-session-1", user("bob", "engineering", "away")).await?;
            register(&client, "user-carol-session-9", user("carol", "sales", "online")).await?;
            assert_eq!(
                refused(&client, user("dave", "sales", "gone")).await,
                "metadata.status"
            );
            let here = json!({ "current_room": "engineering", "status": "online" });
            assert_eq!(names(&client, here).await?, [alice]);
            let mut session = listen(&client, alice).await?;
            let chat = json!({ "type": "chat", "from": "alice", "text": "Hello team!" });
            let room = json!({ "current_room": "engineering" });
            assert_eq!(send(&client, room.clone(), chat.clone()).await?, (2, 1));
            assert_eq!(heard(&mut session).await?, chat);
            client.registry.unregister(alice).await?;
            assert_eq!(names(&client, room).await?, ["user-bob-session-1"]);
            Ok(())
        })
    })
    .await
}

#[tokio::test]
async fn agent_pool_management() -> Result<()> {
    let written =
        include_str!("../../../crates/multicast-registry/fixtures/specification/rfc-use-case-agents.yaml");
    on_every_backend(written, |client| {
        Box::pin(async move {
            let agent = |kind: &str, tasks: u32| {
                json!({
                    "agent_id": kind,
                    "agent_type": kind,
                    "available_resources": { "cores": 8, "memory_gib": 32.5 },
                    "current_tasks": tasks,
                    "max_tasks": 4,
                    "tags": ["batch", "nightly"],
                })
            };
            register(&client, "agent-1", agent("gpu", 4)).await?;
            register(&client, "agent-2", agent("gpu", 1)).await?;
            register(&client, "agent-3", agent("cpu", 0)).await?;
            assert_eq!(
                refused(&client, json!({ "current_tasks": 1.5 })).await,
                "metadata.current_tasks"
            );
            assert_eq!(
                refused(&client, json!({ "tags": "batch" })).await,
                "metadata.tags"
            );
            assert_eq!(
                refused(&client, json!({ "available_resources": 8 })).await,
                "metadata.available_resources"
            );
            let free = json!({ "agent_type": "gpu", "current_tasks.lt": 4 });
            assert_eq!(names(&client, free).await?, ["agent-2"]);
            let large = json!({ "available_resources.memory_gib.gte": 32 });
            assert_eq!(names(&client, large).await?.len(), 3);
            let mut session = listen(&client, "agent-3").await?;
            let cancel = json!({ "type": "cancel", "tag": "nightly" });
            assert_eq!(
                send(&client, json!({ "tags.contains": "nightly" }), cancel.clone()).await?,
                (3, 1)
            );
            assert_eq!(heard(&mut session).await?, cancel);
            Ok(())
        })
    })
    .await
}
