//! The durability slot in memory: durable as long as the process, and the oracle of what the others do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    Clock, InboxConfig, WallClock,
    mailbox::{Entry, Gone, Mailbox, later},
};
use crate::{
    Address, Applied, Consumer, DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, Depth, Discarded,
    DurableInbox, Enqueued, Error, Fetch, Fetched, Identity, InboxCapability, InboxLimits, Message,
    MulticastId, Overflow, Redriven, Result, Scope, Settled, Swept, Terms, Ticket, Timestamp, Verdict,
    capability::{Room, Survives},
};

const BACKEND: &str = "memory";
const CLOSED: &str = "the slot is closed";
/// How many deadlines one round of tidying looks at.
const SWEEP: usize = 1_024;

/// A durability slot whose inboxes are in this value.
pub struct MemoryInbox {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: InboxConfig,
    limits: InboxLimits,
    closed: bool,
    /// Counts what is stored, and what dies.
    next: u64,
    bytes: u64,
    mailboxes: HashMap<Identity, Mailbox>,
    /// When messages expire, and when those that left are forgotten.
    deadlines: BTreeMap<(Timestamp, u64), (Identity, MulticastId)>,
    dead: BTreeMap<DeadId, DeadLetter>,
    /// When to look whether sessions are still there.
    sessions: BTreeMap<(Timestamp, u64), Identity>,
    /// What expired outside of a sweep, which is to tell of it.
    expired: Vec<(Identity, Ticket)>,
}

impl MemoryInbox {
    /// The capability of every memory durability slot.
    pub const CAPABILITY: InboxCapability = InboxCapability {
        backend: BACKEND,
        interfaces: &["QueueInterface"],
        scope: Scope::Process,
        survives: Survives::Nothing,
        max_payload: 64 << 20,
        room: Room::Inbox,
        tells_losses: true,
    };

    /// One with nothing in it.
    pub fn new(config: InboxConfig, limits: InboxLimits) -> Self {
        Self::with_clock(config, limits, WallClock)
    }

    /// One whose time is the clock's.
    pub fn with_clock(config: InboxConfig, limits: InboxLimits, clock: impl Clock) -> Self {
        let state = State {
            config,
            limits,
            closed: false,
            next: 0,
            bytes: 0,
            mailboxes: HashMap::new(),
            deadlines: BTreeMap::new(),
            dead: BTreeMap::new(),
            sessions: BTreeMap::new(),
            expired: Vec::new(),
        };
        Self {
            clock: Box::new(clock),
            state: Mutex::new(state),
        }
    }

    /// Applies other settings; what is there stays.
    pub fn retune(&self, config: &InboxConfig) {
        self.state.lock().config = config.clone();
    }

    fn open_state(&self) -> Result<(MutexGuard<'_, State>, Timestamp)> {
        let state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable {
                backend: BACKEND,
                message: CLOSED.to_owned(),
                applied: Applied::No,
            });
        }
        Ok((state, self.clock.now()))
    }
}

impl DurableInbox for MemoryInbox {
    fn capability(&self) -> &InboxCapability {
        &Self::CAPABILITY
    }

