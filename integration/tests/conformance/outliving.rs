//! What outlives the runners, and what changes while they run.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Result;
use integration::{
    PATIENCE,
    calls::{next_message, reaches, register, stored},
};
use prism_client::{DeliverySemantics, MulticastRequest, Reason, Stage};
use prism_slot::capability::Survives;
use prism_testkit::eventually;
use serde_json::json;

use crate::{
    combination::Slots,
    fixture::{Fixture, PAST_TTL, leased, pass, refusal, text, texts, to, with},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    records_outlive_the_runner if |slots| outlives(slots.registry.survives),
    leases_survive_an_interruption,
    stored_messages_outlive_the_opening if messages_outlive,
    entries_outlive_the_opening if |slots| outlives(slots.registry.survives) && outlives(slots.ledger.survives),
    limits_apply_in_place with { "behavior": { "inbox_max_messages": 2 } } if Slots::store,
    a_lower_limit_removes_nothing with { "behavior": { "inbox_max_messages": 3 } } if Slots::store,
];

fn outlives(survives: Survives) -> bool {
    survives >= Survives::RunnerRestart
}

/// Whether inboxes outlive the runners together with those whose they are.
fn messages_outlive(slots: &Slots) -> bool {
    let inboxes = slots.durability.as_ref();
    outlives(slots.registry.survives) && inboxes.is_some_and(|slot| outlives(slot.survives))
}

async fn records_outlive_the_runner(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    let registered = client
        .registry
        .register(with("a", json!({ "n": [1, 2] })))
        .await?;
    let before = client.registry.get("a").await?;
    system.replace_runners().await?;
    assert_eq!(client.registry.get("a").await?, before);
    let next = client.registry.register(with("b", json!({}))).await?;
    assert_eq!(next.position.epoch, registered.position.epoch);
    assert_eq!(next.position.revision, registered.position.revision + 1);
    Ok(())
}

/// Nobody could renew for a while: the lease lasts once more, and no longer.
async fn leases_survive_an_interruption(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    client.registry.register(leased("a")).await?;
    system.freeze_runners(Duration::from_millis(2_500)).await?;
    client.registry.get("a").await?;
    pass(PAST_TTL).await;
    assert_eq!(
        refusal(client.registry.get("a").await),
        Some(Reason::NotRegistered)
    );
    Ok(())
}

async fn stored_messages_outlive_the_opening(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    register(&client, &["a"]).await?;
    let once = |payload: &str| MulticastRequest {
        delivery: Some(DeliverySemantics::ExactlyOnce),
        idempotency_key: Some(payload.to_owned()),
        ..stored(payload)
    };
    let acked = client.registry.multicast(once("acked")).await?;
    let kept = client.registry.multicast(once("kept")).await?;
    let mut session = client.registry.subscribe("a").await?;
    next_message(&mut session).await?.ack().await?.settled().await?;
    assert_eq!(text(&next_message(&mut session).await?), "kept");
    reaches(&client, &acked.multicast_id, Stage::Acked).await;
    drop(session);
    system.replace_runners().await?;
    assert!(
        client.registry.multicast(once("acked")).await?.replayed,
        "that it was here is remembered"
    );
    let mut session = client.registry.subscribe("a").await?;
    let message = next_message(&mut session).await?;
    assert_eq!((text(&message).as_str(), message.attempt), ("kept", 2));
    message.ack().await?.settled().await?;
    reaches(&client, &kept.multicast_id, Stage::Acked).await;
    client.registry.multicast(stored("last")).await?;
    assert_eq!(texts(&mut session, 1).await?, ["last"]);
    Ok(())
}

async fn entries_outlive_the_opening(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    register(&client, &["a", "b"]).await?;
    let _session = client.registry.subscribe("a").await?;
    let keyed = |payload: &str| MulticastRequest {
        idempotency_key: Some("order-7".into()),
        payload: payload.as_bytes().to_vec(),
        ..Default::default()
    };
    let first = client.registry.multicast(keyed("x")).await?;
    assert_eq!((first.delivered_count, first.failed_count), (1, 1));
    system.replace_runners().await?;
    let again = client.registry.multicast(keyed("x")).await?;
    assert_eq!((&again.multicast_id, again.replayed), (&first.multicast_id, true));
    assert_eq!((again.delivered_count, again.failed_count), (1, 1));
    let known = client.registry.get_multicast(first.multicast_id.as_str()).await?;
    assert_eq!((known.delivered_count, known.failed_count), (1, 1));
    let other = client.registry.multicast(keyed("y")).await;
    assert_eq!(refusal(other), Some(Reason::IdempotencyMismatch));
    Ok(())
}

async fn limits_apply_in_place(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    register(&client, &["a"]).await?;
    let stores = async |payload: &str| {
        let report = client.registry.multicast(to("a", stored(payload))).await;
        report.is_ok_and(|report| report.pending_count == 1)
    };
    assert!(stores("1").await && stores("2").await);
    assert!(!stores("x").await, "it is full");
    system.configure(json!({ "inbox_max_messages": 3 }))?;
    eventually(PATIENCE, "there is room for one more", async || stores("3").await).await;
    assert!(!stores("x").await, "it is full again");
    system.configure(json!({ "inbox_overflow": "drop_oldest" }))?;
    eventually(PATIENCE, "the oldest makes room", async || stores("4").await).await;
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(texts(&mut session, 3).await?, ["2", "3", "4"]);
    Ok(())
}

async fn a_lower_limit_removes_nothing(fixture: Fixture) -> Result<()> {
    let mut system = fixture.alone().await?;
    let client = system.client()?;
    let stores = async |name: &str, payload: &str| {
        let report = client.registry.multicast(to(name, stored(payload))).await;
        report.is_ok_and(|report| report.pending_count == 1)
    };
    register(&client, &["a"]).await?;
    for payload in ["1", "2", "3"] {
        assert!(stores("a", payload).await);
    }
    system.configure(json!({ "inbox_max_messages": 2 }))?;
    let tried = AtomicU32::new(0);
    eventually(PATIENCE, "another inbox has room for two", async || {
        let name = format!("b-{}", tried.fetch_add(1, Ordering::Relaxed));
        register(&client, &[&name]).await.is_ok()
            && stores(&name, "1").await
            && stores(&name, "2").await
            && !stores(&name, "3").await
    })
    .await;
    assert!(!stores("a", "4").await, "it is full");
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(texts(&mut session, 3).await?, ["1", "2", "3"]);
    Ok(())
}
