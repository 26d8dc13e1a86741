//! Live sessions through the proxy, all of one client, and what each of them receives when.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use prism_client::{Client, Event, Filter, MulticastRequest, RegisterRequest, Subscription};
use serde_json::json;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::timeout,
};

/// How long nothing may come of what was sent.
const PATIENCE: Duration = Duration::from_secs(10);
const BATCH: usize = 64;

/// Somebody has received the message of that number.
pub(crate) struct Arrival {
    pub(crate) who: usize,
    pub(crate) number: usize,
    pub(crate) when: Instant,
}

/// Where arrivals are told. Dropping it ends whatever tells them.
pub(crate) struct Arrivals {
    told: UnboundedReceiver<Result<Arrival>>,
    _tasks: JoinSet<()>,
}

impl Arrivals {
    pub(crate) fn new(tasks: JoinSet<()>, told: UnboundedReceiver<Result<Arrival>>) -> Self {
        Self { told, _tasks: tasks }
    }

    /// So many of them, each not long after the one before.
    pub(crate) async fn take(&mut self, count: usize) -> Result<Vec<Arrival>> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let Ok(told) = timeout(PATIENCE, self.told.recv()).await else {
                bail!("{} of {count} messages arrived", all.len());
            };
            all.push(told.context("nobody listens")??);
        }
        Ok(all)
    }

    /// When the last of so many had the message of that number. Each has it once, and nothing else.
    pub(crate) async fn last(&mut self, number: usize, count: usize) -> Result<Instant> {
        let all = self.take(count).await?;
        let mut had = vec![false; count];
        for arrival in &all {
            ensure!(
                arrival.number == number,
                "{} came in place of {number}",
                arrival.number
            );
            let had = had.get_mut(arrival.who).context("a stranger received it")?;
            ensure!(!std::mem::replace(had, true), "{} received it twice", arrival.who);
        }
        all.into_iter()
            .map(|arrival| arrival.when)
            .max()
            .context("nobody was to receive it")
    }
}

/// A number, padded to that many bytes.
pub(crate) fn payload(number: usize, bytes: usize) -> Vec<u8> {
    format!("{number:<bytes$}").into_bytes()
}

pub(crate) fn number(payload: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(payload)?.trim_end();
    text.parse().with_context(|| format!("`{text}` is no number"))
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user-{number:04}")).collect()
}

/// Those who are online.
pub(crate) fn to_online(payload: Vec<u8>) -> MulticastRequest {
    MulticastRequest {
        filter: Some(Filter::new().eq("status", "online")),
        payload,
        ..Default::default()
    }
}

/// Registers these as online.
pub(crate) async fn register(client: &Client, names: &[String]) -> Result<()> {
    let requests = names.iter().map(|name| RegisterRequest {
        metadata: json!({ "status": "online" }),
        ..RegisterRequest::new(name.as_str())
    });
    for registered in client.registry.register_many(requests).await? {
        registered?;
    }
    Ok(())
}

/// A session that is open.
pub(crate) async fn open(client: &Client, name: &str) -> Result<Subscription> {
    let mut session = client.registry.subscribe(name).await?;
    let opened = session.next().await;
    ensure!(matches!(opened, Some(Ok(Event::Opened(_)))), "{opened:?}");
    Ok(session)
}

/// The sessions of these, which read, acknowledge and tell.
pub(crate) async fn listen(client: &Client, names: &[String]) -> Result<Arrivals> {
    let (tell, told) = unbounded_channel();
    let mut tasks = JoinSet::new();
    for (batch, some) in names.chunks(BATCH).enumerate() {
        let sessions = try_join_all(some.iter().map(|name| open(client, name))).await?;
        for (index, session) in sessions.into_iter().enumerate() {
            let (who, tell) = (batch * BATCH + index, tell.clone());
            tasks.spawn(async move {
                if let Err(error) = read(session, who, &tell).await {
                    // Whoever waits for it may be gone.
                    let _ = tell.send(Err(error));
                }
            });
        }
    }
    Ok(Arrivals::new(tasks, told))
}

async fn read(mut session: Subscription, who: usize, tell: &UnboundedSender<Result<Arrival>>) -> Result<()> {
    while let Some(event) = session.next().await {
        match event? {
            Event::Message(message) => {
                let when = Instant::now();
                let number = number(&message.payload)?;
                if message.stored {
                    message.ack().await?;
                }
                tell.send(Ok(Arrival { who, number, when }))?;
            }
            Event::Opened(_) => bail!("session {who} was lost"),
            Event::Gap(gap) => bail!("session {who} has a gap: {gap:?}"),
        }
    }
    bail!("session {who} has ended")
}
