//! One call at work on the inboxes of a namespace, and the rows that it works on.

use std::{collections::HashMap, time::Duration};

use prism_slot::{DeadReason, Identity, InboxLimits, MulticastId, Ticket, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{
    parts::{KNOWN, Known, MAILBOX, Mailbox, Place, WAITING, Waiting, known_part},
    sendings::Sending,
};
use crate::{
    codec::{Malformed, Read},
    error::Fault,
    step::{Step, count},
};

/// How much there is in the inboxes of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) messages: i64,
    pub(crate) dead: i64,
}

/// A step on the inboxes of one namespace, at one moment.
pub(super) struct Desk<'s, 'a> {
    pub(super) step: &'s mut Step<'a>,
    pub(super) ns: i64,
    pub(super) now: Timestamp,
    pub(super) limits: InboxLimits,
    /// Those that were asked for; written at the end where they changed.
    pub(super) sendings: HashMap<i64, Sending>,
}

/// What is to be remembered of a message that leaves its inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leave {
    /// That it was there.
    Settled,
    /// The same, and it goes to the dead letters.
    Dead(DeadReason),
    /// Nothing.
    Dropped,
}

impl<'s, 'a> Desk<'s, 'a> {
    pub(super) fn new(step: &'s mut Step<'a>, ns: i64, now: Timestamp, limits: InboxLimits) -> Self {
        Self {
            step,
            ns,
            now,
            limits,
            sendings: HashMap::new(),
        }
    }