    async fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        _deadline: Instant,
    ) -> Vec<Enqueued> {
        let Ok((mut state, now)) = self.open_state() else {
            return vec![Enqueued::NotStored(CLOSED.to_owned()); addresses.len()];
        };
        let store = |address| state.enqueue(address, &message, terms, now);
        addresses.iter().map(store).collect()
    }

    async fn open(&self, consumer: &Consumer, _deadline: Instant) -> Result<()> {
        let (mut state, now) = self.open_state()?;
        let identity = &consumer.address.identity;
        let mailbox = state.mailboxes.entry(identity.clone()).or_default();
        let fenced = |()| Error::Fenced(identity.clone());
        let gone = mailbox.open(consumer, now).map_err(fenced)?;
        state.release(identity, gone, now);
        let look_at = later(now, state.limits.idle);
        state.watch(identity, look_at);
        Ok(())
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, _deadline: Instant) -> Result<Fetched> {
        let (mut state, now) = self.open_state()?;
        let (fetched, gone) = state.of_consumer(consumer, now)?.fetch(fetch, now);
        state.release(&consumer.address.identity, gone, now);
        Ok(fetched)
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        _deadline: Instant,
    ) -> Result<Vec<Settled>> {
        let (mut state, now) = self.open_state()?;
        state.of_consumer(consumer, now)?;
        let identity = &consumer.address.identity;
        let settle = |(multicast, verdict)| state.settle(identity, multicast, verdict, now);
        Ok(verdicts.into_iter().map(settle).collect())
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        _deadline: Instant,
    ) -> Vec<Result<bool>> {
        let (mut state, now) = match self.open_state() {
            Ok(open) => open,
            Err(error) => return vec![Err(error); identities.len()],
        };
        let cancel = |identity| {
            let mailbox = state.mailboxes.get_mut(identity);
            let is_out = |entry: &Entry| entry.is_out && entry.due_at > now;
            let waits = mailbox.and_then(|mailbox| Some(!is_out(mailbox.get_mut(multicast)?)));
            waits == Some(true) && state.remove(identity, multicast, None, now)
        };
        identities.iter().map(cancel).map(Ok).collect()
    }

    async fn discard(&self, address: &Address, _deadline: Instant) -> Result<Discarded> {
        let (mut state, _) = self.open_state()?;
        let Some(mailbox) = state.mailboxes.get_mut(&address.identity) else {
            return Ok(Discarded::default());
        };
        let dropped = mailbox.discard(address.holder);
        let looked_at = if mailbox.has_consumer() {
            None
        } else {
            mailbox.looked_at.take()
        };
        for entry in &dropped {
            state.deadlines.remove(&(entry.expires_at, entry.number));
            state.bytes -= size(entry);
        }
        if let Some(place) = looked_at {
            state.sessions.remove(&place);
        }
        state.tidy(&address.identity);
        Ok(Discarded {
            dropped: dropped
                .iter()
                .map(|entry| Ticket::from(&*entry.message))
                .collect(),
            more: false,
        })
    }

    async fn depth(&self, identity: Option<&Identity>, _deadline: Instant) -> Result<Depth> {
        let (state, now) = self.open_state()?;
        let one = identity.map(|identity| state.mailboxes.get(identity));
        let mailboxes: Vec<&Mailbox> = match one {
            Some(mailbox) => mailbox.into_iter().collect(),
            None => state.mailboxes.values().collect(),
        };
        let is_asked = |letter: &&DeadLetter| identity.is_none_or(|identity| letter.identity == *identity);
        Ok(Depth {
            messages: mailboxes.iter().map(|mailbox| mailbox.len() as u64).sum(),
            out: Some(mailboxes.iter().map(|mailbox| mailbox.out(now) as u64).sum()),
            dead: state.dead.values().filter(is_asked).count() as u64,
        })
    }

    async fn dead_letters(&self, query: DeadQuery, _deadline: Instant) -> Result<DeadPage> {
        let (state, _) = self.open_state()?;
        let after = query
            .after
            .map_or(DeadId(0), |DeadId(after)| DeadId(after.saturating_add(1)));
        let asked = |letter: &&DeadLetter| {
            let identity = query.identity.as_ref();
            identity.is_none_or(|identity| letter.identity == *identity)
        };
        let limit = query.limit.max(1);
        let mut letters = state.dead.range(after..).map(|(_, letter)| letter).filter(asked);
        Ok(DeadPage {
            letters: letters.by_ref().take(limit).cloned().collect(),
            more: letters.next().is_some(),
        })
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        _deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        let (mut state, now) = self.open_state()?;
        let redrive = |(id, address)| state.redrive(id, &address, terms, now);
        Ok(letters.into_iter().map(redrive).collect())
    }

    async fn configure(&self, limits: InboxLimits, _deadline: Instant) -> Result<()> {
        let (mut state, _) = self.open_state()?;
        state.limits = limits;
        Ok(())
    }

    async fn sweep(&self, _deadline: Instant) -> Result<Swept> {
        let (mut state, now) = self.open_state()?;
        Ok(state.sweep(now))
    }

    async fn probe(&self, _deadline: Instant) -> Result<()> {
        self.open_state().map(drop)
    }

    async fn close(&self) {
        self.state.lock().closed = true;
    }
}

impl State {
    fn of_consumer(&mut self, consumer: &Consumer, now: Timestamp) -> Result<&mut Mailbox> {
        let identity = &consumer.address.identity;
        let mailbox = self.mailboxes.get_mut(identity);
        mailbox
            .and_then(|mailbox| mailbox.hear(consumer, now).then_some(mailbox))
            .ok_or_else(|| Error::Fenced(identity.clone()))
    }

    /// Has a session looked at then, unless it is sooner.
    fn watch(&mut self, identity: &Identity, at: Timestamp) {
        let mailbox = self.mailboxes.get_mut(identity);
        if let Some(mailbox) = mailbox.filter(|mailbox| mailbox.looked_at.is_none()) {
            self.next += 1;
            mailbox.looked_at = Some((at, self.next));
            self.sessions.insert((at, self.next), identity.clone());
        }
    }

