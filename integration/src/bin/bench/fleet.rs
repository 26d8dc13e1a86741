//! A thousand live sessions behind the proxy: from the call of a multicast until the last of them has it, beside
//! the same messages published raw until the last of a thousand raw subscriptions has it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_nats::{Client as Raw, Subscriber};
use futures::StreamExt;
use integration::System;
use prism_client::Client;
use prism_testkit::NatsServer;
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use crate::{
    report::{Better, Report, percentile},
    sessions::{Arrival, Arrivals, listen, names, number, payload, register, to_online},
};

const NAME: &str = "multicast_1000_proxied_p50";
const SESSIONS: usize = 1_000;
const BYTES: usize = 100;
const ROUNDS: usize = 60;
const WARM_UP: usize = 10;
/// In microseconds.
const AIM: f64 = 15_000.0;
/// Over which the raw subscriptions are spread.
const CONNECTIONS: usize = 4;

pub(crate) async fn run(report: &mut Report) {
    report.attempt(NAME, measure).await;
}

async fn measure(report: &mut Report) -> Result<()> {
    let system = System::on_redis_and_nats(1).await?;
    let client = system.client()?;
    let names = names(SESSIONS);
    register(&client, &names).await?;
    let mut sessions = listen(&client, &names).await?;
    let mut floor = Floor::open(system.nats.as_ref().context("no nats")?, &names).await?;
    let mut times = [const { Vec::new() }; 3];
    for round in 0..WARM_UP + ROUNDS {
        let (answered, received) = ours(&client, &mut sessions, round).await?;
        let taken = [received, answered, floor.round(round).await?];
        if round >= WARM_UP {
            let pairs = times.iter_mut().zip(taken);
            pairs.for_each(|(times, taken)| times.push(taken));
        }
    }
    let [received, answered, raw] = &mut times;
    let more = json!({
        "statistic": "p50", "aim": AIM, "rounds": ROUNDS, "p99": percentile(received, 0.99),
        "answered_p50": percentile(answered, 0.5), "answered_p99": percentile(answered, 0.99),
        "floor_p99": percentile(raw, 0.99),
    });
    let (value, floor) = (percentile(received, 0.5), percentile(raw, 0.5));
    report.row(NAME, value, "us", floor, Better::Lower, more);
    Ok(())
}

/// How long until it was answered, and until the last had it.
async fn ours(client: &Client, sessions: &mut Arrivals, round: usize) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    let call = async {
        let told = client
            .registry
            .multicast(to_online(payload(round, BYTES)))
            .await?;
        ensure!(
            told.delivered_count == SESSIONS as u64,
            "delivered {}",
            told.delivered_count
        );
        Ok(began.elapsed())
    };
    let (answered, last) = tokio::try_join!(call, sessions.last(round, SESSIONS))?;
    Ok((answered, last - began))
}

/// Raw subscriptions on a few connections, and another one that publishes.
struct Floor {
    publisher: Raw,
    subjects: Vec<String>,
    arrivals: Arrivals,
}

impl Floor {
    async fn open(server: &NatsServer, names: &[String]) -> Result<Self> {
        let subjects: Vec<_> = names.iter().map(|name| format!("raw.{name}")).collect();
        let (tell, told) = unbounded_channel();
        let (mut tasks, mut connections) = (JoinSet::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            connections.push(async_nats::connect(server.url()).await?);
        }
        for (who, subject) in subjects.iter().enumerate() {
            let connection = &connections[who % CONNECTIONS];
            tasks.spawn(read(
                connection.subscribe(subject.clone()).await?,
                who,
                tell.clone(),
            ));
        }
        for connection in &connections {
            // A flush would not do: it is local to the client library.
            let inbox = connection.new_inbox();
            let mut echo = connection.subscribe(inbox.clone()).await?;
            connection.publish(inbox, "".into()).await?;
            echo.next().await.context("no echo")?;
        }
        Ok(Self {
            publisher: async_nats::connect(server.url()).await?,
            subjects,
            arrivals: Arrivals::new(tasks, told),
        })
    }

    async fn round(&mut self, round: usize) -> Result<Duration> {
        let content = bytes::Bytes::from(payload(round, BYTES));
        let began = Instant::now();
        for subject in &self.subjects {
            self.publisher.publish(subject.clone(), content.clone()).await?;
        }
        self.publisher.flush().await?;
        let last = self.arrivals.last(round, SESSIONS).await?;
        Ok(last - began)
    }
}

async fn read(mut messages: Subscriber, who: usize, tell: UnboundedSender<Result<Arrival>>) {
    while let Some(message) = messages.next().await {
        let when = Instant::now();
        let arrival = number(&message.payload).map(|number| Arrival { who, number, when });
        if tell.send(arrival).is_err() {
            return;
        }
    }
}
