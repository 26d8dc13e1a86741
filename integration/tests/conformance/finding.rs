//! Enumerations: out of the runner's view, and through the registry slot where there is none.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use prism_client::{Client, EnumerateRequest, Filter, Identity, Outcome, RegisterRequest, UpdateRequest};
use prism_filter::Limits;
use prism_proto::pattern::{self as proto, explain_response::plan::Access};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, PAST_TTL, leased, pass, with},
    suite::{Case, cases},
};

pub(crate) const CASES: &[Case] = cases![
    scan_finds_everything with { "behavior": { "view": "none" } },
    query_finds_every_match with { "behavior": { "view": "none" } },
    query_passes_others_over with { "behavior": { "view": "none" } } if |slots| slots.registry.query,
    query_reads_the_last_write with { "behavior": { "view": "none" } },
    query_never_serves_the_due with { "behavior": { "view": "none" } },
    query_needs_the_capability with { "behavior": { "view": "none" } } if |slots| !slots.registry.query,
    filters_select_what_matches,
    the_due_are_not_listed,
    pages_show_one_moment,
];

const COUNT: usize = 700;

fn online() -> Filter {
    Filter::new().eq("status", "online")
}

async fn found(client: &Client, filter: Option<Filter>) -> Result<BTreeMap<String, Identity>> {
    let request = EnumerateRequest {
        filter,
        limit: Some(100),
        ..Default::default()
    };
    let all = client.registry.enumerate_all(request);
    let pairs = all.map_ok(|identity| (identity.identity.clone(), identity));
    Ok(pairs.try_collect().await?)
}

/// Registers so many, of which one in ten is online.
async fn fill(client: &Client, count: usize) -> Result<()> {
    let requests = (0..count).map(|number| {
        let status = if number.is_multiple_of(10) {
            "online"
        } else {
            "away"
        };
        with(
            &format!("id-{number:03}"),
            json!({ "status": status, "number": number }),
        )
    });
    for outcome in client.registry.register_many(requests).await? {
        assert_eq!(outcome?.outcome, Outcome::Registered);
    }
    Ok(())
}

async fn scan_finds_everything(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    assert!(found(&client, None).await?.is_empty());
    fill(&client, COUNT).await?;
    for client in fixture.through_each_runner()? {
        let all = found(&client, None).await?;
        assert_eq!(all.len(), COUNT);
        assert_eq!(all["id-123"], client.registry.get("id-123").await?.identity);
    }
    Ok(())
}

async fn query_finds_every_match(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    assert!(found(&client, Some(online())).await?.is_empty());
    fill(&client, COUNT).await?;
    let matching = found(&client, Some(online())).await?;
    let expected = (0..COUNT).step_by(10).map(|number| format!("id-{number:03}"));
    assert!(matching.keys().eq(&expected.collect::<Vec<_>>()));
    assert_eq!(
        matching["id-120"],
        client.registry.get("id-120").await?.identity,
        "whole"
    );
    Ok(())
}

/// How a filter is answered.
async fn plan(client: &Client) -> Result<proto::explain_response::Plan> {
    let request = proto::ExplainRequest {
        filter: Some(online().to_proto()?),
        identity: None,
    };
    let answer = client.registry.raw().explain(request).await?;
    answer.plan.context("no plan")
}

async fn query_passes_others_over(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    fill(&client, COUNT).await?;
    let plan = plan(&client).await?;
    assert_eq!(plan.access(), Access::Query);
    assert_eq!((plan.match_count, plan.registered_count), (70, COUNT as i64));
    assert!(plan.candidate_count < COUNT as i64, "{plan:?}");
    Ok(())
}

async fn query_needs_the_capability(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    fill(&client, 20).await?;
    let plan = plan(&client).await?;
    assert_eq!((plan.access(), plan.match_count), (Access::Scan, 2));
    Ok(())
}

