//! One inbox in memory, as pure data.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    Consumer, DeadReason, Delivery, Epoch, Fetch, Fetched, Holder, Message, MulticastId, Priority, Ticket,
    Timestamp,
};

/// The order in which messages are handed out.
type Place = (Reverse<Priority>, u64);

/// The messages of one identity, and who works on them.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// With when it was heard of last.
    consumer: Option<(Session, Timestamp)>,
    /// Under which number it is looked at whether it is still there, and when.
    pub(super) looked_at: Option<(Timestamp, u64)>,
    waiting: BTreeMap<Place, Entry>,
    places: HashMap<MulticastId, Place>,
    /// What left, and until when that is remembered.
    left: HashMap<MulticastId, Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    holder: Holder,
    epoch: Epoch,
    seq: u64,
}

/// A message in a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Of all messages of the slot.
    pub(super) number: u64,
    pub(super) message: Arc<Message>,
    pub(super) holder: Holder,
    pub(super) stored_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Until when it is remembered once it left.
    pub(super) known_until: Timestamp,
    pub(super) attempt: u32,
    /// When it may be handed out.
    pub(super) due_at: Timestamp,
    /// Whether a consumer has it.
    pub(super) is_out: bool,
}

impl Entry {
    /// Has it wait until then.
    pub(super) fn put_back(&mut self, until: Timestamp) {
        (self.is_out, self.due_at) = (false, until);
    }
}

/// What went out for good, and why if it died.
pub(super) type Gone = Vec<(Entry, Option<DeadReason>)>;

impl Mailbox {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_blank(&self) -> bool {
        self.waiting.is_empty() && self.left.is_empty() && self.consumer.is_none()
    }

    /// Whether a message is here, or was until not long ago.
    pub(super) fn knows(&self, multicast: MulticastId, now: Timestamp) -> bool {
        let left = || self.left.get(&multicast).is_some_and(|until| *until > now);
        self.places.contains_key(&multicast) || left()
    }

    pub(super) fn put(&mut self, priority: Priority, entry: Entry) {
        let (multicast, place) = (entry.message.multicast, (Reverse(priority), entry.number));
        self.left.remove(&multicast);
        self.places.insert(multicast, place);
        self.waiting.insert(place, entry);
    }

    pub(super) fn take(&mut self, multicast: MulticastId) -> Option<Entry> {
        let place = self.places.remove(&multicast)?;
        self.waiting.remove(&place)
    }

    pub(super) fn remember(&mut self, multicast: MulticastId, until: Timestamp) {
        self.left.insert(multicast, until);
    }

    /// Forgets what left, if it is to be forgotten by now.
    pub(super) fn forget(&mut self, multicast: MulticastId, now: Timestamp) {
        if self.left.get(&multicast).is_some_and(|until| *until <= now) {
            self.left.remove(&multicast);
        }
    }

    pub(super) fn get_mut(&mut self, multicast: MulticastId) -> Option<&mut Entry> {
        self.waiting.get_mut(self.places.get(&multicast)?)
    }

    /// The message that has been here longest, of those that come last.
    pub(super) fn oldest(&self) -> Option<Ticket> {
        let lowest = self.waiting.keys().next_back()?.0;
        let (_, entry) = self.waiting.range((lowest, 0)..).next()?;
        Some(Ticket::from(&*entry.message))
    }

    /// Whether a session is the consumer, which is heard of with that.
    pub(super) fn hear(&mut self, consumer: &Consumer, now: Timestamp) -> bool {
        let current = self.consumer.as_mut();
        let current = current.filter(|(session, _)| *session == Session::of(consumer));
        current.is_some_and(|(_, heard_at)| {
            *heard_at = now;
            true
        })
    }

    pub(super) fn has_consumer(&self) -> bool {
        self.consumer.is_some()
    }

    /// Forgets a session that nothing waits for and that has not been heard of for so long. When to look again, while
    /// there is one.
    pub(super) fn forget_consumer(&mut self, idle: Duration, now: Timestamp) -> Option<Timestamp> {
        let (_, heard_at) = self.consumer?;
        let since = if self.waiting.is_empty() { heard_at } else { now };
        let until = later(since, idle.max(Duration::from_millis(1)));
        if until <= now {
            self.consumer = None;
        }
        (until > now).then_some(until)
    }

