//! A namespace that no runner keeps a view of.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use integration::{PATIENCE, System};
use prism_client::{
    Client, EnumerateRequest, Error, Filter, MulticastRequest, Page, Reason, RegisterRequest, Status,
};
use prism_testkit::eventually;
use serde_json::json;

/// Registers so many under a prefix, each with its number.
async fn fill(client: &Client, prefix: &str, count: usize) -> Result<()> {
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(1_000) {
        let requests = part.iter().map(|number| RegisterRequest {
            metadata: json!({ "number": number, "of": prefix }),
            ..RegisterRequest::new(format!("{prefix}-{number:05}"))
        });
        for registered in client.registry.register_many(requests).await? {
            registered?;
        }
    }
    Ok(())
}

/// All pages, each from another runner than the one before.
async fn pages(runners: &[Client], filter: Filter, limit: u32) -> Result<Vec<Page>> {
    let mut pages: Vec<Page> = Vec::new();
    loop {
        let request = EnumerateRequest {
            filter: Some(filter.clone()),
            sort_by: vec!["number desc".to_owned()],
            limit: Some(limit),
            cursor: pages.last().and_then(|page| page.next_cursor.clone()),
            ..Default::default()
        };
        pages.push(
            runners[pages.len() % runners.len()]
                .registry
                .enumerate(request)
                .await?,
        );
        if pages.last().is_some_and(|page| page.next_cursor.is_none()) {
            return Ok(pages);
        }
    }
}

/// What is registered through one runner is found through the other at once, pages go on at either, and a
/// multicast through one reaches a session at the other.
#[tokio::test]
async fn two_runners_without_a_view_are_one_registry() -> Result<()> {
    const COUNT: usize = 3_000;
    let system = System::on_redis_and_nats_without_view(2).await?;
    let clients = [
        system.runners[0].client("test")?,
        system.runners[1].client("test")?,
    ];
    fill(&clients[0], "device", COUNT).await?;
    let count = EnumerateRequest {
        count_only: true,
        ..Default::default()
    };
    assert_eq!(
        clients[1].registry.enumerate(count).await?.total_count,
        COUNT as u64
    );

    let pages = pages(&clients, Filter::new().gte("number", 1_000), 300).await?;
    assert_eq!(pages.len(), 7);
    assert!(pages.iter().all(|page| page.total_count == 2_000));
    let names: Vec<_> = pages
        .iter()
        .flatten()
        .map(|found| found.identity.clone())
        .collect();
    let expected: Vec<_> = (1_000..COUNT)
        .rev()
        .map(|number| format!("device-{number:05}"))
        .collect();
    assert!(names == expected, "in order, each once");

    let mut session = clients[0].registry.subscribe("device-00007").await?;
    let request = MulticastRequest {
        filter: Some(Filter::new().is_in("number", [7, 8])),
        payload: b"hello".to_vec(),
        ..Default::default()
    };
    let sent = clients[1].registry.multicast(request).await?;
    assert_eq!((sent.target_count, sent.delivered_count), (2, 1));
    let delivered = sent
        .statuses
        .iter()
        .find(|status| status.status == Status::Delivered);
    assert_eq!(
        delivered.map(|status| status.identity.as_str()),
        Some("device-00007")
    );
    loop {
        let event = session.next().await.context("the session ended")??;
        if let prism_client::Event::Message(message) = event {
            assert_eq!(&message.payload[..], b"hello");
            break;
        }
    }
    Ok(())
}

/// What one answer held, and of which history it is.
type Answer = (u64, BTreeSet<String>);

const ASKERS: usize = 4;

/// Those who ask, all together.
#[derive(Default)]
struct Asking {
    stop: AtomicBool,
    answered: AtomicUsize,
}

impl Asking {
    /// Waits until somebody has asked and was answered after this was called: of one more than there are who ask, one was
    /// the second of the same.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually(PATIENCE, "somebody is answered", async || {
            self.answered.load(Ordering::Relaxed) > before + ASKERS
        })
        .await;
    }
}

