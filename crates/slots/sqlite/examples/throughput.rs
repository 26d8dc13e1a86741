//! How much a file takes, and how soon it is there again after its process was killed.
//!
//! `cargo run --release -p prism-slot-sqlite --example throughput [directory]`: figures are of that directory's disk,
//! with every commit brought to it. The raw floor of the same run is how long bringing one page to the disk takes.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it measures, and says what it measured"
)]

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use prism_slot::{
    Address, Call, Consumer, DynDurableInbox, DynRegistryStore, Enqueued, Epoch, Fetch, Holder, Identity,
    InboxLimits, Message, Mode, MulticastId, Owner, Priority, Register, Renew, RequestId, Revision, Scan,
    Terms, Ttl, Verdict,
};
use prism_slot_sqlite::{Config, InboxConfig, SqliteInbox, SqliteRegistry};
use rand::seq::IndexedRandom;

const IDENTITIES: usize = 100_000;
/// How many addresses one store has.
const TARGETS: usize = 1_000;
const AT_A_TIME: usize = 16;
const MEASURED: Duration = Duration::from_secs(8);
/// Given to the process that is killed.
const WRITER: &str = "--write-and-wait";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [WRITER, path] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return write_and_wait(Path::new(path)).await;
    }
    let under = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(under).unwrap();
    floor(directory.path());
    storing("to neighbours", directory.path(), false).await;
    storing("to identities at random", directory.path(), true).await;
    consuming(directory.path()).await;
    registering(directory.path()).await;
    ready_again(directory.path()).await;
}

/// How long the thread that owns the file has worked, and not waited for the disk. In ticks of 10 ms.
fn worked() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "prism-sqlite")
    };
    let ticks = |task: PathBuf| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum::<u64>()
    };
    Duration::from_millis(10 * tasks.map(|task| task.path()).filter(name).map(ticks).sum::<u64>())
}

fn floor(directory: &Path) {
    let mut file = File::create(directory.join("floor")).unwrap();
    let (started, times) = (Instant::now(), 200);
    for _ in 0..times {
        file.write_all(&[1; 4_096]).unwrap();
        file.sync_data().unwrap();
    }
    println!("floor: one page to the disk in {:.2?}", started.elapsed() / times);
}

fn at(directory: &Path, name: &str) -> InboxConfig {
    InboxConfig {
        path: directory.join(name),
        ..InboxConfig::default()
    }
}

async fn inbox(config: InboxConfig) -> Arc<dyn DynDurableInbox> {
    let limits = InboxLimits {
        max_messages: 1_000_000,
        ..InboxLimits::default()
    };
    Arc::new(SqliteInbox::open("bench", config, limits).await.unwrap())
}

fn addresses() -> Vec<Address> {
    let address = |number| Address {
        identity: Identity::new(format!("device-{number:08}")).unwrap(),
        holder: Holder([1; 16]),
    };
    (0..IDENTITIES).map(address).collect()
}

fn message() -> Arc<Message> {
    Arc::new(Message::new(MulticastId::random(), vec![7; 200]))
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(30)
}

const TERMS: Terms = Terms {
    priority: Priority::Normal,
    ttl: Duration::from_secs(3_600),
};

async fn store(slot: Arc<dyn DynDurableInbox>, to: Vec<Address>) -> (usize, Duration) {
    let started = Instant::now();
    let outcomes = slot.enqueue(&to, message(), TERMS, deadline()).await;
    let stored = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Enqueued::Stored { .. }));
    let count = stored.count();
    assert_eq!(count, to.len(), "{:?}", outcomes[0]);
    (count, started.elapsed())
}

