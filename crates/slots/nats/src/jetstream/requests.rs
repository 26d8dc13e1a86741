//! Requests to JetStream over one connection, many under way at a time.
//!
//! All answers arrive at one wildcard subscription, at `<inbox>.<batch>.<index>`. An answer is the server's own word,
//! so nothing else is needed to know what became of a request; a request without one may have been carried out.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_nats::{Client, HeaderMap, Subject, connection::State};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use prism_slot::Result;
use tokio::{
    sync::{Semaphore, SemaphorePermit, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{error::unavailable, health::Health, listen::subscription_id};

/// How many requests may be under way. A server takes 10,000 of all its clients before it refuses some.
const UNDER_WAY: u32 = 4_096;
/// How many make up a batch; while one is answered, the next is sent.
const BATCH: usize = 1_024;
/// How many batches of one call are under way.
const BATCHES: usize = 2;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) subject: Subject,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The answer.
    Answer(async_nats::Message),
    /// Certainly not sent.
    Unsent(Silence),
    /// Sent, and nothing is known of it.
    Lost(Silence),
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(crate) enum Silence {
    /// The deadline came first.
    Late,
    /// There is no connection, or none any more.
    Disconnected(String),
}

/// The answering side of one connection.
#[derive(Debug)]
pub(crate) struct Requests {
    client: Client,
    health: Arc<Health>,
    /// With a trailing dot.
    prefix: String,
    next: AtomicU64,
    waiting: Arc<Mutex<HashMap<u64, Waiting>>>,
    budget: Semaphore,
}

#[derive(Debug)]
struct Waiting {
    answers: Vec<Option<async_nats::Message>>,
    /// How many answers are still to come; for a series, 1 until its end has come.
    missing: usize,
    is_series: bool,
    done: Option<oneshot::Sender<()>>,
}

impl Waiting {
    /// Whether that was all.
    fn take(&mut self, index: usize, message: async_nats::Message) -> bool {
        if self.is_series {
            // The last one has a status, whether it went well or not.
            self.missing = usize::from(message.status.is_none());
            self.answers.push(Some(message));
        } else if let Some(place) = self.answers.get_mut(index) {
            self.missing -= usize::from(place.is_none());
            *place = Some(message);
        }
        self.missing == 0
    }
}

impl Requests {
    /// Subscribes to the answers over a connection that has just been made.
    pub(crate) async fn start(
        client: Client,
        health: Arc<Health>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        health.begin(&client);
        let prefix = format!("_INBOX.{:032x}.", rand::random::<u128>());
        let subscribed = client.subscribe(format!("{prefix}>")).await;
        let mut arrivals = subscribed.map_err(|error| unavailable(error.to_string()))?;
        if let Some(id) = subscription_id(&arrivals) {
            health.inbox.store(id, Ordering::Relaxed);
        }
        let waiting: Arc<Mutex<HashMap<u64, Waiting>>> = Arc::default();
        let (answers, own) = (waiting.clone(), prefix.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(message) = arrivals.next().await {
                take(&answers, &own, message);
            }
        }));
        Ok(Self {
            client,
            health,
            prefix,
            next: AtomicU64::new(0),
            waiting,
            budget: Semaphore::new(UNDER_WAY as usize),
        })
    }

    /// Sends all of them and waits for the answers, which are read in the order of the requests.
    pub(crate) async fn all<T>(
        &self,
        requests: impl ExactSizeIterator<Item = Request> + Send,
        deadline: Instant,
        read: impl Fn(Reply) -> T + Send,
    ) -> Vec<T> {
        let (mut requests, mut rest) = (requests, 0);
        let count = requests.len();
        let mut answered = Vec::with_capacity(count);
        let mut under_way = VecDeque::with_capacity(BATCHES);
        let mut stopped = None;
        while stopped.is_none() && rest < count {
            let size = BATCH.min(count - rest);
            let room = if under_way.len() == BATCHES {
                None
            } else {
                self.room(size)
            };
            // Whoever has something under way must not wait for those who wait for it.
            if room.is_none()
                && let Some(oldest) = under_way.pop_front()
            {
                settle(oldest, deadline, &read, &mut answered).await;
                continue;
            }
            rest += size;
            match Batch::open(self, size, false, room, deadline).await {
                Ok(mut batch) => {
                    batch.send(requests.by_ref().take(size), deadline).await;
                    stopped.clone_from(&batch.stopped);
                    under_way.push_back(batch);
                }
                Err(why) => stopped = Some(why),
            }
        }
        for batch in under_way {
            settle(batch, deadline, &read, &mut answered).await;
        }
        let unsent = stopped.unwrap_or(Silence::Late);
        answered.resize_with(count, || read(Reply::Unsent(unsent.clone())));
        answered
    }

    /// Sends one and waits for its answer.
    pub(crate) async fn one(&self, request: Request, deadline: Instant) -> Reply {
        let mut replies = self.all(std::iter::once(request), deadline, |reply| reply).await;
        replies.pop().unwrap_or(Reply::Unsent(Silence::Late))
    }

    /// Room for so many, if there is some now.
    fn room(&self, size: usize) -> Option<SemaphorePermit<'_>> {
        self.budget.try_acquire_many(share(size)).ok()
    }

    /// Sends one that is answered by at most `most` messages and a last one with a status.
    ///
    /// # Errors
    /// Why the end did not come.
    pub(crate) async fn series(
        &self,
        request: Request,
        most: usize,
        deadline: Instant,
    ) -> Result<Vec<async_nats::Message>, Silence> {
        let mut batch = Batch::open(self, most + 1, true, None, deadline).await?;
        batch.send(std::iter::once(request), deadline).await;
        let (answers, silence) = batch.answers(deadline).await;
        match silence {
            None => Ok(answers.into_iter().flatten().collect()),
            Some(why) => Err(why),
        }
    }

    /// Sends what is queued and closes the connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn not_connected(&self) -> Silence {
        Silence::Disconnected(self.health.trouble())
    }
}