    /// Forgets some of the sessions that have gone; whether there may be more.
    fn forget_sessions(&mut self, now: Timestamp) -> bool {
        for _ in 0..SWEEP {
            let Some(due) = self.sessions.first_entry().filter(|due| due.key().0 <= now) else {
                return false;
            };
            let identity = due.remove();
            let Some(mailbox) = self.mailboxes.get_mut(&identity) else {
                continue;
            };
            mailbox.looked_at = None;
            match mailbox.forget_consumer(self.limits.idle, now) {
                Some(at) => self.watch(&identity, at),
                None => self.tidy(&identity),
            }
        }
        true
    }

    fn enqueue(&mut self, to: &Address, message: &Arc<Message>, terms: Terms, now: Timestamp) -> Enqueued {
        let mailbox = self.mailboxes.get(&to.identity);
        if mailbox.is_some_and(|mailbox| mailbox.knows(message.multicast, now)) {
            return Enqueued::Duplicate;
        }
        if self.bytes + message.payload.len() as u64 > self.config.max_bytes as u64 {
            return Enqueued::NotStored("the slot's `max_bytes` are taken".to_owned());
        }
        let displaced = match (self.is_full(&to.identity, now), self.limits.overflow) {
            (false, _) => None,
            (true, Overflow::Reject) => return Enqueued::Full,
            (true, Overflow::DropOldest) => self.mailboxes.get(&to.identity).and_then(Mailbox::oldest),
        };
        if let Some(oldest) = &displaced {
            self.remove(&to.identity, oldest.multicast, None, now);
        }
        self.put(to, message.clone(), terms, now);
        Enqueued::Stored { displaced }
    }

    /// Whether a mailbox takes no more, what has expired left aside.
    fn is_full(&mut self, identity: &Identity, now: Timestamp) -> bool {
        let most = self.limits.max_messages as usize;
        let Some(mailbox) = self
            .mailboxes
            .get(identity)
            .filter(|mailbox| mailbox.len() >= most)
        else {
            return false;
        };
        let expired = mailbox.expired(now);
        let kept = mailbox.len() - expired.len();
        for ticket in expired {
            self.remove(identity, ticket.multicast, None, now);
            self.expired.push((identity.clone(), ticket));
        }
        kept >= most
    }

    fn put(&mut self, to: &Address, message: Arc<Message>, terms: Terms, now: Timestamp) {
        self.next += 1;
        let entry = Entry {
            number: self.next,
            holder: to.holder,
            stored_at: now,
            expires_at: later(now, terms.ttl),
            known_until: later(now, self.limits.dedupe),
            attempt: 0,
            due_at: now,
            is_out: false,
            message,
        };
        self.bytes += size(&entry);
        let deadline = (to.identity.clone(), entry.message.multicast);
        self.deadlines.insert((entry.expires_at, entry.number), deadline);
        let mailbox = self.mailboxes.entry(to.identity.clone()).or_default();
        mailbox.put(terms.priority, entry);
    }

    /// Takes a message out for good; whether it was there.
    fn remove(
        &mut self,
        identity: &Identity,
        multicast: MulticastId,
        why: Option<DeadReason>,
        now: Timestamp,
    ) -> bool {
        let mailbox = self.mailboxes.get_mut(identity);
        let taken = mailbox.and_then(|mailbox| mailbox.take(multicast));
        let was_there = taken.is_some();
        self.release(
            identity,
            taken.into_iter().map(|entry| (entry, why.clone())).collect(),
            now,
        );
        was_there
    }

    /// What is to be done about messages that were taken out.
    fn release(&mut self, identity: &Identity, gone: Gone, now: Timestamp) {
        for (entry, why) in gone {
            let multicast = entry.message.multicast;
            self.bytes -= size(&entry);
            self.deadlines.remove(&(entry.expires_at, entry.number));
            let until = entry.known_until;
            if until > now {
                let deadline = (identity.clone(), multicast);
                self.deadlines.insert((until, entry.number), deadline);
                let mailbox = self.mailboxes.entry(identity.clone()).or_default();
                mailbox.remember(multicast, until);
            }
            if let Some(reason) = why {
                self.bury(identity, entry, reason, now);
            }
        }
        self.tidy(identity);
    }

    fn bury(&mut self, identity: &Identity, entry: Entry, reason: DeadReason, now: Timestamp) {
        self.next += 1;
        let id = DeadId(self.next);
        let letter = DeadLetter {
            id,
            identity: identity.clone(),
            reason,
            attempts: entry.attempt,
            died_at: now,
            message: entry.message,
        };
        self.dead.insert(id, letter);
        while self.dead.len() > self.limits.max_dead_letters {
            self.dead.pop_first();
        }
    }

