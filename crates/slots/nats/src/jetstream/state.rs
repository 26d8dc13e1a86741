//! What is known of one inbox besides its messages: who works on it, how far it was read, and what is out.
//!
//! It is one small record, written only if it is still the one that was read. So every change is one step, whoever else
//! is at it: what the record says is what holds. Messages are removed, or buried, after the record says that they are to
//! be, and whoever finds such an intent does it once more; doing it twice does no harm.

mod record;

use std::{collections::BTreeMap, time::Duration};

use prism_slot::{Consumer, DeadReason, Epoch, Holder, MulticastId, Settled, Timestamp, Verdict};

/// How many messages of one inbox may be out or delayed, whatever a server takes; more are not handed out until some
/// are settled.
const MOST_ENTRIES: usize = 10_000;
/// What an entry takes, at most, besides what a consumer said; and as much again for that.
const ENTRY: usize = 40;
/// How much is kept of what a consumer says of a message.
const MAX_REASON: usize = 512;
/// When something ends of which nobody said when.
pub(crate) const NEVER: Timestamp = Timestamp(i64::MAX);

/// How much a record may hold, so that a server takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    max_payload: usize,
}

impl Room {
    pub(crate) fn new(max_payload: usize) -> Self {
        Self { max_payload }
    }

    /// How many entries.
    pub(crate) fn entries(self) -> usize {
        (self.max_payload / 2 / ENTRY).clamp(1, MOST_ENTRIES)
    }

    /// How many there may be where a message is cancelled: what is not read yet keeps its entry, and those must not take
    /// the room of what is read before them.
    pub(crate) fn to_cancel(self) -> usize {
        self.entries().div_ceil(2)
    }

    /// How long what is said of each of so many messages may be.
    fn reason(self, count: usize) -> usize {
        (self.max_payload / 2 / count.max(1)).min(MAX_REASON)
    }
}

/// The record of one inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// When the stream was made that the sequences are of.
    pub(crate) generation: u64,
    pub(crate) session: Option<Session>,
    /// Of each priority, the last sequence that was handed out. Whatever comes before it and has no entry is gone.
    pub(crate) seen: [u64; 3],
    /// By sequence.
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// When the record ends by itself; what it speaks of ends before. Stored as how long the server keeps the record.
    pub(crate) until: Timestamp,
}

/// Who works on an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) holder: Holder,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
}

/// A message that was handed out, or is about to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) rank: usize,
    pub(crate) multicast: MulticastId,
    pub(crate) attempt: u32,
    pub(crate) status: Status,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// With the consumer until then.
    Out(Timestamp),
    /// Not to be handed out before.
    Waiting(Timestamp),
    /// To be removed.
    Done,
    /// To be buried and removed.
    Dying(DeadReason),
}

impl Session {
    pub(crate) fn of(consumer: &Consumer) -> Self {
        Self {
            holder: consumer.address.holder,
            epoch: consumer.epoch,
            seq: consumer.session_seq,
        }
    }
}

impl Entry {
    /// When it may be handed out, if ever.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        match self.status {
            Status::Out(until) | Status::Waiting(until) => Some(until),
            Status::Done | Status::Dying(_) => None,
        }
    }

    fn is_out(&self, now: Timestamp) -> bool {
        matches!(self.status, Status::Out(until) if until > now)
    }
}

impl State {
    /// The record of an inbox that nobody has touched.
    pub(crate) fn blank(generation: u64) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    /// Whether nothing would be lost with it.
    pub(crate) fn is_blank(&self) -> bool {
        self.session.is_none() && self.entries.is_empty()
    }

    /// Notes that the record speaks of a message that ends then.
    pub(crate) fn outlives(&mut self, message: Timestamp) {
        self.until = self.until.max(message);
    }

    /// When the record is to end that is written now: when nobody was heard of for long, and all that it speaks of is over.
    /// Twice as long, so that it need not be written whenever somebody is heard of.
    pub(crate) fn ends(&self, idle: Duration, now: Timestamp) -> Timestamp {
        let quiet = later(now, idle.saturating_mul(2));
        if self.entries.is_empty() {
            return quiet;
        }
        quiet.max(self.until)
    }

    /// Whether the record has to be written again for a session that was heard of now.
    pub(crate) fn is_ending(&self, idle: Duration, now: Timestamp) -> bool {
        self.until < later(now, idle) || self.until == NEVER && self.entries.is_empty()
    }

    pub(crate) fn is_consumer(&self, consumer: &Consumer) -> bool {
        self.session == Some(Session::of(consumer))
    }

    /// Makes a session the consumer, and what was out due at once. False where a later one of the same epoch is.
    #[must_use]
    pub(crate) fn open(&mut self, consumer: &Consumer, now: Timestamp) -> bool {
        let session = Session::of(consumer);
        let is_later = |current: Session| current.epoch == session.epoch && current.seq > session.seq;
        if self.session.is_some_and(is_later) {
            return false;
        }
        self.session = Some(session);
        for entry in self.entries.values_mut() {
            if let Status::Out(_) = entry.status {
                entry.status = Status::Waiting(now);
            }
        }
        true
    }

