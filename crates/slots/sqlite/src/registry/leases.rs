//! Leases that are due.

use prism_slot::{Cause, Error};

use super::{
    desk::Desk,
    records::{Entry, read_entry, read_identity, stored_time},
};
use crate::{error::Fault, step::count};

impl Desk<'_, '_> {
    /// Expires due leases, looking at `limit` of them at most; says whether some were left that can be.
    pub(super) fn expire_due(&mut self, limit: usize) -> Result<bool, Fault> {
        if self.step.is_short() {
            return Ok(false);
        }
        let clock = self.clock()?;
        for mut entry in self.queued(limit)? {
            let end = entry
                .stored
                .record
                .ttl
                .map(|ttl| clock.effective(entry.deadline, ttl));
            match end {
                Some(end) if end <= clock.now => self.remove(&entry, Cause::Expired)?,
                end => {
                    let before = std::mem::replace(&mut entry.queued_at, end);
                    self.write_lease(&entry, before)?;
                }
            }
        }
        let more = "SELECT 1 FROM records WHERE ns = ?1 AND queued_at <= ?2 LIMIT 1";
        let mut more = self.step.conn.prepare_cached(more)?;
        Ok(more.exists((self.ns, stored_time(clock.now)))?)
    }

    /// The leases that are to be looked at by now, those first that were to be first.
    fn queued(&mut self, limit: usize) -> Result<Vec<Entry>, Fault> {
        let now = stored_time(self.clock()?.now);
        let find = "SELECT identity, deadline, queued_at, body FROM records
            WHERE ns = ?1 AND queued_at <= ?2 ORDER BY queued_at, identity LIMIT ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let limit = count(limit);
        let found = find.query_and_then((self.ns, now, limit), |row| {
            let identity = read_identity(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            read_entry(identity, row, 1)
        })?;
        found.collect()
    }

    /// Makes sure that one more identity may be registered.
    pub(super) fn make_room(&mut self, limit: u64) -> Result<(), Fault> {
        while self.head()?.records >= limit {
            if !self.expire_due(1)? && self.head()?.records >= limit {
                return Err(Error::QuotaExceeded { limit }.into());
            }
        }
        Ok(())
    }
}
