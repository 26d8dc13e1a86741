//! A hundred subscribers behind the proxy, multicasts at a steady rate, and one of them a process that is stopped: it
//! neither reads nor acknowledges. How long the 99 others wait, beside how long they wait while it reads.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use integration::{Proxy, START_LIMIT, System, shared_namespace};
use prism_client::{Client, DeliverySemantics};
use prism_testkit::{NatsServer, Process, RedisServer};
use serde_json::json;
use tokio::{task::JoinSet, time::interval};

use crate::{
    report::{Better, Report, percentile},
    sessions::{Arrivals, listen, names, payload, register, to_online},
};

const SUBSCRIBERS: usize = 100;
const BYTES: usize = 1_024;
/// With and without, in turns.
const TURNS: usize = 2;
/// How long the one that was stopped has to read what waited.
const RECOVERY: Duration = Duration::from_secs(2);

struct Row {
    name: &'static str,
    delivery: DeliverySemantics,
    /// How many multicasts a turn: more than wait for one session, so that its queue is full for a while.
    count: usize,
    every: Duration,
}

const ROWS: [Row; 2] = [
    Row {
        name: "stuck_1_of_100",
        delivery: DeliverySemantics::AtMostOnce,
        count: 1_400,
        every: Duration::from_millis(20),
    },
    Row {
        name: "stuck_1_of_100_stored",
        delivery: DeliverySemantics::AtLeastOnce,
        count: 400,
        every: Duration::from_millis(50),
    },
];

pub(crate) async fn run(report: &mut Report) {
    for row in &ROWS {
        report
            .attempt(row.name, async |report| row.measure(report).await)
            .await;
    }
}

impl Row {
    async fn measure(&self, report: &mut Report) -> Result<()> {
        let system = system().await?;
        let client = system.client()?;
        let names = names(SUBSCRIBERS);
        register(&client, &names).await?;
        let (stuck, others) = names.split_last().context("no names")?;
        let mut sessions = listen(&client, others).await?;
        let mut stuck = subscriber(&system, stuck).await?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let first = turn * 2 * self.count;
            without.extend(self.turn(&client, &mut sessions, first).await?);
            stuck.freeze()?;
            with.extend(self.turn(&client, &mut sessions, first + self.count).await?);
            stuck.thaw()?;
            tokio::time::sleep(RECOVERY).await;
        }
        let more = json!({
            "statistic": "p99", "aim_ratio": 1.2, "received": with.len(), "multicasts": self.count * TURNS,
            // All its turns together: what was dropped is missing, and said to be.
            "stuck_received": stuck.stdout().len(), "stuck_said": stuck.stderr().len(),
            "p50": percentile(&mut with, 0.5), "floor_p50": percentile(&mut without, 0.5),
            "max": percentile(&mut with, 1.0), "floor_max": percentile(&mut without, 1.0),
        });
        let (value, floor) = (percentile(&mut with, 0.99), percentile(&mut without, 0.99));
        report.row(self.name, value, "us", floor, Better::Lower, more);
        Ok(())
    }

    /// How long each of those who read waited for each message, from when its multicast was due.
    async fn turn(&self, client: &Client, sessions: &mut Arrivals, first: usize) -> Result<Vec<Duration>> {
        let (dues, arrivals) = tokio::try_join!(
            self.send(client, first),
            sessions.take(self.count * (SUBSCRIBERS - 1))
        )?;
        let mut seen = HashSet::with_capacity(arrivals.len());
        let mut waits = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            let due = arrival.number.checked_sub(first).and_then(|at| dues.get(at));
            let due = due.context("a message of another turn came")?;
            ensure!(
                seen.insert((arrival.who, arrival.number)),
                "{} received {} twice",
                arrival.who,
                arrival.number
            );
            waits.push(arrival.when.saturating_duration_since(*due));
        }
        Ok(waits)
    }

    /// At a steady rate, whether or not those before were answered; when each was due.
    async fn send(&self, client: &Client, first: usize) -> Result<Vec<Instant>> {
        let (mut calls, mut dues) = (JoinSet::new(), Vec::with_capacity(self.count));
        let mut ticks = interval(self.every);
        for number in first..first + self.count {
            dues.push(ticks.tick().await.into_std());
            let (client, mut request) = (client.clone(), to_online(payload(number, BYTES)));
            request.delivery = Some(self.delivery);
            calls.spawn(async move { client.registry.multicast(request).await });
        }
        while let Some(answered) = calls.join_next().await {
            let told = answered??;
            ensure!(
                told.target_count == SUBSCRIBERS as u64,
                "{} targets",
                told.target_count
            );
        }
        Ok(dues)
    }
}

/// What is stored is in Redis, too.
async fn system() -> Result<System> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let mut namespace = shared_namespace("test", &redis, &nats);
    namespace["slots"]["durability"] =
        json!({ "backend": "redis-stream", "config": { "address": redis.addr().to_string() } });
    namespace["behavior"] = json!({ "inbox_max_messages": 100_000, "ack_timeout": "1h" });
    let proxy = Proxy::start(&[namespace]).await?;
    System::serve(proxy, 1, Some(redis), Some(nats)).await
}

/// A process of its own that shows what it receives.
async fn subscriber(system: &System, name: &str) -> Result<Process> {
    let endpoint = system.proxy.data.to_string();
    let arguments = [
        "--endpoint",
        &endpoint,
        "--namespace",
        "test",
        "multicast",
        "subscribe",
        name,
    ];
    let process = Process::spawn("prism-probe", &arguments, &[])?;
    process.stderr_line(name, START_LIMIT).await?;
    Ok(process)
}
