//! The changes of a namespace, as far back as its limits reach.

use bytes::Bytes;
use prism_slot::{Cause, Change, Error, Record, Revision, Sync};
use rusqlite::OptionalExtension;

use super::{desk::Desk, records::stored_time};
use crate::{codec, config::Config, error::Fault, step::count};

/// How many due leases one `sync` looks at before it says that there are more.
const EXPIRE_LIMIT: usize = 1_024;
/// How many bytes of changes one `sync` returns, about.
const SYNC_BYTES: usize = 8 << 20;
/// How many changes make room for one, at most: so the feed comes down to lower limits step by step.
const TRIM: usize = 8;
/// By how much somebody who scans may let the feed outgrow its limits.
const HOLD_FACTOR: u64 = 2;

/// How far back the feed reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedLimits {
    changes: u64,
    bytes: u64,
    /// In milliseconds of lease time.
    age: u64,
}

impl FeedLimits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            changes: config.feed_max_changes,
            bytes: config.feed_max_bytes as u64,
            age: u64::try_from(config.feed_max_age.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The oldest change of a feed.
struct Oldest {
    size: u64,
    /// When the one after it was made, if there is one.
    next_at: Option<u64>,
}

impl Desk<'_, '_> {
    /// Writes a change at the next revision.
    pub(super) fn append(
        &mut self,
        cause: Cause,
        record: &Record,
        before: Option<&Record>,
    ) -> Result<(), Fault> {
        let body = codec::write_change(cause, record, before);
        let (ns, conn, size) = (self.ns, self.step.conn, body.len());
        let head = self.change_head()?;
        head.revision = head.revision.next();
        let (revision, at) = (head.revision.0.cast_signed(), head.clock.now);
        if head.revision == head.compacted_to.next() {
            head.oldest_at = at;
        }
        head.feed_bytes += size as u64;
        let write = "INSERT INTO feed (ns, revision, at, size, body) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = (ns, revision, stored_time(at), count(size), body);
        conn.prepare_cached(write)?.execute(row)?;
        self.trim()
    }

    fn trim(&mut self) -> Result<(), Fault> {
        for _ in 0..TRIM {
            if !self.is_too_long()? {
                return Ok(());
            }
            let oldest = self.oldest()?;
            let (ns, conn) = (self.ns, self.step.conn);
            let head = self.change_head()?;
            head.compacted_to = head.compacted_to.next();
            head.feed_bytes = head.feed_bytes.saturating_sub(oldest.size);
            head.oldest_at = oldest.next_at.unwrap_or(head.clock.now);
            let gone = head.compacted_to.0.cast_signed();
            conn.prepare_cached("DELETE FROM feed WHERE ns = ?1 AND revision = ?2")?
                .execute((ns, gone))?;
        }
        Ok(())
    }

    /// Whether the oldest change is to go. Somebody who scans has it stay longer, within bounds.
    fn is_too_long(&mut self) -> Result<bool, Fault> {
        let limits = self.limits;
        let head = self.head()?;
        let count = head.revision.0 - head.compacted_to.0;
        let outgrown = |factor: u64| {
            count > limits.changes.saturating_mul(factor)
                || head.feed_bytes > limits.bytes.saturating_mul(factor)
        };
        let aged = head.clock.now.saturating_sub(head.oldest_at) > limits.age;
        let held = head.held_until > head.clock.now && head.compacted_to >= head.held_from;
        Ok(count > 0 && (outgrown(HOLD_FACTOR) || !held && (outgrown(1) || aged)))
    }

    fn oldest(&mut self) -> Result<Oldest, Fault> {
        let first = self.head()?.compacted_to.next().0.cast_signed();
        let mut find = self
            .step
            .conn
            .prepare_cached("SELECT at, size FROM feed WHERE ns = ?1 AND revision = ?2")?;
        let mut read = |revision: i64| {
            let row = find.query_row((self.ns, revision), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            });
            row.optional()
        };
        let size = read(first)?.map_or(0, |(_, size)| size.cast_unsigned());
        let next_at = read(first + 1)?.map(|(at, _)| at.cast_unsigned());
        Ok(Oldest { size, next_at })
    }

    pub(super) fn sync(&mut self, from: Revision, limit: usize) -> Result<Sync, Fault> {
        let more_due = self.expire_due(EXPIRE_LIMIT)?;
        let head = self.head()?.clone();
        // A caller ahead of the head has seen a history that this one is not.
        if from < head.compacted_to || from > head.revision {
            let up_to = head.compacted_to;
            return Err(Error::Compacted { up_to }.into());
        }
        let changes = self.changes(from, limit)?;
        let last = changes.last().map_or(from, |change| change.revision);
        Ok(Sync {
            head: head.position(),
            changes,
            more: more_due || last < head.revision,
        })
    }

    fn changes(&mut self, from: Revision, limit: usize) -> Result<Vec<Change>, Fault> {
        let find =
            "SELECT revision, body FROM feed WHERE ns = ?1 AND revision > ?2 ORDER BY revision LIMIT ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let limit = count(limit);
        let mut rows = find.query((self.ns, from.0.cast_signed(), limit))?;
        let (mut changes, mut bytes, mut last) = (Vec::new(), 0, from);
        while let Some(row) = rows.next()? {
            let revision = Revision(row.get::<_, i64>(0)?.cast_unsigned());
            let body: Vec<u8> = row.get(1)?;
            if revision != last.next() {
                return Err(Fault::Damaged(format!(
                    "the feed has no change {}",
                    last.next().0
                )));
            }
            (bytes, last) = (bytes + body.len(), revision);
            let change = codec::read_change(revision, Bytes::from(body));
            changes.push(change.map_err(|bad| bad.fault(format_args!("change {}", revision.0)))?);
            if bytes > SYNC_BYTES {
                break;
            }
        }
        Ok(changes)
    }
}
