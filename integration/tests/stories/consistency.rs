//! What clients of two runners on one store are told, held against one history.
//!
//! A watcher of everything sees each change at its revision: that is the history. Whatever a call said must have
//! been true in it, at a moment between the call and its answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use integration::{PATIENCE, Runner, System};
use prism_client::{
    Applied, Change, Client, EnumerateRequest, Error, Filter, Position, RegisterRequest, UpdateRequest,
    Watch, WatchEvent, WatchRequest,
};
use prism_testkit::Signal;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The metadata of each identity at some revision.
type State = BTreeMap<String, Value>;

/// What happened, in the order of revisions.
#[derive(Default)]
struct History {
    /// What each revision did: the identity, and its metadata from then on, `None` for gone.
    changes: BTreeMap<u64, (String, Option<Value>)>,
}

impl History {
    fn add(&mut self, change: &Change, gone: bool) -> Result<()> {
        let after = (!gone).then(|| Value::Object(change.identity.metadata.clone()));
        let at = change.position.revision;
        let before = self.changes.insert(at, (change.identity.identity.clone(), after));
        ensure!(before.is_none(), "revision {at} was told twice");
        Ok(())
    }

    fn state_at(&self, revision: u64) -> State {
        let mut state = State::new();
        for (identity, after) in self.changes.range(..=revision).map(|(_, change)| change) {
            match after {
                Some(metadata) => state.insert(identity.clone(), metadata.clone()),
                None => state.remove(identity),
            };
        }
        state
    }
}

/// Follows everything that happens until so much has happened.
struct Witness(JoinHandle<Result<History>>, Arc<AtomicU64>);

impl Witness {
    async fn start(client: &Client) -> Result<Self> {
        let watch = client.registry.watch(WatchRequest::default()).await?;
        let until = Arc::new(AtomicU64::new(u64::MAX));
        Ok(Self(tokio::spawn(Self::follow(watch, until.clone())), until))
    }

    async fn follow(mut watch: Watch, until: Arc<AtomicU64>) -> Result<History> {
        let (mut history, mut reached) = (History::default(), 0);
        while reached < until.load(Ordering::Acquire) {
            // Looked up again now and then, in case nothing more happens.
            let Ok(event) = tokio::time::timeout(Duration::from_millis(100), watch.next()).await else {
                continue;
            };
            match event.context("the watch is over")?? {
                WatchEvent::Entered(change) | WatchEvent::Updated(change) => {
                    reached = change.position.revision;
                    history.add(&change, false)?;
                }
                WatchEvent::Left(change) => {
                    reached = change.position.revision;
                    history.add(&change, true)?;
                }
                WatchEvent::Bookmark(at) => reached = at.revision,
                other => bail!("{other:?}"),
            }
        }
        let revisions = history.changes.keys().copied();
        ensure!(
            revisions.eq(1..=history.changes.len() as u64),
            "there are revisions that nobody was told of"
        );
        Ok(history)
    }

    /// Everything up to a position.
    async fn history(self, until: Position) -> Result<History> {
        self.1.store(until.revision, Ordering::Release);
        tokio::time::timeout(PATIENCE * 2, self.0).await??
    }
}

/// One call, when it was made and when it was answered, and what it said.
struct Operation {
    began: Instant,
    ended: Instant,
    said: Said,
}

enum Said {
    /// A write that carried this mark, or a removal, at this revision.
    Written {
        identity: String,
        mark: Option<u64>,
        at: u64,
    },
    /// A write that may have happened.
    Unknown { mark: Option<u64> },
    /// A write that has not.
    Refused { mark: Option<u64> },
    /// What one identity was as of a position.
    Read {
        identity: String,
        found: Option<Value>,
        at: u64,
    },
    /// Everybody with an even mark, as of a position.
    Listed { found: State, at: u64 },
    /// Nothing that could be held against it.
    Nothing,
}

fn is_even(metadata: &Value) -> bool {
    metadata["even"] == json!(true)
}

/// A client that does this and that.
async fn caller(client: Client, seed: u64, marks: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Operation> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut operations = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let identity = format!("id-{}", random.random_range(0..12));
        let began = Instant::now();
        let said = match random.random_range(0..10) {
            0..=2 => register(&client, identity, marks.fetch_add(1, Ordering::Relaxed)).await,
            3..=4 => update(&client, identity, marks.fetch_add(1, Ordering::Relaxed)).await,
            5 => unregister(&client, identity).await,
            6 => {
                let _ = client.registry.renew([identity]).await;
                Said::Nothing
            }
            7..=8 => get(&client, identity).await,
            _ => enumerate(&client).await,
        };
        let ended = Instant::now();
        operations.push(Operation { began, ended, said });
    }
    operations
}

fn failed(error: &Error, mark: Option<u64>) -> Said {
    match error.applied() {
        Applied::No => Said::Refused { mark },
        Applied::Unknown => Said::Unknown { mark },
    }
}

fn marked(mark: u64) -> Value {
    json!({ "mark": mark, "even": mark.is_multiple_of(2) })
}

async fn register(client: &Client, identity: String, mark: u64) -> Said {
    let request = RegisterRequest {
        metadata: marked(mark),
        replace: true,
        ttl: Some(60),
        ..RegisterRequest::new(&identity)
    };
    match client.registry.register(request).await {
        Ok(held) => Said::Written {
            identity,
            mark: Some(mark),
            at: held.position.revision,
        },
        Err(error) => failed(&error, Some(mark)),
    }
}

async fn update(client: &Client, identity: String, mark: u64) -> Said {
    let request = UpdateRequest {
        identity: identity.clone(),
        patch: marked(mark),
        ..Default::default()
    };
    match client.registry.update(request).await {
        Ok(found) => Said::Written {
            identity,
            mark: Some(mark),
            at: found.identity.revision,
        },
        Err(error) => failed(&error, Some(mark)),
    }
}

