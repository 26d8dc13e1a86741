//! One live session: what it is handed, and what its client says.

use std::{collections::VecDeque, sync::Arc};

use prism_slot::{
    Address, Claim, Consumer, Delivery, DynMessaging, GapReason, Identity, Kind, Listener, Message,
    MulticastId, Outcome, Position, Received, Settled, Ticket, Timestamp, Verdict,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    Coordinator, Error,
    backlog::{Backlog, Limits, Step},
    planning::holder_of,
    sessions::{Claimed, Closed, Entry},
};
use crate::delivery::{Courier, End, News, Reply, Stage};

/// Of how many messages that were not stored it is remembered where word of them goes, so that they can be acknowledged.
const REMEMBERED: usize = 1_024;

/// What a session is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// A message for the identity that is sent once.
    Message(Arc<Message>),
    /// A message for the identity that is stored until it is acknowledged.
    Stored(Delivery),
    /// Messages are, or may be, missing here.
    Gap {
        /// How many are known to be missing.
        dropped: u64,
        /// Why.
        reason: GapReason,
    },
    /// What became of what was said about messages.
    Settled(Vec<(MulticastId, Settled)>),
}

/// A live session of one identity. Ends when dropped.
pub struct Session {
    claim: Claim,
    listener: Listener,
    end: watch::Receiver<Option<Closed>>,
    ended: bool,
    entry: Entry,
    /// How many more messages the client takes; `None` for any number.
    credits: Option<u64>,
    /// A message that came when the client took no more.
    held: Option<Arc<Message>>,
    backlog: Option<Backlog>,
    lately: Lately,
    /// What became of words about messages that were not stored.
    settled: Vec<(MulticastId, Settled)>,
    courier: Arc<Courier>,
    words: TaskTracker,
    /// The slot that feeds the listener stays open as long as somebody listens.
    _messaging: Arc<dyn DynMessaging>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The registration that it belongs to, and its number among the identity's sessions.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// From now on only as many messages are handed on as were granted.
    pub fn limit(&mut self) {
        self.credits.get_or_insert(0);
    }

    /// So many more messages may be handed on.
    pub fn grant(&mut self, messages: u64) {
        self.credits = self.credits.map(|credits| credits.saturating_add(messages));
    }

    /// Takes the client's word about a message, with its answer if it has one. What becomes of that, an event tells.
    pub fn say(&mut self, multicast: MulticastId, verdict: Verdict, reply: Option<Reply>) {
        if let Some(backlog) = &mut self.backlog
            && (backlog.has_out(multicast) || !self.lately.knows(multicast))
        {
            return backlog.say(multicast, verdict, reply);
        }
        let ticket = self.lately.take(multicast, &verdict);
        let settled = match &ticket {
            Some(_) => Settled::Done,
            None => Settled::Gone,
        };
        self.settled.push((multicast, settled));
        let news = match verdict {
            Verdict::Ack => News::Reached(Stage::Acked),
            // It is not stored, so it is no dead letter, and does not come again.
            Verdict::Term { reason } => {
                News::Ended(End::Refused, (!reason.is_empty()).then(|| reason.into()))
            }
            Verdict::Nack { .. } | Verdict::Release => return,
        };
        if let Some(ticket) = ticket {
            self.courier.say(&ticket, &self.entry.identity, news, reply);
        }
    }

    /// Whether more words of the client should wait.
    pub fn is_behind(&self) -> bool {
        self.backlog.as_ref().is_some_and(Backlog::is_behind)
    }

