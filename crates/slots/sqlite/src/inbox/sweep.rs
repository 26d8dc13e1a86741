//! Tidying: what has expired, and what need not be remembered any more.

use std::sync::Arc;

use prism_slot::{Identity, Swept, Ticket, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{
    desk::{Desk, Leave, blob},
    parts::Known,
    sendings::{read_identities, read_multicast, write_identities},
};
use crate::{error::Fault, step::count};

/// How many messages one round looks at, about.
const SWEEP: usize = 1_024;
/// At how many sessions.
const SESSIONS: usize = 64;

/// Some of those for whom a message was.
struct Targets {
    sending: i64,
    part: i64,
    identities: Vec<Identity>,
}

impl Desk<'_, '_> {
    /// Remembers that a message has expired until a sweep tells it.
    pub(super) fn lose(&mut self, identity: &Identity, ticket: &Ticket) -> Result<(), Fault> {
        let id = self.step.next()?;
        let write = "INSERT INTO losses (id, ns, identity, multicast, receipts) VALUES (?1, ?2, ?3, ?4, ?5)";
        let multicast = ticket.multicast.0.to_be_bytes();
        let row = (
            id,
            self.ns,
            identity.as_str(),
            multicast,
            ticket.receipts.as_deref(),
        );
        self.step.conn.prepare_cached(write)?.execute(row)?;
        Ok(())
    }

    /// Does what was due by now, some of it.
    pub(super) fn sweep(&mut self) -> Result<Swept, Fault> {
        let mut swept = Swept {
            expired: self.told_late()?,
            more: false,
        };
        let mut looked = swept.expired.len();
        while looked < SWEEP {
            let Some(targets) = self.due_targets()? else {
                return Ok(swept);
            };
            looked += targets.identities.len();
            self.sweep_targets(targets, &mut swept)?;
        }
        swept.more = true;
        Ok(swept)
    }

    /// Looks at some inboxes, after this one, and forgets sessions that have gone; where to go on.
    pub(super) fn forget_sessions(&mut self, after: Option<&Identity>) -> Result<Option<Identity>, Fault> {
        let mut last = after.cloned();
        for _ in 0..SESSIONS {
            let Some(identity) = self.inbox_after(last.as_ref())? else {
                return Ok(None);
            };
            self.forget_session(&identity)?;
            last = Some(identity);
        }
        Ok(last)
    }

    fn inbox_after(&self, identity: Option<&Identity>) -> Result<Option<Identity>, Fault> {
        let find = "SELECT identity FROM inboxes WHERE ns = ?1 AND identity > ?2 ORDER BY identity LIMIT 1";
        let mut find = self.step.conn.prepare_cached(find)?;
        let after = identity.map_or("", Identity::as_str);
        let found: Option<String> = find.query_row((self.ns, after), |row| row.get(0)).optional()?;
        let bad = |bad| Fault::Damaged(format!("an inbox is nobody's: {bad}"));
        found.map(|name| Identity::new(name).map_err(bad)).transpose()
    }

    fn forget_session(&mut self, identity: &Identity) -> Result<(), Fault> {
        let Some(before) = self.mailbox(identity)? else {
            return Ok(());
        };
        let mut mailbox = before;
        match mailbox.heard_at {
            _ if mailbox.session.is_none() || mailbox.messages > 0 => {}
            None => mailbox.heard_at = Some(self.now),
            Some(_) if mailbox.is_idle(self.limits.idle, self.now) => mailbox.session = None,
            Some(_) => {}
        }
        if mailbox != before {
            self.write_mailbox(identity, &mailbox)?;
        }
        Ok(())
    }

    /// What expired outside of a sweep.
    fn told_late(&mut self) -> Result<Vec<(Identity, Ticket)>, Fault> {
        let take = "DELETE FROM losses WHERE id IN (SELECT id FROM losses WHERE ns = ?1 ORDER BY id LIMIT ?2)
            RETURNING id, identity, multicast, receipts";
        let mut take = self.step.conn.prepare_cached(take)?;
        let mut losses = take
            .query_and_then((self.ns, count(SWEEP)), read_loss)?
            .collect::<Result<Vec<_>, Fault>>()?;
        losses.sort_by_key(|(id, _)| *id);
        Ok(losses.into_iter().map(|(_, loss)| loss).collect())
    }

    fn due_targets(&mut self) -> Result<Option<Targets>, Fault> {
        let find = "SELECT sending, part, identities FROM targets
            WHERE ns = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT 1";
        let mut find = self.step.conn.prepare_cached(find)?;
        let read = |row: &Row<'_>| {
            let (sending, part) = (row.get(0)?, row.get(1)?);
            Ok(blob(row, 2).and_then(|bytes| {
                let identities = read_identities(bytes);
                let identities =
                    identities.map_err(|bad| bad.fault(format_args!("the targets of {sending}")))?;
                Ok(Targets {
                    sending,
                    part,
                    identities,
                })
            }))
        };
        find.query_row((self.ns, self.now.0), read)
            .optional()?
            .transpose()
    }

    /// Does what is due about some identities, and keeps those about whom something will be.
    fn sweep_targets(&mut self, targets: Targets, swept: &mut Swept) -> Result<(), Fault> {
        let (mut kept, mut due_at) = (Vec::new(), Timestamp(i64::MAX));
        for identity in targets.identities {
            if let Some(again) = self.sweep_one(targets.sending, &identity, swept)? {
                due_at = due_at.min(again);
                kept.push(identity);
            }
        }
        let conn = self.step.conn;
        if kept.is_empty() {
            self.change_sending(targets.sending)?.parts -= 1;
            let remove = "DELETE FROM targets WHERE sending = ?1 AND part = ?2";
            conn.prepare_cached(remove)?
                .execute((targets.sending, targets.part))?;
        } else {
            let write = "UPDATE targets SET due_at = ?3, identities = ?4 WHERE sending = ?1 AND part = ?2";
            let row = (targets.sending, targets.part, due_at.0, write_identities(&kept));
            conn.prepare_cached(write)?.execute(row)?;
        }
        Ok(())
    }

    /// Does what is due about one identity; when it is to be looked at again.
    fn sweep_one(
        &mut self,
        number: i64,
        identity: &Identity,
        swept: &mut Swept,
    ) -> Result<Option<Timestamp>, Fault> {
        let sending = self.sending(number)?;
        let (multicast, expires_at, known_until) =
            (sending.multicast, sending.expires_at, sending.known_until);
        let known = self
            .known(identity, multicast)?
            .filter(|known| known.sending() == number);
        let place = match known {
            None => return Ok(None),
            Some(Known::Waiting(_)) if expires_at > self.now => return Ok(Some(expires_at)),
            Some(Known::Waiting(place)) => place,
            Some(Known::Left { until, .. }) if until > self.now => return Ok(Some(until)),
            Some(Known::Left { .. }) => {
                self.forget_known(identity, multicast)?;
                return Ok(None);
            }
        };
        let waiting = self.waiting(identity, place)?;
        let mut mailbox = self.mailbox(identity)?.unwrap_or_default();
        swept.expired.push((identity.clone(), self.ticket(place)?));
        self.take(identity, &mut mailbox, (place, waiting), Leave::Settled)?;
        self.write_mailbox(identity, &mailbox)?;
        Ok((known_until > self.now).then_some(known_until))
    }
}

fn read_loss(row: &Row<'_>) -> Result<(i64, (Identity, Ticket)), Fault> {
    let identity = Identity::new(row.get::<_, String>(1)?);
    let identity = identity.map_err(|bad| Fault::Damaged(format!("a lost message is for nobody: {bad}")))?;
    let receipts: Option<String> = row.get(3)?;
    let ticket = Ticket {
        multicast: read_multicast(blob(row, 2)?)?,
        receipts: receipts.map(Arc::from),
    };
    Ok((row.get(0)?, (identity, ticket)))
}
