//! Against runners of the real SDK: both ends together.

use std::time::Duration;

use prism_plugin_sdk::{ExitStatus, Scope, Settings as RunnerSettings};
use prism_testkit::FaultProxy;
use serde_json::json;
use tokio::time::Instant;

use super::{Proxy, desired, find, good, plugin::Real, quick};

#[tokio::test]
async fn a_restarted_proxy_finds_its_runner_again_and_restarts_nothing() {
    let proxy = Proxy::start(&[good("a")]).await;
    let address = proxy.address;
    let runner = Real::start(vec![address.to_string()], Scope::Process).await;
    proxy.until_served("a", 1).await;
    assert_eq!(runner.calls(), ["initialize a 1", "start"]);
    proxy.stop().await;

    let proxy = Proxy::start_with(address, quick(), &[good("a")]).await;
    let back = Instant::now();
    proxy.until_served("a", 1).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(proxy.endpoints("a"), std::slice::from_ref(&runner.endpoint));
    assert_eq!(runner.calls(), ["initialize a 1", "start"]);
}

#[tokio::test]
async fn after_a_restart_the_owner_is_who_has_the_data() {
    let proxy = Proxy::start(&[good("a")]).await;
    let address = proxy.address;
    let owner = Real::start(vec![address.to_string()], Scope::Process).await;
    proxy.until_served("a", 1).await;
    let standbys = [
        Real::start(vec![address.to_string()], Scope::Process).await,
        Real::start(vec![address.to_string()], Scope::Process).await,
    ];
    proxy
        .until("three runners", |snapshot| snapshot.runners.len() == 3)
        .await;
    proxy.stop().await;
    let proxy = Proxy::start_with(address, quick(), &[good("a")]).await;
    proxy
        .until("three runners", |snapshot| snapshot.runners.len() == 3)
        .await;
    proxy.until_served("a", 1).await;
    assert_eq!(proxy.endpoints("a"), std::slice::from_ref(&owner.endpoint));
    assert!(standbys.iter().all(|standby| standby.calls().is_empty()));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_once_while_the_old_one_serves() {
    let proxy = Proxy::start(&[good("a")]).await;
    let address = proxy.address;
    let runner = Real::start(vec![address.to_string()], Scope::Process).await;
    proxy.until_served("a", 1).await;
    let bad = desired("a", 2, json!({"bad": true}));
    proxy.apply(std::slice::from_ref(&bad)).await;
    let refusal = "slot `registry`: key `config.address`: no such host";
    let refused = proxy
        .until("refused", |snapshot| {
            find(snapshot, "a").is_some_and(|view| view.error.is_some())
        })
        .await;
    assert_eq!(find(&refused, "a").unwrap().error.as_deref(), Some(refusal));
    assert_eq!(proxy.endpoints("a"), std::slice::from_ref(&runner.endpoint));
    proxy.stop().await;

    let proxy = Proxy::start_with(address, quick(), &[bad]).await;
    proxy.until_served("a", 1).await;
    assert_eq!(runner.calls(), ["initialize a 1", "start", "initialize a 2"]);
}

#[tokio::test]
async fn a_second_namespace_is_brought_at_runtime_and_taken_away_again() {
    let proxy = Proxy::start(&[good("a")]).await;
    let runner = Real::start(vec![proxy.address.to_string()], Scope::Shared).await;
    proxy.until_served("a", 1).await;
    proxy.apply(&[good("a"), good("b")]).await;
    proxy.until_served("b", 1).await;
    proxy.apply(&[good("b")]).await;
    proxy
        .until("taken away", |snapshot| snapshot.runners[0].namespaces.len() == 1)
        .await;
    assert_eq!(
        runner.calls(),
        ["initialize a 1", "start", "initialize b 1", "remove a"]
    );
}

#[tokio::test]
async fn a_runner_that_ends_hands_over_first() {
    let proxy = Proxy::start(&[good("a")]).await;
    let mut leaving = Real::start(vec![proxy.address.to_string()], Scope::Process).await;
    proxy.until_served("a", 1).await;
    let successor = Real::start(vec![proxy.address.to_string()], Scope::Process).await;
    proxy
        .until("two runners", |snapshot| snapshot.runners.len() == 2)
        .await;
    let began = Instant::now();
    leaving.leave();
    assert_eq!(leaving.exit().await, ExitStatus::Clean);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it was not acknowledged: {:?}",
        began.elapsed()
    );
    assert_eq!(proxy.endpoints("a"), std::slice::from_ref(&successor.endpoint));
    assert_eq!(successor.calls(), ["initialize a 1", "start"]);
    assert_eq!(leaving.calls()[2..], ["drain", "stop"]);
    proxy
        .until("one runner", |snapshot| snapshot.runners.len() == 1)
        .await;
}

#[tokio::test]
async fn a_runner_that_dies_is_replaced() {
    let proxy = Proxy::start(&[good("a")]).await;
    let dying = Real::start(vec![proxy.address.to_string()], Scope::Process).await;
    proxy.until_served("a", 1).await;
    let successor = Real::start(vec![proxy.address.to_string()], Scope::Process).await;
    proxy
        .until("two runners", |snapshot| snapshot.runners.len() == 2)
        .await;
    drop(dying);
    proxy
        .until("failover", |snapshot| {
            let serving = find(snapshot, "a")
                .map(|view| view.serving.clone())
                .unwrap_or_default();
            let successor = |id| {
                snapshot.runners.iter().any(|runner| {
                    runner.instance_id == id && runner.data_endpoint.as_deref() == Some(&successor.endpoint)
                })
            };
            serving.into_iter().any(successor)
        })
        .await;
}

#[tokio::test]
async fn both_ends_notice_a_half_open_link_and_the_data_plane_does_not() {
    let proxy = Proxy::start(&[good("a")]).await;
    let link = FaultProxy::start(proxy.address).await.unwrap();
    let settings = RunnerSettings {
        silence: Duration::from_secs(1),
        ..RunnerSettings::default()
    };
    let runner = Real::start_with(vec![link.addr().to_string()], Scope::Process, settings).await;
    proxy.until_served("a", 1).await;
    link.black_hole();
    proxy
        .until("the proxy notices", |snapshot| !snapshot.runners[0].connected)
        .await;
    assert_eq!(
        proxy.endpoints("a"),
        std::slice::from_ref(&runner.endpoint),
        "its data endpoint answers"
    );
    prism_testkit::eventually(super::SOON, "the runner notices", async || link.accepted() > 1).await;
    link.heal();
    let snapshot = proxy
        .until("it is back", |snapshot| snapshot.runners[0].connected)
        .await;
    assert_eq!(snapshot.runners.len(), 1, "as itself");
    assert_eq!(runner.calls(), ["initialize a 1", "start"]);
}
