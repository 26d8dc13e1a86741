//! The rows of an inbox: its mailbox, the messages that wait, and what is known of those that were stored.
//!
//! All rows of one inbox lie side by side, in the order of their `part`: the mailbox, the messages in the order in which
//! they are handed out, and the multicasts.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use prism_slot::{Consumer, Epoch, Holder, MulticastId, Priority, Timestamp};

use super::desk::later;
use crate::codec::{Malformed, Read, Reader, begin, put_optional};

/// The part of the mailbox.
pub(super) const MAILBOX: &[u8] = &[0];
/// The parts of messages that wait are from here, and before [`KNOWN`].
pub(super) const WAITING: &[u8] = &[1];
/// The parts of multicasts are from here.
pub(super) const KNOWN: &[u8] = &[2];

/// Where a message stands in its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    rank: u8,
    /// Of the sending that brought it.
    pub(super) sending: i64,
}

impl Place {
    pub(super) fn new(priority: Priority, sending: i64) -> Self {
        let rank = match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        };
        Self { rank, sending }
    }

    /// The first place of those of the same rank.
    pub(super) fn first_of_rank(self) -> Self {
        Self { sending: 0, ..self }
    }

    pub(super) fn part(self) -> [u8; 10] {
        let mut part = [WAITING[0]; 10];
        part[1] = self.rank;
        part[2..].copy_from_slice(&self.sending.to_be_bytes());
        part
    }

    pub(super) fn read(part: &[u8]) -> Read<Self> {
        let Some((&[kind, rank], number)) = part.split_first_chunk::<2>() else {
            return Err(Malformed::new("its place is too short"));
        };
        match <[u8; 8]>::try_from(number) {
            Ok(number) if kind == WAITING[0] => Ok(Self {
                rank,
                sending: i64::from_be_bytes(number),
            }),
            _ => Err(Malformed::new("its place is none")),
        }
    }
}

/// The part of a multicast.
pub(super) fn known_part(multicast: MulticastId) -> [u8; 17] {
    let mut part = [KNOWN[0]; 17];
    part[1..].copy_from_slice(&multicast.0.to_be_bytes());
    part
}

/// Who works on an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) holder: Holder,
    epoch: Epoch,
    seq: u64,
}

impl Session {
    pub(super) fn of(consumer: &Consumer) -> Self {
        Self {
            holder: consumer.address.holder,
            epoch: consumer.epoch,
            seq: consumer.session_seq,
        }
    }

    /// Whether this one stays where `other` would take over.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.seq > other.seq
    }
}

/// An inbox as a whole. There is none where nothing waits and no session has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// How many messages wait.
    pub(super) messages: u64,
    /// None of them expires before.
    pub(super) earliest: Timestamp,
    pub(super) session: Option<Session>,
    /// When that was heard of, about; versions before this one did not write it down.
    pub(super) heard_at: Option<Timestamp>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            messages: 0,
            earliest: Timestamp(i64::MAX),
            session: None,
            heard_at: None,
        }
    }
}

impl Mailbox {
    /// Its session has been heard of. That is written down only where it matters.
    pub(super) fn hear(&mut self, idle: Duration, now: Timestamp) {
        if self.heard_at.is_none_or(|at| later(at, unwritten(idle)) <= now) {
            self.heard_at = Some(now);
        }
    }

    /// Whether its session has not been heard of for `idle`, what is not written down of it considered.
    pub(super) fn is_idle(&self, idle: Duration, now: Timestamp) -> bool {
        let longest = idle.saturating_add(unwritten(idle));
        self.heard_at.is_some_and(|at| later(at, longest) <= now)
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_blank(&self) -> bool {
        self.messages == 0 && self.session.is_none()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = begin(64);
        bytes.put_u64(self.messages);
        bytes.put_i64(self.earliest.0);
        put_optional(&mut bytes, self.session, |bytes, session| {
            bytes.put_slice(&session.holder.0);
            bytes.put_u64(session.epoch.0);
            bytes.put_u64(session.seq);
        });
        put_optional(&mut bytes, self.heard_at, |bytes, at| bytes.put_i64(at.0));
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::begin(Bytes::copy_from_slice(bytes))?;
        let session = |reader: &mut Reader| {
            Ok(Session {
                holder: Holder(reader.array()?),
                epoch: Epoch(reader.long()?),
                seq: reader.long()?,
            })
        };
        Ok(Self {
            messages: reader.long()?,
            earliest: Timestamp(reader.signed()?),
            session: reader.optional(session)?,
            heard_at: match reader.0.is_empty() {
                true => None,
                false => reader.optional(|reader| Ok(Timestamp(reader.signed()?)))?,
            },
        })
    }
}

/// For how long it is not written down that a session was heard of.
fn unwritten(idle: Duration) -> Duration {
    idle / 2
}

/// A message that waits, beside what it has in common with the others of its sending. Of one size, so that handing it
/// out overwrites it in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) holder: Holder,
    pub(super) attempt: u32,
    /// When it may be handed out.
    pub(super) due_at: Timestamp,
    /// Whether a consumer has it.
    pub(super) is_out: bool,
}

