//! Sending: in windows, in turns with other multicasts, as fast as asked for, and again where that is safe.

use std::{borrow::Cow, ops::Range, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{
    Address, DynDurableInbox, Enqueued, Identity, Message, Outcome, Priority, Terms, Timestamp,
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Config, Coordinator, Error};
use crate::delivery::{
    Admission, Batch, Brief, Crowded, Delivery, End, Gate, News, Pace, Phase, Stage, Tracker, Turn,
};

/// How many targets are sent to at a time.
pub(super) const WINDOW: usize = 1_024;
/// How many windows of one multicast are under way: while one is confirmed, the next is sent.
const WINDOWS: usize = 2;
/// Where a multicast is sent at some rate, into how many windows a second goes.
const BEATS: u64 = 10;

/// A multicast that is to be sent.
pub(super) struct Job {
    pub(super) config: Arc<Config>,
    pub(super) tracker: Arc<Tracker>,
    pub(super) message: Arc<Message>,
    pub(super) priority: Priority,
    pub(super) pace: Pace,
    pub(super) until: Instant,
    pub(super) admission: Admission,
    pub(super) _given_up: GivenUp,
}

/// Sees to a multicast whose call is dropped while it is sent: what is stored is gone on with later, and of what is
/// sent once nothing more is sent.
pub(super) struct GivenUp {
    coordinator: Coordinator,
    tracker: Arc<Tracker>,
}

impl GivenUp {
    pub(super) fn new(coordinator: &Coordinator, tracker: &Arc<Tracker>) -> Self {
        let (coordinator, tracker) = (coordinator.clone(), tracker.clone());
        Self { coordinator, tracker }
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if self.tracker.phase() != Phase::Running {
            return;
        }
        let (shared, cast) = (&self.coordinator.shared, &self.tracker.cast);
        if cast.delivery == Delivery::AtMostOnce {
            abandon(&self.tracker, "its call was given up while it was sent");
            return self.tracker.sent();
        }
        shared.desk.give_up(cast.id);
    }
}

impl Pace {
    fn window(self) -> usize {
        let beat = self.per_second.map_or(WINDOW, |rate| {
            usize::try_from(rate.div_ceil(BEATS)).unwrap_or(WINDOW)
        });
        self.batch.unwrap_or(WINDOW).min(beat).clamp(1, WINDOW)
    }

    /// How many windows are under way at a time.
    fn windows(self) -> usize {
        match self.batch {
            Some(_) => 1,
            None => WINDOWS,
        }
    }

    /// How long sending to so many takes at least.
    pub(super) fn time_for(self, targets: usize) -> Duration {
        let began = Instant::now();
        self.due(began, targets).map_or(Duration::ZERO, |end| end - began)
    }

    /// When the target with this number may be sent to.
    fn due(self, began: Instant, place: usize) -> Option<Instant> {
        let rate = self.per_second?;
        Some(began + Duration::from_secs_f64(place as f64 / rate.max(1) as f64))
    }
}

impl Coordinator {
    pub(super) fn crowded(&self, crowded: Crowded, limit: usize) -> Error {
        let message = format!(
            "`{}` targets wait to be sent to, more than can be now; try again",
            crowded.waiting
        );
        self.shared.metrics.overloaded();
        Error::Crowded {
            message,
            limit,
            clear_in: crowded.clear_in,
        }
    }

    /// Sends a multicast to those of its targets that have not been reached.
    pub(super) async fn send(&self, job: Job) {
        let (began, order) = (Instant::now(), order(&job));
        let count = order.as_ref().map_or(job.tracker.targets.len(), Vec::len);
        if count <= job.pace.window() {
            self.send_window(&job, began, order.as_deref(), 0..count).await;
        } else {
            let windows = stream::iter(windows(count, job.pace.window()));
            windows
                .for_each_concurrent(job.pace.windows(), |window| {
                    self.send_window(&job, began, order.as_deref(), window)
                })
                .await;
        }
        self.send_again(&job).await;
        if job.tracker.is_cancelled() {
            take_back(&job.tracker);
        }
        job.tracker.sent();
    }

    /// Sends to one window of the order, when its turn has come.
    async fn send_window(&self, job: &Job, began: Instant, order: Option<&[usize]>, window: Range<usize>) {
        keep_pace(job, began, window.start).await;
        if job.tracker.is_cancelled() {
            return;
        }
        let window = match order {
            Some(order) => Batch::Some(order[window].to_vec()),
            None => Batch::Run(window),
        };
        let batch = job.tracker.below(reached(job), window);
        if batch.is_empty() {
            return;
        }
        match self.turn(job, batch.len()).await {
            Some(turn) if turn.began() < job.until => {
                self.attempt(job, batch).await;
                turn.done(&job.admission);
            }
            _ if job.tracker.is_cancelled() => {}
            _ => too_late(job, &batch),
        }
    }

    /// Tries again what can be without doing anything twice: what is known not to have been sent and, since storing
    /// again is noticed, whatever is not known to be stored.
    async fn send_again(&self, job: &Job) {
        let stores = job.tracker.cast.delivery != Delivery::AtMostOnce;
        let worth = |state: Brief| match state.end {
            Some(End::NotSent) => !stores,
            Some(End::NotStored | End::Unknown) => stores,
            _ => false,
        };
        let mut backoff = None;
        for attempt in 1..=job.config.behavior.retry_attempts {
            let places = job.tracker.ended(worth);
            if places.is_empty() || job.tracker.is_cancelled() {
                return;
            }
            let pause = backoff
                .get_or_insert_with(|| Backoff::new(retry_policy(&job.config)))
                .pause();
            if timeout_at(job.until, sleep(pause)).await.is_err() {
                return;
            }
            let (namespace, targets) = (&job.config.namespace, places.len());
            tracing::warn!(namespace, targets, attempt, multicast = %job.message.multicast, "sending again");
            let (began, size) = (Instant::now(), job.pace.window());
            for (number, window) in places.chunks(size).enumerate() {
                // The first one comes after the last one of before.
                keep_pace(job, began, (number + 1) * size).await;
                match self.turn(job, window.len()).await {
                    Some(turn) if turn.began() < job.until => self.attempt(job, window.to_vec().into()).await,
                    _ => return,
                }
            }
        }
    }

    /// Waits for a turn; `None` where it is too late, or the multicast is cancelled.
    async fn turn(&self, job: &Job, targets: usize) -> Option<Turn<'_>> {
        let gate = self.gate(job.tracker.cast.delivery);
        if let Some(turn) = gate.turn_at_once(targets) {
            return Some(turn);
        }
        let turn = gate.turn(targets, job.until);
        job.tracker.unless_cancelled(turn).await.flatten()
    }

    /// Sends once to these targets. What an attempt before may have stored says so: where the slot has forgotten that
    /// one, the consumer may have had it.
    async fn attempt(&self, job: &Job, batch: Batch) {
        let inbox = self
            .inbox()
            .filter(|_| job.tracker.cast.delivery != Delivery::AtMostOnce);
        let Some(inbox) = inbox else {
            return self.publish(job, &batch).await;
        };
        let may_be_there = |state: Brief| state.end == Some(End::Unknown);
        let (doubtful, certain) = job.tracker.divide(batch, may_be_there);
        if !certain.is_empty() {
            self.store(job, &*inbox, &certain, job.message.clone()).await;
        }
        if !doubtful.is_empty() {
            self.store(job, &*inbox, &doubtful, again(&job.message)).await;
        }
    }

    /// Publishes to as many targets as the slot is handed at a time.
    async fn publish(&self, job: &Job, batch: &Batch) {
        if job.message.expires_at.is_some_and(|at| at <= Timestamp::now()) {
            return expired(job, batch);
        }
        let all = &job.tracker.targets;
        let targets = match batch {
            Batch::Run(run) => Cow::Borrowed(&all[run.clone()]),
            Batch::Some(places) => places.iter().map(|place| all[*place].clone()).collect(),
        };
        let messaging = self.messaging();
        let mut outcomes = messaging
            .publish_batch(&targets, job.message.clone(), job.until)
            .await;
        let unsaid = || Outcome::Unknown("the messaging slot said nothing of it".to_owned());
        outcomes.resize_with(batch.len(), unsaid);
        if outcomes.iter().all(|outcome| *outcome == Outcome::Accepted) {
            return job.tracker.learn_of_all(batch, &published(Outcome::Accepted));
        }
        learn(&job.tracker, batch, outcomes.into_iter().map(published));
    }

    async fn store(&self, job: &Job, inbox: &dyn DynDurableInbox, batch: &Batch, message: Arc<Message>) {
        let Some(holders) = &job.tracker.holders else {
            return;
        };
        let address = |place: usize| Address {
            identity: job.tracker.targets[place].clone(),
            holder: holders[place],
        };
        let addresses: Vec<Address> = batch.iter().map(address).collect();
        let Some(ttl) = ttl(&message) else {
            return expired(job, batch);
        };
        let terms = Terms {
            priority: job.priority,
            ttl,
        };
        let stored = inbox.enqueue(&addresses, message, terms, job.until);
        let mut outcomes = stored.await;
        let unsaid = || Enqueued::Unknown("the durability slot said nothing of it".to_owned());
        outcomes.resize_with(batch.len(), unsaid);
        let is_there = |outcome: &Enqueued| matches!(outcome, Enqueued::Stored { .. } | Enqueued::Duplicate);
        let there = addresses
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| is_there(outcome));
        let there: Vec<Identity> = there.map(|(address, _)| address.identity.clone()).collect();
        for (address, outcome) in addresses.iter().zip(&outcomes) {
            if let Enqueued::Stored {
                displaced: Some(ticket),
            } = outcome
            {
                let displaced = News::Ended(End::Displaced, None);
                self.shared
                    .courier
                    .say(ticket, &address.identity, displaced, None);
            }
        }
        learn(&job.tracker, batch, outcomes.into_iter().map(enqueued));
        self.ring(there);
    }

    /// Tells the sessions of identities, wherever they are, that something is stored for them.
    pub(super) fn ring(&self, identities: Vec<Identity>) {
        if identities.is_empty() {
            return;
        }
        for identity in &identities {
            self.shared.sessions.ring(identity);
        }
        if self.messaging().capability().scope != prism_slot::Scope::Process {
            self.shared.bells.ring(identities);
        }
    }

    pub(super) fn gate(&self, delivery: Delivery) -> &Gate {
        match delivery {
            Delivery::AtMostOnce => &self.shared.publishing,
            Delivery::AtLeastOnce | Delivery::ExactlyOnce => &self.shared.storing,
        }
    }
}