    /// Gives a mailbox up that holds nothing.
    fn tidy(&mut self, identity: &Identity) {
        if self.mailboxes.get(identity).is_some_and(Mailbox::is_blank) {
            self.mailboxes.remove(identity);
        }
    }

    fn settle(
        &mut self,
        identity: &Identity,
        multicast: MulticastId,
        verdict: Verdict,
        now: Timestamp,
    ) -> Settled {
        let mailbox = self.mailboxes.get_mut(identity);
        let entry = mailbox.and_then(|mailbox| mailbox.get_mut(multicast));
        let Some(entry) = entry.filter(|entry| entry.attempt > 0) else {
            return Settled::Gone;
        };
        let why = match verdict {
            Verdict::Nack { delay } => {
                entry.put_back(later(now, delay));
                return Settled::Done;
            }
            Verdict::Release => {
                entry.attempt -= 1;
                entry.put_back(now);
                return Settled::Done;
            }
            Verdict::Ack => None,
            Verdict::Term { reason } => Some(DeadReason::Terminated(reason)),
        };
        self.remove(identity, multicast, why, now);
        Settled::Done
    }

    fn redrive(&mut self, id: DeadId, to: &Address, terms: Terms, now: Timestamp) -> Redriven {
        let letter = self.dead.get(&id).filter(|letter| letter.identity == to.identity);
        let Some(letter) = letter else {
            return Redriven::Gone;
        };
        let message = letter.message.clone();
        if self.is_full(&to.identity, now) {
            return Redriven::Full;
        }
        self.dead.remove(&id);
        self.put(to, message, terms, now);
        Redriven::Back
    }

    /// Does what was due by now, some of it.
    fn sweep(&mut self, now: Timestamp) -> Swept {
        let mut swept = Swept {
            expired: std::mem::take(&mut self.expired),
            more: self.forget_sessions(now),
        };
        for _ in 0..SWEEP {
            let Some(due) = self.deadlines.first_entry().filter(|due| due.key().0 <= now) else {
                return swept;
            };
            let (identity, multicast) = due.remove();
            let Some(mailbox) = self.mailboxes.get_mut(&identity) else {
                continue;
            };
            let entry = mailbox.get_mut(multicast).filter(|entry| entry.expires_at <= now);
            let expired = entry.map(|entry| Ticket::from(&*entry.message));
            if let Some(ticket) = expired {
                self.remove(&identity, multicast, None, now);
                swept.expired.push((identity, ticket));
            } else {
                mailbox.forget(multicast, now);
                self.tidy(&identity);
            }
        }
        swept.more = true;
        swept
    }
}

fn size(entry: &Entry) -> u64 {
    entry.message.payload.len() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::ManualClock, *};
    use crate::{Epoch, Holder, Priority};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn consumer(name: &str) -> Consumer {
        Consumer {
            address: Address {
                identity: Identity::new(name).unwrap(),
                holder: Holder([1; 16]),
            },
            epoch: Epoch(1),
            session_seq: 1,
        }
    }

    /// Identities that had a session once cost nothing when they are gone.
    #[tokio::test]
    async fn sessions_that_have_gone_leave_nothing() {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let limits = InboxLimits {
            idle: Duration::from_secs(10),
            ..InboxLimits::default()
        };
        let inbox = MemoryInbox::with_clock(InboxConfig::default(), limits, clock.clone());
        let count = || {
            let state = inbox.state.lock();
            (state.mailboxes.len(), state.sessions.len())
        };
        for name in ["gone", "waited-for", "there", "discarded"] {
            inbox.open(&consumer(name), soon()).await.unwrap();
        }
        let discarded = consumer("discarded").address;
        inbox.discard(&discarded, soon()).await.unwrap();
        assert_eq!(count(), (3, 3));
        let terms = Terms {
            priority: Priority::Normal,
            ttl: Duration::from_secs(60),
        };
        let message = Arc::new(Message::new(MulticastId(1), "x"));
        inbox
            .enqueue(&[consumer("waited-for").address], message, terms, soon())
            .await;
        let fetch = Fetch {
            max_messages: 1,
            max_bytes: 1,
            ack_timeout: Duration::from_secs(1),
            max_deliver: 1,
        };
        for _ in 0..3 {
            clock.advance(Duration::from_secs(4));
            inbox.fetch(&consumer("there"), fetch, soon()).await.unwrap();
            assert!(!inbox.sweep(soon()).await.unwrap().more);
        }
        assert_eq!(count(), (2, 2));
        // Until what waited has expired, and is forgotten.
        clock.advance(Duration::from_secs(170));
        inbox.sweep(soon()).await.unwrap();
        clock.advance(Duration::from_secs(10));
        inbox.sweep(soon()).await.unwrap();
        assert_eq!(count(), (0, 0));
    }
}
