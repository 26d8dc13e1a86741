//! Watches: how clients have the history of a registry slot.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use integration::{PATIENCE, calls::next_change};
use prism_client::{
    Cause, Change, Client, Filter, Position, Reason, RegisterRequest, UpdateRequest, Watch, WatchEvent,
    WatchRequest,
};
use prism_testkit::eventually;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    fixture::{Fixture, TTL, leased, pass, refusal, with},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    sync_returns_dense_history,
    sync_expires_what_is_due,
    sync_says_compacted with { "behavior": { "history_bytes": 0 } },
    changes_are_told,
    renew_wakes_nobody,
    calls_refuse_another_epoch,
    what_does_not_match_any_more_has_left,
];

async fn watch_all(client: &Client) -> Result<Watch> {
    Ok(client.registry.watch(WatchRequest::default()).await?)
}

async fn update(client: &Client, name: &str, patch: Value) -> Result<Position> {
    let request = UpdateRequest {
        identity: name.to_owned(),
        patch,
        ..Default::default()
    };
    Ok(client.registry.update(request).await?.position)
}

fn brief(change: &Change) -> (u64, Cause, &str) {
    (change.position.revision, change.cause, &change.identity.identity)
}

async fn sync_returns_dense_history(fixture: Fixture) -> Result<()> {
    let (client, other) = (fixture.client()?, fixture.client()?);
    let mut watches = Vec::new();
    for client in fixture.through_each_runner()? {
        watches.push(watch_all(&client).await?);
    }
    let start = client
        .registry
        .register(with("a", json!({ "n": 1 })))
        .await?
        .position;
    let b = client.registry.register(with("b", json!({ "n": 2 }))).await?;
    update(&client, "b", json!({ "n": 3 })).await?;
    let replace = RegisterRequest {
        replace: true,
        ..with("a", json!({ "n": 4 }))
    };
    other.registry.register(replace).await?;
    client.registry.unregister("b").await?;
    let expected = [
        (0, Cause::Registered, "a", 1),
        (1, Cause::Registered, "b", 2),
        (2, Cause::Updated, "b", 3),
        (3, Cause::Replaced, "a", 4),
        (4, Cause::Unregistered, "b", 3),
    ];
    let resumed = WatchRequest {
        resume_from: Some(start),
        ..Default::default()
    };
    watches.push(client.registry.watch(resumed).await?);
    let last = watches.len() - 1;
    for (number, watch) in watches.iter_mut().enumerate() {
        let before = usize::from(number == last);
        for (step, cause, name, n) in &expected[before..] {
            let change = next_change(watch).await?;
            assert_eq!(brief(&change), (start.revision + step, *cause, *name));
            assert_eq!(
                change.identity.metadata["n"], *n,
                "the after-image, or as it last was"
            );
            let of_b = *name == "b";
            assert_eq!(change.identity.generation == b.generation, of_b);
        }
    }
    Ok(())
}

async fn sync_expires_what_is_due(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let mut watch = watch_all(&client).await?;
    for number in 0..9 {
        client.registry.register(leased(&format!("id-{number}"))).await?;
    }
    // Shortened: it ends sooner than it was first to end.
    let hour = RegisterRequest {
        ttl: Some(3_600),
        ..RegisterRequest::new("id-9")
    };
    client.registry.register(hour).await?;
    client.registry.register(leased("id-9")).await?;
    pass(TTL / 2).await;
    client.registry.renew(["id-7"]).await?;
    let mut expired = BTreeSet::new();
    while expired.len() < 9 {
        let change = next_change(&mut watch).await?;
        if change.cause == Cause::Expired {
            assert_ne!(
                change.identity.identity, "id-7",
                "it was renewed, so it is the last"
            );
            expired.insert(change.identity.identity);
        }
    }
    let last = next_change(&mut watch).await?;
    assert_eq!(
        (last.cause, last.identity.identity.as_str()),
        (Cause::Expired, "id-7")
    );
    Ok(())
}

