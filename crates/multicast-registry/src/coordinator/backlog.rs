//! What is stored for the identity of a session: fetched as it becomes due, and settled as the consumer says.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use prism_core::backoff::{Backoff, Policy};
use prism_slot::{
    Consumer, DeadReason, Delivery, DynDurableInbox, Error as SlotError, Fetch, Fetched, Identity,
    MulticastId, Result, Settled, Ticket, Timestamp, Verdict,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    config::Behavior,
    delivery::{Courier, End, News, Reply, Stage},
    metrics::NamespaceMetrics,
};

/// How often a session looks by itself: a lost bell costs no more.
const LOOK: Duration = Duration::from_secs(30);
/// How soon a session with no room looks whether what its consumer has is due again.
const NO_ROOM: Duration = Duration::from_millis(500);
/// How long one call to the slot may take.
const CALL: Duration = Duration::from_secs(5);
/// How many bytes of payload are fetched at a time, unless one message has more.
const FETCH_BYTES: usize = 1 << 20;
/// How many verdicts are said at a time.
const SETTLE: usize = 256;
/// How many verdicts wait to be said before the consumer's next words are read.
pub(super) const MAX_VERDICTS: usize = 4_096;
const RETRY: Policy = Policy {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

/// On what terms a session works on its inbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    ack_timeout: Duration,
    max_deliver: u32,
    /// How many messages are out with the consumer at most.
    max_unacked: usize,
}

impl Limits {
    pub(super) fn of(behavior: &Behavior) -> Self {
        Self {
            ack_timeout: behavior.ack_timeout,
            max_deliver: behavior.max_deliver,
            max_unacked: behavior.max_unacked,
        }
    }
}

/// A verdict that is to be said to the slot.
struct Said {
    /// Where word of it goes. It is that of the very delivery: the message may be out again before the slot has answered.
    ticket: Ticket,
    verdict: Verdict,
    reply: Option<Reply>,
}

/// A message that the consumer has.
struct Out {
    ticket: Ticket,
    /// From then on the slot hands it out again, so it takes no room any more; a word about it still holds.
    due: Instant,
    expires_at: Option<Timestamp>,
}

type IsCurrent = Box<dyn Fn() -> bool + Send + Sync>;
type Call<T> = Option<BoxFuture<'static, T>>;

/// The stored messages of one session.
pub(super) struct Backlog {
    inbox: Arc<dyn DynDurableInbox>,
    consumer: Consumer,
    limits: Limits,
    courier: Arc<Courier>,
    metrics: NamespaceMetrics,
    /// Whether the session's epoch is the current one.
    is_current: IsCurrent,
    /// What is with the consumer.
    out: HashMap<MulticastId, Out>,
    /// What is fetched and not handed on, with when the slot will hand it out again.
    ready: VecDeque<(Instant, Delivery)>,
    /// Whether there may be something to fetch.
    rung: bool,
    /// When to look again.
    look_at: Instant,
    fetching: Call<Result<Fetched>>,
    reopening: Call<Result<()>>,
    verdicts: VecDeque<Said>,
    settling: Call<(Vec<Said>, Result<Vec<Settled>>)>,
    settle_at: Option<Instant>,
    backoff: Backoff,
}

/// What happened to a backlog.
pub(super) enum Step {
    /// There may be something to hand on.
    Ready,
    /// Verdicts were settled.
    Settled(Vec<(MulticastId, Settled)>),
    /// Somebody else has the inbox now.
    Fenced,
}

impl Backlog {
    pub(super) fn new(
        inbox: Arc<dyn DynDurableInbox>,
        consumer: Consumer,
        limits: Limits,
        courier: Arc<Courier>,
        metrics: NamespaceMetrics,
        is_current: IsCurrent,
    ) -> Self {
        Self {
            is_current,
            inbox,
            consumer,
            limits,
            courier,
            metrics,
            out: HashMap::new(),
            ready: VecDeque::new(),
            rung: true,
            look_at: Instant::now() + LOOK,
            fetching: None,
            reopening: None,
            verdicts: VecDeque::new(),
            settling: None,
            settle_at: None,
            backoff: Backoff::new(RETRY),
        }
    }

    fn identity(&self) -> &Identity {
        &self.consumer.address.identity
    }

    /// There may be something to fetch.
    pub(super) fn ring(&mut self) {
        self.rung = true;
    }

    /// Whether the consumer has this message.
    pub(super) fn has_out(&self, multicast: MulticastId) -> bool {
        self.out.contains_key(&multicast)
    }