async fn query_reads_the_last_write(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    client
        .registry
        .register(with("a", json!({ "status": "online" })))
        .await?;
    assert!(found(&client, Some(online())).await?.contains_key("a"));
    let update = UpdateRequest {
        identity: "a".into(),
        patch: json!({ "status": "away" }),
        ..Default::default()
    };
    let written = client.registry.update(update).await?;
    for client in fixture.through_each_runner()? {
        assert!(found(&client, Some(online())).await?.is_empty());
        let away = found(&client, Some(Filter::new().eq("status", "away"))).await?;
        assert_eq!(away["a"], written.identity);
    }
    client.registry.unregister("a").await?;
    assert!(found(&client, None).await?.is_empty());
    Ok(())
}

async fn query_never_serves_the_due(fixture: Fixture) -> Result<()> {
    due_ones_are_absent(fixture).await
}

async fn the_due_are_not_listed(fixture: Fixture) -> Result<()> {
    due_ones_are_absent(fixture).await
}

async fn due_ones_are_absent(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let metadata = json!({ "status": "online" });
    let short = RegisterRequest {
        metadata: metadata.clone(),
        ..leased("leased")
    };
    client.registry.register(short).await?;
    client.registry.register(with("lasting", metadata)).await?;
    assert_eq!(found(&client, Some(online())).await?.len(), 2);
    pass(PAST_TTL).await;
    for client in fixture.through_each_runner()? {
        let live = found(&client, Some(online())).await?;
        assert_eq!(live.keys().collect::<Vec<_>>(), ["lasting"]);
    }
    Ok(())
}

async fn filters_select_what_matches(fixture: Fixture) -> Result<()> {
    let client = fixture.client()?;
    let devices = [
        (
            "a",
            json!({ "battery": 0.1, "tags": ["x", "y"], "place": { "city": "Oslo" } }),
        ),
        (
            "b",
            json!({ "battery": 0.9, "tags": [], "place": { "city": "Bergen" } }),
        ),
        ("c", json!({ "battery": "full" })),
    ];
    for (name, metadata) in devices {
        client.registry.register(with(name, metadata)).await?;
    }
    let filters: [(Value, &[&str]); 9] = [
        (json!({ "place.city": "Oslo" }), &["a"]),
        (json!({ "battery.lt": 0.5 }), &["a"]),
        (json!({ "battery.gte": 0.1 }), &["a", "b"]),
        (json!({ "place.city.in": ["Bergen", "Oslo"] }), &["a", "b"]),
        (json!({ "tags.contains": "x" }), &["a"]),
        (json!({ "place.exists": true }), &["a", "b"]),
        (json!({ "place.city.ne": "Oslo" }), &["b", "c"]),
        (
            json!({ "$or": [{ "battery": "full" }, { "place.city.startswith": "Ber" }] }),
            &["b", "c"],
        ),
        (
            json!({ "$not": { "battery.type": "number" }, "$identity": "*" }),
            &["c"],
        ),
    ];
    for (filter, expected) in filters {
        let parsed = Filter::parse_str(&filter.to_string(), &Limits::default())?;
        let matching = found(&client, Some(parsed)).await?;
        assert_eq!(matching.keys().collect::<Vec<_>>(), expected, "{filter}");
    }
    Ok(())
}

/// Whatever is written between two pages, and whichever runner has them.
async fn pages_show_one_moment(fixture: Fixture) -> Result<()> {
    let clients = fixture.through_each_runner()?;
    let client = fixture.client()?;
    fill(&client, 60).await?;
    let mut request = EnumerateRequest {
        limit: Some(7),
        sort_by: vec!["number desc".to_owned()],
        ..Default::default()
    };
    let (mut numbers, mut first) = (Vec::new(), None);
    for (round, client) in clients.iter().cycle().enumerate() {
        let page = client.registry.enumerate(request.clone()).await?;
        assert_eq!(page.total_count, 60);
        assert_eq!(*first.get_or_insert(page.position), page.position);
        request.cursor = page.next_cursor;
        numbers.extend(
            page.identities
                .iter()
                .map(|identity| identity.metadata["number"].as_u64().unwrap()),
        );
        if request.cursor.is_none() {
            break;
        }
        client.registry.unregister(format!("id-{:03}", round * 3)).await?;
        client
            .registry
            .register(with(&format!("new-{round}"), json!({ "number": round })))
            .await?;
    }
    assert_eq!(numbers, (0..60).rev().collect::<Vec<u64>>());
    Ok(())
}
