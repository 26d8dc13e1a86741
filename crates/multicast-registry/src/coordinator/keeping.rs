//! What a coordinator does about deliveries by itself: it carries word, keeps the books, looks after what dead runners
//! left, and tidies inboxes.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{Arrival, DEFAULT_CONTENT_TYPE, Error as SlotError, Message, Post, Ticket, Timestamp};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::{
    Coordinator, Error,
    sending::{GivenUp, Job, abandon},
};
use crate::{
    config::MAX_CALL_TIMEOUT,
    delivery::{Bell, End, Load, News, Note, Orphan, Phase, Reply, Stage, Strays, Tracker},
};

/// How often the ledger is brought to what is known here.
const WRITE_UP: Duration = Duration::from_millis(200);
/// How long a multicast stays in memory after the last word of it, where the ledger has it.
const LINGER: Duration = Duration::from_secs(5);
/// How often a runner says that it is alive, and looks for what others left.
const LOOK_AFTER: Duration = Duration::from_secs(3);
/// How often inboxes are tidied.
const TIDY: Duration = Duration::from_secs(1);
/// Every how many times their depth is measured.
const MEASURE: u32 = 5;
/// How long one thing may take of what is done in rounds.
const ROUND: Duration = Duration::from_secs(5);
/// How many multicasts are written up at a time, and written down what has strayed of.
const AT_A_TIME: usize = 16;
/// How many questions of other runners are answered at a time.
const MAX_ANSWERS: usize = 256;
/// How long an orphan is sent for at most, unless its pace takes longer.
const ADOPTED: Duration = Duration::from_secs(60);
const RETRY: Policy = Policy {
    base: Duration::from_millis(50),
    cap: Duration::from_secs(2),
};

fn soon() -> Instant {
    Instant::now() + ROUND
}

