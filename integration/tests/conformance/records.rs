//! Point reads and updates.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use prism_client::{Client, Position, Reason, RegisterRequest, UpdateRequest};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, PAST_TTL, TTL, leased, pass, refusal, with},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    put_checks_revision_and_generation,
    put_never_creates,
    concurrent_puts_are_steps,
    get_reads_the_last_write,
    get_never_serves_the_due,
];

fn patch(name: &str, patch: Value) -> UpdateRequest {
    UpdateRequest {
        identity: name.to_owned(),
        patch,
        ..Default::default()
    }
}

async fn put_checks_revision_and_generation(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let request = RegisterRequest {
        ttl: Some(60),
        ..with("a", json!({ "status": "online", "left": true }))
    };
    let registered = client.registry.register(request).await?;
    let (generation, revision) = (registered.generation, registered.position.revision);
    let conditions = [
        (None, Some(revision + 1), Reason::Conflict),
        (
            Some(Position {
                revision: revision + 77,
                ..generation
            }),
            None,
            Reason::StaleGeneration,
        ),
    ];
    for (generation, if_revision, reason) in conditions {
        let request = UpdateRequest {
            generation,
            if_revision,
            ..patch("a", json!({ "status": "never" }))
        };
        assert_eq!(refusal(client.registry.update(request).await), Some(reason));
    }
    let before = client.registry.get("a").await?.identity;
    let request = UpdateRequest {
        generation: Some(generation),
        if_revision: Some(revision),
        ..patch("a", json!({ "status": "away" }))
    };
    let written = client.registry.update(request).await?.identity;
    assert_eq!((written.generation, written.revision), (generation, revision + 1));
    assert_eq!(written.registered_at, registered.registered_at);
    let after = client.registry.get("a").await?.identity;
    assert_eq!(
        Value::from(after.metadata.clone()),
        json!({ "status": "away", "left": true })
    );
    let (was, is) = (before.expires_at.unwrap(), after.expires_at.unwrap());
    let moved = is.duration_since(was).unwrap_or_else(|error| error.duration());
    assert!(
        moved < Duration::from_millis(500),
        "an update leaves the lease alone, this one moved it by {moved:?}"
    );
    Ok(())
}

async fn put_never_creates(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let update = || client.registry.update(patch("a", json!({ "status": "away" })));
    assert_eq!(refusal(update().await), Some(Reason::NotRegistered));
    client.registry.register(leased("a")).await?;
    pass(PAST_TTL).await;
    assert_eq!(refusal(update().await), Some(Reason::NotRegistered));
    assert_eq!(
        refusal(client.registry.get("a").await),
        Some(Reason::NotRegistered)
    );
    Ok(())
}

/// Reads a number and writes the next one, until nobody has come in between.
async fn count_up(client: Client, times: usize) -> Result<()> {
    for _ in 0..times {
        loop {
            let found = client.registry.get("counter").await?.identity;
            let number = found.metadata["number"].as_u64().unwrap();
            let next = UpdateRequest {
                if_revision: Some(found.revision),
                ..patch("counter", json!({ "number": number + 1 }))
            };
            match client.registry.update(next).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.reason(), Some(Reason::Conflict), "{error}"),
            }
        }
    }
    Ok(())
}

async fn concurrent_puts_are_steps(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let first = client
        .registry
        .register(with("counter", json!({ "number": 0 })))
        .await?;
    let clients = [fixture.through_each_runner()?, fixture.through_each_runner()?].concat();
    let count = clients.len();
    try_join_all(clients.into_iter().map(|client| count_up(client, 15))).await?;
    let found = client.registry.get("counter").await?.identity;
    let steps = 15 * count as u64;
    assert_eq!(found.metadata["number"], steps, "no write was lost");
    assert_eq!(
        found.revision,
        first.position.revision + steps,
        "or applied twice"
    );
    Ok(())
}

async fn get_reads_the_last_write(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    assert_eq!(
        refusal(client.registry.get("a").await),
        Some(Reason::NotRegistered)
    );
    let metadata = json!({
        "empty": [], "half": 0.5, "large": 9_007_199_254_740_991_u64, "text": "\u{1F600} \"quoted\"\n",
        "nothing": null, "nested": { "list": [1, "two", { "three": 3 }], "object": {} },
    });
    let request = RegisterRequest {
        metadata: metadata.clone(),
        ..leased("a")
    };
    let registered = client.registry.register(request).await?;
    for client in fixture.through_each_runner()? {
        let found = client.registry.get("a").await?;
        assert_eq!(found.position, registered.position);
        let found = found.identity;
        assert_eq!(Value::from(found.metadata), metadata);
        assert_eq!((found.identity.as_str(), found.ttl), ("a", Some(TTL)));
        assert_eq!(found.generation, registered.generation);
        assert_eq!(found.registered_at, registered.registered_at);
        assert_eq!(found.updated_at, registered.registered_at);
        let lasts = found.expires_at.unwrap().duration_since(found.registered_at)?;
        assert!(lasts.abs_diff(TTL) < TTL / 4, "the lease lasts {lasts:?}");
    }
    Ok(())
}

async fn get_never_serves_the_due(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    client.registry.register(leased("a")).await?;
    client.registry.register(RegisterRequest::new("b")).await?;
    pass(PAST_TTL).await;
    assert_eq!(
        refusal(client.registry.get("a").await),
        Some(Reason::NotRegistered)
    );
    client.registry.get("b").await?;
    Ok(())
}
