//! What the ledger keeps: idempotency keys and receipts.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::{TryStreamExt, future::try_join_all};
use integration::{
    PATIENCE,
    calls::{next_message, reaches, register, stored},
};
use prism_client::{GetMulticastRequest, MulticastRequest, Reason, ReceiptsScope, Stage, Status};
use prism_testkit::eventually;

use crate::{
    combination::Slots,
    fixture::{Fixture, once, refusal, texts},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    entries_are_read_as_last_written if Slots::store,
    one_of_many_writes_is_done,
    another_request_under_the_same_key_is_refused,
    entries_end_by_themselves with { "behavior": { "dedupe_window": "1s", "receipts_window": "1s" } },
    receipts_come_in_pages,
];

/// A message that is sent once, however often that is asked for.
fn keyed(key: &str, payload: &str) -> MulticastRequest {
    MulticastRequest {
        idempotency_key: Some(key.to_owned()),
        ..once(payload)
    }
}

/// Receipts grow with what is known, whichever runner is asked.
async fn entries_are_read_as_last_written(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    register(&clients[0], &["a"]).await?;
    let report = clients[0].registry.multicast(stored("x")).await?;
    assert_eq!(report.receipts_scope, Some(ReceiptsScope::Ledger));
    let multicast = report.multicast_id.as_str();
    for client in &clients {
        reaches(client, multicast, Stage::Stored).await;
    }
    let mut session = clients[0].registry.subscribe("a").await?;
    let message = next_message(&mut session).await?;
    for client in &clients {
        reaches(client, multicast, Stage::Handed).await;
    }
    message.ack().await?.settled().await?;
    for client in &clients {
        reaches(client, multicast, Stage::Acked).await;
        let known = client.registry.get_multicast(multicast).await?;
        assert_eq!(
            (known.delivered_count, known.statuses[0].status),
            (1, Status::Delivered)
        );
        assert_eq!(known.position, report.position);
    }
    Ok(())
}

/// Of many calls under one key, one is carried out, and all tell of it.
async fn one_of_many_writes_is_done(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    register(&clients[0], &["a"]).await?;
    let mut session = clients[0].registry.subscribe("a").await?;
    for round in 0..2 {
        let (key, payload) = (format!("key-{round}"), format!("message {round}"));
        let calls = (0..12).map(|number| {
            clients[number % clients.len()]
                .registry
                .multicast(keyed(&key, &payload))
        });
        let reports = try_join_all(calls).await?;
        let multicasts: BTreeSet<&str> = reports
            .iter()
            .map(|report| report.multicast_id.as_str())
            .collect();
        assert_eq!(multicasts.len(), 1);
        assert_eq!(reports.iter().filter(|report| !report.replayed).count(), 1);
        assert!(
            reports.iter().all(|report| report.delivered_count == 1),
            "{reports:?}"
        );
    }
    assert_eq!(texts(&mut session, 2).await?, ["message 0", "message 1"]);
    clients[0].registry.multicast(once("last")).await?;
    assert_eq!(texts(&mut session, 1).await?, ["last"], "nothing came twice");
    Ok(())
}

async fn another_request_under_the_same_key_is_refused(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let mut session = client.registry.subscribe("a").await?;
    client.registry.multicast(keyed("order-7", "x")).await?;
    for client in fixture.through_each_runner()? {
        let other = client.registry.multicast(keyed("order-7", "y")).await;
        assert_eq!(refusal(other), Some(Reason::IdempotencyMismatch));
    }
    client.registry.multicast(once("last")).await?;
    assert_eq!(texts(&mut session, 2).await?, ["x", "last"]);
    Ok(())
}

async fn entries_end_by_themselves(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let first = client.registry.multicast(keyed("order-7", "x")).await?;
    assert!(client.registry.multicast(keyed("order-7", "x")).await?.replayed);
    eventually(PATIENCE, "the key is free again", async || {
        let again = client.registry.multicast(keyed("order-7", "x")).await;
        again.is_ok_and(|again| !again.replayed && again.multicast_id != first.multicast_id)
    })
    .await;
    eventually(PATIENCE, "the receipts are gone", async || {
        let known = client.registry.get_multicast(first.multicast_id.as_str()).await;
        known.is_err_and(|error| error.reason() == Some(Reason::UnknownMulticast))
    })
    .await;
    Ok(())
}

async fn receipts_come_in_pages(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let names: BTreeSet<String> = (0..25).map(|number| format!("id-{number:02}")).collect();
    for name in &names {
        register(&client, &[name]).await?;
    }
    let mut sessions = Vec::new();
    for name in names.iter().take(5) {
        sessions.push(client.registry.subscribe(name.as_str()).await?);
    }
    let report = client.registry.multicast(keyed("all", "x")).await?;
    for client in fixture.through_each_runner()? {
        let pages = GetMulticastRequest {
            limit: Some(10),
            ..report.multicast_id.as_str().into()
        };
        let page = client.registry.get_multicast(pages.clone()).await?;
        assert_eq!((page.target_count, page.statuses.len()), (25, 10));
        let told: Vec<_> = client.registry.receipts(pages.clone()).try_collect().await?;
        assert_eq!(told.len(), 25);
        assert_eq!(
            told.into_iter()
                .map(|target| target.identity)
                .collect::<BTreeSet<_>>(),
            names
        );
        let failed = GetMulticastRequest {
            only: vec![Status::Failed],
            ..pages
        };
        let told: Vec<_> = client.registry.receipts(failed).try_collect().await?;
        assert_eq!(told.len(), 20, "those without a session");
    }
    Ok(())
}