/// Nothing is kept of what was, so nobody can go on from there.
async fn sync_says_compacted(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let first = client
        .registry
        .register(with("a", json!({ "n": 0 })))
        .await?
        .position;
    for n in 1..20 {
        update(&client, "a", json!({ "n": n })).await?;
    }
    eventually(PATIENCE, "the first write is forgotten", async || {
        let resumed = WatchRequest {
            resume_from: Some(first),
            ..Default::default()
        };
        let resumed = client.registry.watch(resumed).await;
        resumed.is_err_and(|error| error.reason() == Some(Reason::Compacted))
    })
    .await;
    let mut anew = watch_all(&client).await?;
    let event = timeout(PATIENCE, anew.next()).await?.unwrap()?;
    let WatchEvent::Present(identity) = event else {
        panic!("{event:?}")
    };
    assert_eq!(identity.metadata["n"], 19);
    Ok(())
}

/// Long before anybody would look by himself, which is once a second.
async fn changes_are_told(fixture: Fixture) -> Result<()> {
    const ROUNDS: u64 = 2 * PATIENCE.as_secs();
    let client = fixture.client()?;
    let mut watches = Vec::new();
    for client in fixture.through_each_runner()? {
        watches.push(watch_all(&client).await?);
    }
    let rounds = async {
        for number in 0..ROUNDS {
            let name = format!("id-{number}");
            client.registry.register(RegisterRequest::new(&name)).await?;
            for watch in &mut watches {
                assert_eq!(next_change(watch).await?.identity.identity, name);
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, rounds)
        .await
        .context("somebody waits to be looked at")?
}

async fn renew_wakes_nobody(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    client.registry.register(leased("a")).await?;
    let mut watches = Vec::new();
    for client in fixture.through_each_runner()? {
        let mut watch = watch_all(&client).await?;
        // All that is there is told before a change is.
        while !matches!(
            timeout(PATIENCE, watch.next()).await?.unwrap()?,
            WatchEvent::Bookmark(_)
        ) {}
        watches.push(watch);
    }
    for _ in 0..4 {
        pass(TTL / 2).await;
        client.registry.renew(["a"]).await?.remove(0).result?;
    }
    let marker = client.registry.register(RegisterRequest::new("marker")).await?;
    for watch in &mut watches {
        let told = next_change(watch).await?;
        assert_eq!(
            brief(&told),
            (marker.position.revision, Cause::Registered, "marker")
        );
    }
    Ok(())
}

async fn calls_refuse_another_epoch(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let registered = client.registry.register(RegisterRequest::new("a")).await?;
    let other = Position {
        epoch: registered.position.epoch ^ 1,
        ..registered.position
    };
    let page = prism_client::EnumerateRequest {
        min_position: Some(other),
        ..Default::default()
    };
    assert_eq!(
        refusal(client.registry.enumerate(page).await),
        Some(Reason::EpochChanged)
    );
    let watch = WatchRequest {
        resume_from: Some(other),
        ..Default::default()
    };
    assert_eq!(
        refusal(client.registry.watch(watch).await),
        Some(Reason::EpochChanged)
    );
    let stale = prism_client::Registration {
        generation: other,
        ..registered.clone()
    };
    let renewal = client.registry.renew([&stale]).await?.remove(0).result;
    assert_eq!(refusal(renewal), Some(Reason::StaleGeneration));
    assert_eq!(
        refusal(client.registry.unregister(&stale).await),
        Some(Reason::StaleGeneration)
    );
    assert_eq!(
        refusal(client.registry.subscribe(&stale).await),
        Some(Reason::StaleGeneration)
    );
    assert_eq!(client.registry.get("a").await?.position, registered.position);
    Ok(())
}

async fn what_does_not_match_any_more_has_left(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let online = WatchRequest {
        filter: Some(Filter::new().eq("status", "online")),
        ..Default::default()
    };
    let mut watch = client.registry.watch(online).await?;
    client
        .registry
        .register(with("a", json!({ "status": "away" })))
        .await?;
    update(&client, "a", json!({ "status": "online" })).await?;
    update(&client, "a", json!({ "more": 1 })).await?;
    update(&client, "a", json!({ "status": "away" })).await?;
    let mut told = Vec::new();
    while told.len() < 3 {
        let kind = match timeout(PATIENCE, watch.next()).await?.unwrap()? {
            WatchEvent::Entered(_) => "entered",
            WatchEvent::Updated(_) => "updated",
            WatchEvent::Left(_) => "left",
            WatchEvent::Bookmark(_) => continue,
            other => panic!("{other:?}"),
        };
        told.push(kind);
    }
    assert_eq!(told, ["entered", "updated", "left"]);
    Ok(())
}
