//! The acceptance tests of the plan, under its names.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use futures::future::try_join_all;
use integration::{PATIENCE, System};
use prism_client::{
    Client, EnumerateRequest, Event, Filter, Multicast, MulticastRequest, Reason, RegisterRequest, Stage,
    Status, Subscription,
};
use prism_testkit::eventually;
use serde_json::{Value, json};

fn register(identity: &str, metadata: Value) -> RegisterRequest {
    RegisterRequest {
        metadata,
        ..RegisterRequest::new(identity)
    }
}

async fn names(client: &Client, filter: Filter) -> Result<Vec<String>> {
    let request = EnumerateRequest {
        filter: Some(filter),
        ..Default::default()
    };
    let page = client.registry.enumerate(request).await?;
    Ok(page
        .identities
        .into_iter()
        .map(|identity| identity.identity)
        .collect())
}

async fn multicast(client: &Client, filter: Filter, payload: &str) -> Result<Multicast> {
    let request = MulticastRequest {
        filter: Some(filter),
        payload: payload.into(),
        ..Default::default()
    };
    Ok(client.registry.multicast(request).await?)
}

/// Subscribes, and waits until the session is live.
async fn subscribe(client: &Client, identity: &str) -> Result<Subscription> {
    let mut subscription = client.registry.subscribe(identity).await?;
    let opened = tokio::time::timeout(PATIENCE, subscription.next()).await?;
    assert!(matches!(opened, Some(Ok(Event::Opened(_)))), "{opened:?}");
    Ok(subscription)
}

async fn receive(subscription: &mut Subscription) -> Result<Vec<u8>> {
    match tokio::time::timeout(PATIENCE, subscription.next()).await? {
        Some(Ok(Event::Message(message))) => Ok(message.payload.to_vec()),
        other => anyhow::bail!("expected a message, got {other:?}"),
    }
}

#[tokio::test]
async fn test_register_identity() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let metadata =
        json!({ "status": "online", "firmware": "1.0.3", "tags": ["a", "b"], "level": 0.5, "none": null });
    let registered = client
        .registry
        .register(register("sensor-1", metadata.clone()))
        .await?;
    let found = client.registry.get("sensor-1").await?;
    assert_eq!(Value::Object(found.identity.metadata), metadata);
    assert_eq!(found.identity.generation, registered.generation);
    let other = system.proxy.client("test")?;
    let refused = other
        .registry
        .register(register("sensor-1", json!({})))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::AlreadyRegistered));
    Ok(())
}

#[tokio::test]
async fn test_enumerate_filtered() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    for number in 0..30 {
        let status = if number % 2 == 0 { "online" } else { "offline" };
        let metadata = json!({ "status": status, "battery": f64::from(number) / 30.0 });
        client
            .registry
            .register(register(&format!("device-{number:02}"), metadata))
            .await?;
    }
    let filter = Filter::new().eq("status", "online").lt("battery", 0.2);
    assert_eq!(
        names(&client, filter).await?,
        ["device-00", "device-02", "device-04"]
    );
    assert_eq!(names(&client, Filter::new()).await?.len(), 30);
    Ok(())
}

#[tokio::test]
async fn test_multicast_all() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c"] {
        client.registry.register(register(name, json!({}))).await?;
        sessions.push(subscribe(&client, name).await?);
    }
    let sent = multicast(&client, Filter::new(), "to everyone").await?;
    assert_eq!((sent.target_count, sent.delivered_count), (3, 3));
    for session in &mut sessions {
        assert_eq!(receive(session).await?, b"to everyone");
    }
    Ok(())
}

#[tokio::test]
async fn test_multicast_filtered() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let mut sessions = Vec::new();
    for (name, room) in [
        ("alice", "engineering"),
        ("bob", "engineering"),
        ("carol", "sales"),
    ] {
        client
            .registry
            .register(register(name, json!({ "room": room })))
            .await?;
        sessions.push(subscribe(&client, name).await?);
    }
    let sent = multicast(&client, Filter::new().eq("room", "engineering"), "to engineers").await?;
    let targets: Vec<&str> = sent
        .statuses
        .iter()
        .map(|status| status.identity.as_str())
        .collect();
    assert_eq!(targets, ["alice", "bob"]);
    multicast(&client, Filter::new(), "to all").await?;
    assert_eq!(receive(&mut sessions[0]).await?, b"to engineers");
    assert_eq!(
        receive(&mut sessions[2]).await?,
        b"to all",
        "and nothing before it"
    );
    Ok(())
}

#[tokio::test]
async fn test_ttl_expiration() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let leased = RegisterRequest {
        ttl_ms: Some(600),
        ..register("brief", json!({}))
    };
    client.registry.register(leased).await?;
    client.registry.register(register("lasting", json!({}))).await?;
    let mut session = subscribe(&client, "brief").await?;
    eventually(PATIENCE, "the lease ends", async || {
        names(&client, Filter::new())
            .await
            .is_ok_and(|names| names == ["lasting"])
    })
    .await;
    let gone = client.registry.get("brief").await.unwrap_err();
    assert_eq!(gone.reason(), Some(Reason::NotRegistered));
    let ended = tokio::time::timeout(PATIENCE, session.next()).await?;
    let Some(Err(error)) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(
        error.reason(),
        Some(Reason::Unregistered),
        "its session ends as well"
    );
    Ok(())
}