    /// The next event. After an error, which says why the session ended, `None`. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<SessionEvent, Closed>> {
        if self.ended {
            return None;
        }
        match self.event().await {
            Ok(event) => Some(Ok(event)),
            Err(closed) => {
                self.ended = true;
                Some(Err(closed))
            }
        }
    }

    async fn event(&mut self) -> Result<SessionEvent, Closed> {
        loop {
            if !self.settled.is_empty() {
                return Ok(SessionEvent::Settled(std::mem::take(&mut self.settled)));
            }
            if self.credits != Some(0)
                && let Some(event) = self.pop()
            {
                self.credits = self.credits.map(|credits| credits - 1);
                return Ok(event);
            }
            let room = self.credits.unwrap_or(u64::MAX);
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let happened = tokio::select! {
                biased;
                closed = self.end.wait_for(Option::is_some) => {
                    return Err(closed.ok().and_then(|closed| *closed).unwrap_or(Closed::SlotClosed));
                }
                () = self.entry.bell.notified() => Happened::Rung,
                step = step(&mut self.backlog, room) => Happened::Step(step),
                received = self.listener.next(), if self.held.is_none() => Happened::Received(received),
            };
            match happened {
                Happened::Rung => self.backlog.iter_mut().for_each(Backlog::ring),
                Happened::Step(Step::Ready) => {}
                Happened::Step(Step::Settled(settled)) => return Ok(SessionEvent::Settled(settled)),
                Happened::Step(Step::Fenced) => return Err(Closed::Superseded),
                Happened::Received(received) => {
                    if let Some(gap) = self.received(received)? {
                        return Ok(gap);
                    }
                }
            }
        }
    }

    fn received(&mut self, received: Option<Received>) -> Result<Option<SessionEvent>, Closed> {
        let message = match received {
            None => return Err(Closed::SlotClosed),
            Some(Received::Gap { dropped, reason }) => {
                self.entry.sessions.metrics.dropped(dropped);
                return Ok(Some(SessionEvent::Gap { dropped, reason }));
            }
            Some(Received::Message(message)) => message,
        };
        match message.kind {
            Kind::Payload => self.held = Some(message),
            Kind::Superseded { session_seq } if session_seq > self.claim.session_seq => {
                return Err(Closed::Superseded);
            }
            Kind::Superseded { .. } => {}
        }
        Ok(None)
    }

    /// The next message that can be handed on.
    fn pop(&mut self) -> Option<SessionEvent> {
        if let Some(message) = self.held.take() {
            let (ticket, identity) = (Ticket::from(&*message), &self.entry.identity);
            if message.expires_at.is_some_and(|at| at <= Timestamp::now()) {
                let expired = News::Ended(End::Expired, None);
                self.courier.say(&ticket, identity, expired, None);
            } else {
                let handed = News::Reached(Stage::Handed);
                self.courier.say(&ticket, identity, handed, None);
                self.lately.remember(ticket);
                return Some(SessionEvent::Message(message));
            }
        }
        self.backlog.as_mut()?.pop().map(SessionEvent::Stored)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What the client has said holds, also if it went away at once.
        let unsaid = self.backlog.as_mut().and_then(Backlog::unsaid);
        if let Some(unsaid) = unsaid.filter(|_| !self.words.is_closed()) {
            self.words.spawn(unsaid);
        }
    }
}

/// What a session waited for.
enum Happened {
    Rung,
    Step(Step),
    Received(Option<Received>),
}

async fn step(backlog: &mut Option<Backlog>, room: usize) -> Step {
    match backlog {
        Some(backlog) => backlog.step(room).await,
        None => std::future::pending().await,
    }
}

/// The last messages that were handed on and not stored, the newest at the back.
#[derive(Debug, Default)]
struct Lately(VecDeque<Ticket>);

impl Lately {
    fn remember(&mut self, ticket: Ticket) {
        if ticket.receipts.is_none() {
            return;
        }
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(ticket);
    }

    /// Who acknowledges does so in order, soon, or both.
    fn find(&self, multicast: MulticastId) -> Option<usize> {
        let is_it = |ticket: &Ticket| ticket.multicast == multicast;
        match self.0.front() {
            Some(oldest) if is_it(oldest) => Some(0),
            _ => self.0.iter().rposition(is_it),
        }
    }

    fn knows(&self, multicast: MulticastId) -> bool {
        self.find(multicast).is_some()
    }

    /// Where word of a message goes; nothing more is to be said of it, unless it is to come again.
    fn take(&mut self, multicast: MulticastId, verdict: &Verdict) -> Option<Ticket> {
        match verdict {
            Verdict::Nack { .. } | Verdict::Release => None,
            _ => self.0.remove(self.find(multicast)?),
        }
    }
}