async fn storing(what: &str, directory: &Path, at_random: bool) {
    let slot = inbox(at(directory, &format!("store-{at_random}.db"))).await;
    let all = addresses();
    let chunks: Vec<&[Address]> = all.chunks(TARGETS).collect();
    let started = Instant::now();
    let calls = stream::iter(0..).take_while(|_| std::future::ready(started.elapsed() < MEASURED));
    let calls = calls.map(|number: usize| {
        let to = if at_random {
            all.sample(&mut rand::rng(), TARGETS).cloned().collect()
        } else {
            chunks[number % chunks.len()].to_vec()
        };
        store(slot.clone(), to)
    });
    let done: Vec<(usize, Duration)> = calls.buffer_unordered(AT_A_TIME).collect().await;
    let took = started.elapsed();
    let stored: usize = done.iter().map(|(count, _)| count).sum();
    let mut times: Vec<Duration> = done.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    println!(
        "stored {what}: {:.0} receipts/s, {:.1?} of work each ({stored} in {took:.1?}, {TARGETS} a call, {AT_A_TIME} at a time; a call took {:.0?}, 99 of 100 at most {:.0?})",
        stored as f64 / took.as_secs_f64(),
        worked() / u32::try_from(stored).unwrap(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    slot.close().await;
}

async fn consuming(directory: &Path) {
    let slot = inbox(at(directory, "consume.db")).await;
    let all = addresses();
    for _ in 0..5 {
        for chunk in all[..20_000].chunks(TARGETS) {
            store(slot.clone(), chunk.to_vec()).await;
        }
    }
    let (started, before) = (Instant::now(), worked());
    let consume = |address: &Address| {
        let (slot, address) = (slot.clone(), address.clone());
        async move {
            let consumer = Consumer {
                address,
                epoch: Epoch(1),
                session_seq: 1,
            };
            slot.open(&consumer, deadline()).await.unwrap();
            let fetch = Fetch {
                max_messages: 100,
                max_bytes: 1 << 20,
                ack_timeout: Duration::from_secs(30),
                max_deliver: 5,
            };
            let fetched = slot.fetch(&consumer, fetch, deadline()).await.unwrap();
            let acks = fetched
                .deliveries
                .iter()
                .map(|delivery| (delivery.message.multicast, Verdict::Ack));
            slot.settle(&consumer, acks.collect(), deadline())
                .await
                .unwrap()
                .len()
        }
    };
    let consumed: Vec<usize> = stream::iter(&all[..20_000])
        .map(consume)
        .buffer_unordered(256)
        .collect()
        .await;
    let (count, took) = (consumed.iter().sum::<usize>(), started.elapsed());
    println!(
        "opened, fetched and acknowledged: {:.0} messages/s, {:.1?} of work each, {:.0} inboxes/s ({count} in {took:.1?}, 256 inboxes at a time)",
        count as f64 / took.as_secs_f64(),
        (worked() - before) / u32::try_from(count).unwrap(),
        20_000.0 / took.as_secs_f64(),
    );
    slot.close().await;
}

async fn registry(path: PathBuf) -> Arc<dyn DynRegistryStore> {
    let config = Config {
        path,
        ..Config::default()
    };
    Arc::new(SqliteRegistry::open("bench", config).await.unwrap())
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: deadline(),
    }
}

fn register(address: &Address) -> Register {
    Register {
        identity: address.identity.clone(),
        metadata: vec![b'x'; 200].into(),
        ttl: Ttl::from_millis(600_000),
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: u64::MAX,
        request: RequestId::next(),
    }
}

async fn register_all(slot: &Arc<dyn DynRegistryStore>, all: &[Address]) {
    let batches = stream::iter(all.chunks(256))
        .map(|batch| slot.register(call(), batch.iter().map(register).collect()));
    let done: Vec<_> = batches.buffer_unordered(AT_A_TIME).collect().await;
    assert!(done.iter().flatten().all(Result::is_ok));
}

async fn registering(directory: &Path) {
    let slot = registry(directory.join("register.db")).await;
    let all = addresses();
    let started = Instant::now();
    register_all(&slot, &all).await;
    println!(
        "registered: {:.0}/s",
        IDENTITIES as f64 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let renew = |address: &Address| Renew {
        identity: address.identity.clone(),
        generation: None,
    };
    let batches =
        stream::iter(all.chunks(256)).map(|batch| slot.renew(call(), batch.iter().map(renew).collect()));
    let done: Vec<_> = batches.buffer_unordered(AT_A_TIME).collect().await;
    assert!(done.iter().flatten().all(Result::is_ok));
    println!(
        "renewed: {:.0}/s",
        IDENTITIES as f64 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let single =
        stream::iter(all.iter().take(20_000)).map(|address| slot.get(call(), address.identity.clone()));
    assert!(
        single
            .buffer_unordered(64)
            .all(|read| std::future::ready(read.is_ok()))
            .await
    );
    println!(
        "read one by one: {:.0}/s, 64 at a time",
        20_000.0 / started.elapsed().as_secs_f64()
    );
    slot.close().await;
}

async fn write_and_wait(path: &Path) {
    let slot = registry(path.to_owned()).await;
    let inbox = inbox(InboxConfig {
        path: path.to_owned(),
        ..InboxConfig::default()
    })
    .await;
    let all = addresses();
    register_all(&slot, &all).await;
    let stores = stream::iter(all.chunks(TARGETS)).map(|chunk| store(inbox.clone(), chunk.to_vec()));
    let _: Vec<_> = stores.buffer_unordered(AT_A_TIME).collect().await;
    println!("written");
    std::future::pending::<()>().await;
}

async fn ready_again(directory: &Path) {
    let path = directory.join("killed.db");
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .arg(WRITER)
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "written");
    writer.kill().unwrap();
    writer.wait().unwrap();
    let started = Instant::now();
    let slot = registry(path.clone()).await;
    let inbox = inbox(InboxConfig {
        path,
        ..InboxConfig::default()
    })
    .await;
    let head = slot
        .sync(call(), Revision(IDENTITIES as u64 - 1), 10)
        .await
        .unwrap()
        .head;
    let answered = started.elapsed();
    let (mut records, mut cursor) = (0, None);
    loop {
        let scan = Scan {
            cursor,
            limit: 1_024,
            hold: Duration::from_secs(30),
        };
        let page = slot.scan(call(), scan).await.unwrap();
        records += page.records.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let scanned = started.elapsed();
    let depth = inbox.depth(None, deadline()).await.unwrap();
    println!(
        "after a kill: first answers in {answered:.0?}, all {records} records read in {scanned:.0?}; {} messages wait, the head is {head}",
        depth.messages
    );
    assert_eq!(
        (records, depth.messages, head.revision.0),
        (IDENTITIES, IDENTITIES as u64, IDENTITIES as u64)
    );
    slot.close().await;
    inbox.close().await;
}
