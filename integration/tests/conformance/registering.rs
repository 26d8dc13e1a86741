//! Registering.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::future::join_all;
use integration::calls::register;
use prism_client::{
    Applied, Client, EnumerateRequest, Outcome, Position, Reason, RegisterRequest, SessionId,
    UnregisterRequest,
};
use serde_json::json;

use crate::{
    fixture::{Fixture, PAST_TTL, leased, pass, refusal, with},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    register_assigns_dense_revisions,
    register_answers_in_order,
    register_create_refuses_existing,
    register_replace_makes_a_new_generation,
    register_same_session_renews_or_updates,
    register_over_a_due_record_expires_it_first,
    register_quota_is_exact with { "behavior": { "max_identities": 20 } },
    register_quota_ignores_the_due with { "behavior": { "max_identities": 3 } },
    unregister_is_idempotent,
    unregister_is_fenced,
];

/// Where the namespace stands.
async fn head(client: &Client) -> Result<Position> {
    let count = EnumerateRequest {
        count_only: true,
        ..Default::default()
    };
    Ok(client.registry.enumerate(count).await?.position)
}

fn after(position: Position, writes: u64) -> Position {
    Position {
        revision: position.revision + writes,
        ..position
    }
}

async fn register_assigns_dense_revisions(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let first = client.registry.register(RegisterRequest::new("id-0")).await?;
    for number in 1..=9 {
        let name = format!("id-{number}");
        let next = client.registry.register(RegisterRequest::new(name)).await?;
        assert_eq!(next.outcome, Outcome::Registered);
        assert_eq!(next.position, after(first.position, number));
        assert_eq!((next.generation, next.expires_at), (next.position, None));
    }
    assert_eq!(head(&client).await?, after(first.position, 9));
    Ok(())
}

/// More of them than one call to a slot takes.
async fn register_answers_in_order(fixture: Fixture) -> Result<()> {
    const COUNT: usize = 900;
    let (client, other) = (fixture.client()?, fixture.client()?);
    register(&other, &["taken"]).await?;
    let held = (0..COUNT).map(|number| RegisterRequest::new(format!("held-{number}")));
    for outcome in other.registry.register_many(held).await? {
        outcome?;
    }
    let before = head(&client).await?;
    let requests = (0..COUNT).map(|number| match number % 3 {
        0 => RegisterRequest::new("taken"),
        1 => RegisterRequest::new(format!("id-{number}")),
        _ => RegisterRequest {
            replace: true,
            ..RegisterRequest::new(format!("held-{number}"))
        },
    });
    let outcomes = client.registry.register_many(requests).await?;
    assert_eq!(outcomes.len(), COUNT);
    let mut revisions = BTreeSet::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        if number % 3 == 0 {
            assert_eq!(refusal(outcome), Some(Reason::AlreadyRegistered), "{number}");
            continue;
        }
        let done = outcome?;
        let expected = [Outcome::Registered, Outcome::Replaced][number % 3 - 1];
        assert_eq!(done.outcome, expected, "{number}");
        revisions.insert(done.position.revision);
    }
    let head = head(&client).await?;
    assert!(
        revisions.into_iter().eq(before.revision + 1..=head.revision),
        "each has its own"
    );
    Ok(())
}

async fn register_create_refuses_existing(fixture: Fixture) -> Result<()> {
    let (holder, other) = (fixture.client()?, fixture.client()?);
    let held = holder.registry.register(RegisterRequest::new("a")).await?;
    for session in [None, Some(SessionId::random())] {
        let request = RegisterRequest {
            session,
            ..RegisterRequest::new("a")
        };
        let refused = other.registry.register(request).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::AlreadyRegistered));
        assert_eq!(refused.applied(), Applied::No);
    }
    assert_eq!(head(&other).await?, held.position, "a refusal uses no revision");
    Ok(())
}

async fn register_replace_makes_a_new_generation(fixture: Fixture) -> Result<()> {
    let (old, new) = (fixture.client()?, fixture.client()?);
    let first = old.registry.register(with("a", json!({ "of": "old" }))).await?;
    let replace = RegisterRequest {
        replace: true,
        ..with("a", json!({ "of": "new" }))
    };
    let second = new.registry.register(replace).await?;
    assert_eq!(second.outcome, Outcome::Replaced);
    assert_eq!(second.generation, second.position);
    assert_ne!(second.generation, first.generation);
    let found = old.registry.get("a").await?.identity;
    assert_eq!(
        (found.generation, &found.metadata["of"]),
        (second.generation, &json!("new"))
    );
    Ok(())
}