/// Waits until the target with this number may be sent to, or the multicast is cancelled.
async fn keep_pace(job: &Job, began: Instant, place: usize) {
    if let Some(due) = job.pace.due(began, place) {
        let wait = sleep_until(due.min(job.until));
        let _ = job.tracker.unless_cancelled(wait).await;
    }
}

/// It would be of no use to anybody any more.
fn expired(job: &Job, batch: &Batch) {
    job.tracker.learn_of_all(batch, &News::Ended(End::Expired, None));
}

fn too_late(job: &Job, batch: &Batch) {
    let end = match job.tracker.cast.delivery {
        Delivery::AtMostOnce => End::NotSent,
        _ => End::NotStored,
    };
    let why: Arc<str> = "the deadline passed before its turn came".into();
    job.tracker.learn_of_all(batch, &News::Ended(end, Some(why)));
}

/// Nothing more is to be done for targets that are at this stage.
fn reached(job: &Job) -> Stage {
    match job.tracker.cast.delivery {
        Delivery::AtMostOnce => Stage::Accepted,
        _ => Stage::Stored,
    }
}

/// In which order the targets are sent to, where that is another one than theirs. Those that are stored for go by name:
/// what is close by name is close in a store, too, while the parts of the record are in no order that a store would know.
/// Where a multicast is gone on with, what is reached is left out, and takes no time of its pace.
fn order(job: &Job) -> Option<Vec<usize>> {
    let targets = &job.tracker.targets;
    let all = Batch::Run(0..targets.len());
    let mut order: Vec<usize> = match job.message.again {
        true => job.tracker.below(reached(job), all).iter().collect(),
        false if job.tracker.cast.delivery == Delivery::AtMostOnce => return None,
        false if targets.len() <= job.pace.window() => return None,
        false => all.iter().collect(),
    };
    order.sort_unstable_by_key(|place| &targets[*place]);
    Some(order)
}