    /// The next message, to be handed to the consumer at once.
    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let (due, delivery) = self.next_ready()?;
        let ticket = Ticket::from(&*delivery.message);
        if delivery.attempt > 1 {
            self.metrics.redelivered();
        }
        self.courier
            .say(&ticket, self.identity(), News::Reached(Stage::Handed), None);
        let expires_at = delivery.message.expires_at;
        let out = Out {
            ticket,
            due,
            expires_at,
        };
        self.out.insert(out.ticket.multicast, out);
        Some(delivery)
    }

    fn next_ready(&mut self) -> Option<(Instant, Delivery)> {
        let now = Instant::now();
        while let Some((due, delivery)) = self.ready.pop_front() {
            if due > now {
                return Some((due, delivery));
            }
            // The consumer took nothing for so long that the slot hands it out again.
            self.rung = true;
        }
        None
    }

    /// Takes the consumer's word about a message.
    pub(super) fn say(&mut self, multicast: MulticastId, verdict: Verdict, reply: Option<Reply>) {
        let out = self.out.remove(&multicast);
        // What an earlier session was handed is known here by its name alone.
        let ticket = out.map_or(
            Ticket {
                multicast,
                receipts: None,
            },
            |out| out.ticket,
        );
        self.verdicts.push_back(Said {
            ticket,
            verdict,
            reply,
        });
    }

    /// Whether so much waits to be said that no more should be taken.
    pub(super) fn is_behind(&self) -> bool {
        self.verdicts.len() >= MAX_VERDICTS
    }

    /// Goes on with whatever is to be done. `room` is how many messages may be handed on. Cancel safe.
    pub(super) async fn step(&mut self, room: usize) -> Step {
        loop {
            self.begin(room);
            let wake = match (self.rung, self.settle_at) {
                // Nothing can be fetched now: what is out must be settled first.
                (true, Some(at)) => at,
                (false, Some(at)) => self.look_at.min(at),
                (true, None) if self.fetching.is_some() => Instant::now() + LOOK,
                (true, None) => self.look_at.max(Instant::now() + NO_ROOM),
                (false, None) => self.look_at,
            };
            tokio::select! {
                biased;
                (said, outcome) = ready(&mut self.settling) => {
                    if let Some(step) = self.settled(said, outcome) {
                        return step;
                    }
                }
                reopened = ready(&mut self.reopening) => match reopened {
                    Err(SlotError::Fenced(_)) => return Step::Fenced,
                    Ok(()) => self.look_soon(),
                    Err(error) => self.put_off(&error),
                },
                fetched = ready(&mut self.fetching) => match fetched {
                    Ok(fetched) => {
                        self.fetched(fetched);
                        if !self.ready.is_empty() {
                            return Step::Ready;
                        }
                    }
                    Err(SlotError::Fenced(_)) if !(self.is_current)() => return Step::Fenced,
                    // The inbox may have been lost with its store; if not, this says so again.
                    Err(SlotError::Fenced(_)) => self.reopen(),
                    Err(error) => self.put_off(&error),
                },
                () = sleep_until(wake) => {
                    self.rung |= self.look_at <= Instant::now();
                    self.settle_at = self.settle_at.filter(|at| *at > Instant::now());
                }
            }
        }
    }

    /// Starts what can be started.
    fn begin(&mut self, room: usize) {
        let is_open = self.reopening.is_none();
        if is_open && self.settling.is_none() && self.settle_at.is_none() && !self.verdicts.is_empty() {
            let count = self.verdicts.len().min(SETTLE);
            let said = self.verdicts.drain(..count).collect();
            self.settle(said);
        }
        let now = Instant::now();
        let taken = self.out.values().filter(|out| out.due > now).count() + self.ready.len();
        let free = self.limits.max_unacked.saturating_sub(taken);
        let max_messages = free.min(room.saturating_sub(self.ready.len()));
        if is_open && self.fetching.is_none() && self.rung && max_messages > 0 {
            self.rung = false;
            let (inbox, consumer) = (self.inbox.clone(), self.consumer.clone());
            let fetch = Fetch {
                max_messages,
                max_bytes: FETCH_BYTES,
                ack_timeout: self.limits.ack_timeout,
                max_deliver: self.limits.max_deliver,
            };
            let call = async move { inbox.fetch(&consumer, fetch, now + CALL).await };
            self.fetching = Some(call.boxed());
        }
    }

    fn fetched(&mut self, fetched: Fetched) {
        // Not from the call, though the slot may count from there: where calls take longer than that, nothing would ever be
        // handed on. At worst something comes twice, and says so.
        let again = Instant::now() + self.limits.ack_timeout;
        self.backoff = Backoff::new(RETRY);
        self.rung |= fetched.more;
        let due = fetched.next_due.unwrap_or(LOOK).min(LOOK);
        self.look_at = Instant::now() + due;
        for (ticket, reason) in fetched.dead {
            let news = buried(reason);
            self.out.remove(&ticket.multicast);
            self.courier.say(&ticket, self.identity(), news, None);
        }
        for ticket in fetched.expired {
            self.out.remove(&ticket.multicast);
            let news = News::Ended(End::Expired, None);
            self.courier.say(&ticket, self.identity(), news, None);
        }
        let deliveries = fetched.deliveries.into_iter();
        self.ready.extend(deliveries.map(|delivery| (again, delivery)));
        self.forget();
    }

    /// Forgets what the consumer had and never will speak of with any effect. Not every slot tells what expired.
    fn forget(&mut self) {
        let (now, today) = (Instant::now(), Timestamp::now());
        let is_over = |out: &Out| out.due <= now && out.expires_at.is_some_and(|at| at <= today);
        self.out.retain(|_, out| !is_over(out));
    }

    fn settle(&mut self, said: Vec<Said>) {
        let (inbox, consumer) = (self.inbox.clone(), self.consumer.clone());
        let call = async move {
            let settled = inbox
                .settle(&consumer, verdicts(&said), Instant::now() + CALL)
                .await;
            (said, settled)
        };
        self.settling = Some(call.boxed());
    }

    fn settled(&mut self, said: Vec<Said>, outcome: Result<Vec<Settled>>) -> Option<Step> {
        let settled = match outcome {
            Ok(settled) => settled,
            Err(error) => {
                // Saying it again changes nothing where it was heard.
                said.into_iter()
                    .rev()
                    .for_each(|said| self.verdicts.push_front(said));
                match error {
                    SlotError::Fenced(_) if !(self.is_current)() => return Some(Step::Fenced),
                    SlotError::Fenced(_) => self.reopen(),
                    error => self.put_off(&error),
                }
                self.settle_at = Some(Instant::now() + self.backoff.pause());
                return None;
            }
        };
        let mut outcomes = Vec::with_capacity(said.len());
        for (said, settled) in said.into_iter().zip(settled) {
            outcomes.push((said.ticket.multicast, settled));
            match &said.verdict {
                Verdict::Nack { delay } => self.look_at = self.look_at.min(Instant::now() + *delay),
                // It may have been handed out again meanwhile, and is gone all the same.
                _ => drop(self.out.remove(&said.ticket.multicast)),
            }
            tell(&self.courier, self.identity(), said, settled);
        }
        // There is room for more now.
        self.rung = true;
        Some(Step::Settled(outcomes))
    }

    fn reopen(&mut self) {
        let (inbox, consumer) = (self.inbox.clone(), self.consumer.clone());
        let call = async move { inbox.open(&consumer, Instant::now() + CALL).await };
        self.reopening = Some(call.boxed());
    }

    fn look_soon(&mut self) {
        (self.rung, self.settle_at) = (true, None);
    }

    fn put_off(&mut self, error: &SlotError) {
        tracing::warn!(identity = %self.identity(), %error, "the durability slot did not serve a session, trying again");
        self.look_at = Instant::now() + self.backoff.pause();
    }

    /// Everything that the consumer said and the slot has not been told, and what the consumer was not handed.
    pub(super) fn unsaid(&mut self) -> Option<BoxFuture<'static, ()>> {
        let settling = self.settling.take();
        let mut rest: Vec<Said> = self.verdicts.drain(..).collect();
        rest.extend(std::iter::from_fn(|| self.next_ready()).map(released));
        if settling.is_none() && rest.is_empty() {
            return None;
        }
        let (inbox, consumer, courier) = (self.inbox.clone(), self.consumer.clone(), self.courier.clone());
        Some(Box::pin(async move {
            let tell_all = |(said, settled): (Vec<Said>, Result<Vec<Settled>>)| {
                for (said, settled) in said.into_iter().zip(settled.unwrap_or_default()) {
                    tell(&courier, &consumer.address.identity, said, settled);
                }
            };
            if let Some(settling) = settling {
                tell_all(settling.await);
            }
            while !rest.is_empty() {
                let said: Vec<Said> = rest.drain(..rest.len().min(SETTLE)).collect();
                let settled = inbox
                    .settle(&consumer, verdicts(&said), Instant::now() + CALL)
                    .await;
                tell_all((said, settled));
            }
        }))
    }
}

