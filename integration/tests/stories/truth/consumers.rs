//! Consumers that log everything they get.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use prism_client::{Client, Event, GapReason, Message, RegisterRequest, SubscribeRequest, Subscription};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::history::{Call, Diary, Entry, Manner, outstanding};

/// Into how many groups identities are divided.
pub(super) const GROUPS: u32 = 4;
/// How many sessions are opened at a time.
const OPENING: usize = 16;

type Diaries = BTreeMap<String, Arc<std::sync::Mutex<Diary>>>;

/// Consumers at work.
pub(super) struct Consumers {
    diaries: Diaries,
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
}

impl Consumers {
    /// Registers so many identities and listens for each, in the manner that its number says; for `absent` further ones
    /// nobody listens.
    pub(super) async fn start(
        client: &Client,
        count: usize,
        absent: usize,
        manner: impl Fn(usize) -> Manner,
        seed: u64,
    ) -> Result<Self> {
        let names = register(client, count + absent).await?;
        let opening = names[..count].iter().enumerate();
        let opening = opening.map(|(number, name)| open(client, name, manner(number)));
        let sessions: Vec<_> = stream::iter(opening).buffered(OPENING).try_collect().await?;
        let mut consumers = Self {
            diaries: BTreeMap::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        for (number, (name, (manner, session))) in names.into_iter().zip(sessions).enumerate() {
            consumers.listen(name, manner, session, seed.wrapping_add(number as u64));
        }
        Ok(consumers)
    }

    fn listen(&mut self, name: String, manner: Manner, mut session: Subscription, seed: u64) {
        let diary = Arc::new(std::sync::Mutex::new(Diary {
            manner,
            entries: Vec::new(),
            suppressed: 0,
            gaps: Vec::new(),
        }));
        self.diaries.insert(name.clone(), diary.clone());
        let (stop, mut random) = (self.stop.clone(), SmallRng::seed_from_u64(seed));
        self.tasks.spawn(async move {
            while let Some(event) = stop.run_until_cancelled(session.next()).await {
                match event.with_context(|| format!("the session of `{name}` is over"))?? {
                    Event::Message(message) => take(&diary, message, &mut random).await?,
                    Event::Gap(gap) if gap.reason == GapReason::ConnectionLost => {
                        diary.lock().unwrap().gaps.push(Instant::now());
                    }
                    Event::Opened(_) | Event::Gap(_) => {}
                }
                diary.lock().unwrap().suppressed = session.suppressed();
            }
            Ok(())
        });
    }

    /// Waits until everything has come that is still to come, by what callers were told; for this long. Which calls it
    /// has not come of.
    pub(super) async fn settle(&mut self, calls: &[Call], within: Duration) -> Result<HashSet<u64>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
                bail!("a consumer has stopped");
            }
            let (outstanding, now) = (outstanding(calls, &self.diaries()), Instant::now());
            if outstanding.is_empty() || now >= deadline {
                return Ok(outstanding);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends all sessions; everything that was logged.
    pub(super) async fn stop(mut self) -> Result<BTreeMap<String, Diary>> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.diaries())
    }

    fn diaries(&self) -> BTreeMap<String, Diary> {
        let copy = |(name, diary): (&String, &Arc<std::sync::Mutex<Diary>>)| {
            (name.clone(), diary.lock().unwrap().clone())
        };
        self.diaries.iter().map(copy).collect()
    }
}

/// Registers so many identities, in groups.
async fn register(client: &Client, count: usize) -> Result<Vec<String>> {
    let names: Vec<String> = (0..count).map(|number| format!("id-{number:04}")).collect();
    let requests = names.iter().enumerate().map(|(number, name)| RegisterRequest {
        metadata: json!({ "group": number % GROUPS as usize }),
        ..RegisterRequest::new(name)
    });
    for registered in client.registry.register_many(requests).await? {
        registered?;
    }
    Ok(names)
}

async fn open(client: &Client, name: &str, manner: Manner) -> Result<(Manner, Subscription)> {
    let request = SubscribeRequest {
        remember: if manner == Manner::Prompt { 10_000 } else { 0 },
        ..SubscribeRequest::from(name)
    };
    Ok((manner, client.registry.subscribe(request).await?))
}

/// What a consumer says to a message.
enum Word {
    Ack,
    Nack,
    Nothing,
}

async fn take(diary: &std::sync::Mutex<Diary>, message: Message, random: &mut SmallRng) -> Result<()> {
    let number = std::str::from_utf8(&message.payload)
        .ok()
        .and_then(|text| text.parse().ok());
    let number = number.with_context(|| format!("what came is nothing that was sent: {message:?}"))?;
    let manner = diary.lock().unwrap().manner;
    let word = match random.random_range(0..12) {
        0 if manner == Manner::Careless && message.attempt < 3 => Word::Nack,
        1 if manner == Manner::Careless && message.attempt < 3 => Word::Nothing,
        _ => Word::Ack,
    };
    // Logged before it is said, so that nobody can know of it earlier.
    diary.lock().unwrap().entries.push(Entry {
        number,
        multicast: message.multicast_id.clone(),
        attempt: message.attempt,
        acked: matches!(word, Word::Ack).then(Instant::now),
    });
    match word {
        Word::Ack => drop(message.ack().await?),
        Word::Nack => drop(message.nack(Duration::from_millis(50)).await?),
        Word::Nothing => {}
    }
    Ok(())
}
