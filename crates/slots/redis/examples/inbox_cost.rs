//! What storing a message for 1,000 identities costs, beside as many `XADD` of the same payload in one pipeline, on
//! the same server in the same run; and what it costs them to have it handed out and to acknowledge it.
//!
//! `cargo run --release -p prism-slot-redis --example inbox_cost`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    interfaces::ClientLike,
    prelude::{Builder, Client},
    types::{ClusterHash, CustomCommand, Value},
};
use futures::{StreamExt, stream};
use prism_slot::{
    Address, Consumer, DurableInbox, Enqueued, Epoch, Fetch, Holder, Identity, InboxLimits, Message,
    MulticastId, Priority, Terms, Verdict,
};
use prism_slot_redis::{InboxConfig, RedisInbox};
use prism_testkit::RedisServer;
use tokio::time::Instant;

const TARGETS: usize = 1_000;
const ROUNDS: usize = 60;
const PAYLOAD: usize = 200;
const SESSIONS_AT_ONCE: usize = 128;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options: Vec<String> = std::env::args().skip(1).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = RedisServer::start_with(&options).await?;
    let url = format!("redis://{}", server.addr());
    let raw = Builder::from_config(fred::types::config::Config::from_url(&url)?).build()?;
    raw.init().await?;
    run(&raw, "CONFIG", &["SET", "slowlog-log-slower-than", "1000"]).await;
    run(&raw, "CONFIG", &["SET", "slowlog-max-len", "10000"]).await;
    let config: InboxConfig =
        serde_json::from_value(serde_json::json!({ "address": server.addr().to_string() }))?;
    let slot = RedisInbox::open("cost", config, InboxLimits::default()).await?;

    for (what, is_new) in [("new inboxes", true), ("inboxes that have some", false)] {
        let (mut floor, mut ours) = (Vec::new(), Vec::new());
        let (mut floor_cpu, mut our_cpu) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            if is_new {
                run(&raw, "FLUSHALL", &["SYNC"]).await;
            }
            let before = cpu(&raw).await;
            floor.push(xadds(&raw).await);
            floor_cpu += cpu(&raw).await - before;
            if is_new {
                run(&raw, "FLUSHALL", &["SYNC"]).await;
            }
            let before = cpu(&raw).await;
            ours.push(store(&slot).await);
            our_cpu += cpu(&raw).await - before;
        }
        let (floor, ours) = (median(floor), median(ours));
        let ratio = ours.as_secs_f64() / floor.as_secs_f64();
        println!(
            "{what}: {TARGETS} XADD {floor:.2?}, stored in {TARGETS} inboxes {ours:.2?}, {ratio:.2} times that"
        );
        let (floor_cpu, our_cpu) = (floor_cpu / ROUNDS as u32, our_cpu / ROUNDS as u32);
        println!("  of the server's time {floor_cpu:.2?} and {our_cpu:.2?}");
    }
    per_call(&raw, "all stores").await;

    run(&raw, "FLUSHALL", &["SYNC"]).await;
    run(&raw, "CONFIG", &["RESETSTAT"]).await;
    store(&slot).await;
    let before = cpu(&raw).await;
    let (opened, handed, acked) = consume(&slot).await;
    println!("of the server's time {:.2?}", cpu(&raw).await - before);
    println!(
        "{TARGETS} sessions, {SESSIONS_AT_ONCE} at a time: open {opened:.2?}, fetch {handed:.2?}, ack {acked:.2?}"
    );
    per_call(&raw, "opening, fetching, acknowledging").await;
    println!(
        "the longest of these and of all stores, in microseconds: {:?}",
        longest(&raw).await
    );
    Ok(())
}

async fn run(client: &Client, command: &'static str, words: &[&str]) -> Value {
    let command = CustomCommand::new_static(command, ClusterHash::Random, false);
    let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
    client.custom(command, words).await.unwrap()
}

/// How long the server's processor has worked so far.
async fn cpu(client: &Client) -> Duration {
    let info = run(client, "INFO", &["cpu"]).await.as_string().unwrap();
    let times = info.lines().filter(|line| line.contains("_main_thread:"));
    let seconds = times.map(|line| line.split(':').nth(1).unwrap().trim().parse::<f64>().unwrap());
    Duration::from_secs_f64(seconds.sum())
}