impl Waiting {
    /// Due whatever the clock says, which may have been set back since it was said.
    pub(super) const AT_ONCE: Timestamp = Timestamp(i64::MIN);

    /// As it is stored first.
    pub(super) fn new(holder: Holder) -> Self {
        Self {
            holder,
            attempt: 0,
            due_at: Self::AT_ONCE,
            is_out: false,
        }
    }

    /// Whether it may be handed out. What never was may be; versions before this one wrote down when it had come.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due_at <= now || self.attempt == 0 && !self.is_out
    }

    /// Has it wait until then.
    pub(super) fn put_back(&mut self, until: Timestamp) {
        (self.is_out, self.due_at) = (false, until);
    }

    /// Whether a consumer has it and still has time.
    pub(super) fn is_with_consumer(&self, now: Timestamp) -> bool {
        self.is_out && self.due_at > now
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = begin(29);
        bytes.put_slice(&self.holder.0);
        bytes.put_u32(self.attempt);
        bytes.put_i64(self.due_at.0);
        bytes.put_u8(u8::from(self.is_out));
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::begin(Bytes::copy_from_slice(bytes))?;
        Ok(Self {
            holder: Holder(reader.array()?),
            attempt: reader.word()?,
            due_at: Timestamp(reader.signed()?),
            is_out: reader.flag()?,
        })
    }
}

/// What is known of a multicast in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It waits.
    Waiting(Place),
    /// It left.
    Left {
        /// What had brought it.
        sending: i64,
        /// Until when that is remembered.
        until: Timestamp,
    },
}

impl Known {
    pub(super) fn sending(&self) -> i64 {
        match self {
            Self::Waiting(place) => place.sending,
            Self::Left { sending, .. } => *sending,
        }
    }

    /// Whether storing it again is noticed.
    pub(super) fn counts(&self, now: Timestamp) -> bool {
        match self {
            Self::Waiting(_) => true,
            Self::Left { until, .. } => *until > now,
        }
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = begin(18);
        let (left, rank, until) = match self {
            Self::Waiting(place) => (false, place.rank, 0),
            Self::Left { until, .. } => (true, 0, until.0),
        };
        bytes.put_u8(u8::from(left));
        bytes.put_u8(rank);
        bytes.put_i64(self.sending());
        bytes.put_i64(until);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::begin(Bytes::copy_from_slice(bytes))?;
        let (left, rank) = (reader.flag()?, reader.byte()?);
        let (sending, until) = (reader.signed()?, Timestamp(reader.signed()?));
        Ok(if left {
            Self::Left { sending, until }
        } else {
            Self::Waiting(Place { rank, sending })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_the_order_in_which_messages_are_handed_out() {
        let places = [
            Place::new(Priority::High, 1),
            Place::new(Priority::High, 300),
            Place::new(Priority::Normal, 2),
            Place::new(Priority::Low, 1),
            Place::new(Priority::Low, i64::MAX),
        ];
        let parts = places.map(Place::part);
        assert!(parts.is_sorted());
        assert!(MAILBOX < WAITING && WAITING < &parts[0][..]);
        assert!(&parts[4][..] < KNOWN && KNOWN < &known_part(MulticastId(0))[..]);
        for place in places {
            assert_eq!(Place::read(&place.part()), Ok(place));
        }
    }

    #[test]
    fn rows_are_read_as_written() {
        let session = Session {
            holder: Holder([9; 16]),
            epoch: Epoch(u64::MAX),
            seq: 3,
        };
        for (session, heard_at) in [(None, None), (Some(session), Some(Timestamp(9)))] {
            let mut mailbox = Mailbox {
                messages: 7,
                earliest: Timestamp(-3),
                session,
                heard_at,
            };
            assert_eq!(Mailbox::read(&mailbox.write()), Ok(mailbox));
            let before = mailbox.write();
            mailbox.heard_at = None;
            let end = before.len() - 1 - heard_at.map_or(0, |_| 8);
            assert_eq!(
                Mailbox::read(&before[..end]),
                Ok(mailbox),
                "as it was written before"
            );
        }
        let mut waiting = Waiting::new(Holder([1; 16]));
        (waiting.attempt, waiting.is_out) = (u32::MAX, true);
        assert_eq!(Waiting::read(&waiting.write()), Ok(waiting));
        let left = Known::Left {
            sending: 5,
            until: Timestamp(8),
        };
        for known in [Known::Waiting(Place::new(Priority::Low, 4)), left] {
            assert_eq!(Known::read(&known.write()), Ok(known));
        }
    }
}