fn windows(count: usize, size: usize) -> Vec<Range<usize>> {
    let begins = (0..count).step_by(size);
    begins.map(|begin| begin..(begin + size).min(count)).collect()
}

fn learn(tracker: &Tracker, batch: &Batch, news: impl Iterator<Item = News>) {
    tracker.learn_at(batch.iter().zip(news));
}

/// What is not known to have been sent may have been.
pub(super) fn abandon(tracker: &Tracker, why: &str) {
    let unknown = News::Ended(End::Unknown, Some(why.into()));
    tracker.learn_of_all(&unsent(tracker), &unknown);
}

/// What has not been sent will not be.
fn take_back(tracker: &Tracker) {
    tracker.learn_of_all(&unsent(tracker), &News::Ended(End::Cancelled, None));
}

/// What nothing is known of.
fn unsent(tracker: &Tracker) -> Batch {
    tracker.ended(|state| state == Brief::default()).into()
}

fn published(outcome: Outcome) -> News {
    match outcome {
        Outcome::Accepted => News::Reached(Stage::Accepted),
        Outcome::NoSubscriber => News::Ended(End::NoSubscriber, None),
        Outcome::NotSent(why) => News::Ended(End::NotSent, Some(why.into())),
        Outcome::Unknown(why) => News::Ended(End::Unknown, Some(why.into())),
    }
}

fn enqueued(outcome: Enqueued) -> News {
    match outcome {
        Enqueued::Stored { .. } | Enqueued::Duplicate => News::Reached(Stage::Stored),
        Enqueued::Full => News::Ended(End::InboxFull, None),
        Enqueued::NotStored(why) => News::Ended(End::NotStored, Some(why.into())),
        Enqueued::Unknown(why) => News::Ended(End::Unknown, Some(why.into())),
    }
}

fn again(message: &Message) -> Arc<Message> {
    Arc::new(Message {
        again: true,
        ..message.clone()
    })
}

/// How long a message still lives; `None` for one that does not.
fn ttl(message: &Message) -> Option<Duration> {
    let left = message.expires_at?.0.saturating_sub(Timestamp::now().0);
    u64::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_millis)
}

fn retry_policy(config: &Config) -> Policy {
    let base = Duration::from_millis(config.behavior.retry_delay_ms);
    Policy { base, cap: base * 16 }
}