    /// The row of an inbox.
    fn row(&self, identity: &Identity, part: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let find = "SELECT body FROM inboxes WHERE ns = ?1 AND identity = ?2 AND part = ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        Ok(find
            .query_row((self.ns, identity.as_str(), part), |row| row.get(0))
            .optional()?)
    }

    fn write_row(&self, identity: &Identity, part: &[u8], body: Vec<u8>) -> Result<(), Fault> {
        let write = "INSERT INTO inboxes (ns, identity, part, body) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (ns, identity, part) DO UPDATE SET body = excluded.body";
        let mut write = self.step.conn.prepare_cached(write)?;
        write.execute((self.ns, identity.as_str(), part, body))?;
        Ok(())
    }

    fn remove_row(&self, identity: &Identity, part: &[u8]) -> Result<(), Fault> {
        let remove = "DELETE FROM inboxes WHERE ns = ?1 AND identity = ?2 AND part = ?3";
        let mut remove = self.step.conn.prepare_cached(remove)?;
        remove.execute((self.ns, identity.as_str(), part))?;
        Ok(())
    }

    pub(super) fn mailbox(&self, identity: &Identity) -> Result<Option<Mailbox>, Fault> {
        let found = self.row(identity, MAILBOX)?;
        found.map(|body| read(identity, Mailbox::read(&body))).transpose()
    }

    /// Gives a mailbox up that holds nothing.
    pub(super) fn write_mailbox(&self, identity: &Identity, mailbox: &Mailbox) -> Result<(), Fault> {
        if mailbox.is_blank() {
            self.remove_row(identity, MAILBOX)
        } else {
            self.write_row(identity, MAILBOX, mailbox.write())
        }
    }

    pub(super) fn known(&self, identity: &Identity, multicast: MulticastId) -> Result<Option<Known>, Fault> {
        let found = self.row(identity, &known_part(multicast))?;
        found.map(|body| read(identity, Known::read(&body))).transpose()
    }

    pub(super) fn write_known(
        &self,
        identity: &Identity,
        multicast: MulticastId,
        known: Known,
    ) -> Result<(), Fault> {
        self.write_row(identity, &known_part(multicast), known.write())
    }

    pub(super) fn forget_known(&self, identity: &Identity, multicast: MulticastId) -> Result<(), Fault> {
        self.remove_row(identity, &known_part(multicast))
    }

    pub(super) fn waiting(&self, identity: &Identity, place: Place) -> Result<Waiting, Fault> {
        let found = self.row(identity, &place.part())?;
        let missing = || Fault::Damaged(format!("a message in the inbox of `{identity}` is missing"));
        read(identity, Waiting::read(&found.ok_or_else(missing)?))
    }

    pub(super) fn write_waiting(
        &self,
        identity: &Identity,
        place: Place,
        waiting: &Waiting,
    ) -> Result<(), Fault> {
        self.write_row(identity, &place.part(), waiting.write())
    }

    /// The message of a multicast that waits, if it does.
    pub(super) fn find_waiting(
        &self,
        identity: &Identity,
        multicast: MulticastId,
    ) -> Result<Option<(Place, Waiting)>, Fault> {
        match self.known(identity, multicast)? {
            Some(Known::Waiting(place)) => Ok(Some((place, self.waiting(identity, place)?))),
            _ => Ok(None),
        }
    }

    /// All messages that wait, in the order in which they are handed out.
    pub(super) fn all_waiting(&self, identity: &Identity) -> Result<Vec<(Place, Waiting)>, Fault> {
        let mut all = Vec::new();
        self.each_waiting(identity, |place, waiting| {
            all.push((place, waiting));
            Ok(true)
        })?;
        Ok(all)
    }

    /// Goes through the messages that wait for as long as `visit` wants to.
    pub(super) fn each_waiting(
        &self,
        identity: &Identity,
        mut visit: impl FnMut(Place, Waiting) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let find = "SELECT part, body FROM inboxes
            WHERE ns = ?1 AND identity = ?2 AND part >= ?3 AND part < ?4 ORDER BY part";
        let mut find = self.step.conn.prepare_cached(find)?;
        let mut rows = find.query((self.ns, identity.as_str(), WAITING, KNOWN))?;
        while let Some(row) = rows.next()? {
            let place = read(identity, Place::read(blob(row, 0)?))?;
            let waiting = read(identity, Waiting::read(blob(row, 1)?))?;
            if !visit(place, waiting)? {
                break;
            }
        }
        Ok(())
    }

    /// The same for at most `limit` of them, those after a place.
    pub(super) fn each_waiting_after(
        &self,
        identity: &Identity,
        after: Option<Place>,
        limit: usize,
        mut visit: impl FnMut(Place, Waiting),
    ) -> Result<(), Fault> {
        let find = "SELECT part, body FROM inboxes
            WHERE ns = ?1 AND identity = ?2 AND part > ?3 AND part < ?4 ORDER BY part LIMIT ?5";
        let mut find = self.step.conn.prepare_cached(find)?;
        let after = after.map_or_else(|| WAITING.to_vec(), |place| place.part().to_vec());
        let mut rows = find.query((self.ns, identity.as_str(), after, KNOWN, count(limit)))?;
        while let Some(row) = rows.next()? {
            let place = read(identity, Place::read(blob(row, 0)?))?;
            visit(place, read(identity, Waiting::read(blob(row, 1)?))?);
        }
        Ok(())
    }

    /// The message that has been there longest, of those that come last.
    pub(super) fn oldest(&self, identity: &Identity) -> Result<Option<Place>, Fault> {
        let last = "SELECT part FROM inboxes
            WHERE ns = ?1 AND identity = ?2 AND part >= ?3 AND part < ?4 ORDER BY part DESC LIMIT 1";
        let first = "SELECT part FROM inboxes
            WHERE ns = ?1 AND identity = ?2 AND part >= ?3 AND part < ?4 ORDER BY part LIMIT 1";
        let find = |sql, from: &[u8]| {
            let mut find = self.step.conn.prepare_cached(sql)?;
            let part: Option<Vec<u8>> = find
                .query_row((self.ns, identity.as_str(), from, KNOWN), |row| row.get(0))
                .optional()?;
            part.map(|part| read(identity, Place::read(&part))).transpose()
        };
        let Some(last) = find(last, WAITING)? else {
            return Ok(None);
        };
        find(first, &last.first_of_rank().part())
    }

    /// Takes a message out of its inbox for good. The mailbox is for the caller to write.
    pub(super) fn take(
        &mut self,
        identity: &Identity,
        mailbox: &mut Mailbox,
        (place, waiting): (Place, Waiting),
        leave: Leave,
    ) -> Result<(), Fault> {
        self.remove_row(identity, &place.part())?;
        let now = self.now;
        let sending = self.change_sending(place.sending)?;
        sending.waiting -= 1;
        let (multicast, until, message) = (sending.multicast, sending.known_until, sending.message);
        if leave != Leave::Dropped && until > now {
            let sending = place.sending;
            self.write_known(identity, multicast, Known::Left { sending, until })?;
        } else {
            self.forget_known(identity, multicast)?;
        }
        mailbox.messages = mailbox.messages.saturating_sub(1);
        self.step.change_totals(self.ns)?.messages -= 1;
        if let Leave::Dead(reason) = leave {
            self.bury(identity, message, waiting.attempt, &reason)?;
        }
        Ok(())
    }

    /// Names the message at a place for whoever sent it.
    pub(super) fn ticket(&mut self, place: Place) -> Result<Ticket, Fault> {
        let sending = self.sending(place.sending)?;
        Ok(Ticket {
            multicast: sending.multicast,
            receipts: sending.receipts.clone(),
        })
    }

    /// Writes what was changed beside the inboxes themselves.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.write_sendings()
    }
}

pub(super) fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], Fault> {
    Ok(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?)
}

fn read<T>(identity: &Identity, read: Read<T>) -> Result<T, Fault> {
    read.map_err(|bad: Malformed| bad.fault(format_args!("the inbox of `{identity}`")))
}

/// A point in time some way ahead of another one.
pub(super) fn later(than: Timestamp, by: Duration) -> Timestamp {
    let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp(than.0.saturating_add(by))
}

/// How long it is until then.
pub(super) fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(then.0.saturating_sub(now.0)).unwrap_or(0))
}
