//! What becomes of stored messages by somebody's word.

use std::time::Duration;

use anyhow::Result;
use integration::{
    PATIENCE,
    calls::{next_message, reaches, register, stored},
};
use prism_client::{
    Client, Credits, Multicast, MulticastState, RedriveRequest, Settled, Stage, Status, SubscribeRequest,
};
use prism_testkit::eventually;

use crate::{
    combination::Slots,
    fixture::{Fixture, status_of, text, texts, to},
    handing::letters,
    storing::becomes,
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    verdicts_hold if Slots::store,
    only_what_was_handed_out_is_settled if Slots::store,
    what_is_not_out_can_be_cancelled if Slots::store,
    discarded_inboxes_are_empty if Slots::store,
    depths_are_told if Slots::store,
];

/// Stores a message for one identity; what the multicast is called.
async fn store(client: &Client, name: &str, payload: &str) -> Result<String> {
    Ok(client
        .registry
        .multicast(to(name, stored(payload)))
        .await?
        .multicast_id)
}

async fn verdicts_hold(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    let acked = store(&client, "a", "ack").await?;
    let nacked = store(&client, "a", "nack").await?;
    let refused = store(&client, "a", "term").await?;
    let mut session = client.registry.subscribe("a").await?;
    let mut said = Vec::new();
    for _ in 0..3 {
        let message = next_message(&mut session).await?;
        said.push(match text(&message).as_str() {
            "ack" => message.ack().await?,
            "nack" => message.nack(Duration::ZERO).await?,
            _ => message.term("unreadable").await?,
        });
    }
    for said in said {
        assert_eq!(said.settled().await?, Settled::Done);
    }
    let again = next_message(&mut session).await?;
    assert_eq!((text(&again), again.attempt), ("nack".to_owned(), 2));
    reaches(&client, &acked, Stage::Acked).await;
    let dead = letters(&client, 1).await?.remove(0);
    assert_eq!(
        (dead.reason.as_str(), dead.detail.as_deref(), dead.attempts),
        ("TERMINATED", Some("unreadable"), 1)
    );
    eventually(PATIENCE, "the refusal is told", async || {
        let known = client.registry.get_multicast(refused.as_str()).await;
        known.is_ok_and(|known| status_of(&known, "a").reason.as_deref() == Some("TERMINATED"))
    })
    .await;
    let open = client.registry.get_multicast(nacked.as_str()).await?;
    assert_eq!(status_of(&open, "a").status, Status::Pending);
    Ok(())
}

/// A word about a message that is with nobody does nothing.
async fn only_what_was_handed_out_is_settled(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a"]).await?;
    store(&client, "a", "x").await?;
    let one_only = SubscribeRequest {
        credits: Credits::Manual(1),
        remember: 0,
        ..SubscribeRequest::from("a")
    };
    let mut session = client.registry.subscribe(one_only).await?;
    let message = next_message(&mut session).await?;
    assert_eq!(message.term("unreadable").await?.settled().await?, Settled::Done);
    letters(&client, 1).await?;
    let redriven = client.registry.redrive_dead_letters(RedriveRequest::All).await?;
    assert_eq!(redriven.redriven_count, 1);
    let words = [
        message.ack().await?,
        message.nack(PATIENCE).await?,
        message.term("unreadable").await?,
    ];
    for said in words {
        assert_eq!(said.settled().await?, Settled::Gone, "a word of its former life");
    }
    session.grant(1);
    let again = next_message(&mut session).await?;
    assert_eq!((text(&again).as_str(), again.attempt), ("x", 1));
    assert_eq!(again.ack().await?.settled().await?, Settled::Done);
    Ok(())
}

/// Whichever runner is told to, and again by the others.
async fn what_is_not_out_can_be_cancelled(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    register(&clients[0], &["a", "b"]).await?;
    for (round, client) in clients.iter().enumerate() {
        let report = clients[0].registry.multicast(stored("x")).await?;
        let multicast = report.multicast_id.as_str();
        store(client, "b", "stays").await?;
        let mut session = client.registry.subscribe("a").await?;
        let out = next_message(&mut session).await?;
        let cancelled = client.registry.cancel_multicast(multicast).await?;
        assert_eq!(
            cancelled.state,
            MulticastState::Sent,
            "it had been sent to all before"
        );
        assert!(is_cancelled(&cancelled), "{cancelled:?}");
        assert_eq!(
            status_of(&cancelled, "a").status,
            Status::Pending,
            "{cancelled:?}"
        );
        for other in &clients {
            eventually(PATIENCE, "every runner knows", async || {
                let again = other.registry.cancel_multicast(multicast).await;
                again.is_ok_and(|again| is_cancelled(&again))
            })
            .await;
        }
        let mut other = client.registry.subscribe("b").await?;
        let stays = next_message(&mut other).await?;
        assert_eq!(text(&stays), "stays", "in round {round}");
        for message in [out, stays] {
            assert_eq!(message.ack().await?.settled().await?, Settled::Done);
        }
    }
    Ok(())
}

fn is_cancelled(report: &Multicast) -> bool {
    let target = status_of(report, "b");
    (target.status, target.reason.as_deref()) == (Status::Failed, Some("CANCELLED"))
}

async fn discarded_inboxes_are_empty(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b"]).await?;
    let mut dropped = Vec::new();
    for payload in ["1", "2"] {
        dropped.push(store(&client, "a", payload).await?);
    }
    store(&client, "b", "stays").await?;
    client.registry.unregister("a").await?;
    for report in &dropped {
        becomes(&client, report, Status::Failed, Some("UNREGISTERED")).await;
    }
    register(&client, &["a"]).await?;
    store(&client, "a", "new").await?;
    let mut session = client.registry.subscribe("a").await?;
    assert_eq!(texts(&mut session, 1).await?, ["new"]);
    let mut other = client.registry.subscribe("b").await?;
    assert_eq!(texts(&mut other, 1).await?, ["stays"]);
    Ok(())
}

async fn depths_are_told(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    register(&client, &["a", "b"]).await?;
    for payload in ["1", "2", "3"] {
        store(&client, "a", payload).await?;
    }
    store(&client, "b", "1").await?;
    let mut session = client.registry.subscribe("a").await?;
    next_message(&mut session)
        .await?
        .term("unreadable")
        .await?
        .settled()
        .await?;
    let label = format!("{{namespace=\"{}\"}}", fixture.namespace());
    let lines = [
        format!("multicast_registry_inbox_messages{label} 3"),
        format!("multicast_registry_dead_letters{label} 1"),
    ];
    eventually(PATIENCE, "every runner tells of what waits", async || {
        let pages = fixture.metrics().await.unwrap_or_default();
        !pages.is_empty()
            && pages
                .iter()
                .all(|page| lines.iter().all(|line| page.lines().any(|told| told == line)))
    })
    .await;
    Ok(())
}