async fn unregister(client: &Client, identity: String) -> Said {
    match client.registry.unregister(identity.as_str()).await {
        Ok(removed) if removed.existed => Said::Written {
            identity,
            mark: None,
            at: removed.position.revision,
        },
        Ok(removed) => Said::Read {
            identity,
            found: None,
            at: removed.position.revision,
        },
        Err(error) => failed(&error, None),
    }
}

async fn get(client: &Client, identity: String) -> Said {
    match client.registry.get(&identity).await {
        Ok(found) => Said::Read {
            identity,
            found: Some(Value::Object(found.identity.metadata)),
            at: found.position.revision,
        },
        // It says no position that it could be held against.
        Err(_) => Said::Nothing,
    }
}

async fn enumerate(client: &Client) -> Said {
    let request = EnumerateRequest {
        filter: Some(Filter::new().eq("even", true)),
        ..Default::default()
    };
    match client.registry.enumerate(request).await {
        Ok(page) => Said::Listed {
            at: page.position.revision,
            found: page
                .identities
                .into_iter()
                .map(|found| (found.identity, Value::Object(found.metadata)))
                .collect(),
        },
        Err(_) => Said::Nothing,
    }
}

/// Holds every answer against the history.
fn check(operations: &[Operation], history: &History) -> Result<[usize; 4]> {
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for (_, after) in history.changes.values() {
        if let Some(mark) = after.as_ref().and_then(|metadata| metadata["mark"].as_u64()) {
            *seen.entry(mark).or_default() += 1;
        }
    }
    let mut counts = [0; 4];
    for operation in operations {
        match &operation.said {
            Said::Written { identity, mark, at } => {
                counts[0] += 1;
                let (who, after) = history
                    .changes
                    .get(at)
                    .with_context(|| format!("nothing happened at {at}"))?;
                ensure!(who == identity, "{at} wrote `{who}` and not `{identity}`");
                let written = after.as_ref().and_then(|metadata| metadata["mark"].as_u64());
                ensure!(written == *mark, "{at} wrote {written:?} and not {mark:?}");
            }
            Said::Unknown { mark } => {
                counts[1] += 1;
                let times = mark.and_then(|mark| seen.get(&mark)).copied().unwrap_or_default();
                ensure!(
                    times <= 1,
                    "what may have been written once was written {times} times"
                );
            }
            Said::Refused { mark } => {
                let times = mark.and_then(|mark| seen.get(&mark)).copied().unwrap_or_default();
                ensure!(times == 0, "what was refused was written");
            }
            Said::Read { identity, found, at } => {
                counts[2] += 1;
                let state = history.state_at(*at);
                ensure!(
                    state.get(identity) == found.as_ref(),
                    "at {at} `{identity}` was {:?}, and {found:?} was read",
                    state.get(identity)
                );
            }
            Said::Listed { found, at } => {
                counts[3] += 1;
                let mut state = history.state_at(*at);
                state.retain(|_, metadata| is_even(metadata));
                ensure!(
                    state == *found,
                    "at {at} there was {state:?}, and {found:?} was listed"
                );
            }
            Said::Nothing => {}
        }
    }
    check_order(operations)?;
    Ok(counts)
}

/// What was answered before another call was made is part of what that one saw.
fn check_order(operations: &[Operation]) -> Result<()> {
    let mut ends: Vec<(Instant, u64)> = operations
        .iter()
        .filter_map(|operation| Some((operation.ended, position_of(&operation.said)?)))
        .collect();
    ends.sort();
    let mut latest = 0;
    let ends: Vec<(Instant, u64)> = ends
        .into_iter()
        .map(|(ended, at)| {
            latest = latest.max(at);
            (ended, latest)
        })
        .collect();
    for operation in operations {
        let Some(at) = position_of(&operation.said) else {
            continue;
        };
        let before = ends.partition_point(|(ended, _)| *ended < operation.began);
        let known = before.checked_sub(1).map_or(0, |index| ends[index].1);
        let is_write = matches!(operation.said, Said::Written { .. });
        ensure!(
            if is_write { at > known } else { at >= known },
            "a call that came after {known} was known says {at}"
        );
    }
    Ok(())
}

fn position_of(said: &Said) -> Option<u64> {
    match said {
        Said::Written { at, .. } | Said::Read { at, .. } | Said::Listed { at, .. } => Some(*at),
        Said::Unknown { .. } | Said::Refused { .. } | Said::Nothing => None,
    }
}

/// Eight clients over two runners, of which one after the other is killed.
#[tokio::test]
async fn no_answer_contradicts_the_history() -> Result<()> {
    let mut system = System::on_redis_and_nats(2).await?;
    let client = system.client()?;
    let witness = Witness::start(&client).await?;
    let (marks, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..8)
        .map(|seed| {
            let client = system.client()?;
            Ok(tokio::spawn(caller(client, seed, marks.clone(), stop.clone())))
        })
        .collect::<Result<_>>()?;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        system.runners.remove(0).process.signal(Signal::KILL)?;
        system.runners.push(Runner::under(system.proxy.control).await?);
        system.proxy.wait_for_runners("test", 2).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut operations = Vec::new();
    for caller in callers {
        operations.extend(tokio::time::timeout(PATIENCE, caller).await??);
    }
    let last = client.registry.enumerate(EnumerateRequest::default()).await?;
    let history = witness.history(last.position).await?;
    let [written, unknown, read, listed] = check(&operations, &history)?;
    assert!(
        written > 100 && read > 50 && listed > 20,
        "{written} written, {unknown} unknown, {read} read, {listed} listed"
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
        let mut expected: Vec<(String, Value)> = history.state_at(at).into_iter().collect();
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
