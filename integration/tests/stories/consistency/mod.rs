//! What clients of two runners on one store are told, held against one history.
//!
//! A watcher of everything sees each change at its revision: that is the history. Whatever a call said must have
//! been true in it, at a moment between the call and its answer. A change of epoch declares a loss, and is the only
//! excuse for one.

mod callers;
mod check;
mod history;
mod losses;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration::{PATIENCE, Runner, System};
use prism_client::{Client, EnumerateRequest, Filter, RegisterRequest, UpdateRequest};
use prism_testkit::Signal;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use callers::Callers;
use check::check;
use history::Witness;

/// Eight clients over two runners, of which one after the other is killed.
#[tokio::test]
async fn no_answer_contradicts_the_history() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let witness = Witness::start(&client).await?;
    let callers = Callers::start(&client, 8);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        system.runners.remove(0).process.signal(Signal::KILL)?;
        system.proxy.wait_for_runners("test", 1).await;
        system.runners.push(Runner::under(system.proxy.control).await?);
        system.proxy.wait_for_runners("test", 2).await;
    }
    let operations = callers.stop().await?;
    let last = client.registry.enumerate(EnumerateRequest::default()).await?;
    let history = witness.history(last.position).await?;
    history.era()?;
    let counts = check(&operations, &history)?;
    assert!(
        counts.written > 100 && counts.read > 50 && counts.listed > 20 && counts.undeclared == 0,
        "{counts:?}"
    );
    Ok(())
}

/// The pages of one enumeration come from the same moment, whoever answers, while everything changes.
#[tokio::test]
async fn pages_from_two_runners_agree_while_writes_go_on() -> Result<()> {
    const IDENTITIES: u64 = 1_000;
    let system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let witness = Witness::start(&client).await?;
    let mut random = SmallRng::seed_from_u64(3);
    for number in 0..IDENTITIES {
        let metadata = json!({ "n": random.random_range(0..50) });
        let request = RegisterRequest {
            metadata,
            ..RegisterRequest::new(format!("id-{number:04}"))
        };
        client.registry.register(request).await?;
    }
    let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..8)
        .map(|seed| {
            let (client, stop, writes) = (client.clone(), stop.clone(), writes.clone());
            tokio::spawn(async move {
                let mut random = SmallRng::seed_from_u64(seed);
                while !stop.load(Ordering::Relaxed) {
                    let identity = format!("id-{:04}", random.random_range(0..IDENTITIES));
                    let patch = json!({ "n": random.random_range(0..50) });
                    client
                        .registry
                        .update(UpdateRequest {
                            identity,
                            patch,
                            ..Default::default()
                        })
                        .await?;
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let direct = [
        system.runners[0].client("test")?,
        system.runners[1].client("test")?,
    ];
    let mut rounds = Vec::new();
    let sorts: [&[&str]; 3] = [&[], &["n desc"], &["n", "$identity desc"]];
    for sort_by in sorts {
        rounds.push((sort_by, all_pages(&direct, sort_by).await?));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        tokio::time::timeout(PATIENCE, writer).await???;
    }
    assert!(
        writes.load(Ordering::Relaxed) > 200,
        "{} writes",
        writes.load(Ordering::Relaxed)
    );
    let last = client.registry.enumerate(EnumerateRequest::default()).await?;
    let history = witness.history(last.position).await?;
    for (sort_by, (at, pages, total, found)) in rounds {
        assert_eq!((pages, total), (100, IDENTITIES));
        let state = history.era()?.state_at(at).context("never told")?;
        let mut expected: Vec<(String, Value)> = state.into_iter().collect();
        let n = |entry: &(String, Value)| entry.1["n"].as_i64();
        match sort_by {
            [] => {}
            ["n desc"] => expected.sort_by_key(|entry| (n(entry).map(|n| -n), entry.0.clone())),
            _ => expected.sort_by_key(|entry| (n(entry), std::cmp::Reverse(entry.0.clone()))),
        }
        assert!(found == expected, "sorted by {sort_by:?} at {at}");
    }
    Ok(())
}

/// Every page in turn from the one and the other: where, how many, the total, and what was on them.
async fn all_pages(
    direct: &[Client; 2],
    sort_by: &[&str],
) -> Result<(u64, usize, u64, Vec<(String, Value)>)> {
    let (mut cursor, mut pages, mut found, mut at) = (None, 0, Vec::new(), None);
    loop {
        let request = EnumerateRequest {
            filter: Some(Filter::new().gte("n", 0)),
            limit: Some(10),
            cursor,
            sort_by: sort_by.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let page = direct[pages % 2].registry.enumerate(request).await?;
        ensure!(
            at.is_none_or(|at| at == page.position),
            "{:?} after {at:?}",
            page.position
        );
        at = Some(page.position);
        pages += 1;
        found.extend(
            page.identities
                .into_iter()
                .map(|found| (found.identity, Value::Object(found.metadata))),
        );
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok((page.position.revision, pages, page.total_count, found));
        }
    }
}

/// What is written through one runner is seen through the other at once.
#[tokio::test]
async fn what_one_runner_wrote_the_other_shows_at_once() -> Result<()> {
    let system = System::on_redis_and_nats(2).await?;
    let direct = [
        system.runners[0].client("test")?,
        system.runners[1].client("test")?,
    ];
    for number in 0..200_usize {
        let (writer, reader) = (&direct[number % 2], &direct[(number + 1) % 2]);
        let name = format!("id-{number}");
        let held = writer.registry.register(RegisterRequest::new(&name)).await?;
        let page = reader
            .registry
            .enumerate(EnumerateRequest {
                filter: Some(Filter::new().eq("$identity", name.as_str())),
                ..Default::default()
            })
            .await?;
        ensure!(page.total_count == 1, "`{name}` is not there");
        ensure!(
            page.position.revision >= held.position.revision,
            "{} before {}",
            page.position,
            held.position
        );
    }
    Ok(())
}
