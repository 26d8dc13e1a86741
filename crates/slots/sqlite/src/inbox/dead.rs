//! Dead letters.

use bytes::{BufMut, Bytes};
use prism_slot::{
    Address, DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, Identity, Redriven, Terms, Timestamp,
};
use rusqlite::{OptionalExtension, Row};

use super::{
    desk::{Desk, blob},
    parts::Known,
};
use crate::{
    codec::{Malformed, Read, Reader, begin, put_long},
    error::Fault,
    step::count,
};

/// How many letters make room for one, at most: so they come down to a lower limit step by step.
const TRIM: usize = 256;
/// How many bytes of messages a page has, about.
const PAGE_BYTES: usize = 8 << 20;

/// What is stored of a letter beside its message.
struct Letter {
    reason: DeadReason,
    attempts: u32,
    died_at: Timestamp,
}

impl Letter {
    fn write(&self) -> Vec<u8> {
        let (code, text) = match &self.reason {
            DeadReason::MaxDeliver => (1, ""),
            DeadReason::Terminated(reason) => (2, reason.as_str()),
            DeadReason::OtherHolder => (3, ""),
        };
        let mut bytes = begin(32 + text.len());
        bytes.put_u8(code);
        put_long(&mut bytes, text.as_bytes());
        bytes.put_u32(self.attempts);
        bytes.put_i64(self.died_at.0);
        bytes
    }

    fn read(bytes: &[u8]) -> Read<Self> {
        let mut reader = Reader::begin(Bytes::copy_from_slice(bytes))?;
        let (code, text) = (reader.byte()?, reader.text()?);
        let reason = match code {
            1 => DeadReason::MaxDeliver,
            2 => DeadReason::Terminated(text),
            3 => DeadReason::OtherHolder,
            _ => return Err(Malformed::new("it died of something unknown")),
        };
        Ok(Self {
            reason,
            attempts: reader.word()?,
            died_at: Timestamp(reader.signed()?),
        })
    }
}

impl Desk<'_, '_> {
    /// Adds a message to the dead letters; the oldest make room.
    pub(super) fn bury(
        &mut self,
        identity: &Identity,
        message: i64,
        attempts: u32,
        reason: &DeadReason,
    ) -> Result<(), Fault> {
        self.use_again(message)?;
        let id = self.step.next()?;
        let letter = Letter {
            reason: reason.clone(),
            attempts,
            died_at: self.now,
        };
        let write = "INSERT INTO dead (ns, id, identity, message, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = (self.ns, id, identity.as_str(), message, letter.write());
        self.step.conn.prepare_cached(write)?.execute(row)?;
        self.step.change_totals(self.ns)?.dead += 1;
        let most = count(self.limits.max_dead_letters);
        for _ in 0..TRIM {
            if self.step.totals(self.ns)?.dead <= most {
                break;
            }
            self.forget_oldest()?;
        }
        Ok(())
    }

    fn forget_oldest(&mut self) -> Result<(), Fault> {
        let find = "SELECT id, message FROM dead WHERE ns = ?1 ORDER BY id LIMIT 1";
        let mut find = self.step.conn.prepare_cached(find)?;
        let oldest = find.query_row([self.ns], |row| Ok((row.get(0)?, row.get(1)?)));
        match oldest.optional()? {
            Some((id, message)) => self.forget_letter(id, message),
            None => {
                self.step.change_totals(self.ns)?.dead = 0;
                Ok(())
            }
        }
    }

    fn forget_letter(&mut self, id: i64, message: i64) -> Result<(), Fault> {
        let remove = "DELETE FROM dead WHERE ns = ?1 AND id = ?2";
        self.step.conn.prepare_cached(remove)?.execute((self.ns, id))?;
        self.step.change_totals(self.ns)?.dead -= 1;
        self.release(message)
    }

    pub(super) fn dead_letters(&mut self, query: &DeadQuery) -> Result<DeadPage, Fault> {
        let limit = query.limit.max(1);
        let after = query
            .after
            .map_or(0, |DeadId(after)| i64::try_from(after).unwrap_or(i64::MAX));
        let rows = self.letters(after, query.identity.as_ref(), limit.saturating_add(1))?;
        let mut page = DeadPage::default();
        let mut bytes = 0;
        for (id, identity, message, letter) in rows {
            if page.letters.len() == limit || bytes > PAGE_BYTES {
                page.more = true;
                break;
            }
            let message = self.message(message)?;
            bytes += message.payload.len();
            page.letters.push(DeadLetter {
                id: DeadId(id.cast_unsigned()),
                identity,
                reason: letter.reason,
                attempts: letter.attempts,
                died_at: letter.died_at,
                message,
            });
        }
        Ok(page)
    }

    fn letters(
        &self,
        after: i64,
        identity: Option<&Identity>,
        limit: usize,
    ) -> Result<Vec<(i64, Identity, i64, Letter)>, Fault> {
        let conn = self.step.conn;
        let limit = count(limit);
        let of_all =
            "SELECT id, identity, message, body FROM dead WHERE ns = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let of_one = "SELECT id, identity, message, body FROM dead
            WHERE ns = ?1 AND id > ?2 AND identity = ?4 ORDER BY id LIMIT ?3";
        match identity {
            None => conn
                .prepare_cached(of_all)?
                .query_and_then((self.ns, after, limit), read_row)?
                .collect(),
            Some(identity) => conn
                .prepare_cached(of_one)?
                .query_and_then((self.ns, after, limit, identity.as_str()), read_row)?
                .collect(),
        }
    }

    pub(super) fn redrive(
        &mut self,
        DeadId(id): DeadId,
        to: &Address,
        terms: Terms,
    ) -> Result<Redriven, Fault> {
        let find = "SELECT message FROM dead WHERE ns = ?1 AND id = ?2 AND identity = ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let id = i64::try_from(id).unwrap_or(0);
        let found: Option<i64> = find
            .query_row((self.ns, id, to.identity.as_str()), |row| row.get(0))
            .optional()?;
        let Some(number) = found else {
            return Ok(Redriven::Gone);
        };
        let message = self.message(number)?;
        let known = self.known(&to.identity, message.multicast)?;
        if matches!(known, Some(Known::Waiting(_))) {
            // It was stored once more since. Once is enough.
            self.forget_letter(id, number)?;
            return Ok(Redriven::Back);
        }
        let mut mailbox = self.mailbox(&to.identity)?.unwrap_or_default();
        if self.is_full(&to.identity, &mut mailbox)? {
            return Ok(Redriven::Full);
        }
        self.put_again(to, mailbox, (number, &message), terms)?;
        self.forget_letter(id, number)?;
        Ok(Redriven::Back)
    }
}

fn read_row(row: &Row<'_>) -> Result<(i64, Identity, i64, Letter), Fault> {
    let id: i64 = row.get(0)?;
    let damaged = |bad: Malformed| bad.fault(format_args!("the dead letter {id}"));
    let identity = Identity::new(row.get::<_, String>(1)?);
    let identity = identity.map_err(|_| damaged(Malformed::new("its identity is not a valid one")))?;
    let letter = Letter::read(blob(row, 3)?).map_err(damaged)?;
    Ok((id, identity, row.get(2)?, letter))
}
