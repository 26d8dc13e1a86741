//! Records in their table.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{Cause, Error, Identity, Position, Record, Timestamp, lease::LeaseClock};
use rusqlite::{OptionalExtension, Row};

use super::desk::Desk;
use crate::{
    codec::{self, Stored},
    error::Fault,
};

/// A record and its lease.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) stored: Stored,
    /// On the lease clock; meaningless without a ttl.
    pub(super) deadline: u64,
    /// When the lease is looked at next, which may be before it ends: renewing does not touch the index.
    pub(super) queued_at: Option<u64>,
}

impl Entry {
    pub(super) fn is_due(&self, clock: &LeaseClock) -> bool {
        let ttl = self.stored.record.ttl;
        ttl.is_some_and(|ttl| clock.is_due(self.deadline, ttl))
    }

    pub(super) fn expires_at(&self, clock: &LeaseClock) -> Option<Timestamp> {
        let ttl = self.stored.record.ttl;
        ttl.map(|ttl| clock.expires_at(self.deadline, ttl))
    }

    /// Gives the lease its full length from now.
    pub(super) fn extend(&mut self, clock: &LeaseClock) {
        let Some(ttl) = self.stored.record.ttl else {
            (self.deadline, self.queued_at) = (0, None);
            return;
        };
        self.deadline = clock.deadline(ttl);
        // Only a deadline before the one at which it is looked at makes a difference there.
        if self.queued_at.is_none_or(|queued| queued > self.deadline) {
            self.queued_at = Some(self.deadline);
        }
    }

    pub(super) fn check_generation(&self, asked: Option<Position>) -> Result<(), Error> {
        let record = &self.stored.record;
        if asked.is_some_and(|asked| asked != record.generation) {
            return Err(Error::StaleGeneration {
                identity: record.identity.clone(),
                current: record.generation,
            });
        }
        Ok(())
    }

    /// The record with its lease as it is now.
    pub(super) fn as_read(&self, clock: &LeaseClock) -> Arc<Record> {
        Arc::new(Record {
            expires_at: self.expires_at(clock),
            ..self.stored.record.clone()
        })
    }
}

/// Lease times are stored as signed numbers; the last of those stands for all beyond.
pub(super) fn stored_time(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn read_time(time: Option<i64>) -> Option<u64> {
    time.map(|time| u64::try_from(time).unwrap_or(0))
}

/// Reads `deadline, queued_at, body`, from the column `first` on.
pub(super) fn read_entry(identity: Identity, row: &Row<'_>, first: usize) -> Result<Entry, Fault> {
    let deadline = read_time(row.get(first)?).unwrap_or(0);
    let queued_at = read_time(row.get(first + 1)?);
    let body: Vec<u8> = row.get(first + 2)?;
    let stored = codec::read_record(identity.clone(), Bytes::from(body))
        .map_err(|bad| bad.fault(format_args!("the record of `{identity}`")))?;
    Ok(Entry {
        stored,
        deadline,
        queued_at,
    })
}

pub(super) fn read_identity(text: &str) -> Result<Identity, Fault> {
    Identity::new(text).map_err(|bad| Fault::Damaged(format!("a stored identity cannot be one: {bad}")))
}

impl Desk<'_, '_> {
    /// The entry of an identity, due or not.
    pub(super) fn find(&mut self, identity: &Identity) -> Result<Option<Entry>, Fault> {
        let find = "SELECT deadline, queued_at, body FROM records WHERE ns = ?1 AND identity = ?2";
        let mut find = self.step.conn.prepare_cached(find)?;
        let read = |row: &Row<'_>| Ok(read_entry(identity.clone(), row, 0));
        find.query_row((self.ns, identity.as_str()), read)
            .optional()?
            .transpose()
    }

    /// The entry of an identity, which is expired first if it is due. That it has ended is told later where there is no
    /// room to write it.
    pub(super) fn find_live(&mut self, identity: &Identity) -> Result<Option<Entry>, Fault> {
        let Some(entry) = self.find(identity)? else {
            return Ok(None);
        };
        if entry.is_due(&self.clock()?) {
            if !self.step.is_short() {
                self.remove(&entry, Cause::Expired)?;
            }
            return Ok(None);
        }
        Ok(Some(entry))
    }

    /// The live entry of an identity under the asked generation.
    pub(super) fn live(&mut self, identity: &Identity, generation: Option<Position>) -> Result<Entry, Fault> {
        let found = self.find_live(identity)?;
        let entry = found.ok_or_else(|| Error::NotFound(identity.clone()))?;
        entry.check_generation(generation)?;
        Ok(entry)
    }

    /// Writes an entry in the place of the one before, if there was one.
    pub(super) fn write(&mut self, entry: &Entry) -> Result<(), Fault> {
        let write =
            "INSERT INTO records (ns, identity, deadline, queued_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (ns, identity) DO UPDATE
            SET deadline = excluded.deadline, queued_at = excluded.queued_at, body = excluded.body";
        let record = &entry.stored.record;
        let deadline = record.ttl.map(|_| stored_time(entry.deadline));
        self.step.conn.prepare_cached(write)?.execute((
            self.ns,
            record.identity.as_str(),
            deadline,
            entry.queued_at.map(stored_time),
            codec::write_record(&entry.stored),
        ))?;
        Ok(())
    }

    /// Writes when a lease ends, and nothing else. `queued_before`: when it was to be looked at before.
    pub(super) fn write_lease(&mut self, entry: &Entry, queued_before: Option<u64>) -> Result<(), Fault> {
        let identity = entry.stored.record.identity.as_str();
        let (deadline, queued_at) = (stored_time(entry.deadline), entry.queued_at.map(stored_time));
        let conn = self.step.conn;
        if entry.queued_at == queued_before {
            let write = "UPDATE records SET deadline = ?3 WHERE ns = ?1 AND identity = ?2";
            conn.prepare_cached(write)?
                .execute((self.ns, identity, deadline))?;
        } else {
            let write = "UPDATE records SET deadline = ?3, queued_at = ?4 WHERE ns = ?1 AND identity = ?2";
            conn.prepare_cached(write)?
                .execute((self.ns, identity, deadline, queued_at))?;
        }
        Ok(())
    }

    /// Removes a record, at a revision of its own.
    pub(super) fn remove(&mut self, entry: &Entry, cause: Cause) -> Result<(), Fault> {
        let record = &entry.stored.record;
        let remove = "DELETE FROM records WHERE ns = ?1 AND identity = ?2";
        let conn = self.step.conn;
        conn.prepare_cached(remove)?
            .execute((self.ns, record.identity.as_str()))?;
        self.change_head()?.records -= 1;
        let last = entry.as_read(&self.clock()?);
        self.append(cause, &last, None)
    }
}