#[tokio::test]
async fn test_unregister() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    client.registry.register(register("a", json!({}))).await?;
    let mut session = subscribe(&client, "a").await?;
    assert!(client.registry.unregister("a").await?.existed);
    assert!(!client.registry.unregister("a").await?.existed);
    assert_eq!(names(&client, Filter::new()).await?, [""; 0]);
    let ended = tokio::time::timeout(PATIENCE, session.next()).await?;
    assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn test_filter_operators() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    client
        .registry
        .register(register(
            "a",
            json!({ "n": 1, "s": "abc", "l": ["x"], "o": { "p": true } }),
        ))
        .await?;
    client
        .registry
        .register(register("b", json!({ "n": 2, "s": "abd", "z": null })))
        .await?;
    client.registry.register(register("c", json!({ "s": 3 }))).await?;
    let cases = [
        (json!({ "n": 1 }), "a"),
        (json!({ "n.ne": 1 }), "bc"),
        (json!({ "n.lt": 2 }), "a"),
        (json!({ "n.lte": 2 }), "ab"),
        (json!({ "n.gt": 1 }), "b"),
        (json!({ "n.gte": 1 }), "ab"),
        (json!({ "n.in": [1, 2] }), "ab"),
        (json!({ "n.nin": [1] }), "bc"),
        (json!({ "s.startswith": "ab" }), "ab"),
        (json!({ "s.endswith": "d" }), "b"),
        (json!({ "s.contains": "bc" }), "a"),
        (json!({ "l.contains": "x" }), "a"),
        (json!({ "s.regex": "^ab[cd]$" }), "ab"),
        (json!({ "n.exists": false }), "c"),
        (json!({ "metadata.exists": "z" }), "b"),
        (json!({ "s.type": "number" }), "c"),
        (json!({ "n": "*" }), "ab"),
        (json!({ "z": null }), "b"),
        (json!({ "o.p": true }), "a"),
        (json!({ "n": { "$gte": 1, "$lt": 2 } }), "a"),
        (json!({ "$or": [{ "n": 1 }, { "s": 3 }] }), "ac"),
        (json!({ "$and": [{ "n.gt": 0 }, { "s": "abd" }] }), "b"),
        (json!({ "$not": { "n.exists": true } }), "c"),
        (json!({ "$identity.in": ["a", "c"] }), "ac"),
        (json!({}), "abc"),
    ];
    for (filter, expected) in cases {
        let parsed = Filter::parse_json(&filter, &prism_filter::Limits::default())?;
        assert_eq!(names(&client, parsed).await?.concat(), expected, "{filter}");
    }
    Ok(())
}

#[tokio::test]
async fn test_fanout_delivery() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let mut sessions = Vec::new();
    for number in 0..50 {
        let name = format!("worker-{number:02}");
        client
            .registry
            .register(register(&name, json!({ "pool": "gpu" })))
            .await?;
        sessions.push(subscribe(&client, &name).await?);
    }
    for round in 0..5 {
        let payload = format!("round {round}");
        let sent = multicast(&client, Filter::new().eq("pool", "gpu"), &payload).await?;
        assert_eq!(sent.delivered_count, 50);
        for session in &mut sessions {
            assert_eq!(receive(session).await?, payload.as_bytes());
        }
    }
    Ok(())
}

/// Ten identities: each with a subscriber, ten are delivered; without, ten are known not to be.
#[tokio::test]
async fn delivered_means_somebody_was_listening() -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    for number in 0..10 {
        let metadata = json!({ "status": "online", "room": "engineering" });
        client
            .registry
            .register(register(&format!("user-{number}"), metadata))
            .await?;
    }
    let filter = || Filter::new().eq("status", "online").eq("room", "engineering");
    assert_eq!(names(&client, filter()).await?.len(), 10);
    let unheard = multicast(&client, filter(), "Hello!").await?;
    assert_eq!(
        (
            unheard.target_count,
            unheard.delivered_count,
            unheard.failed_count
        ),
        (10, 0, 10)
    );
    for status in &unheard.statuses {
        assert_eq!(
            (status.status, status.reason.as_deref()),
            (Status::Failed, Some("NO_SUBSCRIBER"))
        );
    }

    let opened = (0..10).map(|number| {
        let client = client.clone();
        async move { subscribe(&client, &format!("user-{number}")).await }
    });
    let mut sessions = try_join_all(opened).await?;
    let heard = multicast(&client, filter(), "Hello!").await?;
    assert_eq!(
        (heard.target_count, heard.delivered_count, heard.failed_count),
        (10, 10, 0)
    );
    assert!(
        heard
            .statuses
            .iter()
            .all(|status| status.stage >= Stage::Accepted)
    );
    for session in &mut sessions {
        assert_eq!(receive(session).await?, b"Hello!");
    }
    Ok(())
}

/// A hundred registrations, fifty enumerations and ten multicasts at the same time.
#[tokio::test]
async fn everything_at_once() -> Result<()> {
    let system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let registers = (0..100).map(|number| {
        let client = client.clone();
        async move {
            let request = register(&format!("id-{number:03}"), json!({ "n": number }));
            client
                .registry
                .register(request)
                .await
                .map_err(anyhow::Error::from)
        }
    });
    let enumerates = (0..50).map(|_| {
        let client = client.clone();
        async move {
            let found = names(&client, Filter::new()).await?;
            assert!(found.is_sorted(), "{found:?}");
            anyhow::Ok(())
        }
    });
    let multicasts = (0..10).map(|_| {
        let client = client.clone();
        async move {
            let sent = multicast(&client, Filter::new(), "all").await?;
            let sum = sent.delivered_count + sent.failed_count + sent.pending_count + sent.timeout_count;
            assert_eq!(sum, sent.target_count);
            anyhow::Ok(())
        }
    });
    let all = async {
        tokio::try_join!(
            try_join_all(registers),
            try_join_all(enumerates),
            try_join_all(multicasts)
        )
    };
    tokio::time::timeout(Duration::from_secs(60), all).await??;
    let found: BTreeSet<String> = names(&client, Filter::new()).await?.into_iter().collect();
    assert_eq!(found.len(), 100);
    Ok(())
}