impl Coordinator {
    /// Opens a session for a registered identity. When it returns, a multicast through any runner
    /// reaches it, and what is stored for the identity comes. A session that the identity had before is closed.
    ///
    /// # Errors
    /// `NotFound`, `StaleGeneration`; unavailability.
    pub async fn subscribe(
        &self,
        identity: impl TryInto<Identity, Error: Into<Error>>,
        generation: Option<Position>,
        deadline: Instant,
    ) -> Result<Session, Error> {
        let identity = identity.try_into().map_err(Into::into)?;
        self.call(deadline).await?;
        let identity = self.shared.directory.known(identity);
        // Listening comes first: what is accepted after the claim must find it.
        let messaging = self.messaging();
        let listener = messaging.listen(&identity, deadline).await?;
        let (entry, end) = self.shared.sessions.enter(identity.clone());
        let claimed = self.claim_session(&identity, generation, deadline).await?;
        self.shared.sessions.claimed(&entry, claimed, self.epoch());
        self.end_if_gone(&entry, claimed, deadline).await?;
        let claim = claimed.claim;
        let backlog = self.open_backlog(&identity, claimed, deadline).await?;
        self.announce(&identity, claim, deadline).await;
        if self.shared.closing.is_cancelled() {
            return Err(Error::Draining);
        }
        tracing::debug!(namespace = self.shared.sessions.namespace(), %identity, session = claim.session_seq, "subscribed");
        Ok(Session {
            claim,
            listener,
            end,
            ended: false,
            entry,
            credits: None,
            held: None,
            backlog,
            lately: Lately::default(),
            settled: Vec::new(),
            courier: self.shared.courier.clone(),
            words: self.shared.words.clone(),
            _messaging: messaging,
        })
    }

    /// Makes the session the consumer of the identity's inbox, where there are inboxes.
    async fn open_backlog(
        &self,
        identity: &Identity,
        claimed: Claimed,
        deadline: Instant,
    ) -> Result<Option<Backlog>, Error> {
        let (Some(inbox), Some(epoch)) = (self.inbox(), claimed.epoch) else {
            return Ok(None);
        };
        let read = self.get(identity.clone(), deadline).await?;
        let absent = || prism_slot::Error::NotFound(identity.clone());
        let record = read.record.ok_or_else(absent)?;
        if record.generation != claimed.claim.generation {
            let identity = identity.clone();
            let current = record.generation;
            return Err(prism_slot::Error::StaleGeneration { identity, current }.into());
        }
        let consumer = Consumer {
            address: Address {
                identity: identity.clone(),
                holder: holder_of(&record.owner.principal),
            },
            epoch,
            session_seq: claimed.claim.session_seq,
        };
        inbox.open(&consumer, deadline).await?;
        let limits = Limits::of(&self.config().behavior);
        let (courier, metrics) = (self.shared.courier.clone(), self.shared.metrics.clone());
        let directory = self.shared.directory.clone();
        // One of an epoch that ended must not take the inbox back from one of the current epoch.
        let is_current = Box::new(move || directory.head().epoch == epoch);
        Ok(Some(Backlog::new(
            inbox, consumer, limits, courier, metrics, is_current,
        )))
    }

    async fn claim_session(
        &self,
        identity: &Identity,
        generation: Option<Position>,
        deadline: Instant,
    ) -> Result<Claimed, Error> {
        self.retrying(deadline, |slot, call| {
            let identity = identity.clone();
            async move {
                let claim = slot.claim_session(call, identity, generation).await?;
                Ok(Claimed {
                    epoch: call.epoch,
                    claim,
                })
            }
        })
        .await
    }

    /// Ends a session whose registration went away between the claim and its being noted: the view may
    /// have followed past that already, and will not say it again.
    async fn end_if_gone(&self, entry: &Entry, claimed: Claimed, deadline: Instant) -> Result<(), Error> {
        let (head, current) = if self.shared.directory.is_bare() {
            let read = self.get(entry.identity.clone(), deadline).await?;
            (read.head, read.record.map(|record| record.generation))
        } else {
            self.shared.directory.read(|view| {
                let row = view.get(entry.identity.as_str());
                (view.head(), row.map(|row| row.generation))
            })
        };
        if claimed.is_gone(head, current) {
            self.shared.sessions.end(
                entry,
                match current {
                    Some(_) => Closed::Replaced,
                    None => Closed::Unregistered,
                },
            );
        }
        Ok(())
    }

    /// Tells the identity's other sessions, wherever they are, that a newer one took over.
    async fn announce(&self, identity: &Identity, claim: Claim, deadline: Instant) {
        let notice = Message {
            kind: Kind::Superseded {
                session_seq: claim.session_seq,
            },
            ..Message::new(MulticastId::random(), "")
        };
        let messaging = self.messaging();
        let outcomes = messaging
            .publish_batch(std::slice::from_ref(identity), Arc::new(notice), deadline)
            .await;
        if !matches!(outcomes.as_slice(), [Outcome::Accepted]) {
            // The session itself works. An older one elsewhere may stay for a while and hear the same.
            let namespace = self.shared.sessions.namespace();
            tracing::warn!(namespace, %identity, ?outcomes, "could not tell older sessions that a newer one took over");
        }
    }
}