fn take(waiting: &Mutex<HashMap<u64, Waiting>>, prefix: &str, message: async_nats::Message) {
    let numbers = message
        .subject
        .strip_prefix(prefix)
        .and_then(|rest| rest.split_once('.'));
    let Some((Ok(batch), Ok(index))) = numbers.map(|(batch, index)| (batch.parse(), index.parse())) else {
        return;
    };
    let mut waiting = waiting.lock();
    if let Some(found) = waiting.get_mut(&batch)
        && found.take(index, message)
        && let Some(done) = found.done.take()
    {
        // Fails when nobody waits any more.
        let _ = done.send(());
    }
}

/// How much of the budget that takes.
fn share(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX).min(UNDER_WAY)
}

async fn settle<T>(batch: Batch<'_>, deadline: Instant, read: impl Fn(Reply) -> T, answered: &mut Vec<T>) {
    let (size, taken, stopped) = (batch.size, batch.taken, batch.stopped.clone());
    let (answers, silence) = batch.answers(deadline).await;
    let lost = silence.unwrap_or(Silence::Late);
    let sent = answers.into_iter().take(taken).map(|answer| match answer {
        Some(message) => Reply::Answer(message),
        None => Reply::Lost(lost.clone()),
    });
    answered.extend(sent.map(&read));
    let unsent = stopped.unwrap_or(Silence::Late);
    answered.extend((taken..size).map(|_| read(Reply::Unsent(unsent.clone()))));
}

/// Requests under way. Forgotten when this is dropped.
struct Batch<'a> {
    requests: &'a Requests,
    number: u64,
    size: usize,
    /// How many async-nats has taken; the others were certainly not sent.
    taken: usize,
    /// Why not all were taken.
    stopped: Option<Silence>,
    done: oneshot::Receiver<()>,
    losses: watch::Receiver<u64>,
    _budget: SemaphorePermit<'a>,
}

