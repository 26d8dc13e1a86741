//! Schemas that change while clients write.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;
use futures::future::try_join_all;
use integration::{PATIENCE, Proxy, Runner, System, http_get, shared_namespace};
use prism_client::{
    CheckSchemaRequest, Client, EnumerateRequest, Reason, RegisterRequest, SchemaFinding, SchemaProgress,
    UpdateRequest,
};
use prism_testkit::{NatsServer, Process, RedisServer, eventually};
use serde_json::{Value, json};

async fn register(client: &Client, identity: &str, metadata: Value) -> Result<(), prism_client::Error> {
    let request = RegisterRequest {
        metadata,
        ..RegisterRequest::new(identity)
    };
    client.registry.register(request).await.map(drop)
}

/// A namespace with a schema, or without one.
fn with(mut namespace: Value, schema: &Value, change: &str) -> Value {
    if !schema.is_null() {
        namespace["identity_schema"] = schema.clone();
    }
    namespace["behavior"] = json!({ "on_schema_change": change });
    namespace
}

/// The identities that violate a schema, and how many were looked at.
async fn check(client: &Client, schema: Option<Value>) -> Result<(Vec<String>, SchemaProgress)> {
    let request = CheckSchemaRequest { schema, limit: None };
    let mut check = client.registry.check_schema(request).await?;
    let mut names = Vec::new();
    while let Some(found) = check.next().await {
        match found? {
            SchemaFinding::Violation(violation) => names.push(violation.identity),
            SchemaFinding::Progress(progress) if progress.done => return Ok((names, progress)),
            SchemaFinding::Progress(_) => {}
        }
    }
    anyhow::bail!("the check does not say that it is done")
}

/// What every runner serves, and why it does not serve something newer.
async fn told(proxy: &Proxy) -> String {
    let listed = proxy.admin_json("/api/v1/runners").await;
    listed.unwrap_or_default().to_string()
}

/// A schema that is violated is kept out by every runner, the one before goes on, and everything can be looked
/// up beforehand; or it is taken, and what violates it is counted until it is mended.
#[tokio::test]
async fn a_schema_changes_as_configured() -> Result<()> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let namespace = shared_namespace("test", &redis, &nats);
    let proxy = Proxy::start(&[with(namespace.clone(), &Value::Null, "refuse")]).await?;
    let runners = [
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("test", 2).await;
    let client = proxy.client("test")?;
    for number in 0..600 {
        let level = if number % 100 == 7 {
            json!("high")
        } else {
            json!(number)
        };
        register(&client, &format!("id-{number:03}"), json!({ "level": level })).await?;
    }
    let wrong = ["id-007", "id-107", "id-207", "id-307", "id-407", "id-507"];
    let schema = json!({ "level": "int" });
    let (names, progress) = check(&client, Some(schema.clone())).await?;
    assert_eq!(
        (names, progress.checked, progress.nonconforming),
        (wrong.map(String::from).into(), 600, 6)
    );
    let none = check(&client, None).await.unwrap_err();
    assert!(none.to_string().contains("no schema"), "{none}");

    proxy.configure(&[with(namespace.clone(), &schema, "refuse")])?;
    eventually(PATIENCE, "both runners say why they refuse", async || {
        let told = told(&proxy).await;
        let reason = "6 of 600 registrations violate the schema: `id-007`: the field `level` is no int";
        told.matches(reason).count() >= 2
    })
    .await;
    register(&client, "still", json!({ "level": "anything" })).await?;
    client.registry.unregister("still").await?;

    proxy.configure(&[with(namespace.clone(), &schema, "lazy")])?;
    // Nothing is written to find out: what one runner still took, another one might already count.
    for runner in &runners {
        runner
            .process
            .stderr_line("the namespace was reconfigured", PATIENCE)
            .await?;
    }
    let refused = register(&client, "new", json!({ "level": "high" }))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::InvalidMetadata));
    let counted = async |count: u32| {
        let line = format!("multicast_registry_schema_violations{{namespace=\"test\"}} {count}\n");
        for runner in &runners {
            eventually(PATIENCE, "it is counted", async || {
                http_get(runner.health, "/metrics")
                    .await
                    .is_ok_and(|(_, text)| text.contains(&line))
            })
            .await;
        }
    };
    counted(6).await;
    assert_eq!(check(&client, None).await?.0, wrong);
    // One that violates it stays as it is until it is written, and then has to satisfy it.
    let update = |patch| UpdateRequest {
        identity: wrong[0].to_owned(),
        patch,
        ..Default::default()
    };
    let refused = client
        .registry
        .update(update(json!({ "other": 1 })))
        .await
        .unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::InvalidMetadata));
    client.registry.update(update(json!({ "level": 7 }))).await?;
    assert_eq!(check(&client, None).await?.0, wrong[1..]);
    Ok(())
}

