//! A foreign plugin under our proxy. Its calls are served by a runner that knows of no proxy.

use anyhow::Result;
use integration::{PATIENCE, Proxy, Runner, START_LIMIT, memory_namespace};
use prism_client::{Reason, RegisterRequest};
use prism_proto::interfaces::proxy_command::Command;
use prism_testkit::eventually;
use prost_types::value::Kind;
use serde_json::{Value, json};

use super::plugin::{Plugin, is_health_check};

/// A namespace with a number in it.
fn numbered() -> Value {
    let mut namespace = memory_namespace("test");
    namespace["behavior"] = json!({ "max_identities": 100 });
    namespace
}

/// Where a foreign plugin's calls are served.
async fn data() -> Result<Runner> {
    let runner = Runner::start(&[], &[("REGISTRY_BACKEND", "memory"), ("NAMESPACE", "test")]).await?;
    runner.ready().await;
    Ok(runner)
}

async fn runners(proxy: &Proxy) -> Vec<Value> {
    let listed = proxy.admin_json("/api/v1/runners").await.unwrap_or_default();
    listed["runners"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn it_is_registered_configured_started_and_called() -> Result<()> {
    let proxy = Proxy::start(&[numbered(), memory_namespace("zone")]).await?;
    let data = data().await?;
    // In terms of its own host, as it sees itself.
    let plugin = Plugin::start(proxy.control, &format!(":{}", data.data.port())).await?;
    assert!(plugin.registered.success, "{}", plugin.registered.error);
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    assert!(data.client("test")?.registry.get("a").await.is_ok());

    let initialized = plugin.initialized();
    assert_eq!(
        initialized.len(),
        1,
        "it did not say that it takes a second namespace: {initialized:?}"
    );
    assert_eq!(initialized[0].name, "test");
    let config = initialized[0].config.clone().unwrap_or_default();
    assert!(config.fields.contains_key("slots"), "{config:?}");
    let Some(Kind::StructValue(behavior)) = &config.fields["behavior"].kind else {
        panic!("{config:?}");
    };
    assert_eq!(
        behavior.fields["max_identities"].kind,
        Some(Kind::NumberValue(100.0))
    );
    let second = proxy.client("zone")?.registry.get("a").await.unwrap_err();
    assert_eq!(second.reason(), Some(Reason::NoRunner), "{second:?}");
    let [listed] = &*runners(&proxy).await else {
        panic!("not one runner");
    };
    assert_eq!(
        (&listed["foreign"], &listed["health"]),
        (&json!(true), &json!("healthy"))
    );

    // No heartbeat ever, and no status in its health reports: it is kept.
    let checks = |heard: &[Command]| heard.iter().filter(|command| is_health_check(command)).count();
    let heard = plugin
        .heard("to report its health, again and again", |heard| {
            checks(heard) >= 3
        })
        .await;
    assert!(client.registry.get("a").await.is_ok());
    assert_eq!(plugin.initialized().len(), 1, "{heard:?}");
    let starts = heard
        .iter()
        .filter(|command| matches!(command, Command::Start(_)))
        .count();
    assert_eq!(starts, 1, "{heard:?}");
    Ok(())
}

#[tokio::test]
async fn two_from_two_containers_are_told_apart() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("test"), memory_namespace("zone")]).await?;
    let data = data().await?;
    let one = Plugin::start(proxy.control, &data.data.to_string()).await?;
    proxy.wait_for_runners("test", 1).await;
    let two = Plugin::start(proxy.control, "127.0.0.1:9").await?;
    proxy.wait_for_runners("zone", 1).await;
    assert_ne!(one.registered.instance_id, two.registered.instance_id);
    assert_eq!(runners(&proxy).await.len(), 2);
    assert_eq!(two.initialized()[0].name, "zone", "each has its own");
    // One goes, the other stays.
    two.break_off();
    eventually(START_LIMIT, "it is gone", async || {
        runners(&proxy).await.len() == 1
    })
    .await;
    proxy
        .client("test")?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    Ok(())
}

/// It says that it stopped, and stays: it is left.
#[tokio::test]
async fn one_whose_namespace_is_gone_is_told_to_end_and_left() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("test"), memory_namespace("other")]).await?;
    let data = data().await?;
    let plugin = Plugin::start(proxy.control, &data.data.to_string()).await?;
    let mine = plugin
        .heard("to initialize", |heard| {
            matches!(heard.first(), Some(Command::Initialize(_)))
        })
        .await;
    let Some(Command::Initialize(mine)) = mine.first() else {
        panic!("{mine:?}");
    };
    let other = if mine.name == "test" { "other" } else { "test" };
    proxy.wait_for_runners(&mine.name, 1).await;
    proxy.configure(&[memory_namespace(other)])?;
    plugin
        .heard("to shut down", |heard| {
            matches!(heard.last(), Some(Command::Shutdown(_)))
        })
        .await;
    plugin.left().await;
    eventually(START_LIMIT, "it is forgotten", async || {
        runners(&proxy).await.is_empty()
    })
    .await;
    // What it left is taken up by one of ours.
    let _ours = Runner::under(proxy.control).await?;
    proxy.wait_for_runners(other, 1).await;
    Ok(())
}

/// Its stream breaks for good while its data endpoint goes on: served from for a while, then no more.
#[tokio::test]
async fn one_that_does_not_come_back_is_replaced() -> Result<()> {
    let proxy = Proxy::start(&[memory_namespace("test")]).await?;
    let data = data().await?;
    let plugin = Plugin::start(proxy.control, &data.data.to_string()).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    plugin.break_off();
    eventually(PATIENCE, "its stream is missed", async || {
        runners(&proxy)
            .await
            .iter()
            .any(|runner| runner["connected"] == false)
    })
    .await;
    assert!(
        client.registry.get("a").await.is_ok(),
        "its data endpoint still serves"
    );
    eventually(START_LIMIT, "it is given up", async || {
        runners(&proxy).await.is_empty()
    })
    .await;
    let error = client.registry.get("a").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoRunner), "{error:?}");
    assert!(error.retry_after().is_some(), "{error:?}");
    let _ours = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    client.registry.register(RegisterRequest::new("b")).await?;
    Ok(())
}