/// Asks for everything, again and again, until it is told to stop.
async fn ask(client: &Client, all: &Asking) -> Result<(Vec<Answer>, Vec<Error>)> {
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    while !all.stop.load(Ordering::Relaxed) {
        let request = EnumerateRequest {
            limit: Some(1_000),
            include_metadata: false,
            ..Default::default()
        };
        match client.registry.enumerate(request).await {
            Ok(page) => {
                let names = page.identities.into_iter().map(|found| found.identity);
                answers.push((page.position.epoch, names.collect()));
                all.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => errors.push(error),
        }
    }
    Ok((answers, errors))
}

/// Redis forgets everything in the middle of searches, and then is restarted in the middle of searches: what is
/// answered is of one history, whole, and everybody knows of which.
#[tokio::test]
async fn no_answer_is_of_two_histories() -> Result<()> {
    const COUNT: usize = 1_000;
    let mut system = System::on_redis_and_nats_without_view(2).await?;
    let clients = [
        system.runners[0].client("test")?,
        system.runners[1].client("test")?,
    ];
    let mut redis = system.redis.take().context("no redis")?;
    fill(&clients[0], "first", COUNT).await?;
    let all = Asking::default();
    let asking = join_all((0..ASKERS).map(|number| ask(&clients[number % 2], &all)));
    let story = async {
        let before = clients[0]
            .registry
            .enumerate(EnumerateRequest::default())
            .await?
            .position
            .epoch;
        all.goes_on().await;
        for (prefix, restarts) in [("second", false), ("third", true)] {
            tokio::time::timeout(PATIENCE, async {
                if restarts {
                    redis.restart_empty().await?;
                } else {
                    flush(redis.addr()).await?;
                }
                // As clients that keep registrations do.
                while let Err(error) = fill(&clients[1], prefix, COUNT).await {
                    println!("{prefix}: {error}");
                }
                anyhow::Ok(())
            })
            .await??;
            eventually(PATIENCE, "everything is found again", async || {
                let both = clients
                    .iter()
                    .map(|client| client.registry.enumerate(EnumerateRequest::default()));
                let both = try_join_all(both).await;
                both.is_ok_and(|pages| pages.iter().all(|page| page.total_count == COUNT as u64))
            })
            .await;
            all.goes_on().await;
        }
        all.stop.store(true, Ordering::Relaxed);
        anyhow::Ok(before)
    };
    let (answers, first_epoch) = futures::join!(asking, story);
    let first_epoch = first_epoch?;
    let (mut epochs, mut whole, mut failed) = (BTreeSet::new(), 0, 0);
    for outcome in answers {
        let (answers, errors) = outcome?;
        for (epoch, names) in answers {
            let histories: BTreeSet<&str> = names.iter().filter_map(|name| name.split('-').next()).collect();
            assert!(histories.len() <= 1, "of {histories:?} at once");
            if epoch == first_epoch {
                assert_eq!(names.len(), COUNT, "a part of what was registered");
                assert_eq!(histories, BTreeSet::from(["first"]));
                whole += 1;
            } else {
                assert!(!histories.contains("first"), "what is gone is served");
            }
            epochs.insert(epoch);
        }
        for error in errors {
            let reason = error.reason();
            assert!(
                matches!(
                    reason,
                    Some(
                        Reason::BackendUnavailable
                            | Reason::EpochChanged
                            | Reason::NotReady
                            | Reason::DeadlineExceeded
                    )
                ),
                "{error:?}"
            );
            failed += 1;
        }
    }
    println!(
        "{whole} answers of the first history, {} histories, {failed} calls failed",
        epochs.len()
    );
    assert!(whole > 0 && epochs.len() >= 3);
    Ok(())
}

async fn flush(redis: std::net::SocketAddr) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(redis).await?;
    stream.write_all(b"FLUSHALL\r\n").await?;
    let mut answer = [0; 5];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await??;
    anyhow::ensure!(&answer == b"+OK\r\n", "{answer:?}");
    Ok(())
}