fn verdicts(said: &[Said]) -> Vec<(MulticastId, Verdict)> {
    let pairs = said
        .iter()
        .map(|said| (said.ticket.multicast, said.verdict.clone()));
    pairs.collect()
}

fn released((_, delivery): (Instant, Delivery)) -> Said {
    Said {
        ticket: Ticket::from(&*delivery.message),
        verdict: Verdict::Release,
        reply: None,
    }
}

/// Tells the sender what a consumer's word came to, where that is the end of the message.
fn tell(courier: &Courier, identity: &Identity, said: Said, settled: Settled) {
    if let (Settled::Done, Some(news)) = (settled, of_verdict(said.verdict)) {
        courier.say(&said.ticket, identity, news, said.reply);
    }
}

/// What became of a message that its consumer is done with; `None` where it is not.
fn of_verdict(verdict: Verdict) -> Option<News> {
    match verdict {
        Verdict::Term { reason } => Some(buried(DeadReason::Terminated(reason))),
        Verdict::Ack => Some(News::Reached(Stage::Acked)),
        Verdict::Nack { .. } | Verdict::Release => None,
    }
}

/// What became of a message that is a dead letter.
fn buried(reason: DeadReason) -> News {
    match reason {
        DeadReason::MaxDeliver => News::Ended(End::MaxDeliver, None),
        DeadReason::OtherHolder => News::Ended(End::OtherHolder, None),
        DeadReason::Terminated(why) => News::Ended(End::Terminated, (!why.is_empty()).then(|| why.into())),
    }
}

/// The outcome of a call, which is over then; pending for ever where there is none.
async fn ready<T>(call: &mut Call<T>) -> T {
    let outcome = match call {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *call = None;
    outcome
}