    /// Makes a session the consumer; what was stored for another holder is returned. `Err` where a later session is.
    pub(super) fn open(&mut self, consumer: &Consumer, now: Timestamp) -> Result<Gone, ()> {
        let session = Session::of(consumer);
        let is_later = |current: Session| current.epoch == session.epoch && current.seq > session.seq;
        if self.consumer.is_some_and(|(current, _)| is_later(current)) {
            return Err(());
        }
        self.consumer = Some((session, now));
        for entry in self.waiting.values_mut().filter(|entry| entry.is_out) {
            entry.put_back(now);
        }
        let foreign = self
            .waiting
            .values()
            .filter(|entry| entry.holder != session.holder);
        let foreign: Vec<MulticastId> = foreign.map(|entry| entry.message.multicast).collect();
        let taken = foreign.into_iter().filter_map(|multicast| self.take(multicast));
        Ok(taken
            .map(|entry| (entry, Some(DeadReason::OtherHolder)))
            .collect())
    }

    /// Hands out what is due. Returns what was found to be beyond delivery beside it.
    pub(super) fn fetch(&mut self, fetch: Fetch, now: Timestamp) -> (Fetched, Gone) {
        let (mut fetched, mut bytes) = (Fetched::default(), 0_usize);
        let mut gone = Vec::new();
        for entry in self.waiting.values_mut() {
            let multicast = entry.message.multicast;
            if entry.expires_at <= now {
                fetched.expired.push(Ticket::from(&*entry.message));
                gone.push((multicast, None));
                continue;
            }
            if entry.due_at > now {
                let due = since(entry.due_at, now);
                fetched.next_due = Some(fetched.next_due.map_or(due, |next| next.min(due)));
                continue;
            }
            if entry.attempt >= fetch.max_deliver {
                fetched
                    .dead
                    .push((Ticket::from(&*entry.message), DeadReason::MaxDeliver));
                gone.push((multicast, Some(DeadReason::MaxDeliver)));
                continue;
            }
            let size = entry.message.payload.len();
            let full = fetched.deliveries.len() >= fetch.max_messages
                || !fetched.deliveries.is_empty() && bytes.saturating_add(size) > fetch.max_bytes;
            if full {
                fetched.more = true;
                break;
            }
            bytes = bytes.saturating_add(size);
            entry.attempt += 1;
            (entry.is_out, entry.due_at) = (true, later(now, fetch.ack_timeout));
            fetched.next_due = Some(
                fetched
                    .next_due
                    .map_or(fetch.ack_timeout, |next| next.min(fetch.ack_timeout)),
            );
            fetched.deliveries.push(Delivery {
                message: entry.message.clone(),
                attempt: entry.attempt,
                stored_at: entry.stored_at,
            });
        }
        let taken = gone
            .into_iter()
            .filter_map(|(multicast, why)| Some((self.take(multicast)?, why)));
        let taken = taken.collect();
        (fetched, taken)
    }

    /// Drops what was stored for a holder, and the session that it had.
    pub(super) fn discard(&mut self, holder: Holder) -> Vec<Entry> {
        if self.consumer.is_some_and(|(session, _)| session.holder == holder) {
            self.consumer = None;
        }
        let of_holder = self.waiting.values().filter(|entry| entry.holder == holder);
        let of_holder: Vec<MulticastId> = of_holder.map(|entry| entry.message.multicast).collect();
        let taken = of_holder.into_iter().filter_map(|multicast| self.take(multicast));
        taken.collect()
    }

    /// What has expired.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<Ticket> {
        let expired = self.waiting.values().filter(|entry| entry.expires_at <= now);
        expired.map(|entry| Ticket::from(&*entry.message)).collect()
    }

    /// How many messages are with a consumer.
    pub(super) fn out(&self, now: Timestamp) -> usize {
        let out = |entry: &&Entry| entry.is_out && entry.due_at > now;
        self.waiting.values().filter(out).count()
    }
}

impl Session {
    fn of(consumer: &Consumer) -> Self {
        Self {
            holder: consumer.address.holder,
            epoch: consumer.epoch,
            seq: consumer.session_seq,
        }
    }
}

/// A point in time some way ahead of another one.
pub(super) fn later(than: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp(than.0.saturating_add(by))
}

fn since(later: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(later.0.saturating_sub(now.0)).unwrap_or(0))
}
