//! What the messages of one store have in common, and for whom they were.
//!
//! The identities are kept with the sending, some at a time, so that what has expired and what is to be forgotten is
//! found without an index that every stored message would have to be written to.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{Identity, MulticastId, Timestamp};
use rusqlite::{OptionalExtension, Row};

use super::{desk::Desk, desk::blob};
use crate::{
    codec::{Malformed, Read, Reader, begin, put_long},
    error::Fault,
    step::count,
};

/// How many identities are kept in one row, about as many as fill a page.
const PER_ROW: usize = 128;

/// What the messages of one store have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) message: i64,
    pub(super) multicast: MulticastId,
    pub(super) stored_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Until when they are remembered once they left.
    pub(super) known_until: Timestamp,
    /// In how many inboxes it waits.
    pub(super) waiting: i64,
    /// How many rows of identities there are.
    pub(super) parts: i64,
    pub(super) receipts: Option<Arc<str>>,
    pub(super) is_changed: bool,
    /// Whether it waited anywhere when it was read.
    pub(super) has_message: bool,
}

impl Sending {
    /// When something is to be done about those for whom it was.
    pub(super) fn due_at(&self, now: Timestamp) -> Timestamp {
        let times = [self.expires_at, self.known_until];
        let ahead = times.into_iter().filter(|time| *time > now);
        ahead.min().unwrap_or(now)
    }
}

pub(super) fn read_multicast(bytes: &[u8]) -> Result<MulticastId, Fault> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Fault::Damaged("a multicast has a name of another length".to_owned()))?;
    Ok(MulticastId(u128::from_be_bytes(bytes)))
}

fn read_sending(row: &Row<'_>) -> Result<Sending, Fault> {
    let receipts: Option<String> = row.get(7)?;
    let waiting: i64 = row.get(5)?;
    Ok(Sending {
        message: row.get(0)?,
        multicast: read_multicast(blob(row, 1)?)?,
        stored_at: Timestamp(row.get(2)?),
        expires_at: Timestamp(row.get(3)?),
        known_until: Timestamp(row.get(4)?),
        waiting,
        parts: row.get(6)?,
        receipts: receipts.map(Arc::from),
        is_changed: false,
        has_message: waiting > 0,
    })
}

pub(super) fn write_identities<'i>(identities: impl IntoIterator<Item = &'i Identity>) -> Vec<u8> {
    let mut bytes = begin(PER_ROW * 32);
    for identity in identities {
        put_long(&mut bytes, identity.as_str().as_bytes());
    }
    bytes
}

pub(super) fn read_identities(bytes: &[u8]) -> Read<Vec<Identity>> {
    let mut reader = Reader::begin(Bytes::copy_from_slice(bytes))?;
    let mut identities = Vec::with_capacity(PER_ROW);
    while !reader.0.is_empty() {
        let identity = Identity::new(reader.text()?);
        identities.push(identity.map_err(|_| Malformed::new("an identity in it is no valid one"))?);
    }
    Ok(identities)
}

impl Desk<'_, '_> {
    pub(super) fn sending(&mut self, number: i64) -> Result<&Sending, Fault> {
        Ok(self.load_sending(number)?)
    }

    pub(super) fn change_sending(&mut self, number: i64) -> Result<&mut Sending, Fault> {
        let sending = self.load_sending(number)?;
        sending.is_changed = true;
        Ok(sending)
    }

    fn load_sending(&mut self, number: i64) -> Result<&mut Sending, Fault> {
        if !self.sendings.contains_key(&number) {
            let find = "SELECT message, sendings.multicast, stored_at, expires_at, known_until, waiting, parts, receipts
                FROM sendings LEFT JOIN messages ON messages.id = message WHERE number = ?1";
            let mut find = self.step.conn.prepare_cached(find)?;
            let found = find.query_row([number], |row| Ok(read_sending(row))).optional()?;
            let missing = || Fault::Damaged(format!("the sending {number} of a stored message is missing"));
            self.sendings.insert(number, found.ok_or_else(missing)??);
        }
        let missing = || Fault::Damaged(format!("the sending {number} was not read"));
        self.sendings.get_mut(&number).ok_or_else(missing)
    }

    /// Writes a new sending, and for whom it was.
    pub(super) fn write_sending(
        &mut self,
        number: i64,
        sending: &Sending,
        identities: &[&Identity],
    ) -> Result<(), Fault> {
        let conn = self.step.conn;
        let write = "INSERT INTO sendings
            (number, message, multicast, stored_at, expires_at, known_until, waiting, parts)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let parts = identities.len().div_ceil(PER_ROW);
        conn.prepare_cached(write)?.execute((
            number,
            sending.message,
            sending.multicast.0.to_be_bytes(),
            sending.stored_at.0,
            sending.expires_at.0,
            sending.known_until.0,
            count(identities.len()),
            count(parts),
        ))?;
        let due_at = sending.due_at(self.now).0;
        let write = "INSERT INTO targets (sending, part, ns, due_at, identities) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut write = conn.prepare_cached(write)?;
        for (part, identities) in (0_i64..).zip(identities.chunks(PER_ROW)) {
            let identities = write_identities(identities.iter().copied());
            write.execute((number, part, self.ns, due_at, identities))?;
        }
        Ok(())
    }

    /// Writes what became of sendings. One that waits nowhere any more does not need its message.
    pub(super) fn write_sendings(&mut self) -> Result<(), Fault> {
        let conn = self.step.conn;
        let changed: Vec<(i64, Sending)> = self
            .sendings
            .drain()
            .filter(|(_, sending)| sending.is_changed)
            .collect();
        for (number, sending) in changed {
            if sending.has_message && sending.waiting == 0 {
                self.release(sending.message)?;
            }
            if sending.parts == 0 {
                conn.prepare_cached("DELETE FROM sendings WHERE number = ?1")?
                    .execute([number])?;
            } else {
                let write = "UPDATE sendings SET waiting = ?2, parts = ?3 WHERE number = ?1";
                conn.prepare_cached(write)?
                    .execute((number, sending.waiting, sending.parts))?;
            }
        }
        Ok(())
    }
}
