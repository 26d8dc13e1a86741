//! Paging through all records.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use prism_slot::{Epoch, Error, Identity, Revision, ScanPage};

use super::{
    desk::Desk,
    records::{read_entry, read_identity},
};
use crate::{
    codec::{Malformed, Read, Reader, begin, put_long},
    error::{Fault, unreadable},
    step::count,
};

/// How many records a page has at most, and how many bytes, about.
const PAGE: usize = 1_024;
const PAGE_BYTES: usize = 4 << 20;
/// How long a scan may ask the feed to be held at a time.
const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// Where a scan goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    pub(super) epoch: Option<Epoch>,
    /// The last record of the page before.
    after: Option<Identity>,
    /// Where the history was when the scan began.
    began_at: u64,
}

impl Cursor {
    pub(super) fn read(cursor: Option<Bytes>) -> Result<Self, Error> {
        let Some(bytes) = cursor else {
            return Ok(Self::default());
        };
        let read = |bytes| -> Read<Self> {
            let mut reader = Reader::begin(bytes)?;
            let (epoch, began_at) = (Epoch(reader.long()?), reader.long()?);
            let after = Identity::new(reader.text()?)
                .map_err(|_| Malformed::new("its identity is not a valid one"))?;
            Ok(Self {
                epoch: Some(epoch),
                after: Some(after),
                began_at,
            })
        };
        read(bytes).map_err(|bad| unreadable(format!("a cursor cannot be used, {}", bad.0)))
    }

    fn write(epoch: Epoch, began_at: u64, after: &Identity) -> Bytes {
        let mut bytes = begin(32 + after.as_str().len());
        bytes.put_u64(epoch.0);
        bytes.put_u64(began_at);
        put_long(&mut bytes, after.as_str().as_bytes());
        bytes.into()
    }
}

impl Desk<'_, '_> {
    pub(super) fn scan(&mut self, cursor: &Cursor, limit: usize, hold: Duration) -> Result<ScanPage, Fault> {
        let head = self.head()?.clone();
        let began_at = cursor.after.as_ref().map_or(head.revision.0, |_| cursor.began_at);
        self.hold_feed(began_at, hold)?;
        // Every identity comes after the empty text.
        let after = cursor.after.as_ref().map_or("", Identity::as_str);
        let find = "SELECT identity, deadline, queued_at, body FROM records
            WHERE ns = ?1 AND identity > ?2 ORDER BY identity LIMIT ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let limit = limit.clamp(1, PAGE);
        let mut rows = find.query((self.ns, after, count(limit)))?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some(row) = rows.next()?
        {
            let identity = read_identity(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            let entry = read_entry(identity, row, 1)?;
            bytes += entry.stored.record.metadata.len();
            records.push(entry.as_read(&head.clock));
        }
        let is_full = records.len() == limit || bytes >= PAGE_BYTES;
        let last = records.last().filter(|_| is_full);
        Ok(ScanPage {
            next: last.map(|last| Cursor::write(head.epoch, began_at, &last.identity)),
            records,
            head: head.position(),
            secret: head.secret,
        })
    }

    /// Keeps the changes after a revision for a while. There is one hold for all who ask: the earliest start, and
    /// the latest end.
    fn hold_feed(&mut self, from: u64, hold: Duration) -> Result<(), Fault> {
        if hold.is_zero() || self.step.is_short() {
            return Ok(());
        }
        let millis = u64::try_from(hold.min(LONGEST_HOLD).as_millis()).unwrap_or(0);
        let head = self.head()?;
        let (now, is_held) = (head.clock.now, head.held_until > head.clock.now);
        // Half of it is enough for a while: not every page is to cost a commit.
        if is_held && head.held_from.0 <= from && head.held_until - now >= millis / 2 {
            return Ok(());
        }
        let head = self.change_head()?;
        let from = if is_held { head.held_from.0.min(from) } else { from };
        head.held_from = Revision(from);
        head.held_until = head.held_until.max(now.saturating_add(millis));
        Ok(())
    }
}