/// Everything is migrated, once, while others write, and although the migration is killed on its way.
#[tokio::test]
async fn a_migration_that_is_killed_is_run_again_beside_writers() -> Result<()> {
    const COUNT: usize = 1_500;
    const WRITERS: usize = 4;
    let system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let name = |number: usize| format!("d-{number:04}");
    for start in (0..COUNT).step_by(50) {
        let calls = (start..start + 50).map(|number| {
            let client = &client;
            async move {
                let metadata = json!({ "fw": "1.0.3", "battery": "0.5", "count": 0 });
                register(client, &name(number), metadata).await
            }
        });
        try_join_all(calls).await?;
    }
    let endpoint = system.proxy.data.to_string();
    let line = [
        "--endpoint",
        &endpoint,
        "--namespace",
        "test",
        "-o",
        "json",
        "schema",
        "migrate",
        "--rename",
        "fw=firmware_version",
        "--retype",
        "battery=string:number",
        "--default",
        "seen=0",
    ];
    let stop = AtomicBool::new(false);
    // Each writer counts up, on identities of its own, and every step must still be there at the end.
    let writer = async |first: usize| {
        let (client, mut steps) = (system.client()?, 0_usize);
        while !stop.load(Ordering::Relaxed) {
            for number in (first..COUNT).step_by(COUNT / 20) {
                let found = client.registry.get(name(number)).await?.identity;
                let count = found.metadata["count"].as_u64().unwrap_or_default() + 1;
                let update = UpdateRequest {
                    identity: name(number),
                    patch: json!({ "count": count }),
                    if_revision: Some(found.revision),
                    ..Default::default()
                };
                match client.registry.update(update).await {
                    Ok(_) => steps += 1,
                    Err(error) if error.reason() == Some(Reason::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        anyhow::Ok(steps)
    };
    let migration = async {
        let filter = prism_client::Filter::new().exists("firmware_version");
        let migrated = async || {
            let request = EnumerateRequest {
                filter: Some(filter.clone()),
                limit: Some(1),
                ..Default::default()
            };
            anyhow::Ok(client.registry.enumerate(request).await?.total_count as usize)
        };
        let broken = Process::spawn("prism-probe", &line, &[])?;
        eventually(PATIENCE, "some are migrated", async || {
            migrated().await.is_ok_and(|count| count > COUNT / 10)
        })
        .await;
        // As kill -9 does.
        drop(broken);
        let halfway = migrated().await?;
        let mut whole = Process::spawn("prism-probe", &line, &[])?;
        let status = whole.wait(Duration::from_secs(60)).await?;
        stop.store(true, Ordering::Relaxed);
        anyhow::ensure!(status.success(), "{:?}", whole.stderr());
        let summary: Value = serde_json::from_str(whole.stdout().last().map_or("", String::as_str))?;
        anyhow::Ok((halfway, summary["summary"].clone()))
    };
    let writers = try_join_all((0..WRITERS).map(writer));
    let ((halfway, summary), steps) = tokio::try_join!(migration, writers)?;
    println!("{halfway} of {COUNT} before the kill, then {summary}, beside {steps:?} steps");
    assert_eq!(summary["looked_at"], json!(COUNT));

    let (mut counted, mut cursor) = (0, None);
    loop {
        let request = EnumerateRequest {
            limit: Some(1_000),
            cursor,
            ..Default::default()
        };
        let page = client.registry.enumerate(request).await?;
        for found in &page {
            let count = found.metadata["count"].as_u64().unwrap_or_default();
            counted += count as usize;
            let expected = json!({ "firmware_version": "1.0.3", "battery": 0.5, "seen": 0, "count": count });
            assert_eq!(
                Value::Object(found.metadata.clone()),
                expected,
                "{}",
                found.identity
            );
        }
        cursor = page.next_cursor.clone();
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(
        counted,
        steps.iter().sum::<usize>(),
        "no step of a writer was overwritten"
    );
    Ok(())
}