impl Coordinator {
    /// Starts everything that goes on by itself, until the coordinator is closed.
    pub(super) fn keep(&self) {
        let closing = self.shared.closing.clone();
        let spawn = |work: futures::future::BoxFuture<'static, ()>| {
            let closing = closing.clone();
            self.shared.tasks.spawn(async move {
                closing.run_until_cancelled(work).await;
            });
        };
        let this = self.clone();
        spawn(Box::pin(async move { this.receive().await }));
        let this = self.clone();
        let until_closed = closing.clone();
        self.shared.tasks.spawn(async move {
            this.shared.courier.run(|| this.messaging(), until_closed).await;
        });
        let this = self.clone();
        spawn(Box::pin(async move {
            let namespace = this.shared.sessions.namespace();
            this.shared.bells.run(namespace, || this.messaging()).await;
        }));
        let this = self.clone();
        spawn(Box::pin(async move { this.write_up_regularly().await }));
        let this = self.clone();
        spawn(Box::pin(async move { this.take_in_strays_regularly().await }));
        let this = self.clone();
        spawn(Box::pin(async move { this.stay_alive().await }));
        let this = self.clone();
        spawn(Box::pin(async move { this.look_after().await }));
        let this = self.clone();
        spawn(Box::pin(async move { this.tidy().await }));
    }

    /// Writes up what is not, and says goodbye.
    pub(super) async fn end_keeping(&self, deadline: Instant) {
        // Whoever does not take its post leaves time for the ledger.
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let _ = timeout_at(half, self.shared.courier.deliver(&*self.messaging())).await;
        tokio::join!(self.write_up_all(|| deadline), self.take_in_strays(|| deadline));
        let _ = self.books().sign_out(deadline).await;
    }

    /// Reads this runner's post, and opens another one where it is lost.
    async fn receive(&self) {
        let mut backoff = Backoff::new(RETRY);
        loop {
            match self.messaging().post(soon()).await {
                Ok(post) => {
                    backoff = Backoff::new(RETRY);
                    self.shared.courier.set_address(Some(post.address().clone()));
                    // Others may know an address that is not read any more.
                    self.shared.presence.changed();
                    self.read(post).await;
                    self.shared.courier.set_address(None);
                }
                Err(error) => {
                    let namespace = self.shared.sessions.namespace();
                    tracing::debug!(namespace, %error, "no post for receipts yet");
                }
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Reads until the post is lost. Answering others takes no time from what comes in.
    async fn read(&self, mut post: Post) {
        let (mut lost, mut answering) = (0, FuturesUnordered::new());
        loop {
            let arrival = tokio::select! {
                arrival = post.next() => arrival,
                Some(()) = answering.next() => continue,
            };
            let Some(arrival) = arrival else { return };
            self.shared.metrics.receipts_dropped(post.lost() - lost);
            lost = post.lost();
            match arrival {
                Arrival::Note(bytes) => match Note::decode(bytes) {
                    Some(Note::Receipts(multicasts)) => {
                        for (multicast, receipts) in multicasts {
                            self.shared.courier.take(multicast, receipts);
                        }
                    }
                    // Where it gets none, the other side asks again, or gives up.
                    Some(Note::Query(query)) if answering.len() < MAX_ANSWERS => {
                        answering.push(self.answer(query, soon()));
                    }
                    Some(Note::Query(_)) => {}
                    Some(Note::Answer(answer)) => self.shared.questions.answered(answer),
                    Some(Note::Bell(_)) | None => {}
                },
                // Anybody at the broker can send these, so they may do no more than have somebody look.
                Arrival::NoteToAll(bytes) => {
                    if let Some(Note::Bell(Bell(identities))) = Note::decode(bytes) {
                        identities
                            .iter()
                            .for_each(|identity| self.shared.sessions.ring(identity));
                    }
                }
                Arrival::Answer {
                    multicast,
                    identity,
                    body,
                } => {
                    let ticket = Ticket {
                        multicast,
                        receipts: self.shared.courier.address(),
                    };
                    let reply = Reply {
                        identity: identity.clone(),
                        payload: body,
                        content_type: DEFAULT_CONTENT_TYPE.to_string(),
                        headers: Vec::new(),
                    };
                    let acked = News::Reached(Stage::Acked);
                    self.shared.courier.say(&ticket, &identity, acked, Some(reply));
                }
            }
        }
    }

    async fn write_up_regularly(&self) {
        let mut ticks = interval(WRITE_UP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.write_up_all(soon).await;
            self.shared.desk.tidy(Timestamp::now());
        }
    }

    /// Apart from what is at hand: of strays there may be very many, and none waits for the other.
    async fn take_in_strays_regularly(&self) {
        let mut ticks = interval(WRITE_UP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.take_in_strays(soon).await;
        }
    }

    /// Brings the ledger to what is known of everything at hand, each within a time of its own.
    pub(super) async fn write_up_all(&self, by: impl Fn() -> Instant) {
        let recorded = stream::iter(self.shared.desk.recorded());
        let write_up = async |tracker: Arc<Tracker>| {
            let written = self.write_up(&tracker, by()).await;
            if written && tracker.phase() != Phase::Running && tracker.idle() >= LINGER {
                self.shared.desk.remove(tracker.cast.id);
            }
        };
        recorded.for_each_concurrent(AT_A_TIME, write_up).await;
    }

    /// Writes down what nobody has at hand, each within a time of its own.
    async fn take_in_strays(&self, by: impl Fn() -> Instant) {
        let strays = stream::iter(self.shared.courier.take_strays());
        strays
            .for_each_concurrent(AT_A_TIME, |strays| self.take_in(strays, by()))
            .await;
    }

    async fn take_in(&self, strays: Strays<'_>, deadline: Instant) {
        let (multicast, count) = (strays.multicast, strays.receipts.len());
        let applied = self.books().apply(multicast, &strays.receipts, deadline).await;
        let Err(error) = applied else {
            return strays.done();
        };
        let namespace = self.shared.sessions.namespace();
        match error {
            // They wait for the next time, and not for longer than the ledger keeps their multicast.
            SlotError::Unavailable { .. } | SlotError::Timeout { .. } => {
                tracing::warn!(namespace, %multicast, %error, "receipts could not be written down, trying again");
            }
            error => {
                tracing::warn!(namespace, %multicast, %error, "receipts could not be written down");
                self.shared.metrics.receipts_dropped(count as u64);
                strays.done();
            }
        }
    }

    /// Brings the ledger to what is known of a multicast; whether that worked.
    pub(super) async fn write_up(&self, tracker: &Tracker, deadline: Instant) -> bool {
        let books = self.books();
        let written = match tracker.is_unfinished() {
            true => books.finish(tracker, deadline).await,
            // One that is not written down before it is sent is written down after.
            false if tracker.phase() == Phase::Running && !tracker.is_written() => return false,
            false => books.flush(tracker, deadline).await,
        };
        if let Err(error) = &written {
            let namespace = self.shared.sessions.namespace();
            let multicast = tracker.cast.id;
            tracing::warn!(namespace, %multicast, %error, "a multicast could not be written up, trying again");
        }
        written.is_ok()
    }

    /// Says that this runner is alive, whatever else it is at.
    async fn stay_alive(&self) {
        let mut ticks = interval(LOOK_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.say_alive().await;
        }
    }

    pub(super) async fn say_alive(&self) {
        if let Err(error) = self.sign_in(soon()).await {
            // It may be taken for dead by now: nothing is begun before it is known again.
            self.shared.presence.changed();
            let namespace = self.shared.sessions.namespace();
            tracing::warn!(namespace, %error, "the ledger could not be told that this runner is alive");
        }
    }

    /// Goes on with what dead runners have begun.
    async fn look_after(&self) {
        let mut ticks = interval(LOOK_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_after_once().await;
        }
    }

    pub(super) async fn look_after_once(&self) {
        let namespace = self.shared.sessions.namespace();
        if let Err(error) = self.be_known(soon()).await {
            tracing::warn!(namespace, %error, "others are not told that this runner is alive, so it takes nothing over");
            return;
        }
        let is_at_work = |multicast| self.shared.desk.has(multicast);
        match self.books().orphans(is_at_work, soon()).await {
            Ok(orphans) => drop(join_all(orphans.into_iter().map(|orphan| self.adopt(orphan))).await),
            Err(error) => tracing::warn!(namespace, %error, "could not look for multicasts of dead runners"),
        }
    }

    /// Says that this runner is alive, and where it is reached.
    async fn sign_in(&self, deadline: Instant) -> Result<(), Error> {
        let as_of = self.shared.presence.as_of();
        let address = self.shared.courier.address().unwrap_or_default();
        self.books().sign_in(&address, deadline).await?;
        self.shared.presence.told(as_of);
        Ok(())
    }

    /// Makes sure that others know that this runner is alive: what it begins would be taken for an orphan.
    pub(super) async fn be_known(&self, deadline: Instant) -> Result<(), Error> {
        match self.shared.presence.is_known() {
            true => Ok(()),
            false => self.sign_in(deadline).await,
        }
    }

    async fn adopt(&self, orphan: Orphan) {
        let (namespace, multicast) = (self.shared.sessions.namespace(), orphan.multicast);
        match self.go_on_with(orphan).await {
            Ok(true) => {
                tracing::info!(namespace, %multicast, "went on with a multicast of a runner that ended")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(namespace, %multicast, %error, "could not go on with a multicast, trying again")
            }
        }
    }

    async fn go_on_with(&self, orphan: Orphan) -> Result<bool, Error> {
        let multicast = orphan.multicast;
        let Some((mut entry, load, parts)) = self
            .books()
            .adopt(
                orphan,
                self.found_until(Instant::now() + MAX_CALL_TIMEOUT),
                soon(),
            )
            .await?
        else {
            return Ok(false);
        };
        let window = self.config().behavior.dedupe_window;
        // It may have a key; the ledger does not say.
        entry.cast.key_window = Some(window);
        let tracker = Arc::new(Tracker::resumed(entry, parts));
        let age = Timestamp::now().0.saturating_sub(tracker.cast.began_at.0);
        let is_safe = u128::try_from(age).is_ok_and(|age| age < window.as_millis());
        let before = self.shared.desk.get(multicast);
        if before.is_some_and(|before| before.is_cancelled()) {
            tracker.cancel();
        }
        self.shared.desk.put(tracker.clone());
        if !is_safe {
            // Storing again what may have been stored would no longer be noticed.
            abandon(&tracker, "its runner ended while it sent");
            tracker.sent();
            return Ok(true);
        }
        let admission = self
            .gate(tracker.cast.delivery)
            .admit_anyway(tracker.targets.len());
        let Load {
            message,
            priority,
            pace,
        } = load;
        // As long as its call might have taken.
        let by_pace = pace.time_for(tracker.targets.len()).min(MAX_CALL_TIMEOUT);
        let until = Instant::now() + ADOPTED.max(by_pace);
        let message = Message {
            receipts: self.shared.courier.address(),
            // Its runner may have stored it for any of its targets.
            again: true,
            ..message
        };
        self.send(Job {
            config: self.config(),
            _given_up: GivenUp::new(self, &tracker),
            tracker,
            message: Arc::new(message),
            priority,
            pace,
            until,
            admission,
        })
        .await;
        Ok(true)
    }

    /// Until when a multicast that is to be sent by then is found, should its runner end: as long as storing again is
    /// noticed, somebody goes on with it.
    pub(super) fn found_until(&self, until: Instant) -> Instant {
        until.max(Instant::now() + self.config().behavior.dedupe_window)
    }

    /// Removes what has expired from inboxes, tells of it, and measures what is left.
    async fn tidy(&self) {
        let mut ticks = interval(TIDY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u32.. {
            ticks.tick().await;
            let Some(inbox) = self.inbox() else { continue };
            loop {
                let Ok(swept) = inbox.sweep(soon()).await else {
                    break;
                };
                for (identity, ticket) in swept.expired {
                    let expired = News::Ended(End::Expired, None);
                    self.shared.courier.say(&ticket, &identity, expired, None);
                }
                if !swept.more {
                    break;
                }
            }
            if round % MEASURE == 0
                && let Ok(depth) = inbox.depth(None, soon()).await
            {
                self.shared.metrics.inbox(depth.messages, depth.dead);
            }
        }
    }
}