    /// What a consumer says of messages, one after the other; whether anything changes.
    pub(crate) fn settle(
        &mut self,
        verdicts: &[(MulticastId, Verdict)],
        room: Room,
        now: Timestamp,
    ) -> (Vec<Settled>, bool) {
        let most = room.reason(verdicts.len());
        let mut places: std::collections::HashMap<MulticastId, Vec<u64>> = std::collections::HashMap::new();
        for (sequence, entry) in &self.entries {
            places.entry(entry.multicast).or_default().push(*sequence);
        }
        let mut changed = false;
        let settled = verdicts.iter().map(|(multicast, verdict)| {
            let found = places.get(multicast).into_iter().flatten();
            let mut settled = Settled::Gone;
            for sequence in found {
                let entry = self
                    .entries
                    .get_mut(sequence)
                    .filter(|entry| entry.due().is_some() && entry.attempt > 0);
                if let Some(entry) = entry {
                    entry.status = after(verdict, most, now);
                    entry.attempt -= u32::from(*verdict == Verdict::Release);
                    (settled, changed) = (Settled::Done, true);
                }
            }
            settled
        });
        (settled.collect(), changed)
    }

    /// Where a message with an entry is, whatever is to become of it.
    pub(crate) fn find(&self, multicast: MulticastId) -> Option<u64> {
        let mut entries = self.entries.iter();
        entries
            .find(|(_, entry)| entry.multicast == multicast && entry.due().is_some())
            .map(|(sequence, _)| *sequence)
    }

    /// Has a message go that is not out with the consumer. False where it is, or is going already.
    #[must_use]
    pub(crate) fn cancel(
        &mut self,
        sequence: u64,
        rank: usize,
        multicast: MulticastId,
        now: Timestamp,
    ) -> bool {
        match self.entries.get_mut(&sequence) {
            Some(entry) if entry.is_out(now) || entry.due().is_none() => false,
            Some(entry) => {
                entry.status = Status::Done;
                true
            }
            // It was settled before.
            None if sequence <= self.seen[rank] => false,
            None => {
                let entry = Entry {
                    rank,
                    multicast,
                    attempt: 0,
                    status: Status::Done,
                };
                self.entries.insert(sequence, entry);
                true
            }
        }
    }

    /// What is to be removed or buried.
    pub(crate) fn intents(&self) -> Vec<(u64, Entry)> {
        let intended = self.entries.iter().filter(|(_, entry)| entry.due().is_none());
        intended
            .map(|(sequence, entry)| (*sequence, entry.clone()))
            .collect()
    }

    /// Forgets intents that were carried out. What a session is still to read keeps its entry until it was passed: a
    /// replica that lags may have it for a moment longer.
    pub(crate) fn drop_intents(&mut self) {
        let (seen, is_read) = (self.seen, self.session.is_some());
        self.entries
            .retain(|sequence, entry| entry.due().is_some() || is_read && *sequence > seen[entry.rank]);
    }

    /// Notes that everything of a priority has been read, which has to be so.
    pub(crate) fn pass_cancelled(&mut self, rank: usize) {
        let mut of_rank = self.entries.iter().filter(|(_, entry)| entry.rank == rank);
        if let Some((last, _)) = of_rank.next_back() {
            self.seen[rank] = self.seen[rank].max(*last);
        }
    }

    /// Forgets what is of a stream that has been made anew since. Who works on the inbox stays.
    pub(crate) fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self {
                session: self.session,
                ..Self::blank(generation)
            };
        }
    }

    /// In how long the next message is due.
    pub(crate) fn next_due(&self, now: Timestamp) -> Option<Duration> {
        let due = self.entries.values().filter_map(Entry::due);
        due.map(|due| since(due, now)).min()
    }

    /// How many messages are with the consumer.
    pub(crate) fn out(&self, now: Timestamp) -> u64 {
        self.entries.values().filter(|entry| entry.is_out(now)).count() as u64
    }
}

/// What is to become of a message; of what is said of it no more is kept than `most` bytes.
fn after(verdict: &Verdict, most: usize, now: Timestamp) -> Status {
    match verdict {
        Verdict::Ack => Status::Done,
        Verdict::Nack { delay } => Status::Waiting(later(now, *delay)),
        Verdict::Release => Status::Waiting(now),
        Verdict::Term { reason } => {
            let end = reason.floor_char_boundary(most);
            Status::Dying(DeadReason::Terminated(reason[..end].to_owned()))
        }
    }
}

/// A point in time some way ahead of another one.
pub(crate) fn later(than: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp(than.0.saturating_add(by))
}

pub(crate) fn since(later: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(later.0.saturating_sub(now.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