async fn register_same_session_renews_or_updates(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let mine = |status: &str, ttl| RegisterRequest {
        ttl: Some(ttl),
        ..with("a", json!({ "status": status }))
    };
    let first = client.registry.register(mine("online", 60)).await?;
    let renewed = client.registry.register(mine("online", 60)).await?;
    assert_eq!(renewed.outcome, Outcome::Renewed);
    assert_eq!(
        (renewed.generation, renewed.position),
        (first.generation, first.position)
    );

    let changed = client.registry.register(mine("busy", 60)).await?;
    assert_eq!(
        (changed.outcome, changed.generation),
        (Outcome::Updated, first.generation)
    );
    assert_eq!(changed.position, after(first.position, 1));
    assert_eq!(changed.registered_at, first.registered_at);

    let replaced = RegisterRequest {
        replace: true,
        ..mine("busy", 60)
    };
    assert_eq!(
        client.registry.register(replaced).await?.outcome,
        Outcome::Renewed
    );
    let longer = client.registry.register(mine("busy", 90)).await?;
    assert_eq!(longer.outcome, Outcome::Updated, "another ttl is a change");
    assert_eq!(head(&client).await?, after(first.position, 2));
    Ok(())
}

async fn register_over_a_due_record_expires_it_first(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let first = client.registry.register(leased("a")).await?;
    pass(PAST_TTL).await;
    let second = client.registry.register(leased("a")).await?;
    assert_eq!(
        second.outcome,
        Outcome::Registered,
        "not even its own session finds a due record"
    );
    assert_ne!(second.generation, first.generation);
    assert_eq!(
        second.position,
        after(first.position, 2),
        "its end was written in between"
    );
    Ok(())
}

async fn register_quota_is_exact(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    let calls = (0..100).map(|number| {
        let client = &clients[number % clients.len()];
        client
            .registry
            .register(RegisterRequest::new(format!("id-{number}")))
    });
    let (taken, refused): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (20, 80));
    for outcome in refused {
        assert_eq!(refusal(outcome), Some(Reason::QuotaExceeded));
    }
    let holder = &taken.into_iter().next().unwrap()?.identity;
    let replacement = RegisterRequest {
        replace: true,
        ..RegisterRequest::new(holder)
    };
    let client = fixture.client()?;
    client.registry.register(replacement).await?;
    client.registry.unregister(holder.as_str()).await?;
    client.registry.register(RegisterRequest::new("another")).await?;
    Ok(())
}

async fn register_quota_ignores_the_due(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    for name in ["short-0", "short-1", "short-2"] {
        client.registry.register(leased(name)).await?;
    }
    let late = || client.registry.register(RegisterRequest::new("late"));
    assert_eq!(refusal(late().await), Some(Reason::QuotaExceeded));
    pass(PAST_TTL).await;
    late().await?;
    Ok(())
}

async fn unregister_is_idempotent(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let registered = client.registry.register(RegisterRequest::new("a")).await?;
    let first = client.registry.unregister("a").await?;
    assert_eq!(
        (first.existed, first.position),
        (true, after(registered.position, 1))
    );
    let second = client.registry.unregister("a").await?;
    assert_eq!((second.existed, second.position), (false, first.position));
    client.registry.register(leased("b")).await?;
    pass(PAST_TTL).await;
    assert!(
        !client.registry.unregister("b").await?.existed,
        "a due record is absent"
    );
    Ok(())
}

async fn unregister_is_fenced(fixture: Fixture) -> Result<()> {
    let (old, new) = (fixture.client()?, fixture.client()?);
    let first = old.registry.register(RegisterRequest::new("a")).await?;
    let replace = RegisterRequest {
        replace: true,
        ..RegisterRequest::new("a")
    };
    let second = new.registry.register(replace).await?;
    let stale = old.registry.unregister(&first).await;
    assert_eq!(refusal(stale), Some(Reason::StaleGeneration));
    new.registry.get("a").await?;
    assert!(new.registry.unregister(&second).await?.existed);
    let again = new.registry.unregister(UnregisterRequest::from(&second)).await?;
    assert!(!again.existed, "a repeated removal finds nothing and is no error");
    Ok(())
}