/// The longest calls of functions, of those that took more than a millisecond.
async fn longest(client: &Client) -> Vec<u64> {
    let slow = run(client, "SLOWLOG", &["GET", "10000"]).await.into_array();
    let took = slow.into_iter().filter_map(|entry| {
        let entry = entry.into_array();
        let command = entry[3].clone().into_array()[0].as_string()?;
        command.eq_ignore_ascii_case("fcall").then(|| entry[2].as_u64())?
    });
    let mut took: Vec<u64> = took.collect();
    took.sort_unstable_by(|one, other| other.cmp(one));
    took.truncate(5);
    took
}

/// What the calls of functions cost the server.
async fn per_call(client: &Client, what: &str) {
    let stats = run(client, "INFO", &["commandstats"]).await.as_string().unwrap();
    for line in stats
        .lines()
        .filter(|line| line.starts_with("cmdstat_fcall:") || line.starts_with("cmdstat_xadd:"))
    {
        println!("  {what}: {line}");
    }
}

/// As many `XADD` in one pipeline, all acknowledged.
async fn xadds(client: &Client) -> Duration {
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let started = Instant::now();
    let pipeline = client.pipeline();
    for number in 0..TARGETS {
        let command = CustomCommand::new_static("XADD", ClusterHash::Random, false);
        let words: Vec<Value> = vec![
            format!("raw:device-{number:05}").into(),
            "*".into(),
            "m".into(),
            Value::Bytes(payload.clone()),
        ];
        let _: () = pipeline.custom(command, words).await.unwrap();
    }
    let ids: Vec<Value> = pipeline.all().await.unwrap();
    assert_eq!(ids.len(), TARGETS);
    started.elapsed()
}

async fn store(slot: &RedisInbox) -> Duration {
    let addresses: Vec<Address> = (0..TARGETS).map(address).collect();
    let message = Arc::new(Message::new(MulticastId::random(), vec![b'x'; PAYLOAD]));
    let terms = Terms {
        priority: Priority::Normal,
        ttl: Duration::from_secs(3_600),
    };
    let started = Instant::now();
    let outcomes = slot.enqueue(&addresses, message, terms, soon()).await;
    let took = started.elapsed();
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == Enqueued::Stored { displaced: None })
    );
    took
}

/// What all sessions do, each kind of call after the other.
async fn consume(slot: &RedisInbox) -> (Duration, Duration, Duration) {
    let fetch = Fetch {
        max_messages: 64,
        max_bytes: 1 << 20,
        ack_timeout: Duration::from_secs(30),
        max_deliver: 10,
    };
    let sessions = || stream::iter((0..TARGETS).map(consumer));
    let started = Instant::now();
    let open = sessions().for_each_concurrent(SESSIONS_AT_ONCE, async |consumer| {
        slot.open(&consumer, soon()).await.unwrap();
    });
    open.await;
    let (opened, started) = (started.elapsed(), Instant::now());
    let deliveries = sessions()
        .map(async |consumer| {
            let fetched = slot.fetch(&consumer, fetch, soon()).await.unwrap();
            (consumer, fetched.deliveries[0].message.multicast)
        })
        .buffer_unordered(SESSIONS_AT_ONCE)
        .collect::<Vec<_>>();
    let deliveries = deliveries.await;
    let (handed, started) = (started.elapsed(), Instant::now());
    let ack =
        stream::iter(deliveries).for_each_concurrent(SESSIONS_AT_ONCE, async |(consumer, multicast)| {
            slot.settle(&consumer, vec![(multicast, Verdict::Ack)], soon())
                .await
                .unwrap();
        });
    ack.await;
    (opened, handed, started.elapsed())
}

fn address(number: usize) -> Address {
    Address {
        identity: Identity::new(format!("device-{number:05}")).unwrap(),
        holder: Holder([1; 16]),
    }
}

fn consumer(number: usize) -> Consumer {
    Consumer {
        address: address(number),
        epoch: Epoch(1),
        session_seq: 1,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