impl<'a> Batch<'a> {
    /// # Errors
    /// Why nothing can be sent now.
    async fn open(
        requests: &'a Requests,
        size: usize,
        is_series: bool,
        room: Option<SemaphorePermit<'a>>,
        deadline: Instant,
    ) -> Result<Self, Silence> {
        if Instant::now() >= deadline {
            return Err(Silence::Late);
        }
        // Before the connection is looked at, so that no loss in between goes unnoticed.
        let losses = requests.health.losses();
        let budget = match room {
            Some(room) => room,
            None => tokio::select! {
                biased;
                room = requests.budget.acquire_many(share(size)) => room.map_err(|_| Silence::Late)?,
                () = sleep_until(deadline) => return Err(Silence::Late),
            },
        };
        if requests.client.connection_state() != State::Connected {
            return Err(requests.not_connected());
        }
        let number = requests.next.fetch_add(1, Ordering::Relaxed);
        let (sender, done) = oneshot::channel();
        let waiting = Waiting {
            answers: if is_series { Vec::new() } else { vec![None; size] },
            missing: if is_series { 1 } else { size },
            is_series,
            done: Some(sender),
        };
        requests.waiting.lock().insert(number, waiting);
        Ok(Self {
            requests,
            number,
            size,
            taken: 0,
            stopped: None,
            done,
            losses,
            _budget: budget,
        })
    }

    /// Hands them to async-nats, which blocks while its queue is full.
    async fn send(&mut self, all: impl Iterator<Item = Request> + Send, deadline: Instant) {
        let (client, prefix, number) = (&self.requests.client, &self.requests.prefix, self.number);
        let taken = &mut self.taken;
        let sending = async {
            for (index, request) in all.enumerate() {
                let reply = format!("{prefix}{number}.{index}");
                let Request {
                    subject,
                    headers,
                    body,
                } = request;
                let sent = client.publish_with_reply_and_headers(subject, reply, headers, body);
                sent.await
                    .map_err(|error| Silence::Disconnected(error.to_string()))?;
                *taken += 1;
            }
            Ok(())
        };
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            _ = self.losses.changed() => Err(self.requests.not_connected()),
            () = sleep_until(deadline) => Err(Silence::Late),
        };
        self.stopped = sent.err();
    }

    /// What has been answered when all has, or nothing more is waited for.
    async fn answers(mut self, deadline: Instant) -> (Vec<Option<async_nats::Message>>, Option<Silence>) {
        let silence = match self.stopped.take() {
            Some(why) => Some(why),
            None => tokio::select! {
                biased;
                _ = &mut self.done => None,
                _ = self.losses.changed() => {
                    Some(Silence::Disconnected("the connection to nats was lost".to_owned()))
                }
                () = sleep_until(deadline) => Some(Silence::Late),
            },
        };
        let waiting = self.requests.waiting.lock().remove(&self.number);
        (
            waiting.map(|waiting| waiting.answers).unwrap_or_default(),
            silence,
        )
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.requests.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;

    use super::*;

    fn arrival(subject: &str, status: Option<StatusCode>) -> async_nats::Message {
        async_nats::Message {
            subject: subject.into(),
            reply: None,
            payload: Bytes::new(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    fn waiting(size: usize, is_series: bool) -> (Mutex<HashMap<u64, Waiting>>, oneshot::Receiver<()>) {
        let (sender, done) = oneshot::channel();
        let waiting = Waiting {
            answers: if is_series { Vec::new() } else { vec![None; size] },
            missing: if is_series { 1 } else { size },
            is_series,
            done: Some(sender),
        };
        (Mutex::new(HashMap::from([(7, waiting)])), done)
    }

    #[test]
    fn a_batch_is_answered_when_each_of_it_is() {
        let (waiting, mut done) = waiting(2, false);
        for other in [
            "in.8.0", "in.7.2", "in.7", "in.7.x", "out.7.1", "in.7.0", "in.7.0",
        ] {
            take(&waiting, "in.", arrival(other, None));
            assert!(done.try_recv().is_err(), "{other}");
        }
        take(&waiting, "in.", arrival("in.7.1", None));
        assert!(done.try_recv().is_ok());
    }

    #[test]
    fn a_series_ends_with_a_status() {
        let (waiting, mut done) = waiting(0, true);
        for _ in 0..3 {
            take(&waiting, "in.", arrival("in.7.0", None));
            assert!(done.try_recv().is_err());
        }
        take(&waiting, "in.", arrival("in.7.0", Some(StatusCode::NOT_FOUND)));
        assert!(done.try_recv().is_ok());
        assert_eq!(waiting.lock()[&7].answers.len(), 4);
    }
}
